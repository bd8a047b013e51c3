"""The verb compress: from a run to a smaller one that loses little enough."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from fake import FakeProcesses, trained

import jdlopt
from jdlopt.cli import main
from jdlopt.compress import made, stages
from jdlopt.errors import UserError, WorkdirError
from jdlopt.executor.executor import Executor
from jdlopt.executor.messages import Failed, PopulationTrained, TrainPopulation
from jdlopt.export import extras
from jdlopt.study.known_data import ChangedDataWarning
from jdlopt.train import weights_file
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit

CONFIG: dict[str, Any] = {
    "data": {"source": "wine", "batch_size": 16, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (16, 16)},
    "optim": {"name": "adam", "learning_rate": 0.01},
    "train": {"epochs": 4, "tensorboard": False},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("compress") / "run"
    fit(CONFIG, place)
    return place


def test_what_can_not_be_compressed_is_one_message(run: Path, tmp_path: Path, capsys, monkeypatch):
    with pytest.raises(UserError, match=r"half_width"):
        jdlopt.compress(run, "1pp", tmp_path / "c", methods=("half_widht",))
    with pytest.raises(UserError, match=r"--within: .*validation/accuracy"):
        jdlopt.compress(run, 0.1, tmp_path / "c")
    with monkeypatch.context() as patch:
        patch.setattr(extras.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"--runtime=onnx: .*pip install 'jdlopt\[export\]'"):
            jdlopt.compress(run, "1pp", tmp_path / "c", runtime="onnx")
    assert not (tmp_path / "c").exists()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("config.json", "inputs.json", "data.json"):
        (unfinished / name).write_bytes((run / name).read_bytes())
    with pytest.raises(WorkdirError, match="unfinished"):
        jdlopt.compress(unfinished, "1pp", tmp_path / "c")
    assert main(["compress", str(run), "--within=no"]) == 2
    assert main(["compress", str(tmp_path), "--within=1pp"]) == 2
    said = capsys.readouterr().err
    assert "--within" in said and "Traceback" not in said


def command(run: Path, workdir: Path, *flags: str) -> list[str]:
    return [
        sys.executable, "-m", "jdlopt.cli", "compress", str(run), f"--out={workdir}",
        "--metric=validation/loss", "--within=0.5", "--seeds=3", "--workers=1",
        "--methods=half_width,unit_pruning,float16", "--budget=10m", *flags,
    ]  # fmt: skip


ENVIRONMENT = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}


def lines(workdir: Path) -> dict[str, int]:
    """How many trainings of each config are written down."""
    return {
        path.name: len(path.read_text().splitlines())
        for path in sorted((workdir / "trainings").glob("*.jsonl"))
    }


def masked_values(workdir: Path) -> dict[str, float]:
    """What the trainings with masks came to, by seed, before anything was cut."""
    folder = workdir / "trainings"
    (name,) = (
        path.stem
        for path in folder.glob("*.json")
        if json.loads(path.read_text())["model"].get("prune", {}).get("criterion")
    )
    text = (folder / f"{name}.jsonl").read_text()
    found = [json.loads(one)["training"] for one in text.splitlines()]
    return {str(one["seed"]): one["metrics"]["validation/loss"] for one in found}


@pytest.mark.slow
def test_a_run_becomes_smaller_and_a_killed_call_trains_nothing_twice(run: Path, tmp_path: Path):
    workdir = tmp_path / "c"
    process = subprocess.Popen(command(run, workdir), env=ENVIRONMENT, start_new_session=True)
    until = time.monotonic() + 120
    while not sum(lines(workdir).values()) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    begun = lines(workdir)
    done = subprocess.run(
        command(run, workdir, "--json"), env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    record = json.loads(done.stdout)
    now = lines(workdir)
    assert begun and all(now[name] >= count for name, count in begun.items())
    # the baseline's two other seeds, three of the model of half the width, three that are pruned
    assert sorted(now.values()) == [2, 3, 3]
    assert record["status"] == "done" and record["why"] == "every candidate was tried"
    rows = {row["name"]: row for row in (record["baseline"], *record["candidates"])}
    half = rows["half_width"]
    assert (
        half["bytes"] < 0.5 * rows["baseline"]["bytes"] and half["macs"] < rows["baseline"]["macs"]
    )
    # cutting out what is 0 leaves what the masked model came to
    units = rows["units_50"]
    assert units["macs"] == half["macs"] and units["bytes"] == half["bytes"]
    assert masked_values(workdir) == pytest.approx(units["values"], rel=1e-4)
    assert all(set(row["ms"]) == {"1", "32"} for row in rows.values())
    chosen = record["chosen"]
    assert rows[chosen]["decision"] == "accepted"
    assert rows[chosen]["bytes"] == min(
        row["bytes"] for row in rows.values() if row["decision"] == "accepted"
    )
    assert (workdir / "compress.html").stat().st_size > 10_000
    made = jdlopt.open_run(workdir / "chosen")
    assert made.metrics["test/loss"] == record["test"]["chosen"]
    assert main(["eval", str(workdir / "chosen"), "--split=test"]) == 0
    # all of it is known: nothing is trained again
    methods = ("half_width", "unit_pruning", "float16")
    options = {"seeds": 3, "workers": 1, "methods": methods}
    again = jdlopt.compress(run, 0.5, workdir, metric="validation/loss", **options)
    assert again["chosen"] == chosen
    assert lines(workdir) == now


class Killed(BaseException):
    """What nothing catches."""


class Workers:
    """Workers that are no processes: what they train is random weights of the config's model."""

    def __init__(self):
        self.trials: list[tuple[tuple[int, ...], int]] = []
        self.fails: Callable[[tuple[int, ...]], str | None] = lambda features: None

    def start(self, *_: object) -> Executor:
        processes = FakeProcesses()
        processes.reply = self.reply
        return Executor(processes, 1)

    def reply(self, request: TrainPopulation) -> Failed | PopulationTrained:
        features = tuple(request.config["model"]["features"])
        kind = self.fails(features)
        if kind is not None:
            return Failed(request.task, kind, "there is not enough of it")
        experiment = Experiment.build(request.config, check=False)
        for trial in request.trials:
            self.trials.append((features, trial.seed))
            weights = experiment.weights(experiment.init(trial.seed))
            weights_file.save(Path(trial.keep), jax.device_get(weights))
        return trained(request)


