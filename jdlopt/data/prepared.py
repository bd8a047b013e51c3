"""Prepared TFDS datasets: ArrayRecord files, opened without TensorFlow."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jdlopt.data.coding import Coding
from jdlopt.data.damage import Skipped, Unreadable
from jdlopt.data.dataset import PLAIN, Dataset, Reading, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.image_decoding import Changes, look_at, opened
from jdlopt.data.labelled import beside, beside_named
from jdlopt.data.layout import (
    Layout,
    Sound,
    coding_of,
    columns_of,
    find_target,
    is_text,
    labels_in,
    make_layout,
)
from jdlopt.data.notes import Note
from jdlopt.data.parts import fit_rows, make_parts
from jdlopt.data.pools import Pool
from jdlopt.data.records import TfdsPool, as_text, read_features, read_info
from jdlopt.data.spec import InputSpec
from jdlopt.data.split import split_named
from jdlopt.data.targets import infer_coding
from jdlopt.data.text_input import fit_texts
from jdlopt.data.transcript_coding import TASK
from jdlopt.errors import DataError, listing

KEEP_BYTES = 1 << 30
"""A training split up to this size is kept, once some of it had to be read."""


def open_prepared(folder: Path, fields: DataFields, name: str, reading: Reading = PLAIN) -> Dataset:
    """Opens a prepared TFDS dataset.

    The target is ``data.target``, or the second of the dataset's supervised keys: a class, a number
    or a row of numbers, a list of classes, or several scalars. The input is
    ``data.text_column``, or the first of these keys, or the only feature left, or all features left
    as one vector if they are scalars. Texts become tokens of a vocabulary that is fitted on the
    training texts; sound becomes a waveform of ``data.seconds``. A text that is the target of sound
    is what is said in it.

    Args:
      folder: the dataset's version folder.
      fields: the data section.
      name: the dataset's short name.
      reading: what other sections say of how it is read.

    Raises:
      DataError: the files are not ArrayRecord, or the features can't be used.
    """
    if fields.columns:
        raise DataError(
            f"data.columns: names columns of a table; {name} is a TFDS dataset. Leave it out."
        )
    if fields.categorical:
        raise DataError(
            f"data.categorical: names columns of a table; {name} is a TFDS dataset. Leave it out."
        )
    info = read_info(folder)
    if info["file_format"] != "array_record":
        raise DataError(
            f"{folder}: is prepared as {info['file_format']}; expected array_record, which is read "
            "without TensorFlow. Prepare it anew: "
            f"python -m jdlopt.data.prepare {info['name']} --data_dir=FOLDER"
        )
    sizes, left_out = _split_sizes(info["sizes"], folder)
    features, sounds = read_features(folder)
    target = find_target(features, info["supervised"], fields, str(folder))
    classes = _names_in(folder, "class_names")
    sounds = {**_plain_sounds(folder, info["supervised"][0]), **sounds}
    told = len(target) == 1 and is_text(features[target[0]])  # of sound it may be what is said
    coding = None if told else coding_of(features, target, fields, classes)
    layout = make_layout(features, sounds, target, info["supervised"], fields, str(folder))
    spoken = told and layout.kind == "sound" and fields.task in ("auto", TASK)
    if told and not spoken:
        coding = coding_of(features, target, fields, classes)
    task = TASK if spoken else fields.task
    labels = labels_in(features[target[0]])
    layout = replace(layout, labels=labels and labels.num_classes)
    train_split, train_size = sizes["train"]
    train = TfdsPool(folder, train_split, train_size, layout, coding or Coding("regression"))
    if coding is None:  # a plain number: only its values tell whether they are classes
        what = f"{folder}, feature {', '.join(map(repr, target))}"
        names = columns_of(features, target)
        others = {}
        if spoken:
            others = {
                f"{folder}, split {stored!r}": replace(train, split=stored, size=size).raw_targets()
                for stored, size in sizes.values()
                if stored != train_split
            }
        coding = infer_coding(
            train.raw_targets(), task, what, names, fields.label_delimiter, fields.text, others
        )
    if layout.kind == "image" and None in layout.shape:
        layout = _sized(layout, train, fields.on_bad == "skip")
    train = replace(train, layout=layout, coding=coding)
    found = _beside(train, fields)
    parts = None
    if layout.kind == "text":
        parts = make_parts(
            {split: range(size) for split, (_, size) in sizes.items()},
            fields,
            coding,
            train.targets,
            beside=found,
        )
        layout = _with_vocabulary(layout, train, fit_rows(parts, fields, train_size), reading)
    nbytes = train_size * math.prod(layout.shape) * np.dtype(layout.dtype).itemsize
    keep = "test" in sizes and nbytes <= KEEP_BYTES and fields.on_bad == "error"
    keep = keep and fields.in_memory is not False
    skipped = Skipped()
    changes = Changes(skipped.changed)
    pools: dict[str, Pool] = {
        split: TfdsPool(folder, stored, size, layout, coding, keep and split == "train", changes)
        for split, (stored, size) in sizes.items()
    }
    train_pool = pools["train"]
    return make_dataset(
        fields=fields,
        name=name,
        coding=coding,
        inputs=InputSpec(
            layout.shape,
            str(np.dtype(layout.dtype)),
            _feature_names(folder, layout),
            text=layout.text,
            sample_rate=layout.sample_rate,
        ),
        pools=pools,
        labels=lambda: train_pool.targets(None),
        parts=parts,
        reading=reading,
        beside=found,
        notes=left_out,
        skipped=skipped,
    )


def _split_sizes(
    stored: dict[str, int], folder: Path
) -> tuple[dict[str, tuple[str, int]], list[Note]]:
    """Returns each split's name in the dataset and its size, and the splits that are not used."""
    if len(stored) == 1:
        return {"train": next(iter(stored.items()))}, []
    found: dict[str, tuple[str, int]] = {}
    for name in sorted(stored, key=lambda name: (name != split_named(name), name)):
        split = split_named(name)
        if split is not None and split not in found:
            found[split] = (name, stored[name])
    if "train" not in found:
        raise DataError(f"{folder}: has no split 'train'; found {listing(stored) or 'none'}.")
    used = {name for name, _ in found.values()}
    return found, [
        Note("left out", f"the split {name!r} of the dataset", size, "examples")
        for name, size in stored.items()
        if name not in used
    ]


