"""The records of prepared TFDS datasets: ArrayRecord files, read without TensorFlow.

TFDS's own builder of a dataset makes every feature, and its ``Audio`` imports TensorFlow for that;
so features and files are taken from what it wrote beside the records.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jdlopt.data.cache import INFO
from jdlopt.data.coding import Coding
from jdlopt.data.damage import Unreadable
from jdlopt.data.image_decoding import Changes, decode_image
from jdlopt.data.layout import Layout, Sound
from jdlopt.data.pools import Arrays
from jdlopt.data.targets import encode
from jdlopt.data.waveforms import as_waveform
from jdlopt.errors import DataError

CHUNK = 1024
DAMAGED = "If the files are damaged, delete this folder and prepare the dataset again."
FEATURES = "features.json"
AUDIO = "tensorflow_datasets.core.features.audio_feature.Audio"
OWN_FEATURES = "tensorflow_datasets.core.features."
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
"""Where a description of features names the class of one."""
TENSOR = "tensorflow_datasets.core.features.tensor_feature.Tensor"


def read_info(folder: Path) -> dict[str, Any]:
    """Returns a prepared dataset's name, version, file format and split sizes, without TFDS."""
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        splits = {split["name"]: split for split in info.get("splits", [])}
        shards = {
            name: [int(length) for length in split.get("shardLengths", [])]
            for name, split in splits.items()
        }
        items = info.get("supervisedKeys", {}).get("tuple", {}).get("items", [])
        keys = [item.get("featureKey") for item in items]
        return {
            "name": info["name"],
            "version": info.get("version", folder.name),
            "file_format": info.get("fileFormat", "tfrecord"),
            "sizes": {name: sum(lengths) for name, lengths in shards.items()},
            "shards": {name: len(lengths) for name, lengths in shards.items()},
            "templates": {name: split.get("filepathTemplate") for name, split in splits.items()},
            "supervised": tuple(keys) if len(keys) == 2 else (None, None),
            "description": " ".join(info.get("description", "").split()),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / INFO}: is damaged: {error!r}.") from error


def read_features(folder: Path) -> tuple[Any, Mapping[str, Sound]]:
    """Returns a prepared dataset's features, and which of them are sound, here plain tensors.

    Raises:
      DataError: they can't be read, or are no dict of features.
    """
    path = folder / FEATURES
    return _features_of(folder, path.stat().st_mtime_ns if path.exists() else None)


@functools.lru_cache(maxsize=8)
def _features_of(folder: Path, written: int | None) -> tuple[object, Mapping[str, Sound]]:
    import tensorflow_datasets as tfds

    try:
        content = json.loads((folder / FEATURES).read_text(encoding="utf-8"))
        _check_classes(content, folder)
        stored = content.get("featuresDict", {}).get("features", {})
        sounds = {
            name: _as_tensor(feature)
            for name, feature in stored.items()
            if feature.get("pythonClassName") == AUDIO
        }
        features = tfds.features.FeatureConnector.from_json(content)
        features.load_metadata(str(folder), feature_name=None)
    except DataError:
        raise
    except Exception as error:  # TFDS lets through whatever its parsers raise
        raise DataError(
            f"{folder}: can't be opened as a TFDS dataset: {type(error).__name__}: {error}. "
            "Delete the folder and prepare the dataset again."
        ) from error
    if not isinstance(features, tfds.features.FeaturesDict):
        raise DataError(f"{folder}: its records are no dict of features, which jdlopt can't read.")
    return features, sounds


def _check_classes(value: object, folder: Path) -> None:
    """Checks that a description of features names TFDS's own classes alone: TFDS imports them.

    A description may hold another one as text.

    Raises:
      DataError: it names another class.
    """
    import tensorflow_datasets as tfds

    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, list):
        for item in value:
            _check_classes(item, folder)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        _check_classes(item, folder)
        if key in CLASS_KEYS and isinstance(item, str):
            module, _, name = item.rpartition(".")
            if not module.startswith(OWN_FEATURES) or not hasattr(tfds.features, name):
                raise DataError(
                    f"{folder / FEATURES}: names the class {item!r:.100}, which is none of TFDS's "
                    "own features. To read it would run its code, which opening data never does."
                )


