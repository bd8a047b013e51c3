"""Which sounds there are and what is said in each: a manifest, or files of transcripts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jdlopt.data.columns import as_texts
from jdlopt.data.damage import Skipped
from jdlopt.data.fields import DataFields
from jdlopt.data.key_split import BY_PATH
from jdlopt.data.label_file import LABELS, splits_of
from jdlopt.data.labelled import beside, beside_named, check_named, names_of
from jdlopt.data.sound import KIND
from jdlopt.data.split import split_named
from jdlopt.data.table_files import is_table, read_table
from jdlopt.data.text_cleaning import clean
from jdlopt.data.text_files import read_file
from jdlopt.data.walk import PassedOver, files_under
from jdlopt.errors import DataError, listing

PATHS = ("path", "file", "filename", "file_name", "audio", "audio_filepath", "sound", "wav")
"""What the column of a manifest that holds paths may be called."""
TEXTS = ("text", "transcript", "transcription", "sentence")
"""What its column of transcripts may be called, where ``data.target`` does not say it."""
MANIFESTS = (LABELS, "metadata.csv", "metadata.jsonl", "manifest.csv", "manifest.jsonl")
"""What a manifest in a folder of sounds may be called."""
LISTS = ".trans.txt"
"""How files end that have the transcripts of their folder's sounds, a line each."""
NO_TEXT, NO_SOUND = "sound without a transcript", "transcript without a sound"


@dataclass
class Transcripts:
    """Sounds and what is said in them.

    Attributes:
      paths: of the sounds.
      texts: what is said, in one form.
      places: where each stands, for messages: a row of a manifest, or a file.
      splits: the split of each.
      beside: the ``group``, ``time``, ``weight`` and ``split_by`` of each, where the data section
        names them.
      column: of a manifest, the one that holds paths.
    """

    paths: list[Path] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)
    column: str | None = None


def read_transcripts(
    source: Path, fields: DataFields, skipped: Skipped, passed: PassedOver
) -> Transcripts:
    """Returns what a manifest lists, or what lies in a folder.

    A manifest is a table (CSV, TSV, Parquet, JSON lines) with a column of paths, which begin at its
    folder, and one of transcripts. A folder has one (`MANIFESTS`), or beside its sounds
    ``NAME.txt`` for ``NAME.wav``, or ``*.trans.txt`` with lines of a sound's name and what is said
    in it, as LibriSpeech has. First folders that are named like splits are these, if one is for
    training; sounds beside them are left out.

    Args:
      source: the manifest or folder.
      fields: the data section.
      skipped: where rows and files that are left out are counted.
      passed: where files that are not used are counted.

    Raises:
      DataError: a column, file or transcript is missing, and such rows are not left out.
    """
    if is_table(source):
        return _of_manifest(source, fields, skipped, passed, None)
    for name in MANIFESTS:
        if (source / name).is_file():
            return _of_manifest(source / name, fields, skipped, passed, None)
    return _of_folder(source, fields, skipped, passed)


def read_manifest(
    source: Path, split: str, fields: DataFields, skipped: Skipped, passed: PassedOver
) -> Transcripts:
    """Returns what a manifest of one split lists; see `read_transcripts`."""
    return _of_manifest(source, fields, skipped, passed, split)


def _of_manifest(
    path: Path, fields: DataFields, skipped: Skipped, passed: PassedOver, split: str | None
) -> Transcripts:
    named = names_of(fields.target)
    if len(named) > 1:
        raise DataError(f"data.target: {named}: transcripts stand in one column; name that one.")
    table = read_table(
        path,
        skipped if fields.on_bad == "skip" else None,
        as_text=(*PATHS, *TEXTS, *named, *((fields.split_by,) if fields.split_by else ())),
        remedies=True,
        missing_values=(),  # "none" and "null" may be said
        notes=passed.notes,
    )
    names = list(table.columns)
    column = next((name for name in PATHS if name in names), None)
    text = named[0] if named else next((name for name in TEXTS if name in names), None)
    if column is None or text is None:
        wanted, known = ("paths of sounds", PATHS) if column is None else ("transcripts", TEXTS)
        hint = "" if column is None else "; or data.target names another"
        raise DataError(
            f"{path}: expected a column of {wanted} ({listing(known)}{hint}); found the columns "
            f"{listing(names)}."
        )
    aside = [] if split not in (None, "train") else beside_named(fields)
    by_path = [pair for pair in aside if pair == ("split_by", BY_PATH) and BY_PATH not in names]
    aside = [pair for pair in aside if pair not in by_path]
    check_named(str(path), [("target", text), *aside], names)
    if not len(table):
        raise DataError(f"{path}: holds no row below its header.")
    files, texts = as_texts(table[column]), as_texts(table[text])
    keep, found = [], Transcripts(column=column)
    for row, (number, file, said) in enumerate(zip(table.index, files, texts, strict=True)):
        place = f"{path}, row {number}"
        sound = None if file is None else path.parent / file
        if sound is None or not (sound.is_file() and KIND.holds(sound)):
            what = f"no such sound: {file!r}" if file else "no path"
            _refuse(f"{place}: {what}; expected a file from {path.parent}", NO_SOUND, fields,
                    skipped, place)  # fmt: skip
            continue
        if _add(found, sound, said, place, fields, skipped):
            keep.append(row)
    table = table.iloc[keep]
    names_at = [files[row] or "" for row in keep]
    found.splits = [split] * len(keep) if split else splits_of(table, names_at, str(path))
    made = {key: beside(table[name], key, f"{path}, data.{key}") for key, name in aside}
    made |= {"split_by": np.array(names_at, object)} if by_path else {}
    found.beside = made
    return found


