"""Inputs to predict on, without targets, shaped and coded as in training."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Num

from jdlopt import writing
from jdlopt.data import new_texts, npz, presence, table_files
from jdlopt.data.columns import as_texts, number_columns
from jdlopt.data.damage import Skipped, check_finite
from jdlopt.data.image_decoding import KIND, Changes, decode_image
from jdlopt.data.named import INPUT, PRESENT, contents
from jdlopt.data.new_texts import files_of
from jdlopt.data.notes import Note, Notes
from jdlopt.data.precision import without
from jdlopt.data.spec import InputSpec
from jdlopt.data.walk import check_regular
from jdlopt.errors import DataError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd


NO_INPUT = "columns that the model was not trained on"


class Inputs(NamedTuple):
    """Inputs without targets.

    Attributes:
      inputs: one array [examples, …], or a dict of named arrays.
      ids: what to call each example in the predictions.
      notes: what of them was changed or guessed, or was in no training example.
      texts: where the only input is texts, they themselves, or the words of each.
    """

    inputs: Any
    ids: list[str]
    notes: tuple[Note, ...] = ()
    texts: Sequence[Any] | None = None


def read_inputs(
    path: str | os.PathLike[str],
    spec: InputSpec | Mapping[str, InputSpec],
    passed: Collection[str] | None = None,
) -> Inputs:
    """Reads inputs to predict on, with the shape and type that the model was trained on.

    Categories and texts are coded as in training, sound is resampled and cut or padded as there,
    and missing values are kept if the model's preprocessing fills them in. Damage is an error: none
    of the examples is left out.

    Args:
      path: a CSV, TSV or Parquet file, an NPZ file, an image or sound, or a folder of them (with or
        without subfolders); for texts a table or a ``.txt`` file, one text a line. A table may have
        other columns, the target among them.
      spec: of the input that the model was trained on, or of named ones: they are read from a table
        with their columns, or an NPZ file of arrays by these names.
      passed: columns that are no inputs, as in `frame_inputs`.

    Returns:
      The inputs; ids are row numbers from 0, or a file's path within the folder.

    Raises:
      DataError: the path can't be read, or does not hold such inputs.
    """
    place = writing.expanded(path)
    if not place.exists():
        raise DataError(f"{place}: there is no such file or folder (from {os.getcwd()}).")
    if not place.is_dir():
        check_regular(place)
    suffix = place.suffix.lower()
    if not isinstance(spec, InputSpec):
        return _read_named(place, spec, passed)
    shape, dtype = spec.shape, np.dtype(spec.dtype)
    if spec.text is not None:
        texts, ids, notes = new_texts.read(place, spec.text)
        return Inputs(spec.text.encode(texts), ids, notes, texts)
    if table_files.is_table(place):
        read = _read_columns(place, {INPUT: spec}, passed)
        return read._replace(inputs=read.inputs[INPUT])
    if suffix in npz.SUFFIXES and place.is_file():
        values: np.ndarray = _read_npz(place, shape)
    elif spec.sample_rate is not None:
        return _read_sounds(place, shape, spec.sample_rate)
    elif place.is_dir() or KIND.holds(place):
        return _read_images(place, shape, dtype)
    else:
        raise DataError(
            f"{place}: expected a folder of images, an image, or a file ending in "
            f"{', '.join(table_files.SUFFIXES + npz.SUFFIXES)}."
        )
    values = as_trained(values, spec, str(place))
    check_finite(values, str(place), allow_missing=spec.missing == "fill")
    return Inputs(values, [str(row) for row in range(len(values))])


def _read_named(
    place: Path, specs: Mapping[str, InputSpec], passed: Collection[str] | None
) -> Inputs:
    """Reads named inputs: a table's columns, or the arrays of these names in an NPZ file."""
    suffix = place.suffix.lower()
    if table_files.is_table(place) and _are_columns(specs):
        return _read_columns(place, specs, passed)
    if suffix not in npz.SUFFIXES or not place.is_file():
        raise DataError(
            f"{place}: the model was trained on several inputs ({listing(specs)}); expected a "
            f"table with their columns ({listing(table_files.SUFFIXES)}) or a file of arrays by "
            f"these names ({listing(npz.SUFFIXES)})."
        )
    headers = npz.read_headers(place)
    given = {name: npz.read_array(place, name) for name in specs if name in headers}
    return named_inputs(given, specs, str(place))


def _are_columns(specs: Mapping[str, InputSpec]) -> bool:
    """Whether every input is made of columns of a table."""
    return all(one.feature_names or one.text or one.column for one in contents(specs).values())


