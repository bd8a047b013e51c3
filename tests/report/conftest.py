"""A study's directory to make reports of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from samples import a_study, a_trial, write_study


@pytest.fixture
def make_study(tmp_path):
    """Returns a function that makes a study's directory."""

    def make(count: int = 24, objectives: int = 1, **changes: Any) -> Path:
        states = ["done", "done", "done", "pruned", "done", "infeasible"]
        trials = [a_trial(n, objectives, states[n % 6]) for n in range(count)]
        return write_study(tmp_path / "study", {**a_study(trials, objectives), **changes})

    return make
