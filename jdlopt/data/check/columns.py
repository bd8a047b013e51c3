"""Columns that hold outliers, or say too little or too much, as the training rows show them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Num

from jdlopt.data.check.cells import MISSING, NUMBER, Cells
from jdlopt.data.check.finding import NO_ROWS, Finding, Part, about_columns, column_finding
from jdlopt.data.check.structure import damage, duplicates
from jdlopt.data.preprocess.outliers import leaking_columns

GROSS = 10.0
"""Interquartile ranges beyond the quartiles from which on a value is an outlier."""
FENCE = 1.5
"""The same for a box plot's fences (Tukey, 1977); of normal values 0.7 % lie beyond them."""
LONG_TAIL = 0.05
"""Share of values beyond the fences that speaks of a long tail rather than of outliers."""
FEW_VALUES = 10
"""A column with at most so many different values is a code or a count: nothing is far out."""
ALMOST_CONSTANT = 0.995
LEAK = 0.999
"""Share of the rows in which a column tells the class, from which on it gives it away."""
LEAST_ROWS = 20
RANGES = 100.0
"""How many times wider than another's a column's range is, to speak of skewed scales."""
MANY_CATEGORIES = 50
GROUPED = 0.95
"""How well the other rows of a value must tell a row's target, on a scale from chance to certainty,
for the column to name groups of one target."""
SMOOTH = 0.5
"""The same of the next value of a column of numbers, from which on it is a quantity."""


def outliers(
    cells: Cells, columns: Sequence[int], seen: Bool[np.ndarray, " rows"]
) -> list[Finding]:
    """Returns values far out of their column's range; the range is the training rows' alone."""
    gross, tails = [], []
    for column in columns:
        if not cells.numeric[column]:
            continue
        values = np.where(np.isfinite(cells.numbers[:, column]), cells.numbers[:, column], np.nan)
        known = values[seen]
        known = known[~np.isnan(known)]
        limits = bounds(known)
        if limits is None:
            continue
        low, high, share = limits
        name = cells.names[column]
        with np.errstate(invalid="ignore"):
            places = np.flatnonzero((values < low) | (values > high))
        positive = bool((known >= 0).all())
        if share > LONG_TAIL and positive:
            detail = f"{share:.1%} of its values lie beyond the fences of a box plot"
            tails.append((name, detail))
        elif len(places):
            worst = values[places[np.argmax(np.abs(values[places]))]]
            detail = f"outside {low:.4g} to {high:.4g}; the farthest is {worst:.6g}"
            gross.append((name, cells.rows[places], detail))
    found = column_finding(
        "outliers", "warning", "outliers",
        f"{{count}} of {{of}} cells, in {{columns}}, lie more than {GROSS:g} interquartile ranges "
        "beyond the quartiles of the training rows.",
        gross, len(cells.numbers) * len(columns),
        advice="Correct them if they are errors, or clip them to the training split's range:",
    )  # fmt: skip
    return found + about_columns(
        "heavy_tail", "note", "long tails",
        "{count} of {of} columns are positive and have a long tail.",
        tails, len(columns), advice="Take logarithms:",
    )  # fmt: skip


def bounds(values: Num[np.ndarray, " some"]) -> tuple[float, float, float] | None:
    """Returns the range beyond which values are outliers, and the share beyond a box plot's fences.

    Where more than half of the values are equal, the range reaches 100 times as far from them as
    half of the others. None where there are too few different values to say.

    Example:
      >>> low, high, share = bounds(np.arange(101.0))
      >>> low, high, share
      (-475.0, 575.0, 0.0)
    """
    if len(np.unique(values)) <= FEW_VALUES:
        return None
    first, middle, third = map(float, np.percentile(values, (25, 50, 75)))
    spread = third - first
    if spread == 0:
        away = np.abs(values - middle)
        far = 100 * float(np.median(away[away > 0]))
        return middle - far, middle + far, 0.0
    out = (values < first - FENCE * spread) | (values > third + FENCE * spread)
    return first - GROSS * spread, third + GROSS * spread, float(out.mean())


def constants(
    cells: Cells, columns: Sequence[int], seen: Bool[np.ndarray, " rows"]
) -> list[Finding]:
    """Returns the columns that have one value in all or almost all training rows."""
    constant: list[tuple[str, str]] = []
    almost: list[tuple[str, str]] = []
    for column in columns:
        codes = cells.codes(column)[seen]
        codes = codes[codes >= 0]
        if not len(codes):
            continue
        _, first, counts = np.unique(codes, return_index=True, return_counts=True)
        share = float(counts.max() / counts.sum())
        row = np.flatnonzero(seen)[cells.codes(column)[seen] >= 0][first[counts.argmax()]]
        value = repr(cells.shown(int(row), column)[:40])
        if len(counts) == 1:
            constant.append((cells.names[column], f"always {value}"))
        elif share >= ALMOST_CONSTANT and counts.sum() >= LEAST_ROWS:
            almost.append((cells.names[column], f"{value} in {share:.2%} of the rows"))
    return [
        *about_columns(
            "constant", "warning", "constant columns",
            "{count} of {of} columns say nothing.", constant, len(columns),
        ),
        *about_columns(
            "almost_constant", "note", "almost constant columns",
            "{count} of {of} columns say almost nothing.", almost, len(columns),
        ),
    ]  # fmt: skip


