"""Files of tables: whatever they are written as, a run and a check read the same rows."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.data import open_dataset
from jdlopt.data.check.cells import MISSING, read_cells
from jdlopt.data.inputs import read_inputs
from jdlopt.data.missing_words import AMBIGUOUS
from jdlopt.data.notes import Notes
from jdlopt.data.table_files import is_table, read_table
from jdlopt.errors import DataError

TEXT = "size,kind,y\n" + "".join(f"{row}.5,{'ab'[row % 2]}é,{row % 3 % 2}\n" for row in range(30))


def zipped(data: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("inner.csv", data)
    return made.getvalue()


ENCODED = {
    "plain.csv": TEXT.encode(),
    "bom.csv": TEXT.encode("utf-8-sig"),
    "utf16.csv": TEXT.encode("utf-16"),
    "utf16_le_without_bom.csv": TEXT.encode("utf-16-le"),
    "utf16_be_without_bom.csv": TEXT.encode("utf-16-be"),
    "crlf.csv": TEXT.replace("\n", "\r\n").encode(),
    "a.csv.gz": gzip.compress(TEXT.encode("utf-8-sig")),
    "a.csv.bz2": bz2.compress(TEXT.encode()),
    "a.csv.xz": lzma.compress(TEXT.encode("utf-16")),
    "a.csv.zip": zipped(TEXT.encode()),
    "a.tsv.gz": gzip.compress(TEXT.replace(",", "\t").encode()),
    "excel.csv": ("sep=;\r\n" + TEXT.replace(",", ";")).encode("utf-8-sig"),
    "semicolons.csv": TEXT.replace(",", ";").encode(),
    "bars.csv": TEXT.replace(",", "|").encode(),
    "commas.tsv": TEXT.encode(),
    "trailing.csv": TEXT.replace("\n", ",\n").encode(),
    "trailing_rows.csv": TEXT.replace("\n", ",,\n").replace("y,,", "y", 1).encode(),
    "a.jsonl": "\n".join(
        json.dumps(row) for row in pd.read_csv(io.StringIO(TEXT)).to_dict("records")
    ).encode(),
    "a.json": json.dumps(pd.read_csv(io.StringIO(TEXT)).to_dict("records")).encode(),
    "columns.json": json.dumps(pd.read_csv(io.StringIO(TEXT)).to_dict("list")).encode(),
    "pandas.json": pd.read_csv(io.StringIO(TEXT)).to_json().encode(),
    "a.jsonl.gz": gzip.compress(
        pd.read_csv(io.StringIO(TEXT)).to_json(orient="records", lines=True).encode()
    ),
}


@pytest.mark.parametrize("name", ENCODED)
def test_a_table_is_the_same_however_it_is_written(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(ENCODED[name])
    assert is_table(path)
    wanted = pd.read_csv(io.StringIO(TEXT))
    notes = Notes()
    found = read_table(path, notes=notes)
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), wanted, check_dtype=False, check_column_type=False
    )
    told = {note.kind for note in notes}
    assert ("guessed" in told) == any(
        word in name for word in ("without_bom", "semicolons", "bars", "commas")
    )
    assert ("left out" in told) == any(word in name for word in ("trailing", "excel"))
    cells = read_cells(path)
    assert cells.names == ("size", "kind", "y") and cells.whole.all()
    np.testing.assert_array_equal(cells.numbers[:, 0], wanted["size"])
    dataset = open_dataset({"source": str(path), "target": "y"})
    assert dataset.spec.input.feature_names == ("size", "kind")
    assert set(notes) <= set(dataset.notes)


@pytest.mark.parametrize("parts", ["part-{}.parquet", "year={}/part.parquet"])
def test_a_folder_of_parquet_parts_is_one_table(tmp_path, parts):
    whole = pd.read_csv(io.StringIO(TEXT))
    for part in range(3):
        path = tmp_path / "data.parquet" / parts.format(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole[part * 10 : part * 10 + 10].to_parquet(path, index=False)
    dataset = open_dataset({"source": str(tmp_path / "data.parquet"), "target": "y"})
    assert sum(dataset.sizes.values()) == 30
    assert ("year" in dataset.spec.input.feature_names) == ("year" in parts)
    assert [(note.count, note.unit) for note in dataset.notes] == [(3, "files")]


def test_an_index_with_a_name_is_a_column_of_a_file_and_of_a_frame(tmp_path):
    from jdlopt.data.given import open_given

    frame = pd.read_csv(io.StringIO(TEXT)).assign(day=np.arange(30.0))
    for index, fields in (
        ("day", {"target": "y", "time": "day"}),
        ("y", {"target": "y"}),
        (["day", "kind"], {"target": "y"}),
    ):
        indexed = frame.set_index(index)
        path = tmp_path / "t.parquet"
        indexed.to_parquet(path)
        read = open_dataset({"source": str(path), **fields})
        given = open_given({"source": "data", **fields}, indexed)
        assert read.spec.inputs == given.spec.inputs
        assert {note.what for note in read.notes} == {"the index of the DataFrame is a column"}
        for split in ("train", "test"):
            np.testing.assert_array_equal(read.read(split).inputs, given.read(split).inputs)
    named = frame.set_axis(frame["kind"].to_numpy(), axis=0)
    dataset = open_given({"source": "data", "target": "y"}, named)
    assert [note.kind for note in dataset.notes] == ["left out"]
    with pytest.raises(DataError, match="index and a column are both called 'size'"):
        open_given({"source": "data", "target": "y"}, frame.set_index("size", drop=False))


def test_a_value_may_be_of_any_length(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,y\n" + "".join(f'"{"word " * 40_000}",{row % 2}\n' for row in range(4)))
    assert read_cells(path).unreadable == () and len(read_cells(path).numbers) == 4
    assert read_table(path)["text"].str.len().tolist() == [200_000] * 4


CELL = st.text(st.sampled_from('ab1.,;" \n\u2028\x0c\u00a0é'), max_size=6)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8), st.sampled_from(",;\t"))
def test_a_run_and_a_check_read_the_same_cells(tmp_path_factory, rows, separator):
    path = tmp_path_factory.mktemp("cells") / "t.csv"
    frame = pd.DataFrame(rows, columns=["one", "two"])
    frame.to_csv(path, index=False, sep=separator)
    try:
        read = read_table(path, as_text=("one", "two"))
    except DataError:
        with pytest.raises(DataError, match="is empty"):
            read_cells(path)
        return
    cells = read_cells(path)
    assert len(read) == len(cells.numbers) and cells.whole.all()
    for place, name in enumerate(("one", "two")):
        missing = read[name].isna() | (read[name].fillna("").str.strip() == "")
        np.testing.assert_array_equal(cells.kinds[:, place] == MISSING, missing)


@pytest.mark.parametrize("word", ["None", "NA", "nan", "null"])
@pytest.mark.parametrize("column", ["kind", "y"])
def test_words_taken_for_missing_are_named_and_a_key_takes_them_as_they_stand(
    tmp_path, word, column
):
    text = TEXT.replace(",1\n", ",yes\n").replace(",0\n", ",no\n")
    text = text.replace("aé", word) if column == "kind" else text.replace("no\n", f"{word}\n")
    path = tmp_path / "t.csv"
    path.write_text(text)
    section = {"source": str(path), "target": "y", "stratify": False}
    count = text.count(word)
    if column == "kind" and word in AMBIGUOUS:  # a category's name may well be None
        section["missing_values"] = (word,)
    with pytest.raises(DataError, match=rf"'{word}' {count} times.*data.missing_values=\(\)"):
        open_dataset(section)
    kept = open_dataset({**section, "missing_values": ()})
    names = kept.spec.class_names if column == "y" else kept.spec.input.categories["kind"]
    assert word in names and not list(kept.notes)
    told = dict.fromkeys([*map(str, kept.notes)])
    assert not told
    assert not [one for one in read_cells(path, ()).kinds.ravel() if one == MISSING]
    if column == "kind":
        filled = open_dataset({**section, "preprocess": {"missing": "most_frequent"}})
        (note,) = filled.notes
        assert (note.kind, note.count) == ("guessed", count) and repr(word) in note.places[0]


@pytest.mark.parametrize("word", AMBIGUOUS)
def test_a_word_that_may_be_missing_is_a_category_among_words_and_missing_among_numbers(
    tmp_path, word
):
    words = ["DE", word, "FR"]
    frame = pd.DataFrame(
        {
            "country": [words[row % 3] for row in range(60)],
            "share": [word if row % 9 == 0 else f"{row} %" for row in range(60)],
            "size": [word if row % 9 == 0 else f"{row}" for row in range(60)],
            "open": [word if row % 9 == 0 else ("true", "false")[row % 2] for row in range(60)],
            "y": ["a", "b"] * 30,
        }
    )
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    section = {"source": str(path), "target": "y", "preprocess": {"missing": "most_frequent"}}
    dataset = open_dataset(section)
    assert set(dataset.spec.input.categories) == {"country"}
    assert dataset.spec.input.categories["country"] == tuple(sorted(words))
    counted = {note.what: note for note in dataset.notes}
    assert counted["words that may stand for a missing value are categories"].count == 20
    assert counted["words that are taken for missing values"].count == 21
    values = np.concatenate([dataset.read(split).inputs for split in dataset.sizes])
    assert np.isnan(values).sum(axis=0).tolist() == [0, 7, 7, 7]
    cells = read_cells(path)
    assert (cells.kinds == MISSING).sum(axis=0).tolist() == [0, 7, 7, 7, 0]
    assert cells.numeric == (False, True, True, True, False)
    # a file to predict on may hold nothing else
    frame[frame.country == word][["country", "size", "share", "open"]].assign(
        size=1, share="2 %", open="true"
    ).to_csv(tmp_path / "new.csv", index=False)
    found = read_inputs(tmp_path / "new.csv", dataset.spec.inputs)
    assert set(found.inputs[:, 0].tolist()) == {1.0 + sorted(words).index(word)}
    gone = open_dataset({**section, "missing_values": (word,)})
    assert gone.spec.input.categories["country"] == ("DE", "FR")


def test_other_words_may_stand_for_missing_values(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(TEXT.replace("\n3.5", "\n?").replace("\n4.5", "\nNA"))
    section = {"source": str(path), "target": "y", "preprocess": {"missing": "mean"}}
    with pytest.raises(DataError, match=r"has text in 1 rows, the first is '\?' in row 4"):
        open_dataset(section)
    dataset = open_dataset({**section, "missing_values": ("?", "NA")})
    inputs = np.concatenate([dataset.read(split).inputs for split in dataset.sizes])
    assert np.isnan(inputs[:, 0]).sum() == 2
    frame = pd.read_csv(path, keep_default_na=False)
    frame.to_parquet(tmp_path / "t.parquet")
    section["source"] = str(tmp_path / "t.parquet")
    typed = open_dataset({**section, "missing_values": ("?", "NA")})
    np.testing.assert_array_equal(typed.read("train").inputs, dataset.read("train").inputs)
