"""NumPy archives: an NPZ file of inputs and targets, with or without splits of its own."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Num

from jdlopt.data.coding import Coding
from jdlopt.data.damage import check_finite
from jdlopt.data.dataset import PLAIN, Dataset, Reading, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.pools import ArrayPool, Arrays, Pool
from jdlopt.data.precision import Offset, notes_of_matrix, offsets_of, without
from jdlopt.data.spec import InputSpec
from jdlopt.data.targets import encode, infer_coding
from jdlopt.data.transcript_coding import TASK as TRANSCRIPTION
from jdlopt.errors import DataError, listing

SUFFIXES = (".npz",)
INPUT_KEYS = ("x", "inputs", "X")
TARGET_NAMES, CLASS_NAMES = "target_names", "class_names"
KEYS = (("x", "y"), ("inputs", "targets"), ("X", "y"))
SPLIT_KEYS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}


def open_npz(path: Path, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens an NPZ file with ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test``, ``y_test``.

    ``inputs`` and ``targets`` may be used for ``x`` and ``y``, and ``validation`` (or ``val``)
    beside ``train`` and ``test``. uint8 inputs stay uint8, and get a channel axis where they are
    ``[examples, height, width]``; others become float32. Targets are one an example, or a row of
    them, ``[examples, k]``: labels, or numbers to predict, which an array ``target_names`` of k
    texts may name; or with ``data.task='segmentation'`` masks ``[examples, height, width]``, whose
    classes an array ``class_names`` may name. A test array is not read before ``read("test")``: its
    size is taken from the header.

    Args:
      path: the file.
      fields: the data section: ``task``, ``label_delimiter``, ``on_bad`` and the split's keys.
      reading: what becomes of NaN among the inputs.

    Raises:
      DataError: the archive can't be read, lacks an array, or holds values that can't be used.
    """
    headers = read_headers(path)
    keys = _split_keys(path, headers)
    for x, y in keys.values():
        if not headers[x][0] or not headers[y][0]:
            raise DataError(f"{path}: {x!r} and {y!r} must be arrays, not scalars.")
        rows, labels = headers[x][0][0], headers[y][0][0]
        if rows != labels:
            raise DataError(
                f"{path}: {x!r} has {rows} rows and {y!r} has {labels}; they must be equal."
            )
    shapes = {split: example_shape(*headers[inputs]) for split, (inputs, _) in keys.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{split} {shape}" for split, shape in shapes.items())
        raise DataError(f"{path}: the splits' inputs differ in shape: {found}.")
    x, y = keys["train"]
    raw = read_array(path, y)
    names = _target_names(path, headers, raw.shape)
    others = {}
    if fields.task == TRANSCRIPTION:  # as long as the longest of all splits
        of_splits = [one for split, (_, one) in keys.items() if split != "train"]
        others = {f"{path}, {one!r}": read_array(path, one) for one in of_splits}
    coding = infer_coding(
        raw, fields.task, f"{path}, {y!r}", names, fields.label_delimiter, fields.text, others
    )
    given = read_array(path, x)
    offsets = offsets_of(shaped(given, f"{path}, {x!r}"))
    train = Arrays(
        as_inputs(given, f"{path}, {x!r}", offsets), encode(raw, coding, f"{path}, {y!r}")
    )
    if reading.missing != "keep" and fields.on_bad == "error":
        check_finite(train.inputs, f"{path}, {x!r}", allow_missing=reading.missing == "fill")
    pools: dict[str, Pool] = {
        split: ArrayPool(headers[x][0][0], partial(_load, path, x, y, coding, offsets))
        for split, (x, y) in keys.items()
    }
    pools["train"] = ArrayPool(len(train.inputs), partial(Arrays, *train))
    return make_dataset(
        fields=fields,
        name=path.stem,
        coding=coding,
        inputs=InputSpec(train.inputs.shape[1:], str(train.inputs.dtype), offsets=offsets),
        pools=pools,
        labels=lambda: train.targets,
        reading=reading,
        notes=notes_of_matrix(shaped(given, x), offsets, repr(x)),
    )


def _target_names(
    path: Path, headers: Mapping[str, object], shape: tuple[int, ...]
) -> tuple[str, ...]:
    """Returns what the archive calls the targets in a row of them, or the classes of masks."""
    if CLASS_NAMES in headers and len(shape) > 2:
        given = read_array(path, CLASS_NAMES)
        if given.dtype.kind != "U" or given.ndim != 1 or len(given) < 2:
            raise DataError(
                f"{path}: {CLASS_NAMES!r} holds {given.dtype} of shape {given.shape}; expected "
                "texts, a name for each class of the masks."
            )
        return tuple(given.tolist())
    if TARGET_NAMES not in headers or len(shape) != 2:
        return ()
    names = read_array(path, TARGET_NAMES)
    if names.dtype.kind != "U" or names.shape != shape[1:]:
        raise DataError(
            f"{path}: {TARGET_NAMES!r} holds {names.dtype} of shape {names.shape}; expected "
            f"{shape[1]} texts, a name for each target of an example."
        )
    return tuple(names.tolist())


def _load(
    path: Path, inputs: str, targets: str, coding: Coding, offsets: Sequence[Offset]
) -> Arrays:
    return Arrays(
        as_inputs(read_array(path, inputs), f"{path}, {inputs!r}", offsets),
        encode(read_array(path, targets), coding, f"{path}, {targets!r}"),
    )


def _split_keys(path: Path, headers: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    for x, y in KEYS:
        found = {}
        for split, suffixes in SPLIT_KEYS.items():
            for suffix in suffixes:
                if f"{x}_{suffix}" in headers and f"{y}_{suffix}" in headers:
                    found[split] = (f"{x}_{suffix}", f"{y}_{suffix}")
        if "train" in found:
            return found
        if x in headers and y in headers:
            return {"train": (x, y)}
    raise DataError(
        f"{path}: expected arrays 'x' and 'y', 'inputs' and 'targets', or 'x_train', 'y_train', "
        f"'x_test' and 'y_test'; found {listing(headers) or 'none'}."
    )


def read_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns the shape and dtype of each array of an NPZ file, without reading its values."""
    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if not member.endswith(".npy"):
                    continue
                with archive.open(member) as file:
                    read = {
                        (1, 0): np.lib.format.read_array_header_1_0,
                        (2, 0): np.lib.format.read_array_header_2_0,
                    }[np.lib.format.read_magic(file)]
                    shape, _, dtype = read(file)
                headers[member.removesuffix(".npy")] = (shape, dtype)
    except Exception as error:  # zipfile, zlib and NumPy let all kinds through on damaged bytes
        raise DataError(
            f"{path}: can't be read as an NPZ file: {error}. Write it again with numpy.savez."
        ) from error
    return headers


def read_array(path: Path, key: str) -> np.ndarray:
    """Returns one array of an NPZ file; arrays of pickled Python objects are refused."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[key]
    except Exception as error:  # zipfile, zlib and NumPy let all kinds through on damaged bytes
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: array {key!r} holds Python objects, which are never loaded: unpickling "
                "them could run any code. Save it as numbers, or as text with a fixed width."
            ) from error
        raise DataError(
            f"{path}: array {key!r} can't be read: {error}. Write the file again."
        ) from error


def example_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Returns one input's shape, given its array's: scalars and grey images get a last axis."""
    if len(shape) == 1 or (len(shape) == 3 and dtype == np.uint8):
        return (*shape[1:], 1)
    return shape[1:]


def shaped(values: np.ndarray, what: str) -> Num[np.ndarray, "examples *shape"]:
    """Returns an array of numbers with an axis of features or channels, in its own type.

    Raises:
      DataError: it holds no numbers.
    """
    if values.dtype.kind not in "biuf":
        raise DataError(f"{what}: holds {values.dtype}; expected numbers.")
    return values.reshape((len(values), *example_shape(values.shape, values.dtype)))


def as_inputs(
    values: np.ndarray, what: str, offsets: Sequence[Offset] = ()
) -> Num[np.ndarray, "examples *shape"]:
    """Returns an array as inputs: uint8 as it is, all other numbers as float32.

    Args:
      values: any numbers.
      what: names them, for messages.
      offsets: what is taken off each feature before the cast.
    """
    values = shaped(values, what)
    return values if values.dtype == np.uint8 else without(values, offsets)
