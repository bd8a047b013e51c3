"""Opening a bundle: nothing of it is used before the hash of each of its files was checked.

This file is part of every bundle's ``predict.py``: it imports the standard library, NumPy and
onnxruntime alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MANIFEST, DIGEST = "manifest.json", "manifest.sha256"
REQUEST, ANSWER = "example_request.json", "example_answer.json"
FORMAT = 1
LARGEST_MANIFEST, LARGEST_FILE = 1 << 28, 1 << 31
BATCH = 256
"""Examples that go through the model together."""
DTYPES = {"float32": ("FP32", "float"), "uint8": ("UINT8", "uint8"), "int32": ("INT32", "int32")}
"""Types of inputs, as the Open Inference Protocol and as onnxruntime call them."""
TASKS = ("classification", "multilabel", "regression")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class BundleError(Exception):
    """The bundle can't be used: changed, damaged, or not made for this program."""


class InputError(Exception):
    """What is given to predict for can't be used."""


class Column(NamedTuple):
    """A column of a table: of numbers, or of categories by their codes.

    Attributes:
      codes: category → its code; None for numbers.
      kept: words for missing values that are categories here.
      decimal: the decimal sign of numbers that are not written as Python has them; ``:`` of times.
      unit: what may stand before or after each number.
      offset: what is taken off each, before the cast to float32.
    """

    name: str
    codes: Mapping[str, int] | None = None
    kept: frozenset[str] = frozenset()
    decimal: str | None = None
    unit: str = ""
    offset: float = 0


