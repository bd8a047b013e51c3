"""What a check of data finds, and the line of a config that deals with it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

SEVERITIES = ("error", "warning", "note")
"""A run stops at an error; a warning costs accuracy or makes it look better than it is."""
MOST_PARTS = 100
IGNORE = "data.ignore"
INSTEAD = ("odd_rows",)
"""Kinds whose lines are another way to deal with what lines of another kind, ``outliers``, are for:
said in words, whether there are such lines or not, since test rows decide that as well."""
FIRST = 20
"""So many parts, and rows of a part, are named in JSON and on a page."""
OFF: tuple[Any, ...] = (None, "none", "error", "uniform", "keep", "one_hot", "", (), [])
"""Values of a config key with which it does nothing about what was found."""

REMEDIES: dict[str, str] = {
    "missing": "data.preprocess.missing='median'",
    "wrong_size": "data.on_bad='skip'",
    "text_in_numbers": "data.on_bad='skip'",
    "infinite": "data.on_bad='skip'",
    "damaged_file": "data.on_bad='skip'",
    "outliers": "data.preprocess.outliers='iqr'",
    "heavy_tail": "data.preprocess.scale='log'",
    "odd_rows": (
        "data.preprocess.outliers='isolation_forest'\ndata.preprocess.outlier_action='drop'"
    ),
    "constant": "data.preprocess.constant_columns='drop'",
    "duplicates": "data.preprocess.duplicates='drop'",
    "scales": "data.preprocess.scale='standard'",
    "outside_unit": "data.preprocess.scale='standard'",
    "few_levels": "data.preprocess.scale='standard'",
    "cardinality": "data.preprocess.encode='hashed'",
    "imbalance": "data.sampling='balanced'",
    "label_noise": "loss.label_smoothing=0.1",
    "target_noise": "loss.name='huber'",
}
"""Kind of finding → the config lines that deal with it, whatever the details."""


NO_ROWS = np.array([], int)


@dataclass(frozen=True)
class Part:
    """Where some of a finding lies.

    Attributes:
      name: a column, a class, or what else the finding is divided by; from the data, untrusted.
      rows: every row or example of it, in order; empty where it is about no single ones.
      count: how many cells, rows or examples it has.
      detail: what is to be known of it, such as the first damaged value.
    """

    name: str
    rows: np.ndarray
    count: int
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """One problem of a dataset, with its numbers and what to do about it.

    Attributes:
      kind: a short name, such as ``missing``.
      severity: one of `SEVERITIES`.
      problem: what it is, in a few words.
      text: what was found, in one or two sentences with numbers.
      count: how many cells, rows, columns or examples (`unit`) it has, of so many (`of`).
      config: lines ``KEY=VALUE`` of a config that deal with it; by default `REMEDIES` says which;
        empty where none can.
      advice: what to do, in words.
      parts: where it lies.
      numbers: more numbers, for a figure: JSON-able.
    """

    kind: str
    severity: str
    problem: str
    text: str
    count: int
    of: int
    unit: str
    config: str | None = None
    advice: str = ""
    parts: tuple[Part, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.config is None:
            object.__setattr__(self, "config", REMEDIES.get(self.kind, ""))

    @property
    def where(self) -> str:
        """Names the first parts."""
        names = [part.name for part in self.parts]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return ", ".join(names[:3]) + more

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as JSON-able values, with the first rows of each part."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "problem": self.problem,
            "text": self.text,
            "count": self.count,
            "of": self.of,
            "unit": self.unit,
            "config": self.config,
            "advice": self.advice,
            "parts": [
                {
                    "name": part.name,
                    "count": part.count,
                    "rows": [int(row) for row in part.rows[:FIRST]],
                    "detail": part.detail,
                }
                for part in self.parts[:MOST_PARTS]
            ],
        }


def column_finding(
    kind: str,
    severity: str,
    problem: str,
    text: str,
    found: Iterable[tuple[str, np.ndarray, str]],
    of: int,
    unit: str = "cells",
    **more: Any,
) -> list[Finding]:
    """Returns one finding over all columns that have any rows of it, or none.

    Args:
      kind, severity, problem, unit: the finding's.
      text: its words; ``{count}``, ``{of}``, ``{columns}`` are filled in.
      found: column, its rows, and a detail for each.
      of: cells in all.
      more: the finding's other attributes.
    """
    parts = [Part(name, rows, len(rows), detail) for name, rows, detail in found if len(rows)]
    if not parts:
        return []
    parts.sort(key=lambda part: -part.count)
    count = sum(part.count for part in parts)
    columns = "1 column" if len(parts) == 1 else f"{len(parts)} columns"
    words = text.format(count=f"{count:,}", of=f"{of:,}", columns=columns)
    return [Finding(kind, severity, problem, words, count, of, unit, parts=tuple(parts), **more)]


def about_columns(
    kind: str,
    severity: str,
    problem: str,
    text: str,
    found: Sequence[tuple[str, str]],
    of: int,
    **more: Any,
) -> list[Finding]:
    """Returns one finding that counts columns, or none; what to do is by default to leave them out.

    Args:
      kind, severity, problem: the finding's.
      text: its words; ``{count}`` and ``{of}`` are filled in.
      found: each column with what is to be known of it.
      of: columns in all.
      more: the finding's other attributes.
    """
    if not found:
        return []
    words = text.format(count=f"{len(found):,}", of=f"{of:,}")
    parts = tuple(Part(name, NO_ROWS, 1, detail) for name, detail in found)
    if kind not in REMEDIES:
        names = [name for name, _ in found]
        more = {"advice": "Leave them out:", "config": ignoring(names), **more}
    return [Finding(kind, severity, problem, words, len(found), of, "columns", parts=parts, **more)]


def ignoring(names: Sequence[str], section: Mapping[str, Any] | None = None) -> str:
    r"""Returns the config line that leaves columns out, beside those that are left out already.

    Example:
      >>> ignoring(["a", "b'c"])
      'data.ignore=(\'a\', "b\'c")'
    """
    kept = tuple((section or {}).get("ignore", ()))
    return f"data.ignore={kept + tuple(name for name in names if name not in kept)!r}"


def agreed(findings: Sequence[Finding], kept: Sequence[str] = ()) -> list[Finding]:
    """Returns findings whose config lines can all be followed at once.

    Of two lines that set one key to different values the first stays, and the later finding says
    so; columns to leave out are gathered in one line, which each of its findings shows.

    Args:
      findings: the most severe first.
      kept: columns that the config leaves out already.

    Example:
      >>> one, other = (
      ...     Finding(kind, "note", "", "", 1, 2, "columns", f"data.preprocess.scale={way!r}")
      ...     for kind, way in (("scales", "standard"), ("heavy_tail", "log"))
      ... )
      >>> [found.config for found in agreed([one, other])]
      ["data.preprocess.scale='standard'", '']
    """
    left_out = list(kept)
    for one in findings:
        for key, value in _lines(one):
            if key == IGNORE:
                left_out += [name for name in ast.literal_eval(value) if name not in left_out]
    taken: dict[str, tuple[str, str]] = {}
    made = []
    for one in findings:
        if one.kind in INSTEAD and one.config:
            ways = " and ".join(one.config.splitlines())
            advice = f"Look at the first of them; if they are errors, correct them, or: {ways}."
            made.append(replace(one, config="", advice=advice))
            continue
        lines = [(k, repr(tuple(left_out)) if k == IGNORE else v) for k, v in _lines(one)]
        against = [key for key, value in lines if taken.get(key, (value,))[0] != value]
        if against:
            value, problem = taken[against[0]]
            advice = f"First follow {against[0]}={value} (for {problem}), then look again."
            made.append(replace(one, config="", advice=advice))
            continue
        taken |= {key: (value, one.problem) for key, value in lines if key not in taken}
        config = "\n".join(f"{key}={value}" for key, value in lines)
        made.append(replace(one, config=config))
    return made


def _lines(finding: Finding) -> list[tuple[str, str]]:
    lines = [line.partition("=") for line in (finding.config or "").splitlines()]
    return [(key, value) for key, _, value in lines]


def settled(finding: Finding, section: Mapping[str, object]) -> bool:
    """Returns whether a ``data`` section does something about a finding already.

    Example:
      >>> one = Finding("missing", "error", "", "", 1, 2, "cells", "data.preprocess.missing='mean'")
      >>> settled(one, {"preprocess": {"missing": "knn"}}), settled(one, {"preprocess": {}})
      (True, False)
    """
    lines = _lines(finding)
    return bool(lines) and all(_is_set(key, value, section) for key, value in lines)


def _is_set(key: str, value: str, section: Mapping[str, object]) -> bool:
    place, *names = key.split(".")
    node: Any = section
    for name in names if place == "data" else ():
        node = node.get(name) if isinstance(node, Mapping) else None
    if place != "data" or node in OFF:
        return False
    wanted = ast.literal_eval(value)
    return set(wanted) <= set(node) if isinstance(wanted, tuple) else True
