"""A run's copy elsewhere: sent whole or not at all, tried again, and never another run's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from jdlopt import config as configs
from jdlopt.errors import ConfigError, WorkdirError
from jdlopt.train import checkpoint, checksums, remote

URL = "memory://bucket/run"
CONFIG = {"seed": 1, "train": {"steps": 9, "remote": URL}}


def add_checkpoint(workdir: Path, step: int, kind: str = "step") -> None:
    """What counts as a whole checkpoint, of one small file."""
    folder = checkpoint.place(workdir / "checkpoints", step, kind)
    (folder / "tree" / "d").mkdir(parents=True)
    (folder / "tree" / "d" / "array").write_bytes(f"{kind} {step}".encode())
    checksums.write(folder)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 3}\n')
    add_checkpoint(tmp_path / "run", 3)
    add_checkpoint(tmp_path / "run", 2, "best")
    return tmp_path / "run"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a memory:// place holds; retries come at once."""
    found: dict[str, object] = {}
    monkeypatch.setattr(MemoryFileSystem, "store", found)
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(remote, "LAST_WAIT", 0.01)
    return found


@pytest.fixture
def sender(workdir: Path, store: dict[str, object]) -> Iterator[remote.Sender]:
    made = remote.Sender(workdir, URL)
    yield made
    made.close()


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_copy_is_taken_into_an_empty_directory_as_it_was(workdir, store, sender, tmp_path):
    sender.send(3, 2)
    assert sender.end() == {"url": URL, "step": 3}
    assert remote.fetch(URL, tmp_path / "anew") == 3
    assert files(tmp_path / "anew") == files(workdir)
    assert remote.fetch(URL, tmp_path / "anew") is None  # it has a checkpoint now
    add_checkpoint(workdir, 6)
    sender.send(6, 2)
    assert sender.end()["step"] == 6
    names = {Path(name).parts[4] for name in store if "/checkpoints/" in name}
    assert names == {"step-6", "best-2"}


def test_there_need_be_no_copy(store, tmp_path):
    assert remote.fetch(URL, tmp_path / "anew") is None


def test_what_fails_is_said_once_and_tried_again(workdir, store, sender, monkeypatch):
    works, write = threading.Event(), remote.Place.write

    def failing(self, name, content):
        if not works.is_set():
            raise OSError("no network")
        write(self, name, content)

    monkeypatch.setattr(remote.Place, "write", failing)
    sender.send(3, 2)
    with pytest.warns(remote.RemoteWarning, match="no network.*goes on"):
        found = sender.end()
    sender.tell()  # an error, if it were said again
    assert found["step"] == -1 and "no network" in str(found["reason"])
    assert {path.name for path in sender.needed()} == {"step-3", "best-2"}
    works.set()
    assert sender.end() == {"url": URL, "step": 3}
    assert not sender.needed()


def test_another_runs_copy_is_not_overwritten(workdir, store, sender, tmp_path):
    sender.send(3, 2)
    sender.end()
    before = {name: file.getvalue() for name, file in store.items()}
    (workdir / "config.json").write_text(json.dumps({**CONFIG, "seed": 2}))
    other = remote.Sender(workdir, URL)
    other.send(3, 2)
    with pytest.warns(remote.RemoteWarning, match="another config"):
        other.end()
    other.close()
    assert before == {name: file.getvalue() for name, file in store.items()}


@pytest.mark.parametrize("damage", ["array", "name", "newest"])
def test_a_damaged_copy_is_refused_and_nothing_is_made_of_it(store, sender, tmp_path, damage):
    sender.send(3, 2)
    sender.end()
    if damage == "array":
        store["/bucket/run/checkpoints/step-3/tree/d/array"].write(b"other")
    elif damage == "name":
        said = {"step": 3, "checkpoints": ["step-3", "../../../outside"]}
        remote.Place(URL).write(remote.NEWEST, json.dumps(said).encode())
    else:
        remote.Place(URL).write(remote.NEWEST, b'{"step": ')
    with pytest.raises(WorkdirError, match="damaged"):
        remote.fetch(URL, tmp_path / "anew")
    assert not checkpoint.steps(tmp_path / "anew" / "checkpoints")
    assert not (tmp_path / "anew" / "config.json").exists()


@pytest.mark.parametrize(
    "url", ["s3://key:secret@bucket/run", "s3://bucket/run?key=secret", "nosuch://bucket/run"]
)
def test_a_url_that_cannot_be_used_is_told(url):
    with pytest.raises(ConfigError, match=r"train\.remote"):
        remote.Place(url)


def test_the_place_is_read_from_a_config_as_it_is_typed():
    def typed(text):
        return {"train": {"remote": configs.Override(text)}}

    assert remote.url_of(typed(URL)) == remote.url_of(CONFIG) == URL
    assert remote.url_of(typed("None")) is remote.url_of({}) is None
