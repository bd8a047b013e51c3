"""What ``data describe`` prints: a screen, however many columns and classes there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jdlopt.cli.show import console, fill
from jdlopt.data.notes import Note, say

FEW_COLUMNS = 40
"""So many columns are shown whole; of more, their kinds and the most notable ones."""
FEW_CLASSES = 12
MOST_FREQUENT, RAREST = 5, 3
"""Of more classes than `FEW_CLASSES`, those that are shown."""
NAME = 28
"""Letters of a column's or class's name, where there are many."""
FAR = 10.0
"""Standard deviations from the mean that make a value notable."""
Features = Mapping[str, Mapping[str, Any]]
Rows = Sequence[Mapping[str, object]]


def print_description(description: Mapping[str, Any], everything: bool = False) -> None:
    """Prints what `jdlopt.data.describe.describe` returned.

    Args:
      description: of a dataset.
      everything: show every column and class, however many there are.
    """
    several = "input_shape" not in description
    inputs = description["inputs"] if several else {"": description}
    _print_splits(description, inputs, several)
    read = {name: split for name, split in description["splits"].items() if split["read"]}
    used = 9 + _print_targets(description, read, everything)
    notes = [Note.from_dict(note) for note in description["notes"]]
    say(notes)
    if any(one["feature_names"] for one in inputs.values()):
        features = read["train"]["features"]
        if everything or len(features) <= FEW_COLUMNS:
            _print_columns(features)
        else:
            _print_notable(features, read["train"]["examples_described"], used + 2 * len(notes))


def _table(rows: Rows, title: str) -> None:
    """Prints rows as a table with a rule below its header and no frame."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    fill(table, rows)
    out = console()
    out.print(title, style="italic")
    out.print(table)


def _print_splits(
    description: Mapping[str, Any], inputs: Mapping[str, Mapping[str, Any]], several: bool
) -> None:
    shapes = [
        f"{one['input_dtype']} inputs {f'{name!r} ' if name else ''}of shape "
        f"{'×'.join(map(str, one['input_shape']))}"
        for name, one in inputs.items()
    ]
    if description["num_classes"]:
        what = "labels" if description["task"] == "multilabel" else "classes"
        target = f"{description['num_classes']:,} {what}"
        target += " at each position" if description["positions"] else ""
    else:
        names = description["target_names"]
        target = f"{len(names)} numbers" if names else "a number"
    aim = "to tell which belong together" if _is_paired(description) else f"{target} to predict"
    rows = []
    for name, split in description["splits"].items():
        for which, one in inputs.items():
            found = split.get("inputs", {}).get(which) if several else split.get("inputs")
            found = found or dict.fromkeys(("missing", "min", "max", "mean", "std"), "–")
            if one["feature_names"]:  # a range over columns that have nothing in common says little
                found = {"missing": found["missing"]}
            rows.append(
                {
                    "split": name,
                    "examples": split["examples"],
                    "MB": split["nbytes"] / 1e6,
                    **({"input": which} if several else {}),
                    **found,
                }
            )
    title = f"{description['name']}: {' and '.join(shapes)}, {aim}"
    _table(rows, f"{title} (test is counted, not read)")


# --- targets --------------------------------------------------------------------------------------


def _print_targets(
    description: Mapping[str, Any], read: Mapping[str, Any], everything: bool
) -> int:
    """Prints what is to be predicted; returns about how many lines it took."""
    if description["num_classes"]:
        rows = _of_classes(description, read, everything)
        if description["positions"]:
            title = "class balance, in positions"
        elif description["task"] == "multilabel":
            title = "labels"
        else:
            title = f"class balance{_majority(description)}"
    elif description["target_names"]:
        title = "targets"
        rows = [
            {"target": name, "split": split, **found}
            for split, part in read.items()
            for name, found in part["targets"].items()
        ]
    else:
        paired = _is_paired(description)
        title = "what belongs together" if paired else f"target{_mean(description)}"
        rows = [{"split": split, **found["target"]} for split, found in read.items()]
    _table(rows, title)
    return len(rows) + 3


def _is_paired(description: Mapping[str, Any]) -> bool:
    """Returns whether targets only say, by equal values, which examples belong together."""
    return "distinct" in description["splits"]["train"].get("target", {})


def _of_classes(
    description: Mapping[str, Any], read: Mapping[str, Any], everything: bool
) -> list[dict[str, object]]:
    word = "label" if description["task"] == "multilabel" else "class"
    unit = "positions" if description["positions"] else "examples"
    balance = {split: part["classes"] for split, part in read.items()}

    def row(name: str) -> dict[str, object]:
        counts = {split: one[name][unit] for split, one in balance.items()}
        return {word: name, **counts, "share in train": f"{balance['train'][name]['share']:.2%}"}

    names = list(description["class_names"])
    if everything or len(names) <= FEW_CLASSES:
        return [row(name) for name in names]
    names.sort(key=lambda name: -balance["train"][name][unit])
    left = names[MOST_FREQUENT:-RAREST]
    between: dict[str, object] = {
        word: f"… {len(left):,} more (--all)",
        **{split: sum(one[name][unit] for name in left) for split, one in balance.items()},
        "share in train": f"{sum(balance['train'][name]['share'] for name in left):.2%}",
    }
    return [*map(row, names[:MOST_FREQUENT]), between, *map(row, names[-RAREST:])]


