"""Tables: which columns are used and how, which are left out, and which a person should look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jdlopt.config.overrides import is_reserved
from jdlopt.config.tree import flat, nested_columns
from jdlopt.data import labelled
from jdlopt.data.check import columns
from jdlopt.data.check.cells import cells_of
from jdlopt.data.check.finding import Finding
from jdlopt.data.columns import texts_of
from jdlopt.data.dataset import Dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.named import INPUT, TABLE, by_name
from jdlopt.data.precision import restored
from jdlopt.errors import ConfigError, DataError, UserError, nearest
from jdlopt.starter import looks, training
from jdlopt.starter.facts import Choice
from jdlopt.starter.files_source import image_size, sound_size, tokens_of
from jdlopt.starter.found import (
    Found,
    Open,
    Row,
    counted,
    facts_of,
    grouped,
    listed,
    notes_of,
    open_with,
    repairs,
    rows_of,
    splits_of,
)
from jdlopt.starter.looks import Look, as_target, shown
from jdlopt.starter.table_reading import Table, of_words

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 20_000
"""Training rows in which a column is looked for that gives the target away."""
MOST_ADDED = 100
"""Columns of which a sum is looked for."""
EXACT, PART = 1e-6, 1e-3
"""Shares of the target: of its variance, that such a sum leaves; of its deviation, of a part."""
OF_KIND = {words: kind for kind, words in looks.APART.items()}
"""What a column holds → its kind in ``data.columns``."""


def survey(found: Table, fields: DataFields, folder: Path, opened: Open) -> Found:
    """Returns what is known of a table whose target is named.

    Args:
      found: as it was read.
      fields: ``source``, ``target``, and maybe ``task``.
      folder: where paths begin.
      opened: opens it as a data section says.

    Raises:
      UserError: the target can't be predicted, or no column is left; says why.
      DataError: the table can't be used, even without its odd columns and rows.
    """
    table = found.frame
    fields = labelled.with_targets(fields, list(table.columns))
    seen = looks.look_at(table, fields, folder)
    names = labelled.names_of(fields.target)
    fields, target = _target(fields, names, seen)
    left_out = _left_out(seen, names)
    kinds = {
        name: OF_KIND[look.holds]
        for name, look in seen.items()
        if look.holds in OF_KIND and name not in names and name not in left_out
    }
    used = [name for name in seen if name not in names and name not in left_out]
    if not used:
        told = "\n".join(f"  {shown(name)}: {reason}" for name, reason in left_out.items())
        raise UserError(f"{fields.source}: no column is left to predict from:\n{told}")
    share = training.validation_share(len(table))
    missing_values, words = of_words(found)
    fields = dataclasses.replace(
        fields,
        ignore=tuple(left_out),
        validation_fraction=share,
        missing_values=missing_values,
    )
    section, fields = _inputs(table, fields, kinds, used, folder)
    if found.damaged:
        fields = dataclasses.replace(fields, on_bad="skip")
    dataset, fields = open_with(fields, opened)
    missing = [name for name in used if name not in kinds and seen[name].missing]
    tokens = max(
        (tokens_of(list(texts_of(table[name]))) for name, kind in kinds.items() if kind == "text"),
        default=0,
    )
    facts = facts_of(dataset, missing=len(missing), tokens=tokens)
    task = Choice("data.task", dataset.spec.task, _of_task(dataset, names, seen, fields))
    leaks, groups = _suspects(dataset)
    choices = [
        *target,
        task,
        *_ignored(left_out, leaks),
        *words,
        *section,
        *_hints(table, seen, used, groups, kinds),
    ]
    choices += repairs(dataset, fields)
    choices += training.split(found.own_splits or splits_of(dataset), share)
    rows = rows_of(dataset)
    rows[1:1] = [Row("columns", _columns(seen, used, names, left_out))]
    if missing:
        rows.append(
            Row("missing", f"values in {counted(len(missing), 'column')}: {listed(missing)}")
        )
    rows += [Row("left out", words) for words in grouped(left_out)]
    rows += [
        Row("look at", f"{shown(name)}: {reason}") for name, reason in {**leaks, **groups}.items()
    ]
    rows += notes_of(dataset)
    return Found(Path(fields.source).name, facts, tuple(choices), tuple(rows))


# --- the target -----------------------------------------------------------------------------------


def _target(
    fields: DataFields, names: tuple[str, ...], seen: Mapping[str, Look]
) -> tuple[DataFields, list[Choice]]:
    """Returns the data section with what the target's texts say, and the choices of it."""
    for name in names:
        if name not in seen:
            raise DataError(
                f"--target: {fields.source} has no column {name!r}.{nearest(name, seen)} Columns: "
                f"{', '.join(map(repr, seen))}."
            )
    target = names[0] if len(names) == 1 else names
    made = [Choice("data.target", target, "the column to predict" if len(names) == 1 else "")]
    for name in names:
        found = as_target(seen[name])
        impossible = seen[name].holds in (looks.NOTHING, looks.ONE_VALUE, *looks.APART.values())
        if (found.task is None and fields.task == "auto") or impossible:
            raise UserError(
                f"--target: {name!r} can't be predicted: it {_said(found.words)}. Name another "
                "column; `jdlopt init FILE` without --target lists what each holds."
            )
    delimiter = seen[names[0]].delimiter
    if len(names) > 1 or delimiter is None or fields.task in ("classification", "regression"):
        return fields, made
    why = "what stands between the labels of a row"
    made.append(Choice("data.label_delimiter", delimiter, why))
    return dataclasses.replace(fields, label_delimiter=delimiter), made


