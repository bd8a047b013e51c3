"""A check of a whole source: its files and cells, then what its training examples show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Num

from jdlopt import writing
from jdlopt.config import section_of, to_dict
from jdlopt.data import mixed, table_files, targets
from jdlopt.data.check import arrays, columns, examples, structure
from jdlopt.data.check.cells import MISSING, TEXT, Cells, read_cells
from jdlopt.data.check.files import folder_findings
from jdlopt.data.check.finding import SEVERITIES, Finding, agreed, settled
from jdlopt.data.check.labels import label_findings
from jdlopt.data.check.opened import (
    OF_WHOLE_EXAMPLES,
    between_splits,
    examined,
    near_rows,
    of_examples,
    of_inputs,
)
from jdlopt.data.check.split_files import of_split_files
from jdlopt.data.dataset import SPLITS, Dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.inputs import columns_of
from jdlopt.data.labelled import beside_named, check_named, names_of, with_targets
from jdlopt.data.named import TABLE
from jdlopt.data.source import open_dataset
from jdlopt.data.split import split_indices
from jdlopt.errors import DataError

ALL_ROWS = (
    "Damage that stops a run (missing, infinite or unreadable values, rows of another size, equal "
    "rows) is looked for everywhere, in rows of the test split too."
)
TRAINING = (
    "All that could decide how to train (ranges, scales, leaks, odd rows, doubtful labels) is "
    "taken from the training split alone."
)
PRINTS = (
    "Of the test split's inputs nothing is kept but fingerprints, to find examples that are in "
    "another split too."
)
SEVERAL = (
    "An example has several targets: what gives a target away, rare classes and doubtful labels "
    "are looked for where it has one."
)
SEVERAL_INPUTS = (
    "An example has several inputs: what is said of one begins with its name; equal examples and "
    "conflicts are those that are equal in all of them; doubtful labels are not looked for."
)
NO_TEST = "The test split's inputs were not looked at, so near-duplicates there are not known."


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
      source: ``data.source``.
      kind: what the inputs are, as `arrays.kind_of` says.
      findings: errors first.
      sizes: examples, and of a table columns.
      looked_at: the dataset's notes, and sentences on what was looked at.
      dataset: the opened dataset; None where it can't be opened as it is.
      fields: the ``data`` section.
      first: what the first row or example of the source is called.
    """

    source: str
    kind: str
    findings: tuple[Finding, ...]
    sizes: Mapping[str, int]
    looked_at: tuple[str, ...]
    dataset: Dataset | None
    fields: DataFields
    first: int = 0

    def places(self, rows: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"] | None:
        """Returns where training rows that a finding names lie in their pool; None if unknown."""
        if self.dataset is None:
            return None
        called = np.asarray(rows, np.intp) - self.first
        known = self.dataset.origins.get(self.dataset.parts["train"][0], {})
        if not self.first or "row" not in known:
            return called
        # rows that are left out count in the file, and not in the pool
        there, places = np.unique(known["row"], return_index=True)
        found = np.minimum(np.searchsorted(there, called), len(there) - 1)
        return places[found] if (there[found] == called).all() else None

    def firsts(self, finding: Finding, most: int) -> list[tuple[str, int, int]] | None:
        """Returns the first examples of each part of a finding; None if their places are unknown.

        Args:
          finding: about training examples.
          most: examples of all parts together, at most.

        Returns:
          Of each its part's name, its row as the finding calls it, and its place in the pool.
        """
        each = max(1, most // max(1, len(finding.parts)))
        found: list[tuple[str, int, int]] = []
        for part in finding.parts[:most]:
            rows = part.rows[:each]
            places = self.places(rows)
            if places is None:
                return None
            for row, place in zip(rows.tolist(), places.tolist(), strict=True):
                found.append((part.name, row, place))
        return found

    def count(self, severity: str) -> int:
        """Returns the number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Returns the check as JSON-able values."""
        return {
            "source": self.source,
            "kind": self.kind,
            "sizes": dict(self.sizes),
            "looked_at": list(self.looked_at),
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "findings": [finding.as_dict() for finding in self.findings],
        }


def check_source(fields: DataFields | Mapping[str, Any], *, with_test: bool = True) -> Check:
    """Looks for problems in the dataset that a ``data`` section describes.

    A table is read cell by cell, in spite of damage that would stop a run; a folder file by file.
    What could decide how to train is taken from the training split alone. The test split is looked
    through for damage, and its examples' fingerprints are compared with those of the other splits.

    Args:
      fields: the ``data`` section; what it lacks has its default.
      with_test: False leaves the test split's inputs out of the search for near-duplicates.

    Raises:
      DataError: there is no such source, it is no table, archive, folder or dataset at all, or the
        section names a column that it has not.

    Example:
      >>> check = check_source({"source": "iris"})
      >>> check.kind, sum(check.sizes.values()), check.count("error")
      ('table', 150, 0)
    """
    # scikit-learn brings it
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if not isinstance(fields, DataFields):
        fields = section_of(DataFields, fields, "data")
    fields = dataclasses.replace(fields, train_on="train")  # the splits apart, to be compared
    path = _training_table(writing.expanded(fields.source.strip()))
    # fits this small lose more time than they gain where threads wait for one another
    with threadpool_limits(limits=1):
        if table_files.is_table(path) and path.exists():
            made = _check_table(path, fields, with_test)
        else:
            made = _check_dataset(path, fields, with_test)
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    of_labels = [] if made.dataset is None else label_findings(made.dataset, fields)
    findings = [_seen_to(finding, fields) for finding in (*made.findings, *of_labels)]
    findings.sort(key=lambda finding: order[finding.severity])
    findings = agreed(findings, fields.ignore)
    notes = () if made.dataset is None else tuple(map(str, made.dataset.notes))
    return dataclasses.replace(made, findings=tuple(findings), looked_at=(*notes, *made.looked_at))


def _seen_to(finding: Finding, fields: DataFields) -> Finding:
    if not settled(finding, to_dict(fields)):
        return finding
    return dataclasses.replace(
        finding, severity="note", config="", advice="The config already handles it."
    )


# --- tables ---------------------------------------------------------------------------------------


def check_table_file(
    path: Path, target: str | tuple[str, ...] | None = None, **section: Any
) -> Check:
    """Checks a CSV, TSV or Parquet file; see `check_source`.

    Args:
      path: the file.
      target: the column to predict, or several; without it nothing is said of targets.
      section: other keys of a ``data`` section.
    """
    return check_source({"source": str(path), "target": target, **section})


def _training_table(path: Path) -> Path:
    """Returns the table that is looked at cell by cell, where a folder has one for each split."""
    found = table_files.split_tables(path) if path.is_dir() else {}
    return found["train"][0] if len(found.get("train", ())) == 1 else path


def _check_table(path: Path, fields: DataFields, with_test: bool) -> Check:
    cells = read_cells(path, fields.missing_values, fields.decimal)
    fields = with_targets(fields, cells.names)
    names = names_of(fields.target)
    named = [*(("target", name) for name in names), ("text_column", fields.text_column)]
    named += [("id", fields.id), *(("ignore", one) for one in fields.ignore), *beside_named(fields)]
    check_named(str(path), named, cells.names)
    one = len(names) == 1 and fields.label_delimiter is None
    target = cells.names.index(names[0]) if one else None
    aside = {*names, *fields.unused, *(name for _, name in beside_named(fields))}
    if fields.text_column is not None:
        aside |= set(cells.names) - {fields.text_column}
    features = [place for place, name in enumerate(cells.names) if name not in aside]
    if not features:
        raise DataError(f"{path}: no feature column is left beside the target {fields.target!r}.")
    findings: list[Finding] = []
    dataset = None
    if names:
        try:
            dataset = open_dataset(fields)
        except DataError as error:
            findings.append(_opening(error))
    apart = {name for name, kind in fields.columns.items() if kind not in mixed.KINDS[:2]}
    if dataset is not None and fields.text_column is None:
        inputs = dataset.spec.named.values()
        apart = {name for one in inputs if not one.feature_names for name in columns_of(one)}
    features = [place for place in features if cells.names[place] not in apart]
    coding, values = _coded(cells, target, fields, findings)
    source = writing.expanded(fields.source.strip())
    of_files, of_others = of_split_files(source, fields, cells, features, target)
    findings += of_files
    several = () if one or not names else (SEVERAL,)
    looked = (ALL_ROWS, TRAINING, PRINTS if with_test else NO_TEST, *several)
    sizes = {"rows": len(cells.numbers), "columns": len(cells.names), **of_others}
    if fields.text_column is not None:
        findings += structure.damage(cells, features, target)
        findings += structure.duplicates(cells, features, target)
        if dataset is not None:
            findings += examined(dataset, with_test)
        return Check(fields.source, "text", tuple(findings), sizes, looked, dataset, fields)
    if apart:
        looked = (*looked, SEVERAL_INPUTS)
        if dataset is not None:
            if len(dataset.spec.named) == 1:
                findings += examined(dataset, with_test)
            else:
                findings += of_inputs(dataset, with_test, TABLE, _called(dataset))
    if not features:
        return Check(fields.source, "", tuple(findings), sizes, looked, dataset, fields)
    splits = _splits(cells, values, coding, fields, dataset)
    seen = np.zeros(len(cells.numbers), bool)
    seen[splits["train"]] = True
    task = "" if coding is None else coding.task
    found = list(columns.table_findings(cells, features, target, seen, values, task))
    matrix = cells.features(features)
    mine = None if values is None else values[seen]
    if mine is not None and coding is not None and coding.task == "classification":
        classes = mine[np.isfinite(mine)].astype(np.int64)
        found += examples.imbalance(classes, coding.class_names)
    found += of_examples(matrix[seen], mine, cells.rows[seen], coding, True)
    if not with_test:
        splits.pop("test", None)
    if dataset is not None and "file" in dataset.origins["train"] and not apart:
        found += between_splits(dataset, with_test, _called(dataset))
    else:
        found += near_rows(matrix, splits, cells.rows)
    if apart:  # rows that are alike in numbers and categories may differ in all else
        found = [one for one in found if one.kind not in OF_WHOLE_EXAMPLES]
    findings += found
    return Check(
        fields.source, "table", tuple(findings), sizes, looked, dataset, fields, int(cells.rows[0])
    )


def _called(dataset: Dataset) -> np.ndarray:
    """Returns what each row of a run's tables is called."""
    return dataset.origins["train"]["row"] + 1


def _opening(error: DataError) -> Finding:
    return Finding(
        kind="opening",
        severity="error",
        problem="a run can't open it",
        text=str(error),
        count=1,
        of=1,
        unit="sources",
        advice="What follows says where the damage lies.",
    )


def _coded(
    cells: Cells, target: int | None, fields: DataFields, findings: list[Finding]
) -> tuple[targets.Coding | None, Num[np.ndarray, " rows"] | None]:
    """Returns how the target is coded, and each row's class or value: NaN where it has none."""
    if target is None:
        return None, None
    kinds = cells.kinds[:, target]
    numbers = cells.numbers[:, target]
    usable = cells.whole & (kinds != MISSING) & ~np.isinf(numbers)
    if cells.numeric[target]:
        usable &= kinds != TEXT
        raw: np.ndarray = numbers[usable]
    else:
        places = np.flatnonzero(usable)
        raw = np.array([cells.shown(int(place), target) for place in places], dtype=object)
    what = f"{cells.path}, target column {fields.target!r}"
    try:
        coding = targets.infer_coding(raw, fields.task, what)
        codes = targets.encode(raw, coding, what)
    except DataError as error:
        findings.append(
            Finding(
                kind="target",
                severity="error",
                problem="a target that can't be predicted",
                text=str(error),
                count=1,
                of=1,
                unit="columns",
                advice="Name another column with data.target.",
            )
        )
        return None, None
    if codes.ndim > 1:  # a sequence an example is no one value
        return None, None
    values = np.full(len(cells.numbers), np.nan)
    values[usable] = codes
    return coding, values


def _splits(
    cells: Cells,
    values: Num[np.ndarray, " rows"] | None,
    coding: targets.Coding | None,
    fields: DataFields,
    dataset: Dataset | None,
) -> dict[str, np.ndarray]:
    """Returns the rows of each split: a run's own, or alike over the rows that could be used."""
    if dataset is not None:
        origin = dataset.origins["train"]
        files = origin.get("file", np.zeros(len(origin["row"])))
        mine = (files == files[0]) & (np.arange(len(files)) < len(cells.numbers))
        parts = {split: dataset.rows(split) for split in SPLITS}
        return {split: origin["row"][places[mine[places]]] for split, places in parts.items()}
    usable = np.flatnonzero(cells.whole if values is None else cells.whole & np.isfinite(values))
    classes = None
    if coding is not None and values is not None and coding.task == "classification":
        classes = values[usable].astype(np.int32)
    for stratified in (classes, None):
        try:
            parts = split_indices(
                len(usable),
                labels=stratified if fields.stratify else None,
                test_fraction=fields.test_fraction,
                validation_fraction=fields.validation_fraction,
                seed=fields.split_seed,
                where=cells.path,
            )
        except DataError:  # too few of a class, or of all; opening the dataset said so
            continue
        return {split: usable[parts[split]] for split in SPLITS}
    return {"train": usable}


# --- everything else ------------------------------------------------------------------------------


def _check_dataset(path: Path, fields: DataFields, with_test: bool) -> Check:
    findings: list[Finding] = []
    kind, opened = "", ""
    if path.is_dir() and not (path / "dataset_info.json").is_file():
        kind, found, opened = folder_findings(path, fields)
        findings += found
    try:
        dataset = open_dataset(fields, allow_missing=True)
        one = len(dataset.spec.named) == 1
        findings += examined(dataset, with_test)
    except DataError as error:
        if not findings:
            raise
        return Check(
            fields.source, kind, (_opening(error), *findings), {}, (opened,), None,
            fields,
        )  # fmt: skip
    files = (opened,) if opened else ()
    looked = (*files, TRAINING, PRINTS if with_test else NO_TEST, "Examples are counted from 0.")
    source, sizes = fields.source, dict(dataset.sizes)
    looked = looked if one else (*looked, SEVERAL_INPUTS)
    kind = arrays.kind_of(dataset.spec.input) if one else ""
    return Check(source, kind, tuple(findings), sizes, looked, dataset, fields)
