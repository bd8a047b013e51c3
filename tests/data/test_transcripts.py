"""Sounds with transcripts: manifests, folders, and what of them can't be used."""

from __future__ import annotations

import json
import wave

import numpy as np
import pytest

from jdlopt.data import open_dataset
from jdlopt.data.inputs import read_inputs
from jdlopt.data.spec import DataSpec
from jdlopt.data.transcript_coding import (
    classes_of_pieces,
    coding_of,
    collapsed,
    padded,
    steps_needed,
    texts_of,
)
from jdlopt.errors import DataError

RATE = 800
FEATURES = {"audio": "log_mel", "n_fft": 64, "hop": 40, "num_mels": 4}


def save(path, samples=400, rate=RATE, silent=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(samples).integers(-(2**14), 2**14, samples)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((0 * values if silent else values).astype("<i2").tobytes())


def manifest(folder, rows, name="manifest.jsonl"):
    """Writes the sounds of rows, if they are not there, and a manifest of them."""
    for place, row in enumerate(rows):
        row.setdefault("path", f"{place}.wav")
        if not (folder / row["path"]).exists() and "none" not in row["path"]:
            save(folder / row["path"], 400 + place)
    lines = [json.dumps(row) for row in rows]
    if name.endswith(".csv"):
        names = list(rows[0])
        lines = [",".join(names), *(",".join(str(row[one]) for one in names) for row in rows)]
    (folder / name).write_text("\n".join(lines), "utf-8")
    return folder / name


def rows(count=20, **changed):
    split = ["train"] * (count - 6) + ["validation"] * 3 + ["test"] * 3
    made = [{"text": f"{place % 10} ab", "split": one} for place, one in enumerate(split)]
    for place, change in changed.items():
        made[int(place.removeprefix("row"))] |= change
    return made


def opened(source, **fields):
    section = {"source": str(source), "task": "transcription", "preprocess": FEATURES, **fields}
    return open_dataset(section)


@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.csv"])
def test_a_manifest_gives_waveforms_and_symbols(tmp_path, name):
    made = rows(row0={"text": "NULL  12"}, row1={"text": "007"})
    dataset = opened(manifest(tmp_path, made, name))
    spec = dataset.spec
    assert spec.task == "transcription" and spec.positions == 1 and spec.target_shape == (7,)
    assert spec.class_names == ("", " ", *"0123456789ablnu") and dataset.sizes["test"] == 3
    assert spec.input.sample_rate == RATE and spec.input.shape == (419,)  # of the longest
    inputs, targets = dataset.read("train")
    assert texts_of(targets, spec.class_names)[:3] == ["null 12", "007", "2 ab"]
    assert not inputs[0, 400:].any() and inputs[13, :413].any()
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).positions == 1
    found = read_inputs(tmp_path / name, spec.inputs)  # as `jdlopt predict` reads it
    np.testing.assert_array_equal(found.inputs[:14], inputs)
    save(tmp_path / "long.wav", 900)
    found = read_inputs(tmp_path, spec.inputs)
    assert found.inputs.shape == (21, 419)
    assert [note.places for note in found.notes if "are cut to" in note.what] == [("long.wav",)]


def test_folders_with_transcripts_beside_the_sounds(tmp_path):
    for split, count in (("train-clean", 6), ("dev-clean", 2), ("test-other", 2)):
        lines = []
        for place in range(count):
            save(tmp_path / split / "7" / f"7-{place}.wav", 400 + place)
            lines.append(f"7-{place} SAID {split[0]}{place}")
        (tmp_path / split / "7" / "7.trans.txt").write_text("\n".join([*lines, "7-99 MORE"]))
    dataset = opened(tmp_path)
    assert dataset.sizes == {"train": 6, "validation": 2, "test": 2}
    said = texts_of(dataset.targets("train"), dataset.spec.class_names)
    assert said == [f"said t{place}" for place in range(6)]
    assert any("transcript without a sound" in note.what for note in dataset.notes)


