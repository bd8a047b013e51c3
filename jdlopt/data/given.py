"""Data that a program gives instead of naming a source: arrays, a DataFrame, splits, sequences."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Num

from jdlopt import config as configs
from jdlopt.data import arrays, source, table_files, tables, tagged, tags, target_texts
from jdlopt.data.coding import Coding
from jdlopt.data.dataset import Dataset, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.inputs import Inputs, columns_of, fitting, frame_inputs, named_inputs
from jdlopt.data.missing_words import without_words
from jdlopt.data.named import INPUT, by_name, each, stacked
from jdlopt.data.new_texts import in_column, in_memory
from jdlopt.data.notation import stripped
from jdlopt.data.notes import Notes
from jdlopt.data.npz import as_inputs
from jdlopt.data.pair_coding import TASK as PAIRS
from jdlopt.data.pools import ArrayPool, Arrays, Pool
from jdlopt.data.source import MEMORY
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.data.targets import encode, infer_coding
from jdlopt.data.text import TextFields
from jdlopt.errors import DataError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd

Given = Any
"""What `open_given` takes: no type says it all."""


def named(config: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """Returns a config whose ``data.source`` names data in memory, by what they hold.

    So a run's directory refuses to go on with other data.
    """
    digest = hashlib.sha256()
    for part in _contents(given):
        digest.update(str(part.dtype).encode() + str(part.shape).encode())
        # an array of objects holds addresses, which say nothing of what they are
        plain = part if part.dtype != object else np.array(repr(part.tolist()))
        digest.update(np.ascontiguousarray(plain).tobytes())
    name = f"{MEMORY}{digest.hexdigest()[:12]}"
    return configs.to_dict(configs.override(config, {"data.source": name}))


def _contents(given: Given) -> list[np.ndarray]:
    """The arrays that data consist of; of a sequence, which may be large, only its length."""
    if _is_frame(given):
        import pandas as pd

        names = [str(name) for name in given.columns]
        try:
            rows = pd.util.hash_pandas_object(given)
        except TypeError:  # a cell holds a list
            rows = pd.util.hash_pandas_object(given.astype(object).map(repr))
        return [rows.to_numpy(), np.array(names, "U")]
    if isinstance(given, Mapping):
        return [part for key in sorted(given) for part in _contents(given[key])]
    if isinstance(given, tuple | list) and len(given) == 2:
        inputs = by_name(given[0])
        return [_as_array(values) for values in (*inputs.values(), given[1])]
    if isinstance(given, list | tuple) and all(isinstance(one, str) for one in given):
        return [np.array(repr(given))]  # texts
    return [np.array([len(given)])] if isinstance(given, Sized) else []


def _as_array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:  # lists of different lengths
        return np.array(repr(values))


def _is_frame(given: object) -> bool:
    """Whether it is a pandas DataFrame; pandas is not imported to ask."""
    return type(given).__name__ == "DataFrame" and hasattr(given, "columns")


def open_given(fields: DataFields | Mapping[str, Any], given: Given) -> Dataset:
    """Opens data that a program gives; they are split and read as a file's would be.

    Args:
      fields: the data section; ``target`` names the target of a DataFrame.
      given: inputs and targets as ``(X, y)``; a DataFrame; a list of texts, whose next token is to
        be learnt; a dict of these by split (``train``, ``validation``, ``test``); or an object with
        a length, whose items, by index or in turn, are ``(input, target)``. By index it is not read
        into memory.

    Raises:
      DataError: they are no such data, or can't be used; says what to do about it.
    """
    if not isinstance(fields, DataFields):
        fields = configs.section_of(DataFields, fields, "data")
    source.check_together(fields)
    reading, where = source.reading_of(fields), "data"
    fields = dataclasses.replace(fields, source=fields.source or where)
    if _is_frame(given):
        return tables.open_frame(given, fields, reading)
    if isinstance(given, Mapping) and given and all(map(_is_frame, given.values())):
        return tables.open_frames(
            {str(split): one for split, one in given.items()}, fields, reading
        )
    if isinstance(given, Mapping | tuple | list):
        splits: Any = given  # what it must be, `open_arrays` checks
        return arrays.open_arrays(splits, fields, reading, where)
    if not isinstance(given, Sized):
        raise DataError(
            f"{where}: is {type(given).__name__}; expected arrays (X, y), a DataFrame, a dict of "
            "splits, or an object with a length whose items are (input, target)."
        )
    if isinstance(given, Iterable) and not hasattr(given, "__getitem__"):
        return arrays.open_arrays(_collected(given, where), fields, reading, where)
    pool = ItemPool.of(given, fields, where)
    first = pool[0][0]
    return make_dataset(
        fields=fields,
        name=where,
        coding=pool.coding,
        inputs=each(lambda one: InputSpec(one.shape, str(one.dtype)), first),
        pools={"train": pool},
        labels=lambda: pool.targets(None),
        reading=reading,
    )


def _collected(given: Iterable[Any], where: str) -> tuple[Any, np.ndarray]:
    """Everything that an iterable yields."""
    pairs = [_item(item, f"{where}, item {index}") for index, item in enumerate(given)]
    if not pairs:
        raise DataError(f"{where}: yields no example.")
    inputs, targets = zip(*pairs, strict=True)
    return stacked([each(np.asarray, one) for one in inputs]), np.stack(
        [np.asarray(one) for one in targets]
    )


def _item(item: object, where: str) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"{where}: is {type(item).__name__}; expected a pair (input, target).")
    return item[0], item[1]


@dataclass(frozen=True, eq=False)
class ItemPool(Pool):
    """Examples behind an index: read one by one, when they are asked for."""

    items: Sequence[Any]
    coding: Coding
    codes: np.ndarray
    where: str

    @staticmethod
    def of(items: Any, fields: DataFields, where: str) -> ItemPool:
        """Reads every target once, to know how they are coded."""
        if not len(items):
            raise DataError(f"{where}: has no item.")
        raw = [np.asarray(_item(items[index], where)[1]) for index in range(len(items))]
        values = np.stack(raw)
        what, delimiter = f"{where}, targets", fields.label_delimiter
        coding = infer_coding(values, fields.task, what, (), delimiter, fields.text)
        return ItemPool(items, coding, encode(values, coding, what), where)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        where = f"{self.where}, item {index}"
        found = _item(self.items[index], where)[0]
        return each(lambda one: as_inputs(np.asarray(one)[None], where)[0], found), self.codes[
            index
        ]

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all of them."""
        chosen = np.arange(len(self)) if indices is None else indices
        inputs = [self[int(index)][0] for index in chosen]
        shapes = {str(each(np.shape, one)) for one in inputs}
        if len(shapes) > 1:
            raise DataError(f"{self.where}: inputs differ in shape: {listing(sorted(shapes))}.")
        return Arrays(stacked(inputs), self.codes[chosen])

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the targets of the examples at the indices, or of all."""
        return self.codes if indices is None else self.codes[indices]


# --- for a trained model --------------------------------------------------------------------------


def given_inputs(
    given: Any,
    spec: InputSpec | Mapping[str, InputSpec],
    passed: Collection[str] | None = None,
    with_targets: bool = False,
) -> Inputs:
    """Returns inputs in memory, shaped and coded as in training.

    Args:
      given: an array [n, …]; a dict of named ones; a DataFrame with the columns of the training
        data by name (it may have others); or texts.
      spec: of the input that the model was trained on, or of named ones.
      passed: columns that are no inputs, as in `jdlopt.data.inputs.frame_inputs`.
      with_targets: whether words of texts have targets beside them: texts are then cut at spaces
        alone, as in training.

    Raises:
      DataError: they are no such inputs.
    """
    where = "inputs"
    if _is_frame(given):
        frame: pd.DataFrame = given
        notes = Notes()
        table = table_files.index_as_columns(frame, where, notes)
        table = table.set_axis([str(name) for name in table.columns], axis=1)
        specs = by_name(spec)
        words = next(iter(specs.values())).missing_values
        if words:
            table = without_words(table, words, (), None, notes)
        if isinstance(spec, InputSpec) and not columns_of(spec):  # by their places
            specs = {INPUT: dataclasses.replace(spec, feature_names=tuple(table.columns))}
        found = frame_inputs(table, specs, Path(), where, notes, passed)
        ids = [str(row) for row in frame.index]
        if not isinstance(spec, InputSpec):
            return Inputs(found, ids, tuple(notes))
        texts = None if spec.text is None else in_column(table[spec.text.column], spec.text)
        return Inputs(found[INPUT], ids, tuple(notes), texts)
    if not isinstance(spec, InputSpec):
        if not isinstance(given, Mapping):
            raise DataError(
                f"{where}: the model was trained on several ({listing(spec)}); expected a dict of "
                f"arrays by these names, found {type(given).__name__}."
            )
        return named_inputs(given, spec, where)
    coded = isinstance(given, np.ndarray) and given.dtype.kind in "iu"
    texts = None
    if spec.text is not None and not coded:
        texts = given = in_memory(given, spec.text, signs=not with_targets)
    values = fitting(given, spec, where)
    return Inputs(values, [str(row) for row in range(len(values))], texts=texts)


def given_targets(
    given: Any,
    spec: DataSpec,
    count: int,
    texts: Sequence[Any] | None = None,
    text: TextFields | None = None,
) -> Num[np.ndarray, "n *k"]:
    """Returns targets coded as the training data's: classes by their names, texts, or numbers.

    Args:
      given: the targets.
      spec: of the training data.
      count: examples that there are.
      texts: the inputs, where they are texts.
      text: the ``data.text`` section, as transcripts are cleaned; None: its defaults.

    Raises:
      DataError: there are not as many, or one is no class of the training data.
    """
    if spec.task == tags.TASK and texts is not None:
        if len(given) != count:
            raise DataError(
                f"targets: there are the tags of {len(given)} texts; expected a list of tags for "
                f"each of {count}."
            )
        return tagged.given_targets(given, texts, spec)
    try:
        values = np.asarray(given)
    except ValueError:
        raise DataError(
            f"targets: are lists of different lengths; expected shape "
            f"{(count, *spec.target_shape)}."
        ) from None
    if spec.target_text is not None and values.shape == (count,) and values.dtype.kind in "OU":
        texts = [str(one) for one in values.tolist()]
        return target_texts.encode(texts, spec.target_text, spec.target_shape[0], "targets")
    if spec.task == PAIRS and values.shape == (count,):
        return encode(values, Coding(PAIRS), "targets")
    if spec.positions and len(values) == count:
        coding = Coding(
            spec.task,
            classes=spec.class_names,
            names=spec.class_names,
            shape=spec.target_shape,
            positions=spec.positions,
            dtype=spec.target_dtype,
            pad=spec.pad,
            lowercase=(text or TextFields()).lowercase,
            html=(text or TextFields()).html,
        )
        return encode(values, coding, "targets")
    if values.shape != (count, *spec.target_shape):
        raise DataError(
            f"targets: have shape {values.shape}; expected {(count, *spec.target_shape)}."
        )
    if spec.class_names and not spec.target_shape:
        number = {name: index for index, name in enumerate(spec.class_names)}
        names = tuple(map(stripped, Coding("classification", tuple(values.tolist())).class_names))
        strange = [name for name in names if name not in number]
        if strange:
            raise DataError(
                f"targets: {strange[0]!r} is no class of the training data."
                f"{nearest(strange[0], number)} Known: {listing(spec.class_names)}."
            )
        return np.array([number[name] for name in names], spec.target_dtype)
    return values.astype(spec.target_dtype)


def only_split(spec: DataSpec, split: str, examples: Arrays) -> Dataset:
    """Returns a dataset of one split, to evaluate on."""
    size = len(examples.targets)
    sizes = {**dict.fromkeys(spec.sizes, 0), split: size}
    shape = examples.targets.shape[1:]  # transcripts may be longer than in training
    return Dataset(
        dataclasses.replace(spec, sizes=sizes, target_shape=shape),
        pools={split: ArrayPool(size, lambda: examples)},
        parts={split: (split, None)},
    )
