"""What a power cut leaves, whenever it comes: what was told is there, and nothing is half."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import pytest

from jdlopt import writing
from jdlopt.evidence.trainer import Trainer, Training
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
        for moments in self.moments:
            for moment in moments:
                shutil.rmtree(place, ignore_errors=True)
                self._make(moment, self.root.stat().st_ino, place)
                yield moment.told

    def _make(self, moment: Moment, inode: int, place: Path) -> None:
        place.mkdir()
        for name, inner in moment.names.get(inode, {}).items():
            if inner in moment.names:
                self._make(moment, inner, place / name)
            else:
                (place / name).write_bytes(moment.contents.get(inner, b""))


@pytest.fixture
def disk(tmp_path, monkeypatch):
    root = tmp_path / "disk"
    root.mkdir()
    return Disk(root, monkeypatch)


def test_the_newest_checkpoint_that_was_told_is_whole(disk, tmp_path):
    place = disk.root / "run" / "checkpoints"
    writing.make_folder(place.parent)
    template = {"x": jnp.zeros(3)}
    for step in range(1, 5):
        checkpoint.save(place, step, {"x": jnp.full(3, step)}, {"step": step}, "best")
        meta = {"step": step, "best_saved": step}
        checkpoint.save(place, step, {"x": jnp.full(3, step)}, meta)
        disk.told = step
        disk.note()
    for told in disk.cuts(tmp_path / "left"):
        there = tmp_path / "left" / "run" / "checkpoints"
        found = checkpoint.restore_newest(there, template, with_best=True)
        assert (found is None) == (told is None) or told is None
        if found is not None:
            assert found[1]["step"] in ({1} if told is None else {told, told + 1})
            assert found[0]["x"].tolist() == [found[1]["step"]] * 3
    assert len(disk.moments) > 40


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
            trainer._keep(config, [one])
            disk.told = seed
            disk.note()
    for told in disk.cuts(tmp_path / "left"):
        with Trainer(tmp_path / "left" / "comparison") as trainer:
            known = trainer.known(config)
            assert set(range(0 if told is None else told + 1)) <= set(known)
