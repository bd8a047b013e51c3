"""What opening data left out, changed, guessed or could not use: counted, and said.

A source gives its notes to `jdlopt.data.dataset.make_dataset`; `Dataset.notes` has them all. They
are shown by ``jdlopt data describe`` and ``data check``, at the start of training, and kept in
``result.json``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jdlopt.errors import escaped

KINDS = ("left out", "changed", "guessed", "unused", "unseen", "kept")
"""What can have happened to a part of the data; ``unused`` can't tell a model anything, ``unseen``
occurs in no training example, and ``kept`` is what another run learnt."""
MOST_TOLD = 3
"""So many places are named; the others are counted."""


@dataclass(frozen=True)
class Note:
    """One thing that the data are not taken as they stand, in.

    Attributes:
      kind: of `KINDS`.
      what: which data, and what became of them, in words without a full stop.
      count: how many.
      unit: what is counted: ``examples``, ``values``, ``files``, ``columns``.
      places: the first few of them, and how many more places there are.
      remedy: the config key that changes this, or what else to do, as a sentence; empty if nothing.

    Example:
      >>> print(Note("left out", "files of an unknown ending", 2, "files", ("a.xyz", "b.xyz")))
      left out: files of an unknown ending (2 files): a.xyz; b.xyz
    """

    kind: str
    what: str
    count: int = 1
    unit: str = "columns"
    places: tuple[str, ...] = ()
    remedy: str = ""

    def __str__(self) -> str:
        unit = self.unit if self.count != 1 else self.unit.removesuffix("s")
        places = "; ".join(self.places)
        told = f"{self.kind}: {self.what} ({self.count:,} {unit})"
        told += f": {places}" if places else ""
        return f"{told}. {self.remedy}" if self.remedy else told

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-able values that `from_dict` gives back."""
        return {**asdict(self), "places": list(self.places)}

    @staticmethod
    def from_dict(saved: Mapping[str, Any]) -> Note:
        """Returns the note that `to_dict` was called on.

        Raises:
          KeyError, TypeError, ValueError: the record is damaged.
        """
        return Note(
            kind=str(saved["kind"]),
            what=str(saved["what"]),
            count=int(saved["count"]),
            unit=str(saved["unit"]),
            places=tuple(str(place) for place in saved["places"]),
            remedy=str(saved["remedy"]),
        )


@dataclass
class Notes:
    """Notes that are being made: equal ones of several columns or files become one, counted.

    Example:
      >>> notes = Notes()
      >>> notes.add("changed", "decimal comma", "column 'price', as '1,5'", 20)
      >>> notes.add("changed", "decimal comma", "column 'sum', as '2,5'", 10)
      >>> print(*notes)
      changed: decimal comma (30 values): column 'price', as '1,5'; column 'sum', as '2,5'
    """

    _made: dict[tuple[str, str, str, str], tuple[int, list[str]]] = field(default_factory=dict)

    def add(
        self,
        kind: str,
        what: str,
        place: str = "",
        count: int = 1,
        unit: str = "values",
        remedy: str = "",
    ) -> None:
        """Counts more of what a `Note` of these words says; see its attributes."""
        assert kind in KINDS, kind
        before, places = self._made.get((kind, what, unit, remedy), (0, []))
        self._made[kind, what, unit, remedy] = before + count, places
        if place:
            places.append(place)

    def extend(self, notes: Iterable[Note]) -> None:
        """Adds notes that were made elsewhere."""
        for note in notes:
            places = note.places or ("",)
            self.add(note.kind, note.what, places[0], note.count, note.unit, note.remedy)
            self._made[note.kind, note.what, note.unit, note.remedy][1].extend(places[1:])

    def __iter__(self) -> Iterator[Note]:
        for (kind, what, unit, remedy), (count, places) in self._made.items():
            told = tuple(places[:MOST_TOLD])
            if len(places) > MOST_TOLD:
                told = (*told, f"and {len(places) - MOST_TOLD} more")
            yield Note(kind, what, count, unit, told, remedy)


def since(said: Iterable[Note], now: Iterable[Note]) -> list[Note]:
    """Returns the notes that came after others, and of those that have grown since by how much.

    Example:
      >>> said = [Note("changed", "decimal comma", 3, "values")]
      >>> print(*since(said, [Note("changed", "decimal comma", 5, "values", ("row 9",))]))
      changed: decimal comma (2 more values)
    """
    before = {(one.kind, one.what, one.unit, one.remedy): one.count for one in said}
    new = []
    for note in now:
        told = before.get((note.kind, note.what, note.unit, note.remedy))
        if told is None:
            new.append(note)
        elif note.count > told:
            more = f"more {note.unit}"
            new.append(replace(note, count=note.count - told, unit=more, places=()))
    return new


def say(notes: Sequence[Note]) -> None:
    """Writes each note on stderr, a line each, without control characters of the data's own."""
    for note in notes:
        say_line(f"data: {' '.join(str(note).split())}")


def say_line(text: str) -> None:
    """Writes a line on stderr, without control characters."""
    print(escaped(text), file=sys.stderr)