def _with_vocabulary(layout: Layout, train: TfdsPool, rows: np.ndarray, reading: Reading) -> Layout:
    """Fills in a text input's vocabulary and length, from the training texts."""
    name = layout.inputs[0]
    texts = [as_text(example[name]) for example in train.features((name,), rows)]
    text = fit_texts(reading.text, name, texts, reading.vocabulary(name))
    return replace(layout, text=text, shape=text.encode([""]).shape[1:])


def _beside(train: TfdsPool, fields: DataFields) -> dict[str, np.ndarray]:
    """Returns the group, time and weight of each training record, where features hold them."""
    named = dict(beside_named(fields))
    if not named:
        return {}
    import pandas as pd

    examples = train.features(tuple(dict.fromkeys(named.values())))
    found = {}
    for key, name in named.items():
        what = f"{train.folder}, data.{key} feature {name!r}"
        if np.ndim(examples[0][name]):
            raise DataError(f"{what}: holds {np.shape(examples[0][name])} values, expected one.")
        values = [_plain(example[name]) for example in examples]
        found[key] = beside(pd.Series(values, name=name), key, what)
    return found


def _plain(value: Any) -> Any:
    return as_text(value) if isinstance(value, bytes) else np.asarray(value).item()


def _sized(layout: Layout, train: TfdsPool, skip: bool) -> Layout:
    """Fills in the images' size, which the dataset leaves open, from the first that it can."""
    for index, record in train.raw(np.arange(train.size)):
        try:
            stored = io.BytesIO(train.decode(record)[layout.inputs[0]])
            with opened(stored, f"image {index}") as image:
                return replace(layout, shape=(*look_at(image).size, layout.shape[-1]))
        except Exception as error:  # the parsers let all kinds through on damaged bytes
            if not skip:
                raise Unreadable(
                    f"{train.folder}, split {train.split!r}: image {index} can't be read: {error}. "
                    "data.on_bad='skip' leaves such images out."
                ) from error
    raise DataError(f"{train.folder}, split {train.split!r}: no image can be read.")


def _plain_sounds(folder: Path, name: str | None) -> dict[str, Sound]:
    """Returns the input as sound, where the dataset's own metadata has a ``sample_rate`` of it."""
    try:
        rate = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))["sample_rate"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    known = name is not None and type(rate) is int and rate > 0
    return {name: Sound(rate, encoded=False)} if known and name is not None else {}


def _feature_names(folder: Path, layout: Layout) -> tuple[str, ...] | None:
    if len(layout.inputs) > 1:
        return layout.inputs
    names = _names_in(folder, "feature_names")
    return names if names and layout.shape == (len(names),) else None


def _names_in(folder: Path, key: str) -> tuple[str, ...]:
    """Returns the names that a dataset's own metadata has under a key; none where it has none."""
    try:
        names = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))[key]
        return tuple(map(str, names))
    except (OSError, ValueError, KeyError, TypeError):
        return ()
