"""What a folder says of its model: the keys of a config that its weights ask for.

A run's directory has them in its own ``config.json``; a Hugging Face folder's ``config.json`` says
them in its own words. Both are read as data: nothing in them is imported or run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import writing
from jdlopt.config import tuples
from jdlopt.errors import ConfigError, listing, nearest

CONFIG = "config.json"
NOT_THE_MODELS_OWN = frozenset(
    ("name", "pretrained", "dtype", "freeze_norm", "batch_norm_groups", "ensemble", "lora_rank",
     "lora_patterns", "lora_alpha", "prune", "remat")
)  # fmt: skip
"""Keys of a run's ``model`` section that say how it is trained or computed, not what it is."""
ACTIVATIONS = {
    "gelu": "gelu_exact", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu",
    "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh",
}  # fmt: skip
"""Ours for Hugging Face's."""


class Architecture(NamedTuple):
    """What weights ask of a model.

    Attributes:
      name: of the model here.
      keys: of the ``model`` section, beside the name.
      is_run: whether the weights are a run's.
      file: where it says so.
    """

    name: str
    keys: dict[str, Any]
    is_run: bool
    file: Path


def architecture_of(place: object) -> Architecture | None:
    """Returns what the folder that ``model.pretrained`` names says of its model, or None.

    Args:
      place: a run's directory, a checkpoint in one, or a folder as Hugging Face lays it out; what
        is none, or says nothing, gives None.

    Raises:
      ConfigError: it is of an architecture that no model here is, or can't be read.
    """
    if not isinstance(place, str) or not place:
        return None
    folder = run_of(writing.expanded(place))
    file = folder / CONFIG
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"model.pretrained: {file} can't be read: {error}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"model.pretrained: {file} holds no object.")
    if isinstance(found.get("model"), dict) and isinstance(found.get("data"), dict):
        section = found["model"]
        keys = {key: tuples(v) for key, v in section.items() if key not in NOT_THE_MODELS_OWN}
        return Architecture(str(section.get("name")), keys, True, file)
    return _hugging_face(found, file)


def run_of(place: Path) -> Path:
    """Returns the run's directory that a checkpoint of it lies in; else the place itself."""
    if place.parent.name == "checkpoints" and (place.parent.parent / CONFIG).is_file():
        return place.parent.parent
    return place


# --- Hugging Face's words -------------------------------------------------------------------------


class _Words(NamedTuple):
    """How an architecture is said there.

    Attributes:
      name: of the model here.
      keys: our key → theirs; what they leave out keeps our default.
      more: what follows from several of theirs.
      needs: their key → the only values that a model here can be.
    """

    name: str
    keys: Mapping[str, str]
    more: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda found: {}
    needs: Mapping[str, tuple[object, ...]] = {}


def _resnet(found: Mapping[str, Any]) -> dict[str, Any]:
    bottleneck = found.get("layer_type", "bottleneck") == "bottleneck"
    depths = found.get("depths", (3, 4, 6, 3))
    widths = found.get("hidden_sizes", (256, 512, 1024, 2048))
    first = 2 if found.get("downsample_in_first_stage") else 1
    features = tuple(width // 4 if bottleneck else width for width in widths)
    stem = found.get("embedding_size", 64)
    return {
        "stem": "imagenet",
        "stage_sizes": tuple(depths),
        "features": features,
        "bottleneck": bottleneck,
        "strides": (first, *[2] * (len(depths) - 1)),
        **({} if features[:1] == (stem,) else {"stem_features": stem}),
    }


def _scale(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"layer_scale": found.get("layer_scale_init_value", 1e-6) or None}


WORDS = {
    "bert": _Words(
        "transformer_encoder",
        {
            "features": "hidden_size", "num_layers": "num_hidden_layers",
            "num_heads": "num_attention_heads", "mlp_features": "intermediate_size",
            "max_positions": "max_position_embeddings", "num_types": "type_vocab_size",
            "activation": "hidden_act", "norm_epsilon": "layer_norm_eps",
        },
        needs={"position_embedding_type": ("absolute",), "is_decoder": (False,)},
    ),
    "gpt2": _Words(
        "transformer_decoder",
        {
            "features": "n_embd", "num_layers": "n_layer", "num_heads": "n_head",
            "mlp_features": "n_inner", "max_positions": "n_positions",
            "activation": "activation_function", "norm_epsilon": "layer_norm_epsilon",
        },
        needs={"scale_attn_by_inverse_layer_idx": (False,), "scale_attn_weights": (True,)},
    ),
    "vit": _Words(
        "vit",
        {
            "features": "hidden_size", "num_layers": "num_hidden_layers",
            "num_heads": "num_attention_heads", "mlp_features": "intermediate_size",
            "patch_size": "patch_size", "activation": "hidden_act",
            "norm_epsilon": "layer_norm_eps",
        },
        needs={"qkv_bias": (True,)},
    ),
    "resnet": _Words(
        "resnet", {"activation": "hidden_act"}, _resnet,
        {"downsample_in_bottleneck": (False,)},
    ),
    "convnext": _Words(
        "convnext",
        {
            "stage_sizes": "depths", "features": "hidden_sizes", "patch_size": "patch_size",
            "activation": "hidden_act",
        },
        _scale,
    ),
}  # fmt: skip
"""By ``model_type`` of a Hugging Face ``config.json``."""


def _hugging_face(found: Mapping[str, Any], file: Path) -> Architecture | None:
    kind = found.get("model_type")
    if kind is None:
        return None
    if kind not in WORDS:
        raise ConfigError(
            f"model.pretrained: {file} says model_type {kind!r}, an architecture that no model "
            f"here is.{nearest(kind, WORDS)} Known: {listing(WORDS)}."
        )
    words = WORDS[kind]
    for key, values in words.needs.items():
        if key in found and found[key] not in values:
            raise ConfigError(
                f"model.pretrained: {file} says {key}={found[key]!r}; model.name {words.name!r} "
                f"computes with {listing(map(repr, values))} alone."
            )
    keys = {ours: tuples(found[theirs]) for ours, theirs in words.keys.items() if theirs in found}
    if "activation" in keys:
        theirs = keys["activation"]
        if theirs not in ACTIVATIONS:
            raise ConfigError(
                f"model.pretrained: {file} says the activation {theirs!r}; known: "
                f"{listing(ACTIVATIONS)}."
            )
        keys["activation"] = ACTIVATIONS[theirs]
    try:
        return Architecture(words.name, {**keys, **words.more(found)}, False, file)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.pretrained: {file} can't be read: {error}.") from error


def differing(found: Architecture, section: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the keys in which a model section differs from what the weights ask for.

    Args:
      found: what they ask for.
      section: the resolved ``model`` section.

    Returns:
      Key → the value here, the value there.
    """
    return {
        key: (section[key], value)
        for key, value in found.keys.items()
        if key in section and section[key] != value
    }
