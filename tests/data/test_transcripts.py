"""Sounds with transcripts: manifests, folders, and what of them can't be used."""

from __future__ import annotations

import json
import wave

import numpy as np
import pandas as pd
import pytest

from jdlopt.data import open_dataset
from jdlopt.data.dataset import class_counts
from jdlopt.data.describe import describe
from jdlopt.data.given import given_targets, open_given
from jdlopt.data.inputs import read_inputs
from jdlopt.data.spec import DataSpec
from jdlopt.data.text import TextFields
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


def test_files_that_are_named_like_splits_are_in_none(tmp_path):
    for place in range(20):
        name = ("train", "test")[place % 2]
        save(tmp_path / f"{name}_{place}.wav")
        (tmp_path / f"{name}_{place}.txt").write_text("take")
    found = opened(tmp_path, test_fraction=0.1)
    assert found.sizes == {"train": 16, "validation": 2, "test": 2}
    names = {one.name.partition("_")[0] for one in found.pools["train"].paths}
    assert names == {"train", "test"}


def test_folders_beside_those_of_splits_are_left_out(tmp_path):
    for folder in ("train", "dev", "test", "extra"):
        for place in range(3):
            save(tmp_path / folder / f"{place}.wav")
            if folder != "extra":
                (tmp_path / folder / f"{place}.txt").write_text("take")
    dataset = opened(tmp_path)
    assert dataset.sizes == {"train": 3, "validation": 3, "test": 3}
    (note,) = (one for one in dataset.notes if "beside the folders of splits" in one.what)
    assert note.count == 3 and "extra" in note.places[0]
    (tmp_path / "train").rename(tmp_path / "more")
    with pytest.raises(DataError, match=r"a folder for test or validation .* none called train"):
        opened(tmp_path)


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


def given(texts, **fields):
    """Opens transcripts from Python, and of a test split whose only one is longer."""
    frames = np.random.default_rng(0).normal(size=(len(texts), 40, 3)).astype(np.float32)
    data = {
        "train": (frames, texts),
        "test": (frames[:1], ["<i>Ab ab ab ab</i>"]),
    }
    section = {"source": "", "task": "transcription", "text": {"html": True}, **fields}
    return open_given(section, data)


def test_texts_from_python_are_those_of_files(tmp_path):
    said = ["A b", "b  A"] * 6
    dataset = given(said)
    spec = dataset.spec
    assert spec.class_names == ("", " ", "a", "b") and spec.target_shape == (11,)
    assert texts_of(dataset.read("test").targets, spec.class_names) == ["ab ab ab ab"]
    np.savez(tmp_path / "x.npz", x_train=np.zeros((12, 9, 3)), y_train=np.array(said),
             x_test=np.zeros((1, 9, 3)), y_test=np.array(["ab ab"]))  # fmt: skip
    stored = open_dataset({"source": str(tmp_path / "x.npz"), "task": "transcription"}).spec
    assert stored.class_names == spec.class_names and stored.target_shape == (5,)
    longer = given_targets(["A" * 14, "b"], spec, 2)
    assert longer.tolist() == [[2] * 14, [3] + [0] * 13]
    with pytest.raises(DataError, match="'A', which no training transcript"):
        given_targets(["A"], spec, 1, text=TextFields(lowercase=False))
    pieces = given(said, text={"tokenizer": "bpe", "vocab_size": 270, "html": True}).spec
    assert "\u0120ab" not in pieces.class_names and "\u0120a" in pieces.class_names
    with pytest.raises(DataError, match=r"data.text.tokenizer: is 'own.json'; transcripts are"):
        given(said, text={"tokenizer": "own.json"})
    with pytest.raises(DataError, match=r"data.text.tokenizer: is 'own.json'; transcripts are"):
        opened(manifest(tmp_path, rows()), text={"tokenizer": "own.json"})


def test_padding_is_counted_as_no_class():
    dataset = given(["a b"] * 12, validation_fraction=0.5)
    assert class_counts(dataset).tolist() == [0, 6, 6, 6]
    shown = describe(dataset)["splits"]["train"]["classes"]
    assert {name: one["positions"] for name, one in shown.items()} == {" ": 6, "a": 6, "b": 6}


def test_a_beam_is_for_transcripts():
    assert given(["a b", "ab"] * 6, beam_width=8).spec.beam_width == 8
    section = {"source": "", "beam_width": 8}
    with pytest.raises(DataError, match=r"data.beam_width: is 8.* a classification dataset"):
        open_given(section, (np.zeros((40, 2)), [0, 1] * 20))
    section |= {"task": "seq2seq", "text_column": "a", "target": "b"}
    with pytest.raises(DataError, match=r"Set it to 1, and model.beam_width instead"):
        open_given(section, pd.DataFrame({"a": ["x y"] * 12, "b": ["y x"] * 12}))


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
