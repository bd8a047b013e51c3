"""A study's worker: it holds so many structures, and trains those that it has dropped as before."""

from __future__ import annotations

import io
from pathlib import Path

from jdlopt.executor.messages import TrainPopulation, Trial
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


def test_structures_beyond_the_most_are_dropped_and_trained_anew(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(worker, "MOST_STRUCTURES", 2)
    one = worker.start(Link(io.StringIO()))
    found = {}
    for width in (4, 5, 6, 4):
        rows = one(request(width, tmp_path)).trials[0].rows
        assert len(one.structures) <= 2 and len(one.cache.programs) <= 2
        assert found.setdefault(width, rows) == rows
