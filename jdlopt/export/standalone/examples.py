"""What people give to predict for, as the arrays that a bundle's model takes: coded as in training.

This file is part of every bundle's ``predict.py``: it imports the standard library and NumPy alone.
What is read of a column was decided in training: nothing is guessed of its values here.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdlopt.export.standalone.opening import DTYPES, Bundle, Column, Input, InputError

MOST_PROBLEMS = 10
LONGEST_NUMBER = 200
"""Signs of a number as people write it; a pattern would take long on a longer text."""


class Read(NamedTuple):
    """Inputs of some examples, and what of them was in no training row, in words."""

    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


def has_rows(bundle: Bundle) -> bool:
    """Returns whether all inputs are made of a table's columns: numbers, categories, texts."""
    return all(one.columns is not None or one.name in bundle.texts for one in bundle.inputs)


def read_rows(bundle: Bundle, rows: Sequence[Mapping[str, Any]]) -> Read:
    """Returns rows, by the names of the columns, coded as in training.

    Args:
      bundle: whose model is asked.
      rows: values as JSON has them, or as texts of a CSV; None is a missing one. Columns that the
        model does not know are passed over.

    Raises:
      InputError: columns are missing, or values can't be used; the first ten of them are named.
    """
    if not has_rows(bundle):
        names = ", ".join(map(shape_words, bundle.inputs))
        raise InputError(f"the model takes arrays, no rows: {names}.")
    if not rows:
        raise InputError("rows: there is none.")
    wanted = [column.name for one in bundle.inputs for column in one.columns or ()]
    wanted += [column for column, _ in bundle.texts.values()]
    for place, row in enumerate(rows, start=1):
        missing = [name for name in wanted if name not in row]
        if missing:
            raise InputError(
                f"row {place}: lacks {len(missing)} of {len(wanted)} columns: "
                f"{_listed(missing)}.{_nearest(missing[0], row)} Found: {_listed(row) or 'none'}."
            )
    problems: list[str] = []
    notes: list[str] = []
    arrays = {}
    for one in bundle.inputs:
        if one.name in bundle.texts:
            name, encode = bundle.texts[one.name]
            arrays[one.name] = encode(_texts([row[name] for row in rows], name, problems))
            continue
        values = np.empty((len(rows), len(one.columns or ())), np.float32)
        for place, column in enumerate(one.columns or ()):
            cells = [row[column.name] for row in rows]
            values[:, place] = _coded(cells, one, column, problems, notes)
        arrays[one.name] = values.reshape(len(rows), *one.shape)
    if problems:
        rest = len(problems) - MOST_PROBLEMS
        more = [f"and {rest} more"] if rest > 0 else []
        raise InputError("; ".join([*problems[:MOST_PROBLEMS], *more]) + ".")
    return Read(arrays, tuple(notes))


def _texts(cells: Sequence[Any], name: str, problems: list[str]) -> list[str]:
    for row, cell in enumerate(cells):
        if not isinstance(cell, str | None):
            problems.append(f"row {row + 1}, column {name!r}: found {_kind(cell)}, expected a text")
    return [cell if isinstance(cell, str) else "" for cell in cells]


def _coded(
    cells: Sequence[Any], one: Input, column: Column, problems: list[str], notes: list[str]
) -> np.ndarray:
    """Returns a column's numbers or codes; what can't be used is added to the problems."""
    made, unseen = np.full(len(cells), np.nan, np.float32), []
    words = one.missing_words - column.kept
    for row, cell in enumerate(cells):
        value: Any = cell
        if isinstance(cell, str):
            value = _stripped(cell)
            value = None if not value or value in words else value
        elif not isinstance(cell, bool | int | float | None):
            problems.append(f"row {row + 1}, column {column.name!r}: found {_kind(cell)}, expected "
                            f"{_expected(column)}")  # fmt: skip
            continue
        if value is None or value != value:
            if not one.fills_missing:
                problems.append(f"row {row + 1}, column {column.name!r}: the value is missing, "
                                f"expected {_expected(column)}")  # fmt: skip
        elif column.codes is not None:
            text = str(int(value) if isinstance(value, float) and value.is_integer() else value)
            made[row] = column.codes.get(text, 0) if one.buckets is None else _bucket(text, one)
            if one.buckets is None and text not in column.codes:
                unseen.append(text)
        else:
            number = _number(value, column)
            if number is None or not abs(number) <= np.finfo(np.float32).max:
                problems.append(f"row {row + 1}, column {column.name!r}: found {value!r:.60}, "
                                f"expected {_expected(column)}")  # fmt: skip
            else:
                made[row] = number
    if unseen:
        notes.append(f"column {column.name!r}: {len(unseen)} values, such as {unseen[0]!r:.60}, "
                     "are in no training row")  # fmt: skip
    return made