def _read_columns(
    place: Path, specs: Mapping[str, InputSpec], passed: Collection[str] | None
) -> Inputs:
    """Reads inputs from a table's columns; paths begin at its folder."""
    apart = [columns_of(one)[0] for one in specs.values() if one.text or one.column]
    texts = [name for one in specs.values() for name in (*one.categories, *one.notations)]
    words, notes = next(iter(specs.values())).missing_values, Notes()
    table = table_files.read_table(
        place, as_text=(*texts, *apart), missing_values=words, notes=notes
    )
    if len(table) == 0:
        raise DataError(f"{place}: is empty: it has a header but no rows.")
    own = contents(specs).items()
    named = {name: _with_names(one, list(table.columns), str(place)) for name, one in own}
    specs = {**specs, **named}
    found = frame_inputs(table, specs, place.parent, str(place), notes, passed)
    return Inputs(found, [str(row) for row in range(len(table))], tuple(notes))


def _with_names(spec: InputSpec, names: Sequence[str], where: str) -> InputSpec:
    """Returns an input's spec, its features found by their places where they have no names."""
    if columns_of(spec):
        return spec
    size = math.prod(spec.shape)
    if len(names) != size:
        raise DataError(
            f"{where}: has {len(names)} columns; the model was trained on {size} inputs."
        )
    return dataclasses.replace(spec, feature_names=tuple(names))


def columns_of(spec: InputSpec) -> tuple[str, ...]:
    """Returns the columns of a table that an input is made of."""
    if spec.text is not None:
        return (spec.text.column,)
    return (spec.column,) if spec.column is not None else tuple(spec.feature_names or ())


def frame_inputs(
    table: pd.DataFrame,
    specs: Mapping[str, InputSpec],
    folder: Path,
    where: str,
    notes: Notes | None = None,
    passed: Collection[str] | None = None,
) -> dict[str, Num[np.ndarray, "rows *shape"]]:
    """Returns named inputs from a table's columns, coded and decoded as in training.

    Where rows that lack an input are masked, `PRESENT` is among them.

    Args:
      table: the columns; its index counts the rows.
      specs: of the inputs.
      folder: where paths begin.
      where: names the table, for messages.
      notes: where is counted what decoding changes, and what was in no training example.
      passed: columns that training knew and took for no input, as the target; all others that are
        none are noted. None notes none.

    Raises:
      DataError: columns are missing, or a cell or a file can't be used.
    """
    wanted = [name for one in specs.values() for name in columns_of(one)]
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        found = [str(name) for name in table.columns]
        hint = nearest(missing[0], found) if len(missing) == 1 else ""
        raise DataError(
            f"{where}: lacks {len(missing)} of the {len(wanted)} columns that the model was "
            f"trained on: {listing(missing)}.{hint} Found: {listing(found)}."
        )
    if notes is not None and passed is not None:
        for name in table.columns:
            if name not in wanted and name not in passed:
                notes.add("left out", NO_INPUT, repr(name), unit="columns")

    def made(spec: InputSpec, table: pd.DataFrame) -> np.ndarray:
        names = columns_of(spec)
        if spec.text is not None:
            return spec.text.encode(new_texts.in_column(table[names[0]], spec.text))
        if spec.column is not None:
            changes = None if notes is None else Changes(notes)
            return _decoded(table[spec.column], spec, folder, where, changes)
        values = number_columns(table, spec, where, notes)
        return values.reshape(len(values), *spec.shape)

    if PRESENT not in specs:
        return {name: made(one, table) for name, one in specs.items()}
    there = presence.there_in(table, {n: columns_of(one) for n, one in contents(specs).items()})
    presence.check(there, {}, table.index, where, Skipped(), skip=False)
    filled: dict[str, np.ndarray] = {PRESENT: presence.as_input(there)[1]}
    for name, rows in there.items():
        one = specs[name]
        filled[name] = np.zeros((len(table), *one.shape), one.dtype)
        if rows.any():
            filled[name][rows] = made(one, table[rows])
    return {name: filled[name] for name in specs}


def _decoded(
    column: pd.Series, spec: InputSpec, folder: Path, where: str, changes: Changes | None
) -> np.ndarray:
    """Returns the images or sounds that a column names."""
    from jdlopt.data import sound

    made = []
    for row, value in enumerate(as_texts(column)):
        if value is None:
            raise DataError(
                f"{where}: column {column.name!r} names no file in row {column.index[row]}."
            )
        path = folder / value
        if spec.sample_rate is not None:
            made.append(sound.decode_sound(path, spec.sample_rate, spec.shape[0], str(path)))
        else:
            size = (spec.shape[0], spec.shape[1])
            made.append(decode_image(path, spec.shape[-1], size, str(path), changes))
    return np.stack(made)


