"""`jdlopt init` and `jdlopt.init`: the written config passes all checks, whatever the data are."""

from __future__ import annotations

import json
import os
import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import jdlopt
from jdlopt import cli
from jdlopt import config as configs
from jdlopt.errors import UserError
from jdlopt.starter.make import beside
from jdlopt.starter.survey import columns
from jdlopt.train.experiment import Experiment

ROWS = 80
DRAW = np.random.default_rng(0)


def table(folder: Path) -> Path:
    """A table with a column of each kind, gaps, and a column that gives the target away."""
    height = DRAW.normal(170, 10, ROWS)
    frame = pd.DataFrame(
        {
            "id": range(1, ROWS + 1),
            "height": height,
            "colour": DRAW.choice(["red", "green"], ROWS),
            "when": [f"2024-02-{1 + index % 28:02}" for index in range(ROWS)],
            "patient": [f"p{index // 4}" for index in range(ROWS)],
            "same": "x",
            "kind": np.where(height + DRAW.normal(0, 8, ROWS) > 170, "tall", "short"),
        }
    )
    frame["gives it away"] = frame["kind"].map({"tall": 1.5, "short": 0.5})
    frame.loc[3, "height"] = None
    frame.to_csv(folder / "people, all.csv", index=False)
    return folder / "people, all.csv"


