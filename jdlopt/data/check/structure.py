"""What of a table's cells and rows can't be used, or is there twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Num, UInt64

from jdlopt.data.check.cells import MISSING, TEXT, Cells
from jdlopt.data.check.finding import NO_ROWS, Finding, Part, about_columns, column_finding
from jdlopt.data.columns import DATE

COMMON = 0.5
"""Where so many rows equal another one, that is how the data is rather than damage."""


def damage(cells: Cells, columns: Sequence[int], target: int | None) -> list[Finding]:
    """Returns what stops a run: cells without a usable value, and rows that don't fit the header.

    Args:
      cells: the table.
      columns: the features, as places among the table's columns.
      target: the place of the column to predict, if there is one.
    """
    total = len(cells.numbers) * len(columns)
    whole = cells.whole
    kinds = cells.kinds
    empty = [column for column in columns if (kinds[whole, column] == MISSING).all()]
    dates = [c for c in columns if c not in empty and _holds_dates(cells.words[c])]
    filled = [column for column in columns if column not in empty]
    numeric = [column for column in (*filled, *_one(target)) if cells.numeric[column]]

    def where(column: int, cell: Bool[np.ndarray, " rows"]) -> tuple[str, np.ndarray, str]:
        places = np.flatnonzero(cell & whole)
        first = repr(cells.shown(int(places[0]), column)[:40]) if len(places) else ""
        return cells.names[column], cells.rows[places], f"the first is {first}"

    def missing(column: int) -> tuple[str, np.ndarray, str]:
        name, rows, _ = where(column, kinds[:, column] == MISSING)
        return name, rows, f"{len(rows) / max(1, whole.sum()):.1%} of its rows"

    found = [
        *_wrong_size(cells),
        *column_finding(
            "text_in_numbers", "error", "text where numbers are",
            "{columns} of numbers have text in {count} of {of} cells.",
            (where(column, kinds[:, column] == TEXT) for column in numeric), total,
            advice="Correct these cells, or leave their rows out:",
        ),
        *column_finding(
            "infinite", "error", "infinite values",
            "{count} of {of} cells, in {columns}, are infinite or too large for a float32.",
            (where(column, np.isinf(cells.numbers[:, column])) for column in numeric), total,
            advice="Correct these cells, or leave their rows out:",
        ),
        *column_finding(
            "missing", "error", "missing values",
            "{count} of {of} cells, in {columns}, are empty.",
            map(missing, filled), total,
            advice="Fill them in from the training split:",
        ),
        *column_finding(
            "missing_target", "error", "rows without a target",
            "The target has no value in {count} of {of} rows.",
            map(missing, _one(target)), len(cells.numbers), unit="rows", config="",
            advice="Fill the target in, or remove these rows from the file.",
        ),
    ]  # fmt: skip
    found += about_columns(
        "empty_column", "error", "empty columns",
        "{count} of {of} columns have no value at all.",
        [(cells.names[column], "") for column in empty], len(columns),
    )  # fmt: skip
    found += about_columns(
        "dates", "error", "columns of dates",
        "{count} of {of} columns hold dates, which are no features yet.",
        [(cells.names[column], f"such as {cells.words[column][0]!r}") for column in dates],
        len(columns),
        advice="Write what matters of them as numbers (or split by them, data.time), and:",
    )  # fmt: skip
    return found + _file(cells, columns)


def _holds_dates(words: Sequence[str]) -> bool:
    return bool(words) and all(DATE.fullmatch(word) for word in words[:1000])


def _one(column: int | None) -> list[int]:
    return [] if column is None else [column]


def _wrong_size(cells: Cells) -> list[Finding]:
    width = len(cells.names)
    sides = {"too many values": cells.widths > width, "too few values": cells.widths < width}

    def part(name: str, odd: np.ndarray) -> tuple[str, np.ndarray, str]:
        places = np.flatnonzero(odd)
        first = f"the first has {cells.widths[places[0]]}" if len(places) else ""
        return name, cells.rows[places], first

    return column_finding(
        "wrong_size", "error", "rows of another size than the header",
        f"{{count}} of {{of}} rows have more or fewer values than the header has names ({width}).",
        (part(name, odd) for name, odd in sides.items()), len(cells.widths), unit="rows",
        advice="Quote values that hold a separator and correct the rows, or leave them out:",
    )  # fmt: skip


def _file(cells: Cells, columns: Sequence[int]) -> list[Finding]:
    """What the file itself shows: bytes that are no text, columns without a name of their own."""
    found = []
    undecoded = [
        (cells.names[c], cells.rows[np.isin(cells.texts[:, c], codes)], "")
        for c in columns
        if (codes := [i for i, word in enumerate(cells.words[c]) if "�" in word])
    ]
    found += column_finding(
        "encoding", "error", "bytes that are no UTF-8",
        "{count} cells, in {columns}, hold bytes that are no UTF-8.",
        undecoded, len(cells.numbers) * len(columns), config="",
        advice="Save the file in UTF-8.",
    )  # fmt: skip
    found += about_columns(
        "header", "error", "columns without a name of their own",
        "{count} of {of} columns have no name, or another column's, in the header.",
        [(name, "") for name in cells.renamed], len(cells.names), config="",
        advice="Name each column in the file's first line.",
    )  # fmt: skip
    if cells.unreadable:
        parts = tuple(Part(words, NO_ROWS, 1) for words in cells.unreadable)
        words = f"{len(parts)} stretches of the file can't be read: is a quote not closed?"
        found.append(
            Finding(
                kind="unreadable",
                severity="error",
                problem="lines that can't be read",
                text=words,
                count=len(parts),
                of=len(cells.rows),
                unit="stretches",
                config="",
                advice="Correct these lines.",
                parts=parts,
            )
        )
    return found


def row_hashes(cells: Cells, columns: Sequence[int]) -> UInt64[np.ndarray, " rows"]:
    """Returns a number for each row: equal rows have equal ones, others (almost) never."""
    total = np.zeros(len(cells.numbers), np.uint64)
    for place, column in enumerate(columns):
        numbers = cells.numbers[:, column] + 0.0  # -0 is 0
        numbers[np.isnan(numbers)] = np.nan
        bits = numbers.view(np.uint64) ^ (cells.texts[:, column].astype(np.int64)).view(np.uint64)
        total += mixed(bits + np.uint64((place + 1) * 0x9E3779B97F4A7C15 % 2**64))
    return mixed(total)


def mixed(bits: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Returns words whose bits all depend on all bits given: splitmix64's last steps."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def duplicates(cells: Cells, columns: Sequence[int], target: int | None) -> list[Finding]:
    """Returns rows that are there more than once, and equal features with different targets.

    The first of equal rows is none of them.
    """
    whole = np.flatnonzero(cells.whole)
    features = row_hashes(cells, columns)[whole]
    answers = None if target is None else cells.codes(target)[whole]
    return repeated(features, answers, cells.rows[whole])


def repeated(
    features: Num[np.ndarray, " rows"],
    targets: Num[np.ndarray, " rows"] | None,
    rows: Int[np.ndarray, " rows"],
    unit: str = "rows",
    alike: str = "equal",
) -> list[Finding]:
    """Returns examples that equal an earlier one, and equal ones with different targets.

    Args:
      features: a number for each, the same for equal inputs.
      targets: likewise of its target.
      rows: what each is called, in order.
      unit: what they are.
      alike: how they are equal, as a verb.
    """
    answers = np.zeros(len(features), np.int64) if targets is None else targets
    _, codes = np.unique(answers, return_inverse=True)
    _, group = np.unique(features, return_inverse=True)
    pairs = np.stack([group, codes], axis=1)
    _, first, place = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    original = first[place.reshape(-1)]
    again = np.flatnonzero(original != np.arange(len(features)))
    count, share = len(again), len(again) / max(1, len(features))
    one, found = unit.removesuffix("s"), []
    if count:
        detail = f"{one} {rows[again[0]]} equals {one} {rows[original[again[0]]]}"
        found.append(
            Finding(
                kind="duplicates",
                severity="warning" if share < COMMON else "note",
                problem=f"duplicate {unit}",
                text=(
                    f"{count:,} of {len(features):,} {unit} {alike} an earlier one ({share:.1%}): "
                    "they count more than once, and one whose equal is in another split makes its "
                    "metrics look better."
                ),
                count=count,
                of=len(features),
                unit=unit,
                advice=(
                    "Keep the first of each:"
                    if share < COMMON
                    else "With so few different values they may well be different examples; if not:"
                ),
                parts=(Part(f"equal {unit}", rows[again], count, detail),),
            )
        )
    if targets is None:
        return found
    kinds = np.bincount(np.unique(pairs, axis=0)[:, 0], minlength=group.max(initial=-1) + 1)
    torn = np.flatnonzero(kinds[group] > 1)
    if len(torn):
        what = "features" if unit == "rows" else "inputs"
        found.append(
            Finding(
                kind="conflicts",
                severity="warning",
                problem=f"equal {what}, different targets",
                text=(
                    f"{len(torn):,} of {len(features):,} {unit} have the same {what} as another "
                    f"{one} and another target: no model can be right about all of them."
                ),
                count=len(torn),
                of=len(features),
                unit=unit,
                config="",
                advice=f"Look at these {unit}: is a column missing that tells them apart?",
                parts=(Part(f"{unit} in conflict", rows[torn], len(torn)),),
            )
        )
    return found
