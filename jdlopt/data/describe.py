"""What a dataset holds, in numbers, and which datasets there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdlopt.data import pair_coding
from jdlopt.data.bundled import BUNDLED
from jdlopt.data.cache import prepared_folders
from jdlopt.data.dataset import SPLITS, Dataset, counts_of
from jdlopt.data.named import by_name, each, stacked
from jdlopt.data.pools import Arrays
from jdlopt.data.precision import restored
from jdlopt.data.prepared import read_info
from jdlopt.errors import DataError

MOST_BYTES = 1 << 30
MOST_CATEGORIES = 5
"""So many of a column's categories are named."""
SAMPLE = 10_000
"""So many evenly spaced examples are looked at in a split that takes more than `MOST_BYTES`."""


def describe(dataset: Dataset) -> dict[str, Any]:
    """Returns a dataset's splits, shapes, dtypes, class balance, missing values and ranges.

    All values are JSON-able. The test split is counted and not read: what is seen of
    it can't leak into a decision.
    """
    splits = {
        split: {
            "examples": dataset.sizes[split],
            "nbytes": dataset.nbytes(split),
            "read": False,
        }
        if split == "test"
        else _describe_split(dataset, split)
        for split in SPLITS
    }
    notes = [note.to_dict() for note in dataset.notes]  # reading the splits may have made some
    return {
        **dataset.spec.to_dict(),
        "notes": notes,
        "splits": splits,
        "baseline": None if dataset.spec.target_shape else _baseline(splits),
    }


def _baseline(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns how good it is to answer all examples alike, as training examples are most often.

    Of classes, the most frequent one and its share of each split; of one number, the mean and the
    root of the mean squared error of each split.
    """
    train, read = splits["train"], {name: one for name, one in splits.items() if one["read"]}
    if train.get("target", {}).get("mean") is not None:
        mean = train["target"]["mean"]
        return {"mean": mean} | {
            name: math.hypot(one["target"]["std"], one["target"]["mean"] - mean)
            for name, one in read.items()
        }
    if "classes" not in train:
        return None
    most = max(train["classes"], key=lambda name: train["classes"][name]["examples"])
    return {"class": most} | {name: one["classes"][most]["share"] for name, one in read.items()}


def _describe_split(dataset: Dataset, split: str) -> dict[str, Any]:
    nbytes, size = dataset.nbytes(split), dataset.sizes[split]
    if nbytes <= MOST_BYTES:
        arrays = dataset.read(split)
    else:
        records = dataset.records(split)
        chosen = np.linspace(0, size - 1, min(size, SAMPLE)).astype(int)
        inputs, targets = zip(*(records[int(index)] for index in chosen), strict=True)
        arrays = Arrays(stacked(inputs), np.array(targets))
    described = {
        "examples": size,
        "nbytes": nbytes,
        "read": True,
        "examples_described": len(arrays.targets),
        "inputs": each(_summary, arrays.inputs),
    }
    spec, values = dataset.spec, arrays.targets
    if spec.num_classes:
        counts = counts_of(values, spec)
        unit = "positions" if spec.positions else "examples"
        of = max(1, int(counts.sum())) if spec.positions else len(values)
        described["classes"] = {
            name: {unit: int(count), "share": float(count / of)}
            for number, (name, count) in enumerate(zip(spec.class_names, counts, strict=True))
            if number != spec.pad
        }
    elif spec.target_names:
        described["targets"] = {
            name: _summary(column) for name, column in zip(spec.target_names, values.T, strict=True)
        }
    elif spec.task == pair_coding.TASK:  # numbers that are equal or not, and mean nothing else
        described["target"] = {"distinct": len(np.unique(values))}
    else:
        described["target"] = _summary(values)
    for which, found in spec.named.items():
        if found.feature_names is not None:
            table = restored(by_name(arrays.inputs)[which], found.offsets)
            described["features"] = {
                name: _categories(table[:, column], found.categories[name])
                if name in found.categories and found.hash_buckets is None
                else _summary(table[:, column])
                for column, name in enumerate(found.feature_names)
            }
    return described


def _categories(codes: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Returns missing values, how many categories there are, and the most frequent, by name."""
    present = codes[~np.isnan(codes)].astype(np.int64)
    counts = np.bincount(present, minlength=len(names) + 1)
    order = np.argsort(-counts, kind="stable")[:MOST_CATEGORIES]
    called = ["(in no training row)", *names]
    return {
        "missing": len(codes) - len(present),
        "categories": int((counts > 0).sum()),
        "most frequent": {called[code]: int(counts[code]) for code in order if counts[code]},
    }


def _summary(values: np.ndarray) -> dict[str, Any]:
    """Returns missing values, minimum, maximum, mean and standard deviation, NaN left out."""
    missing = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    if missing == values.size:
        return {"missing": missing, "min": None, "max": None, "mean": None, "std": None}
    with np.errstate(invalid="ignore"):  # infinities have no standard deviation
        return {
            "missing": missing,
            "min": float(np.nanmin(values)),
            "max": float(np.nanmax(values)),
            "mean": float(np.nanmean(values, dtype=np.float64)),
            "std": float(np.nanstd(values.astype(np.float64))),
        }


def list_datasets(data_dir: str | None = None) -> list[dict[str, Any]]:
    """Returns the bundled datasets, and the TFDS datasets found prepared, without opening any.

    Args:
      data_dir: ``data.data_dir``; where to look for prepared datasets.

    Returns:
      For each: ``name`` (what ``data.source`` takes), ``kind`` (``bundled`` or ``tfds``),
      ``description``, ``task`` (None if unknown), ``sizes`` and ``path`` (None for bundled ones).
    """
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "kind": "bundled",
            "description": bundled.description,
            "task": bundled.task,
            "sizes": dict(bundled.sizes),
            "path": None,
        }
        for name, bundled in BUNDLED.items()
    ]
    for folder in prepared_folders(data_dir):
        try:
            info = read_info(folder)
        except DataError as error:
            info = {"name": folder.parent.name, "description": str(error), "sizes": {}}
        if info["name"].removeprefix("jdlopt_") in BUNDLED and info["name"].startswith("jdlopt_"):
            continue
        config = folder.parent.name if folder.parent.parent.name == info["name"] else None
        rows.append(
            {
                "name": f"{info['name']}/{config}" if config else info["name"],
                "kind": "tfds",
                "description": info["description"][:200],
                "task": None,
                "sizes": info["sizes"],
                "path": str(folder),
            }
        )
    return rows
