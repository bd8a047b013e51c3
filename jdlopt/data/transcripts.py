"""Sounds with what is said in them: opened as waveforms of one length, targets as symbols."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Int32

from jdlopt import writing
from jdlopt.data import sound
from jdlopt.data.coding import Coding
from jdlopt.data.damage import Skipped, Unreadable, check_left
from jdlopt.data.dataset import PLAIN, Dataset, Reading, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.parts import fit_rows, make_parts
from jdlopt.data.pools import Arrays, Pool
from jdlopt.data.spec import InputSpec
from jdlopt.data.split import SPLITS
from jdlopt.data.table_files import is_table
from jdlopt.data.transcript_coding import (
    TASK,
    classes_of,
    coding_of,
    outside,
    padded,
    steps_needed,
)
from jdlopt.data.transcript_files import Transcripts, read_manifest, read_transcripts
from jdlopt.data.walk import PassedOver
from jdlopt.data.waveforms import as_waveform, read_each
from jdlopt.errors import DataError, listing

SILENT = 1e-4
"""A sound none of whose samples is as far from 0 is silent: 16 bits have steps of a third of it."""


@dataclass(frozen=True)
class TranscribedPool:
    """Sound files and what is said in each.

    Attributes:
      paths, places: the files, and where their transcripts stand.
      labels: the symbols of each transcript; none of one that is left out.
      lengths: samples of each, at ``rate``.
      rate: samples a second of a waveform.
      samples: samples of a waveform; shorter sounds have zeros at the end.
    """

    paths: tuple[Path, ...]
    places: tuple[str, ...]
    labels: Int32[np.ndarray, "files symbols"]
    lengths: Int[np.ndarray, " files"]
    rate: int
    samples: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        return self._waveform(index), self.labels[index]

    def _waveform(self, index: int) -> Float32[np.ndarray, " samples"]:
        path, place = self.paths[index], self.places[index]
        values, rate = sound.read_sound(path, str(path))
        waveform = as_waveform(values, rate, self.rate)
        if len(waveform) > self.samples:
            lasts = f"{len(waveform) / self.rate:.3f} s"
            raise Unreadable(
                f"{place}: {path.name} lasts {lasts}, more than its header says.", "damaged sound"
            )
        if float(np.abs(waveform).max()) < SILENT:
            raise Unreadable(
                f"{place}: {path.name} is silent, and its transcript is not empty. Replace or "
                "remove it, or leave such sounds out with data.on_bad='skip'.",
                "silent sound",
            )
        return np.pad(waveform, (0, self.samples - len(waveform)))

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the waveforms at the indices, or all of them."""
        chosen = np.arange(len(self)) if indices is None else indices
        return Arrays(read_each(self._waveform, chosen, self.samples), self.labels[chosen])

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the symbols at the indices, or of all sounds, without opening any."""
        return self.labels if indices is None else self.labels[indices]


def open_transcripts(source: Path, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens sounds with their transcripts: see `jdlopt.data.transcript_files.read_transcripts`.

    Inputs are waveforms of one channel, with zeros behind those that are shorter than the longest,
    or than ``data.seconds``. Classes are the characters of the training transcripts, or with
    ``data.text.tokenizer='bpe'`` pieces of their words. Of the test split's sounds the headers
    are read, which say how long they are. With ``data.on_bad='skip'`` all training and validation
    sounds are decoded once, and those that can't be used are left out.

    Args:
      source: a manifest or a folder.
      fields: the data section.
      reading: what other sections say of how it is read.

    Raises:
      DataError: a transcript or a sound can't be used, with the place where it stands.
    """
    skipped, passed = Skipped(), PassedOver()
    found = read_transcripts(source, fields, skipped, passed)
    by_split = _by_split(found)
    for split, key in (("validation", "validation_source"), ("test", "test_source")):
        name = getattr(fields, key)
        if name is not None:
            if split in by_split:
                raise DataError(f"data.{key}: {source} has rows of the split {split!r} already.")
            other = read_manifest(_manifest(name, key), split, fields, skipped, passed)
            by_split[split] = other
    if "train" not in by_split:
        raise DataError(f"{source}: holds no training example: {skipped}.")
    train = by_split["train"]
    parts = make_parts(
        {split: one.paths for split, one in by_split.items()},
        fields,
        Coding(TASK, positions=1),
        lambda: np.zeros(len(train.paths), np.int32),
        train.beside,
    )
    known = fit_rows(parts, fields, len(train.paths))
    names = classes_of([train.texts[row] for row in known], fields.text)
    looked = _Looked.at(by_split, names, fields)
    header = _survey(looked, parts, fields, skipped)
    made = {}
    for split, (name, rows) in parts.items():
        every = np.arange(len(by_split[name].paths)) if rows is None else rows
        made[split] = (name, looked.usable(name, every, header, fields, skipped))
        check_left(made[split][1], split, str(source), skipped)
    kept: dict[str, set[int]] = {name: set() for name in by_split}
    for name, rows in made.values():
        kept[name].update(rows.tolist())
    said = {
        split: [text if row in kept[split] else "" for row, text in enumerate(one.texts)]
        for split, one in by_split.items()
    }
    coding = coding_of([text for texts in said.values() for text in texts], names)
    pools: dict[str, Pool] = {
        split: TranscribedPool(
            tuple(one.paths),
            tuple(one.places),
            padded(said[split], coding),
            looked.lengths(split, header.rate),
            header.rate,
            header.samples,
        )
        for split, one in by_split.items()
    }
    if fields.on_bad == "skip":
        for split in ("train", "validation"):
            name, rows = made[split]
            made[split] = (name, _decodable(pools[name], rows, by_split[name].places, skipped))
            check_left(made[split][1], split, str(source), skipped)
    root = source.parent if source.is_file() else source
    return make_dataset(
        fields=fields,
        name=source.resolve().stem,
        coding=coding,
        inputs=InputSpec(
            (header.samples,), "float32", sample_rate=header.rate, column=train.column
        ),
        pools=pools,
        labels=lambda: pools["train"].targets(None),
        parts=made,
        reading=reading,
        checked=("train", "validation"),
        skipped=skipped,
        beside=train.beside,
        notes=passed.notes,
        origins={split: _origins(one, root) for split, one in by_split.items()},
    )


