"""Examples that can't be used: each refused by name, or skipped and counted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from jdlopt.data.coding import PAD
from jdlopt.data.notes import Note, Notes
from jdlopt.errors import DataError

ON_BAD = ("error", "skip")
ON_MISSING = ("refuse", "mask")
"""What may become of an example that lacks one of several inputs."""
MOST_TOLD = 2
"""So many skipped examples are named for each reason; the others are counted."""


class Unreadable(DataError):
    """One example can't be read, whatever the others hold: ``data.on_bad='skip'`` leaves it out."""

    def __init__(self, message: str, reason: str = "unreadable"):
        self.reason = reason
        super().__init__(message)


@dataclass
class Skipped:
    """What was left out of a source.

    Attributes:
      counts: reason → examples.
      first: the reason of the first few for each, with where they lie and why they were skipped.
      changed: what was changed of examples that are used.

    Example:
      >>> skipped = Skipped()
      >>> skipped.add("too many columns", "animals.csv, row 3")
      >>> skipped.add("too many columns", "animals.csv, row 9")
      >>> print(skipped)
      2 examples were skipped (2 too many columns): animals.csv, row 3 (too many columns); ...
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: list[tuple[str, str]] = field(default_factory=list)
    changed: Notes = field(default_factory=Notes)

    def add(self, reason: str, place: str, detail: str = "") -> None:
        """Counts one more example; ``detail`` says more than the reason, where there is more."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if self.counts[reason] <= MOST_TOLD:
            self.first.append((reason, f"{place} ({detail or reason})"))

    def notes(self) -> tuple[Note, ...]:
        """Returns a note for each reason, and of each change."""
        left_out = (
            Note(
                "left out",
                reason,
                count,
                "examples",
                tuple(place for why, place in self.first if why == reason),
                "data.on_bad='error' refuses them instead.",
            )
            for reason, count in self.counts.items()
        )
        return (*left_out, *self.changed)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        if not total:
            return "no example was skipped"
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts.items())
        rest = total - len(self.first)
        more = f"; and {rest} more" if rest else ""
        were = "example was" if total == 1 else "examples were"
        places = "; ".join(place for _, place in self.first)
        return f"{total} {were} skipped ({reasons}): {places}{more}"


def check_finite(
    inputs: np.ndarray, where: str, what: str = "input", allow_missing: bool = False
) -> None:
    """Raises a `DataError` that names the first example holding NaN or infinity, if one does.

    Args:
      inputs: the examples; those of whole numbers hold neither.
      where: names the source, for the message.
      what: what a row is called.
      allow_missing: let NaN pass.
    """
    if not np.issubdtype(inputs.dtype, np.floating):
        return
    refused = np.isinf(inputs) if allow_missing else ~np.isfinite(inputs)
    bad = refused.reshape(len(inputs), -1).any(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        missing = not allow_missing and np.isnan(inputs[first]).any()
        fill = ""
        if missing and what == "input" and inputs.ndim == 2:
            fill = " (data.preprocess.missing='median' does)"
        raise DataError(
            f"{where}: the {what} of example {first} (counted from 0) holds "
            f"{'NaN' if missing else 'infinity'}, as do {int(bad.sum()) - 1} more of "
            f"{len(inputs)}. Remove these examples or fill them in{fill}."
        )


def check_targets(targets: np.ndarray, num_classes: int, where: str, positions: int = 0) -> None:
    """Raises a `DataError` that names the first target that is no class or finite number.

    Args:
      targets: classes [examples]; labels [examples, labels], or values where ``num_classes`` is 0.
      num_classes: classes count from 0 to one less.
      where: names the source, for the message.
      positions: axes of a target whose positions have a class each, or `PAD`.
    """
    if positions:
        bad = ((targets < PAD) | (targets >= num_classes)).reshape(len(targets), -1)
        if bad.any():
            first, place = divmod(int(np.argmax(bad)), bad.shape[1])
            found = targets.reshape(len(targets), -1)[first, place]
            raise DataError(
                f"{where}: the target of example {first} (counted from 0) holds class {found}, not "
                f"in 0 to {num_classes - 1}."
            )
        return
    if not num_classes or targets.ndim > 1:
        check_finite(targets, where, "target")
        return
    bad = (targets < 0) | (targets >= num_classes)
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            f"{where}: the label of example {first} (counted from 0) is {targets[first]}, not in "
            f"0 to {num_classes - 1}: is this split published without labels?"
        )


def check_left(rows: np.ndarray | None, split: str, where: str, skipped: Skipped) -> None:
    """Raises a `DataError` if a split has no example left after some were skipped."""
    if rows is not None and not len(rows):
        raise DataError(f"{where}: no {split} example is left: {skipped}.")
