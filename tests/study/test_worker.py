"""A worker: it holds so many structures, and trains those that it has dropped as before."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from jdlopt.study import worker

IRIS = {
    "data": {"source": "iris", "batch_size": 16},
    "mesh": {"data": 1},
    "train": {"epochs": 1, "tensorboard": False, "evaluate_test": False},
}


def order(width: int, folder: Path) -> dict[str, Any]:
    return {
        "do": "train", "task": 1, "config": {**IRIS, "model": {"name": "mlp", "features": [width]}},
        "folds": None, "width": 1, "halving": None, "history": {}, "reduction": 3,
        "members": [{"trial": 0, "seed": 0, "fold": None, "params": {}}],
        "formulation": None, "calibrate": False, "directory": str(folder / str(width)),
    }  # fmt: skip


def test_structures_beyond_the_most_are_dropped_and_trained_anew(monkeypatch, tmp_path) -> None:
    for name in ("jdlopt.train.compiling.keep_programs", "jdlopt.memory.keep"):
        monkeypatch.setattr(name, lambda: None)
    monkeypatch.setattr(worker, "MOST_STRUCTURES", 2)
    one = worker._Worker(lambda message: None, threading.Event())
    found = {}
    for width in (4, 5, 6, 4):
        rows = one.train(order(width, tmp_path))["members"][0]["rows"]
        assert len(one.structures) <= 2 and len(one.cache.programs) <= 2
        assert found.setdefault(width, rows) == rows
