"""Processes that die, files that are damaged, two at once: each run ends as if nothing happened."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


# --- SIGKILL --------------------------------------------------------------------------------------


CHECKPOINT_EVERY = 160


def saving(workdir: Path) -> list[Path]:
    return list((workdir / "checkpoints").glob("saving-*"))


def live_and_die(runs, process, workdir, how, rng) -> bool:
    """Kills a process at a random moment of a kind; says whether that was during a save."""
    born_at = runs.newest(workdir)

    def advanced(checkpoints):
        return runs.newest(workdir) >= born_at + checkpoints * CHECKPOINT_EVERY

    def after(seconds):
        """A moment; on a fast machine a checkpoint or two may come before it."""
        end = time.monotonic() + seconds
        runs.wait(process, lambda: time.monotonic() > end or advanced(2))

    if how == "early":  # importing, compiling, restoring, or just training
        after(rng.uniform(0.2, 8))
    elif how == "training":
        runs.wait(process, lambda: advanced(1) and not saving(workdir))
        after(rng.uniform(0, 0.1))
    else:
        advance = rng.choice((0, 0, 1))
        runs.wait(process, lambda: advanced(advance))
        runs.wait(process, lambda: saving(workdir))
        after(rng.uniform(0, 0.1))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was done before the last kill"
    return bool(saving(workdir))


@pytest.mark.parametrize(
    ("per_dispatch", "kills"),
    [(4, {"early": 4, "training": 7, "saving": 9}), (1, {"early": 1, "training": 2, "saving": 2})],
)
def test_killed_runs_end_as_if_they_had_lived(runs, tmp_path, per_dispatch, kills):
    number = sum(kills.values())
    overrides = (
        f"train.steps={number * 3 * CHECKPOINT_EVERY}",
        "train.eval_every=28",
        f"train.checkpoint_every={CHECKPOINT_EVERY}",
        f"train.steps_per_dispatch={per_dispatch}",
    )
    runs.train(tmp_path / "whole", *overrides)
    rng = random.Random(per_dispatch)
    plan = [how for how, count in kills.items() for _ in range(count)]
    rng.shuffle(plan)
    died_at, during_saves = [], 0
    for how in plan:
        process = runs.start(tmp_path / "run", *overrides)
        during_saves += live_and_die(runs, process, tmp_path / "run", how, rng)
        died_at.append(runs.newest(tmp_path / "run"))
    print(f"killed with the newest checkpoint at {died_at}, {during_saves} times during a save")
    assert during_saves >= kills["saving"] // 2
    assert len(set(died_at)) > number // 3
    errors = runs.train(tmp_path / "run", *overrides)
    assert "warning" not in errors
    runs.assert_same(tmp_path / "whole", tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}
    assert not saving(tmp_path / "run")


# --- SIGTERM --------------------------------------------------------------------------------------

SLOW_MODEL = """
import os, time
import flax.linen as nn
import jax

def note(_):
    with open(os.environ["STEPS_FILE"], "a") as file:
        file.write(f"{time.monotonic()}\\n")
    time.sleep(float(os.environ["STEP_SECONDS"]))

class Slow(nn.Module):
    num_outputs: int

    @nn.compact
    def __call__(self, inputs, train: bool):
        if train and not self.is_initializing():
            jax.debug.callback(note, inputs[0, 0])
        return nn.Dense(self.num_outputs)(nn.relu(nn.Dense(16)(inputs)))
