"""Open a dataset: a bundled one, a CSV or Parquet file, an NPZ, an image folder, any TFDS name."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import writing
from jdlopt.config import section_of, shared_keys
from jdlopt.data import (
    cache,
    conll,
    documents,
    from_run,
    image_decoding,
    images,
    masks,
    next_tokens,
    npz,
    sound,
    table_files,
    tables,
    text_files,
    text_lines,
    transcripts,
)
from jdlopt.data.arrays import is_own, open_own
from jdlopt.data.bundled import BUNDLED, bundled_folder, prepare_bundled, random_state_kept
from jdlopt.data.bundled import VERSION as BUNDLED_VERSION
from jdlopt.data.dataset import Dataset, Reading
from jdlopt.data.fields import COLUMN_KEYS, DataFields
from jdlopt.data.key_split import BY_PATH
from jdlopt.data.label_file import LABELS
from jdlopt.data.notes import Note
from jdlopt.data.prepared import open_prepared
from jdlopt.data.targets import coder_of
from jdlopt.data.transcript_coding import TASK as TRANSCRIPTION
from jdlopt.data.walk import check_file, most_of, neighbours
from jdlopt.errors import DataError, listing, nearest

MEMORY = "memory-"
"""How the name of data begins that a program gave, instead of naming a source."""


def open_dataset(fields: DataFields | Mapping[str, Any], *, allow_missing: bool = False) -> Dataset:
    """Opens the dataset that a ``data`` section describes; its test split is not read yet.

    Missing (NaN) inputs are refused, unless the section's ``preprocess.missing`` says how they are
    filled in.

    Args:
      fields: a `DataFields`, or the section as a mapping. Of ``preprocess``, ``missing`` and
        ``encode`` are looked at; ``augment`` is passed over.
      allow_missing: keep missing inputs, to describe them.

    Raises:
      ConfigError: there is no such task.
      DataError: there is no such source, or it can't be used; says what to do about it.
    """
    if not isinstance(fields, DataFields):
        fields = section_of(DataFields, fields, "data")
    reading = reading_of(fields)
    if allow_missing:
        reading = dataclasses.replace(reading, missing="keep")
    check_together(fields)
    if fields.task != "auto":
        coder_of(fields.task)
    with random_state_kept():
        dataset = _open(fields, reading)
    size = images.resize_to(fields.image_size)
    inputs = dataset.spec.named.values()
    if size is not None and not any(one.shape[:2] == size for one in inputs):
        shapes = " and ".join(str(one.shape) for one in inputs)
        raise DataError(
            f"data.image_size: {dataset.spec.source} holds inputs of shape {shapes}, not image "
            "files that can be resized. Leave data.image_size out."
        )
    for key in ("sample_rate", "seconds"):
        if getattr(fields, key) is not None and not any(one.sample_rate for one in inputs):
            raise DataError(
                f"data.{key}: {dataset.spec.source} holds no sounds. Leave data.{key} out."
            )
    if fields.sampling == "balanced" and dataset.spec.task != "classification":
        raise DataError(
            "data.sampling: 'balanced' gives every class the same share, where an example has one "
            f"class; this is a {dataset.spec.task} dataset. Use 'uniform', or 'weighted' with "
            "data.weight='COLUMN'."
        )
    return dataset


def reading_of(fields: DataFields) -> Reading:
    """Returns what the sections in ``data`` say of how the source is read."""
    options = fields.preprocess
    return Reading(
        missing="refuse" if options.missing == "none" else "fill",
        missing_values=fields.missing_values,
        text=fields.text,
        hash_buckets=options.hash_buckets if options.encode == "hashed" else None,
        known=from_run.kept(fields.fit_on),
    )


def check_together(fields: DataFields) -> None:
    """Raises a `DataError` for keys that can't be used with one another."""
    if fields.fold >= (fields.folds or 1):
        many = "data.folds is None" if fields.folds is None else f"there are {fields.folds}"
        raise DataError(f"data.fold: {fields.fold} is no fold: {many}, and they count from 0.")
    images.resize_to(fields.image_size)
    if fields.label_delimiter is not None and not fields.label_delimiter.strip(" "):
        raise DataError("data.label_delimiter: is blank; give what stands between labels, or None.")
    if (fields.sampling == "weighted") != (fields.weight is not None):
        raise DataError(
            f"data.sampling is {fields.sampling!r} and data.weight is {fields.weight!r}: set both, "
            "data.sampling='weighted' and data.weight='COLUMN', or neither."
        )
    if fields.group is not None and fields.time is not None:
        raise DataError("data.group and data.time: a split goes by one of them; leave one out.")
    _check_key(fields)