def _majority(description: Mapping[str, Any]) -> str:
    found = description["baseline"]
    shares = ", ".join(f"{found[split]:.1%} of {split}" for split in ("train", "validation"))
    return f"; to guess {found['class']!r} always is right in {shares}"


def _mean(description: Mapping[str, Any]) -> str:
    found = description["baseline"]
    if not found:
        return ""
    return f"; to guess the mean of train always has an RMSE of {found['validation']:.4g}"


# --- columns --------------------------------------------------------------------------------------


def _print_columns(features: Features) -> None:
    numbers = {name: found for name, found in features.items() if "categories" not in found}
    if numbers:
        _table([{"feature": name, **found} for name, found in numbers.items()], "numbers")
    rows = [
        {
            "feature": name,
            **found,
            "most frequent": ", ".join(
                f"{one} ({count:,})" for one, count in found["most frequent"].items()
            ),
        }
        for name, found in features.items()
        if name not in numbers
    ]
    if rows:
        _table(rows, "categories")


class _Remark(NamedTuple):
    """What is notable of a column, and how much so."""

    weight: float
    words: str


def remark(found: Mapping[str, Any], rows: int) -> _Remark:
    """Returns what is most notable of a column; of weight 0 if nothing is.

    Args:
      found: what `jdlopt.data.describe.describe` says of it.
      rows: how many rows that is of.

    Example:
      >>> remark({"missing": 5, "min": 0.0, "max": 1.0, "mean": 0.5, "std": 0.1}, 10).words
      '50% missing'
    """
    lacking = found["missing"] / max(1, rows)
    remarks = [_Remark(0.0, "")]
    if found["missing"]:
        remarks.append(_Remark(2 + lacking, f"{lacking:.0%} missing"))
    if "categories" in found:
        many = found["categories"] / max(1, rows - found["missing"])
        if many > 0.5 or found["categories"] == 1:
            share = "one value only" if found["categories"] == 1 else f"{many:.0%} are different"
            remarks.append(_Remark(3.0 if found["categories"] == 1 else 1.5 + many, share))
        return max(remarks)
    low, high, mean, std = (found[name] for name in ("min", "max", "mean", "std"))
    if mean is None or not all(map(math.isfinite, (low, high, mean, std))):
        return max(remarks)
    if low == high:
        return max(*remarks, _Remark(3.0, f"one value only, {low:.4g}"))
    furthest = max(high - mean, mean - low) / std
    if furthest > FAR:
        value = high if high - mean > mean - low else low
        words = f"{value:.4g} is {furthest:.0f} standard deviations from the mean"
        remarks.append(_Remark(1 + min(0.9, furthest / 1000), words))
    if abs(mean) > 1000 * std:
        remarks.append(_Remark(1.0, "values far from 0 and close together"))
    return max(remarks)


def _print_notable(features: Features, rows: int, used: int) -> None:
    """Prints what kinds of columns there are and the most notable ones, within the terminal."""
    out = console()
    remarks = {name: remark(found, rows) for name, found in features.items()}
    categories = sum("categories" in found for found in features.values())
    notable = [name for name in features if remarks[name].weight > 0]
    gaps = sum(found["missing"] > 0 for found in features.values())
    constant = sum(one.words.startswith("one value") for one in remarks.values())
    parts = [
        f"{len(features) - categories:,} of numbers, {categories:,} of categories",
        f"{gaps:,} with gaps" if gaps else "none with gaps",
        *([f"{constant:,} with one value only"] if constant else []),
    ]
    out.print(f"{len(features):,} columns: {', '.join(parts)}")
    room = min(20, max(3, out.size.height - used))
    chosen = sorted(notable, key=lambda name: -remarks[name].weight)[:room]
    chosen = chosen or list(features)[:room]
    _table(
        [
            {
                "column": name if len(name) <= NAME else f"{name[: NAME - 1]}…",
                "holds": _range(features[name]),
                "notable": remarks[name].words,
            }
            for name in chosen
        ],
        f"the {len(chosen)} most notable of {len(notable):,} that are"
        if notable
        else f"nothing of them is notable; the first {len(chosen)}",
    )
    more = len(features) - len(chosen)
    out.print(f"{more:,} more: `--all` shows every column, `--json` has them, too.", style="dim")


def _range(found: Mapping[str, Any]) -> str:
    if "categories" in found:
        return f"{found['categories']:,} categories"
    if found["mean"] is None:
        return "nothing"
    return f"{found['min']:.4g} to {found['max']:.4g}, mean {found['mean']:.4g}"
