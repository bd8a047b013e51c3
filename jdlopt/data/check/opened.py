"""What the examples of an opened dataset show: each input by itself, and all of them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from jdlopt.data import mixed, targets
from jdlopt.data.check import arrays, columns, examples, labels, near_duplicates, structure
from jdlopt.data.check.cells import cells_of
from jdlopt.data.check.finding import Finding
from jdlopt.data.dataset import SPLITS, Dataset
from jdlopt.data.inputs import columns_of
from jdlopt.data.named import contents

COLUMNS = 2000
"""A table of more columns is looked at as vectors, not column by column."""
OF_WHOLE_EXAMPLES = (
    "label_noise", "label_noise_unknown", "target_noise", "duplicates", "conflicts",
    "near_duplicates",
)  # fmt: skip
"""Findings that one input of several can't tell."""


def examined(dataset: Dataset, with_test: bool) -> list[Finding]:
    """Returns what the examples of an opened dataset show, gone through once.

    Of several inputs, each is looked at by itself, and equal examples are those that are equal in
    all of them.
    """
    if len(dataset.spec.named) == 1:
        return _of_one(dataset, _looked(dataset, with_test), _rows(dataset, with_test))
    return list(of_inputs(dataset, with_test))


def _looked(dataset: Dataset, with_test: bool) -> dict[str, arrays.Seen]:
    return {s: arrays.look(dataset, s) for s in SPLITS if s != "test" or with_test}