def _as_tensor(feature: dict[str, Any]) -> Sound:
    """Turns the description of a sound feature into that of the tensor that it is stored as."""
    audio = feature.pop("audio", {})
    encoded = bool(audio.get("lazyDecode", False))
    feature["pythonClassName"] = TENSOR
    feature["tensor"] = {
        "shape": {} if encoded else audio.get("shape", {}),
        "dtype": "string" if encoded else audio.get("dtype", "int64"),
        "encoding": audio.get("encoding", "none").lower(),
    }
    return Sound(int(audio.get("sampleRate", 0)) or None, encoded)


@dataclass
class TfdsPool:
    """One split of a prepared TFDS dataset; a record is read when it is asked for.

    It can be pickled: the files are opened again on the other side.

    Attributes:
      folder: the dataset's.
      split: its name there.
      size: the number of records.
      layout: which features make an input and a target.
      coding: the target's.
      keep: read all records at once when the first are asked for, and keep them.
      changes: where what decoding images changes is counted.
    """

    folder: Path
    split: str
    size: int
    layout: Layout
    coding: Coding
    keep: bool = False
    changes: Changes = field(default_factory=Changes, repr=False)
    _kept: Arrays | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.size

    def __getstate__(self) -> dict[str, object]:
        fields = {name: self.__dict__[name] for name in self.__dataclass_fields__}
        return fields | {"_kept": None, "keep": False}

    @cached_property
    def _source(self) -> Any:
        import tensorflow_datasets as tfds
        from array_record.python import array_record_data_source as files  # type: ignore[import-untyped]

        info = read_info(self.folder)
        template = tfds.core.ShardedFileTemplate(
            data_dir=self.folder,
            template=info["templates"][self.split] or "",
            dataset_name=info["name"],
            split=self.split,
            filetype_suffix=info["file_format"],
        )
        shards = template.sharded_filepaths(info["shards"][self.split])
        return files.ArrayRecordDataSource([str(path) for path in shards])

    def _decoder(self, names: Sequence[str]) -> Callable[[bytes], dict[str, Any]]:
        """Returns a function from a record to the named features; images stay encoded."""
        import tensorflow_datasets as tfds

        stored, _ = read_features(self.folder)
        features = tfds.features.FeaturesDict({name: stored[name] for name in names})
        images = (
            {self.layout.inputs[0]: tfds.decode.SkipDecoding()}
            if self.layout.kind == "image" and self.layout.inputs[0] in names
            else None
        )
        return lambda record: features.deserialize_example_np(record, decoders=images)

    @cached_property
    def decode(self) -> Callable[[bytes], dict[str, Any]]:
        """Decodes a record into its input and target features."""
        return self._decoder((*self.layout.inputs, *self.layout.target))

    def raw(self, indices: np.ndarray) -> Iterator[tuple[int, bytes]]:
        """Yields each index with its record's bytes."""
        try:
            for start in range(0, len(indices), CHUNK):
                chunk = [int(index) for index in indices[start : start + CHUNK]]
                yield from zip(chunk, self._source.__getitems__(chunk), strict=True)
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            raise DataError(
                f"{self.folder}, split {self.split!r}: can't be read: {error}. {DAMAGED}"
            ) from error

    def _example(self, index: int, record: bytes) -> tuple[object, object]:
        """Returns a record's input (a text as it is) and its target as it is stored."""
        try:
            example = self.decode(record)
            return self._input(example, index), self._target(example)
        except Exception as error:  # the parsers let all kinds through on damaged bytes
            kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
            message = (
                f"{self.folder}, split {self.split!r}: record {index} can't be read: "
                f"{kind}{error} {DAMAGED}"
            )
            if isinstance(error, Unreadable):
                raise Unreadable(message, error.reason) from error
            raise DataError(message) from error

    def _input(self, example: dict[str, Any], index: int) -> object:
        layout = self.layout
        first = example[layout.inputs[0]]
        if layout.kind == "text":
            return as_text(first)
        if layout.kind == "sound":
            return self._waveform(first, index)
        if layout.kind == "image":
            channels = layout.shape[-1]
            what = f"{self.split}, image {index}"
            value = decode_image(io.BytesIO(first), channels, layout.size, what, self.changes)
        elif len(layout.inputs) == 1:
            value = np.asarray(first).reshape(layout.shape)
        else:
            value = np.array([example[name] for name in layout.inputs])
        if value.shape != layout.shape:
            hint = " Set data.image_size to resize all images." if layout.kind == "image" else ""
            raise DataError(f"its shape is {value.shape}, expected {layout.shape}.{hint}")
        return value.astype(layout.dtype, copy=False)

    def _target(self, example: dict[str, object]) -> Any:
        """Returns a record's target as one value, or as a row of them."""
        names = self.layout.target
        if len(names) > 1:
            return np.array([example[name] for name in names])
        value = example[names[0]]
        if isinstance(value, dict):
            return np.array([value[name] for name in sorted(value)])
        if self.layout.labels is None:
            return value
        row = np.zeros(self.layout.labels, bool)
        row[np.asarray(value, np.intp)] = True
        return row

    def _waveform(self, value: Any, index: int) -> np.ndarray:
        sound, rate, samples = self.layout.sound, self.layout.sample_rate, self.layout.shape[0]
        assert sound is not None and rate is not None
        if sound.encoded:
            from jdlopt.data.sound import decode_sound

            return decode_sound(io.BytesIO(value), rate, samples, f"sound {index}")
        assert sound.sample_rate is not None
        return as_waveform(np.asarray(value), sound.sample_rate, rate, samples)

    def _inputs(self, values: list[Any]) -> np.ndarray:
        if self.layout.text is not None:
            return self.layout.text.encode(values)
        inputs = np.empty((len(values), *self.layout.shape), dtype=self.layout.dtype)
        for position, value in enumerate(values):
            inputs[position] = value
        return inputs

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.generic]:
        if self._kept is not None:
            return self._kept.inputs[index], self._kept.targets[index]
        inputs, targets = self._read(np.array([index]))
        return inputs[0], targets[0]

    @property
    def _what(self) -> str:
        names = ", ".join(map(repr, self.layout.target))
        return f"{self.folder}, split {self.split!r}, feature {names}"

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all; no other record is opened, unless kept."""
        if self.keep and self._kept is None:
            self._kept = self._read(np.arange(self.size))
        if self._kept is not None:
            kept = self._kept
            return kept if indices is None else Arrays(kept.inputs[indices], kept.targets[indices])
        return self._read(np.arange(self.size) if indices is None else indices)

    def _read(self, indices: np.ndarray) -> Arrays:
        values, targets = [], []
        for index, record in self.raw(indices):
            value, target = self._example(index, record)
            values.append(value)
            targets.append(target)
        return Arrays(self._inputs(values), encode(np.array(targets), self.coding, self._what))

    def features(self, names: Sequence[str], indices: np.ndarray | None = None) -> list[Any]:
        """Returns some features of the records at the indices, or of all, as they are stored."""
        decode = self._decoder(names)
        chosen = np.arange(self.size) if indices is None else indices
        return [decode(record) for _, record in self.raw(chosen)]

    def raw_targets(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Returns targets as they are stored; no input is decoded."""
        found = self.features(self.layout.target, indices)
        return np.array([self._target(example) for example in found])

    def targets(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Returns the targets at the indices, or of all records."""
        if self.keep:
            return self.read(indices).targets
        return encode(self.raw_targets(indices), self.coding, self._what)


def as_text(value: object) -> str:
    """Returns text that TFDS stores as bytes; bytes that are no UTF-8 become signs of that."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
