"""Sound: a folder with one subfolder a class, decoded when an example is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Num

from jdlopt.data import wav
from jdlopt.data.damage import Skipped, Unreadable
from jdlopt.data.dataset import Dataset, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.folders import read_files, split_files
from jdlopt.data.pools import Arrays, Pool
from jdlopt.data.spec import InputSpec
from jdlopt.data.walk import FileKind, check_regular
from jdlopt.data.waveforms import as_waveform, read_each
from jdlopt.errors import DataError

SUFFIXES = frozenset((".wav", ".wave", ".flac", ".ogg", ".oga"))
COMPRESSED = {b"fLaC": "FLAC", b"OggS": "OGG"}
"""How the files begin that soundfile is needed for."""


def begins_as_sound(head: bytes) -> bool:
    """Returns whether a file that begins so is a sound of a format that is read here."""
    return head[:4] in COMPRESSED or (head[:4] in wav.IDENTIFIERS and head[8:12] == b"WAVE")


KIND = FileKind("sound", SUFFIXES, begins_as_sound)


class Decoded(NamedTuple):
    """Samples as a file has them, channels beside one another if there are several."""

    values: Num[np.ndarray, "samples *channels"]
    rate: int


class Header(NamedTuple):
    """A sound's samples a second, and how many it has."""

    rate: int
    samples: int