def _said(words: str) -> str:
    return words if words.split()[0] in ("is", "has", "holds", "names") else f"is {words}"


def _of_task(
    dataset: Dataset, names: tuple[str, ...], seen: Mapping[str, Look], fields: DataFields
) -> str:
    """Returns why this task, and how to have another."""
    task = dataset.spec.task
    if len(names) > 1:
        other = "multilabel" if task == "regression" else "regression"
        bits = all(seen[name].different == 2 for name in names)
        what = {"multilabel": "labels", "regression": "numbers to predict"}.get(task, "classes")
        meant = {"multilabel": "labels", "regression": "numbers"}[other]
        instead = f" For {meant}, run init with --task={other}." if bits else ""
        return f"{counted(len(names), 'column')}, taken for {what}.{instead}"
    found = as_target(seen[names[0]])
    words = found.words[0].upper() + found.words[1:]
    if seen[names[0]].names_rows:
        return f"LOOK AT THIS: {shown(names[0])} {found.words}. Is it the right target?"
    if found.task != task:
        return f"{words}; the task was asked for."
    if found.other is None:
        return ""
    wanted = {
        "regression": "a number to predict, whose order and distances count",
        "classification": "classes, without an order",
        "multilabel": "any number of labels each",
    }[found.other]
    taken = {
        "regression": "taken for a number to predict",
        "classification": "taken for classes",
        "multilabel": "taken for labels",
    }[task]
    return f"{words}: {taken}. For {wanted}, run init with --task={found.other}."


# --- the inputs -----------------------------------------------------------------------------------


def _left_out(seen: Mapping[str, Look], targets: tuple[str, ...]) -> dict[str, str]:
    """Returns the columns that are no inputs, and why."""
    made = {}
    for name, look in seen.items():
        if name in targets:
            continue
        if look.holds == looks.UNUSABLE or look.holds == looks.DATES:
            made[name] = look.words
        elif look.holds in (looks.NOTHING, looks.ONE_VALUE):
            made[name] = f"says nothing: {look.words}"
        elif look.names_rows:
            which = "(almost) every row" if look.holds == looks.CATEGORIES else "every row"
            made[name] = f"names the row: another value in {which}, {look.words}"
    return made


def _ignored(left_out: Mapping[str, str], leaks: Mapping[str, str]) -> list[Choice]:
    made = []
    if left_out:
        told = "\n".join(f"  {words}" for words in grouped(left_out))
        made.append(Choice("data.ignore", tuple(left_out), f"Left out:\n{told}"))
    if leaks:
        told = "\n".join(f"  {words}" for words in grouped(leaks))
        why = (
            f"LOOK AT THIS: what (almost) gives the target away by itself:\n{told}\n"
            "If it is not known when one predicts, leave it out, or all figures are too good:"
        )
        made.append(Choice("data.ignore", (*left_out, *leaks), why, on=False))
    return made


def _inputs(
    table: pd.DataFrame,
    fields: DataFields,
    kinds: Mapping[str, str],
    used: list[str],
    folder: Path,
) -> tuple[list[Choice], DataFields]:
    """Returns the choices that say which columns are texts and files, and the section with them."""
    if not kinds:
        return [], fields
    made: list[Choice] = []
    only = next(iter(kinds)) if len(used) == len(kinds) == 1 else None
    if only is not None and kinds[only] == "text":
        made.append(Choice("data.text_column", only, "its texts are the only input"))
        return made, dataclasses.replace(fields, text_column=only)
    named = nameable(kinds)
    if named:
        why = "inputs of their own, as these columns look; 'category' takes one for categories"
        made.append(Choice("data.columns", nested_columns(named), why))
        fields = dataclasses.replace(fields, columns=named)
    for kind, size in (("image", image_size), ("sound", sound_size)):
        paths = [
            folder / str(value)
            for name in kinds
            if kinds[name] == kind
            for value in table[name].dropna()
        ]
        if paths:
            choices, sizes = size(paths)
            made += choices
            fields = dataclasses.replace(fields, **sizes)
    return made, fields


def nameable(kinds: Mapping[str, str]) -> dict[str, str]:
    """Returns the columns whose names can be keys of a config; what others hold is guessed.

    Args:
      kinds: what columns hold, by name.

    Example:
      >>> nameable({"a.b": "text", "a": "text", "__class__": "text"})
      {'a.b': 'text'}
    """
    from ml_collections import ConfigDict

    found: dict[str, str] = {}
    for name, kind in kinds.items():
        try:
            made = ConfigDict(nested_columns({**found, name: kind}))
            if name in flat(made.to_dict()) and not any(map(is_reserved, name.split("."))):
                found[name] = kind
        except (AttributeError, KeyError, TypeError, ValueError, ConfigError):
            continue
    return found