def _bucket(text: str, one: Input) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "big") % (one.buckets or 1)


def _expected(column: Column) -> str:
    if column.codes is not None:
        return f"a text, such as {next(iter(column.codes), '')!r:.60}"
    unit = f", in {column.unit!r}" if column.unit else ""
    kinds = {",": "a number, in texts with a decimal comma", ":": "seconds, or a time as '12:30'"}
    return kinds.get(column.decimal or "", "a finite number") + unit


PLAIN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_SPACES = " \u00a0\u2009\u202f"
_AFFIX = re.compile(
    r"(?P<sign>[-+−]?)(?P<prefix>[^\d+\-−.,()]*)(?P<core>\(?[-+−]?[\d.,].*?)(?P<suffix>[^\d.,()]*)",
    re.DOTALL,
)
_CLOCK = re.compile(r"(\d{1,3}):(\d{2})(?::(\d{2}(?:\.\d+)?))?")


def _number(value: Any, column: Column) -> float | None:
    """Returns a value of a column of numbers, less its offset; None if it is none."""
    if isinstance(value, str):
        value = _plain(value) if column.decimal is None else _written(value, column)
    if value is None or not column.offset:
        return _as_float(value)
    if isinstance(value, int) and float(column.offset).is_integer():
        return _as_float(value - int(column.offset))  # exact, where a float64 would round both
    as_float = _as_float(value)
    return None if as_float is None else as_float - float(column.offset)


def _plain(text: str) -> float | None:
    if PLAIN.fullmatch(text):
        return int(text) if re.fullmatch(r"[-+]?\d{1,40}", text) else float(text)
    return {"true": 1, "false": 0}.get(text.lower())


def _as_float(value: float | None) -> float | None:
    try:
        return None if value is None else float(value)
    except OverflowError:
        return math.inf


def _written(text: str, column: Column) -> float | None:
    """Returns a text as a number in its column's notation: decimal comma, unit, clock time."""
    if column.decimal == ":":
        clock = _CLOCK.fullmatch(text)
        if clock is None:
            return None
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3] or 0)
    found = _AFFIX.fullmatch(text) if len(text) <= LONGEST_NUMBER else None
    if found is None:
        return None
    before, after = found["prefix"].strip(), found["suffix"].strip()
    if (before and after) or (before or after) not in ("", column.unit):
        return None
    core = found["core"].strip().replace("−", "-")
    negative = bool(found["sign"]) and found["sign"] in "-−"
    if core.startswith("(") != core.endswith(")"):
        return None
    if core.startswith("("):
        core, negative = core[1:-1].strip(), not negative
    point, thousands = (",", ".") if column.decimal == "," else (".", ",")
    between = rf"[{_SPACES}'’{re.escape(thousands)}]"
    whole = rf"(?:[1-9]\d{{0,2}}(?P<by>{between})\d{{3}}(?:(?P=by)\d{{3}})*|\d+)"
    sign = re.escape(point)
    if not re.fullmatch(rf"[-+]?(?:{whole}(?:{sign}\d*)?|{sign}\d+)(?:[eE][-+]?\d+)?", core):
        return None
    value = float(re.sub(between, "", core).replace(",", "."))
    return -value if negative else value


def _stripped(text: str) -> str:
    """Returns a text without spaces around it, those among them that have no width."""
    first, last = 0, len(text)
    while first < last and _is_space(text[first]):
        first += 1
    while first < last and _is_space(text[last - 1]):
        last -= 1
    return text[first:last]


def _is_space(sign: str) -> bool:
    return sign.isspace() or (not sign.isascii() and unicodedata.category(sign) == "Cf")


def read_arrays(bundle: Bundle, given: Mapping[str, np.ndarray]) -> Read:
    """Returns arrays by input's name, of its shape and type, as the model takes them.

    Raises:
      InputError: one is missing, or has another shape, type or number of examples.
    """
    names = [one.name for one in bundle.inputs]
    unknown = [name for name in given if name not in names]
    lacking = [name for name in names if name not in given]
    if unknown or lacking:
        what = (
            f"there is no input {unknown[0]!r}" if unknown else f"input {lacking[0]!r} is missing"
        )
        hint = _nearest(unknown[0], names) if unknown else ""
        words = "; ".join(shape_words(one) for one in bundle.inputs)
        raise InputError(f"{what}.{hint} Expected: {words}.")
    arrays = {one.name: _fitting(given[one.name], one) for one in bundle.inputs}
    sizes = {name: len(values) for name, values in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"inputs are of as many examples each; found {sizes}.")
    return Read(arrays)


