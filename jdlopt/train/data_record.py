"""What a run was trained on, so that other data in its place are noticed: ``data.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jdlopt.data import feed
from jdlopt.data.dataset import Dataset
from jdlopt.data.pools import ArrayPool
from jdlopt.data.source import is_written_first
from jdlopt.errors import DataError, WorkdirError
from jdlopt.train import disk, log, split_record
from jdlopt.train.schema import resolve_data

DATA = "data.json"
WHOLE = 1 << 26
"""Bytes of a split up to which every example is looked at."""
SAMPLE = 64
"""Examples of a larger split that are looked at, evenly spaced."""


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Returns what tells data from others: columns, classes, and of each split which rows and what.

    It is computed once of an open dataset.

    Of a split that is in memory and at most `WHOLE` bytes, all inputs and targets are looked at, of
    any other `SAMPLE` examples. A test split that is not in memory is not read: its rows alone
    count.

    Args:
      dataset: as a run opens it.
    """
    if "fingerprint" not in dataset.kept:
        dataset.kept["fingerprint"] = _fingerprint(dataset)
    found: dict[str, Any] = dataset.kept["fingerprint"]
    return found


def _fingerprint(dataset: Dataset) -> dict[str, Any]:
    spec = dataset.spec
    return {
        "columns": {name: list(one.feature_names or ()) for name, one in spec.named.items()},
        "classes": [str(name) for name in spec.class_names],
        "splits": {
            split: {
                "count": size,
                "rows": _rows(dataset.parts[split][1]),
                "content": _content(dataset, split) if size else None,
            }
            for split, size in dataset.sizes.items()
        },
    }


def _rows(indices: np.ndarray | None) -> str | None:
    if indices is None:
        return None
    return hashlib.sha256(np.asarray(indices, "<i8").tobytes()).hexdigest()[:16]


