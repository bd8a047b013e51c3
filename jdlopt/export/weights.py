"""Weights alone, as safetensors beside a ``config.json``, in Hugging Face's names for a ViT.

Preprocessing is not in them: what reads the folder must give the model what it takes after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.models.pretrained import families
from jdlopt.models.pretrained.architecture import ACTIVATIONS
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights

FILE, CONFIG = "model.safetensors", "config.json"
HEAD = "head/"
BACK: dict[families.Turn, families.Turn] = {
    families.same: lambda x: x,
    families.dense: lambda x: x.T,
    families.vector: lambda x: x.reshape(1, 1, -1),
    families.first: lambda x: x[None],
}
"""What undoes the turn of a tensor that `jdlopt.models.pretrained` reads."""


def write(experiment: Experiment, weights: Weights, folder: Path) -> dict[str, Any]:
    """Writes weights into a folder.

    A ViT that reads its class token has the names and the ``config.json`` of Hugging Face's
    ``ViTForImageClassification``; any other model its own paths, ``params/…`` and those of its
    running statistics, and its ``model`` section.

    Args:
      experiment: of the weights.
      weights: what is written.
      folder: where, which is there.

    Returns:
      ``tensors``, how many, and ``names``: whose they are.

    Raises:
      OSError: they can't be written.
    """
    params = {path: np.asarray(one) for path, one in _flat(weights.params).items()}
    section = configs.to_dict(experiment.config.model)
    if _is_vit(section, params):
        tensors, said = _vit(experiment, section, params)
        names = families.VIT.name
    else:
        state = {path: np.asarray(one) for path, one in _flat(weights.model_state).items()}
        tensors = {f"params/{path}": one for path, one in params.items()} | state
        said, names = {"library_name": "jdlopt", "model_section": section}, "jdlopt"
    data = save(
        {name: np.ascontiguousarray(one) for name, one in tensors.items()}, {"format": "pt"}
    )
    with writing.aside(folder / FILE, binary=True) as file:
        file.write(data)
    writing.write_aside(folder / CONFIG, json.dumps(said, indent=2, default=list) + "\n")
    return {"tensors": len(tensors), "names": names}


def _flat(tree: Any) -> dict[str, jax.Array]:
    return {"/".join(map(str, path)): one for path, one in flatten_dict(dict(tree)).items()}


def _is_vit(section: Mapping[str, Any], params: Mapping[str, np.ndarray]) -> bool:
    return (
        section["name"] == "vit"
        and section.get("pooling") == "cls"
        and not section.get("layer_heads")
        and section.get("head_features") is None
        and section["activation"] in ACTIVATIONS.values()
        and all(families.VIT.source(path) is not None for path in params)
    )


def _vit(
    experiment: Experiment, section: Mapping[str, Any], params: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    size = section["patch_size"]
    tensors = {}
    for path, values in params.items():
        source = families.VIT.source(path)
        assert source is not None
        name, turn = source
        if turn is families.patches:
            values = values.reshape(size, size, -1, values.shape[-1]).transpose(3, 2, 0, 1)
        else:
            values = BACK[turn](values)
        tensors[name if path.startswith(HEAD) else f"vit.{name}"] = values
    shaped = experiment.model_inputs
    height, width, *channels = shaped.shape  # type: ignore[union-attr]
    theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    spec = experiment.spec
    heads = params["layer_0/attention/query/kernel"].shape
    from jdlopt.models.vit import VARIANTS

    variant = VARIANTS[section["variant"]]
    return tensors, {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "hidden_size": heads[0],
        "num_hidden_layers": len({path.partition("/")[0] for path in params if "layer_" in path}),
        "num_attention_heads": section.get("num_heads") or variant.num_heads,
        "intermediate_size": params["layer_0/mlp/up/kernel"].shape[1],
        "patch_size": size,
        "image_size": [height, width],
        "num_channels": channels[0] if channels else 1,
        "hidden_act": theirs[section["activation"]],
        "layer_norm_eps": section["norm_epsilon"],
        "qkv_bias": True,
        "id2label": {str(place): name for place, name in enumerate(spec.class_names)},
        "label2id": {name: place for place, name in enumerate(spec.class_names)},
    }
