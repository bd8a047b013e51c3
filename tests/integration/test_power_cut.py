"""What a power cut leaves, whenever it comes: what was told is there, and nothing is half.

First by a model of a disk that loses all that was not handed over; then by a real one, the image of
an ext4 disk that is copied while processes stand still, where one can be mounted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import pytest
import studies as seen

from jdlopt import writing
from jdlopt.evidence.trainer import Trainer, Wanted
from jdlopt.evidence.trainings import Training
from jdlopt.study import curves
from jdlopt.train import checkpoint


class Moment(NamedTuple):
    """What is on the disk at a moment, by inode: what folders and files hold; and what was told."""

    names: dict[int, dict[str, int]]
    contents: dict[int, bytes]
    told: object


class Disk:
    """A disk that keeps what was handed over (``fsync``) and may lose all else.

    It notes each moment at which something new is kept. Inodes are not used again, since a file
    that was handed over stays open here.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.root, self.told = root, None
        self.moments: list[tuple[Moment, Moment]] = []
        self._names: dict[int, dict[str, int]] = {}
        self._contents: dict[int, bytes] = {}
        self._open: list[int] = []
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, number: int) -> None:
        self._fsync(number)
        found = os.fstat(number)
        self._open.append(os.dup(number))
        path = Path(f"/proc/self/fd/{number}")
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = self._listed(path)
        else:
            self._contents[found.st_ino] = path.read_bytes()
        self.note()

    def note(self) -> None:
        """Notes what is kept; once with the names handed over, once with all names of now."""
        now = {self.root.stat().st_ino: self._listed(self.root)}
        for folder, folders, _ in os.walk(self.root):
            for name in folders:
                path = Path(folder, name)
                now[path.stat().st_ino] = self._listed(path)
        kept = {inode: dict(self._names.get(inode, {})) for inode in {*now, *self._names}}
        both = (Moment(names, dict(self._contents), self.told) for names in (kept, now))
        self.moments.append(tuple(both))

    def _listed(self, path: Path) -> dict[str, int]:
        return {name: os.lstat(path / name).st_ino for name in os.listdir(path)}

    def cuts(self, place: Path) -> Iterator[object]:
        """Makes of a folder what each moment's cut would leave; yields what had been told."""
        moments, self.moments, before = self.moments, [], []
        for moment in (one for both in moments for one in both):
            left = self._left(moment, self.root.stat().st_ino), moment.told
            if left in before:
                continue
            before.append(left)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for name, content in left[0].items():
                if content is None:
                    (place / name).mkdir()
                else:
                    (place / name).write_bytes(content)
            yield moment.told

    def _left(self, moment: Moment, inode: int, before: str = "") -> dict[str, bytes | None]:
        """The files that are there, and folders as None, by their paths."""
        found: dict[str, bytes | None] = {}
        for name, inner in moment.names.get(inode, {}).items():
            if inner in moment.names:
                found[before + name] = None
                found |= self._left(moment, inner, f"{before}{name}/")
            else:
                found[before + name] = moment.contents.get(inner, b"")
        return found


@pytest.fixture
def disk(tmp_path, monkeypatch):
    root = tmp_path / "disk"
    root.mkdir()
    return Disk(root, monkeypatch)


def test_the_newest_checkpoint_that_was_told_is_whole(disk, tmp_path):
    place = disk.root / "run" / "checkpoints"
    writing.make_folder(place.parent)
    template = {"x": jnp.zeros(3)}
    for step in range(1, 4):
        if step < 3:
            checkpoint.save(place, step, {"x": jnp.full(3, step)}, {"step": step}, "best")
        meta = {"step": step, "best_saved": min(step, 2)}
        checkpoint.save(place, step, {"x": jnp.full(3, step)}, meta)
        disk.told = step
        disk.note()
    for told in disk.cuts(tmp_path / "left"):
        there = tmp_path / "left" / "run" / "checkpoints"
        found = checkpoint.restore_newest(there, template, with_best=True)
        assert found is not None or told is None
        if found is not None:
            assert found[1]["step"] in ({1} if told is None else {told, told + 1})
            assert found[0]["x"].tolist() == [found[1]["step"]] * 3


def test_a_record_is_the_one_before_or_the_new_one(disk, tmp_path):
    path = disk.root / "study" / "study.json"
    writing.make_folder(path.parent)
    for version in range(3):
        writing.write_aside(path, f"version {version}")
        disk.told = version
        disk.note()
    for told in disk.cuts(tmp_path / "left"):
        there = tmp_path / "left" / "study" / "study.json"
        found = there.read_text() if there.exists() else None
        if told is None:
            assert found in (None, "version 0")
        else:
            assert found in (f"version {told}", f"version {told + 1}")


