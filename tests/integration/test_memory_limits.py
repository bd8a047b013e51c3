"""Limits on a process's memory: one message, or the rest goes on without what does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LARGE = (120_000, 120_000)
"""Widths of a model whose parameters take 58 GB."""
CONFIG = f"""
from jdlopt.study.space import choice, log_uniform

def get_config():
    return {{
        "data": {{"source": "iris", "batch_size": 16, "validation_fraction": 0.2}},
        "model": {{"name": "mlp", "features": (8,)}},
        "optim": {{"name": "sgd", "learning_rate": 1e-2}},
        "mesh": {{"data": 1}},
        "train": {{"epochs": 2, "tensorboard": False}},
    }}

def get_space():
    return {{
        "optim.learning_rate": log_uniform(1e-3, 1.0),
        "model.features": choice((8,), {LARGE}),
    }}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.py"
    path.write_text(CONFIG)
    return path


def limited(words: list[str], gigabytes: float) -> tuple[int, str]:
    """Runs ``jdlopt`` with so much address space; returns its exit code and what it said."""
    # not by preexec_fn: a process in which jax has begun must not fork
    limit = f'ulimit -v {int(gigabytes * 2**20)}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", limit, "bash", sys.executable, "-m", "jdlopt.cli", *words],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    return done.returncode, done.stderr


def assert_one_message(said: str) -> None:
    assert said.startswith("jdlopt: ") and said.count("\n") == 1, said
    assert "too little memory" in said


@pytest.mark.parametrize("gigabytes", [0.6, 24.0])
def test_a_run_that_does_not_fit_is_one_message(config, tmp_path, gigabytes):
    large = f"--config.model.features={','.join(map(str, LARGE))}"
    words = ["train", f"--config={config}", f"--workdir={tmp_path / 'run'}", large]
    code, said = limited(words, gigabytes)
    assert code == 2
    assert_one_message(said)


def test_a_study_leaves_out_what_does_not_fit_and_trains_the_rest(config, tmp_path):
    words = ["tune", f"--config={config}", f"--workdir={tmp_path}", "--trials=6", "--workers=2",
             "--keep=0", "--no-report"]  # fmt: skip
    code, said = limited(words, 24.0)
    rows = json.loads((tmp_path / "study.json").read_text())["trials"]
    assert code == 0 and "Traceback" not in said
    for row in rows:
        small = row["params"]["model.features"] == [8]
        assert row["state"] == ("done" if small else "left out")
    assert {row["state"] for row in rows} == {"done", "left out"}
    assert "did not fit in memory" in " ".join(said.split())
    code, said = limited(words, 0.6)
    assert code == 2
    assert_one_message(said)