def _check_key(fields: DataFields) -> None:
    """Raises a `DataError` for what can't be had where a hash of a key says who goes where."""
    if fields.split_by is None:
        return
    if fields.group not in (None, fields.split_by):
        raise DataError(
            f"data.group={fields.group!r} and data.split_by={fields.split_by!r}: a hash of the one "
            "would tear apart what the other keeps together. data.split_by="
            f"{fields.group!r} keeps groups together, too; leave data.group out."
        )
    for key in ("time", "stratify_bins"):
        if getattr(fields, key) is not None:
            raise DataError(
                f"data.{key} and data.split_by: a hash of the key alone says which split an "
                f"example is in. Leave data.{key} or data.split_by out."
            )


def _open(fields: DataFields, reading: Reading) -> Dataset:
    kind = kind_of_source(fields)
    if fields.options and kind != "function":
        key = next(iter(fields.options))
        known = shared_keys(DataFields)
        raise DataError(f"data.{key}: is unknown.{nearest(key, known)}")
    for key in ("validation_source", "test_source"):
        if getattr(fields, key) is not None and kind not in OF_FILES:
            raise DataError(
                f"data.{key}: names a table beside a table; {fields.source} is none. A folder of "
                "files has its splits in folders (train/CLASS, test/CLASS), an NPZ in arrays "
                "(x_test, y_test)."
            )
    return SOURCES[kind].open(fields.source.strip(), fields, reading)


def kind_of_source(fields: DataFields) -> str:
    """Returns the first of `SOURCES` that knows what ``data.source`` names; it opens nothing.

    Raises:
      DataError: none does.
    """
    name = fields.source.strip()
    if name.startswith(MEMORY):
        raise DataError(
            f"data.source: {name!r} stands for data that a Python program gave, which are not "
            "kept. Give them again from Python, as data=…."
        )
    if not name:
        raise DataError(
            f"data.source: is empty; name a bundled dataset ({listing(BUNDLED)}), a file, a folder "
            "or a TFDS dataset."
        )
    for kind, source in SOURCES.items():
        if source.knows(name, fields):
            return kind
    path = writing.expanded(name)
    if path.is_file():
        raise DataError(
            f"data.source: {name!r} has the ending {path.suffix.lower()!r}; a file must be one of "
            f"{', '.join(table_files.SUFFIXES + npz.SUFFIXES)}; tables of text may be compressed "
            "(.csv.gz). Unpack an archive, and name its folder."
        )
    raise DataError(
        f"data.source: there is no file or folder {name!r} (from {os.getcwd()})."
        f"{nearest(path.name, neighbours(path))}"
    )


def is_written_first(fields: DataFields) -> bool:
    """Returns whether to open the source is to prepare a dataset first, in the data folder."""
    kind, name = kind_of_source(fields), fields.source.strip()
    if kind == "bundled":
        return not (bundled_folder(_bundled(name), fields.data_dir) / cache.INFO).is_file()
    return kind == "tfds"


def _is_function(name: str, fields: DataFields) -> bool:
    return is_own(name) and not Path(name).exists()


def _open_function(name: str, fields: DataFields, reading: Reading) -> Dataset:
    return open_own(fields, fields.options, reading)


def _bundled(name: str) -> str:
    """The name without the version that bundled datasets have."""
    return name.removesuffix(f":{BUNDLED_VERSION}")


def _open_bundled(name: str, fields: DataFields, reading: Reading) -> Dataset:
    name = _bundled(name)
    dataset = open_prepared(prepare_bundled(name, fields.data_dir), fields, name, reading)
    if not Path(name).is_dir() or from_run.is_run(Path(name)):
        return dataset
    what, instead = "a folder that is called like the bundled dataset", f"data.source='./{name}'"
    return dataset.noting([Note("unused", what, 1, "folders", (name,), f"{instead} takes it.")])