@dataclass(frozen=True)
class SoundPool:
    """Sound files and the class of each.

    Attributes:
      paths, labels: the files and their classes.
      rate: samples a second of a waveform.
      samples: samples of a waveform.
      resample: whether files may have another rate; otherwise one is refused.
      fit: whether files are cut or padded; otherwise one of another length is refused.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    rate: int
    samples: int
    resample: bool
    fit: bool

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.generic]:
        return self._waveform(index), self.labels[index]

    def _waveform(self, index: int) -> Float32[np.ndarray, " samples"]:
        path = self.paths[index]
        values, rate = read_sound(path, str(path))
        if rate != self.rate and not self.resample:
            raise DataError(_other_rate(path, rate, "training sounds have", self.rate))
        waveform = as_waveform(values, rate, self.rate, self.samples if self.fit else None)
        if len(waveform) != self.samples:
            lengths = _lasts(len(waveform), self.rate), _lasts(self.samples, self.rate)
            raise DataError(_other_length(path, lengths[0], "training sounds last", lengths[1]))
        return waveform

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the waveforms at the indices, or all of them."""
        chosen = np.arange(len(self)) if indices is None else indices
        return Arrays(read_each(self._waveform, chosen, self.samples), self.labels[chosen])

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the targets at the indices, or of all sounds, without opening any."""
        return self.labels if indices is None else self.labels[indices]


def open_sounds(folder: Path, fields: DataFields) -> Dataset:
    """Opens a folder of sounds: ``CLASS/*.wav``, or ``train/CLASS/*.wav`` and ``test/CLASS/*.wav``.

    Or one with a ``labels.csv``: see `jdlopt.data.label_file.read_label_file`.

    Inputs are waveforms of one channel, the mean of a file's. Files must all have one sample rate,
    or ``data.sample_rate`` gives the one to resample to; and one length, or ``data.seconds`` gives
    the one to cut or pad to, with zeros at the end. Test sounds are not opened before
    ``read("test")``. With ``data.on_bad='skip'`` all training and validation sounds are decoded
    once, and those that can't be are left out.

    Raises:
      DataError: no class folders, a class without sounds, an unreadable sound, unequal rates or
        lengths.
    """
    skipped = Skipped()
    found = read_files(folder, KIND, fields, skipped)
    parts, seen = split_files(
        found, fields, folder, "sound", lambda path: read_sound(path, str(path)), skipped
    )
    sample_rate, seconds = fields.sample_rate, fields.seconds
    header = survey(seen, sample_rate, seconds)
    pools: dict[str, Pool] = {
        split: SoundPool(
            paths,
            found.targets[split],
            rate=header.rate,
            samples=header.samples,
            resample=sample_rate is not None,
            fit=seconds is not None,
        )
        for split, paths in found.paths.items()
    }
    return make_dataset(
        fields=fields,
        name=folder.resolve().name,
        coding=found.coding,
        inputs=InputSpec((header.samples,), "float32", sample_rate=header.rate),
        pools=pools,
        labels=lambda: found.targets["train"],
        parts=parts,
        checked=("train", "validation"),
        skipped=skipped,
        beside=found.beside,
        notes=found.notes,
        origins=found.origins(folder),
    )


def survey(paths: Sequence[Path], sample_rate: int | None, seconds: float | None) -> Header:
    """Returns the rate and length that all files have, or get, from their headers."""
    first: Header | None = None
    for path in paths:
        rate, samples = read_header(path)
        if sample_rate is not None:
            rate, samples = sample_rate, -(-samples * sample_rate // rate)
        first = first or Header(rate, samples)
        if rate != first.rate:
            raise DataError(_other_rate(path, rate, f"{paths[0]} has", first.rate))
        if seconds is None and samples != first.samples:
            lengths = _lasts(samples, rate), _lasts(first.samples, rate)
            raise DataError(_other_length(path, lengths[0], f"{paths[0]} lasts", lengths[1]))
    assert first is not None
    if seconds is None:
        return first
    return Header(first.rate, max(1, round(seconds * first.rate)))


def _other_rate(path: Path, found: int, others: str, expected: int) -> str:
    return (
        f"{path}: has {found} samples a second where {others} {expected}. Set data.sample_rate to "
        "resample all sounds to one rate."
    )


def _other_length(path: Path, found: str, others: str, expected: str) -> str:
    return (
        f"{path}: lasts {found} where {others} {expected}. Set data.seconds to cut or pad all "
        "sounds to one length."
    )


def _lasts(samples: int, rate: int) -> str:
    return f"{samples / rate:.3f} s ({samples} samples)"


# --- decoding -------------------------------------------------------------------------------------


def decode_sound(
    file: Path | io.BytesIO, sample_rate: int | None, samples: int | None, name: str
) -> Float32[np.ndarray, " samples"]:
    """Decodes a sound as one channel of float32, whole numbers scaled to [-1, 1].

    Args:
      file: a path, or the encoded sound: WAV with whole numbers of 8 to 32 bits or floats; FLAC or
        OGG where soundfile is installed.
      sample_rate: samples a second to resample to; None keeps the file's.
      samples: the length to cut to, or to pad to with zeros at the end; None keeps the sound's own.
      name: names the sound, for messages.

    Raises:
      DataError: the sound can't be decoded.
    """
    values, rate = read_sound(file, name)
    return as_waveform(values, rate, rate if sample_rate is None else sample_rate, samples)


def read_sound(file: Path | io.BytesIO, name: str) -> Decoded:
    """Returns a sound as it is stored: all channels, at its own rate.

    Args:
      file: as for `decode_sound`.
      name: names the sound, for messages.

    Raises:
      DataError: the sound can't be decoded; an `Unreadable` where the file is at fault.
    """
    decoded = _read(file, name, lambda: _read_wav(file), lambda: _read_compressed(file))
    if not len(decoded.values):
        raise _unreadable(name, "it holds no sample")
    if decoded.values.dtype.kind == "f" and not np.isfinite(decoded.values).all():
        raise _unreadable(name, "it holds NaN or infinity")
    return decoded


def read_header(path: Path) -> Header:
    """Returns a sound file's rate and length, without decoding it where that can be done.

    Raises:
      DataError: the file can't be read; an `Unreadable` where it is at fault.
    """

    def of_wav() -> Header:
        found = _found(path)
        if not found.is_plain:
            return of_compressed()
        return Header(found.rate, found.length // found.frame)

    def of_compressed() -> Header:
        import soundfile

        info = soundfile.info(str(path))
        return Header(info.samplerate, info.frames)

    header = _read(path, str(path), of_wav, of_compressed)
    if not header.samples:
        raise _unreadable(str(path), "it holds no sample")
    return header


def _read(
    file: Path | io.BytesIO, name: str, of_wav: Callable[[], Any], compressed: Callable[[], Any]
) -> Any:
    """Calls the reader of a file's format; what it says against the file becomes `Unreadable`."""
    if isinstance(file, Path):
        check_regular(file, name)
    try:
        if isinstance(file, io.BytesIO):
            start = file.getvalue()[:4]
        else:
            with file.open("rb") as opened:
                start = opened.read(4)
    except OSError as error:
        raise _unreadable(name, error.strerror or str(error)) from error
    if start in COMPRESSED:
        _need_soundfile(f"{name}: {COMPRESSED[start]}")
    elif start not in wav.IDENTIFIERS:
        raise _unreadable(name, "it begins like no WAV, FLAC or OGG file")
    try:
        decoded = compressed() if start in COMPRESSED else of_wav()
        if decoded.rate < 1:
            raise ValueError(f"it has {decoded.rate} samples a second")
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:  # decoders let all kinds through on damaged bytes
        kind = "" if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: "
        raise _unreadable(name, f"{kind}{' '.join(str(error).split())}") from error
    return decoded


def _unreadable(name: str, reason: str) -> Unreadable:
    return Unreadable(
        f"{name}: can't be read as a sound: {reason}. Replace or remove it, or leave such sounds "
        "out with data.on_bad='skip'.",
        "unreadable sound",
    )


def _found(file: Path | io.BytesIO) -> wav.Wav:
    """Returns where a WAV file has its samples, if they are whole and of a kind that is read."""
    found = wav.find(file)
    if found.cut:
        raise ValueError("it is cut off: its header promises more than there is")
    if not found.is_plain:
        _need_soundfile("samples of this coding in a WAV file")
    elif found.bits > 32 and not found.is_float:
        raise ValueError("its samples have more than 32 bits")
    elif not found.frame:
        raise ValueError("its samples have no size")
    return found


def _need_soundfile(what: str) -> None:
    try:
        import soundfile  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: it lacks its C library
        raise DataError(f"{what} needs soundfile: pip install soundfile.") from error


def _read_wav(file: Path | io.BytesIO) -> Decoded:
    from scipy.io import wavfile

    found = _found(file)
    if not found.is_plain:
        if isinstance(file, io.BytesIO):
            file.seek(0)
        return _read_compressed(file)
    if not found.length:  # which scipy refuses in words of its own
        return Decoded(np.empty(0, np.int16), found.rate)
    rate, values = wavfile.read(wav.plain(file, found))
    return Decoded(values, int(rate))


def _read_compressed(file: Path | io.BytesIO) -> Decoded:
    import soundfile

    with soundfile.SoundFile(file) as opened:
        values = opened.read(dtype="float32")
        if len(values) < opened.frames:
            raise ValueError("it is cut off: its header promises more than there is")
        return Decoded(values, opened.samplerate)
