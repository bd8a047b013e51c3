"""``tune`` through the command line: what a study leaves, that it goes on, and what it refuses."""

import json
import sqlite3
from pathlib import Path

import optuna
import pandas as pd
import pytest

from jdlopt.cli import main
from jdlopt.study.options import Options, seconds

CONFIG = """
from jdlopt.study.space import choice, log_uniform, uniform


def get_config():
    return {
        "data": {"source": "iris", "batch_size": 16, "validation_fraction": 0.2},
        "model": {"name": "mlp", "features": (8,), "dropout_rate": 0.1},
        "optim": {"name": "sgd", "learning_rate": 1e-2},
        "mesh": {"data": 1},
        "train": {"epochs": 3},
    }


def get_space():
    return {
        "optim.learning_rate": log_uniform(1e-3, 1.0, role="nuisance"),
        "model.features": choice((8,), (8, 8), role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.5),
    }
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "iris.py"
    path.write_text(CONFIG)
    return path


def tuned(config, workdir, *flags):
    words = [f"--config={config}", f"--workdir={workdir}", "--workers=1", *flags]
    return main(["tune", "--json", *words])


@pytest.fixture(scope="module")
def study(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    assert tuned(config, workdir, "--trials=8", "--keep=1") == 0
    return workdir


def read(workdir: Path):
    return json.loads((workdir / "study.json").read_text())


def test_a_study_leaves_what_the_design_says(study):
    record = read(study)
    assert record["status"] == "done" and len(record["trials"]) == 8
    assert {trial["state"] for trial in record["trials"]} == {"done"}
    assert [trial["origin"] for trial in record["trials"]] == ["base"] + ["sampler"] * 7
    assert record["trials"][0]["params"] == {
        "optim.learning_rate": 0.01, "model.features": [8], "model.dropout_rate": 0.1,
    }  # fmt: skip
    assert sum(one["count"] for one in record["data"]["splits"].values()) == 150
    curves = pd.read_parquet(study / "curves.parquet")
    assert sorted(curves["trial"].unique()) == list(range(8))
    assert len(curves) == 8 * 3
    assert (study / "report.html").stat().st_size > 1e6
    assert [path.name for path in (study / "trials").iterdir()] == [f"{record['best']:04d}"]
    values = [trial["values"][0] for trial in record["trials"]]
    assert record["trials"][record["best"]]["values"][0] == max(values)
    assert not (study / "populations").exists() or not any((study / "populations").iterdir())


def test_optuna_reads_the_same_trials(study):
    storage = optuna.storages.RDBStorage(f"sqlite:///{study / 'study.db'}")
    trials = optuna.load_study(study_name="study", storage=storage).trials
    storage.engine.dispose()
    record = read(study)
    assert [t.values for t in trials] == [t["values"] for t in record["trials"]]
    assert all(t.params["optim.learning_rate"] == r["params"]["optim.learning_rate"]
               for t, r in zip(trials, record["trials"]))  # fmt: skip


def test_the_winner_is_reproduced_by_train(study, tmp_path):
    record = read(study)
    words = [f"--config={study / 'best_config.json'}", f"--workdir={tmp_path / 'run'}", "--json"]
    assert main(["train", *words]) == 0
    best = json.loads((tmp_path / "run" / "result.json").read_text())["best"]
    assert best["value"] == record["trials"][record["best"]]["values"][0]


def test_a_study_goes_on_by_its_directory(study, capsys):
    before = read(study)
    words = ["tune", str(study), "--workers=1", "--trials=10", "--keep=0", "--no-report"]
    assert main([*words, "--sampler=tpe"]) == 2
    assert "--sampler: 'tpe' is not the study's" in capsys.readouterr().err
    assert main(words) == 0
    after = read(study)
    assert len(after["trials"]) == 10
    for old, new in zip(before["trials"], after["trials"]):
        assert old["params"] == new["params"] and old["values"] == new["values"]


def test_seeds_reproduce_a_study_however_it_was_cut(config, study, tmp_path):
    assert tuned(config, tmp_path / "again", "--trials=10", "--keep=0", "--no-report") == 0
    record = read(tmp_path / "again")
    for mine, other in zip(record["trials"], read(study)["trials"]):
        assert mine["params"] == other["params"] and mine["values"] == other["values"]


@pytest.mark.slow
def test_another_space_is_another_study(config, study, capsys):
    assert tuned(config, study, "--trials=12", "--sampler=random") == 2
    said = capsys.readouterr().err
    assert "sampler: 'quasi_random' there, 'random' now" in said
    assert tuned(config, study, "--trials=12", "--config.optim.name=adam") == 2
    said = capsys.readouterr().err
    assert "config.optim.name: 'sgd' there, 'adam' now" in said and "learning_rate" not in said


@pytest.mark.slow
def test_repeats_and_folds_and_objectives(config, tmp_path):
    flags = ["--trials=3", "--repeats=2", "--folds=3", "--keep=0", "--no-report"]
    assert tuned(config, tmp_path / "s", *flags, "--objective=validation/loss",
                 "--objective=n_params") == 0  # fmt: skip
    record = read(tmp_path / "s")
    for trial in record["trials"]:
        assert len(trial["trainings"]) == 6
        mean = sum(one["value"] for one in trial["trainings"]) / 6
        assert trial["values"][0] == pytest.approx(mean)
        low, high = trial["interval"][0]
        assert low < mean < high
    assert record["objectives"][1] == {"name": "n_params", "direction": "minimize"}
    assert record["pareto"]


@pytest.mark.slow
def test_halving_prunes_and_the_goal_ends(config, tmp_path):
    flags = ["--trials=12", "--halving=asha", "--keep=0", "--no-report", "--sampler=random",
             "--config.train.epochs=9"]  # fmt: skip
    assert tuned(config, tmp_path / "s", *flags) == 0
    states = [trial["state"] for trial in read(tmp_path / "s")["trials"]]
    assert states.count("pruned") >= 4 and "done" in states
    goal = "--until=validation/accuracy>=0.1"
    assert tuned(config, tmp_path / "g", "--trials=500", goal, "--keep=0", "--no-report") == 0
    assert len(read(tmp_path / "g")["trials"]) < 500


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--sampler=tpee"], "Did you mean 'tpe'"),
        (["--trials=0"], "at least 1"),
        (["--halving=hyperband"], "unknown"),
        (["--until=accuracy"], "can't be read"),
        (["--budget=soon"], "no duration"),
        (["--objective=validation/acuracy"], "Did you mean 'accuracy'"),
        (["--config.optim.learning_rat=1"], "Did you mean 'learning_rate'"),
        (["--enqueue=optim.learning_rat=1"], "Did you mean 'optim.learning_rate'"),
        (["--storage=mysteryql://x"], "can't be opened"),
        (["--storage=postgresql+psycopg://x@127.0.0.1:1/y"], "can't be opened"),
        (
            ["--halving=asha", "--objective=validation/loss", "--objective=n_params"],
            "one objective",
        ),
    ],
)
def test_wrong_input_is_one_message_and_trains_nothing(config, tmp_path, capsys, flags, says):
    assert tuned(config, tmp_path / "s", *flags) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said
    folder = tmp_path / "s"
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_space_that_leaves_a_keys_range_fails_before_training(tmp_path, capsys):
    path = tmp_path / "bad.py"
    path.write_text(CONFIG.replace("uniform(0.0, 0.5)", "uniform(0.0, 1.5)")
                    .replace('"model.features"', '"model.featurs"'))  # fmt: skip
    assert tuned(path, tmp_path / "s", "--trials=2") == 2
    said = capsys.readouterr().err
    assert "model.dropout_rate" in said and "model.featurs" in said


def test_a_runs_directory_is_no_studys(config, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert tuned(config, tmp_path, "--trials=2") == 2
    assert "a run's directory" in capsys.readouterr().err


def test_options_and_durations():
    assert Options().trials == 32
    assert Options(budget=3.0).trials is None
    assert seconds("90") == 90 and seconds("1.5m") == 90


def test_the_database_is_sound(study):
    with sqlite3.connect(study / "study.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_a_part_named_on_the_command_line_leaves_the_files_other_keys_out(config, tmp_path):
    space = tmp_path / "space.py"
    space.write_text(
        "from jdlopt.study.space import log_uniform\n\n\n"
        "def get_space():\n    return {'optim.learning_rate': log_uniform(1e-3, 1.0)}\n"
    )
    flags = (f"--space={space}", "--config.model.name=linear", "--trials=2", "--keep=1")
    assert tuned(config, tmp_path / "s", *flags, "--no-report") == 0
    [best] = (tmp_path / "s" / "trials").iterdir()
    model = json.loads((best / "config.json").read_text())["model"]
    assert model["name"] == "linear" and "features" not in model


@pytest.mark.slow
def test_seeds_beyond_the_last_are_refused(config, tmp_path, capsys):
    flags = ("--trials=1", "--repeats=2", f"--config.seed={2**32 - 1}")
    assert tuned(config, tmp_path / "study", *flags) == 2
    assert "--repeats" in capsys.readouterr().err
