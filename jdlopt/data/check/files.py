"""Folders of images or sound, file by file: what can't be read, and what is unlike the rest."""

from __future__ import annotations

import collections
import importlib
import os
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jdlopt.data import images
from jdlopt.data.check.examples import sampled
from jdlopt.data.check.finding import Finding, Part

MOST_FILES = 50_000
"""Of more files, so many are opened."""
SOUNDS = frozenset((".wav", ".flac", ".ogg"))

Looked = TypeVar("Looked")


def folder_findings(folder: Path) -> tuple[str, list[Finding]]:
    """Returns what a folder is of, ``image`` or ``audio``, and what its files show.

    Every file is opened, those of a test split too: a damaged one stops a run wherever it lies.
    """
    files = sorted(
        Path(place) / name
        for place, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )
    pictures = [file for file in files if file.suffix.lower() in images.SUFFIXES]
    sounds = [file for file in files if file.suffix.lower() in SOUNDS]
    if len(sounds) > len(pictures):
        return "audio", _sounds(folder, [sounds[i] for i in sampled(len(sounds), MOST_FILES)])
    return "image", _images(folder, [pictures[i] for i in sampled(len(pictures), MOST_FILES)])


def _images(folder: Path, files: list[Path]) -> list[Finding]:
    from PIL import Image

    def properties(file: Path) -> tuple[tuple[int, int], bool]:
        with Image.open(file) as image:
            image.load()
            if image.mode not in images.GREY_MODES + images.COLOUR_MODES:
                raise ValueError(f"pixels of mode {image.mode}")
            return (image.height, image.width), image.mode in images.GREY_MODES

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
            str, "", "They are all read as colour ones.",
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


def _sound(file: Path) -> tuple[int, int]:
    """Returns a file's samples a second and its length in samples."""
    try:
        soundfile = importlib.import_module("soundfile")
    except ImportError:
        from scipy.io import wavfile

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # chunks of notes, which say nothing of the sound
            rate, values = wavfile.read(file)
        length = len(values)
    else:
        info = soundfile.info(str(file))
        rate, length = info.samplerate, info.frames
    if rate < 1 or length < 1:
        raise ValueError("it holds no sample")
    return int(rate), int(length)


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
