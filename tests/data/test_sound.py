from __future__ import annotations

import contextlib
import io
import struct
import sys
import warnings
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile
from scipy.signal import resample_poly

from jdlopt.data import sound as sound_room
from jdlopt.data.damage import Unreadable
from jdlopt.data.fields import DataFields
from jdlopt.data.sound import decode_sound, open_sounds, read_header
from jdlopt.errors import DataError

RNG = np.random.default_rng(0)
RATE, SAMPLES = 800, 80


def write_wav(path, waveform, bits=16, rate=RATE):
    """Writes whole numbers, channels beside one another, with Python's own module."""
    values = waveform.reshape(len(waveform), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    size = bits // 8
    raw = (values + 128).astype(np.uint8) if bits == 8 else values.astype("<i4")
    packed = raw.tobytes() if bits == 8 else raw.view(np.uint8).reshape(-1, 4)[:, :size].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(values.shape[1])
        file.setsampwidth(size)
        file.setframerate(rate)
        file.writeframes(packed)


def save(path, samples=SAMPLES, rate=RATE):
    values = RNG.integers(-(2**15), 2**15, samples)
    write_wav(path, values, rate=rate)
    return (values / 2**15).astype(np.float32)


def make_folder(root, count=10, classes=("ant", "bee"), **options):
    return {
        f"{name}/{index}.wav": save(root / name / f"{index}.wav", **options)
        for name in classes
        for index in range(count)
    }


def opened(folder, **fields):
    return open_sounds(folder, DataFields(source=str(folder), **fields))


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_a_class(tmp_path):
    saved = make_folder(tmp_path)
    (tmp_path / "ant" / "notes.txt").write_text("not a sound")
    (tmp_path / ".hidden").mkdir()
    dataset = opened(tmp_path)
    assert dataset.spec.class_names == ("ant", "bee") and dataset.spec.input.sample_rate == RATE
    assert dataset.spec.input.shape == (SAMPLES,) and dataset.spec.input.dtype == "float32"
    assert dataset.sizes == {"train": 14, "validation": 2, "test": 4}
    for split in dataset.sizes:
        inputs, targets = dataset.read(split)
        assert inputs.dtype == np.float32
        pool, rows = dataset.pools["train"], dataset.parts[split][1]
        np.testing.assert_array_equal(pool.targets(rows), targets)
        for waveform, target, row in zip(inputs, targets, rows):
            name = pool.paths[row].relative_to(tmp_path).as_posix()
            np.testing.assert_array_equal(waveform, saved[name])
            assert name.startswith(dataset.spec.class_names[target])
        np.testing.assert_array_equal(dataset.records(split)[0][0], inputs[0])


@pytest.mark.parametrize("validation", [None, "validation", "val"])
def test_folders_for_splits(tmp_path, validation):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", count=3)
    if validation:
        make_folder(tmp_path / validation, count=2)
    expected = {"train": 20, "validation": 4} if validation else {"train": 18, "validation": 2}
    assert opened(tmp_path).sizes == expected | {"test": 6}


def test_rates_must_agree_or_are_made_to(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", count=1)
    odd = save(tmp_path / "train" / "bee" / "odd.wav", samples=160, rate=1600)
    message = r"odd.wav: has 1600 samples a second where .*ant/0.wav has 800. Set data.sample_rate"
    with pytest.raises(DataError, match=message):
        opened(tmp_path, validation_fraction=0.1)
    dataset = opened(tmp_path, sample_rate=1600)
    assert dataset.spec.input.sample_rate == 1600 and dataset.spec.input.shape == (160,)
    inputs = np.concatenate([dataset.read(split).inputs for split in ("train", "validation")])
    assert (inputs == odd).all(axis=1).any()
    (tmp_path / "train" / "bee" / "odd.wav").unlink()
    save(tmp_path / "test" / "ant" / "0.wav", rate=1600)
    message = r"ant/0.wav: has 1600 samples a second where training sounds have 800"
    dataset = opened(tmp_path)
    with pytest.raises(DataError, match=message):
        dataset.read("test")
    assert opened(tmp_path, sample_rate=400, seconds=0.1).read("test").inputs.shape == (2, 40)


def test_lengths_must_agree_or_are_made_to(tmp_path):
    saved = make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", count=1)
    longer = save(tmp_path / "train" / "bee" / "long.wav", samples=100)
    message = r"long.wav: lasts 0.125 s \(100 samples\) where .*0.wav lasts 0.100 s \(80 samples\)"
    with pytest.raises(DataError, match=message + ". Set data.seconds"):
        opened(tmp_path)
    for samples in (90, 40):
        dataset = opened(tmp_path, seconds=samples / RATE)
        assert dataset.spec.input.shape == (samples,)
        inputs = np.concatenate([dataset.read(split).inputs for split in ("train", "validation")])
        for waveform in (longer, saved["ant/0.wav"]):
            cut = waveform[:samples]
            expected = np.concatenate([cut, np.zeros(samples - len(cut), np.float32)])
            assert (inputs == expected).all(axis=1).any()
    (tmp_path / "train" / "bee" / "long.wav").unlink()
    save(tmp_path / "test" / "ant" / "0.wav", samples=70)
    dataset = opened(tmp_path)
    with pytest.raises(DataError, match=r"ant/0.wav: lasts .*70 samples.* training sounds last"):
        dataset.read("test")


@pytest.mark.parametrize("separate", [False, True])
def test_test_sounds_are_not_opened_before_they_are_read(tmp_path, monkeypatch, separate):
    make_folder(tmp_path / "train" if separate else tmp_path)
    if separate:
        make_folder(tmp_path / "test")
    seen, original = set(), sound_room._read
    monkeypatch.setattr(
        sound_room, "_read", lambda file, *rest: seen.add(file) or original(file, *rest)
    )
    dataset = opened(tmp_path, on_bad="skip")
    dataset.read("train")
    dataset.read("validation")
    pool, rows = dataset.parts["test"]
    paths = np.array(dataset.pools[pool].paths, dtype=object)
    test_paths = set(paths if rows is None else paths[rows])
    assert seen
    assert not seen & test_paths
    dataset.read("test")
    assert test_paths <= seen


def test_an_unreadable_sound_is_named_or_skipped(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test")
    dataset = opened(tmp_path)
    whole = (tmp_path / "train" / "bee" / "3.wav").read_bytes()
    (tmp_path / "train" / "bee" / "3.wav").write_bytes(b"RIFF broken")
    (tmp_path / "train" / "bee" / "4.wav").write_bytes(whole[:-40])
    (tmp_path / "test" / "ant" / "1.wav").write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"bee/[34].wav: can't be read as a sound"):
        opened(tmp_path)
    with pytest.raises(DataError, match=r"ant/1.wav: can't be read as a sound: it is cut off"):
        dataset.read("test")
    dataset = opened(tmp_path, on_bad="skip")
    assert dataset.sizes["train"] + dataset.sizes["validation"] == 18
    assert dataset.skipped == {"unreadable sound": 2}
    for index in range(10):
        (tmp_path / "train" / "bee" / f"{index}.wav").write_bytes(b"")
    with pytest.raises(DataError, match="no training sound is left of bee: "):
        opened(tmp_path, on_bad="skip")


def test_wrong_folders(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="found 0 class folders"):
        opened(empty)
    one = tmp_path / "one"
    make_folder(one, classes=("ant",))
    with pytest.raises(DataError, match=r"1 class folders \(ant\), .* 2, each with its sounds"):
        opened(one)
    (one / "bee").mkdir()
    with pytest.raises(DataError, match=r"bee: the class folder holds no sound \(.flac, .oga"):
        opened(one)
    only_test = tmp_path / "only_test"
    make_folder(only_test / "test")
    with pytest.raises(DataError, match="none called train"):
        opened(only_test)
    make_folder(only_test / "train", classes=("ant", "cow"))
    with pytest.raises(DataError, match="classes that train/ does not have: bee"):
        opened(only_test)
    make_folder(tmp_path / "good")
    with pytest.raises(DataError, match=r"needs a file labels.csv"):
        opened(tmp_path / "good", task="regression")
    with pytest.raises(DataError, match="the folder can't be read: No such file"):
        opened(tmp_path / "none")


# --- decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_whole_numbers_are_scaled_and_channels_averaged(tmp_path, bits, channels):
    top = 2 ** (bits - 1)
    values = RNG.integers(-top, top, (51, channels))  # an odd number of bytes: padded in the file
    values[0], values[1] = -top, top - 1
    path = tmp_path / "a.wav"
    write_wav(path, values, bits)
    waveform = decode_sound(path, None, None, "a")
    np.testing.assert_allclose(waveform, (values / top).mean(axis=1), rtol=0, atol=1e-6)
    assert waveform.dtype == np.float32 and np.abs(waveform).max() <= 1
    assert read_header(path) == (RATE, 51)
    np.testing.assert_array_equal(
        decode_sound(io.BytesIO(path.read_bytes()), None, None, "a"), waveform
    )


@pytest.mark.parametrize(
    ("dtype", "scale", "middle"),
    [("f4", 1, 0), ("f8", 1, 0), ("i4", 2**31, 0), ("i2", 2**15, 0), ("u1", 2**7, 2**7)],
)
def test_what_scipy_writes(tmp_path, dtype, scale, middle):
    values = RNG.uniform(-0.99, 0.99, (50, 2))
    wavfile.write(tmp_path / "a.wav", RATE, (values * scale + middle).astype(dtype))
    waveform = decode_sound(tmp_path / "a.wav", None, None, "a")
    rounding = 1e-6 if dtype.startswith("f") else 1e-6 + 1 / scale
    np.testing.assert_allclose(waveform, values.mean(axis=1), rtol=0, atol=rounding)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg"])
def test_compressed_sound(tmp_path, name):
    soundfile = pytest.importorskip("soundfile")
    time = np.arange(8000) / 8000
    values = np.stack([np.sin(600 * time), np.cos(900 * time)], axis=1) * 0.5
    path = tmp_path / name
    soundfile.write(path, values, 8000)
    waveform = decode_sound(path, None, None, "a")
    tolerance = 1 / 2**15 if name.endswith("flac") else 0.05
    np.testing.assert_allclose(waveform, values.mean(axis=1), rtol=0, atol=tolerance)
    assert read_header(path) == (8000, 8000)
    np.testing.assert_array_equal(
        decode_sound(io.BytesIO(path.read_bytes()), None, None, "a"), waveform
    )
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(Unreadable, match=r"a.name: can't be read as a sound"):
        decode_sound(path, None, None, "a.name")


def test_without_soundfile_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC and so on")
    with pytest.raises(DataError, match=r"a.flac: FLAC needs soundfile: pip install") as raised:
        decode_sound(path, None, None, "a.flac")
    assert not isinstance(raised.value, Unreadable)  # the file is not at fault: never skipped
    save(tmp_path / "a.wav")
    assert decode_sound(tmp_path / "a.wav", None, None, "a").shape == (SAMPLES,)


@pytest.mark.parametrize(("rate", "samples"), [(400, None), (1200, 100), (441, 200), (800, 20)])
def test_resampling_and_length(tmp_path, rate, samples):
    waveform = save(tmp_path / "a.wav")
    common = np.gcd(rate, RATE)
    expected = waveform
    if rate != RATE:
        expected = resample_poly(waveform.astype(np.float64), rate // common, RATE // common)
    length = len(expected) if samples is None else samples
    result = decode_sound(tmp_path / "a.wav", rate, samples, "a")
    padded = np.pad(expected[:length], (0, max(0, length - len(expected))))
    np.testing.assert_allclose(result, padded, rtol=0, atol=1e-5)
    assert result.dtype == np.float32


def test_odd_chunks_are_passed_over(tmp_path):
    waveform = save(tmp_path / "a.wav")
    raw = (tmp_path / "a.wav").read_bytes()
    notes = b"note" + struct.pack("<I", 5) + b"hello\0"
    body = raw[8:12] + notes + raw[12:] + notes
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    np.testing.assert_array_equal(decode_sound(tmp_path / "a.wav", None, None, "a"), waveform)
    assert read_header(tmp_path / "a.wav") == (RATE, SAMPLES)


def riff(values, rate=RATE, bits=16, tag=1):
    size = bits // 8
    fmt = struct.pack("<HHIIHH", tag, 1, rate, rate * size, size, bits)
    data = b"fmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(values)) + values
    return b"RIFF" + struct.pack("<I", 4 + len(data)) + b"WAVE" + data


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "begins like no WAV, FLAC or OGG file"),
        (b"\x89PNG....", "begins like no WAV"),
        (riff(b""), "it holds no sample"),
        (riff(bytes(8), rate=0), ""),
        (riff(bytes(8), tag=85), ""),
        (riff(bytes(16), bits=64), "more than 32 bits"),
        (riff(np.array([0, np.nan], "<f4").tobytes(), bits=32, tag=3), "holds NaN or infinity"),
        (riff(bytes(400))[:-10], "cut off"),
        (riff(bytes(400))[:30], ""),
    ],
    ids=["empty", "png", "no_sample", "rate", "format", "bits", "nan", "cut", "cut_header"],
)
def test_damaged_files(tmp_path, content, reason):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    for file in (path, io.BytesIO(content)):
        with pytest.raises(Unreadable, match=f"my sound: can't be read as a sound: .*{reason}"):
            decode_sound(file, None, None, "my sound")
    if "NaN" not in reason and "cut" not in reason:
        with pytest.raises(Unreadable, match=r"a.wav: can't be read as a sound"):
            read_header(path)


