"""``fit``: what it writes, where it stops, and that going on equals never having stopped."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import threading

import jax
import numpy as np
import pytest

from jdlopt import writing
from jdlopt.errors import ConfigError, DivergedError, Interrupted, WorkdirError
from jdlopt.train import checkpoint, log, serve
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.predictions import write_predictions
from jdlopt.train.remote import RemoteWarning
from jdlopt.train.result import read_result


def parameters(workdir, which="newest"):
    config = serve.run_config(workdir)
    parts = Experiment.build(config)
    return serve.load_weights(parts, workdir, which)[0].params


def assert_equal_trees(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def lines(workdir):
    return (workdir / log.METRICS).read_text()


def stop_at(step):
    """A progress callback that asks the run to stop, as a person's kill does."""

    def on_progress(progress):
        if progress.step >= step:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_progress


def test_a_run_leaves_what_the_design_promises(config, tmp_path):
    config["train"]["tensorboard"] = True
    result = fit(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record == result.record
    assert record["status"] == "done" and record["steps"] == 24
    for key in (
        "metrics", "best", "examples_per_second", "wall_seconds", "compile_seconds", "n_params",
        "seed", "versions", "devices", "config_fingerprint", "dispatch", "data_wait_share",
    ):  # fmt: skip
        assert record[key] is not None, key
    spent = record["goodput"]["seconds"]
    assert sum(spent.values()) == pytest.approx(record["wall_seconds"])
    assert all(spent[kind] > 0 for kind in ("steps", "compile", "checkpoint", "evaluation"))
    assert spent["compile"] == pytest.approx(record["compile_seconds"])
    for name in ("train/loss", "validation/accuracy", "test/accuracy", "test/f1_macro"):
        assert 0 <= record["metrics"][name] < 10
    assert record["metrics"]["test/accuracy"] > 0.7  # the blobs can be told apart
    assert record["best"]["metric"] == "validation/accuracy"
    written = [json.loads(line) for line in lines(tmp_path / "run").splitlines()]
    assert [line["step"] for line in written] == [6, 12, 18, 24]
    assert {"train/loss", "train/grad_norm", "validation/loss", "learning_rate"} <= set(written[0])
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [24]
    assert checkpoint.steps(tmp_path / "run" / "checkpoints", "best") == [record["best"]["step"]]


def test_tensorboard_reads_the_scalars_and_hparams_back(config, tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    config["train"]["tensorboard"] = True
    fit(config, tmp_path / "run")
    reader = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    reader.Reload()
    written = [json.loads(line) for line in lines(tmp_path / "run").splitlines()]
    for name in ("train/loss", "validation/accuracy", "learning_rate"):
        scalars = reader.Scalars(name)
        assert [scalar.step for scalar in scalars] == [line["step"] for line in written]
        np.testing.assert_allclose(
            [scalar.value for scalar in scalars], [line[name] for line in written], rtol=1e-6
        )
    assert "examples_per_second" in reader.Tags()["scalars"]
    hparams = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard" / "hparams"))
    hparams.Reload()
    assert "_hparams_/session_start_info" in hparams.summary_metadata


@pytest.mark.parametrize(
    "per_dispatch", [3, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 4))]
)
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(config, tmp_path, per_dispatch):
    config["train"]["steps_per_dispatch"] = per_dispatch
    config["train"]["log_every"] = 5
    whole = fit(config, tmp_path / "whole")
    config["train"]["remote"] = str(tmp_path / "elsewhere")
    with pytest.raises(Interrupted, match="goes on"):
        fit(config, tmp_path / "parts", stop_at(2))
    stopped = read_result(tmp_path / "parts")
    assert stopped["status"] == "interrupted" and 2 <= stopped["steps"] <= 8
    assert stopped["remote"] == {"url": config["train"]["remote"], "step": stopped["steps"]}
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "parts", stop_at(14))
    shutil.rmtree(tmp_path / "parts")  # a machine is gone, and its copy elsewhere is left
    with pytest.warns(RemoteWarning, match="taken from"):
        resumed = fit(config, tmp_path / "parts")
    assert resumed.status == "done"
    assert resumed.record["goodput"]["starts"] == 3
    assert resumed.record["goodput"]["lost_steps"] == 0
    assert_equal_trees(parameters(tmp_path / "whole"), parameters(tmp_path / "parts"))
    assert_equal_trees(
        parameters(tmp_path / "whole", "best"), parameters(tmp_path / "parts", "best")
    )
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    assert whole.metrics == resumed.metrics


def test_training_goes_on_while_a_checkpoint_is_written(config, tmp_path, monkeypatch):
    further, settle_all = threading.Event(), writing.settle_all

    def held(folder):
        assert further.wait(60), "training has waited"
        settle_all(folder)

    monkeypatch.setattr(writing, "settle_all", held)
    config["train"]["checkpoint_every"] = 6
    fit(config, tmp_path / "run", lambda now: further.set() if now.step > 6 else None)
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [18, 24]
    assert serve.evaluate_run(tmp_path / "run", "validation", "newest")