def _of_folder(
    folder: Path, fields: DataFields, skipped: Skipped, passed: PassedOver
) -> Transcripts:
    texts = frozenset(folder.rglob("*.txt"))
    sounds = files_under(folder, KIND, passed, but=texts)
    if not sounds:
        raise DataError(f"{folder}: holds no sound ({listing(KIND.suffixes)}).")
    lines = _lines_of(sorted(path for path in texts if path.name.endswith(LISTS)))
    splits = _splits(sounds, folder, passed)
    found = Transcripts()
    used = {sound.with_suffix("") for sound in sounds if sound not in splits}
    for sound in splits:
        beside_it = sound.with_suffix(".txt")
        key = sound.with_suffix("")
        if beside_it in texts:
            place, said = str(beside_it), read_file(beside_it)
        elif key in lines:
            place, said = lines[key]
            used.add(key)
        else:
            _refuse(
                f"{sound}: has no transcript: there is neither {beside_it.name} beside it, nor a "
                f"line of {sound.stem} in a file *{LISTS} there", NO_TEXT, fields, skipped,
                str(sound),
            )  # fmt: skip
            continue
        _add(found, sound, said, place, fields, skipped)
    for key, (place, _) in lines.items():
        if key not in used:
            passed.notes.add("left out", f"{NO_SOUND}s", place, unit="lines")
    relative = [path.relative_to(folder) for path in found.paths]
    found.splits = [splits[path] for path in found.paths]
    if fields.split_by is not None:
        found.beside = {"split_by": np.array([path.as_posix() for path in relative], object)}
    return found


def _splits(sounds: Sequence[Path], folder: Path, passed: PassedOver) -> dict[Path, str]:
    """Returns the split of each sound that is used: train, unless folders are named like splits.

    Raises:
      DataError: such folders are there, but none for training.
    """
    tops = {sound: _split_of(sound.relative_to(folder)) for sound in sounds}
    named = {split: sound for sound, split in tops.items() if split is not None}
    if not named:
        return dict.fromkeys(sounds, "train")
    if "train" not in named:
        names = listing(f"{path.relative_to(folder).parts[0]}/" for path in named.values())
        raise DataError(
            f"{folder}: has a folder for test or validation ({names}) but none called train. Put "
            f"the others in train/, or list all sounds in {folder / 'metadata.csv'}, with a column "
            "'split' if splits are meant."
        )
    found: dict[Path, str] = {}
    for sound, split in tops.items():
        if split is None:
            what = "sounds beside the folders of splits"
            passed.file(what, sound, "Put them in the folder of the split that they are for.")
        else:
            found[sound] = split
    return found


def _split_of(path: Path) -> str | None:
    """Returns the split that the first folder of a path names: ``train-clean-100`` is train."""
    if len(path.parts) == 1:
        return None
    first = path.parts[0]
    return split_named(first) or split_named(re.split(r"[-_. ]", first)[0])


def _lines_of(lists: Sequence[Path]) -> dict[Path, tuple[str, str]]:
    """Returns what files of transcripts say of each sound, by its path without an ending."""
    found: dict[Path, tuple[str, str]] = {}
    for path in lists:
        for row, line in enumerate(read_file(path).split("\n"), start=1):
            name, _, said = line.strip().partition(" ")
            if name:
                found[path.parent / name] = (f"{path}, line {row}", said)
    return found


def _add(
    found: Transcripts,
    sound: Path,
    said: str | None,
    place: str,
    fields: DataFields,
    skipped: Skipped,
) -> bool:
    """Adds a sound, if something is said in it."""
    text = clean(said or "", lowercase=fields.text.lowercase, html=fields.text.html)
    if not text:
        _refuse(f"{place}: the transcript of {sound.name} is empty", "empty transcript", fields,
                skipped, place)  # fmt: skip
        return False
    found.paths.append(sound)
    found.texts.append(text)
    found.places.append(place)
    return True


def _refuse(message: str, reason: str, fields: DataFields, skipped: Skipped, place: str) -> None:
    """Counts an example that can't be used, or raises a `DataError` that names it."""
    if fields.on_bad != "skip":
        raise DataError(f"{message}. Correct it, or leave such out with data.on_bad='skip'.")
    skipped.add(reason, place)
