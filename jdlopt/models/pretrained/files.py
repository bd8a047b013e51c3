"""Files of tensors from outside: safetensors, PyTorch's, and Hugging Face's folders of them."""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdlopt import writing
from jdlopt.data import from_run
from jdlopt.errors import ConfigError, nearest
from jdlopt.models.pretrained import pickles

WHOLE = ("model.safetensors", "pytorch_model.bin")
"""The files of a folder that hold a whole model, the safer one first."""
INDEX = ".index.json"
TORCH = (".bin", ".pt", ".pth")
LARGEST_HEADER = 100_000_000
"""Bytes; safetensors' own limit."""


class Tensors(NamedTuple):
    """What a checkpoint from outside holds.

    Attributes:
      arrays: by their names in the file, of any type.
      path: of the file, or the folder.
      sha256: of all bytes that were read.
    """

    arrays: dict[str, np.ndarray]
    path: str
    sha256: str


def read(place: str | Path) -> Tensors:
    """Returns the tensors of a file or a folder; the newest one stays in memory.

    Args:
      place: a ``.safetensors`` file, a PyTorch file, or a folder as Hugging Face lays it out.

    Raises:
      ConfigError: there is none, or it can't be read.
    """
    path = writing.expanded(place)
    files = located(path)
    stamp = tuple((str(one), one.stat().st_mtime_ns, one.stat().st_size) for one in files)
    return _read(str(path), stamp)


@lru_cache(maxsize=1)
def _read(path: str, stamp: tuple[tuple[str, int, int], ...]) -> Tensors:
    arrays: dict[str, np.ndarray] = {}
    digest = hashlib.sha256()
    for name, _, _ in stamp:
        file = Path(name)
        try:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
            found = pickles.read(file) if file.suffix in TORCH else _safetensors(file)
        except OSError as error:
            raise ConfigError(
                f"model.pretrained: '{file}' can't be read: {error.strerror}."
            ) from error
        arrays |= found
    return Tensors(arrays, path, digest.hexdigest())


def located(path: Path) -> list[Path]:
    """Returns the files to read, in a fixed order.

    Raises:
      ConfigError: there are none.
    """
    if path.is_file():
        if path.suffix in (".safetensors", *TORCH):
            return [path]
        raise ConfigError(
            f"model.pretrained: '{path}' is neither a .safetensors file nor a PyTorch file "
            f"({', '.join(TORCH)}), nor a folder that holds one."
        )
    if not path.is_dir():
        siblings = [one.name for one in path.parent.glob("*")] if path.parent.is_dir() else []
        raise ConfigError(
            f"model.pretrained: there is no '{path}'.{nearest(path.name, siblings)} Name a file or "
            "a folder on this machine; nothing is downloaded."
        )
    for name in WHOLE:
        if (path / name).is_file():
            return [path / name]
        if (path / f"{name}{INDEX}").is_file():
            return _shards(path, path / f"{name}{INDEX}")
    first = from_run.first_run_in(path)
    if first is not None:
        raise ConfigError(
            f"model.pretrained: '{path}' holds several runs; name one of them, such as '{first}'."
        )
    raise ConfigError(
        f"model.pretrained: the folder '{path}' holds none of {', '.join(WHOLE)}, nor an index of "
        f"their parts; and it is no run's directory, which has {from_run.INPUTS} and checkpoints."
    )


def _shards(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"model.pretrained: '{index}' is no index of parts: {error}.") from error
    for name in names:
        if not isinstance(name, str) or os.path.basename(name) != name or name in ("", "..", "."):
            raise ConfigError(f"model.pretrained: '{index}' names {name!r}, which is no file here.")
        if not (folder / name).is_file():
            raise ConfigError(f"model.pretrained: '{index}' names '{name}', which is not there.")
    return [folder / name for name in names]


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    _check_header(path)
    from safetensors import SafetensorError
    from safetensors.flax import load_file

    try:
        return {name: np.asarray(array) for name, array in load_file(str(path)).items()}
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"model.pretrained: '{path}' can't be read: {error}.") from error


def _check_header(path: Path) -> None:
    """Checks what the file says of itself against what it is, so that the message says what."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if len(first) < 8 or length > min(size - 8, LARGEST_HEADER):
            raise ConfigError(
                f"model.pretrained: '{path}' says that its header has {length:,} bytes; the file "
                f"has {size:,}. It is damaged, or no safetensors file."
            )
        header = file.read(length)
    try:
        entries: Any = json.loads(header)
        ends = [
            int(one["data_offsets"][1]) for name, one in entries.items() if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ConfigError(
            f"model.pretrained: the header of '{path}' is damaged: {type(error).__name__}."
        ) from error
    if max(ends, default=0) != size - 8 - length:
        raise ConfigError(
            f"model.pretrained: the tensors of '{path}' need {max(ends, default=0):,} bytes; there "
            f"are {size - 8 - length:,}. It was cut off, or is damaged."
        )
