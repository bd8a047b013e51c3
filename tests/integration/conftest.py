"""Real processes of the command line, on a dataset that trains in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jdlopt.train import checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = """
def get_config():
    return {
        "seed": 3,
        "data": {"source": %r, "batch_size": 32, "validation_fraction": 0.2},
        "model": {"name": "mlp", "features": (64, 64), "dropout_rate": 0.2},
        "loss": {"name": "cross_entropy", "label_smoothing": 0.05},
        "optim": {
            "name": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": 0.01,
            "schedule": {"name": "cosine", "warmup_steps": 10},
            "average": {"name": "ema", "decay": 0.9},
        },
        "train": {
            "steps": 48,
            "eval_every": 8,
            "log_every": 3,
            "monitor": "validation/loss",
            "checkpoint_every": 12,
            "steps_per_dispatch": 4,
            "tensorboard": False,
        },
    }
"""


@dataclass(frozen=True)
class Runs:
    """Starts runs of one config and looks at what they leave."""

    folder: Path
    config: Path

    def environment(self, devices: int = 1, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "JDLOPT" not in name}
        return {
            **kept,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            # a process that goes on need not compile again what the one before it had compiled
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
            "PYTHONPATH": str(self.folder),
            **more,
        }

    def words(self, workdir: Path, *overrides: str) -> list[str]:
        given = [f"--config.{override}" for override in overrides]
        return ["train", f"--config={self.config}", f"--workdir={workdir}", *given]

    def start(
        self,
        workdir: Path,
        *overrides: str,
        devices: int = 1,
        before: tuple[str, ...] = (),
        **more: str,
    ) -> subprocess.Popen[str]:
        """Starts ``jdlopt train``: ``before`` comes before its words, ``more`` is environment."""
        return subprocess.Popen(
            [*before, sys.executable, "-m", "jdlopt.cli", *self.words(workdir, *overrides)],
            env=self.environment(devices, **more),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(
        self, workdir: Path, *overrides: str, expect: int = 0, devices: int = 1, **more: str
    ) -> str:
        """Runs ``jdlopt train`` to its end and returns what it said."""
        return self.finish(self.start(workdir, *overrides, devices=devices, **more), expect)

    def finish(self, process: subprocess.Popen[str], expect: int = 0, seconds: float = 180) -> str:
        """Waits for a process, checks its exit code, and returns what it said."""
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
            pytest.fail(f"not within {seconds} s:\n{errors}")
        assert process.returncode == expect, errors
        if expect:
            assert "Traceback" not in errors
        return errors

    def wait(
        self, process: subprocess.Popen[str], happened: Callable[[], object], seconds: float = 120
    ) -> None:
        """Waits, a millisecond at a time, for what a living process brings about."""
        deadline = time.monotonic() + seconds
        while not happened():
            if process.poll() is not None:
                pytest.fail(f"ended with {process.returncode}:\n{process.communicate()[1]}")
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.001)

    def newest(self, workdir: Path) -> int:
        """Returns the step of the newest checkpoint, 0 if there is none."""
        return max(checkpoint.steps(workdir / "checkpoints"), default=0)

    def arrays(self, folder: Path) -> Any:
        """Returns everything that a checkpoint holds, as numpy arrays, read by Orbax alone."""
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.metadata(folder / "tree").item_metadata.tree
            template = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), saved
            )
            return jax.tree.map(np.asarray, checkpointer.restore(folder / "tree", template))

    def curve(self, workdir: Path) -> list[dict[str, float]]:
        return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]

    def result(self, workdir: Path) -> dict[str, Any]:
        return json.loads((workdir / "result.json").read_text())

    def assert_same(self, one: Path, other: Path) -> None:
        """Checks that two finished runs are one: parameters, log and metrics, to the bit."""
        assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
        results = self.result(one), self.result(other)
        for key in ("status", "metrics", "best", "steps"):
            assert results[0][key] == results[1][key]
        for name in (f"step-{results[0]['steps']}", f"best-{results[0]['best']['step']}"):
            trees = [self.arrays(run / "checkpoints" / name) for run in (one, other)]
            assert jax.tree.leaves(trees[0])
            jax.tree.map(np.testing.assert_array_equal, *trees)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A folder with a config of 48 steps over an NPZ of three classes of points."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 6)) * 1.2
    labels = np.arange(300) % 3
    points = (centres[labels] + rng.normal(size=(300, 6))).astype(np.float32)
    splits = {"x_train": points[:240], "x_test": points[240:]}
    np.savez(folder / "blobs.npz", **splits, y_train=labels[:240], y_test=labels[240:])
    (folder / "config.py").write_text(CONFIG % str(folder / "blobs.npz"))
    return Runs(folder, folder / "config.py")


@pytest.fixture(scope="session")
def whole(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of the config that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    runs.train(workdir)
    return workdir
