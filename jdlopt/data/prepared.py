"""Prepared TFDS datasets: ArrayRecord files read through TFDS's data source, without TensorFlow."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jdlopt.data.cache import INFO
from jdlopt.data.dataset import Arrays, Dataset, Pool, make_dataset
from jdlopt.data.images import decode_image, resize_to
from jdlopt.data.targets import Coding, encode, infer_coding
from jdlopt.errors import DataError, listing, nearest

SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test",),
}
CHUNK = 1024
DAMAGED = "If the files are damaged, delete this folder and prepare the dataset again."
KEEP_BYTES = 1 << 30
"""A training split up to this size is kept, once its labels had to be read for the split."""


@dataclass(frozen=True)
class Layout:
    """Which features of a dataset's records make an input and a target."""

    inputs: tuple[str, ...]
    target: str
    shape: tuple[int, ...]
    dtype: str
    is_image: bool
    size: tuple[int, int] | None


@dataclass
class TfdsPool:
    """One split of a prepared TFDS dataset; a record is read when it is asked for.

    It can be pickled: the files are opened again on the other side.
    """

    folder: Path
    split: str
    size: int
    layout: Layout
    coding: Coding
    keep: bool = False
    _kept: Arrays | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.size

    def __getstate__(self) -> dict[str, Any]:
        fields = {name: self.__dict__[name] for name in self.__dataclass_fields__}
        return fields | {"_kept": None}

    @cached_property
    def _source(self) -> Any:
        import tensorflow_datasets as tfds

        return open_builder(self.folder).as_data_source(
            self.split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )

    def _decoder(self, names: tuple[str, ...]) -> Callable[[bytes], dict[str, Any]]:
        """Returns a function from a record to the named features; images stay encoded."""
        import tensorflow_datasets as tfds

        stored = open_builder(self.folder).info.features
        features = tfds.features.FeaturesDict({name: stored[name] for name in names})
        images = (
            {self.layout.inputs[0]: tfds.decode.SkipDecoding()}
            if self.layout.is_image and self.layout.inputs[0] in names
            else None
        )
        return lambda record: features.deserialize_example_np(record, decoders=images)

    @cached_property
    def decode(self) -> Callable[[bytes], dict[str, Any]]:
        """The function from a record to its input and target features."""
        return self._decoder((*self.layout.inputs, self.layout.target))

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

    def _example(self, index: int, record: bytes) -> tuple[np.ndarray, Any]:
        """Returns a record's input and its target as it is stored."""
        try:
            example = self.decode(record)
            return self._input(example, index), example[self.layout.target]
        except Exception as error:  # the parsers let all kinds through on damaged bytes
            kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
            raise DataError(
                f"{self.folder}, split {self.split!r}: record {index} can't be read: "
                f"{kind}{error} {DAMAGED}"
            ) from error

    def _input(self, example: dict[str, Any], index: int) -> np.ndarray:
        layout = self.layout
        if layout.is_image:
            encoded = io.BytesIO(example[layout.inputs[0]])
            value = decode_image(encoded, layout.shape[-1], layout.size, f"image {index}")
        elif len(layout.inputs) == 1:
            value = np.asarray(example[layout.inputs[0]]).reshape(layout.shape)
        else:
            value = np.array([example[name] for name in layout.inputs])
        if value.shape != layout.shape:
            hint = " Set data.image_size to resize all images." if layout.is_image else ""
            raise DataError(f"its shape is {value.shape}, expected {layout.shape}.{hint}")
        return value.astype(layout.dtype, copy=False)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.generic]:
        if self._kept is not None:
            return self._kept.inputs[index], self._kept.targets[index]
        _, record = next(self.raw(np.array([index])))
        value, target = self._example(index, record)
        return value, encode(np.array([target]), self.coding, self._what)[0]

    @property
    def _what(self) -> str:
        return f"{self.folder}, split {self.split!r}, feature {self.layout.target!r}"

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all of them; no other record is opened."""
        if self._kept is not None:
            kept = self._kept
            return kept if indices is None else Arrays(kept.inputs[indices], kept.targets[indices])
        chosen = np.arange(self.size) if indices is None else indices
        inputs = np.empty((len(chosen), *self.layout.shape), dtype=self.layout.dtype)
        targets = []
        for position, (index, record) in enumerate(self.raw(chosen)):
            inputs[position], target = self._example(index, record)
            targets.append(target)
        return Arrays(inputs, encode(np.array(targets), self.coding, self._what))

    def raw_targets(self) -> np.ndarray:
        """Returns the target of every record as it is stored; no input is decoded."""
        decode = self._decoder((self.layout.target,))
        records = self.raw(np.arange(self.size))
        return np.array([decode(record)[self.layout.target] for _, record in records])

    def labels(self) -> np.ndarray:
        """Returns every record's class; what was read for it is kept, if `keep` is set."""
        if not self.keep:
            return encode(self.raw_targets(), self.coding, self._what)
        if self._kept is None:
            self._kept = self.read(None)
        return self._kept.targets


