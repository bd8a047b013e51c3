"""How raw targets become numbers: what is known of it, and the functions that say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from jdlopt.data.notes import Note
from jdlopt.data.text_input import TextInput

Encoded = Num[np.ndarray, "examples *target"]

PAD = -1
"""The target of a position that counts for nothing: there is none, or it is not known."""

BLANK = 0
"""The class of a step at which nothing is said; transcripts are padded with it, as none has it."""

END = 0
"""The token that ends a target that is a text; a decoder is given it before the first one, too."""


@dataclass(frozen=True)
class Coding:
    """How raw targets become numbers.

    Attributes:
      task: a key of `jdlopt.data.coders.CODERS`, or the dotted path of a task of the user's own.
      classes: the classes or labels as the source has them, in the order of their numbers.
      names: a name for each; by default the class itself, as text.
      outputs: a name for each of several numbers to predict.
      delimiter: what stands between the labels of an example, where a text holds them.
      shape: of one encoded target.
      positions: how many of its axes are positions, each with a class of its own: of a sequence 1,
        of an image 2. The others are several labels or numbers.
      dtype: of encoded targets.
      pad: what encoded targets of unequal length are padded with; as a class it is never counted.
      notes: what was guessed of the targets.
      text: cuts targets that are texts into tokens; None before the training texts are known.
      lowercase, html: how transcripts are cleaned, as in `jdlopt.data.text_cleaning.clean`.
    """

    task: str
    classes: tuple[Any, ...] = ()
    names: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    delimiter: str | None = None
    shape: tuple[int, ...] = ()
    positions: int = 0
    dtype: str = "int32"
    pad: int = PAD
    notes: tuple[Note, ...] = ()
    text: TextInput | None = None
    lowercase: bool = False
    html: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each class or label, in the order of the numbers."""
        return self.names or tuple(_class_name(value) for value in self.classes)


class Coder(NamedTuple):
    """How the targets of one task are coded.

    Attributes:
      infer: ``(values, what, names, delimiter) → Coding``: what the training targets say of how
        targets are coded. ``values`` are raw, [examples] or [examples, columns]; ``what`` names
        them in messages; ``names`` are the columns', or empty; ``delimiter`` stands between the
        labels of a text.
      encode: ``(values, coding, what) → targets``: one array [examples, …] of ``coding.dtype``,
        targets of unequal length padded to ``coding.shape``, by `PAD` where a task has no other.
    """

    infer: Callable[[np.ndarray, str, Sequence[str], str | None], Coding]
    encode: Callable[[np.ndarray, Coding, str], Encoded]


def _class_name(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)
