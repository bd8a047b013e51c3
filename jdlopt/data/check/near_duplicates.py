"""Examples that are, or almost are, in two splits; found by fingerprints, which hold no input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Num, UInt64

from jdlopt.data.check.examples import sampled
from jdlopt.data.check.finding import NO_ROWS, Finding, Part
from jdlopt.data.check.structure import mixed

BITS, NEAR_BITS = 512, 12
"""Signs of random projections, and of so many how many differ between near-duplicates at most."""
GRID = 0.05
"""Cells in which near rows of a table lie together, in interquartile ranges, at most."""
CHANCE = 1e-3
"""Rows that come to lie in one cell by chance, for each row, at most."""
MANY_VALUES = 20
"""A column of more different values than this tells rows apart."""
SHIFTS = 4
LOOKED_AT = 500
"""Rows that the dimension of a table is told by."""
WARNED_SHARE = 0.01
"""Of a split's examples, that are near-duplicates: from which on it is a warning."""


def fingerprints(inputs: Num[np.ndarray, "examples *shape"]) -> UInt64[np.ndarray, " examples"]:
    """Returns a number for each example: equal ones have equal ones, others (almost) never."""
    flat = np.ascontiguousarray(inputs).reshape(len(inputs), -1)
    if flat.dtype.kind == "f":
        flat = flat.astype(np.float64) + 0.0  # -0 is 0
        flat[np.isnan(flat)] = np.nan
        words = flat.view(np.uint64)
    else:
        words = flat.astype(np.int64).view(np.uint64)
    salt = mixed(np.arange(1, words.shape[1] + 1, dtype=np.uint64))
    return mixed(mixed(words + salt).sum(axis=1, dtype=np.uint64))


def grid_width(features: Float[np.ndarray, "rows features"]) -> float:
    """Returns how wide a grid's cells may be for rows to share one by chance only rarely.

    Of n rows in d columns, each of a density of about 1/3 in units of its spread, ``n · (w/3)^d``
    lie in a cell of width w beside a given one.
    """
    distinct = [len(np.unique(column[~np.isnan(column)])) for column in features.T]
    columns = max(1, sum(count > MANY_VALUES for count in distinct))
    return min(GRID, 3.0 * (CHANCE / max(1, len(features))) ** (1.0 / columns))


def grid_fingerprints(
    features: Float[np.ndarray, "rows features"],
    centre: np.ndarray,
    spread: np.ndarray,
    width: float = GRID,
) -> list[UInt64[np.ndarray, " rows"]]:
    """Returns `fingerprints` of rows rounded on `SHIFTS` grids: near rows share one of them.

    Args:
      features: a table's rows.
      centre, spread: the training rows' medians and interquartile ranges.
      width: of a grid's cells, in units of the spread.
    """
    scaled = (features - centre) / spread / width
    draw = np.random.default_rng(0)
    shifts = draw.uniform(size=(SHIFTS, features.shape[1]))
    return [fingerprints(np.floor(scaled + shift)) for shift in shifts]


def closer_than_chance(
    some: Float[np.ndarray, "some features"], others: Float[np.ndarray, "others features"]
) -> Bool[np.ndarray, " some"]:
    """Returns which rows are nearer to one of the others than rows drawn alike come to lie.

    Columns that depend on one another fill fewer dimensions than there are columns, and rows lie
    closer there by chance. Of k others within a distance R, those within r are expected to be
    ``k (r / R)^d``, where d is the dimension that the others themselves show (Levina and Bickel,
    2004): a row is closer if that is below `CHANCE`.

    Args:
      some, others: rows on one scale, without missing values.
    """
    from sklearn.neighbors import NearestNeighbors

    count = min(max(10, int(len(others) ** 0.5)), len(others) - 2)
    if count < 3 or not len(some):
        return np.ones(len(some), bool)
    nearest = NearestNeighbors(n_neighbors=count + 1).fit(others)
    looked = others[sampled(len(others), LOOKED_AT)]
    away = nearest.kneighbors(looked)[0][:, 1:]  # a row itself is the nearest
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(away[:, -1:] / away[:, 1:-1])  # the nearest may be a duplicate
        each = logs.shape[1] / logs.sum(axis=1)
    each = each[np.isfinite(each) & (each > 0)]
    if not len(each):
        return np.ones(len(some), bool)
    dimension = float(np.median(each))
    away = nearest.kneighbors(some)[0][:, :count]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = count * (away[:, 0] / away[:, -1]) ** dimension
    return np.nan_to_num(expected) < CHANCE


