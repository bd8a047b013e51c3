"""Texts packed into rows: every token a target once, a text in one split, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt.data import text
from jdlopt.data.coding import PAD
from jdlopt.data.fields import DataFields
from jdlopt.data.given import named, open_given
from jdlopt.data.next_tokens import as_rows
from jdlopt.data.source import kind_of_source, open_dataset
from jdlopt.data.text_cleaning import clean
from jdlopt.data.vocabulary import END_ID, bytes_of
from jdlopt.errors import ConfigError, DataError

TASK = {"task": "next_token"}
TEXTS = [f"The {animal} number {index} eats naïve hay." for index in range(20)
         for animal in ("cow", "ass")]  # fmt: skip
BPE = {"tokenizer": "bpe", "vocab_size": 300, "max_tokens": 16}


def section(source, **more):
    return {"source": str(source), "text": BPE, **TASK, **more}


def texts_of(dataset, split):
    """The texts that the targets of a split spell, one behind the other."""
    targets = dataset.read(split).targets.ravel()
    stream = targets[targets != PAD]
    cuts = np.flatnonzero(stream == END_ID)
    state = dataset.spec.input.text.state
    pieces = np.split(stream, cuts + 1)
    assert not len(pieces[-1])
    return [text.decode(state, one[None, :-1])[0] for one in pieces[:-1]]


@given(
    st.lists(st.lists(st.integers(2, 99), max_size=9), min_size=1, max_size=6), st.integers(1, 7)
)
@settings(max_examples=60, deadline=None)
def test_every_token_is_a_target_once_and_stands_behind_the_one_before(lists, length):
    rows = as_rows([np.array(one, np.int32) for one in lists], length)
    stream = [token for one in lists for token in (*one, END_ID)]
    real = rows.targets != PAD
    assert rows.targets[real].tolist() == stream
    assert rows.inputs[real].tolist() == [END_ID, *stream[:-1]]
    assert not rows.inputs[~real].any() and rows.inputs.shape[1] == length
    assert real.ravel()[: len(stream)].all()


def test_texts_are_split_before_they_are_packed(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join([*TEXTS, "", "  "]), "utf-8")
    dataset = open_dataset(section(tmp_path / "a.txt"))
    assert dataset.spec.task == "next_token" and dataset.spec.positions == 1
    assert dataset.spec.class_names == dataset.spec.input.text.state.tokens
    found = [texts_of(dataset, split) for split in ("train", "validation", "test")]
    assert sorted(one for some in found for one in some) == sorted(map(str.lower, TEXTS))
    assert [len(one) for one in found] == [28, 4, 8]
    (note,) = dataset.notes
    assert (note.kind, note.count, note.unit) == ("left out", 2, "texts")


def test_equal_texts_give_equal_data_however_they_are_given(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), "utf-8")
    first = open_dataset(section(tmp_path / "a.txt"))
    pd.DataFrame({"story": TEXTS, "year": 3}).to_csv(tmp_path / "a.csv", index=False)
    rows = "\n".join(json.dumps({"story": one}) for one in TEXTS)
    (tmp_path / "a.jsonl").write_text(rows, "utf-8")
    (tmp_path / "folder").mkdir()
    for index, one in enumerate(TEXTS):
        (tmp_path / "folder" / f"{index:02}.txt").write_text(one, "utf-8")
    assert kind_of_source(DataFields(str(tmp_path / "folder"), **TASK)) == "documents"
    others = [open_dataset(section(tmp_path / f"a.{end}", text_column="story"))
              for end in ("csv", "jsonl")]  # fmt: skip
    others.append(open_dataset(section(tmp_path / "folder")))
    others.append(open_given(section("data"), TEXTS))
    others.append(open_given(section("data", text_column="story"), pd.DataFrame({"story": TEXTS})))
    for other in others:
        for split in ("train", "validation", "test"):
            for one, two in zip(first.read(split), other.read(split), strict=True):
                np.testing.assert_array_equal(one, two)
    config = {"data": section("data")}
    sources = {named(config, some)["data"]["source"] for some in (TEXTS, TEXTS[::-1], TEXTS[:2])}
    assert len(sources) == 3


def test_a_source_may_have_its_own_splits_and_groups(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.txt").write_text(f"{split} {' '.join(TEXTS)}", "utf-8")
        (tmp_path / split / "b.txt").write_text(f"{split} too", "utf-8")
    (tmp_path / "more.txt").write_text("validation", "utf-8")
    fields = section(tmp_path, validation_source=str(tmp_path / "more.txt"))
    dataset = open_dataset(fields)
    assert texts_of(dataset, "validation") == ["validation"]
    assert [one.split()[0] for one in texts_of(dataset, "test")] == ["test", "test"]
    frame = pd.DataFrame({"text": TEXTS, "kind": [one[4:7] for one in TEXTS]})
    frame = pd.concat([frame, frame.assign(kind=frame["text"].str[-14:])])
    grouped = open_given(section("data", text_column="text", group="kind"), frame)
    assert sum(len(texts_of(grouped, split)) for split in ("train", "validation", "test")) == 80


def test_no_text_of_a_folder_is_in_two_splits(tmp_path):
    for place in ("a.txt", "more/b.txt", "test/c.txt", "val/d.txt", "held.txt"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(place.replace("/", " "), "utf-8")
    (tmp_path / "again").symlink_to(tmp_path / "test")
    (tmp_path / "more" / "link.txt").symlink_to(tmp_path / "test" / "c.txt")
    (tmp_path / "test" / "link.txt").symlink_to(tmp_path / "a.txt")
    held = str(tmp_path / "more" / ".." / "held.txt")
    fields = section(tmp_path, validation_source=held)
    dataset = open_dataset(fields)
    assert texts_of(dataset, "train") == ["a.txt", "more b.txt"]
    assert texts_of(dataset, "validation") == ["held.txt"]
    assert texts_of(dataset, "test") == ["test c.txt"]
    told = {note.what: note.count for note in dataset.notes}
    assert told == {"files in a folder, for which data.validation_source stands": 1,
                    "links to texts of another split": 2}  # fmt: skip
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "e.txt").write_text("train e.txt", "utf-8")
    dataset = open_dataset(section(tmp_path))
    assert texts_of(dataset, "train") == ["train e.txt"]
    assert texts_of(dataset, "validation") == ["val d.txt"]
    told = {note.what: note.count for note in dataset.notes}
    assert told == {"texts beside the folders of splits": 2,
                    "files in folders beside those of splits": 4}  # fmt: skip
    (tmp_path / "valid").mkdir()
    with pytest.raises(DataError, match=r"several folders for the split 'validation': val, valid"):
        open_dataset(section(tmp_path))
    (tmp_path / "valid").rmdir()
    (tmp_path / "again").rename(tmp_path / "dev")
    (tmp_path / "val" / "d.txt").unlink()
    (tmp_path / "val").rmdir()
    with pytest.raises(DataError, match=r"'dev' and 'test' are one folder, by a link"):
        open_dataset(section(tmp_path))


def test_folds_are_rows_of_one_pool():
    opened = [open_given(section("data", folds=3, fold=fold), TEXTS) for fold in range(3)]
    parts = [[one.parts[split] for split in ("train", "validation")] for one in opened]
    assert {name for pair in parts for name, _ in pair} == {"train"}
    rows = len(opened[0].pools["train"])
    held = np.sort(np.concatenate([validation[1] for _, validation in parts]))
    assert held.tolist() == list(range(rows))
    for train, validation in parts:
        assert sorted([*train[1], *validation[1]]) == list(range(rows))
    texts = [one for each in opened for one in texts_of(each, "validation")]
    assert len(texts) == len(set(texts)) == 32 and len(texts_of(opened[0], "test")) == 8
    np.testing.assert_array_equal(*(one.pools["train"].read(None).inputs for one in opened[:2]))


def test_bytes_are_those_of_the_texts_and_a_space_before_each():
    state = text.fit(BPE, TEXTS)
    sizes = bytes_of(state.tokens)
    for one in (*TEXTS, "日本 €5", "x"):
        ids = text.tokens_of(state, [one])[0]
        assert sizes[ids].sum() == len(clean(one, lowercase=True).encode()) + 1


def test_what_can_not_be_used_is_said(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), "utf-8")
    for more, message in (
        ({"text": {"max_tokens": 8}}, r"data.text.tokenizer: 'wordpiece' loses something of texts"),
        ({"text": {**BPE, "template": True}}, r"data.text.template: texts are packed"),
        ({"text": {**BPE, "stop_words": "english"}}, r"data.text.stop_words: .* can't be learnt"),
        ({"target": "label"}, r"data.target: the next token is the target"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            open_dataset({**section(tmp_path / "a.txt"), **more})
    (tmp_path / "b.txt").write_text(" \n\n", "utf-8")
    with pytest.raises(DataError, match=r"b.txt: holds no text"):
        open_dataset(section(tmp_path / "b.txt"))
    (tmp_path / "a.csv").write_text("story\nonce\n", "utf-8")
    with pytest.raises(DataError, match=r"data.text_column: name the column .* Columns: story"):
        open_dataset(section(tmp_path / "a.csv"))
    with pytest.raises(DataError, match=r"takes a list of texts, .* found tuple for 'train'"):
        open_given(section("data"), ([1, 2, 3], [4, 5, 6]))