"""


@pytest.fixture(scope="module")
def slow_runs(runs):
    """Runs of a model whose steps take as long as STEP_SECONDS says, and note when they start."""
    (runs.folder / "slow_model.py").write_text(SLOW_MODEL)
    text = runs.config.read_text().replace('"mlp"', '"slow_model:Slow"')
    text = text.replace(', "features": (64, 64), "dropout_rate": 0.2', "")
    (runs.folder / "slow.py").write_text(text)
    return dataclasses.replace(runs, config=runs.folder / "slow.py")


@pytest.mark.parametrize("per_dispatch", [1, 4])
def test_sigterm_saves_within_a_step(slow_runs, tmp_path, per_dispatch):
    runs = slow_runs
    steps_file = tmp_path / "steps"
    told = {"STEP_SECONDS": "0", "STEPS_FILE": str(tmp_path / "other")}
    overrides = ("train.checkpoint_every=24", f"train.steps_per_dispatch={per_dispatch}")
    runs.train(tmp_path / "whole", *overrides, **told)

    told = {"STEP_SECONDS": "0.15", "STEPS_FILE": str(steps_file)}
    process = runs.start(tmp_path / "run", *overrides, **told)

    def begun():
        return len(steps_file.read_text().splitlines()) if steps_file.exists() else 0

    runs.wait(process, lambda: begun() >= 10)
    time.sleep(0.07)
    process.terminate()
    sent = time.monotonic()
    errors = runs.finish(process, expect=130)
    record = runs.result(tmp_path / "run")
    started = [float(line) for line in steps_file.read_text().splitlines()]
    assert record["status"] == "interrupted"
    assert record["steps"] == len(started) == runs.newest(tmp_path / "run")
    assert f"interrupted at step {record['steps']} of 48" in errors
    assert record["steps"] % per_dispatch == 0
    # the dispatch that was under way ends, and so does the one that waited on the device
    under_way = -(-sum(moment < sent for moment in started) // per_dispatch)
    assert record["steps"] <= (under_way + 1) * per_dispatch

    told = {"STEP_SECONDS": "0", "STEPS_FILE": str(steps_file)}
    runs.train(tmp_path / "run", *overrides, **told)
    assert len(steps_file.read_text().splitlines()) == 48
    runs.assert_same(tmp_path / "whole", tmp_path / "run")


def test_sigterm_before_the_first_step_is_an_interruption_too(runs, whole, tmp_path):
    for seconds in (1.0, 2.5, 5.0):  # importing, preparing, compiling: whatever it finds
        process = runs.start(tmp_path / "run", "train.steps=4000")
        time.sleep(seconds)
        process.terminate()
        assert "interrupted" in runs.finish(process, expect=130)


# --- damaged checkpoints --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half(runs, whole, tmp_path_factory) -> Path:
    """The directory of a run that was killed behind step 24, with two checkpoints."""
    workdir = tmp_path_factory.mktemp("half") / "run"
    process = runs.start(workdir)
    runs.wait(process, lambda: runs.newest(workdir) >= 24)
    process.kill()
    process.communicate()
    assert 24 <= runs.newest(workdir) < 48
    return workdir


def flip(path: Path, position: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


DAMAGE = {
    "largest file cut": lambda folder: cut(max(files(folder), key=lambda p: p.stat().st_size)),
    "every file cut": lambda folder: [cut(path) for path in files(folder)],
    "every file emptied": lambda folder: [path.write_bytes(b"") for path in files(folder)],
    "arrays flipped": lambda folder: flip(
        max(files(folder / "tree"), key=lambda p: p.stat().st_size)
    ),
    "meta flipped": lambda folder: flip(folder / "meta.json", 0.1),
    "checksums flipped": lambda folder: flip(folder / "checksums.json"),
    "first file flipped": lambda folder: flip(files(folder / "tree")[0], 0),
    "last file flipped": lambda folder: flip(files(folder / "tree")[-1], 1),
    "arrays gone": lambda folder: shutil.rmtree(folder / "tree"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    runs, whole, half, tmp_path, how
):
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    newest = workdir / "checkpoints" / f"step-{runs.newest(workdir)}"
    DAMAGE[how](newest)
    errors = runs.train(workdir)
    assert "warning" in errors and str(newest) in errors
    runs.assert_same(whole, workdir)


def test_all_checkpoints_damaged_is_told_and_touches_nothing(runs, half, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    for folder in (workdir / "checkpoints").glob("step-*"):
        DAMAGE["arrays flipped"](folder)
    before = {path: path.read_bytes() for path in files(workdir) if path.name != ".lock"}
    errors = runs.train(workdir, expect=2)
    assert f"{workdir / 'checkpoints'}: all 2 checkpoints are damaged" in errors
    assert "move them away" in errors
    assert {path: path.read_bytes() for path in before} == before


def test_damaged_best_checkpoint_never_passes_for_whole(runs, half, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    for folder in (workdir / "checkpoints").glob("best-*"):
        DAMAGE["arrays flipped"](folder)
    errors = runs.train(workdir, expect=2)
    assert "best-" in errors and "damaged" in errors


# --- two at once ----------------------------------------------------------------------------------


def test_second_process_in_a_workdir_is_refused_and_the_first_unhurt(runs, whole, tmp_path):
    workdir = tmp_path / "run"
    first = runs.start(workdir)
    runs.wait(first, lambda: (workdir / "config.json").exists())
    first.send_signal(signal.SIGSTOP)  # so that it can't be done before the second one comes
    try:
        before = {path: path.read_bytes() for path in files(workdir)}
        errors = runs.train(workdir, expect=2)
        assert f"another process is training in {workdir}" in errors
        assert {path: path.read_bytes() for path in files(workdir)} == before
    finally:
        first.send_signal(signal.SIGCONT)
    runs.finish(first)
    runs.assert_same(whole, workdir)


def test_the_log_has_every_line_once(runs, whole):
    steps = [line["step"] for line in runs.curve(whole)]
    assert steps == [step for step in range(1, 49) if step % 3 == 0 or step % 8 == 0]
    assert json.loads((whole / "result.json").read_text())["status"] == "done"