def piped(length, whole):
    """A WAV whose lengths were not known when its header was written."""
    values = RNG.integers(-999, 999, 60).astype("<i2")
    raw = bytearray(riff(values.tobytes()))
    raw[4:8], raw[40:44] = struct.pack("<I", whole), struct.pack("<I", length)
    return values, bytes(raw)


@pytest.mark.parametrize(
    ("length", "whole"),
    [(0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF000, 0x7FFFF024), (0x80000000, 0x80000024), (0, 0), (0, 36)],
)
def test_a_length_that_was_not_known_means_to_the_end(tmp_path, length, whole):
    values, raw = piped(length, whole)
    path = tmp_path / "a.wav"
    for tail in (b"", b"\x01"):  # a sample may be cut off in the middle
        path.write_bytes(raw + tail)
        assert read_header(path) == (RATE, 60)
        for file in (path, io.BytesIO(raw + tail)):
            found = decode_sound(file, None, None, "a")
            np.testing.assert_array_equal(found, values / np.float32(2**15))
    path.write_bytes(raw)
    if length == 0xFFFFFFFF:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            np.testing.assert_array_equal(wavfile.read(path)[1], values)


def test_no_sample_is_no_unknown_length(tmp_path):
    notes = b"LIST" + struct.pack("<I", 4) + b"INFO"
    body = riff(b"")[8:] + notes
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    with pytest.raises(Unreadable, match="it holds no sample"):
        read_header(path)