def _rows(
    dataset: Dataset, with_test: bool, called: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Returns what each split's examples are called."""
    rows = {s: dataset.rows(s) for s in SPLITS if s != "test" or with_test}
    return rows if called is None else {split: called[some] for split, some in rows.items()}


def _of_one(
    dataset: Dataset, seen: Mapping[str, arrays.Seen], rows: Mapping[str, np.ndarray]
) -> list[Finding]:
    kind = arrays.kind_of(dataset.spec.input)
    findings = list(_of_arrays(dataset, kind, seen["train"], rows["train"]))
    if kind != "table":
        return findings + _near_arrays([seen], [kind], rows)
    return findings + _near_tables(seen, rows)


def between_splits(dataset: Dataset, with_test: bool, called: np.ndarray) -> list[Finding]:
    """Returns the rows of a table that are (almost) in another split; ``called`` names each."""
    return _near_tables(_looked(dataset, with_test), _rows(dataset, with_test, called))


def _near_tables(seen: Mapping[str, arrays.Seen], rows: Mapping[str, np.ndarray]) -> list[Finding]:
    wanted = list(seen)
    matrices = [one.small.astype(np.float64) for one in seen.values()]
    ends = np.cumsum([len(matrix) for matrix in matrices])
    places = np.split(np.arange(ends[-1]), ends[:-1])
    called = np.concatenate([rows[split][seen[split].chosen] for split in wanted])
    splits = dict(zip(wanted, places, strict=True))
    return near_rows(np.concatenate(matrices), splits, called)


def _of_arrays(
    dataset: Dataset, kind: str, seen: arrays.Seen, rows: np.ndarray
) -> Iterator[Finding]:
    names, coding = tuple(dataset.spec.class_names), None
    features = seen.small.astype(np.float64)
    called = rows[seen.chosen]
    values = seen.targets.astype(np.float64)
    several = values.ndim > 1
    if several:  # what follows looks at one class or value an example
        values = np.full(len(values), np.nan)
    else:
        coding = targets.Coding(dataset.spec.task, tuple(range(len(names))), names)
    if kind == "table" and features.shape[1] <= COLUMNS:
        given = dataset.spec.input.feature_names or [
            f"feature {i}" for i in range(features.shape[1])
        ]
        cells = cells_of(dataset.spec.source, given, features, called)
        every: Bool[np.ndarray, " rows"] = np.ones(len(features), bool)
        yield from columns.table_findings(
            cells,
            range(len(given)),
            None,
            every,
            None if several else values[seen.chosen],
            "" if several else dataset.spec.task,
        )
    else:
        yield from arrays.array_findings(kind, dataset.spec.input.dtype, seen, rows)
    if dataset.spec.task == "classification":
        yield from examples.imbalance(seen.targets, names)
    if kind != "text":  # token ids are no quantities
        finite = np.where(np.isfinite(features), features, np.nan if kind == "table" else 0.0)
        yield from of_examples(finite, values[seen.chosen], called, coding, kind == "table")


def _near_arrays(
    seen: Sequence[Mapping[str, arrays.Seen]],
    kinds: Sequence[str],
    rows: Mapping[str, np.ndarray],
) -> list[Finding]:
    """Returns the examples of one split that are (almost) in another: alike in each input.

    Args:
      seen: of each input, its splits.
      kinds: of the inputs; token ids are no quantities, and a table's columns have no scale in
        common, so that these are compared for equality.
      rows: what each split's examples are called.
    """
    prints = {split: [_prints([one[split] for one in seen])] for split in rows}
    closely: dict[str, list[np.ndarray]] = {}
    if any(kind not in ("text", "table") for kind in kinds):
        closely = {split: [] for split in rows}
        for one, kind in zip(seen, kinds, strict=True):
            centre = np.nan_to_num(one["train"].small).mean(axis=0)
            for split, some in one.items():
                exact = kind in ("text", "table")
                closely[split].append(
                    near_duplicates.bits(some.prints[some.chosen])
                    if exact
                    else near_duplicates.signs(some.small, centre)
                )
    chosen = {split: seen[0][split].chosen for split in rows}
    return near_duplicates.between_splits(prints, closely, rows, chosen)


def _prints(inputs: Sequence[arrays.Seen]) -> np.ndarray:
    """Returns a number for each example, equal for those that are equal in all inputs."""
    if len(inputs) == 1:
        return inputs[0].prints
    return near_duplicates.fingerprints(np.stack([one.prints for one in inputs], axis=1))


# --- several inputs -------------------------------------------------------------------------------


def of_inputs(
    dataset: Dataset,
    with_test: bool,
    but: str | None = None,
    called: np.ndarray | None = None,
) -> Iterator[Finding]:
    """Yields what several inputs show: each by itself, then the examples by all of them.

    Args:
      dataset: an opened one.
      with_test: whether the test split is looked at.
      but: an input that is looked at elsewhere; it counts for whole examples alone.
      called: what each example of the source is called; None: by its place.
    """
    rows = _rows(dataset, with_test, called)
    unit = "examples" if called is None else "rows"
    seen, kinds = [], []
    for name, spec in contents(dataset.spec.named).items():
        one = mixed.of_input(dataset, name)
        seen.append(_looked(one, with_test))
        kinds.append(arrays.kind_of(spec))
        if name == but:
            continue
        which = columns_of(spec)[0] if spec.text or spec.column else name
        for finding in _of_one(one, seen[-1], rows):
            if finding.kind not in (*OF_WHOLE_EXAMPLES, "imbalance"):
                yield dataclasses.replace(finding, text=f"{which!r}: {finding.text}")
    if but is None and dataset.spec.task == "classification":
        yield from examples.imbalance(seen[0]["train"].targets, dataset.spec.class_names)
    prints = np.concatenate([_prints([one[split] for one in seen]) for split in rows])
    answers = np.concatenate([seen[0][split].targets for split in rows])
    places = np.concatenate(list(rows.values()))
    order = np.argsort(places, kind="stable")
    yield from structure.repeated(
        prints[order],
        near_duplicates.fingerprints(answers)[order],
        places[order],
        unit=unit,
        alike="are equal in all inputs to",
    )
    yield from _near_arrays(seen, kinds, rows)


# --- one input ------------------------------------------------------------------------------------


def of_examples(
    features: np.ndarray,
    values: np.ndarray | None,
    rows: np.ndarray,
    coding: targets.Coding | None,
    is_table: bool,
) -> Iterator[Finding]:
    """Yields what training examples, given as vectors, show together."""
    if coding is not None and values is not None:
        known = np.isfinite(values)
        features, values, rows = features[known], values[known], rows[known]
        if coding.task == "classification":
            classes = values.astype(np.int64)
            yield from labels.label_noise(features, classes, rows, coding.class_names, is_table)
        elif is_table:
            yield from labels.target_noise(features, values, rows)
    if is_table:
        yield from examples.odd_rows(features, rows)


def near_rows(
    matrix: np.ndarray, splits: Mapping[str, np.ndarray], rows: np.ndarray
) -> list[Finding]:
    """Returns the rows of a table that are (almost) in another split as well.

    Args:
      matrix: the table's features.
      splits: the places of each split's rows.
      rows: what each row is called.
    """
    train = examples.filled(matrix[splits["train"]])
    if not len(train):
        return []
    first, centre, third = np.percentile(train, (25, 50, 75), axis=0)
    spread = np.where(third > first, third - first, np.maximum(np.abs(centre), 1.0))
    width = near_duplicates.grid_width(train)
    prints = {
        split: [
            near_duplicates.fingerprints(matrix[places]),
            *near_duplicates.grid_fingerprints(matrix[places], centre, spread, width),
        ]
        for split, places in splits.items()
    }
    scaled = {
        split: np.nan_to_num((matrix[places] - centre) / spread) for split, places in splits.items()
    }
    return near_duplicates.between_splits(
        prints, {}, {split: rows[p] for split, p in splits.items()}, {}, scaled
    )
