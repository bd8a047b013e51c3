"""Which class or labels a probability means: the positive class of two, and thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from jdlopt.data.coding import Coding
from jdlopt.errors import DataError, UserError, listing, nearest

if TYPE_CHECKING:
    import jax

A = TypeVar("A", np.ndarray, "jax.Array")

LABEL_THRESHOLD = 0.5
"""A label is predicted where its probability is above this, if nothing else is said."""
Threshold = float | tuple[float, ...] | None


class Decision(NamedTuple):
    """How probabilities become a prediction.

    Attributes:
      positive: the number of the positive class of two: whose precision and recall are measured.
      threshold: of two classes: the positive one is predicted where its probability is above this,
        the likeliest if None. Of labels: each is predicted above this, or above its own of several;
        above `LABEL_THRESHOLD` if None.
    """

    positive: int = 1
    threshold: Threshold = None

    def classes(self, probabilities: A) -> A:
        """Returns the class that the probabilities of each example [n, classes] mean."""
        assert not isinstance(self.threshold, tuple)
        if self.threshold is None:
            return probabilities.argmax(-1)
        there = probabilities[:, self.positive] > self.threshold
        return (there == bool(self.positive)).astype(int)

    def labels(self, probabilities: A) -> A:
        """Returns which labels the probabilities of each example [n, labels] mean."""
        thresholds = self.of_labels(probabilities.shape[-1])
        return probabilities > np.array(thresholds, probabilities.dtype)

    def of_labels(self, count: int) -> tuple[float, ...]:
        """Returns the threshold of each of so many labels."""
        one = LABEL_THRESHOLD if self.threshold is None else self.threshold
        return one if isinstance(one, tuple) else (one,) * count

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-able values that `decision_from` reads."""
        several = isinstance(self.threshold, tuple)
        return {
            "positive": self.positive,
            "threshold": list(self.threshold) if several else self.threshold,  # type: ignore[arg-type]
        }


USUAL = Decision()
"""The likeliest class; labels that are likelier than not."""


def decision_from(saved: Mapping[str, Any] | None) -> Decision:
    """Returns the decision that `Decision.to_dict` wrote; the usual one where there is none.

    Raises:
      KeyError, TypeError, ValueError: the record is damaged.
    """
    if saved is None:
        return USUAL
    found = saved["threshold"]
    threshold = tuple(map(float, found)) if isinstance(found, list) else found
    if not isinstance(threshold, int | float | tuple | None) or saved["positive"] not in (0, 1):
        raise ValueError(f"expected a positive class and a threshold, found {saved!r:.80}")
    return Decision(int(saved["positive"]), threshold)


def make_decision(
    class_names: Sequence[str],
    several: bool,
    positive: object = None,
    threshold: Threshold = None,
    spelt: str = "data.",
    positions: int = 0,
) -> Decision:
    """Returns the decision that a config or flags ask for, checked against the classes.

    Args:
      class_names: of the classes or labels, in the order of their numbers; none of numbers.
      several: whether these are labels, any number of them an example.
      positive: the positive class, by its name; None: the later of two.
      threshold: see `Decision`.
      spelt: what stands before the names of the two keys in messages.
      positions: axes of a target whose positions have a class each.

    Raises:
      DataError: there is no such class, or nothing to decide.

    Example:
      >>> make_decision(("no", "yes"), False, "no", 0.3)
      Decision(positive=0, threshold=0.3)
    """
    several = several and not positions
    two = len(class_names) == 2 and not several and not positions
    what = f"{len(class_names)} labels" if several else f"{len(class_names)} classes"
    what = what if class_names else "numbers to predict"
    what = f"{what}, one at each position" if positions else what
    place = 1
    if positive is not None:
        if not two:
            raise DataError(f"{spelt}positive: is of two classes; here there are {what}.")
        names = Coding("classification", (positive,)).class_names
        if names[0] not in class_names:
            raise DataError(
                f"{spelt}positive: {positive!r} is no class.{nearest(positive, class_names)} "
                f"Classes: {listing(class_names)}."
            )
        place = list(class_names).index(names[0])
    if threshold is not None:
        values = threshold if isinstance(threshold, tuple) else (threshold,)
        if not two and not several:
            raise DataError(
                f"{spelt}threshold: is of two classes or labels; here there are {what}."
            )
        if not all(0 < value < 1 for value in values):
            raise DataError(
                f"{spelt}threshold: {threshold!r}: expected a probability between 0 and 1, such as "
                "0.3."
            )
        if isinstance(threshold, tuple) and len(values) != (len(class_names) if several else 1):
            order = f", in the order {', '.join(class_names)}" if several else ""
            raise DataError(
                f"{spelt}threshold: holds {len(values)} numbers; expected one"
                f"{f' or {len(class_names)}' if several else ''}{order}."
            )
        if isinstance(threshold, tuple) and not several:
            threshold = threshold[0]
    return Decision(place, threshold)


def read_threshold(text: str) -> float | tuple[float, ...]:
    """Reads a threshold as a flag has it: ``0.3``, or of each label ``0.3,0.5,0.2``.

    Raises:
      UserError: it is none.

    Example:
      >>> read_threshold("0.3"), read_threshold("0.3,0.5")
      (0.3, (0.3, 0.5))
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--threshold: {text!r} is no number; write 0.3, or a number for each label: 0.3,0.5."
        ) from None
    return values[0] if len(values) == 1 else values