def _suspects(dataset: Dataset) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the columns that give the target away, and those that name groups of one target."""
    spec = dataset.spec
    which = next((name for name, one in spec.named.items() if one.feature_names), None)
    if which is None or spec.target_shape or spec.task not in ("classification", "regression"):
        return {}, {}
    one, train = spec.named[which], dataset.read("train")
    size = len(train.targets)
    rows = np.linspace(0, size - 1, min(size, MOST_ROWS)).astype(int)
    values = restored(by_name(train.inputs)[which][rows], one.offsets)
    assert which in (INPUT, TABLE) and one.feature_names is not None
    cells = cells_of(spec.source, one.feature_names, values)
    wanted = train.targets[rows].astype(np.float64)
    every = np.ones(len(rows), bool)
    filled = [place for place in range(values.shape[1]) if np.isfinite(values[:, place]).any()]
    leaks = _parts(columns.leaks(cells, filled, every, wanted, spec.task))
    if spec.task == "regression":
        numbers = [place for place in filled if cells.names[place] not in one.categories]
        leaks |= adding_up(values[:, numbers], wanted, [cells.names[place] for place in numbers])
    rest = [place for place in filled if cells.names[place] not in leaks]
    groups = _parts(columns.group_leaks(cells, rest, every, wanted, spec.task))
    return leaks, {
        name: f"names groups whose rows (almost) always have one target: {words}"
        for name, words in groups.items()
    }


def adding_up(values: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> dict[str, str]:
    """Returns columns of numbers that (almost) add up to the target, each with a factor.

    Example:
      >>> draw = np.random.default_rng(0)
      >>> parts = draw.integers(0, 90, (200, 3)).astype(float)
      >>> list(adding_up(parts, parts[:, 0] + parts[:, 2], ["men", "rain", "women"]))
      ['men', 'women']
    """
    whole = np.isfinite(values).all(axis=1)
    known, wanted = values[whole], targets[whole]
    if not 2 <= len(names) <= MOST_ADDED or len(known) < 3 * len(names) + looks.LEAST_ROWS:
        return {}
    spread = known.std(axis=0)
    scaled = (known - known.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    wanted = wanted - wanted.mean()
    factors = np.linalg.lstsq(scaled, wanted, rcond=None)[0]
    rest = float(np.square(wanted - scaled @ factors).sum())
    if rest > EXACT * float(np.square(wanted).sum()):
        return {}
    parts = [name for name, one in zip(names, factors) if abs(one) > PART * wanted.std()]
    if not 2 <= len(parts) <= looks.FEW_NUMBERS:
        return {}
    return dict.fromkeys(parts, f"{len(parts)} columns that add up to the target, with factors")


def _parts(findings: list[Finding]) -> dict[str, str]:
    return {part.name: part.detail for finding in findings for part in finding.parts}


def _hints(
    table: pd.DataFrame,
    seen: Mapping[str, Look],
    used: list[str],
    groups: Mapping[str, str],
    kinds: Mapping[str, str],
) -> list[Choice]:
    """Returns keys that a person may want, by what the columns look like."""
    made = []
    codes = tuple(name for name in used if name not in kinds and seen[name].may_be_categories)
    if codes:
        of_each = {n: f"{seen[n].different:,} values, {seen[n].words}" for n in codes}
        told = "\n".join(f"  {words}" for words in grouped(of_each))
        why = f"Whole numbers that may mean categories; name those that do:\n{told}"
        made.append(Choice("data.categorical", codes, why, on=False))
    may_group = [*groups, *(name for name in used if seen[name].may_group and name not in groups)]
    for name in may_group[:2]:
        reason = groups.get(name, f"{seen[name].different:,} values in {len(table):,} rows")
        why = (
            f"If rows of one {shown(name)} belong together ({reason}), keep them in one split; it "
            "is no input then:"
        )
        made.append(Choice("data.group", name, why, on=False))
    times = [
        name for name, look in seen.items() if look.holds == looks.DATES and _is_time(table[name])
    ]
    for name in times[:1]:
        why = "To be tested on what came last, as when one predicts the future:"
        made.append(Choice("data.time", name, why, on=False))
    return made


def _is_time(column: pd.Series) -> bool:
    """Whether a column's values can be read as times."""
    try:
        labelled.beside(column, "time", "")
    except DataError:
        return False
    return True


def _columns(
    seen: Mapping[str, Look], used: list[str], targets: tuple[str, ...], left_out: Mapping[str, str]
) -> str:
    counts: dict[str, int] = {}
    for name in used:
        counts[seen[name].holds] = counts.get(seen[name].holds, 0) + 1
    of = ", ".join(f"{count} of {holds}" for holds, count in counts.items())
    out = f"; {len(left_out)} left out" if left_out else ""
    return f"{len(seen)}: {of}; {len(targets)} to predict{out}"