class Input(NamedTuple):
    """One input of the model; ``columns`` of a table make it, else it is an array."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    columns: tuple[Column, ...] | None
    fills_missing: bool
    missing_words: frozenset[str]
    buckets: int | None
    offsets: tuple[float, ...]


class Outputs(NamedTuple):
    """What the model's outputs mean.

    Attributes:
      task: of `TASKS`.
      classes: of a classifier, or the labels.
      target_names: of several numbers.
      positive: the number of the positive class of two.
      threshold: of the positive class, of each label, or of all labels; None for the usual.
    """

    task: str
    classes: tuple[str, ...]
    target_names: tuple[str, ...]
    positive: int
    threshold: float | tuple[float, ...] | None


class Bundle(NamedTuple):
    """A model that is ready to predict, and what its manifest says of it.

    Attributes:
      run: arrays by input's name → arrays by output's name; any number of examples.
      texts: inputs that are made of a column of texts: the column, and what encodes its texts. None
        are known without jdlopt, which has the tokenizers.
    """

    name: str
    folder: Path
    manifest: dict[str, Any]
    inputs: tuple[Input, ...]
    outputs: Outputs
    run: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
    texts: Mapping[str, tuple[str, Callable[[list[str]], np.ndarray]]] = {}


def open_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Returns a bundle whose files are those that its manifest lists, byte by byte.

    Raises:
      BundleError: a file is missing, changed, a link or too large, or the model reads other files.
    """
    place = Path(folder)
    manifest, model = read_files(place)
    try:
        inputs = tuple(_input_of(one) for one in manifest["inputs"])
        outputs = _outputs_of(manifest["outputs"])
        name, _ = str(manifest["name"]), float(manifest["tolerance"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"{place / MANIFEST}: is damaged ({type(error).__name__}: {error})."
        ) from error
    return Bundle(name, place, manifest, inputs, outputs, _session(model, manifest, inputs, place))


def read_files(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Returns a bundle's manifest and its model file, after checking the hash of every file.

    Raises:
      BundleError: as in `open_bundle`.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder; expected a bundle's.")
    if not (folder / MANIFEST).exists():
        raise BundleError(f"{folder}: is no bundle: there is no {MANIFEST}.")
    raw = read_plain(folder, MANIFEST, LARGEST_MANIFEST)
    digest = hashlib.sha256(raw).hexdigest()
    if read_plain(folder, DIGEST, 1024) != f"{digest}  {MANIFEST}\n".encode():
        raise BundleError(_changed(folder, MANIFEST, f"it does not fit {DIGEST}"))
    try:
        manifest = json.loads(raw)
        found, listed = manifest["format"], dict(manifest["files"])
        model_name = manifest["model"]["file"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{folder / MANIFEST}: is no manifest of a bundle: {error}.") from error
    if found != FORMAT:
        raise BundleError(f"{folder}: has format {found!r}; this program reads format {FORMAT}.")
    if model_name not in listed:
        raise BundleError(f"{folder / MANIFEST}: lists no model file {model_name!r:.80}.")
    model = b""
    for name, said in listed.items():
        content = read_plain(folder, name, LARGEST_FILE)
        if not isinstance(said, Mapping) or hashlib.sha256(content).hexdigest() != said["sha256"]:
            raise BundleError(_changed(folder, name, f"its SHA-256 is not that of {MANIFEST}"))
        model = content if name == model_name else model
    return manifest, model


def _changed(folder: Path, name: str, why: str) -> str:
    return (
        f"{folder / name}: has changed since the bundle was made: {why}. Nothing was loaded. "
        "Copy the bundle again, or export the run again."
    )


def read_plain(folder: Path, name: str, most: int) -> bytes:
    """Returns the content of a plain file inside a folder; links are not followed."""
    path, parts = folder, str(name).split("/")
    if len(parts) > 8 or not all(map(SAFE_NAME.fullmatch, parts)):
        raise BundleError(f"{folder}: {name!r:.80} is no name of a file inside the bundle.")
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise BundleError(f"{path}: is a link; a bundle's files are its own.")
    try:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        number = os.open(path, flags | getattr(os, "O_BINARY", 0))
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise BundleError(f"{path}: is no plain file.")
            content = file.read(most + 1)
    except OSError as error:
        raise BundleError(f"{path}: can't be read: {error.strerror or error}.") from error
    if len(content) > most:
        raise BundleError(f"{path}: is larger than {most:,} bytes.")
    return content


def _input_of(said: Mapping[str, Any]) -> Input:
    shape, dtype = tuple(int(size) for size in said["shape"]), str(said["dtype"])
    offsets, columns = tuple(said.get("offsets", ())), said.get("columns")
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in offsets):
        raise TypeError(f"offsets {offsets!r:.60}")
    if offsets and len(offsets) != math.prod(shape):
        raise ValueError(f"{len(offsets)} offsets for an input of shape {shape}")
    made = None
    if columns is not None:
        made = tuple(_column_of(*one) for one in zip(columns, offsets or [0] * len(columns)))
        if len(made) != math.prod(shape):
            raise ValueError(f"{len(made)} columns make no input of shape {shape}")
    buckets, words = said.get("hash_buckets"), frozenset(map(str, said.get("missing_words", ())))
    if dtype not in DTYPES or (buckets is not None and not int(buckets) > 0):
        raise ValueError(f"an input of type {dtype!r} in {buckets!r} buckets")
    buckets = None if buckets is None else int(buckets)
    fills = said["missing"] == "fill"
    return Input(str(said["name"]), shape, dtype, made, fills, words, buckets, offsets)


def _column_of(said: Mapping[str, Any], offset: float) -> Column:
    name, categories, decimal = str(said["name"]), said.get("categories"), said.get("decimal")
    if categories is None:
        decimal = None if decimal is None else str(decimal)
        return Column(name, decimal=decimal, unit=str(said.get("unit") or ""), offset=offset)
    codes = {str(text): code for code, text in enumerate(categories, start=1)}
    return Column(name, codes, frozenset(map(str, said.get("words_that_are_categories", ()))))


def _outputs_of(said: Mapping[str, Any]) -> Outputs:
    classes, names = tuple(map(str, said["classes"])), tuple(map(str, said["target_names"]))
    threshold, positive, task = said["threshold"], said["positive"], str(said["task"])
    if task not in TASKS or bool(classes) == (task == "regression"):
        raise ValueError(f"task {task!r} of {len(classes)} classes")
    if isinstance(threshold, list):
        threshold = tuple(map(float, threshold))
        if len(threshold) != len(classes) or task != "multilabel":
            raise ValueError(f"{len(threshold)} thresholds for {len(classes)} classes")
    elif threshold is not None:
        threshold = float(threshold)
    place = 1 if positive is None else classes.index(positive)
    if task == "classification" and threshold is not None and len(classes) != 2:
        raise ValueError(f"a threshold for {len(classes)} classes")
    needed = "outputs" if task == "regression" else "probabilities"
    if needed not in [one["name"] for one in said["tensors"] if type(one["shape"]) is list]:
        raise ValueError(f"no output {needed!r}")
    return Outputs(task, classes, names, place, threshold)


def _session(
    model: bytes, manifest: Mapping[str, Any], inputs: Sequence[Input], folder: Path
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Returns what runs an ONNX model, after checking that it is alone and takes these inputs."""
    place, tensors = folder / str(manifest["model"]["file"]), manifest["outputs"]["tensors"]
    try:
        alone = not has_external_data(model)
    except (ValueError, IndexError, RecursionError) as error:
        raise BundleError(f"{place}: is no ONNX model: {error}.") from error
    if not alone:
        raise BundleError(f"{place}: keeps weights in other files, which are never read.")
    try:
        import onnxruntime
    except ImportError as error:
        raise BundleError(
            "onnxruntime is not installed here: `pip install onnxruntime`."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # threads that wait for work in a loop would take the processors from what feeds the model
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has exceptions of its own for every kind of damage
        raise BundleError(f"{place}: onnxruntime can't load it: {error}") from error
    there = {one.name: (one.type, one.shape[1:]) for one in session.get_inputs()}
    named = {one.name: (f"tensor({DTYPES[one.dtype][1]})", list(one.shape)) for one in inputs}
    if there != named:
        raise BundleError(f"{place}: takes {there}, where {MANIFEST} says {named}.")
    outputs = [str(one["name"]) for one in tensors]
    missing = set(outputs) - {one.name for one in session.get_outputs()}
    if missing or not outputs:
        raise BundleError(f"{place}: has no output {sorted(missing)}, which {MANIFEST} lists.")

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = []
        for first in range(0, len(next(iter(arrays.values()))), BATCH):
            part = {name: values[first : first + BATCH] for name, values in arrays.items()}
            found.append(session.run(outputs, part))
        made = {name: np.concatenate(parts) for name, parts in zip(outputs, zip(*found))}
        for one in tensors:
            if list(made[one["name"]].shape[1:]) != one["shape"]:
                raise BundleError(
                    f"{place}: gives {one['name']} of shape {made[one['name']].shape}, where "
                    f"{MANIFEST} says [n, {one['shape']}]."
                )
        return made

    return run


# field numbers of onnx.proto3: message → field → the message that it holds
_ONNX = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def has_external_data(model: bytes) -> bool:
    """Returns whether a tensor of an ONNX model lies in another file, which a path in it names.

    Raises:
      ValueError, IndexError: it is no such file.
    """
    pending = [(memoryview(model), "model")]
    while pending:
        content, kind = pending.pop()
        for field, value in _fields(content):
            if kind == "tensor":
                if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0):
                    return True
            elif field in _ONNX[kind] and isinstance(value, memoryview):
                pending.append((value, _ONNX[kind][field]))
    return False


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yields the fields of a message of protocol buffers: number, and bytes or a whole number."""
    at, end = 0, len(content)

    def whole() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = content[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number has more than 64 bits")

    while at < end:
        key = whole()
        field, wire = key >> 3, key & 7
        size = whole() if wire in (0, 2) else {1: 8, 5: 4}.get(wire, -1)
        if wire == 0:
            yield field, size
            continue
        if size < 0 or at + size > end:
            raise ValueError(f"field {field} is cut off or of an unknown kind")
        yield field, content[at : at + size]
        at += size
