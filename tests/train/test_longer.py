"""Runs that go on: for more epochs, from their directory alone."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jdlopt
from jdlopt import config as configs
from jdlopt.cli import main
from jdlopt.errors import ConfigError, Interrupted, WorkdirError
from jdlopt.train import log, loop, tracing
from jdlopt.train.longer import LongerRunWarning

CONFIG: dict[str, Any] = {
    "data": {"source": "iris", "batch_size": 18},
    "model": {"name": "mlp", "features": (8,)},
    "optim": {"name": "adam", "learning_rate": 0.02},
    "train": {"epochs": 4, "tensorboard": False},
    "mesh": {"data": 1},
}


def config(**keys: Any) -> dict[str, Any]:
    return configs.to_dict(configs.override(CONFIG, keys))


def test_a_finished_run_trained_further_equals_one_that_was_that_long(tmp_path: Path) -> None:
    short = jdlopt.fit(config(), tmp_path / "run")
    with pytest.warns(LongerRunWarning, match="goes on from step") as warned:
        more = jdlopt.fit(config(**{"train.epochs": 9}), tmp_path / "run")
    assert "schedule" not in str(warned[0].message)
    whole = jdlopt.fit(config(**{"train.epochs": 9}), tmp_path / "whole")
    assert (short.status, more.status) == ("done", "done")
    assert more.record["steps"] == whole.record["steps"] > short.record["steps"]
    for one, other in zip(jax.tree.leaves(more.state.params), jax.tree.leaves(whole.state.params)):
        np.testing.assert_array_equal(one, other)
    assert log.read_lines(tmp_path / "run/metrics.jsonl") == log.read_lines(
        tmp_path / "whole/metrics.jsonl"
    )
    again = jdlopt.fit(config(**{"train.epochs": 9}), tmp_path / "run")  # and then it is finished
    assert again.record == more.record


@pytest.mark.slow
def test_a_run_that_goes_on_as_it_was_is_checked_only_where_it_fails(tmp_path, monkeypatch) -> None:
    def stop(progress: Any) -> None:
        if progress.step >= 6:
            os.kill(os.getpid(), signal.SIGTERM)

    same = config(**{"train.steps_per_dispatch": 2})
    with pytest.raises(Interrupted):
        jdlopt.fit(same, tmp_path / "run", stop)
    asked: list[object] = []
    monkeypatch.setattr(tracing, "unbuildable", lambda *words: asked.append(words) or ["no model"])
    monkeypatch.setattr(loop, "_Run", lambda *_: 1 / 0)  # as its own code may fail by now
    with pytest.raises(ConfigError, match="no model"):
        jdlopt.fit(same, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(tracing, "unbuildable", lambda *words: asked.append(words) or [])
    assert jdlopt.fit(same, tmp_path / "run").status == "done" and len(asked) == 1
    with pytest.warns(LongerRunWarning):
        jdlopt.fit({**same, "train": {**same["train"], "epochs": 5}}, tmp_path / "run")
    assert len(asked) == 2


def test_fewer_steps_than_were_made_are_refused(tmp_path: Path) -> None:
    jdlopt.fit(config(), tmp_path / "run")
    with pytest.raises(WorkdirError, match=r"has made 24 steps.* asks for 12"):
        jdlopt.fit(config(**{"train.epochs": 2}), tmp_path / "run")
    with pytest.raises(WorkdirError, match="another config"):
        jdlopt.fit(config(**{"train.epochs": 9, "optim.b1": 0.8}), tmp_path / "run")


@pytest.mark.slow
def test_a_run_goes_on_by_its_directory_alone_and_its_schedule_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jdlopt.fit(config(**{"optim.schedule.name": "cosine"}), tmp_path / "run")
    words = ["train", f"--workdir={tmp_path}/run", "--config.train.epochs=6"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(words) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "goes on from step 24 to 36. Its schedule 'cosine' is that of 36 steps" in told
    assert main(["train", f"--workdir={tmp_path}/none"]) == 2
    assert "--config: is missing" in capsys.readouterr().err


def test_a_run_of_a_version_without_a_key_says_so(tmp_path: Path) -> None:
    jdlopt.fit(config(), tmp_path / "run")
    place = tmp_path / "run/config.json"
    place.write_text(place.read_text().replace('"accumulate": 1,', ""))
    with pytest.raises(WorkdirError, match=r"another version of jdlopt.*no optim\.accumulate"):
        jdlopt.fit(config(), tmp_path / "run")