def test_a_text_beside_each_sound(tmp_path):
    for place in range(12):
        save(tmp_path / f"{place}.wav")
        (tmp_path / f"{place}.txt").write_text(f"take {place % 2}\n")
    dataset = opened(tmp_path, text={"lowercase": False})
    assert sum(dataset.sizes.values()) == 12 and dataset.spec.num_classes == 8
    (tmp_path / "3.txt").unlink()
    with pytest.raises(DataError, match=r"3\.wav: has no transcript: .*3\.txt"):
        opened(tmp_path)
    assert sum(opened(tmp_path, on_bad="skip").sizes.values()) == 11


BAD = {
    "empty": ({"text": " "}, r"manifest.jsonl, row 3: the transcript of 2.wav is empty"),
    "missing": ({"path": "none.wav"}, r"manifest.jsonl, row 3: no such sound: 'none.wav'"),
    "too long": ({"text": "a" * 7}, r"row 3: the transcript needs 13 steps.* has 11 frames"),
    "rates": ({"path": "odd.wav"}, r"row 3: odd.wav has 1600 samples a second where"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cant_be_used_is_named_by_file_and_row(tmp_path, case):
    save(tmp_path / "odd.wav", rate=1600)
    change, message = BAD[case]
    path = manifest(tmp_path, rows(row2=change))
    with pytest.raises(DataError, match=message):
        opened(path)
    if case == "rates":
        assert opened(path, sample_rate=1600).spec.input.shape == (838,)
    else:
        dataset = opened(path, on_bad="skip")
        assert dataset.sizes["train"] == 13 and sum(dataset.skipped.values()) == 1


def test_characters_that_no_training_transcript_has(tmp_path):
    path = manifest(tmp_path, rows(row15={"text": "1 äb"}, row18={"text": "ab!"}))
    with pytest.raises(DataError, match=r"row 16: the transcript holds 'ä', which no training"):
        opened(path)
    dataset = opened(path, on_bad="skip")
    assert dataset.sizes["validation"] == 2 and len(dataset.read("test").targets) == 2


def test_silence_and_what_would_be_cut_off(tmp_path):
    save(tmp_path / "still.wav", silent=True)
    path = manifest(tmp_path, rows(row2={"path": "still.wav"}))
    with pytest.raises(DataError, match=r"row 3: still.wav is silent"):
        opened(path).read("train")
    assert opened(path, on_bad="skip").skipped == {"silent sound": 1}
    with pytest.raises(DataError, match=r"row 6: 5.wav lasts .* would cut off the end"):
        opened(path, seconds=404 / RATE)


def test_pieces_spell_every_text(tmp_path):
    said = ["the train", "the rain", "then a train"] * 6
    made = [{"text": text} for text in said]
    dataset = opened(
        manifest(tmp_path, made),
        text={"tokenizer": "bpe", "vocab_size": 270},
        preprocess=FEATURES,
    )
    names = dataset.spec.class_names
    assert names[0] == "" and "Ġtrain" in names
    assert set(texts_of(dataset.targets("train"), names)) <= set(said)
    texts = ["then the rain", "ünknown ☂ words"]
    assert texts_of(padded(texts, coding_of(texts, names)), names) == texts
    assert dataset.spec.target_shape[0] < max(map(len, said))
    assert classes_of_pieces(["[PAD]", "a"]) == ("", "a")


def test_a_path_spells_what_is_left_without_repeats_and_blanks():
    path = np.array([[1, 1, 0, 1, 2, 2], [0, 0, 0, 0, 0, 0]])
    assert collapsed(path).tolist() == [[1, 1, 2, 0, 0, 0], [0] * 6]
    assert steps_needed(collapsed(path)).tolist() == [4, 0]


def test_the_bundled_digits_are_transcripts(tmp_path):
    dataset = open_dataset({"source": "tone_digits", "data_dir": str(tmp_path)})
    assert dataset.spec.task == "transcription" and dataset.spec.class_names[:2] == ("", " ")
    inputs, targets = dataset.read("test")
    assert inputs.shape == (150, 6000) and 0.1 < np.abs(inputs).max() <= 1
    assert dataset.spec.input.sample_rate == 4000
    assert all(len(one.split()) <= 5 for one in texts_of(targets, dataset.spec.class_names))