def _fitting(given: np.ndarray, one: Input) -> np.ndarray:
    where = f"input {one.name!r}"
    if given.dtype.kind not in "biuf":
        raise InputError(f"{where}: holds {given.dtype}, expected {one.dtype}.")
    if given.ndim == 1 + len(one.shape) - 1 and one.shape[-1:] == (1,):
        given = given[..., None]  # grey images, or one number an example
    if given.ndim == 0 or given.shape[1:] != one.shape or not len(given):
        raise InputError(f"{where}: has shape {list(given.shape)}; expected {shape_words(one)}.")
    values = given.astype(np.float64) if given.dtype.kind == "f" else given
    bad = ~np.isfinite(values)
    if bad.any() and not (one.fills_missing and np.isnan(values[bad]).all()):
        place = np.argwhere(bad)[0].tolist()
        raise InputError(f"{where}: the value at {place} is missing or infinite, expected a "
                         f"finite {one.dtype}.")  # fmt: skip
    if one.dtype == "float32":
        made = given
        if any(one.offsets):
            made = given - np.array(one.offsets, np.float64).reshape(one.shape)
        with np.errstate(over="ignore"):
            made = made.astype(np.float32)
        if np.isinf(made).any():
            raise InputError(f"{where}: a value is too large for float32.")
        return made
    limits = np.iinfo(one.dtype)
    if not ((values >= limits.min) & (values <= limits.max) & (values == np.floor(values))).all():
        raise InputError(f"{where}: expected whole numbers from {limits.min} to {limits.max}.")
    return given.astype(one.dtype)


def read_tensors(bundle: Bundle, request: object) -> Read:
    """Returns the inputs of a request of the Open Inference Protocol (v2), as JSON has it.

    Raises:
      InputError: it is none, or names, shapes, types or values are not those of the model.
    """
    said = request.get("inputs") if isinstance(request, Mapping) else None
    if not isinstance(said, list) or not all(isinstance(one, Mapping) for one in said):
        raise InputError(
            'expected {"inputs": [{"name", "shape", "datatype", "data"}, …]}: '
            + "; ".join(shape_words(one) for one in bundle.inputs) + "."
        )  # fmt: skip
    known, arrays = {one.name: one for one in bundle.inputs}, {}
    for tensor in said:
        name = tensor.get("name")
        if not isinstance(name, str) or name in arrays:
            raise InputError(f"inputs: found the name {name!r:.60}, expected each of "
                             f"{_listed(known)} once.")  # fmt: skip
        if name not in known:
            expected = "; ".join(map(shape_words, bundle.inputs))
            raise InputError(
                f"there is no input {name!r:.80}.{_nearest(name, known)} Expected: {expected}."
            )
        arrays[name] = _tensor(tensor, known[name])
    return read_arrays(bundle, arrays)


def _tensor(tensor: Mapping[str, Any], one: Input) -> np.ndarray:
    where, datatype = f"input {one.name!r}", tensor.get("datatype")
    if datatype != DTYPES[one.dtype][0]:
        raise InputError(
            f"{where}: has datatype {datatype!r:.60}, expected {DTYPES[one.dtype][0]}."
        )
    shape, data = tensor.get("shape"), tensor.get("data")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise InputError(f"{where}: has shape {shape!r:.60}, expected {shape_words(one)}.")
    if tuple(shape[1:]) != one.shape or not shape[0]:
        raise InputError(f"{where}: has shape {shape}, expected {shape_words(one)}.")
    if not isinstance(data, list):
        raise InputError(f"{where}: data is {_kind(data)}, expected a list of numbers.")
    try:
        values = np.array(data)
        if values.dtype == object:  # null stands for a missing value
            values = np.array(data, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{where}: data is no list of numbers: {error}.") from error
    if values.dtype.kind not in "iuf":
        raise InputError(f"{where}: data holds {_kind(values.ravel()[0].item())}, expected "
                         f"numbers ({DTYPES[one.dtype][0]}).")  # fmt: skip
    if values.size != math.prod(shape) or (values.ndim > 1 and list(values.shape) != shape):
        raise InputError(f"{where}: data holds {values.size:,} values of shape "
                         f"{list(values.shape)}, where shape says {shape}.")  # fmt: skip
    return values.reshape(shape)


def shape_words(one: Input) -> str:
    """Returns an input's name, type and shape as messages tell them."""
    return f"{one.name!r} {DTYPES[one.dtype][0]} [n, {', '.join(map(str, one.shape))}]"


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return kinds.get(type(value), "null" if value is None else "a number")


def _listed(names: Any) -> str:
    some = [repr(str(name))[:80] for name in list(names)[:20]]
    return ", ".join(some) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _nearest(name: str, known: Any) -> str:
    import difflib

    close = difflib.get_close_matches(str(name), list(map(str, known))[:1000], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
