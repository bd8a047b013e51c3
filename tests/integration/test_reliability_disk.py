"""A disk that is full: one clear message, the last checkpoint intact, and the run goes on."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jdlopt.train import checkpoint, checksums

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    mount = shutil.which("mount", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if os.geteuid() or mount is None:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Fills a disk up to some bytes."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    size = (disk / "filler").stat().st_size
    os.truncate(disk / "filler", max(0, size - leave))


def fill_while_stopped(disk: Path, process: subprocess.Popen[str], leave: int = 0) -> None:
    process.send_signal(signal.SIGSTOP)
    fill(disk, leave)
    process.send_signal(signal.SIGCONT)


def assert_told(errors: str, disk: Path, workdir: Path) -> None:
    """Checks that a message names the disk and the newest checkpoint, which is whole."""
    newest = checkpoint.steps(workdir / "checkpoints")[-1]
    folder = workdir / "checkpoints" / f"step-{newest}"
    assert f"the disk at {disk} is full" in errors
    assert f"The checkpoint before, {folder}, is intact" in errors
    assert "Make room" in errors and "same command" in errors
    assert checksums.damage(folder) is None


@pytest.mark.parametrize("kilobytes", [4, 64, 192])
def test_full_disk_while_training_costs_nothing_that_was_saved(
    runs, whole, disk, tmp_path, kilobytes
):
    workdir = disk / "run"
    process = runs.start(workdir)
    runs.wait(process, lambda: runs.newest(workdir) >= 12)
    fill_while_stopped(disk, process, kilobytes * 1024)
    assert_told(runs.finish(process, expect=2), disk, workdir)
    assert not list((workdir / "checkpoints").glob("saving-*"))
    assert "is full" in runs.train(workdir, expect=2)  # nothing has changed
    (disk / "filler").unlink()
    assert "warning" not in runs.train(workdir)
    runs.assert_same(whole, workdir)


@pytest.mark.parametrize("tensorboard", [False, True])
def test_full_disk_under_the_log_is_told(runs, disk, tensorboard):
    workdir = disk / "run"
    overrides = (
        f"train.tensorboard={tensorboard}",
        "train.steps=20000",
        "train.log_every=1",
        "train.eval_every=10000",
        "train.checkpoint_every=10000",
    )
    process = runs.start(workdir, *overrides)
    log = workdir / "metrics.jsonl"
    runs.wait(process, lambda: log.exists() and log.stat().st_size)
    fill_while_stopped(disk, process)
    errors = runs.finish(process, expect=2)
    assert re.search(rf"{workdir}/(metrics.jsonl|tensorboard): can't be written", errors)
    assert f"the disk at {disk} is full" in errors
    assert "No checkpoint had been saved before" in errors


def test_full_disk_under_the_result_is_told(runs, whole, disk):
    workdir = disk / "run"
    process = runs.start(workdir)
    # saved, and the oldest one dropped, which makes room; now it evaluates
    runs.wait(process, lambda: checkpoint.steps(workdir / "checkpoints") == [36, 48])
    fill_while_stopped(disk, process)
    errors = runs.finish(process, expect=2)
    assert f"{workdir / 'result.json'}: can't be written" in errors
    assert_told(errors, disk, workdir)
    (disk / "filler").unlink()
    runs.train(workdir)
    runs.assert_same(whole, workdir)


def test_full_disk_from_the_start_is_told(runs, whole, disk):
    fill(disk)
    errors = runs.train(disk / "run", expect=2)
    assert str(disk / "run") in errors and "full" in errors
    (disk / "filler").unlink()
    runs.train(disk / "run")
    runs.assert_same(whole, disk / "run")


def test_limit_on_the_size_of_files_is_told(runs, whole, tmp_path):
    workdir = tmp_path / "run"
    limited = ("sh", "-c", 'ulimit -f 16; exec "$@"', "limited")
    errors = runs.finish(runs.start(workdir, before=limited), expect=2)
    assert "could not be saved" in errors and "ulimit" in errors
    assert "No checkpoint had been saved before" in errors
    runs.train(workdir)
    runs.assert_same(whole, workdir)
