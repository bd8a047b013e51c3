"""What a model must know of data: names, shapes, types, classes and sizes. Frozen, without data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from jdlopt.data.coding import PAD
from jdlopt.data.decision import USUAL, Decision, Threshold, decision_from, make_decision
from jdlopt.data.named import by_name
from jdlopt.data.notation import Notation
from jdlopt.data.notes import Note
from jdlopt.data.precision import Offset
from jdlopt.data.text_input import TextInput, from_meta
from jdlopt.errors import DataError, listing

T = TypeVar("T")


@dataclass(frozen=True)
class InputSpec:
    """One input of an example.

    Attributes:
      shape: of one example's.
      dtype: ``uint8``, ``float32``, or ``int32`` for the tokens of a text.
      feature_names: a name for each feature of a table; None for other inputs.
      missing: what becomes of missing values: ``refuse`` them; keep them, for preprocessing to
        ``fill`` in; ``keep`` them and infinities as well, to be described.
      categories: the categories of each feature that is none of numbers, in the order of their
        codes: 1 is the first, 0 stands for what was in no training example.
      offsets: what was taken off each feature before the cast to float32; empty for nothing.
      notations: how texts of columns write numbers, where they do so in another way than Python.
      missing_values: the words of a table that stand for missing values; None for those of a CSV.
      hash_buckets: categories are coded by so many hashes; None codes them by their own number.
      text: the tokenizer's state, where inputs are texts, and what that feature is called.
      sample_rate: samples a second, where inputs are sound.
      column: the column of a table that holds paths, where inputs are these files.
    """

    shape: tuple[int, ...]
    dtype: str
    feature_names: tuple[str, ...] | None = None
    missing: str = "refuse"
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    offsets: tuple[Offset, ...] = ()
    notations: Mapping[str, Notation] = field(default_factory=dict)
    missing_values: tuple[str, ...] | None = None
    hash_buckets: int | None = None
    text: TextInput | None = field(default=None, repr=False)
    sample_rate: int | None = None
    column: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-able values that `from_dict` gives back."""
        return {
            "feature_names": None if self.feature_names is None else list(self.feature_names),
            "input_shape": list(self.shape),
            "input_dtype": self.dtype,
            "allow_missing": self.missing == "fill",
            "categories": {name: list(texts) for name, texts in self.categories.items()},
            "offsets": list(self.offsets),
            "notations": {name: [one.decimal, one.affix] for name, one in self.notations.items()},
            "missing_values": None if self.missing_values is None else list(self.missing_values),
            "hash_buckets": self.hash_buckets,
            "text": None if self.text is None else self.text.meta(),
            "sample_rate": self.sample_rate,
            "column": self.column,
        }

    @staticmethod
    def from_dict(saved: Mapping[str, Any]) -> InputSpec:
        """Returns the spec that `to_dict` was called on.

        Raises:
          KeyError, TypeError, ValueError: the record is damaged.
          DataError: the tokenizer's state is damaged.
        """
        names, text = saved.get("feature_names"), saved.get("text")
        words = saved.get("missing_values")
        categories = saved.get("categories") or {}
        return InputSpec(
            shape=tuple(int(size) for size in saved["input_shape"]),
            dtype=_known(saved["input_dtype"]),
            feature_names=None if names is None else tuple(map(str, names)),
            missing="fill" if saved.get("allow_missing") else "refuse",
            categories={name: tuple(map(str, texts)) for name, texts in categories.items()},
            offsets=tuple(_number(one) for one in saved.get("offsets") or ()),
            notations={
                name: Notation(*map(str, one))
                for name, one in (saved.get("notations") or {}).items()
            },
            missing_values=None if words is None else tuple(map(str, words)),
            hash_buckets=_optional(saved, "hash_buckets", int),
            text=None if text is None else from_meta(text),
            sample_rate=_optional(saved, "sample_rate", int),
            column=_optional(saved, "column", str),
        )


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of data, and all that prediction needs of it later.

    Attributes:
      name: a short name: the dataset's, or the file's or folder's.
      source: ``data.source`` as the config has it.
      task: a key of `jdlopt.tasks.TASKS`, or the dotted path of a user's own.
      inputs: the spec of the only input, or those of named inputs, as a batch has them.
      sizes: examples in each of ``train``, ``validation`` and ``test`` when it was opened.
      class_names: a name for each class or label, in the order of the targets; empty for
        regression.
      target_names: a name for each value of a target that has several; else empty.
      target_shape: the shape of one example's target.
      positions: how many of its axes are positions, each with a class of its own
        (`jdlopt.data.coding.Coding`).
      target_dtype: ``int32`` (classes, labels) or ``float32`` (values).
      pad: what targets of unequal length are padded with; as a class it is never counted.
      target_text: the tokenizer of targets that are texts.
      decision: which class or labels a probability means.
      beam_width: how many beginnings of a text are followed where outputs are decoded.
      notes: what was left out, changed, guessed or could not be used when it was opened.
    """

    name: str
    source: str
    task: str
    inputs: InputSpec | Mapping[str, InputSpec]
    sizes: Mapping[str, int]
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    target_shape: tuple[int, ...] = ()
    positions: int = 0
    target_dtype: str = "int32"
    pad: int = PAD
    target_text: TextInput | None = field(default=None, repr=False)
    decision: Decision = USUAL
    beam_width: int = 1
    notes: tuple[Note, ...] = field(default=(), compare=False)

    @property
    def num_classes(self) -> int:
        """The number of classes or labels; 0 for regression."""
        return len(self.class_names)

    @property
    def values_predicted(self) -> int:
        """How many numbers are predicted of an example: a class or label each, at each position."""
        places = math.prod(self.target_shape) if self.positions else 1
        return places * self.num_classes

    @property
    def input(self) -> InputSpec:
        """The only input.

        Raises:
          DataError: there are several.
        """
        if isinstance(self.inputs, InputSpec):
            return self.inputs
        raise DataError(
            f"{self.name!r} has several inputs ({listing(self.inputs)}), where one is expected."
        )

    @property
    def named(self) -> Mapping[str, InputSpec]:
        """The inputs by name, the only one as ``input``."""
        return by_name(self.inputs)

    def deciding(self, positive: object, threshold: Threshold) -> DataSpec:
        """Returns the spec with another positive class or threshold; None leaves its own.

        Args:
          positive: the positive class of two, by its name.
          threshold: see `jdlopt.data.decision.Decision`.

        Raises:
          DataError: there is no such class, or nothing to decide.
        """
        if positive is None and threshold is None:
            return self
        several = bool(self.class_names and self.target_shape)
        found = make_decision(
            self.class_names, several, positive, threshold, spelt="--", positions=self.positions
        )
        if positive is None:
            found = found._replace(positive=self.decision.positive)
        if threshold is None:
            found = found._replace(threshold=self.decision.threshold)
        return replace(self, decision=found)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-able values that `from_dict` gives back."""
        inputs = (
            self.inputs.to_dict()
            if isinstance(self.inputs, InputSpec)
            else {"inputs": {name: one.to_dict() for name, one in self.inputs.items()}}
        )
        return {
            "name": self.name,
            "source": self.source,
            "task": self.task,
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "target_names": list(self.target_names),
            "target_shape": list(self.target_shape),
            "positions": self.positions,
            "target_dtype": self.target_dtype,
            "pad": self.pad,
            "target_text": None if self.target_text is None else self.target_text.meta(),
            "decision": self.decision.to_dict(),
            "beam_width": self.beam_width,
            "notes": [note.to_dict() for note in self.notes],
            "sizes": dict(self.sizes),
            **inputs,
        }

    @staticmethod
    def from_dict(saved: Mapping[str, Any]) -> DataSpec:
        """Returns the spec that `to_dict` was called on.

        Raises:
          KeyError, TypeError, ValueError: the record is damaged.
          DataError: a tokenizer's state is damaged.
        """
        named, written = saved.get("inputs"), saved.get("target_text")
        return DataSpec(
            name=str(saved["name"]),
            source=str(saved["source"]),
            task=str(saved["task"]),
            inputs=InputSpec.from_dict(saved)
            if named is None
            else {str(name): InputSpec.from_dict(one) for name, one in named.items()},
            sizes={"train": 0} | {str(name): int(size) for name, size in saved["sizes"].items()},
            class_names=tuple(str(name) for name in saved["class_names"]),
            target_names=tuple(str(name) for name in saved.get("target_names", ())),
            target_shape=tuple(int(size) for size in saved.get("target_shape", ())),
            positions=int(saved.get("positions", 0)),
            target_dtype=_known(saved["target_dtype"]),
            pad=int(saved.get("pad", PAD)),
            target_text=None if written is None else from_meta(written),
            decision=decision_from(saved.get("decision")),
            beam_width=int(saved.get("beam_width", 1)),
            notes=tuple(Note.from_dict(note) for note in saved.get("notes", ())),
        )


def _number(value: object) -> Offset:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise TypeError(f"expected a number, found {value!r:.60}")


def _optional(saved: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """Returns a value of a record that may be missing.

    Raises:
      TypeError: it is of another type.
    """
    value = saved.get(name)
    if value is None or type(value) is kind:
        return value
    raise TypeError(f"{name}: expected {kind.__name__}, found {value!r:.60}")


def _known(dtype: object) -> str:
    """Returns the name of a plain type of numbers.

    Raises:
      ValueError, TypeError: it is none.
    """
    found = np.dtype(str(dtype))
    if found.kind not in "biuf":
        raise ValueError(f"expected a type of numbers, found {dtype!r:.60}")
    return str(found)
