"""``train.loggers``: what each is given, that a run goes on in it, that none ends a training."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from jdlopt.errors import ConfigError, Interrupted
from jdlopt.train import log, loggers
from jdlopt.train.loggers import background
from jdlopt.train.loggers.logger import LoggerWarning
from jdlopt.train.loop import fit
from jdlopt.train.schema import TrainFields

OWN = """
import threading

seen, hold = [], threading.Event()

class Kept:
    def __init__(self, opening):
        self.identity = {"run": opening.identity.get("run", "first")}
        seen.append(("open", opening.step, dict(opening.identity), opening.config["seed"]))
    def log(self, step, values):
        seen.append((step, dict(values)))
    def flush(self):
        seen.append("flush")
    def close(self, status, metrics):
        seen.append((status, dict(metrics)))

class Broken(Kept):
    def log(self, step, values):
        raise OSError("the network is gone")

class Stuck(Kept):
    def log(self, step, values):
        hold.wait()

def unopened(opening):
    raise RuntimeError("no server")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of loggers of one's own, in the folder that the person stands in."""
    (tmp_path / "own_loggers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    opener = loggers.find_logger("own_loggers:Kept")
    module = __import__("own_loggers")
    module.seen.clear()
    module.hold.clear()
    assert opener is module.Kept
    return module


def stop_at(step: int) -> Any:
    def on_progress(progress: Any) -> None:
        if progress.step >= step:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_progress


def table(workdir: Path) -> list[dict[str, str]]:
    with (workdir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_logger_has_the_lines_and_goes_on_with_its_run(config, own, tmp_path):
    config["train"] |= {"loggers": ("tensorboard", "csv", "own_loggers:Kept"), "log_every": 3}
    config["train"]["checkpoint_every"] = 6
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "run", stop_at(12))
    opened, *_, closed = own.seen
    assert opened == ("open", 0, {}, 1) and closed[0] == "interrupted" and "flush" in own.seen
    first = json.loads((tmp_path / "run/result.json").read_text())
    assert first["loggers"] == {"tensorboard": {}, "csv": {}, "own_loggers:Kept": {"run": "first"}}
    own.seen.clear()
    run = fit(config, tmp_path / "run")

    lines = log.read_lines(tmp_path / "run" / log.METRICS)
    rows = table(tmp_path / "run")
    assert [int(row["step"]) for row in rows] == [line["step"] for line in lines]
    assert [line["step"] for line in lines] == [3, 6, 9, 12, 15, 18, 21, 24]
    for row, line in zip(rows, lines, strict=True):
        numbers = {name: float(value) for name, value in row.items() if value}
        assert numbers.pop("examples_per_second") > 0
        assert numbers == line
    assert list((tmp_path / "run/tensorboard/hparams").iterdir())

    opened, *given, closed = [one for one in own.seen if one != "flush"]
    step = opened[1]
    assert opened == ("open", step, {"run": "first"}, 1) and step >= 12
    assert [number for number, _ in given] == [
        line["step"] for line in lines if line["step"] > step
    ]
    assert closed == ("done", {**closed[1], "test/accuracy": run.metrics["test/accuracy"]})
    assert run.record["loggers"]["own_loggers:Kept"] == {"run": "first"}
    assert json.loads((tmp_path / "run/loggers.json").read_text()) == {
        "own_loggers:Kept": {"run": "first"}
    }
    # another logger is no other run; one that was damaged begins anew
    config["train"]["loggers"] = ()
    assert fit(config, tmp_path / "run").record == run.record
    (tmp_path / "run/loggers.json").write_text('{"csv": [1], "wandb": {"id": 3}}')
    assert background.read_identities(tmp_path / "run") == {"wandb": {}}


def test_a_logger_that_fails_ends_no_training_and_is_told_once(config, own, tmp_path, monkeypatch):
    monkeypatch.setattr(background, "FLUSH_SECONDS", 0.02)
    monkeypatch.setattr(background, "CLOSE_SECONDS", 0.1)
    names = ("Broken", "Stuck", "unopened", "Kept")
    config["train"]["loggers"] = [f"own_loggers:{name}" for name in names]
    with pytest.warns(LoggerWarning) as warned:
        run = fit(config, tmp_path / "run")
    own.hold.set()
    said = sorted(str(one.message) for one in warned)
    assert len(said) == 3 and all("The training goes on" in one for one in said)
    assert run.status == "done" and len(run.history) == 4
    record = run.record["loggers"]
    assert record["own_loggers:Broken"]["reason"] == "OSError: the network is gone"
    assert record["own_loggers:unopened"]["reason"] == "RuntimeError: no server"
    assert "had not ended" in record["own_loggers:Stuck"]["reason"]
    lost = {name.partition(":")[2]: one.get("lost_steps") for name, one in record.items()}
    assert lost == {"Broken": 4, "Stuck": 4, "unopened": 4, "Kept": None}
    for thread in threading.enumerate():
        if thread.name.startswith("logger "):
            thread.join(5)
            assert not thread.is_alive()


def test_what_loggers_can_not_be_is_told_before_anything_is_trained(
    config, own, tmp_path, monkeypatch
):
    def refused(*names: str) -> str:
        config["train"]["loggers"] = names
        with pytest.raises(ConfigError) as error:
            fit(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return str(error.value)

    assert "Did you mean 'tensorboard'?" in refused("csv", "tensorbord")
    assert "has no 'Keeps'. Did you mean 'Kept'?" in refused("own_loggers:Keeps")
    monkeypatch.setattr(util, "find_spec", lambda name, *_: None)
    assert "pip install 'jdlopt[wandb]'" in refused("wandb")
    assert "pip install 'jdlopt[mlflow]'" in refused("mlflow")
    config["train"] |= {"loggers": ("csv",), "steps": 6}
    with pytest.warns(LoggerWarning, match="csv: logs nothing of a run without workdir"):
        fit(config)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, ("tensorboard",)),
        ({"tensorboard": False}, ()),
        ({"loggers": ("csv",)}, ("csv",)),
        ({"loggers": ("tensorboard",), "tensorboard": False}, ("tensorboard",)),
        ({"loggers": ()}, ()),
    ],
)
def test_the_switch_of_tensorboard_holds_where_loggers_do_not_say(given, used):
    assert TrainFields(**given).used_loggers == used


