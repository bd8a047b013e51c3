"""MNIST's original files as one that `data.source` reads."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def prepared(source: Path, folder: Path) -> Path:
    """Returns MNIST as an NPZ file in a folder, made of the four original gzip files."""
    path = folder / "mnist.npz"
    if path.exists():
        return path
    arrays: dict[str, np.ndarray] = {}
    for split, name in (("train", "train"), ("test", "t10k")):
        images = gzip.decompress((source / f"{name}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((source / f"{name}-labels-idx1-ubyte.gz").read_bytes())
        arrays[f"x_{split}"] = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1)
        arrays[f"y_{split}"] = np.frombuffer(labels, np.uint8, offset=8).astype(np.int32)
    np.savez(path, **arrays)
    return path