def _open_table(name: str, fields: DataFields, reading: Reading) -> Dataset:
    path = writing.expanded(name)
    parts = path.is_dir() and table_files.is_table(path)
    return tables.open_table(path if parts else _checked_file(name), fields, reading)


def _is_table(name: str, fields: DataFields) -> bool:
    path = writing.expanded(name)
    return table_files.is_table(path) or path.suffix.lower() in table_files.SUFFIXES


def _are_documents(name: str, fields: DataFields) -> bool:
    return fields.task == next_tokens.TASK and writing.expanded(name).exists()


def _is_conll(name: str, fields: DataFields) -> bool:
    path = writing.expanded(name)
    return path.exists() and conll.is_conll(path, fields.task)


def _are_lines(name: str, fields: DataFields) -> bool:
    return tables.writes_texts(fields) and writing.expanded(name).is_file()


def _open_lines(name: str, fields: DataFields, reading: Reading) -> Dataset:
    return text_lines.open_lines(_checked_file(name), fields, reading)


def _is_transcribed(name: str, fields: DataFields) -> bool:
    folder = writing.expanded(name)
    sounds = folder.is_dir() and not (folder / cache.INFO).is_file()
    return fields.task == TRANSCRIPTION and (_is_table(name, fields) or sounds)


def _open_transcripts(name: str, fields: DataFields, reading: Reading) -> Dataset:
    path = writing.expanded(name)
    for key in ("text_column", "categorical", "columns"):
        if getattr(fields, key):
            raise DataError(
                f"data.{key}: a manifest of sounds has a column of paths and one of transcripts "
                "(data.target), which needs no more. Leave it out."
            )
    return transcripts.open_transcripts(
        path if path.is_dir() else _checked_file(name), fields, reading
    )


def _open_npz(name: str, fields: DataFields, reading: Reading) -> Dataset:
    path = _checked_file(name)
    _check_unused(fields, path)
    return npz.open_npz(path, fields, reading)


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~"))


def _is_prepared(name: str, fields: DataFields) -> bool:
    return not _is_path(name) and cache.prepared_folder(name, fields.data_dir) is not None


def _open_tfds(name: str, fields: DataFields, reading: Reading) -> Dataset:
    folder = cache.prepared_folder(name, fields.data_dir) or _prepare(name, fields.data_dir)
    return open_prepared(folder, fields, name, reading)


def _may_be_tfds(name: str, fields: DataFields) -> bool:
    return not (_is_path(name) or Path(name).is_file()) and cache.parse_name(name) is not None


def _is_prepared_folder(name: str, fields: DataFields) -> bool:
    return (writing.expanded(name) / cache.INFO).is_file()


def _open_prepared_folder(name: str, fields: DataFields, reading: Reading) -> Dataset:
    folder = writing.expanded(name)
    return open_prepared(folder, fields, folder.resolve().parent.name, reading)


def _holds_sounds(name: str, fields: DataFields) -> bool:
    folder = writing.expanded(name)
    return folder.is_dir() and most_of(folder, (image_decoding.KIND, sound.KIND)) is sound.KIND


def _open_sounds(name: str, fields: DataFields, reading: Reading) -> Dataset:
    folder = writing.expanded(name)
    _check_unused(fields, folder)
    return sound.open_sounds(folder, fields)


def _open_images(name: str, fields: DataFields, reading: Reading) -> Dataset:
    folder = writing.expanded(name)
    _check_unused(fields, folder)
    return images.open_images(folder, fields)


def _holds_masks(name: str, fields: DataFields) -> bool:
    folder = writing.expanded(name)
    return folder.is_dir() and masks.is_meant(folder, fields)


def _open_masks(name: str, fields: DataFields, reading: Reading) -> Dataset:
    folder = writing.expanded(name)
    _check_unused(fields, folder)
    return masks.open_masks(folder, fields)


