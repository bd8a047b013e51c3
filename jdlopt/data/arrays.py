"""Datasets of arrays in memory: what a source of a user's own returns."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from jdlopt.config import Schema, Value, fields_of, find_part
from jdlopt.data import documents, named, next_tokens, tagged, tags
from jdlopt.data.damage import check_finite
from jdlopt.data.dataset import PLAIN, Dataset, Reading, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.npz import as_inputs, shaped
from jdlopt.data.pools import ArrayPool, Arrays, Pool
from jdlopt.data.precision import Offset, notes_of_matrix, offsets_of
from jdlopt.data.spec import InputSpec
from jdlopt.data.split import SPLITS
from jdlopt.data.targets import encode, infer_coding
from jdlopt.errors import ConfigError, DataError, UserError, listing, nearest

Pair = tuple[Any, Any]
"""Inputs and targets, one each an example: whatever NumPy makes arrays of, or a dict of them."""
Splits = Pair | Mapping[str, Pair]

_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
EXPECTED = (
    "expected a pair (inputs, targets), a dict of such pairs by split (train, validation, test), "
    "or a jdlopt.data.dataset.Dataset"
)


def is_own(source: object) -> bool:
    """Says whether ``data.source`` is a dotted path to a function of the user's own.

    Example:
      >>> is_own("my_data:spirals"), is_own("mnist:3.0.1"), is_own("digits")
      (True, False, False)
    """
    return isinstance(source, str) and _PATH.fullmatch(source.strip()) is not None


def own_schema(source: str, shared: Iterable[str]) -> Schema:
    """Returns the keys of a source of the user's own: its typed keyword parameters.

    Args:
      source: the dotted path.
      shared: the keys that every source has.

    Raises:
      ConfigError: there is no such function, or one of its parameters has the name of a key that
        every source has.
    """
    part = find_part(source.strip(), {}, "data.source")
    try:
        own = fields_of(part)
    except (TypeError, ValueError, NameError, AttributeError) as error:
        raise ConfigError(
            f"data.source {source!r}: its parameters can't be read: {error}."
        ) from error
    taken = sorted(set(shared) & set(own))
    if taken:
        raise ConfigError(
            f"data.source {source!r}: its parameter {taken[0]!r} has the name of a key that every "
            "source has; give it another name."
        )
    return dict(own)


def open_own(fields: DataFields, options: Mapping[str, Value], reading: Reading = PLAIN) -> Dataset:
    """Opens what the function that ``data.source`` names returns.

    Args:
      fields: the data section.
      options: the function's own keys.
      reading: what becomes of NaN among the inputs.

    Raises:
      ConfigError: there is no such function.
      DataError: it fails, or returns no data.
    """
    source = fields.source.strip()
    function: Callable[..., Any] = find_part(source, {}, "data.source")
    try:
        made = function(**options)
    except UserError:
        raise
    except Exception as error:
        raise DataError(
            f"data.source: {source!r} failed: {type(error).__name__}: {error}"
        ) from error
    if isinstance(made, Dataset):
        return made
    # data is known by its source: other options are other data
    given = ", ".join(f"{key}={value!r}" for key, value in sorted(options.items()))
    fields = dataclasses.replace(fields, source=f"{source}({given})" if given else source)
    return open_arrays(made, fields, reading, source.rpartition(":")[2])


def open_arrays(splits: Splits, fields: DataFields, reading: Reading, name: str) -> Dataset:
    """Returns the dataset of arrays in memory, split where they are not.

    uint8 inputs stay uint8, and get a channel axis where they are ``[examples, height, width]``;
    others become float32.

    Args:
      splits: inputs and targets, or those of each of some splits, ``train`` among them.
      fields: the data section: ``task``, ``on_bad`` and the split's keys.
      reading: what becomes of NaN among the inputs.
      name: the dataset's short name.

    Raises:
      DataError: they are no such arrays, or hold values that can't be used.
    """
    where = fields.source
    if fields.task == next_tokens.TASK:
        return documents.of_lists(splits, fields, reading, name)
    if fields.task == tags.TASK:
        pairs = {
            split: _two(pair, f"{where}, {split!r}") for split, pair in _by_split(splits, where)
        }
        return tagged.of_arrays(pairs, fields, reading, name=name)
    given = {split: _pair(pair, f"{where}, {split!r}") for split, pair in _by_split(splits, where)}
    shapes = {split: _shapes(inputs) for split, (inputs, _) in given.items()}
    if any(shape != shapes["train"] for shape in shapes.values()):
        found = ", ".join(f"{split} {shape}" for split, shape in shapes.items())
        raise DataError(f"{where}: the splits' inputs differ in shape: {found}.")
    what = f"{where}, targets of 'train'"
    others = {
        f"{where}, targets of {split!r}": targets
        for split, (_, targets) in given.items()
        if split != "train"
    }
    coding = infer_coding(
        given["train"][1], fields.task, what, (), fields.label_delimiter, fields.text, others
    )
    offsets = named.each(offsets_of, given["train"][0])

    def cast(values: np.ndarray, taken: Sequence[Offset]) -> np.ndarray:
        return as_inputs(values, f"{where}, inputs", taken)

    made = {
        split: Arrays(
            named.each(cast, inputs, offsets),
            encode(targets, coding, f"{where}, targets of {split!r}"),
        )
        for split, (inputs, targets) in given.items()
    }
    train = made["train"]
    if reading.missing != "keep" and fields.on_bad == "error":
        named.each(
            partial(
                check_finite, where=f"{where}, 'train'", allow_missing=reading.missing == "fill"
            ),
            train.inputs,
        )
    pools: dict[str, Pool] = {
        split: ArrayPool(len(arrays.targets), partial(Arrays, *arrays))
        for split, arrays in made.items()
    }
    return make_dataset(
        fields=fields,
        name=name,
        coding=coding,
        inputs=named.each(
            lambda values, offset: InputSpec(values.shape[1:], str(values.dtype), offsets=offset),
            train.inputs,
            offsets,
        ),
        pools=pools,
        labels=lambda: train.targets,
        reading=reading,
        notes=[
            note
            for name, values in named.by_name(given["train"][0]).items()
            for note in notes_of_matrix(values, named.by_name(offsets)[name], name)
        ],
    )


def _by_split(splits: object, where: str) -> list[tuple[str, object]]:
    """The pairs by the names of their splits."""
    if isinstance(splits, tuple | list) and len(splits) == 2:
        return [("train", tuple(splits))]
    if not isinstance(splits, Mapping):
        raise DataError(f"{where}: gives {type(splits).__name__}; {EXPECTED}.")
    for split in splits:
        if split not in SPLITS:
            raise DataError(
                f"{where}: gives a split {split!r}.{nearest(split, SPLITS)} Known: "
                f"{listing(SPLITS)}."
            )
    if "train" not in splits:
        raise DataError(f"{where}: gives no split 'train'; {EXPECTED}.")
    return list(splits.items())


def _shapes(inputs: named.Inputs) -> Any:
    return named.each(lambda values: values.shape[1:], inputs)


def _two(pair: object, where: str) -> Pair:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"{where}: is {type(pair).__name__}; {EXPECTED}.")
    return pair[0], pair[1]


def _pair(pair: object, where: str) -> tuple[Any, np.ndarray]:
    """Inputs and targets as arrays of as many examples."""
    given, raw = _two(pair, where)
    targets = np.asarray(raw)
    if isinstance(given, Mapping) and (not given or not all(isinstance(n, str) for n in given)):
        raise DataError(f"{where}: named inputs are a dict of arrays by name; found {list(given)}.")
    inputs = named.each(np.asarray, given)
    for name, values in named.by_name(inputs).items():
        which = f"{where}, inputs {name!r}" if isinstance(inputs, Mapping) else f"{where}, inputs"
        if not values.ndim or not targets.ndim:
            raise DataError(f"{which}: inputs and targets must be arrays, not scalars.")
        if len(values) != len(targets):
            raise DataError(
                f"{which}: there are {len(values)} inputs and {len(targets)} targets; there must "
                "be as many."
            )
    return named.each(partial(shaped, what=f"{where}, inputs"), inputs), targets
