"""PyTorch's files of tensors, read without PyTorch and without running what is in them.

Such a file is a zip archive with a pickle, which may name any function to be called, and the bytes
of the tensors; one of before PyTorch 1.6 is several pickles one after the other, and then the
bytes. The reader here knows the few names that tensors need and refuses all others.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jdlopt.errors import ConfigError

STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32, "DoubleStorage": np.float64, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}  # fmt: skip
"""PyTorch's names of what an array holds."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training scripts put a model's tensors among other things."""
MOST_AXES = 8
MAGIC = 0x1950A86A20F9469CFC6C
"""How the files of before version 1.6 begin."""


class _Storage(NamedTuple):
    """The bytes of one or several tensors."""

    values: np.ndarray


def _rebuilt(
    storage: _Storage,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *_: object,
) -> np.ndarray:
    """A tensor as a view of its storage; one that would reach beyond it is refused."""
    numbers = (offset, *size, *stride)
    whole = all(type(number) is int and number >= 0 for number in numbers)
    if not isinstance(storage, _Storage) or not whole or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor's description is damaged")
    if len(size) > MOST_AXES:
        raise pickle.UnpicklingError(f"a tensor has {len(size)} axes")
    if 0 in size:
        return np.zeros(size, storage.values.dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if last >= len(storage.values):
        raise pickle.UnpicklingError("a tensor reaches beyond its bytes")
    item = storage.values.itemsize
    strides = [step * item for step in stride]
    return np.lib.stride_tricks.as_strided(storage.values[offset:], size, strides, writeable=False)


def _parameter(tensor: np.ndarray, *_: object) -> np.ndarray:
    return tensor


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): np.dtype(dtype) for name, dtype in STORAGES.items()},
}
"""The only names that a file may call by, and what they do here."""


class _Reader(pickle.Unpickler):
    """An unpickler that knows tensors and nothing else.

    Args:
      file: the pickle.
      bytes_of: ``(key, type, numbers) → array``, the bytes that a tensor names.
    """

    def __init__(
        self, file: io.BufferedIOBase, bytes_of: Callable[[str, np.dtype, int], np.ndarray]
    ):
        super().__init__(file)
        self.bytes_of = bytes_of
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        """Returns what a name stands for, or refuses it."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks to call {module}.{name}, which no tensor needs; it was not called"
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid: object) -> _Storage:
        """Returns the bytes that a tensor names."""
        match pid:
            case ("storage", np.dtype() as dtype, str(key), _, int(numbers), *_):
                if key not in self.storages:
                    self.storages[key] = _Storage(self.bytes_of(key, dtype, numbers))
                return self.storages[key]
        raise pickle.UnpicklingError("it refers to something that is no tensor")


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of the archive; PyTorch stores them as they are, so none can be a bomb."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError("it is compressed, which PyTorch's files are not")
    return archive.read(info)


def _zipped(file: io.BufferedIOBase) -> object:
    """The content of a file as PyTorch has written it since version 1.6."""
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("there is no data.pkl in it")
        folder = pickles[0].removesuffix("data.pkl")
        order = [name for name in archive.namelist() if name == f"{folder}byteorder"]
        if order and _stored(archive, order[0]) != b"little":
            raise pickle.UnpicklingError("its numbers are big-endian")

        def bytes_of(key: str, dtype: np.dtype, numbers: int) -> np.ndarray:
            data = _stored(archive, f"{folder}data/{key}")
            if len(data) % dtype.itemsize:
                raise pickle.UnpicklingError(f"the bytes {key!r} are cut off")
            return np.frombuffer(data, dtype)

        return _Reader(io.BytesIO(_stored(archive, pickles[0])), bytes_of).load()


def _one_after_the_other(file: io.BufferedIOBase) -> object:
    """The content of an older file: four pickles, the names of the storages, and their bytes."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if _Reader(file, _nothing).load() != MAGIC:
        raise pickle.UnpicklingError("it does not begin as PyTorch's files do")
    _Reader(file, _nothing).load()  # the version of the format
    if _Reader(file, _nothing).load().get("little_endian") is not True:
        raise pickle.UnpicklingError("its numbers are big-endian")
    arrays: dict[str, np.ndarray] = {}

    def bytes_of(key: str, dtype: np.dtype, numbers: int) -> np.ndarray:
        if not 0 <= numbers * dtype.itemsize <= size:
            raise pickle.UnpicklingError(f"the bytes {key!r} would be more than the file has")
        arrays[key] = np.empty(numbers, dtype)  # filled below: the bytes come last
        return arrays[key]

    found = _Reader(file, bytes_of).load()
    for key in _Reader(file, _nothing).load():
        array = arrays[key]
        count = int.from_bytes(file.read(8), "little")
        data = file.read(array.nbytes)
        if count != len(array) or len(data) != array.nbytes:
            raise pickle.UnpicklingError("it was cut off")
        array[:] = np.frombuffer(data, array.dtype)
        del arrays[key]
    if arrays:
        raise pickle.UnpicklingError("it was cut off")
    return found


def _nothing(key: str, dtype: np.dtype, numbers: int) -> np.ndarray:
    raise pickle.UnpicklingError("a tensor stands where none can be")


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a PyTorch file by name.

    Args:
      path: a ``.pt``, ``.pth`` or ``.bin`` file as ``torch.save`` writes it, of a state dict, or of
        a dict that holds one under one of `WRAPPERS`.

    Raises:
      ConfigError: it is no such file, is damaged, or asks to run code.
    """
    try:
        with path.open("rb") as file:
            found = _zipped(file) if zipfile.is_zipfile(file) else _one_after_the_other(file)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(
            f"model.pretrained: '{path}' can't be read as a PyTorch file of tensors: {text}."
        ) from error
    return _tensors(found, path)


def _tensors(found: object, path: Path) -> dict[str, np.ndarray]:
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    if not isinstance(found, Mapping) or not found:
        raise ConfigError(
            f"model.pretrained: '{path}' holds a {type(found).__name__}, not tensors by name (a "
            "state dict)."
        )
    strange = [name for name, one in found.items() if not isinstance(one, np.ndarray)]
    if strange:
        raise ConfigError(
            f"model.pretrained: '{path}': {str(strange[0])!r} is a "
            f"{type(found[strange[0]]).__name__}, not a tensor: it is no state dict."
        )
    return {str(name): one for name, one in found.items()}
