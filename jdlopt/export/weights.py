"""Weights alone: safetensors beside a ``config.json``, in Hugging Face's names where it has some.

Preprocessing is not in them: what reads the folder must give the model what it takes after it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.export.hugging_face import Folder, folder_of
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights

FILE, CONFIG = "model.safetensors", "config.json"


def write(experiment: Experiment, weights: Weights, folder: Path) -> dict[str, Any]:
    """Writes weights into a folder.

    A model that `transformers` has (`jdlopt.export.hugging_face.KINDS`) gets the names and the
    ``config.json`` by which it is opened there; any other its own paths, ``params/…`` and those of
    its running statistics, and its ``model`` section.

    Args:
      experiment: of the weights.
      weights: what is written.
      folder: where, which is there.

    Returns:
      ``tensors``, how many; ``names``: whose they are; ``opens``: the class of `transformers` that
      opens the folder, or None, and then ``why_not``.

    Raises:
      OSError: they can't be written.
    """
    found = folder_of(experiment, weights)
    why_not = None
    if isinstance(found, str):
        why_not = found
        found = _own(experiment, weights)
    data = save(
        {name: np.asarray(one, order="C") for name, one in found.tensors.items()}, {"format": "pt"}
    )
    with writing.aside(folder / FILE, binary=True) as file:
        file.write(data)
    writing.write_aside(folder / CONFIG, json.dumps(found.config, indent=2, default=list) + "\n")
    return {
        "tensors": len(found.tensors),
        "names": found.names,
        "opens": found.opens or None,
        "why_not": why_not,
    }


def _own(experiment: Experiment, weights: Weights) -> Folder:
    """Weights in their own names."""
    section = configs.to_dict(experiment.config.model)
    tensors = _flat({"params": weights.params, **weights.model_state})
    return Folder(tensors, {"library_name": "jdlopt", "model_section": section}, "jdlopt", "")


def _flat(tree: Any) -> dict[str, np.ndarray]:
    found = flatten_dict(jax.tree.map(np.asarray, dict(tree)))
    return {"/".join(map(str, path)): one for path, one in found.items()}