def _by_split(found: Transcripts) -> dict[str, Transcripts]:
    """Returns the examples of each split by themselves."""
    made = {}
    for split in (one for one in SPLITS if one in found.splits):
        rows = [row for row, one in enumerate(found.splits) if one == split]
        made[split] = dataclasses.replace(
            found,
            paths=[found.paths[row] for row in rows],
            texts=[found.texts[row] for row in rows],
            places=[found.places[row] for row in rows],
            splits=[split] * len(rows),
            beside={key: values[rows] for key, values in found.beside.items()},
        )
    return made


def _manifest(name: str, key: str) -> Path:
    path = writing.expanded(name)
    if not (path.is_file() and is_table(path)):
        raise DataError(f"data.{key}: {path} is no manifest: expected a table (CSV, JSON lines).")
    return path


def _origins(found: Transcripts, root: Path) -> dict[str, np.ndarray]:
    files = [
        path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        for path in found.paths
    ]
    return {"file": np.array(files, object)}


# --- what can't be used ---------------------------------------------------------------------------


@dataclass
class _Looked:
    """What the headers of the sounds say, and what each transcript takes.

    Attributes:
      found: the examples of each split of the source.
      headers: of the sounds; None where one can't be read.
      strange: characters that no training transcript has, of each transcript.
      steps: that each transcript needs.
    """

    found: dict[str, Transcripts]
    headers: dict[str, list[sound.Header | None]]
    strange: dict[str, list[list[str]]]
    steps: dict[str, list[int]]

    @staticmethod
    def at(found: dict[str, Transcripts], names: tuple[str, ...], fields: DataFields) -> _Looked:
        """Reads all headers, and looks at all transcripts."""
        looked = _Looked(found, {}, {}, {})
        for split, one in found.items():
            looked.headers[split] = [_header(path, fields) for path in one.paths]
            looked.strange[split] = [outside(said, names) for said in one.texts]
            looked.steps[split] = [
                0 if strange else _needed(said, names)
                for said, strange in zip(one.texts, looked.strange[split], strict=True)
            ]
        return looked

    def lengths(self, split: str, rate: int) -> Int[np.ndarray, " files"]:
        """Returns the samples of a split's sounds at a rate; 0 where a header can't be read."""
        return np.array(
            [
                0 if one is None else -(-one.samples * rate // one.rate)
                for one in self.headers[split]
            ],
            np.int64,
        )

    def usable(
        self,
        split: str,
        rows: Int[np.ndarray, " some"],
        header: sound.Header,
        fields: DataFields,
        skipped: Skipped,
    ) -> Int[np.ndarray, " some"]:
        """Returns the rows that can be used; the others are counted, or the first is refused."""
        lengths, kept = self.lengths(split, header.rate), []
        for row in rows.tolist():
            reason, detail = self._fault(split, row, int(lengths[row]), header, fields)
            if not reason:
                kept.append(row)
                continue
            place = self.found[split].places[row]
            if fields.on_bad != "skip":
                raise DataError(
                    f"{place}: {detail} Or leave such examples out with data.on_bad='skip'."
                )
            skipped.add(reason, place, detail)
        return np.array(kept, np.intp)

    def _fault(
        self, split: str, row: int, length: int, header: sound.Header, fields: DataFields
    ) -> tuple[str, str]:
        """Returns why an example can't be used, shortly and in a sentence; empty if it can."""
        name, strange = self.found[split].paths[row].name, self.strange[split][row]
        if self.headers[split][row] is None:
            return "unreadable sound", f"{name} can't be read."
        if strange:
            return (
                "characters that no training transcript has",
                f"the transcript holds {listing(map(repr, strange))}, which no training transcript "
                "has. Correct it.",
            )
        if length > header.samples:
            return (
                "sound longer than data.seconds",
                f"{name} lasts {length / header.rate:.3f} s: data.seconds="
                f"{header.samples / header.rate:g} would cut off the end of what is said. Raise "
                "it, or leave data.seconds out.",
            )
        options, steps = fields.preprocess, self.steps[split][row]
        frames = 1 + length // (options.hop if options.audio != "none" else 1)
        if steps > frames:
            return (
                "transcript longer than its sound",
                f"the transcript needs {steps} steps (one a symbol, one between equal ones), and "
                f"{name} has {frames} frames ({length / header.rate:.3f} s). Is it the right one? "
                "A smaller data.preprocess.hop makes more frames.",
            )
        return "", ""


def _needed(said: str, names: tuple[str, ...]) -> int:
    coding = coding_of([said], names)
    return int(steps_needed(padded([said], coding))[0])


def _header(path: Path, fields: DataFields) -> sound.Header | None:
    """Returns a sound's header; None of one that can't be read, where such are left out."""
    try:
        return sound.read_header(path)
    except Unreadable:
        if fields.on_bad != "skip":
            raise
        return None


def _survey(
    looked: _Looked,
    parts: dict[str, tuple[str, np.ndarray | None]],
    fields: DataFields,
    skipped: Skipped,
) -> sound.Header:
    """Returns the rate of all sounds, and the samples of the longest.

    Raises:
      DataError: they have several rates, and ``data.sample_rate`` is not set; or none can be read.
    """
    first: tuple[str, int] | None = None
    for split, headers in looked.headers.items():
        for place, path, header in zip(
            looked.found[split].places, looked.found[split].paths, headers, strict=True
        ):
            if header is None:
                continue
            first = first or (str(path), header.rate)
            if fields.sample_rate is None and header.rate != first[1]:
                raise DataError(
                    f"{place}: {path.name} has {header.rate} samples a second where {first[0]} has "
                    f"{first[1]}. Set data.sample_rate to resample all sounds to one rate."
                )
    if first is None:
        raise DataError(f"{fields.source}: no sound can be read: {skipped}.")
    rate = fields.sample_rate or first[1]
    if fields.seconds is not None:
        return sound.Header(rate, max(1, round(fields.seconds * rate)))
    return sound.Header(rate, int(max(looked.lengths(split, rate).max() for split in looked.found)))


def _decodable(
    pool: Pool, rows: np.ndarray, places: Sequence[str], skipped: Skipped
) -> Int[np.ndarray, " some"]:
    """Returns the rows whose sound can be decoded and is not silent; the others are counted."""
    kept = []
    for row in rows.tolist():
        try:
            pool[row]
        except Unreadable as error:
            skipped.add(error.reason, places[row])
        else:
            kept.append(row)
    return np.array(kept, np.intp)
