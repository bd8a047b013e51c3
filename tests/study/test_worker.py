"""A study's worker: it holds so many structures, and trains those that it has dropped as before."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from jdlopt.executor.messages import TrainPopulation, Trial, TrialResult
from jdlopt.executor.worker import Link
from jdlopt.study import worker

IRIS = {
    "data": {"source": "iris", "batch_size": 16},
    "mesh": {"data": 1},
    "train": {"epochs": 1, "tensorboard": False, "evaluate_test": False},
}


def request(width: int, folder: Path) -> TrainPopulation:
    return TrainPopulation(
        config={**IRIS, "model": {"name": "mlp", "features": [width]}},
        trials=[Trial(0, 0, None, {})],
        folds=None,
        width=1,
        directory=str(folder / str(width)),
    )


@pytest.mark.slow
def test_structures_beyond_the_most_are_dropped_and_trained_anew(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(worker, "MOST_STRUCTURES", 2)
    one = worker.start(Link(io.StringIO()))
    found = {}
    for width in (4, 5, 6, 4):
        rows = one(request(width, tmp_path)).trials[0].rows
        assert len(one.structures) <= 2 and len(one.cache.programs) <= 2
        assert found.setdefault(width, rows) == rows


@pytest.mark.slow
def test_trials_that_are_trained_a_few_at_a_time_come_to_the_same(tmp_path) -> None:
    one = worker.start(Link(io.StringIO()))
    trials = [Trial(n, n, None, {"optim.learning_rate": 0.01 * (n + 1)}) for n in range(3)]

    def trained(at_once: int | None) -> list[TrialResult]:
        asked = replace(request(4, tmp_path / str(at_once)), trials=trials, width=3)
        return one(replace(asked, at_once=at_once)).trials

    whole = trained(None)
    for at_once in (1, 2):
        found = trained(at_once)
        assert [row.number for row in found] == [0, 1, 2]
        for mine, other in zip(found, whole, strict=True):
            assert (mine.status, mine.steps) == (other.status, other.steps)
            assert mine.value == pytest.approx(other.value, rel=1e-5)
