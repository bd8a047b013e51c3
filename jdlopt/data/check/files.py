"""Folders of files, file by file: what can't be read, and what is unlike the rest."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jdlopt.data import image_decoding, masks, sound, text_files
from jdlopt.data.check.examples import sampled
from jdlopt.data.check.finding import Finding, Part
from jdlopt.data.damage import Skipped
from jdlopt.data.fields import DataFields
from jdlopt.data.folders import read_files
from jdlopt.data.notes import MOST_TOLD, Note
from jdlopt.data.walk import HIDDEN, IN_HIDDEN, PassedOver, files_under, most_of
from jdlopt.errors import DataError

MOST_FILES = 50_000
"""Of more files, so many are opened."""

Looked = TypeVar("Looked")


def folder_findings(folder: Path, fields: DataFields) -> tuple[str, list[Finding], str]:
    """Returns what a folder is of, what its files show, and which were opened.

    The files are those that a run uses, the test split's too: a damaged one stops a run wherever
    it lies. Where a run can't open the folder, they are all files of the kind that are in it.
    """
    kinds = (image_decoding.KIND, sound.KIND, text_files.KIND)
    kind = most_of(folder, kinds) or image_decoding.KIND
    passed = PassedOver()
    notes: tuple[Note, ...] = ()
    try:
        if masks.is_meant(folder, fields):
            files = masks.image_files(folder)
        else:
            found = read_files(folder, kind, fields, Skipped())
            files = [path for paths in found.paths.values() for path in paths]
            notes = found.notes
    except DataError:
        files = files_under(folder, kind, passed)
        notes = tuple(passed.notes)
    chosen = [files[i] for i in sampled(len(files), MOST_FILES)]
    all_of = "all" if len(chosen) == len(files) else f"{len(chosen):,} of"
    opened = (
        f"Of the folder, {all_of} {len(files):,} {kind.name}s were opened and decoded, those of "
        "the test split too: a damaged one stops a run."
        if files
        else f"The folder holds no {kind.name} that a run could use."
    )
    name, look = LOOKS[kind.name]
    return name, [*look(folder, chosen), *_left_out(notes)], opened


def _left_out(notes: Iterable[Note]) -> Iterator[Finding]:
    """Yields what is not used of a folder; hidden files are not meant to be."""
    for note in notes:
        if note.kind == "left out" and note.what not in (HIDDEN, IN_HIDDEN):
            yield Finding(
                kind="passed_over",
                severity="warning",
                problem="files that are not used",
                text=f"{note.count:,} {note.unit}: {note.what}.",
                count=note.count,
                of=note.count,
                unit=note.unit,
                advice=note.remedy or "Convert or move them, or leave them where they are.",
                parts=tuple(
                    Part(place, np.array([], int), 1, note.what)
                    for place in note.places[:MOST_TOLD]  # then comes how many more there are
                ),
            )


def _images(folder: Path, files: list[Path]) -> list[Finding]:
    def properties(file: Path) -> tuple[tuple[int, int], bool]:
        with image_decoding.opened(file, str(file)) as image:
            look = image_decoding.look_at(image)
            image.load()
            return look.size, look.grey

    known, found = _opened(folder, files, properties, "images")
    sizes = {file: size for file, (size, _) in known.items()}
    grey = {file: "grey" if is_grey else "colour" for file, (_, is_grey) in known.items()}
    common = _common(sizes.values())
    return [
        *found,
        *_unlike(
            folder, sizes, "wrong_image_size", "error", "images of another size",
            lambda size: f"{size[0]} x {size[1]} pixels",
            f"data.image_size={common}", "Resize all of them to one size:",
        ),
        *_unlike(
            folder, grey, "mixed_colours", "note", "grey and colour images together",
            str, "", "All are read in grey if all to train on are grey, else in colour.",
        ),
    ]  # fmt: skip


def _sounds(folder: Path, files: list[Path]) -> list[Finding]:
    known, found = _opened(folder, files, _sound, "sounds")
    rates = {file: rate for file, (rate, _) in known.items()}
    seconds = {file: round(length / rate, 3) for file, (rate, length) in known.items()}
    return [
        *found,
        *_unlike(
            folder, rates, "odd_rate", "error", "sounds of another rate",
            lambda rate: f"{rate:,} samples a second",
            f"data.sample_rate={_common(rates.values())}", "Resample all of them to one rate:",
        ),
        *_unlike(
            folder, seconds, "odd_length", "error", "sounds of another length",
            lambda length: f"{length:g} s",
            f"data.seconds={float(_common(seconds.values()) or 1.0)}",
            "Cut or fill all of them to one length:",
        ),
    ]  # fmt: skip


def _texts(folder: Path, files: list[Path]) -> list[Finding]:
    return _opened(folder, files, text_files.read_file, "texts")[1]


def _sound(file: Path) -> tuple[int, int]:
    """Returns a file's samples a second and its length in samples."""
    values, rate = sound.read_sound(file, str(file))
    return rate, len(values)


LOOKS: dict[str, tuple[str, Callable[[Path, list[Path]], list[Finding]]]] = {
    "image": ("image", _images),
    "sound": ("audio", _sounds),
    "text": ("text", _texts),
}
"""What files hold → what a check calls it, and what it looks for."""


def _opened(
    folder: Path, files: list[Path], look: Callable[[Path], Looked], what: str
) -> tuple[dict[Path, Looked], list[Finding]]:
    """Returns what was read of each file, and those that could not be, as one finding."""
    known, broken = {}, []
    for file in files:
        try:
            known[file] = look(file)
        except Exception as error:  # decoders let all kinds through on damaged bytes
            reason = " ".join(str(error).split()).replace(str(file), file.name)
            broken.append((file, f"{type(error).__name__}: {reason}"[:160]))
    if not broken:
        return known, []
    parts = tuple(
        Part(file.relative_to(folder).as_posix(), np.array([], int), 1, reason)
        for file, reason in broken
    )
    finding = Finding(
        kind="damaged_file",
        severity="error",
        problem=f"{what} that can't be read",
        text=f"{len(broken):,} of {len(files):,} files can't be read.",
        count=len(broken),
        of=len(files),
        unit="files",
        advice="Replace or remove them, or leave them out:",
        parts=parts,
    )
    return known, [finding]


def _common(values: Iterable[Hashable]) -> Any:
    counted = collections.Counter(values).most_common(1)
    return counted[0][0] if counted else None


def _unlike(
    folder: Path,
    values: Mapping[Path, Hashable],
    kind: str,
    severity: str,
    problem: str,
    words: Callable[..., str],
    config: str,
    advice: str,
) -> list[Finding]:
    """Returns one finding over the files whose value is not the most common one."""
    common = _common(values.values())
    odd = {file: value for file, value in values.items() if value != common}
    if not odd:
        return []
    parts = tuple(
        Part(file.relative_to(folder).as_posix(), np.array([], int), 1, words(value))
        for file, value in odd.items()
    )
    return [
        Finding(
            kind=kind,
            severity=severity,
            problem=problem,
            text=f"{len(odd):,} of {len(values):,} files are unlike the others ({words(common)}).",
            count=len(odd),
            of=len(values),
            unit="files",
            config=config,
            advice=advice,
            parts=parts,
        )
    ]
