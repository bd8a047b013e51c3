"""PyTorch's files of tensors, read without PyTorch and without running what is in them.

Such a file is a zip archive with a pickle, which may name any function to be called, and the bytes
of the tensors. The reader here knows the few names that tensors need and refuses all others.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Mapping
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


class _Storage(NamedTuple):
    """The bytes of one or several tensors."""

    values: np.ndarray


def _rebuilt(
    storage: _Storage,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *_: Any,
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


def _parameter(tensor: np.ndarray, *_: Any) -> np.ndarray:
    return tensor


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): np.dtype(dtype) for name, dtype in STORAGES.items()},
}
"""The only names that a file may call by, and what they do here."""


class _Reader(pickle.Unpickler):
    """An unpickler that knows tensors and nothing else."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, code: bytes):
        super().__init__(io.BytesIO(code))
        self.archive, self.folder = archive, folder
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns what a name stands for, or refuses it."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks to call {module}.{name}, which no tensor needs; it was not called"
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the bytes that a tensor names."""
        match pid:
            case ("storage", np.dtype() as dtype, str(key), _, int()):
                if key not in self.storages:
                    data = _stored(self.archive, f"{self.folder}data/{key}")
                    if len(data) % dtype.itemsize:
                        raise pickle.UnpicklingError(f"the bytes {key!r} are cut off")
                    self.storages[key] = _Storage(np.frombuffer(data, dtype))
                return self.storages[key]
        raise pickle.UnpicklingError("it refers to something that is no tensor")


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of the archive; PyTorch stores them as they are, so none can be a bomb."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError("it is compressed, which PyTorch's files are not")
    return archive.read(info)


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a PyTorch file by name.

    Args:
      path: a ``.pt``, ``.pth`` or ``.bin`` file as ``torch.save`` writes it, of a state dict, or of
        a dict that holds one under one of `WRAPPERS`.

    Raises:
      ConfigError: it is no such file, is damaged, or asks to run code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(pickles) != 1:
                raise pickle.UnpicklingError("there is no data.pkl in it")
            folder = pickles[0].removesuffix("data.pkl")
            order = [name for name in archive.namelist() if name == f"{folder}byteorder"]
            if order and _stored(archive, order[0]) != b"little":
                raise pickle.UnpicklingError("its numbers are big-endian")
            found = _Reader(archive, folder, _stored(archive, pickles[0])).load()
    except zipfile.BadZipFile as error:
        raise ConfigError(
            f"model.pretrained: '{path}' is no PyTorch file as torch.save has written it since "
            f"version 1.6 ({error}). Load it and save it again, or convert it to safetensors."
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(
            f"model.pretrained: '{path}' can't be read as a file of tensors: {text}."
        ) from error
    return _tensors(found, path)


def _tensors(found: Any, path: Path) -> dict[str, np.ndarray]:
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