def test_a_chunk_of_odd_size_whose_last_byte_was_forgotten(tmp_path):
    values = RNG.integers(-999, 999, 60).astype("<i2")
    raw = riff(values.tobytes())
    for padding in (b"", b"\0"):
        body = raw[8:36] + b"note" + struct.pack("<I", 5) + b"hello" + padding + raw[36:]
        path = tmp_path / "a.wav"
        path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
        assert read_header(path) == (RATE, 60)
        found = decode_sound(path, None, None, "a")
        np.testing.assert_array_equal(found, values / np.float32(2**15))


SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM")


@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64", "RIFX"])
def test_what_soundfile_writes_is_read_as_it_reads_it(tmp_path, subtype, form):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "a.wav"
    values = RNG.uniform(-0.9, 0.9, (505, 2))
    endian, kind = ("BIG", "WAV") if form == "RIFX" else ("FILE", form)
    if not soundfile.check_format(kind, subtype, endian):
        pytest.skip("soundfile writes no such file")
    with soundfile.SoundFile(path, "w", RATE, 2, subtype, endian, kind) as file:
        file.write(values)
    expected, rate = soundfile.read(path, dtype="float32")
    found = decode_sound(path, None, None, "a")
    np.testing.assert_allclose(found, expected.mean(axis=1), rtol=0, atol=1e-6)
    assert read_header(path) == (rate, len(expected))
    np.testing.assert_array_equal(
        decode_sound(io.BytesIO(path.read_bytes()), None, None, "a"), found
    )


def test_coded_samples_need_soundfile(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    path = tmp_path / "a.wav"
    path.write_bytes(riff(bytes(8), bits=8, tag=7))
    with pytest.raises(DataError, match=r"a.wav: .* needs soundfile: pip install") as raised:
        read_header(path)
    assert not isinstance(raised.value, Unreadable)


@given(
    st.binary(max_size=80),
    st.sampled_from([b"RIFF", b"fLaC", b"OggS", riff(b"")[:24], riff(b"")[:40]]),
)
@settings(max_examples=80, deadline=None)
def test_damaged_bytes_never_do_more_than_fail(damage, start):
    file = io.BytesIO(start + damage)
    with contextlib.suppress(DataError):
        assert decode_sound(file, 800, 10, "damaged").shape == (10,)