def open_builder(folder: Path) -> Any:
    """Returns TFDS's read-only builder of a prepared dataset's folder."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(str(folder))
    except Exception as error:  # TFDS lets through whatever its parsers raise
        raise DataError(
            f"{folder}: can't be opened as a TFDS dataset: {type(error).__name__}: {error}. "
            "Delete the folder and prepare the dataset again."
        ) from error


def read_info(folder: Path) -> dict[str, Any]:
    """Returns a prepared dataset's name, version, file format and split sizes, without TFDS."""
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        sizes = {
            split["name"]: sum(int(length) for length in split.get("shardLengths", []))
            for split in info.get("splits", [])
        }
        return {
            "name": info["name"],
            "version": info.get("version", folder.name),
            "file_format": info.get("fileFormat", "tfrecord"),
            "sizes": sizes,
            "description": " ".join(info.get("description", "").split()),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / INFO}: is damaged: {error!r}.") from error


def open_prepared(folder: Path, fields: Any, name: str, allow_missing: bool = False) -> Dataset:
    """Opens a prepared TFDS dataset.

    The target is ``data.target``, or the second of the dataset's supervised keys. The input is the
    first of them, or the only feature left, or all features left as one vector if they are scalars.

    Raises:
      DataError: the files are not ArrayRecord, or the features can't be used.
    """
    info = read_info(folder)
    if info["file_format"] != "array_record":
        raise DataError(
            f"{folder}: is prepared as {info['file_format']}; expected array_record, which is read "
            "without TensorFlow. Prepare it anew: "
            f"python -m jdlopt.data.prepare {info['name']} --data_dir=FOLDER"
        )
    sizes = _split_sizes(info["sizes"], folder)
    builder_info = open_builder(folder).info
    target = _target_name(builder_info, fields, str(folder))
    coding = _coding(builder_info.features[target], target, fields)
    layout = _layout(builder_info, target, fields, str(folder))
    train_split, train_size = sizes["train"]
    train = TfdsPool(folder, train_split, train_size, layout, coding or Coding("regression"))
    if coding is None:  # a plain number: only its values tell whether they are classes
        what = f"{folder}, feature {layout.target!r}"
        coding = infer_coding(train.raw_targets(), fields.task, what)
    if layout.is_image and None in layout.shape:
        layout = _sized(layout, train)
    nbytes = train_size * math.prod(layout.shape) * np.dtype(layout.dtype).itemsize
    keep = "test" in sizes and nbytes <= KEEP_BYTES
    pools: dict[str, Pool] = {
        split: TfdsPool(folder, stored, size, layout, coding, keep and split == "train")
        for split, (stored, size) in sizes.items()
    }
    train = pools["train"]  # type: ignore[assignment]
    return make_dataset(
        fields=fields,
        name=name,
        coding=coding,
        feature_names=_feature_names(folder, layout),
        input_shape=layout.shape,
        input_dtype=layout.dtype,
        pools=pools,
        labels=train.labels,
        allow_missing=allow_missing,
    )


def _split_sizes(stored: dict[str, int], folder: Path) -> dict[str, tuple[str, int]]:
    if len(stored) == 1:
        return {"train": next(iter(stored.items()))}
    found = {
        split: (name, stored[name])
        for split, names in SPLIT_NAMES.items()
        for name in names
        if name in stored
    }
    if "train" not in found:
        raise DataError(f"{folder}: has no split 'train'; found {listing(stored) or 'none'}.")
    return found


def _supervised(info: Any) -> tuple[str | None, str | None]:
    """Returns the dataset's own input and target, each None if it names no single feature."""
    keys = info.supervised_keys
    if keys is None or len(keys) != 2:
        return None, None
    inputs, target = (key if isinstance(key, str) else None for key in keys)
    return inputs, target