def pictures(folder: Path) -> Path:
    for index in range(24):
        place = folder / "pictures" / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = DRAW.integers(0, 256, (20 + index % 3, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{index}.png")
    return folder / "pictures"


def sounds(folder: Path) -> Path:
    for index in range(24):
        place = folder / "sounds" / ("low", "high")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        with wave.open(str(place / f"{index}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(DRAW.integers(-9000, 9000, 1000 + index, dtype=np.int16).tobytes())
    return folder / "sounds"


def texts(folder: Path) -> Path:
    rows = [f"a film that is {'good' if i % 2 else 'bad'} to see {i}" for i in range(ROWS)]
    pd.DataFrame({"review": rows, "liked": [i % 2 for i in range(ROWS)]}).to_csv(
        folder / "reviews.csv", index=False
    )
    return folder / "reviews.csv"


def text_files(folder: Path) -> Path:
    for index in range(24):
        place = folder / "films" / ("good", "bad")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{index}.txt").write_text(f"{'nice' if index % 2 else 'dull'} film {index}")
    return folder / "films"


def mixed(folder: Path) -> Path:
    frame = pd.read_csv(texts(folder)).assign(length=DRAW.normal(size=ROWS))
    frame.to_csv(folder / "mixed.csv", index=False)
    return folder / "mixed.csv"


def series(folder: Path) -> Path:
    np.savez(folder / "series.npz", x=DRAW.normal(size=(ROWS, 50)), y=np.arange(ROWS) % 3)
    return folder / "series.npz"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(source: Path, capsys, *flags: str) -> dict:
    """Returns what `init` prints as JSON; it has built the experiment."""
    words = ["init", source.name, *flags, "--json"]
    assert cli.main(words) == cli.DONE, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("make", "flags", "kind", "task"),
    [
        (table, ["--target=kind"], "table", "classification"),
        (table, ["--target=height"], "table", "regression"),
        (pictures, [], "image", "classification"),
        (sounds, [], "sound", "classification"),
        (texts, ["--target=liked"], "text", "classification"),
        (text_files, [], "text", "classification"),
        (mixed, ["--target=liked"], "mixed", "classification"),
        (mixed, ["--target=length"], "text", "regression"),
        (series, [], "sequence", "classification"),
    ],
)
def test_the_config_of_every_kind_of_data_passes_all_checks(place, capsys, make, flags, kind, task):
    found = made(make(place), capsys, *flags)
    assert found["config"]["data"]["task"] == task
    loaded = configs.to_dict(configs.load("config.py"))
    assert loaded == configs.to_dict(configs.tuples(found["config"]))
    assert found["n_params"] > 0 and dict(found["found"])["examples"].endswith(" test")


def test_what_a_table_holds_is_said_and_nothing_is_left_out_silently(place, capsys):
    found = made(table(place), capsys, "--target=kind")
    assert found["config"]["data"]["source"] == "people, all.csv"
    assert found["config"]["data"]["ignore"] == ["id", "when", "same"]
    assert found["config"]["data"]["preprocess"]["missing"] == "median"
    text = Path("config.py").read_text("utf-8")
    assert '# "ignore": ("id", "when", "same", "gives it away"),' in text
    assert '# "group": "patient",' in text and '# "time": "when",' in text
    told = [" ".join(row) for row in found["found"]]
    assert any("left out 'same': says nothing" in row for row in told)
    assert any("look at 'gives it away'" in row for row in told)
    # each commented key can be taken as it stands
    for line in ('"group": "patient",', '"time": "when",'):
        Path("other.py").write_text(text.replace(f"# {line}", line), "utf-8")
        Experiment.build(configs.load("other.py"))


@pytest.mark.slow
def test_a_written_config_trains_and_predicts_at_once(place, capsys):
    made(table(place), capsys, "--target=kind")
    short = ["--config.train.epochs=1", "--config.train.tensorboard=False", "--json"]
    assert cli.main(["train", "--config=config.py", "--workdir=run", *short]) == cli.DONE
    assert json.loads(capsys.readouterr().out)["status"] == "done"


def test_without_a_target_the_columns_are_listed(place, capsys):
    source = table(place)
    assert cli.main(["init", source.name]) == cli.WRONG_INPUT
    said = capsys.readouterr()
    assert said.out == "" and "Name it, --target=COLUMN" in said.err and "patient" in said.err
    assert cli.main(["init", source.name, "--json"]) == cli.WRONG_INPUT
    rows = json.loads(capsys.readouterr().out)["columns"]
    assert [row["column"] for row in rows if row["as the target"] == "classification"] == [
        "colour",
        "patient",
        "kind",
    ]
    assert not Path("config.py").exists()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("same", "can't be predicted: it is always 'x': nothing to learn"),
        ("when", "holds dates"),
        ("kidn", "Did you mean 'kind'"),
    ],
)
def test_a_target_that_can_not_be_predicted_is_said(place, capsys, target, message):
    source = table(place)
    assert cli.main(["init", source.name, f"--target={target}"]) == cli.WRONG_INPUT
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("config.py").exists()


def test_no_file_is_overwritten(place, capsys):
    source = table(place)
    Path("config.py").write_text("mine")
    assert cli.main(["init", source.name, "--target=kind"]) == cli.WRONG_INPUT
    assert "never overwritten" in capsys.readouterr().err
    assert Path("config.py").read_text() == "mine"
    Path("link.py").symlink_to("elsewhere.py")
    assert cli.main(["init", source.name, "--target=kind", "--out=link.py"]) == cli.WRONG_INPUT
    assert not Path("elsewhere.py").exists()


def test_a_path_is_written_as_the_config_will_find_it(place, recwarn):
    (place / "configs").mkdir()
    source = texts(place)
    jdlopt.init(source.name, "liked", out="configs/outside.py")
    assert configs.load("configs/outside.py").data.source == "reviews.csv"
    assert not list(recwarn)
    inside = texts(place / "configs").rename(place / "configs" / "inside.csv")
    jdlopt.init("configs/inside.csv", "liked", out="configs/inside.py")
    with pytest.warns(UserWarning, match="taken from beside the config"):
        found = configs.load("configs/inside.py")
    assert Path(found.data.source).samefile(inside)
    assert beside(str(place / "a.csv"), place) == "a.csv"
    assert beside("/elsewhere/a.csv", place) == "/elsewhere/a.csv"
    (place / "inside.csv").touch()  # which would be taken, from here
    assert beside("configs/inside.csv", Path("configs")) == "configs/inside.csv"


def test_a_table_that_is_no_file_is_told_as_by_every_verb(tmp_path):
    pd.DataFrame({"kind": ["a", "b"]}).to_csv(tmp_path / "shots.csv", index=False)
    with pytest.raises(
        UserError, match=r"data.source: there is no file .*Did you mean 'shots.csv'"
    ):
        jdlopt.init(tmp_path / "shot.csv", target="kind")
    os.mkfifo(tmp_path / "pipe.csv")
    for look in (lambda path: jdlopt.init(path, target="kind"), columns):
        with pytest.raises(UserError, match="a pipe, socket or device"):
            look(str(tmp_path / "pipe.csv"))


@pytest.mark.slow
def test_a_table_in_memory_gives_a_config_to_fit(place):
    frame = pd.read_csv(table(place)).drop(columns="gives it away")
    config = jdlopt.init(frame, target="kind")
    assert "source" not in config.data and config.data.task == "classification"
    config.train.epochs = 1
    assert jdlopt.fit(config, data=frame).status == "done"
    with pytest.raises(UserError, match="which column is to predict"):
        jdlopt.init(frame)


def test_another_task_can_be_asked_for(place):
    frame = pd.DataFrame({"x": DRAW.normal(size=ROWS), "grade": np.arange(ROWS) % 5})
    assert jdlopt.init(frame, "grade").data.task == "classification"
    config = jdlopt.init(frame, "grade", task="regression")
    assert config.data.task == "regression" and config.loss.name == "mse"
    with pytest.raises(UserError, match="'ranking' is none of"):
        jdlopt.init(frame, "grade", task="ranking")


def test_a_class_called_none_is_kept_and_other_words_are_told(place):
    rows = [
        f"{i % 9},{('null', 'DE', 'FR', 'IT')[i % 4]},{('None', 'nuts', 'milk')[i % 3]}"
        for i in range(ROWS)
    ]
    Path("allergies.csv").write_text("\n".join(["age,country,allergy", *rows]))
    config = jdlopt.init("allergies.csv", "allergy", out="kept.py")
    assert config.data.missing_values == ("null",) and config.data.preprocess.missing == "median"
    spec = Experiment.build(configs.load("kept.py")).spec
    assert spec.class_names == ("None", "milk", "nuts") and spec.sizes["train"] > 40
    assert "'None' (27 times), a class of the target" in " ".join(
        Path("kept.py").read_text("utf-8").replace("#", "").split()
    )
    jdlopt.init("allergies.csv", "age", out="told.py")
    assert '# "missing_values": (),' in Path("told.py").read_text("utf-8")


def test_tables_of_splits_are_not_split_again(place):
    (place / "ads").mkdir()
    frame = pd.DataFrame({"x": DRAW.normal(size=ROWS), "sold": np.arange(ROWS) % 2})
    frame.to_csv("ads/train.csv", index=False)
    frame[:20].to_csv("ads/test.csv", index=False)
    config = jdlopt.init("ads", "sold", out="ads.py")
    assert "test_fraction" not in config.data and config.data.validation_fraction == 0.2
    assert configs.load("ads.py").data.source == "./ads"
    assert Experiment.build(configs.load("ads.py")).spec.sizes["test"] == 20


def test_a_class_of_one_row_is_split_without_shares(place):
    kinds = ["rare", *(("ant", "bee")[index % 2] for index in range(ROWS - 1))]
    frame = pd.DataFrame({"size": DRAW.normal(size=ROWS), "kind": kinds})
    config = jdlopt.init(frame, "kind")
    assert config.data.stratify is False and "on_bad" not in config.data


def test_columns_that_add_up_to_the_target_are_told(place):
    frame = pd.DataFrame(DRAW.integers(0, 90, (ROWS, 3)), columns=["casual", "heat", "registered"])
    frame["all"] = frame.casual + frame.registered
    frame.insert(0, "id", range(ROWS))
    jdlopt.init(frame, "all", out="bikes.py")
    text = Path("bikes.py").read_text("utf-8")
    assert '# "ignore": ("id", "casual", "registered"),' in text
    jdlopt.init(frame, "id", out="id.py")
    assert "# LOOK AT THIS: 'id' names the rows" in Path("id.py").read_text("utf-8")


def test_damaged_rows_and_several_targets(place):
    lines = ["a,b,action,drama", *(f"{i},{i % 7}.5,{i % 2},{i // 3 % 2}" for i in range(ROWS))]
    lines[5] = "3,much,1,0"
    lines[9] = "3,4,1,0,9,9"
    Path("films.csv").write_text("\n".join(lines))
    config = jdlopt.init("films.csv", ("action", "drama"), out="films.py")
    assert config.data.on_bad == "skip" and config.data.task == "multilabel"
    assert config.data.target == ("action", "drama")
    said = " ".join(Path("films.py").read_text("utf-8").replace("#", "").split())
    assert "left out and counted: too many columns (1 example), not a number (1 example)" in said
