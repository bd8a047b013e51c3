"""A run's model as `transformers` of Hugging Face has it: its names and its ``config.json``.

The tables by which `jdlopt.models.pretrained` reads such folders, the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import PyTree

from jdlopt.data.named import by_name
from jdlopt.data.spec import DataSpec
from jdlopt.errors import listing
from jdlopt.models import lora, pruning
from jdlopt.models.attention import unstack_layers
from jdlopt.models.pretrained import families
from jdlopt.models.pretrained.architecture import ACTIVATIONS, WORDS
from jdlopt.models.resnet import ResNet
from jdlopt.models.vit import VARIANTS
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights

HEAD = "head/"
KERNEL, BIAS, NORM_BIAS = "head/outputs/kernel", "head/outputs/bias", "norm/bias"
TOKENS, TYPES = "embeddings/tokens/embedding", "embeddings/types/embedding"
MOST_OFF = 1e-6
"""How far a bias may be from what the norm before it says in its place, of the largest."""

Section = Mapping[str, Any]
Arrays = dict[str, np.ndarray]


class Folder(NamedTuple):
    """What a folder holds that `transformers` opens.

    Attributes:
      tensors: by their names there.
      config: what ``config.json`` says.
      names: whose they are; ``opens``: the class that opens it.
    """

    tensors: Arrays
    config: dict[str, Any]
    names: str
    opens: str


class Facts(NamedTuple):
    """What a config says beside the keys of the model.

    Attributes:
      section: the ``model`` section, sizes that other keys mean filled in.
      params: the parameters by their paths.
      image: height, width and channels; those of no image are 1.
    """

    section: Section
    params: Arrays
    image: tuple[int, int, int]


class Kind(NamedTuple):
    """An architecture of `transformers`, as far as a model here can be it.

    Attributes:
      word: its ``model_type``, a key of `WORDS`.
      opens: the class of its classifier.
      family: of names; ``prefix``: what stands before all but the head's.
      settled: ``section → section``, the sizes that other keys mean filled in.
      only: ``section → `` by key, the values that it can have there.
      says: what its config says beside `WORDS`.
      changed: ``parameters → (parameters, tensors)``: those that have a name there, and tensors
        that none of ours is; or why there are none.
    """

    word: str
    opens: str
    family: families.Family
    prefix: str
    settled: Callable[[Section], Section]
    only: Callable[[Section], Mapping[str, tuple[object, ...]]]
    says: Callable[[Facts], dict[str, Any]]
    changed: Callable[[Arrays], tuple[Arrays, Arrays] | str] = lambda params: (params, {})


def folder_of(experiment: Experiment, weights: Weights) -> Folder | str:
    """Returns a model as `transformers` has it, or in one line why it has none such.

    Adapters are merged, pruned weights are 0, and scanned layers are layers of their own.

    Args:
      experiment: of the weights.
      weights: what predicts.
    """
    model, spec = experiment.config.model, experiment.spec
    kind = KINDS.get(model.name)
    if kind is None:
        return f"model.name: {model.name!r} is no model of transformers; {listing(KINDS)} are"
    if model.ensemble > 1:
        return f"model.ensemble: is {model.ensemble}; {kind.opens} is one model"
    if model.low_rank.on:
        return f"model.low_rank: some layers are two products; {kind.opens} has one of each"
    if model.quantize.on:
        return f"model.quantize: rounds while it predicts; {kind.opens} does not"
    section = kind.settled(model.options)
    for key, able in kind.only(section).items():
        if section[key] not in able:
            known = listing(map(repr, able))
            return f"model.{key}: is {section[key]!r}; {kind.opens} has {known} alone"
    theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    if section["activation"] not in theirs:
        return f"model.activation: {section['activation']!r} is none of {kind.opens}'s"
    params = _params(weights)
    if isinstance(found := kind.changed(params), str):
        return found
    named, tensors = found
    state = {path: one for path, one in _flat(weights.model_state).items()
             if path.startswith(families.BATCH_STATS)}  # fmt: skip
    for path in (*named, *state):
        if kind.family.source(path) is None:
            return f"{path}: has no place in {kind.opens}"
    facts = Facts(section, params, _image(experiment))
    words = WORDS[kind.word]
    config = {
        "model_type": kind.word,
        "architectures": [kind.opens],
        **{their: section[ours] for ours, their in words.keys.items()},
        **{their: values[0] for their, values in words.needs.items()},
        **kind.says(facts),
        **_labels(spec, len(params[BIAS])),
    }
    for key in ("hidden_act", "activation_function"):
        if key in config:
            config[key] = theirs[section["activation"]]
    tensors |= _tensors(kind, named | state, facts.image[2])
    return Folder(tensors, config, kind.family.name, kind.opens)


def _params(weights: Weights) -> Arrays:
    """The parameters that predict, by their paths, without what wraps the model."""
    weights = jax.tree.map(jnp.asarray, weights)
    params: PyTree = pruning.applied(weights.params, weights.model_state)
    if "adapters" in params:
        params = lora.merged(params, weights.hparams["model"].get("lora_alpha"))
    return _flat(unstack_layers(params))


def _flat(tree: PyTree) -> Arrays:
    found = flatten_dict(dict(jax.tree.map(np.asarray, tree)))
    return {"/".join(map(str, path)): one for path, one in found.items()}


def _image(experiment: Experiment) -> tuple[int, int, int]:
    (shaped,) = by_name(experiment.model_inputs).values()
    height, width, channels, *_ = (*shaped.shape, 1, 1, 1)
    return height, width, channels


def _labels(spec: DataSpec, width: int) -> dict[str, Any]:
    """What the outputs mean: of two classes, the only one that is scored may be the second."""
    kinds = {"regression": "regression", "multilabel": "multi_label_classification",
             "classification": "single_label_classification"}  # fmt: skip
    kind, names = kinds.get(spec.task), spec.class_names or spec.target_names
    if spec.task == "classification" and width == 1:
        kind, names = kinds["multilabel"], spec.class_names[1:]
    if len(names) != width:
        names = tuple(f"LABEL_{place}" for place in range(width))
    return {
        "id2label": {str(place): name for place, name in enumerate(names)},
        "label2id": {name: place for place, name in enumerate(names)},
        **({} if kind is None else {"problem_type": kind}),
    }


def _tensors(kind: Kind, arrays: Arrays, channels: int) -> Arrays:
    """The tensors there of arrays by their paths here."""
    found, thirds = Arrays(), dict[str, dict[int, np.ndarray]]()
    for path, values in arrays.items():
        source = kind.family.source(path)
        assert source is not None
        name, turn = source
        name = name if path.startswith(HEAD) else f"{kind.prefix}{name}"
        written = turn.write(values, channels)
        if turn.part is not None:
            thirds.setdefault(name, {})[turn.part] = written
            continue
        found[name] = written
        if name.endswith(".running_mean"):  # PyTorch counts the batches beside it
            found[name.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    for name, three in thirds.items():
        found[name] = np.concatenate([three[place] for place in range(3)], axis=-1)
    return found


# --- sizes that other keys mean -------------------------------------------------------------------


def _layers(section: Section) -> Section:
    width, head = section["features"], section["head_features"]
    return {
        **section,
        "mlp_features": section["mlp_features"] or 4 * width,
        "head_features": None if head and head * section["num_heads"] == width else head,
    }


def _encoder(section: Section) -> Section:
    return _layers({**section, "num_types": section["num_types"] or 1})


def _vit(section: Section) -> Section:
    variant = VARIANTS[section["variant"]]._asdict()
    return _layers({**section, **{key: section[key] or size for key, size in variant.items()}})


def _resnet(section: Section) -> Section:
    keys = ("depth", "stage_sizes", "features", "stem_features", "block_features", "bottleneck",
            "strides")  # fmt: skip
    plan = ResNet(1, **{key: section[key] for key in keys}).plan()
    usual = ResNet(1, **{key: section[key] for key in keys if key != "block_features"}).plan()
    return {
        **section,
        "stage_sizes": plan.stage_sizes,
        "features": plan.features,
        "stem_features": plan.stem,
        "bottleneck": plan.bottleneck,
        "strides": plan.strides,
        "block_features": None if plan.inner == usual.inner else section["block_features"],
    }


def _convnext(section: Section) -> Section:
    stages = zip(section["features"], section["stage_sizes"], strict=True)
    usual = tuple(4 * width for width, count in stages for _ in range(count))
    own = section["block_features"]
    return {**section, "block_features": None if own == usual else own}


# --- what an architecture can be ------------------------------------------------------------------


def _layers_alone(section: Section) -> dict[str, tuple[object, ...]]:
    only = ("layer_heads", "head_features", "layer_mlp_features", "experts")
    return dict.fromkeys(only, (None,))


def _class_token_alone(section: Section) -> dict[str, tuple[object, ...]]:
    return {"pooling": ("cls",), **_layers_alone(section)}


def _resnet_alone(section: Section) -> dict[str, tuple[object, ...]]:
    later = (2,) * (len(section["strides"]) - 1)
    return {
        "stem": ("imagenet",),
        "block_features": (None,),
        "batch_norm": (True,),
        "strides": ((1, *later), (2, *later)),
        "activation": ("relu",),  # its config names another for some of its layers alone
    }


def _convnext_alone(section: Section) -> dict[str, tuple[object, ...]]:
    return {"block_features": (None,), "kernel_size": (7,), "norm_epsilon": (1e-6,)}


# --- what a config says beside the keys -----------------------------------------------------------


def _rate(section: Section, key: str = "dropout_rate") -> float:
    return section[key] or 0.0


def _encoder_says(facts: Facts) -> dict[str, Any]:
    return {
        "vocab_size": len(facts.params[TOKENS]),
        "pad_token_id": 0,
        "hidden_dropout_prob": _rate(facts.section),
        "attention_probs_dropout_prob": 0.0,
    }


def _decoder_says(facts: Facts) -> dict[str, Any]:
    rate = _rate(facts.section)
    return {
        "vocab_size": len(facts.params[TOKENS]),
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
        "resid_pdrop": rate,
        "embd_pdrop": rate,
        "attn_pdrop": 0.0,
    }


def _vit_says(facts: Facts) -> dict[str, Any]:
    height, width, channels = facts.image
    return {
        "image_size": [height, width],
        "num_channels": channels,
        "hidden_dropout_prob": _rate(facts.section),
        "attention_probs_dropout_prob": 0.0,
    }


def _resnet_says(facts: Facts) -> dict[str, Any]:
    section = facts.section
    wide = 4 if section["bottleneck"] else 1
    return {
        "num_channels": facts.image[2],
        "embedding_size": section["stem_features"],
        "hidden_sizes": [wide * width for width in section["features"]],
        "depths": list(section["stage_sizes"]),
        "layer_type": "bottleneck" if section["bottleneck"] else "basic",
        "downsample_in_first_stage": section["strides"][0] == 2,
    }


def _convnext_says(facts: Facts) -> dict[str, Any]:
    section = facts.section
    return {
        "image_size": list(facts.image[:2]),
        "num_channels": facts.image[2],
        "num_stages": len(section["stage_sizes"]),
        "layer_norm_eps": section["norm_epsilon"],
        "layer_scale_init_value": section["layer_scale"] or 0.0,
        "drop_path_rate": _rate(section, "drop_path_rate"),
    }


# --- parameters that are others there -------------------------------------------------------------


def _of_tokens(params: Arrays) -> str | None:
    if TOKENS not in params:
        return "model.name: the inputs are numbers; what transformers has of it takes token ids"
    return None


def _encoder_changed(params: Arrays) -> tuple[Arrays, Arrays] | str:
    """A model without types has one there, of zeros."""
    if (reason := _of_tokens(params)) is not None:
        return reason
    width = params[TOKENS].shape[1]
    return {TYPES: np.zeros((1, width), np.float32), **params}, {}


def _decoder_changed(params: Arrays) -> tuple[Arrays, Arrays] | str:
    """Its head there has no bias: the last norm's says it, as what the kernel makes the same of."""
    if (reason := _of_tokens(params)) is not None:
        return reason
    kernel, bias = params[KERNEL], params[BIAS]
    shift = np.linalg.lstsq(kernel.T.astype(np.float64), bias.astype(np.float64), rcond=None)[0]
    moved = (params[NORM_BIAS] + shift).astype(np.float32)
    off = kernel.T.astype(np.float64) @ (moved - params[NORM_BIAS].astype(np.float64)) - bias
    if np.abs(off).max() > MOST_OFF * max(1.0, np.abs(bias).max()):
        return (
            f"{BIAS}: GPT2ForSequenceClassification has none, and the norm before the head can't "
            f"say it: {len(bias)} outputs of {len(kernel)} features are not independent"
        )
    rest = {path: one for path, one in params.items() if not path.startswith(HEAD)}
    return {**rest, NORM_BIAS: moved}, {"score.weight": kernel.T}


KINDS: dict[str, Kind] = {
    "transformer_encoder": Kind(
        "bert", "BertForSequenceClassification", families.BERT, "bert.",
        _encoder, _class_token_alone, _encoder_says, _encoder_changed,
    ),
    "transformer_decoder": Kind(
        "gpt2", "GPT2ForSequenceClassification", families.GPT2, "transformer.",
        _layers, _layers_alone, _decoder_says, _decoder_changed,
    ),
    "vit": Kind(
        "vit", "ViTForImageClassification", families.VIT, "vit.",
        _vit, _class_token_alone, _vit_says,
    ),
    "resnet": Kind(
        "resnet", "ResNetForImageClassification", families.HUGGING_FACE_RESNET, "resnet.",
        _resnet, _resnet_alone, _resnet_says,
    ),
    "convnext": Kind(
        "convnext", "ConvNextForImageClassification", families.CONVNEXT, "convnext.",
        _convnext, _convnext_alone, _convnext_says,
    ),
}  # fmt: skip
"""By ``model.name``."""