def signs(
    inputs: Num[np.ndarray, "examples *shape"], centre: Float[np.ndarray, " values"]
) -> Float[np.ndarray, "examples bits"]:
    """Returns the signs (±1) of random projections: few differ where the angle is small.

    The share of signs that differ is expected to be the angle between two centred examples divided
    by π (Charikar, 2002).
    """
    flat = inputs.reshape(len(inputs), -1).astype(np.float32) - centre.astype(np.float32)
    projection = np.random.default_rng(0).normal(size=(flat.shape[1], BITS)).astype(np.float32)
    return np.where(np.nan_to_num(flat) @ projection > 0, np.float32(1), np.float32(-1))


def bits(
    prints: UInt64[np.ndarray, " examples"],
) -> Float[np.ndarray, "examples bits"]:
    """Returns fingerprints as `signs`, of which many differ unless the fingerprints are equal."""
    ones = np.unpackbits(prints[:, None].view(np.uint8), axis=1)
    signs = ones.astype(np.float32) * 2 - 1
    return np.tile(signs, BITS // signs.shape[1])


def near(
    some: Sequence[Float[np.ndarray, "some bits"]],
    others: Sequence[Float[np.ndarray, "others bits"]],
) -> Int[np.ndarray, " near"]:
    """Returns which of ``some`` differ in at most `NEAR_BITS` signs from one of ``others``.

    Both are a sequence of inputs: it must be the same one in all of them.
    """
    found = []
    for first in range(0, len(some[0]), 512):
        alike = np.ones((len(some[0][first : first + 512]), len(others[0])), bool)
        for mine, theirs in zip(some, others, strict=True):
            alike &= mine[first : first + 512] @ theirs.T >= BITS - 2 * NEAR_BITS
        found.append(first + np.flatnonzero(alike.any(axis=1)))
    return np.concatenate(found) if found else NO_ROWS


def between_splits(
    prints: Mapping[str, Sequence[UInt64[np.ndarray, " examples"]]],
    closely: Mapping[str, Sequence[Float[np.ndarray, "chosen bits"]]],
    rows: Mapping[str, Int[np.ndarray, " examples"]],
    chosen: Mapping[str, Int[np.ndarray, " chosen"]],
    scaled: Mapping[str, Float[np.ndarray, "examples features"]] | None = None,
) -> list[Finding]:
    """Returns the examples of one split that are (almost) in another as well.

    Args:
      prints: each split's fingerprints: the exact ones first, then those of near examples.
      closely: each split's `signs`, of the ``chosen`` examples, an array an input; empty for a
        table.
      rows: what each split's examples are called.
      chosen: which examples ``closely`` is of.
      scaled: of a table, each split's rows on one scale: rows that are alike but not equal count
        where chance alone does not bring them so close.
    """
    names = list(prints)
    parts, worst, equal = [], 0.0, 0
    for later, earlier in ((b, a) for i, a in enumerate(names) for b in names[i + 1 :]):
        exact = np.isin(prints[later][0], prints[earlier][0])
        alike = exact.copy()
        for one, other in zip(prints[later][1:], prints[earlier][1:]):
            alike |= np.isin(one, other)
        if closely:
            alike[chosen[later][near(closely[later], closely[earlier])]] = True
        if scaled is not None:
            places = np.flatnonzero(alike & ~exact)
            alike[places] = closer_than_chance(scaled[later][places], scaled[earlier])
        if not alike.any():
            continue
        equal += int(exact.sum())
        share = float(alike.mean())
        worst = max(worst, share)
        detail = f"{share:.1%} of {later}; {int(exact.sum()):,} of them equal"
        places = rows[later][alike]
        parts.append(Part(f"{later} like {earlier}", places, len(places), detail))
    if not parts:
        return []
    first = prints[names[0]][0]
    is_common = len(np.unique(first)) < len(first) / 2
    advice = (
        "Training examples are equal to one another as often: with so few different values, that "
        "may well be as it should be."
        if is_common
        else "Leave them out of one of the splits, or keep what belongs together in one with "
        "data.group='COLUMN' (a folder has columns in a labels.csv)."
    )
    total = sum(len(rows[name]) for name in names[1:])
    count = sum(part.count for part in parts)
    return [
        Finding(
            kind="near_duplicates",
            severity="warning" if worst > WARNED_SHARE and not is_common else "note",
            problem="(almost) equal examples in two splits",
            text=(
                f"{count:,} {'example is' if count == 1 else 'examples are'} (almost) in another "
                f"split too, at worst {worst:.1%} of a split: metrics there look better than they "
                "are."
            ),
            count=count,
            of=total,
            unit="examples",
            config="",
            advice=advice,
            parts=tuple(parts),
            numbers={"equal": equal},
        )
    ]