def named_inputs(given: Mapping[str, Any], specs: Mapping[str, InputSpec], where: str) -> Inputs:
    """Returns named arrays, each shaped and typed as in training; others are passed over.

    Of which inputs there are, all are if nothing says so.

    Raises:
      DataError: one is missing or does not fit, or they are not of as many examples.
    """
    if PRESENT in specs and PRESENT not in given and given:
        rows = len(next(iter(given.values())))
        given = {**given, PRESENT: np.ones((rows, len(specs) - 1), bool)}
    missing = [name for name in specs if name not in given]
    if missing:
        raise DataError(
            f"{where}: lacks {listing(missing)} of the inputs that the model was trained on: "
            f"{listing(specs)}. Found: {listing(given) or 'none'}."
        )
    found = {name: fitting(given[name], one, f"{where}, {name!r}") for name, one in specs.items()}
    sizes = {name: len(values) for name, values in found.items()}
    if len(set(sizes.values())) > 1:
        words = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"{where}: inputs must be of as many examples each; found {words}.")
    return Inputs(found, [str(row) for row in range(next(iter(sizes.values())))])


def fitting(given: Any, spec: InputSpec, where: str) -> Num[np.ndarray, "n *shape"]:
    """Returns an array, or texts, as an input of this kind.

    Raises:
      DataError: it is none, or has no example.
    """
    if spec.text is not None and not (isinstance(given, np.ndarray) and given.dtype.kind in "iu"):
        return spec.text.encode(new_texts.in_memory(given, spec.text))
    values = np.asarray(given)
    if not values.size:
        raise DataError(f"{where}: there is no example.")
    if values.ndim and values.shape[1:] != spec.shape:
        values = npz.shaped(values, where)
    if values.shape[1:] != spec.shape:
        raise DataError(
            f"{where}: have shape {values.shape}; expected [n, "
            f"{', '.join(map(str, spec.shape))}], as the model was trained on."
        )
    values = as_trained(values, spec, where)
    check_finite(values, where, allow_missing=spec.missing == "fill")
    return values


def as_trained(
    values: Num[np.ndarray, "examples *shape"], spec: InputSpec, where: str
) -> Num[np.ndarray, "examples *shape"]:
    """Returns inputs in the type that the model was trained on.

    Raises:
      DataError: they can't be that.
    """
    dtype = np.dtype(spec.dtype)
    if dtype == np.uint8 and values.dtype != np.uint8:
        if not ((values >= 0) & (values <= 255) & (values == np.floor(values))).all():
            raise DataError(
                f"{where}: the model was trained on whole numbers from 0 to 255 (uint8)."
            )
    elif dtype != np.uint8 and values.dtype == np.uint8 and len(spec.shape) == 3:
        raise DataError(
            f"{where}: holds uint8, where the model was trained on float32 inputs; convert them "
            "the way that the training data was."
        )
    return without(values, spec.offsets) if dtype == np.float32 else values.astype(dtype)


def _read_npz(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    headers = npz.read_headers(path)
    keys = [key for key in npz.INPUT_KEYS if key in headers] or (
        list(headers) if len(headers) == 1 else []
    )
    if not keys:
        raise DataError(
            f"{path}: expected an array {listing(map(repr, npz.INPUT_KEYS))}, or one array only; "
            f"found {listing(headers) or 'none'}."
        )
    raw = npz.read_array(path, keys[0])
    values = raw if raw.shape[1:] == shape else npz.shaped(raw, f"{path}, {keys[0]!r}")
    if values.ndim == 0 or len(values) == 0:
        raise DataError(f"{path}: {keys[0]!r} is empty.")
    if values.shape[1:] != shape:
        raise DataError(
            f"{path}: {keys[0]!r} holds inputs of shape {values.shape[1:]}; the model was trained "
            f"on {shape}."
        )
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}, {keys[0]!r}: holds {values.dtype}; expected numbers.")
    return values


def _read_images(place: Path, shape: tuple[int, ...], dtype: np.dtype) -> Inputs:
    if len(shape) != 3 or shape[-1] not in (1, 3) or dtype != np.uint8:
        raise DataError(
            f"{place}: the model was trained on {dtype} inputs of shape {shape}, not on images."
        )
    paths, ids, notes = files_of(place, KIND)
    size = (shape[0], shape[1])
    changes = Changes()
    decoded = [decode_image(path, shape[-1], size, str(path), changes) for path in paths]
    return Inputs(np.stack(decoded), ids, (*notes, *changes.notes))


def _read_sounds(place: Path, shape: tuple[int, ...], sample_rate: int) -> Inputs:
    from jdlopt.data import sound

    if place.is_file() and not sound.KIND.holds(place):
        raise DataError(
            f"{place}: the model was trained on sound; expected a folder of sounds, or a file "
            f"ending in {listing((*sound.SUFFIXES, *npz.SUFFIXES))}."
        )
    paths, ids, notes = files_of(place, sound.KIND)
    decoded = [sound.decode_sound(path, sample_rate, shape[0], str(path)) for path in paths]
    cut, lasts = Notes(), f"{shape[0] / sample_rate:g} s"
    for path, name in zip(paths, ids, strict=True):
        header = sound.read_header(path)
        if header.samples * sample_rate > shape[0] * header.rate:
            what = f"sounds are cut to {lasts}, the longest that the model takes"
            cut.add("changed", what, name, unit="examples")
    return Inputs(np.stack(decoded), ids, (*notes, *cut))
