"""What is kept of what a run learnt of its data, when other data are opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jdlopt.data import from_run, preprocess
from jdlopt.data.source import open_dataset
from jdlopt.errors import ConfigError


def knowing(place: Path, data: dict[str, Any]) -> str:
    """Writes what a run knows of a ``data`` section, without training it; returns its directory."""
    place.mkdir()
    dataset = open_dataset(data)
    record = {"dataset": dataset.spec.to_dict(), "preprocess": {}}
    (place / "inputs.json").write_text(json.dumps(record))
    (place / "config.json").write_text(json.dumps({"data": data, "model": {"name": "mlp"}}))
    return str(place)


def written(path: Path, header: str, rows: list[str]) -> str:
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_a_vocabulary_is_kept_and_the_length_may_be_another(tmp_path: Path) -> None:
    old = [f"the cat sat on mat {i},{i % 2}" for i in range(30)]
    new = [f"a dog ran off {i},{i % 2}" for i in range(30)]
    data = {"source": written(tmp_path / "old.csv", "text,label", old), "target": "label",
            "text_column": "text"}  # fmt: skip
    run = knowing(tmp_path / "run", data)
    other = {**data, "source": written(tmp_path / "new.csv", "text,label", new)}
    anew = open_dataset({**other, "fit_on": "train"}).spec.input
    kept = open_dataset({**other, "fit_on": run, "text": {"max_tokens": 16}}).spec.input
    known = from_run.kept(run)
    assert known is not None and kept.text is not None and anew.text is not None
    assert kept.text.vocabulary() == known.spec.input.text.vocabulary()
    assert anew.text.vocabulary() != kept.text.vocabulary() and kept.shape == (16,)
    assert from_run.differences(known.spec.input, kept) == []
    assert from_run.differences(known.spec.input, anew) == ["the vocabulary is another"]


def test_columns_are_put_in_the_order_of_the_weights(tmp_path: Path) -> None:
    rows = [f"{i},{i * 2},{'xy'[i % 2]},{i % 3}" for i in range(30)]
    data = {"source": written(tmp_path / "a.csv", "one,two,kind,label", rows), "target": "label"}
    run = knowing(tmp_path / "run", data)
    turned = [f"{'zy'[i % 2]},{i * 2},{i},{i % 3}" for i in range(30)]
    other = {**data, "source": written(tmp_path / "b.csv", "kind,two,one,label", turned)}
    spec = open_dataset({**other, "fit_on": run}).spec
    assert spec.input.feature_names == ("one", "two", "kind")
    assert spec.input.categories == {"kind": ("x", "y")}
    told = [str(note) for note in spec.notes if "run whose coding is kept" in note.what]
    assert len(told) == 1 and "'z'" in told[0]
    fewer = {**other, "ignore": ("two",), "fit_on": run}
    assert open_dataset(fewer).spec.input.categories == {"kind": ("y", "z")}  # other columns


def test_why_an_input_is_not_kept_is_told(tmp_path: Path) -> None:
    rows = [f"{i},{i * 2},{i % 3}" for i in range(30)]
    data = {"source": written(tmp_path / "a.csv", "one,two,label", rows), "target": "label"}
    known = from_run.kept(knowing(tmp_path / "run", data))
    assert known is not None
    spec = open_dataset({**data, "ignore": ("two",)}).spec
    scaled = preprocess.PreprocessFields(scale="standard")
    recipe = preprocess.make_recipes(scaled, spec.inputs)
    [note] = from_run.state_for(known, recipe, spec, "label").notes
    assert "learnt anew" in note.what and "columns 'two' are not there" in note.what


def test_a_place_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path), "nowhere"):
        with pytest.raises(ConfigError, match=r"data\.fit_on: .* is no run's directory"):
            open_dataset({"source": "iris", "fit_on": name})
    for file in ("inputs.json", "config.json"):
        (tmp_path / file).write_text("[")
    with pytest.raises(ConfigError, match="can't be read"):
        open_dataset({"source": "iris", "fit_on": str(tmp_path)})


def test_a_vocabulary_is_kept_for_a_folder_of_texts(tmp_path: Path) -> None:
    folders = []
    for name, words in (("old", "the cat sat"), ("new", "a dog ran")):
        for index in range(20):
            place = tmp_path / name / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index}.txt").write_text(f"{words} {index}")
        folders.append(str(tmp_path / name))
    run = knowing(tmp_path / "run", {"source": folders[0]})
    known, kept = from_run.kept(run), open_dataset({"source": folders[1], "fit_on": run})
    assert known is not None
    assert from_run.differences(known.spec.input, kept.spec.input) == []
