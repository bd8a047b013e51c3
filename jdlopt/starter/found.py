"""What was found of a source: the keys that open it, facts for a choice, and words for a person."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jdlopt.data import named
from jdlopt.data.check import arrays
from jdlopt.data.check.columns import LONG_TAIL, bounds
from jdlopt.data.dataset import SPLITS, Dataset, class_counts
from jdlopt.data.fields import DataFields
from jdlopt.data.spec import InputSpec
from jdlopt.errors import DataError
from jdlopt.starter.facts import Choice, Facts
from jdlopt.starter.looks import shown

KINDS = {
    "table": "table",
    "signal": "sequence",
    "sequence": "sequence",
    "image": "image",
    "audio": "sound",
    "text": "text",
}
"""What `jdlopt.data.check.arrays.kind_of` says of an input → a kind of `Facts`."""
MOST_CLASSES = 8
"""So many classes are named, with their shares."""


class Row(NamedTuple):
    """One line of what was found."""

    what: str
    found: str


@dataclass(frozen=True)
class Found:
    """What is known of a source.

    Attributes:
      name: what it is called, for a person.
      facts: what a choice depends on.
      section: keys of ``data`` that open and split it.
      rows: what was found, a line each.
    """

    name: str
    facts: Facts
    section: tuple[Choice, ...]
    rows: tuple[Row, ...]


def facts_of(dataset: Dataset, *, missing: int = 0, tokens: int = 0) -> Facts:
    """Returns the facts of an opened dataset; of its examples, targets of training ones are read.

    Args:
      dataset: opened with ``allow_missing``, if values are missing.
      missing: columns of a table that lack values.
      tokens: of most texts.
    """
    spec, inputs = dataset.spec, dataset.spec.named
    kinds = {name: KINDS[arrays.kind_of(one)] for name, one in inputs.items()}
    only = next(iter(inputs.values())) if len(inputs) == 1 else None
    table = next((one for name, one in inputs.items() if kinds[name] == "table"), None)
    sizes = () if table is None else _categories(table)
    rows = dataset.sizes["train"]
    rarest, long_tail = 1.0, False
    if spec.num_classes:
        rarest = float(class_counts(dataset).min()) / max(1, rows)
    elif not spec.target_shape:
        long_tail = has_long_tail(dataset.targets("train"))
    return Facts(
        kind="mixed" if only is None else next(iter(kinds.values())),
        rows=rows,
        task=spec.task,
        outputs=spec.num_classes or max(1, len(spec.target_names)),
        rarest=rarest,
        numbers=0 if table is None else int(np.prod(table.shape)) - len(sizes),
        categories=sizes,
        missing=missing,
        long_tail=long_tail,
        shape=() if only is None else only.shape,
        sample_rate=None if only is None else only.sample_rate,
        tokens=tokens,
        inputs=kinds if only is None else {},
    )


def _categories(table: InputSpec) -> tuple[int, ...]:
    return tuple(len(one) for one in table.categories.values())


def has_long_tail(values: np.ndarray) -> bool:
    """Returns whether numbers are positive, and far more of them lie far above than of normal ones.

    Example:
      >>> has_long_tail(np.exp(np.linspace(0, 6, 200))), has_long_tail(np.linspace(1, 2, 200))
      (True, False)
    """
    limits = bounds(values) if bool((values >= 0).all()) else None
    return limits is not None and limits[2] > LONG_TAIL


def splits_of(dataset: Dataset) -> tuple[str, ...]:
    """Returns the splits that a source has itself, beside that for training."""
    return tuple(split for split in SPLITS[1:] if dataset.parts[split][0] == split)


def rows_of(dataset: Dataset) -> list[Row]:
    """Returns lines on sizes, inputs, targets and notes of an opened dataset."""
    spec = dataset.spec
    sizes = ", ".join(f"{dataset.sizes[split]:,} {split}" for split in SPLITS)
    rows = [Row("examples", sizes)]
    for name, one in spec.named.items():
        rows.append(Row("inputs" if name == named.INPUT else f"input {shown(name)}", _input(one)))
    rows.append(Row("to predict", _target(dataset)))
    return rows


def notes_of(dataset: Dataset) -> list[Row]:
    """Returns lines on what was left out, changed and guessed, but for the task, which is set."""
    return [
        Row("note", str(note))
        for note in dataset.notes
        if note.kind != "guessed" or "data.task" not in note.remedy
    ]


Open = Callable[[DataFields], Dataset]


def open_with(fields: DataFields, opened: Open) -> tuple[Dataset, DataFields]:
    """Returns a dataset and the section that opens it, with as few repairs as it takes.

    Raises:
      DataError: no repair helps; what is wrong without any.
    """
    whole = dataclasses.replace(fields, stratify=False)
    repaired = (whole, *(dataclasses.replace(one, on_bad="skip") for one in (fields, whole)))
    try:
        return opened(fields), fields
    except DataError as error:
        for section in repaired:
            try:
                return opened(section), section
            except DataError:
                continue
        raise error


def repairs(dataset: Dataset, fields: DataFields) -> list[Choice]:
    """Returns the choices that a damaged or unequal source needs, and what they leave out."""
    made = []
    if fields.on_bad == "skip":
        found = dataset.skipped.items()
        reasons = ", ".join(f"{reason} ({counted(count, 'example')})" for reason, count in found)
        what = f": {reasons}" if reasons else ""
        why = f"what can't be used is left out and counted{what}"
        made.append(Choice("data.on_bad", "skip", why))
    if not fields.stratify:
        why = "A class has too few examples for each split to have its share of it: look at it."
        made.append(Choice("data.stratify", False, why))
    return made


def _input(one: InputSpec) -> str:
    kind = KINDS[arrays.kind_of(one)]
    if kind == "table":
        numbers = int(np.prod(one.shape)) - len(one.categories)
        found = {"number": numbers, "category": len(one.categories)}
        return f"{' and '.join(counted(n, what) for what, n in found.items() if n)} a row"
    shape = "×".join(map(str, one.shape))
    if kind == "image":
        return f"images of {shape}"
    if kind == "sound":
        rate = one.sample_rate or 1
        return f"sounds of {one.shape[0] / rate:.2f} s, {rate:,} samples a second"
    if kind == "text":
        return "texts"
    return f"sequences of {shape}"


def _target(dataset: Dataset) -> str:
    spec = dataset.spec
    if not spec.num_classes:
        if spec.target_names:
            return f"{len(spec.target_names)} numbers: {', '.join(map(shown, spec.target_names))}"
        values = dataset.targets("train")
        spread = f"mean {shown(float(values.mean()))}, deviation {shown(float(values.std()))}"
        return f"a number, {shown(float(values.min()))} to {shown(float(values.max()))}, {spread}"
    counts, size = class_counts(dataset), max(1, dataset.sizes["train"])
    order = np.argsort(-counts, kind="stable")
    told = [f"{shown(spec.class_names[i])} {counts[i] / size:.1%}" for i in order[:MOST_CLASSES]]
    more = f", and {len(order) - MOST_CLASSES} more" if len(order) > MOST_CLASSES else ""
    what = "labels" if spec.task == "multilabel" else "classes"
    return f"{len(counts)} {what}: {', '.join(told)}{more}"


def counted(count: int, what: str) -> str:
    """Returns a number of things in words.

    Example:
      >>> counted(1, "column"), counted(1200, "category")
      ('1 column', '1,200 categories')
    """
    if count != 1:
        what = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {what}"


def grouped(reasons: Mapping[str, str], most: int = 8) -> list[str]:
    """Returns lines that tell names of the data with what is said of each, equal words once.

    Example:
      >>> grouped({"a": "always 0", "b": "dates", "c": "always 0"})
      ["'a', 'c': always 0", "'b': dates"]
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    lines = [f"{listed(some)}: {reason}" for reason, some in names.items()]
    more = sum(len(some) for some in list(names.values())[most:])
    return lines if len(lines) <= most else [*lines[:most], f"and {more} more"]


def listed(names: Any, most: int = 6) -> str:
    """Returns names of the data in a line, each as `shown`, the rest counted."""
    told = [shown(name) for name in names]
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return ", ".join(told[:most]) + more