def _holds_texts(name: str, fields: DataFields) -> bool:
    folder, kinds = writing.expanded(name), (image_decoding.KIND, sound.KIND, text_files.KIND)
    return folder.is_dir() and most_of(folder, kinds) is text_files.KIND


def _open_texts(name: str, fields: DataFields, reading: Reading) -> Dataset:
    folder = writing.expanded(name)
    _check_unused(fields, folder)
    return text_files.open_texts(folder, fields, reading)


class Source(NamedTuple):
    """A kind of data that ``data.source`` may name.

    Attributes:
      knows: whether a name is of this kind, where no kind above it knows it.
      open: opens it.
    """

    knows: Callable[[str, DataFields], bool]
    open: Callable[[str, DataFields, Reading], Dataset]


def _ends_in(suffixes: Sequence[str]) -> Callable[[str, DataFields], bool]:
    return lambda name, fields: Path(name).suffix.lower() in suffixes


SOURCES: dict[str, Source] = {
    "bundled": Source(lambda name, fields: _bundled(name) in BUNDLED, _open_bundled),
    "transcripts": Source(_is_transcribed, _open_transcripts),
    "table": Source(_is_table, _open_table),
    "documents": Source(_are_documents, documents.open_documents),
    "conll": Source(_is_conll, conll.open_conll),
    "npz": Source(_ends_in(npz.SUFFIXES), _open_npz),
    "lines": Source(_are_lines, _open_lines),
    "function": Source(_is_function, _open_function),
    "prepared": Source(_is_prepared, _open_tfds),
    "prepared folder": Source(_is_prepared_folder, _open_prepared_folder),
    "masks": Source(_holds_masks, _open_masks),
    "sounds": Source(_holds_sounds, _open_sounds),
    "texts": Source(_holds_texts, _open_texts),
    "images": Source(lambda name, fields: writing.expanded(name).is_dir(), _open_images),
    "tfds": Source(_may_be_tfds, _open_tfds),
}
"""The kinds of sources, tried in this order. A ``function`` is the user's own, by dotted path."""

OF_FILES = ("table", "documents", "conll", "transcripts")
"""The kinds whose splits may be files of their own."""


def _check_unused(fields: DataFields, path: Path) -> None:
    listed = path.is_dir() and (path / LABELS).is_file()
    by_path = path.is_dir() and fields.split_by == BY_PATH
    for key in ("text_column", "categorical", "columns") if listed else COLUMN_KEYS:
        if getattr(fields, key) and not (key == "split_by" and by_path):
            hint = f" (a folder may have them in {LABELS})" if path.is_dir() and not listed else ""
            raise DataError(
                f"data.{key}: names columns of a table or features of a TFDS dataset; {path} has "
                f"none{hint}. Leave it out."
            )


def _checked_file(name: str) -> Path:
    path = writing.expanded(name)
    if path.is_dir():
        raise DataError(f"data.source: {path} is a folder, not a file.")
    check_file(path, "data.source")
    return path


def _prepare(source: str, chosen_data_dir: str | None) -> Path:
    """Has TFDS prepare a dataset in another process, which keeps TensorFlow out of this one."""
    root = cache.data_dir(chosen_data_dir)
    known = [*BUNDLED, *{folder.parent.name for folder in cache.prepared_folders(chosen_data_dir)}]
    if util.find_spec("tensorflow") is None:
        raise DataError(
            f"data.source: {source!r} is neither a bundled dataset ({listing(BUNDLED)}), nor a "
            f"file or folder, nor a TFDS dataset prepared in {root}.{nearest(source, known)} If it "
            "is a public TFDS name, TensorFlow is needed to prepare it once, as array_record: "
            "pip install 'jdlopt[tf]', then "
            f"python -m jdlopt.data.prepare {source} --data_dir={root}"
        )
    command = [sys.executable, "-P", "-m", "jdlopt.data.prepare", source, f"--data_dir={root}"]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    folder = cache.prepared_folder(source, chosen_data_dir)
    if done.returncode != 0 or folder is None:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise DataError(
            f"data.source: preparing the TFDS dataset {source!r} in {root} failed: "
            f"{lines[-1] if lines else f'exit code {done.returncode}'}"
        )
    return folder
