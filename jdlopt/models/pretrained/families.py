"""Tables of names: what each family of checkpoints calls the parameters of a model here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jdlopt.models.vgg import DEPTHS

Array = np.ndarray
BATCH_STATS = "batch_stats/"
"""How paths of running statistics begin, to tell them from parameters."""


class Turn(NamedTuple):
    """How a tensor there becomes one here, and back.

    Attributes:
      read: theirs → ours.
      write: ours → theirs, given how many channels the model's images have.
      part: which it is of three tensors that stand there side by side along the last axis; None: a
        tensor there is one here.
    """

    read: Callable[[Array], Array]
    write: Callable[[Array, int], Array]
    part: int | None = None


def _conv(x: Array) -> Array:
    return x.transpose(*range(2, x.ndim), 1, 0)


def _patches(x: Array, channels: int) -> Array:
    size = math.isqrt(len(x) // channels)
    return x.reshape(size, size, channels, -1).transpose(3, 2, 0, 1)


def third(place: int) -> Turn:
    """Returns the turn that takes one of three tensors side by side along the last axis."""
    return Turn(lambda x: np.split(x, 3, axis=-1)[place], lambda x, _: x, place)


same = Turn(lambda x: x, lambda x, _: x)
"""A tensor as it is."""
dense = Turn(lambda x: x.T, lambda x, _: x.T)
"""PyTorch's (outputs, inputs) → (inputs, outputs)."""
conv = Turn(_conv, lambda x, _: x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)))
"""PyTorch's (outputs, inputs, *taps) → (*taps, inputs, outputs)."""
patches = Turn(lambda x: _conv(x).reshape(-1, x.shape[0]), _patches)
"""A convolution that cuts an image into patches → the matrix of a flattened patch."""
vector = Turn(lambda x: x.reshape(-1), lambda x, _: x.reshape(1, 1, -1))
"""(1, 1, n) → (n,)."""
first = Turn(lambda x: x[0], lambda x, _: x[None])
"""(1, …) → (…)."""
flattened = Turn(
    lambda x: x.reshape(x.shape[0], -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    lambda x, _: x.reshape(7, 7, -1, x.shape[1]).transpose(3, 2, 0, 1).reshape(x.shape[1], -1),
)
"""The matrix behind maps of 7×7, channels first → channels last."""


class Rule(NamedTuple):
    """Where some parameters come from.

    Attributes:
      ours: a regular expression of a whole path here.
      theirs: the name there, with the expression's groups as ``{0}``, ``{1}``.
      turn: how their tensor becomes ours, and back.
    """

    ours: re.Pattern[str]
    theirs: str
    turn: Turn


class Family(NamedTuple):
    """Checkpoints that name their tensors alike.

    Attributes:
      name: for people.
      rules: the first that fits a path counts.
      prefixes: what may stand before all names.
      unneeded: regular expressions of names that a model here has no use for.
    """

    name: str
    rules: tuple[Rule, ...]
    prefixes: tuple[str, ...] = ("", "module.", "model.")
    unneeded: tuple[str, ...] = ()

    def source(self, path: str) -> tuple[str, Turn] | None:
        """Returns the name and the turn of a path here, or None where the family has none."""
        for rule in self.rules:
            match = rule.ours.fullmatch(path)
            if match:
                return rule.theirs.format(*match.groups()), rule.turn
        return None

    def is_unneeded(self, name: str) -> bool:
        """Returns whether a name of theirs may be left over."""
        return any(re.search(pattern, name) for pattern in self.unneeded)


def _rule(ours: str, theirs: str, turn: Turn = same) -> Rule:
    return Rule(re.compile(ours), theirs, turn)


def _linear(ours: str, theirs: str, turn: Turn = dense) -> tuple[Rule, Rule]:
    return (
        _rule(f"{ours}/kernel", f"{theirs}.weight", turn),
        _rule(f"{ours}/bias", f"{theirs}.bias"),
    )


def _norm(ours: str, theirs: str) -> tuple[Rule, Rule]:
    return _rule(f"{ours}/scale", f"{theirs}.weight"), _rule(f"{ours}/bias", f"{theirs}.bias")


def _batch_norm(ours: str, theirs: str) -> tuple[Rule, ...]:
    return (
        *_norm(f"{ours}/norm", theirs),
        _rule(f"{BATCH_STATS}{ours}/norm/mean", f"{theirs}.running_mean"),
        _rule(f"{BATCH_STATS}{ours}/norm/var", f"{theirs}.running_var"),
    )


LAYER = r"layer_(\d+)"

BERT = Family(
    "BERT",
    (
        _rule("embeddings/tokens/embedding", "embeddings.word_embeddings.weight"),
        _rule("embeddings/positions/embedding", "embeddings.position_embeddings.weight"),
        _rule("embeddings/types/embedding", "embeddings.token_type_embeddings.weight"),
        *_norm("embeddings/norm", "embeddings.LayerNorm"),
        *_linear(rf"{LAYER}/attention/(query|key|value)", "encoder.layer.{0}.attention.self.{1}"),
        *_linear(rf"{LAYER}/attention/out", "encoder.layer.{0}.attention.output.dense"),
        *_norm(rf"{LAYER}/norm_0", "encoder.layer.{0}.attention.output.LayerNorm"),
        *_linear(rf"{LAYER}/mlp/up", "encoder.layer.{0}.intermediate.dense"),
        *_linear(rf"{LAYER}/mlp/down", "encoder.layer.{0}.output.dense"),
        *_norm(rf"{LAYER}/norm_1", "encoder.layer.{0}.output.LayerNorm"),
        *_linear("pooler", "pooler.dense"),
        *_linear("head/outputs", "classifier"),
    ),
    prefixes=("", "bert.", "model.", "module.", "0.auto_model."),
    unneeded=(r"position_ids$", r"^pooler\.", r"^cls\.", r"^classifier\.", r"^seq_relationship"),
)


def _gpt(ours: str, theirs: str) -> tuple[Rule, Rule]:
    return _linear(ours, theirs, same)  # its matrices are (inputs, outputs) already


def _gpt_third(name: str, place: int) -> tuple[Rule, Rule]:
    theirs = "h.{0}.attn.c_attn"
    return (
        _rule(rf"{LAYER}/attention/{name}/kernel", f"{theirs}.weight", third(place)),
        _rule(rf"{LAYER}/attention/{name}/bias", f"{theirs}.bias", third(place)),
    )


GPT2 = Family(
    "GPT-2",
    (
        _rule("embeddings/tokens/embedding", "wte.weight"),
        _rule("embeddings/positions/embedding", "wpe.weight"),
        *_norm(rf"{LAYER}/norm_0", "h.{0}.ln_1"),
        *_gpt_third("query", 0),
        *_gpt_third("key", 1),
        *_gpt_third("value", 2),
        *_gpt(rf"{LAYER}/attention/out", "h.{0}.attn.c_proj"),
        *_norm(rf"{LAYER}/norm_1", "h.{0}.ln_2"),
        *_gpt(rf"{LAYER}/mlp/up", "h.{0}.mlp.c_fc"),
        *_gpt(rf"{LAYER}/mlp/down", "h.{0}.mlp.c_proj"),
        *_norm("norm", "ln_f"),
    ),
    prefixes=("", "transformer.", "model.", "module."),
    unneeded=(r"attn\.bias$", r"attn\.masked_bias$", r"^lm_head\.", r"^score\."),
)


def _vit(name: str, layer: str, sides: dict[str, str], mlp: tuple[str, str], norms: str) -> Family:
    return Family(
        name,
        (
            _rule("embeddings/patches/kernel", "embeddings.patch_embeddings.projection.weight",
                  patches),
            _rule("embeddings/patches/bias", "embeddings.patch_embeddings.projection.bias"),
            _rule("embeddings/class_token", "embeddings.cls_token", vector),
            _rule("embeddings/positions/embedding", "embeddings.position_embeddings", first),
            *(
                rule
                for ours, theirs in sides.items()
                for rule in _linear(rf"{LAYER}/attention/{ours}", f"{layer}.{theirs}")
            ),
            *_linear(rf"{LAYER}/mlp/up", f"{layer}.{mlp[0]}"),
            *_linear(rf"{LAYER}/mlp/down", f"{layer}.{mlp[1]}"),
            *_norm(rf"{LAYER}/norm_0", f"{layer}.layernorm_before"),
            *_norm(rf"{LAYER}/norm_1", f"{layer}.layernorm_after"),
            *_norm("norm", norms),
            *_linear("head/outputs", "classifier"),
        ),
        prefixes=("", "vit.", "model.", "module."),
        unneeded=(r"^pooler\.", r"^classifier\."),
    )  # fmt: skip


VIT = _vit(
    "ViT", "layers.{0}",
    {"query": "attention.q_proj", "key": "attention.k_proj", "value": "attention.v_proj",
     "out": "attention.o_proj"},
    ("mlp.fc1", "mlp.fc2"), "layernorm",
)  # fmt: skip
VIT_OLD = _vit(
    "ViT, as of before 2026", "encoder.layer.{0}",
    {"query": "attention.attention.query", "key": "attention.attention.key",
     "value": "attention.attention.value", "out": "attention.output.dense"},
    ("intermediate.dense", "output.dense"), "layernorm",
)  # fmt: skip

BLOCK = r"stage_(\d+)_block_(\d+)"


def _stages(count: int, rule: Callable[[int], tuple[Rule, ...]]) -> tuple[Rule, ...]:
    """Rules for each stage, where theirs count from 1."""
    return tuple(one for stage in range(count) for one in rule(stage))


def _torchvision_stage(stage: int) -> tuple[Rule, ...]:
    ours, theirs = rf"stage_{stage}_block_(\d+)", f"layer{stage + 1}.{{0}}"
    places = tuple(
        rule
        for place in range(3)
        for rule in (
            _rule(f"{ours}/conv_{place}/kernel", f"{theirs}.conv{place + 1}.weight", conv),
            *_batch_norm(f"{ours}/norm_{place}", f"{theirs}.bn{place + 1}"),
        )
    )
    return (
        *places,
        _rule(f"{ours}/shortcut/kernel", f"{theirs}.downsample.0.weight", conv),
        *_batch_norm(f"{ours}/shortcut_norm", f"{theirs}.downsample.1"),
    )


TORCHVISION_RESNET = Family(
    "torchvision's ResNet",
    (
        _rule("stem/kernel", "conv1.weight", conv),
        *_batch_norm("stem_norm", "bn1"),
        *_stages(8, _torchvision_stage),
        *_linear("head/outputs", "fc"),
    ),
    unneeded=(r"num_batches_tracked$", r"^fc\."),
)
HUGGING_FACE_RESNET = Family(
    "Hugging Face's ResNet",
    (
        _rule("stem/kernel", "embedder.embedder.convolution.weight", conv),
        *_batch_norm("stem_norm", "embedder.embedder.normalization"),
        _rule(rf"{BLOCK}/conv_(\d)/kernel",
              "encoder.stages.{0}.layers.{1}.layer.{2}.convolution.weight", conv),
        *_batch_norm(rf"{BLOCK}/norm_(\d)",
                     "encoder.stages.{0}.layers.{1}.layer.{2}.normalization"),
        _rule(rf"{BLOCK}/shortcut/kernel",
              "encoder.stages.{0}.layers.{1}.shortcut.convolution.weight", conv),
        *_batch_norm(rf"{BLOCK}/shortcut_norm",
                     "encoder.stages.{0}.layers.{1}.shortcut.normalization"),
        *_linear("head/outputs", "classifier.1"),
    ),
    prefixes=("", "resnet.", "model.", "module."),
    unneeded=(r"num_batches_tracked$", r"^classifier\."),
)  # fmt: skip


def _lite_block(number: int) -> tuple[Rule, ...]:
    return tuple(
        rule
        for place, name in enumerate(("expand", "depthwise", "project"))
        for rule in (
            _rule(f"block_{number:02}/{name}/kernel", f"_blocks.{number}._{name}_conv.weight",
                  conv),
            *_batch_norm(f"block_{number:02}/{name}_norm", f"_blocks.{number}._bn{place}"),
        )
    )  # fmt: skip


EFFICIENTNET_LITE = Family(
    "EfficientNet-Lite in PyTorch",
    (
        _rule("stem/kernel", "_conv_stem.weight", conv),
        *_batch_norm("stem_norm", "_bn0"),
        *_stages(16, _lite_block),
        _rule("last/kernel", "_conv_head.weight", conv),
        *_batch_norm("last_norm", "_bn1"),
        *_linear("head/outputs", "_fc"),
    ),
    unneeded=(r"num_batches_tracked$", r"^_fc\."),
)

CONVNEXT = Family(
    "Hugging Face's ConvNeXt",
    (
        *_linear("stem", "embeddings.patch_embeddings", conv),
        *_norm("stem_norm", "embeddings.layernorm"),
        *_norm(r"stage_(\d+)_norm", "encoder.stages.{0}.downsampling_layer.0"),
        *_linear(r"stage_(\d+)_halving", "encoder.stages.{0}.downsampling_layer.1", conv),
        *_linear(f"{BLOCK}/depthwise", "encoder.stages.{0}.layers.{1}.dwconv", conv),
        *_norm(f"{BLOCK}/norm", "encoder.stages.{0}.layers.{1}.layernorm"),
        *_linear(f"{BLOCK}/expand", "encoder.stages.{0}.layers.{1}.pwconv1"),
        *_linear(f"{BLOCK}/project", "encoder.stages.{0}.layers.{1}.pwconv2"),
        _rule(f"{BLOCK}/scale", "encoder.stages.{0}.layers.{1}.layer_scale_parameter"),
        *_norm("norm", "layernorm"),
        *_linear("head/outputs", "classifier"),
    ),
    prefixes=("", "convnext.", "model.", "module."),
    unneeded=(r"^classifier\.",),
)


def _vgg(depth: int, batch_norm: bool) -> Family:
    rules, place = list[Rule](), 0
    for stage, count in enumerate(DEPTHS[depth]):
        for index in range(count):
            rules += _linear(f"stage_{stage}/conv_{index}", f"features.{place}", conv)
            if batch_norm:
                rules += _batch_norm(f"stage_{stage}/norm_{index}", f"features.{place + 1}")
            place += 3 if batch_norm else 2
        place += 1  # the maximum
    return Family(
        f"torchvision's VGG-{depth}{' with batch norm' if batch_norm else ''}",
        (
            *rules,
            *_linear("head/dense_0", "classifier.0", flattened),
            *_linear("head/dense_1", "classifier.3"),
            *_linear("head/outputs", "classifier.6"),
        ),
        unneeded=(r"num_batches_tracked$", r"^classifier\."),
    )


FAMILIES: dict[str, tuple[Family, ...]] = {
    "transformer_encoder": (BERT,),
    "transformer_decoder": (GPT2,),
    "vit": (VIT, VIT_OLD),
    "resnet": (TORCHVISION_RESNET, HUGGING_FACE_RESNET),
    "efficientnet_lite0": (EFFICIENTNET_LITE,),
    "convnext": (CONVNEXT,),
    "vgg": tuple(_vgg(depth, batch_norm) for depth in DEPTHS for batch_norm in (False, True)),
}
"""The families whose checkpoints each model can start from, by ``model.name``."""