def test_a_csv_that_was_cut_or_is_none_is_written_anew(tmp_path):
    from jdlopt.train.loggers.csv_file import CsvFile
    from jdlopt.train.loggers.logger import Opening

    path = tmp_path / "metrics.csv"
    for text in ("step,a\n1,2\n2,3\n3", "step,a\n1,2\n2,3\n9,9,9\nx,1\n7,7\n"):
        path.write_text(text)
        file = CsvFile(Opening(tmp_path, "run", {}, step=2))
        file.log(3, {"a": 4.0, "b": 5.0})
        assert path.read_text() == "step,a,b\n1,2,\n2,3,\n3,4.0,5.0\n"
    path.write_bytes(b"\xff\x00")
    CsvFile(Opening(tmp_path, "run", {})).log(1, {"a": 1.0})
    assert path.read_text() == "step,a\n1,1.0\n"
    outside = tmp_path / "outside.txt"
    outside.write_text("mine\n")
    path.unlink()
    path.symlink_to(outside)  # is replaced, and what it leads to stays
    CsvFile(Opening(tmp_path, "run", {})).log(1, {"a": 1.0})
    assert not path.is_symlink() and outside.read_text() == "mine\n"


# --- by the field's own packages ------------------------------------------------------------------


def interrupted_then_whole(config: dict[str, Any], workdir: Path, name: str) -> dict[str, Any]:
    """Trains a run that is stopped and goes on; returns its ids, those of both calls the same."""
    config["train"] |= {"loggers": (name,), "checkpoint_every": 6}
    with pytest.raises(Interrupted):
        fit(config, workdir, stop_at(12))
    before = json.loads((workdir / "loggers.json").read_text())
    run = fit(config, workdir)
    assert "lost_steps" not in run.record["loggers"][name], run.record["loggers"]
    assert json.loads((workdir / "loggers.json").read_text()) == before
    return before[name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_offline(config, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_PROJECT": "tried"}.items():
        monkeypatch.setenv(name, value)
    found = interrupted_then_whole(config, tmp_path / "run", "wandb")
    files = list((tmp_path / "run/wandb").glob(f"offline-run-*-{found['id']}/*.wandb"))
    assert files and all(b"validation/accuracy" in file.read_bytes() for file in files[-1:])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_mlflow_of_a_file_and_of_a_database(config, tmp_path, monkeypatch, store):
    mlflow = pytest.importorskip("mlflow")
    place = {"file": (tmp_path / "mlruns").as_uri(), "sqlite": f"sqlite:///{tmp_path}/mlflow.db"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place[store])
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    found = interrupted_then_whole(config, tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient(place[store])
    run = client.get_run(found["run_id"])
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["model.name"] == "mlp" and run.data.params["train.steps"] == "24"
    points = client.get_metric_history(found["run_id"], "validation/accuracy")
    lines = log.read_lines(tmp_path / "run" / log.METRICS)
    assert [(one.step, one.value) for one in points] == [
        (line["step"], line["validation/accuracy"]) for line in lines
    ]
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert run.data.metrics["result/test/accuracy"] == result["metrics"]["test/accuracy"]
