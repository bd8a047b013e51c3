"""Directories of comparisons: other data than those of before are noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jdlopt.cli import main
from jdlopt.errors import WorkdirError
from jdlopt.evidence import records
from jdlopt.evidence.sides import side_of
from jdlopt.study.known_data import ChangedDataWarning

CONFIG = {
    "data": {"source": "", "target": "y", "batch_size": 16},
    "model": {"name": "linear"},
    "train": {"epochs": 1, "tensorboard": False},
    "mesh": {"data": 1},
}
OTHER = {"splits": {"train": {"count": 1, "rows": None, "content": "x"}}}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of a table whose numbers are written with decimal commas."""
    folder = tmp_path_factory.mktemp("table")
    rows = [f"{row % 7},5;{'xy'[row % 2]}" for row in range(40)]
    (folder / "t.csv").write_text("\n".join(["a;y", *rows]) + "\n")
    tree = {**CONFIG, "data": {**CONFIG["data"], "source": str(folder / "t.csv")}}  # type: ignore
    (folder / "config.json").write_text(json.dumps(tree))
    return folder / "config.json"


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "CONFIG", "+dropout"],
        ["ablate", "--config=CONFIG", "--techniques=l2"],
        ["improve", "--config=CONFIG"],
    ],
)
def test_each_verb_says_what_became_of_the_data_and_refuses_other_ones(
    words: list[str], config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.json").write_text(json.dumps(OTHER))
    words = [word.replace("CONFIG", str(config)).replace("+dropout", "+l2") for word in words]
    assert main([*words, f"--workdir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert "train: 1 examples there" in said and "--changed-data=ok" in said
    assert "data: changed: " in said and "comma" in said


def test_what_was_trained_on_other_data_is_put_aside(config: Path, tmp_path: Path) -> None:
    dataset = side_of(json.loads(config.read_text())).dataset
    assert not records.is_of_other_data(tmp_path, dataset, "refuse")
    records.keep_data(tmp_path, dataset, False)
    assert not records.is_of_other_data(tmp_path, dataset, "refuse")
    for time in (1, 2):
        (tmp_path / "trainings").mkdir(exist_ok=True)
        (tmp_path / "trainings" / "a.jsonl").write_text("{}")
        (tmp_path / "data.json").write_text(json.dumps(OTHER))
        with pytest.raises(WorkdirError, match="was trained on other data"):
            records.is_of_other_data(tmp_path, dataset, "refuse")
        assert records.is_of_other_data(tmp_path, dataset, "ok")
        with pytest.warns(ChangedDataWarning, match="does not count"):
            records.keep_data(tmp_path, dataset, True)
        assert (tmp_path / f"trainings-{time}" / "a.jsonl").exists()
        assert list((tmp_path / "trainings").iterdir()) == []
        assert not records.is_of_other_data(tmp_path, dataset, "refuse")