def _is_number(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Tensor) and (np.dtype(feature.np_dtype).kind in "biuf")


def _target_name(info: Any, fields: Any, where: str) -> str:
    import tensorflow_datasets as tfds

    if not isinstance(info.features, tfds.features.FeaturesDict):
        raise DataError(f"{where}: its records are no dict of features, which jdlopt can't read.")
    names = sorted(info.features)
    target = fields.target or _supervised(info)[1]
    if target is None:
        raise DataError(
            f"{where}: does not say which feature to predict. Set data.target to one of: "
            f"{listing(names)}."
        )
    for key, name in [("data.target", target), *(("data.ignore", n) for n in fields.ignore)]:
        if name not in names:
            hint = nearest(name, names) or f" Features: {listing(names)}."
            raise DataError(f"{where}: {key}: there is no feature {name!r}.{hint}")
    return target


def _layout(info: Any, target: str, fields: Any, where: str) -> Layout:
    import tensorflow_datasets as tfds

    features = info.features
    names = sorted(features)  # their stored order differs from one process to the next
    inputs: tuple[str, ...]
    supervised = _supervised(info)[0]
    if supervised is not None and supervised not in (target, *fields.ignore):
        inputs = (supervised,)
    else:
        inputs = tuple(name for name in names if name != target and name not in fields.ignore)
    kinds = {name: features[name] for name in inputs}
    numeric = [
        name
        for name, kind in kinds.items()
        if isinstance(kind, tfds.features.Image) or _is_number(kind)
    ]
    scalars = all(name in numeric and kinds[name].shape == () for name in inputs)
    if not inputs or len(numeric) < len(inputs) or (len(inputs) > 1 and not scalars):
        found = ", ".join(f"{name} ({type(features[name]).__name__})" for name in names)
        raise DataError(
            f"{where}: found the features {found}; expected one image or number tensor as input, "
            f"or scalar numbers only, beside the target {target!r}. "
            "Leave others out with data.ignore."
        )
    if len(inputs) > 1:
        return Layout(inputs, target, (len(inputs),), "float32", False, None)
    kind = kinds[inputs[0]]
    is_image = isinstance(kind, tfds.features.Image)
    uint8 = kind.np_dtype == np.uint8
    if not is_image:
        if None in kind.shape:
            raise DataError(
                f"{where}: feature {inputs[0]!r} has the shape {kind.shape}, not fixed."
            )
        return Layout(
            inputs, target, kind.shape or (1,), "uint8" if uint8 else "float32", False, None
        )
    channels = kind.shape[-1] or 3
    if not uint8 or channels not in (1, 3, 4):
        raise DataError(
            f"{where}: feature {inputs[0]!r} holds {channels}-channel {kind.np_dtype} images; "
            "expected grey or colour ones of 8 bits."
        )
    size = resize_to(fields.image_size)
    height, width = size or kind.shape[:2]
    return Layout(inputs, target, (height, width, min(channels, 3)), "uint8", True, size)


def _sized(layout: Layout, train: TfdsPool) -> Layout:
    """Fills in the images' size, which the dataset leaves open, from its first image."""
    from PIL import Image

    _, record = next(train.raw(np.array([0])))
    encoded = train.decode(record)[layout.inputs[0]]
    with Image.open(io.BytesIO(encoded)) as image:
        return replace(layout, shape=(image.height, image.width, layout.shape[-1]))


def _coding(feature: Any, name: str, fields: Any) -> Coding | None:
    """Returns the target's coding, or None where it depends on the target's values."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.ClassLabel) and fields.task != "regression":
        if feature.num_classes < 2:
            raise DataError(
                f"{fields.source}: feature {name!r} has {feature.num_classes} class only; there is "
                "nothing to learn."
            )
        names = tuple(feature.names)
        return Coding("classification", tuple(range(feature.num_classes)), names)
    if not _is_number(feature) or feature.shape != ():
        raise DataError(
            f"{fields.source}: feature {name!r} is {type(feature).__name__} of shape "
            f"{feature.shape}; expected one class or number as target. Set data.target to another."
        )
    if np.dtype(feature.np_dtype).kind == "f" and fields.task != "classification":
        return Coding("regression")
    return None


def _feature_names(folder: Path, layout: Layout) -> tuple[str, ...] | None:
    if len(layout.inputs) > 1:
        return layout.inputs
    try:
        names = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))["feature_names"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return tuple(names) if names and layout.shape == (len(names),) else None