def _content(dataset: Dataset, split: str) -> str | None:
    in_memory = isinstance(dataset.pools[dataset.parts[split][0]], ArrayPool)
    if split == "test" and not in_memory:
        return None
    size = dataset.sizes[split]
    whole = in_memory and dataset.nbytes(split) <= WHOLE
    chosen = np.arange(size) if whole else np.unique(np.linspace(0, size - 1, SAMPLE).astype(int))
    try:
        found = feed.read_examples(dataset.records(split), chosen)
    except DataError:
        return None  # told where it is read to train on
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((found.inputs, found.targets)):
        values = np.ascontiguousarray(leaf)
        digest.update(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    return digest.hexdigest()[:16]


def keep(workdir: Path, dataset: Dataset) -> None:
    """Writes what a run is trained on, or checks that it goes on with the same data.

    Raises:
      WorkdirError: the data are not those that it began with.
    """
    now, path = fingerprint(dataset), workdir / DATA
    before = read(path)
    if before is None:
        log.write_aside(path, json.dumps(now, indent=2) + "\n")
        return
    changed = differences(before, now)
    if changed:
        raise WorkdirError(
            f"--workdir: the run in {workdir} began with other data in {dataset.spec.source!r}:\n"
            f"{changed}\nBring them back to go on with it, or choose another --workdir to train on "
            "what is there now."
        )


def refuse_preparing(workdir: Path, config: Mapping[str, Any]) -> None:
    """Checks that a directory's config has no dataset written into a folder that it names itself.

    Data are read from wherever the config says; only a person's own config says where to write.

    Raises:
      WorkdirError: the dataset would be prepared in ``data.data_dir`` first.
    """
    fields = resolve_data(config)
    if fields.data_dir is not None and is_written_first(fields):
        raise WorkdirError(
            f"{workdir}: data.data_dir={fields.data_dir!r} of its config does not hold the dataset "
            f"{fields.source!r}, and nothing is written to a folder that a run's directory names. "
            "`jdlopt data describe --config=FILE`, with a config of your own, prepares it there."
        )


def check(workdir: Path, dataset: Dataset, changed_data: str = "refuse") -> None:
    """Checks that data are those that a run was trained on; one of before `DATA` can't be checked.

    Args:
      workdir: the run's directory.
      dataset: its data, opened anew.
      changed_data: ``refuse``, or ``ok``, which takes other data.

    Raises:
      WorkdirError: they are not, and ``changed_data`` is ``refuse``.
    """
    before = read(workdir / DATA)
    changed = differences(before, fingerprint(dataset)) if before is not None else ""
    if changed and changed_data != "ok":
        raise WorkdirError(
            f"{workdir}: the data in {dataset.spec.source!r} are not those that the run was "
            f"trained on:\n{changed}\n{_trained_on(workdir, dataset)} Bring the old data back or "
            "train anew; `jdlopt eval --changed-data=ok` (changed_data='ok') "
            "evaluates all the same."
        )


def _trained_on(workdir: Path, dataset: Dataset) -> str:
    """Returns how much of the splits as they are now a run was trained on, in words."""
    found = trained_on(workdir, dataset)
    if found is None:
        return (
            "The splits may have other rows now: what is in a test or validation split may have "
            "been trained on, and look better than it is."
        )
    told = [f"{some:,} of {size:,} in {split}" for split, (some, size) in found.seen.items()]
    return f"By their {found.by}, the run was trained on {' and '.join(told)} as they are now."


class TrainedOn(NamedTuple):
    """What of a dataset a run was trained on.

    Attributes:
      by: what examples are known by: ``rows``, ``keys`` or ``files``.
      seen: of the validation and test split, the examples that the run was trained on, and all.
    """

    by: str
    seen: dict[str, tuple[int, int]]


def trained_on(workdir: Path, dataset: Dataset) -> TrainedOn | None:
    """Returns how many examples of a dataset's other splits a run was trained on.

    Args:
      workdir: the run's directory.
      dataset: of the same source.

    Returns:
      The counts; None if the run has no record of its splits.
    """
    path = split_record.find(workdir)
    try:
        before = None if path is None else split_record.read(path)["train"]
    except (WorkdirError, KeyError):
        before = None
    if before is None:
        return None
    seen, name = {}, "rows"
    for split, now in split_record.of_dataset(dataset).items():
        columns = [one for one in now.columns if one in before.columns]
        if "key" in columns:  # rows may have other numbers now, and keys none
            columns, name = ["key"], "keys"
        elif "row" not in columns:
            name = "files"
        known = set(before[columns].astype(str).itertuples(index=False, name=None))
        here = now[columns].astype(str).itertuples(index=False, name=None)
        if split != "train":
            seen[split] = (sum(one in known for one in here), len(now))
    return TrainedOn(name, seen)


def read(path: Path) -> dict[str, Any] | None:
    """Returns the fingerprint that a file holds; None if there is none, or it is damaged."""
    found = disk.read_object(path)
    return found if is_whole(found) else None


def is_whole(found: object) -> bool:
    """Says whether something that was written down is a fingerprint."""
    splits = found.get("splits") if isinstance(found, dict) else None
    return isinstance(splits, dict) and all(isinstance(one, dict) for one in splits.values())


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns in words, a line each, how fingerprints differ; nothing if they are equal.

    Example:
      >>> split = {"count": 3, "rows": None, "content": "a"}
      >>> print(differences({"splits": {"test": split}},
      ...                   {"splits": {"test": {**split, "count": 4, "content": "b"}}}))
        test: 3 examples there, 4 now
    """
    lines = []
    for what in ("columns", "classes"):
        if before.get(what) != now.get(what):
            lines.append(f"  {what}: {before.get(what)} there, {now.get(what)} now"[:200])
    for split, one in now["splits"].items():
        old = before["splits"].get(split) or {}
        if old.get("count") != one["count"]:
            lines.append(f"  {split}: {old.get('count')} examples there, {one['count']} now")
        elif old.get("rows") != one["rows"]:
            lines.append(f"  {split}: other rows of the source")
        elif old.get("content") and one["content"] and old["content"] != one["content"]:
            lines.append(f"  {split}: its {one['count']} examples have other values")
    return "\n".join(lines)