def test_the_curves_of_a_population_that_was_told_are_there(disk, tmp_path):
    rows = [
        {"trial": trial, "seed": 0, "fold": -1, "step": 1, "epoch": 1.0, "train/loss": 0.5}
        for trial in range(4)
    ]
    for count in range(1, 5):
        curves.add(disk.root, rows[count - 1 : count])
        disk.told = count
        disk.note()
    curves.gather(disk.root)
    disk.note()
    for told in disk.cuts(tmp_path / "left"):
        table, damaged = curves.read(tmp_path / "left")
        assert not damaged and set(range(told or 0)) <= set(table["trial"].tolist())
        assert curves.gather(tmp_path / "left")["trial"].tolist() == table["trial"].tolist()


def test_trainings_that_were_told_are_known(disk, tmp_path):
    config = {"optim": {"learning_rate": 0.1}}
    with Trainer(disk.root / "comparison") as trainer:
        for seed in range(3):
            one = Training(seed, "done", None, {"validation/loss": 0.5}, 9, 3, 0.1, [])
            trainer.keep(Wanted(config, one.seed), [one])
            disk.told = seed
            disk.note()
    for told in disk.cuts(tmp_path / "left"):
        with Trainer(tmp_path / "left" / "comparison") as trainer:
            known = trainer.known(config)
            assert set(range(0 if told is None else told + 1)) <= set(known)


# --- a real one -----------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """Mounts an image; what is not handed over stays in memory for as long as can be."""
    place.mkdir(exist_ok=True)
    late = "loop,commit=900,noauto_da_alloc"
    done = subprocess.run(["mount", "-o", late, image, place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no image can be mounted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    if os.geteuid() or not shutil.which("mkfs.ext4"):
        pytest.skip("only root can mount an image, and mkfs.ext4 makes it")
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(96 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    return path


def cut(image: Path, process: subprocess.Popen[str], to: Path) -> Path:
    """Copies a disk as it is at one moment, while those who write there stand still."""
    pids = [process.pid, *seen.children(process.pid)]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    shutil.copyfile(image, to)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return to


@pytest.mark.slow
def test_a_run_whose_disk_lost_power_goes_on_from_a_checkpoint(runs, image, tmp_path):
    more = ("train.steps_per_dispatch=1", "train.checkpoint_every=2")
    runs.train(tmp_path / "alive", *more)
    cuts = {}
    with mounted(image, tmp_path / "disk") as disk:
        process = runs.start(disk / "run", *more)
        for number, least in enumerate((4, 10, 20)):
            runs.wait(process, lambda least=least: runs.newest(disk / "run") >= least)
            steps = checkpoint.steps(disk / "run" / "checkpoints")
            cuts[cut(image, process, tmp_path / f"cut{number}.img")] = steps
        runs.finish(process)
    for copy, steps in cuts.items():
        with mounted(copy, tmp_path / "left") as left:
            assert runs.newest(left / "run") >= steps[-2]
            said = runs.train(left / "run", *more)
            assert "passed over" not in said and "damaged" not in said
            runs.assert_same(left / "run", tmp_path / "alive")


@pytest.mark.slow
def test_a_study_whose_disk_lost_power_has_its_finished_trials(image, tmp_path):
    studies, count, cuts = seen.make(tmp_path), 24, {}
    flags = (f"--trials={count}", "--width=2", "--workers=2")
    with mounted(image, tmp_path / "disk") as disk:
        workdir = disk / "study"
        process = studies.start(workdir, *flags)
        url = f"sqlite:///{workdir / 'study.db'}"
        for number in range(3):
            least = 2 + 4 * number
            seen.wait(lambda: (workdir / "study.json").exists(), 120, "never opened")
            seen.wait(lambda n=least: len(seen.finished(url)) >= n, 120, "nothing finished")
            there = seen.finished(url)
            cuts[cut(image, process, tmp_path / f"cut{number}.img")] = there
            time.sleep(0.1)
        studies.finish(process)
    for copy, there in cuts.items():
        with mounted(copy, tmp_path / "left") as left:
            url = f"sqlite:///{left / 'study' / 'study.db'}"
            now = seen.finished(url)
            assert {number: now.get(number) for number in there} == there
            said = studies.tune(left / "study", *flags)
            assert "Traceback" not in said
            seen.check(left / "study", url, count)