def test_how_steps_are_dispatched_does_not_change_the_numbers(config, tmp_path):
    for per_dispatch in (2, 6):
        config["train"]["steps_per_dispatch"] = per_dispatch
        fit(config, tmp_path / str(per_dispatch))
    assert_equal_trees(parameters(tmp_path / "2"), parameters(tmp_path / "6"))
    assert lines(tmp_path / "2") == lines(tmp_path / "6")


def test_the_way_to_dispatch_is_measured_and_recorded(config, tmp_path):
    config["train"]["steps_per_dispatch"] = None
    dispatch = fit(config, tmp_path / "run").record["dispatch"]
    assert dispatch["chosen"] == "measured"
    seconds = dispatch["step_seconds"]
    assert set(seconds) == {"step", "loop"}
    assert dispatch["mode"] == min(seconds, key=seconds.get)


def test_streaming_trains_the_same_run(config, tmp_path):
    config["train"]["steps_per_dispatch"] = 1
    results = []
    for in_memory in (True, False):
        config["data"]["in_memory"] = in_memory
        results.append(fit(config, tmp_path / str(in_memory)))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6),
        parameters(tmp_path / "True"),
        parameters(tmp_path / "False"),
    )
    assert results[1].record["dispatch"]["steps"] == 1
    assert results[1].record["data_wait_share"] > 0


@pytest.mark.parametrize(
    ("model", "mesh"),
    [
        ("mlp", {"data": 2, "fsdp": 2, "tensor": 2}),
        *(
            pytest.param(model, mesh, marks=pytest.mark.slow)
            for model, mesh in (
                ("pruned mlp", {"data": 1, "fsdp": 8}),
                ("cnn", {"data": 2, "fsdp": 2, "tensor": 2}),
            )
        ),
    ],
)
def test_eight_devices_equal_one(config, tmp_path, mesh, model):
    if model == "cnn":
        config["model"] = {"name": "cnn", "features": (8, 16), "batch_norm": True}
    else:
        config["model"] |= {"features": (128, 128)}  # large enough for fsdp to split
    if model == "pruned mlp":
        config["model"] |= {"prune": {"criterion": "gradient", "sparsity": 0.8}}
    one = fit(config, tmp_path / "one")
    config["mesh"] = mesh
    eight = fit(config, tmp_path / "eight")
    assert len(eight.record["devices"]) == 8
    assert eight.record.get("pruning") == one.record.get("pruning")
    for one, many in zip(
        lines(tmp_path / "one").splitlines(), lines(tmp_path / "eight").splitlines(), strict=True
    ):
        one, many = json.loads(one), json.loads(many)
        for name in ("train/loss", "train/grad_norm", "validation/loss"):
            np.testing.assert_allclose(one[name], many[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("in_memory", [True, False])
def test_nothing_stays_open_when_a_run_fails_before_its_first_step(
    config, tmp_path, monkeypatch, in_memory
):
    def refuse(*args, **kwargs):
        raise MemoryError("no room for the program")

    for name in ("training_programs", "streaming_program"):
        monkeypatch.setattr(f"jdlopt.train.execution.{name}", refuse)
    config["data"]["in_memory"] = in_memory
    before = set(threading.enumerate())
    with pytest.raises(MemoryError):
        fit(config, tmp_path / "run")
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # readers end their batch
    assert set(threading.enumerate()) <= before
    files = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
    assert not [file for file in files if file.startswith(str(tmp_path / "run"))]
    monkeypatch.undo()
    assert fit(config, tmp_path / "run").status == "done"


def test_early_stopping_stops_at_the_evaluation_that_used_up_patience(config, tmp_path):
    config["train"] |= {"steps": 600, "patience": 3, "monitor": "validation/loss"}
    config["optim"]["learning_rate"] = 0.05
    result = fit(config, tmp_path / "run")
    assert result.status == "stopped early"
    written = [json.loads(line) for line in lines(tmp_path / "run").splitlines()]
    values = [line["validation/loss"] for line in written]
    best = int(np.argmin(values))
    assert len(values) == best + 1 + 3
    assert result.record["best"] == {
        "step": written[best]["step"], "metric": "validation/loss", "value": values[best],
    }  # fmt: skip
    assert result.record["steps"] == written[-1]["step"]
    np.testing.assert_allclose(result.metrics["validation/loss"], values[best], rtol=1e-6)


def test_divergence_stops_with_the_step_and_keeps_the_last_good_checkpoint(config, tmp_path):
    config["optim"] = {"name": "sgd", "learning_rate": 1e30}
    config["train"] |= {"checkpoint_every": 1, "steps_per_dispatch": 1, "eval_every": 1}
    with pytest.raises(DivergedError, match=r"step \d+.*last good checkpoint") as caught:
        fit(config, tmp_path / "run")
    record = read_result(tmp_path / "run")
    assert record["status"] == "diverged"
    assert record["diverged"]["step"] == caught.value.step
    kept = checkpoint.steps(tmp_path / "run" / "checkpoints")
    assert kept and max(kept) == caught.value.step - 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters(tmp_path / "run")))