def leaks(
    cells: Cells,
    columns: Sequence[int],
    seen: Bool[np.ndarray, " rows"],
    targets: Num[np.ndarray, " rows"],
    task: str,
) -> list[Finding]:
    """Returns the columns that give the target away: can they be known when one predicts?

    Args:
      cells, columns: the table and its features.
      seen: the training rows.
      targets: each row's class or value; only those of training rows are looked at.
      task: ``classification`` or ``regression``.
    """
    known = np.flatnonzero(seen & np.isfinite(targets))
    if len(known) < LEAST_ROWS:
        return []
    names = [cells.names[column] for column in columns]
    given = leaking_columns(cells.features(columns)[known], targets[known], names)
    reasons = {leak.column: leak.why for leak in given}
    for column, name in zip(columns, names):
        if task == "classification" and name not in reasons:
            reasons[name] = _determines(cells, column, known, targets[known])
    found = [(name, reasons[name]) for name in names if reasons.get(name)]
    return about_columns(
        "leaks", "warning", "columns that give the target away",
        "{count} of {of} columns alone (almost) give the target away.", found, len(columns),
        advice="Unless they are known when one predicts, leave them out:",
    )  # fmt: skip


def _determines(cells: Cells, column: int, known: np.ndarray, classes: np.ndarray) -> str:
    codes = cells.codes(column)[known]
    _, groups = np.unique(codes, return_inverse=True)
    _, classes = np.unique(classes, return_inverse=True)
    number, kinds = groups.max() + 1, classes.max() + 1
    guess = np.bincount(classes).max() / len(known)
    if guess > LEAK or kinds < 2:
        return ""
    if number <= max(2 * kinds, len(known) // 20):
        counts = np.zeros((number, kinds), np.int64)
        np.add.at(counts, (groups, classes), 1)
        share = counts.max(axis=1).sum() / len(known)
        if share >= LEAK:
            return f"each of its {number} values means one class, in {share:.2%} of the rows"
    if not cells.numeric[column] or (cells.kinds[known, column] != NUMBER).any():
        return ""
    # equal values are shuffled: in the order of the file, or by class, they would look sorted
    shuffled = np.random.default_rng(0).permutation(len(known))
    order = np.lexsort((shuffled, cells.numbers[known, column]))
    changes = int((np.diff(classes[order]) != 0).sum())
    if changes <= kinds - 1 + 2 * (1 - LEAK) * len(known):
        return f"sorted by it, the class changes {changes} times in {len(known):,} rows"
    return ""


def group_leaks(
    cells: Cells,
    columns: Sequence[int],
    seen: Bool[np.ndarray, " rows"],
    targets: Num[np.ndarray, " rows"],
    task: str,
) -> list[Finding]:
    """Returns the columns of many values whose rows share one target, such as a patient's id.

    A model learns such a column by heart, and a random split tests it on rows of groups that it has
    seen. A row's target is told by the other rows of its value; of a column of numbers it must not
    be told as well by those of the next value, as it is where the target depends on a quantity.

    Args:
      cells, columns: the table and its features.
      seen: the training rows.
      targets: each row's class or value; only those of training rows are looked at.
      task: ``classification`` or ``regression``.
    """
    known = np.flatnonzero(seen & np.isfinite(targets))
    wanted = targets[known]
    if len(known) < LEAST_ROWS or np.ptp(wanted) == 0:
        return []
    kinds = len(np.unique(wanted)) if task == "classification" else 1
    found = []
    for column in columns:
        codes = cells.codes(column)[known]
        rows = codes >= 0
        values, groups, sizes = np.unique(codes[rows], return_inverse=True, return_counts=True)
        few = len(values) <= max(2 * kinds, FEW_VALUES)
        if few or sizes.mean() < 2 or (sizes > 1).sum() < LEAST_ROWS // 2:
            continue
        numbers = cells.numbers[known, column][rows]
        quantity = cells.numeric[column]
        if quantity and (not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any()):
            continue
        told, other = _told_by_others(groups, wanted[rows], task)
        skill = _skill(told, other, wanted[rows], task)
        if skill < GROUPED:
            continue
        if quantity:
            order = np.argsort(numbers, kind="stable")
            steps = np.flatnonzero(np.diff(numbers[order]) > 0)
            ours, next_ones = wanted[rows][order[steps]], wanted[rows][order[steps + 1]]
            if _skill(next_ones, ours, wanted[rows], task) >= SMOOTH:
                continue
        found.append((cells.names[column], f"{len(values):,} values in {rows.sum():,} rows"))
    return about_columns(
        "group_leak", "warning", "columns that name groups of one target",
        "{count} of {of} columns name groups whose rows (almost) always have one target: it can be "
        "learnt by heart, and a random split tests rows of groups that were trained on.",
        found, len(columns), config=f"data.group={found[0][0]!r}" if found else "",
        advice="Keep each group in one split, and out of the features:",
    )  # fmt: skip


def _told_by_others(
    groups: np.ndarray, targets: np.ndarray, task: str
) -> tuple[np.ndarray, np.ndarray]:
    """What the other rows of a row's group say of its target, and the target; none if alone."""
    sizes = np.bincount(groups)
    has = sizes[groups] > 1
    if task != "classification":
        sums = np.bincount(groups, targets)
        return ((sums[groups] - targets) / np.maximum(sizes[groups] - 1, 1))[has], targets[has]
    _, classes = np.unique(targets, return_inverse=True)
    counts = np.zeros((len(sizes), classes.max() + 1), np.int64)
    np.add.at(counts, (groups, classes), 1)
    others = counts[groups]
    others[np.arange(len(groups)), classes] -= 1
    return others.argmax(axis=1)[has], classes[has]


def _skill(told: np.ndarray, truth: np.ndarray, targets: np.ndarray, task: str) -> float:
    """How well targets are told, on a scale from chance (0) to certainty (1)."""
    if not len(truth):
        return 0.0
    if task != "classification":
        return float(1 - np.mean((told - truth) ** 2) / np.var(targets))
    _, counts = np.unique(targets, return_counts=True)
    chance = counts.max() / counts.sum()
    return float(((told == truth).mean() - chance) / (1 - chance))


def scales(cells: Cells, columns: Sequence[int], seen: Bool[np.ndarray, " rows"]) -> list[Finding]:
    """Returns one finding if columns' ranges differ by more than `RANGES` times."""
    ranges: dict[str, float] = {}
    for column in columns:
        values = cells.numbers[seen, column]
        values = values[np.isfinite(values)]
        if cells.numeric[column] and len(values):
            low, high = np.percentile(values, (1, 99))
            if high > low:
                ranges[cells.names[column]] = float(high - low)
    if not ranges:
        return []
    order = sorted(ranges, key=lambda name: -ranges[name])
    wide, narrow = order[0], order[-1]
    ratio = ranges[wide] / ranges[narrow]
    if not math.isfinite(ratio) or ratio <= RANGES:
        return []
    parts = [Part(name, NO_ROWS, 1, f"range {ranges[name]:.4g}") for name in order]
    return [
        Finding(
            kind="scales",
            severity="warning",
            problem="scales that differ",
            text=f"The widest column has {ratio:,.0f} times the range of the narrowest.",
            count=len(order),
            of=len(columns),
            unit="columns",
            advice="Give all columns one scale:",
            parts=tuple(parts),
            numbers={
                "names": order,
                "values": [ranges[name] for name in order],
                "log": True,
                "axis": "range between the 1st and the 99th percentile",
            },
        )
    ]


def cardinalities(
    cells: Cells, columns: Sequence[int], seen: Bool[np.ndarray, " rows"]
) -> list[Finding]:
    """Returns categories of very many values, and columns that name each row."""
    many: list[tuple[str, str]] = []
    each: list[tuple[str, str]] = []
    for column in columns:
        if cells.numeric[column]:
            continue
        codes = cells.codes(column)[seen]
        codes = codes[codes >= 0]
        number = len(np.unique(codes))
        detail = f"{number:,} values in {len(codes):,} rows"
        if len(codes) >= LEAST_ROWS and number > 0.9 * len(codes):
            each.append((cells.names[column], detail))
        elif number > MANY_CATEGORIES:
            many.append((cells.names[column], detail))
    return [
        *about_columns(
            "identifiers", "warning", "columns that name the row",
            "{count} of {of} columns are text with another value in (almost) every row.",
            each, len(columns),
        ),
        *about_columns(
            "cardinality", "note", "categories of many values",
            f"{{count}} of {{of}} columns have more than {MANY_CATEGORIES} categories.",
            many, len(columns), advice="Hash them into fewer, or embed them:",
        ),
    ]  # fmt: skip


def table_findings(
    cells: Cells,
    columns: Sequence[int],
    target: int | None,
    seen: Bool[np.ndarray, " rows"],
    targets: Num[np.ndarray, " rows"] | None,
    task: str,
) -> Iterator[Finding]:
    """Yields what there is to say of a table, the worst first."""
    yield from damage(cells, columns, target)
    yield from duplicates(cells, columns, target)
    filled = [c for c in columns if (cells.kinds[cells.whole, c] != MISSING).any()]
    told = set[str]()
    if targets is not None:
        given = leaks(cells, filled, seen, targets, task)
        told = {part.name for one in given for part in one.parts}
        rest = [column for column in filled if cells.names[column] not in told]
        given += group_leaks(cells, rest, seen, targets, task)
        told = {part.name for one in given for part in one.parts}
        yield from given
    yield from outliers(cells, filled, seen)
    yield from constants(cells, filled, seen)
    yield from scales(cells, filled, seen)
    # a column that is to be left out is not to be hashed as well
    rest = [column for column in filled if cells.names[column] not in told]
    yield from cardinalities(cells, rest, seen)
