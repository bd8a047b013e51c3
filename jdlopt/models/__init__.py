"""Models as pure functions: a table of names, and any Linen or NNX module by its dotted path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from jaxtyping import Array

from jdlopt.config import (
    Choice,
    Count,
    Positive,
    Value,
    fields_of,
    find_part,
    own_keys,
    shared_keys,
    to_dict,
)
from jdlopt.config.tree import nested_columns
from jdlopt.data.named import TABLE
from jdlopt.errors import ConfigError, listing
from jdlopt.models import lora, quantization
from jdlopt.models.bridge import Model, bridge, parameters_of
from jdlopt.models.cnn import CNN
from jdlopt.models.conformer import Conformer
from jdlopt.models.convnext import ConvNeXt
from jdlopt.models.efficientnet import EfficientNetLite0
from jdlopt.models.embedding import embedded
from jdlopt.models.encoders import InputFacts
from jdlopt.models.fusion import Fusion
from jdlopt.models.linear import Linear
from jdlopt.models.low_rank import LowRankFields, with_low_rank
from jdlopt.models.mlp import MLP
from jdlopt.models.precision import DTYPES, computing_in
from jdlopt.models.pruning import with_masks
from jdlopt.models.pruning_plan import PruneFields, check
from jdlopt.models.realmlp import RealMLP
from jdlopt.models.recurrent import GRU, LSTM
from jdlopt.models.resnet import ResNet
from jdlopt.models.seq2seq import TransformerSeq2Seq
from jdlopt.models.speech_rnn import SpeechRNN
from jdlopt.models.tabm import TabM
from jdlopt.models.tcn import TCN
from jdlopt.models.transformer import TransformerDecoder, TransformerEncoder
from jdlopt.models.two_towers import TwoTowers
from jdlopt.models.unet import UNet
from jdlopt.models.vgg import VGG
from jdlopt.models.vit import VARIANTS, ViT
from jdlopt.models.wide_and_deep import WideAndDeep

__all__ = [
    "FILLED_IN",
    "MODELS",
    "InputFacts",
    "LowRankFields",
    "Model",
    "ModelFields",
    "PruneFields",
    "at_positions",
    "has_submodels",
    "make_model",
    "sees_ahead",
]

MODELS: dict[str, Any] = {
    "linear": Linear,
    "mlp": MLP,
    "cnn": CNN,
    "gru": GRU,
    "lstm": LSTM,
    "tcn": TCN,
    "speech_rnn": SpeechRNN,
    "conformer": Conformer,
    "resnet": ResNet,
    "unet": UNet,
    "vgg": VGG,
    "efficientnet_lite0": EfficientNetLite0,
    "convnext": ConvNeXt,
    "transformer_encoder": TransformerEncoder,
    "transformer_decoder": TransformerDecoder,
    "transformer_seq2seq": TransformerSeq2Seq,
    "vit": ViT,
    "wide_and_deep": WideAndDeep,
    "fusion": Fusion,
    "two_towers": TwoTowers,
    "realmlp": RealMLP,
    "tabm": TabM,
}

FILLED_IN = (
    "num_outputs", "num_tokens", "column_sizes", "column_names", "named_inputs", "mean_outputs",
    "microbatches", "positions", "target_inputs",
)  # fmt: skip
"""Fields of a module that the data, the loss and the mesh decide, not its section."""


@dataclass(frozen=True, kw_only=True)
class ModelFields:
    """The ``model`` section: the keys that every model has, and the named model's own.

    Attributes:
      embedding_features: the width of the embedding of a token; and the largest of a category's,
        with ``data.preprocess.encode='embedding'``. A model of your own that has a field
        ``num_tokens`` gets the token ids themselves; one that has ``column_sizes``, a category's
        code.
      dtype: what the model computes in. Parameters, gradients, the optimizer and running
        statistics stay float32; float16 trains with a dynamic loss scale.
      freeze_norm: whether batch norm uses its running statistics while training, and keeps them.
      batch_norm_groups: how many groups of a batch batch norm takes statistics of, each of its own,
        while training. Devices that hold whole groups need not exchange any.
      pretrained: a file of tensors (safetensors or PyTorch's) or a folder as Hugging Face lays it
        out, whose values the model starts from.
      lora_rank: the rank of adapters beside frozen kernels; None: no adapters.
      lora_patterns: regular expressions of the paths of the kernels that are adapted.
      lora_alpha: adapters count ``lora_alpha / lora_rank`` times; None: once.
      prune, low_rank: the sections of these names.
      ensemble: how many copies start from other values and are trained side by side; what is
        predicted is the mean of their class probabilities, or of their outputs.
      name: a `MODELS` entry, or ``package.module:Name`` of a Linen or NNX module.
      quantize: kernels and inputs of layers in few bits, simulated.
      options: the model's own keys.
    """

    embedding_features: Count = 32
    dtype: Annotated[str, Choice(DTYPES)] = "float32"
    freeze_norm: bool = False
    batch_norm_groups: Count = 1
    pretrained: str | None = None
    lora_rank: Count | None = None
    lora_patterns: tuple[str, ...] = lora.KERNELS
    lora_alpha: Positive | None = None
    ensemble: Count = 1
    name: str
    quantize: quantization.QuantizeFields = field(default_factory=quantization.QuantizeFields)
    prune: PruneFields = field(default_factory=PruneFields)
    low_rank: LowRankFields = field(default_factory=LowRankFields)
    options: Mapping[str, Value] = own_keys()


def sees_ahead(section: Mapping[str, Any]) -> bool:
    """Returns whether a bundled model's outputs at a position depend on what comes after it.

    Args:
      section: the resolved ``model`` section.
    """
    if section["name"] in ("gru", "lstm"):
        return bool(section.get("bidirectional"))
    return section["name"] in MODELS and section["name"] != "transformer_decoder"


def has_submodels(name: str) -> bool:
    """Returns whether a model returns the outputs of several submodels while training.

    Args:
      name: ``model.name``.
    """
    return "mean_outputs" in parameters_of(find_part(name, MODELS, "model.name"))


def _of_one_input(name: str, named: Mapping[str, InputFacts]) -> str:
    """Says that a model takes one input, and every way to go on."""
    ways = [
        "Use model.name='fusion', which has an encoder for each (or a module of your own with a "
        "field 'named_inputs')"
    ]
    if TABLE in named:
        others = tuple(one for one in named if one != TABLE)
        ways.append(f"or leave columns out, data.ignore={others!r}")
    texts = {one: "category" for one, facts in named.items() if facts.tokens}
    if texts:
        ways.append(f"or take texts for categories, data.columns={nested_columns(texts)!r}")
    return (
        f"model.name: {name!r} takes one input; the data have {len(named)}: {listing(named)}. "
        f"{'; '.join(ways)}."
    )


def at_positions(name: str) -> bool:
    """Returns whether a model can have a row of outputs at each position.

    Args:
      name: ``model.name``.
    """
    return "positions" in parameters_of(find_part(name, MODELS, "model.name"))


OF_PIXELS = ("resnet", "unet")
"""Models whose positions are an image's pixels; those of the others are steps of a sequence."""


def _check_positions(name: str, positions: int) -> None:
    """Raises a `ConfigError` if a model has no row of outputs at positions of so many axes."""
    able = [one for one in MODELS if at_positions(one) and (one in OF_PIXELS) == (positions == 2)]
    if not positions or name in able or (name not in MODELS and at_positions(name)):
        return
    has = (
        "a row of outputs for each step" if at_positions(name) else "one row of outputs an example"
    )
    has = "a row of outputs for each pixel" if name in OF_PIXELS else has
    where = "step of a sequence" if positions == 1 else "pixel"
    raise ConfigError(
        f"model.name: {name!r} has {has}; this task needs one for each {where}. Take one of "
        f"{listing(able)}, or a module of your own with a field 'positions'."
    )


def _of_no_target(name: str) -> str:
    """Says that a model writes no targets, and which do."""
    able = [one for one, part in MODELS.items() if "target_inputs" in parameters_of(part)]
    return (
        f"model.name: {name!r} writes no sequence; this task needs a model with a decoder that is "
        f"given the target so far: {listing(able)}, or a module of your own with a field "
        "'target_inputs'."
    )


def make_model(
    section: Mapping[str, Any],
    num_outputs: int,
    *,
    tokens: int = 0,
    columns: tuple[int, ...] = (),
    names: tuple[str, ...] = (),
    named: Mapping[str, InputFacts] | None = None,
    mean_outputs: Callable[[Array], Array] | None = None,
    steps: int = 1,
    calls: int = 1,
    microbatches: int | None = None,
    positions: int = 0,
    target_inputs: tuple[str, ...] = (),
) -> Model:
    """Returns the pure functions of the model that a resolved config section describes.

    Args:
      section: ``name`` (of `MODELS`, or ``package.module:Name`` of a Linen or NNX module) and the
        module's own keys. Floats among them are defaults only: hyperparameters replace them.
      num_outputs: width of the outputs; given to the module if it has a field of that name.
      tokens: the size of the vocabulary where inputs are token ids, else 0.
      columns: where a table's categories are to be embedded, the number of them in each column;
        given to the module instead if it has a field ``column_sizes``.
      names: of a table's columns; given to the module if it has a field ``column_names``.
      named: what is known of each of several inputs; given to the module as its field
        ``named_inputs``.
      mean_outputs: what is said of the outputs of submodels [submodels, n, outputs], such as the
        outputs of their mean class probabilities; given to the module if it has a field of that
        name. Such a module returns the outputs of all submodels while training.
      steps: updates in the whole training.
      calls: of the model in each update.
      microbatches: ``mesh.microbatches``; given to the module if it has a field of that name.
      positions: axes of the outputs between the batch and the last one: of a sequence 1, of an
        image 2; given to the module as its field ``positions``.
      target_inputs: the inputs that targets make, beside the others; given to the module as its
        field of that name.

    Raises:
      ConfigError: the name is unknown or is no module, the module takes one input alone, or has
        one output row an example where each position needs one.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = make_model({"name": "mlp", "features": (8,), "dropout_rate": 0.1}, num_outputs=3)
      >>> x, rate = jnp.ones((2, 4)), {"dropout_rate": jnp.float32(0.5)}
      >>> params, state = model.init(jax.random.key(0), x, rate)
      >>> outputs, state = model.apply(params, state, x, rate, key=jax.random.key(1), train=True)
      >>> outputs.shape
      (2, 3)
    """
    part = find_part(section["name"], MODELS, "model.name")
    own = parameters_of(part)
    unwanted = {"name", *shared_keys(ModelFields) - set(fields_of(part))}
    keys = {key: section[key] for key in section if key not in unwanted}
    if tokens and "num_tokens" in own:
        keys["num_tokens"] = tokens
    if "column_names" in own:
        keys["column_names"] = names
    if target_inputs and "target_inputs" not in own:
        raise ConfigError(_of_no_target(section["name"]))
    if "target_inputs" in own:
        keys["target_inputs"] = target_inputs
    _check_positions(section["name"], positions)
    if "positions" in own:
        keys["positions"] = positions
    if "microbatches" in own:
        keys["microbatches"] = microbatches
    if "mean_outputs" in own and mean_outputs is not None:
        keys["mean_outputs"] = mean_outputs
    if named is not None:
        if "named_inputs" not in own:
            raise ConfigError(_of_one_input(section["name"], named))
        keys["named_inputs"] = tuple(named.items())
    takes_codes = "column_sizes" in own
    if takes_codes:
        keys["column_sizes"] = columns
    freeze_norm = section.get("freeze_norm", ModelFields.freeze_norm)
    norm_groups = section.get("batch_norm_groups", ModelFields.batch_norm_groups)
    model = bridge(
        part,
        section["name"],
        keys,
        num_outputs,
        positions=positions,
        freeze_norm=freeze_norm,
        norm_groups=norm_groups,
    )
    if (tokens and "num_tokens" not in own) or (any(columns) and not takes_codes):
        features = section.get("embedding_features", ModelFields.embedding_features)
        model = embedded(model, tokens=tokens, columns=columns, features=features)
    # a table's category codes are floats until they are looked up
    dtype = section.get("dtype") or ModelFields.dtype
    codes = [name for name, one in (named or {}).items() if any(one.columns)]
    model = computing_in(model, dtype, cast_inputs=not any(columns), kept=codes)
    stacked = {"stacked": lora.STACKED} if section.get("scan_layers") else {}
    few_bits = quantization.QuantizeFields(**section.get("quantize", {}))
    if few_bits.on:
        # inside of what changes kernels: what they are then is what is quantized
        model = quantization.with_quantization(model, few_bits, **stacked)
    two = LowRankFields(**section.get("low_rank", {}))
    if two.on:
        # outside of what looks at layers: each factor is a layer of its own to it
        model = with_low_rank(model, two)
    rank = section.get("lora_rank")
    prune = to_dict(PruneFields()) | dict(section.get("prune", {}))
    check(prune)
    if prune["criterion"] is not None:
        if rank is not None:
            raise ConfigError(
                "model.prune: kernels beside adapters are frozen, and can't be pruned while those "
                "are trained. Leave model.lora_rank out: a run that begins with "
                "model.pretrained=RUN has the adapters of that run in its kernels."
            )
        return with_masks(model, prune, steps=steps, calls=calls, heads=_heads(section), **stacked)
    if rank is None:
        if section.get("lora_alpha") is not None:
            raise ConfigError("model.lora_alpha: scales adapters; give model.lora_rank as well.")
        return model
    # outside the casts: what adapters add to a kernel must not be lost in half the bits
    patterns = section.get("lora_patterns", ModelFields.lora_patterns)
    return lora.with_adapters(model, rank, patterns, **stacked)


def _heads(section: Mapping[str, Any]) -> int | None:
    """Returns how many heads of attention a model has, if its section says so."""
    if section.get("layer_heads") is not None:
        return None  # each layer has its own number
    if section.get("num_heads") is None and section["name"] == "vit":
        return VARIANTS[section.get("variant", ViT.variant)].num_heads
    return section.get("num_heads")
