"""Tagged sentences: where targets stand, every way to give them, and what is wrong, by its line."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from jdlopt.data.coding import PAD
from jdlopt.data.describe import describe
from jdlopt.data.fields import DataFields
from jdlopt.data.given import given_inputs, given_targets, named, open_given
from jdlopt.data.input_columns import columns_of_path
from jdlopt.data.inputs import read_inputs
from jdlopt.data.origin import names
from jdlopt.data.source import kind_of_source, open_dataset
from jdlopt.data.words import cut
from jdlopt.errors import DataError

ANN = ("Ann\tB-PER", "Smith\tI-PER", "lives\tO", "in\tO", "Berlin\tB-LOC", ".\tO")
BOB = ("Bob\tB-PER", "slept\tO")
SENTENCES = [(ANN, BOB)[index % 2] for index in range(20)]
WORDS = [[line.split("\t")[0] for line in one] for one in SENTENCES]
TAGS = [[line.split("\t")[1] for line in one] for one in SENTENCES]
TASK = {"task": "token_classification"}


def write(path, sentences=SENTENCES, between="\t"):
    whole = "\n\n".join("\n".join(one) for one in sentences)
    path.write_text(whole.replace("\t", between) + "\n", "utf-8")
    return path


def section(source, **more):
    return {"source": str(source), "text": {"vocab_size": 40, "max_tokens": 16}, **more}


def tags_of(dataset, targets):
    return [dataset.spec.class_names[code] for code in targets[targets != PAD]]


def test_the_target_of_a_word_stands_at_its_first_token(tmp_path):
    dataset = open_dataset(section(write(tmp_path / "made.conll")))
    spec, train = dataset.spec, dataset.read("train")
    assert spec.task == "token_classification" and spec.positions == 1
    assert spec.class_names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert spec.target_shape == spec.input.shape == (16,)
    tokens = spec.input.text.state.tokens
    for name, ids, targets in zip(names(dataset, "train"), *train, strict=True):
        assert tags_of(dataset, targets) == TAGS[int(name.removeprefix("row "))]
        assert not any(tokens[token].startswith("##") for token in ids[targets != PAD])
        assert (targets[ids == 0] == PAD).all()
    assert describe(dataset)["splits"]["train"]["classes"]["B-PER"]["positions"] == len(train[1])


def test_equal_sentences_give_equal_data_however_they_are_given(tmp_path):
    first = open_dataset(section(write(tmp_path / "made.conll")))
    rows = [{"words": a, "tags": b} for a, b in zip(WORDS, TAGS, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    texts = [{key: " ".join(one) for key, one in row.items()} for row in rows]
    pd.DataFrame(texts).to_csv(tmp_path / "a.csv", index=False)
    columns = {"text_column": "words", "target": "tags", **TASK}
    others = [open_dataset(section(tmp_path / f"a.{end}", **columns)) for end in ("jsonl", "csv")]
    others.append(open_dataset(section(tmp_path / "a.parquet", **columns)))
    wide = [[f"x\t{line}\ty" for line in one] for one in SENTENCES]
    path = write(tmp_path / "wide.txt", wide, " ")
    others.append(open_dataset(section(path, text_column="1", target="-2", **TASK)))
    others.append(open_given(section("data", **TASK), (WORDS, TAGS)))
    others.append(open_given(section("data", **columns), pd.DataFrame(rows)))
    for other in others:
        for split in ("train", "validation", "test"):
            for one, two in zip(first.read(split), other.read(split), strict=True):
                np.testing.assert_array_equal(one, two)
    config = {"data": section("data")}
    sources = [named(config, one)["data"]["source"] for one in ((WORDS, TAGS), (WORDS, WORDS))]
    assert sources[0] != sources[1]
    assert named(config, pd.DataFrame(rows))["data"]["source"].startswith("memory-")


def test_a_folder_has_a_file_a_split_and_says_what_it_leaves_out(tmp_path):
    for name, count in (("train", 20), ("valid", 4), ("test", 2)):
        write(tmp_path / f"{name}.txt", [["-DOCSTART-\tO"], ["# id 1", *ANN], *SENTENCES[:count]])
    fields = section(tmp_path, text_column="0", **TASK)
    assert kind_of_source(DataFields(str(tmp_path), **TASK)) == "conll"
    fields["text"]["max_tokens"] = 5
    dataset = open_dataset(fields)
    assert dataset.sizes == {"train": 21, "validation": 5, "test": 3}
    told = {note.what.partition(",")[0]: note.count for note in dataset.notes}
    assert told["lines -DOCSTART-"] == told["comments"] == 3
    assert told["words behind data.text.max_tokens"] >= 14
    others = open_dataset(
        section(tmp_path / "train.txt", validation_source=str(tmp_path / "valid.txt"), **TASK)
    )
    assert others.sizes["validation"] == 5


WRONG = {
    r"made.conll, line 10: holds the tag 'PER'; expected O, B-KIND or I-KIND": "Bob\tPER",
    r"made.conll, line 10: has 1 columns \('Bob'\); expected a word in column 0": "Bob",
    r"made.conll, line 10: holds the tag 'B-'": "Bob\tB-",
}


@pytest.mark.parametrize("message", WRONG)
def test_a_bad_line_is_named_or_left_out(message, tmp_path):
    rows = [ANN, [*BOB, WRONG[message]], *SENTENCES]
    path = write(tmp_path / "made.conll", rows)
    with pytest.raises(DataError, match=message):
        open_dataset(section(path))
    if "columns" not in message:
        dataset = open_dataset(section(path, on_bad="skip"))
        assert sum(dataset.sizes.values()) == 21 and sum(dataset.skipped.values()) == 1
        assert "row 1" not in names(dataset, "train")


def test_what_can_not_be_used_is_said_with_its_row(tmp_path):
    path = write(tmp_path / "made.conll")
    other = write(tmp_path / "other.conll", [ANN, ["Acme\tB-ORG"]])
    match = r"other.conll, line 8: the tag 'B-ORG' is of a kind that no training sentence has"
    with pytest.raises(DataError, match=match):
        open_dataset(section(path, test_source=str(other)))
    with pytest.raises(DataError, match=r"'train', row 2: has 2 words and 1 tags"):
        open_given(section("data", **TASK), (WORDS[:2], [TAGS[0], ["O"]]))
    with pytest.raises(DataError, match=r"row 1: holds \[3, 4\]; expected a list of texts"):
        open_given(section("data", **TASK), ([["Ann", "ran"]], [[3, 4]]))
    with pytest.raises(DataError, match=r"words of 20 sentences and the tags of 1"):
        open_given(section("data", **TASK), (WORDS, TAGS[:1]))
    with pytest.raises(DataError, match="no word has another tag than O"):
        open_given(section("data", **TASK), ([["Ann"]] * 9, [["O"]] * 9))
    with pytest.raises(DataError, match=r"data.text.stop_words: 'english' leaves words out"):
        open_dataset(section(path, text={"stop_words": "english"}))
    with pytest.raises(DataError, match=r"data.target: 'tag' names no column"):
        open_dataset(section(path, target="tag"))
    with pytest.raises(DataError, match=r"has a tag for each word; data.task='regression'"):
        open_dataset(section(path, task="regression"))
    (tmp_path / "a.jsonl").write_text('{"words": ["a"], "tags": ["O"]}\n', "utf-8")
    with pytest.raises(DataError, match=r"data.text_column: name the column of each sentence's"):
        open_dataset(section(tmp_path / "a.jsonl", target="tags", **TASK))


def test_new_texts_and_their_tags_are_read_as_in_training(tmp_path):
    spec = open_dataset(section(write(tmp_path / "made.conll"))).spec
    (tmp_path / "new.txt").write_text("Ann Smith lives in Berlin.\nBob slept\n", "utf-8")
    (tmp_path / "new.conll").write_text("\n".join([*WORDS[0], "", *WORDS[1]]), "utf-8")
    rows = [{"text": WORDS[0]}, {"text": "Bob slept"}]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    found = [read_inputs(tmp_path / f"new.{end}", spec.inputs) for end in ("txt", "conll", "jsonl")]
    found.append(given_inputs([WORDS[0], "Bob slept"], spec.inputs))
    found.append(given_inputs(pd.DataFrame(rows), spec.inputs))
    for one in found:
        np.testing.assert_array_equal(one.inputs, found[0].inputs)
    targets = given_targets(TAGS[:2], spec, 2, found[1].texts)
    assert [[spec.class_names[code] for code in row[row != PAD]] for row in targets] == TAGS[:2]
    with pytest.raises(DataError, match=r"row 1: has 1 tags, the text 2 words: Bob, slept"):
        given_targets([TAGS[0], ["O"]], spec, 2, found[1].texts)
    with pytest.raises(DataError, match=r"targets: there are the tags of 3 texts; expected .* 2"):
        given_targets(TAGS[:3], spec, 2, found[1].texts)
    with pytest.raises(DataError, match=r"targets: are lists of different lengths"):
        given_targets(TAGS[:2], spec, 2)


def test_texts_with_tags_beside_them_are_cut_as_in_training(tmp_path):
    frame = pd.DataFrame({"text": ["U.S.  envoy", "Bob (slept)"] * 9, "tags": ["B-LOC O"] * 18})
    columns = {"text_column": "text", "target": "tags", **TASK}
    spec = open_given(section("data", **columns), frame).spec
    frame.to_csv(tmp_path / "new.csv", index=False)
    found = [read_inputs(tmp_path / "new.csv", spec.inputs), given_inputs(frame, spec.inputs)]
    found.append(given_inputs(frame["text"], spec.inputs, with_targets=True))
    for one in found:
        assert [cut(text).words for text in one.texts[:2]] == [
            ("U.S.", "envoy"),
            ("Bob", "(slept)"),
        ]
        assert cut(one.texts[0]).spans == ((0, 4), (6, 11))
        np.testing.assert_array_equal(one.inputs, found[0].inputs)
    expected = given_targets([["B-LOC", "O"]], spec, 1, found[0].texts[:1])
    np.testing.assert_array_equal(given_targets(["B-LOC O"], spec, 1, ["U.S. envoy"]), expected)


def test_new_sentences_are_read_from_the_column_of_words_of_training(tmp_path):
    wide = [[f"x\t{line}" for line in one] for one in SENTENCES]
    spec = open_dataset(section(write(tmp_path / "wide.conll", wide), text_column="1")).spec
    spec = type(spec).from_dict(spec.to_dict())
    new = write(tmp_path / "new.conll", wide[:2])
    found = read_inputs(new, spec.inputs)
    assert found.texts == [tuple(one) for one in WORDS[:2]]
    assert columns_of_path(new, spec.inputs, found.ids) == {"text": list(map(" ".join, WORDS[:2]))}
    with pytest.raises(DataError, match=r"line 1: has 1 columns .* word in column 1, as in train"):
        read_inputs(write(tmp_path / "bare.conll", [["Ann"]]), spec.inputs)


@pytest.mark.parametrize("end", ["", "\tO", "\tx\tB-PER"])
def test_a_word_that_begins_as_comments_do_is_none(end, tmp_path):
    spec = open_dataset(section(write(tmp_path / "made.conll"))).spec
    path = write(tmp_path / "new.conll", [["# id 1", f"#MeToo{end}", f"grew{end}"]])
    found = read_inputs(path, spec.inputs)
    assert found.texts == [("#MeToo", "grew")]
    assert [note.what for note in found.notes] == ["comments"]


def test_a_missing_cell_holds_no_word_and_can_be_left_out(tmp_path):
    frame = pd.DataFrame({"words": list(map(" ".join, WORDS)), "tags": list(map(" ".join, TAGS))})
    frame.loc[2, "tags"] = None
    frame.loc[5, ["words", "tags"]] = None
    frame.to_csv(tmp_path / "a.csv", index=False)
    columns = {"text_column": "words", "target": "tags", **TASK}
    with pytest.raises(DataError, match=r"has 6 words and 0 tags; .* data.on_bad='skip'"):
        open_dataset(section(tmp_path / "a.csv", **columns))
    dataset = open_dataset(section(tmp_path / "a.csv", on_bad="skip", **columns))
    assert sum(dataset.sizes.values()) == 18 and sum(dataset.skipped.values()) == 2
    given = ([None, *WORDS], [None, *TAGS])
    dataset = open_given(section("data", on_bad="skip", **TASK), given)
    assert sum(dataset.sizes.values()) == 20