@pytest.mark.slow
def test_a_call_goes_on_from_any_stage_and_no_shortage_is_a_result(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workers, workdir = Workers(), tmp_path / "c"
    monkeypatch.setattr(Executor, "start", workers.start)
    whole, half = (16, 16), (8, 8)

    def compressed() -> dict[str, Any]:
        return jdlopt.compress(
            run, 0.5, workdir, metric="validation/loss", seeds=3, batch_sizes=(1,),
            methods=("half_width", "float16"),
        )  # fmt: skip

    workers.fails = lambda features: "environment"
    with pytest.raises(UserError, match="not enough of it"):
        compressed()
    assert not list((workdir / "trainings").iterdir())
    workers.fails = lambda features: "wrong input" if features == half else None

    # by module: the package's name is that of `jdlopt.compress`, the function, as well
    for where, name, ends in (
        (stages.Bench, "_applied", WorkdirError("the disk is full")),
        (made, "write_result", Killed()),
        (importlib.import_module("jdlopt.compress.compress"), "of_test", Killed()),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, Mock(side_effect=ends))
            with pytest.raises(type(ends)):
                compressed()
    assert workers.trials == [(whole, 1), (whole, 2)]
    workers.fails = lambda features: "out of memory" if features == half else None
    rows = {row["name"]: row for row in compressed()["candidates"]}
    assert rows["half_width"]["decision"] == "undecided"
    assert "did not fit in memory" in rows["half_width"]["reason"]
    assert rows["float16"]["decision"] == "accepted"
    workers.fails = lambda features: None
    last = compressed()
    rows = {row["name"]: row for row in last["candidates"]}
    assert len(rows["half_width"]["values"]) == 3 and last["chosen"] == "float16"
    assert workers.trials == [(whole, 1), (whole, 2), (half, 0), (half, 1), (half, 2)]
    assert [path.name for path in workdir.glob("chosen*")] == ["chosen"]


@pytest.mark.slow
def test_of_changed_data_all_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workers, source = Workers(), tmp_path / "data.npz"
    monkeypatch.setattr(Executor, "start", workers.start)

    def write(seed: int) -> None:
        x = np.random.default_rng(seed).normal(size=(120, 5)).astype(np.float32)
        y = (x[:, :2] > 0).sum(axis=1)
        np.savez(source, x_train=x[:90], y_train=y[:90], x_test=x[90:], y_test=y[90:])

    def compressed(changed_data: str) -> dict[str, Any]:
        return jdlopt.compress(
            tmp_path / "run", 0.5, tmp_path / "c", metric="validation/loss", seeds=3,
            batch_sizes=(1,), methods=("float16",), changed_data=changed_data,
        )  # fmt: skip

    write(0)
    fit({**CONFIG, "data": {"source": str(source), "batch_size": 16}}, tmp_path / "run")
    first = compressed("refuse")
    write(1)
    with pytest.raises(WorkdirError, match="are not those"):
        compressed("refuse")
    with pytest.warns(ChangedDataWarning):
        second = compressed("ok")
    assert len(workers.trials) == 4
    assert first["chosen"] == second["chosen"] == "float16"
    for one in ("baseline", "chosen"):  # both of the same examples
        assert first["test"][one] != pytest.approx(second["test"][one], rel=1e-3)
    assert second["test"]["chosen"] == pytest.approx(second["test"]["baseline"], rel=1e-3)
    assert len(list((tmp_path / "c").glob("chosen*"))) == 2


@pytest.mark.slow
def test_a_budget_that_ends_leaves_what_is_known(run: Path, tmp_path: Path, capsys):
    flags = [f"--out={tmp_path / 'c'}", "--within=1pp", "--budget=1s", "--workers=1"]
    assert main(["compress", str(run), *flags]) == 0
    record = json.loads((tmp_path / "c" / "compress.json").read_text())
    assert record["why"] == "the time budget ended" and record["chosen"] is None
    assert "Nothing is chosen" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_quantized_is_timed_as_a_file_in_8_bits(run: Path, tmp_path: Path, capsys):
    flags = ["--metric=validation/loss", "--within=0.5", "--seeds=3", "--workers=1",
             "--methods=quantize", "--runtime=onnx", f"--out={tmp_path / 'c'}"]  # fmt: skip
    assert main(["compress", str(run), *flags]) == 0
    record = json.loads((tmp_path / "c" / "compress.json").read_text())
    assert record["runtime"].startswith("ONNX Runtime ")
    rows = {row["name"]: row for row in (record["baseline"], *record["candidates"])}
    forms = {name: row["timed_as"] for name, row in rows.items()}
    assert forms["baseline"] == "float32 ONNX"
    assert forms["int8"] == forms["int4_weights"] and forms["int8"].startswith("int8 ONNX, ")
    assert all(set(row["ms"]) == {"1", "32"} for row in rows.values())
    said = " ".join(capsys.readouterr().err.split())
    assert f"in {record['runtime']} (the run as float32 ONNX; {forms['int8']}: int8" in said
    page = (tmp_path / "c" / "compress.html").read_text()
    assert record["runtime"] in page and forms["int8"] in page