def test_a_finished_run_is_not_trained_again(config, tmp_path):
    first = fit(config, tmp_path / "run")
    before = (tmp_path / "run" / "result.json").stat().st_mtime_ns
    again = fit(config, tmp_path / "run")
    assert again.record == first.record
    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == before


def test_a_directory_of_another_config_is_refused_and_left_alone(config, tmp_path):
    fit(config, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.json*")}
    other = copy.deepcopy(config)
    other["optim"]["learning_rate"] = 0.02
    with pytest.raises(WorkdirError, match=r"optim\.learning_rate: 0\.01 there, 0\.02 now"):
        fit(other, tmp_path / "run")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").glob("*.json*")}


def test_the_test_split_is_read_after_training_only(config, tmp_path, monkeypatch):
    from jdlopt.data.dataset import Dataset

    events = []
    read = Dataset.read

    def watched(self, split):
        events.append(split)
        return read(self, split)

    monkeypatch.setattr(Dataset, "read", watched)
    seen_while_training = []
    fit(config, tmp_path / "run", lambda progress: seen_while_training.extend(events))
    assert "test" in events and "test" not in seen_while_training
    assert events[-1] == "test"
    events.clear()
    config["train"]["evaluate_test"] = False
    fit(config, tmp_path / "without")
    assert "test" not in events


def test_a_damaged_newest_checkpoint_is_named_and_passed_over(config, tmp_path):
    config["train"]["checkpoint_every"] = 6
    whole = fit(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "run", stop_at(13))
    folder = tmp_path / "run" / "checkpoints"
    newest = checkpoint.steps(folder)[-1]
    largest = max(
        (path for path in (folder / f"step-{newest}").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0x40
    largest.write_bytes(content)
    with pytest.warns(checkpoint.CheckpointWarning, match=f"step-{newest}"):
        resumed = fit(config, tmp_path / "run")
    assert resumed.metrics == whole.metrics
    assert lines(tmp_path / "whole") == lines(tmp_path / "run")


@pytest.mark.parametrize(
    "average",
    [
        {"name": "ema", "decay": 0.5},
        pytest.param({"name": "swa", "every": 2}, marks=pytest.mark.slow),
    ],
)
def test_averaged_parameters_are_what_is_evaluated(config, tmp_path, average):
    config["optim"]["average"] = average
    config["train"]["monitor"] = "validation/loss"
    result = fit(config, tmp_path / "run")
    averaged = serve.evaluate_run(tmp_path / "run", "validation", "newest")
    last = json.loads(lines(tmp_path / "run").splitlines()[-1])
    np.testing.assert_allclose(
        averaged["metrics"]["validation/loss"], last["validation/loss"], rtol=1e-5
    )
    assert result.status == "done"


def test_eval_agrees_with_the_run_and_predict_with_eval(config, tmp_path, blobs):
    result = fit(config, tmp_path / "run")
    record = serve.evaluate_run(tmp_path / "run", "test", "best")
    for name, value in record["metrics"].items():
        np.testing.assert_allclose(value, result.metrics[name], rtol=1e-6, err_msg=name)
    with np.load(blobs) as data:
        np.savez(tmp_path / "new.npz", x=data["x_test"])
        labels = data["y_test"]
    predictions = serve.predict_run(tmp_path / "run", tmp_path / "new.npz", batch_size=7)
    np.testing.assert_allclose(predictions.probabilities.sum(-1), 1, rtol=1e-5)
    accuracy = (predictions.values == labels).mean()
    assert accuracy == pytest.approx(record["metrics"]["test/accuracy"])
    write_predictions(predictions, tmp_path / "out.csv")
    header, *rows = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith("row,prediction,probability_") and len(rows) == 60


def test_all_problems_of_a_config_come_at_once(config, tmp_path):
    config["model"]["featuers"] = (3,)
    config["optim"]["learning_rate"] = -1.0
    config["train"]["epochs"] = "many"
    with pytest.raises(ConfigError) as caught:
        fit(config, tmp_path / "run")
    message = str(caught.value)
    assert "3 problems" in message
    for words in ("model.featuers", "'features'", "optim.learning_rate", "train.epochs"):
        assert words in message
    assert not (tmp_path / "run").exists()
