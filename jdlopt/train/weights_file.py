"""Weights as one file: what another training starts from, and what is kept of one.

It is a safetensors file (Hugging Face, 2022): arrays by name, read without running anything. Beside
them stands a checksum, so that a damaged file counts as none.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from jdlopt import writing
from jdlopt.errors import WorkdirError, listing
from jdlopt.models.pretrained import Loaded
from jdlopt.models.pruning import SCORES
from jdlopt.train import disk
from jdlopt.train.state import Weights

PARAMS, STATE, SUM = "params/", "state/", "crc32"
FAMILY = "weights of a training"


def save(path: Path, weights: Weights) -> None:
    """Writes parameters and model state beside the file's final name, and renames it.

    Raises:
      WorkdirError: it can't be written.
    """
    from safetensors.numpy import save as as_bytes

    arrays = {**_flat(PARAMS, weights.params), **_flat(STATE, weights.model_state)}
    data = as_bytes(arrays, {SUM: str(_sum(arrays))})
    try:
        writing.make_folder(path.parent)
        with writing.aside(path, binary=True) as file:
            file.write(data)
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {disk.reason(path, error)}.") from error


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the parameters and the model state of a file, by path.

    Raises:
      WorkdirError: there is none, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            said = (file.metadata() or {}).get(SUM)
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise WorkdirError(f"{path}: can't be read: {error}.") from error
    if said != str(_sum(arrays)):
        raise WorkdirError(f"{path}: is damaged: its checksum is not that of its arrays.")
    params, state = (
        {name.removeprefix(kind): one for name, one in arrays.items() if name.startswith(kind)}
        for kind in (PARAMS, STATE)
    )
    return params, state


def digest(weights: Weights) -> str:
    """Returns 16 hex digits that tell parameters and model state from all others."""
    arrays, found = {**_flat(PARAMS, weights.params), **_flat(STATE, weights.model_state)}, sha256()
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].dtype} {arrays[name].shape} ".encode())
        found.update(arrays[name].tobytes())
    return found.hexdigest()[:16]


def is_whole(path: Path) -> bool:
    """Says whether a file is there and as it was written."""
    try:
        read(path)
    except WorkdirError:
        return False
    return True


def load(path: Path, like: Weights) -> Weights:
    """Returns the weights of a file.

    Args:
      path: of the file.
      like: weights of the same experiment: their floats and what preprocessing learnt.

    Raises:
      WorkdirError: it is damaged.
    """
    params, state = read(path)
    return like.replace(params=_nested(params), model_state=_nested(state))


def loaded(path: Path, shapes: tuple[Mapping[str, tuple[int, ...]], ...]) -> Loaded:
    """Returns a file's arrays for a model that starts from them.

    Every parameter must be there but for the scores of pruning, which no weights that are kept
    have. What the model keeps beside parameters and the file does not have, such as masks, starts
    as in a new model.

    Args:
      path: of the file.
      shapes: of the model's parameters and of its state, by path.

    Raises:
      WorkdirError: it is damaged, or another model's.
    """
    found = read(path)
    own = [name for name in shapes[0] if SCORES not in name.split("/")]
    missing = [name for name in own if name not in found[0]]
    problems = [f"it lacks {listing(missing)}"] if missing else []
    for there, here in zip(found, shapes, strict=True):
        over = [name for name in there if name not in here]
        other = [
            f"{name} {there[name].shape}, here {here[name]}"
            for name in there
            if name in here and there[name].shape != tuple(here[name])
        ]
        problems += [f"it also has {listing(over)}"] if over else []
        problems += [f"of another shape are {listing(other)}"] if other else []
    if problems:
        raise WorkdirError(f"{path}: is of another model: {'; '.join(problems)}.")
    record = {
        "file": str(path), "sha256": f"crc32:{_sum(found[0])}:{_sum(found[1])}", "family": FAMILY,
        "tensors": len(found[0]) + len(found[1]), "new": [], "ignored": [],
    }  # fmt: skip
    return Loaded(*found, record)


def _flat(kind: str, tree: PyTree) -> dict[str, np.ndarray]:
    return {
        kind + "/".join(map(str, path)): np.asarray(leaf, order="C")  # of one number, too
        for path, leaf in flatten_dict(tree).items()
    }


def _nested(arrays: Mapping[str, np.ndarray]) -> PyTree:
    return unflatten_dict({tuple(name.split("/")): one for name, one in arrays.items()})


def _sum(arrays: Mapping[str, np.ndarray]) -> int:
    found = 0
    for name in sorted(arrays):
        one = arrays[name]
        text = f"{name} {one.dtype} {one.shape}"
        found = zlib.crc32(np.ascontiguousarray(one).tobytes(), zlib.crc32(text.encode(), found))
    return found
