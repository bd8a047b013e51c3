"""A run's copy elsewhere: sent beside the training, and taken from there into an empty directory.

The place is any URL that fsspec knows (``s3://``, ``gs://``, ``file://``, …) or a path. What can be
gone on from is named by its ``newest.json``, which is written last: the files of a checkpoint and
the run's records are there before it. Credentials are the environment's, and in no file of a run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
import threading
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.config.values import read_text
from jdlopt.errors import ConfigError, WorkdirError
from jdlopt.train import checkpoint, checksums, goodput, log

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

NEWEST = "newest.json"
RECORDS = (
    log.CONFIG, log.INPUTS, "data.json", "splits.csv", log.PRETRAINED, log.TEACHERS, log.METRICS,
    goodput.FILE, log.RESULT,
)  # fmt: skip
"""What is sent beside checkpoints."""
FETCHING = ".fetching"
FIRST_WAIT, LONGEST_WAIT, LAST_WAIT = 1.0, 60.0, 4.0
"""Seconds until what failed is tried again: at first, at most, and at most in the end."""
TRIES = 3
"""How often the place is asked before a run begins, and once it is over."""
SECRET = re.compile(r"^[a-z0-9+.-]+://[^/]*:[^/]*@|[?&;]", re.IGNORECASE)


class RemoteWarning(UserWarning):
    """A run goes on from its copy elsewhere, or the copy is not as new as the run."""


class Place:
    """Where a run's copy is.

    Args:
      url: a URL or a path; without credentials.

    Raises:
      ConfigError: it can't be used here.
    """

    def __init__(self, url: str):
        if SECRET.search(url):
            raise ConfigError(
                "train.remote: holds a password or options, and a config is no place for them. "
                "Credentials are taken from the environment, such as AWS_ACCESS_KEY_ID or "
                "GOOGLE_APPLICATION_CREDENTIALS."
            )
        try:
            from fsspec.core import url_to_fs

            files, root = url_to_fs(str(writing.expanded(url)) if "://" not in url else url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"train.remote: {url!r} can't be used here: {error}. It is a path, or a URL such "
                "as s3://bucket/runs/mine or gs://bucket/runs/mine, which needs "
                "`pip install 'jdlopt[remote]'`."
            ) from error
        self.url, self.root = url, str(root).rstrip("/")
        self._files: AbstractFileSystem = files
        self._is_local = "file" in _names(files.protocol)

    def read(self, name: str) -> bytes | None:
        """Returns a file's content; None if there is none."""
        self._files.invalidate_cache()
        try:
            return self._files.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""
        path = f"{self.root}/{name}"
        if self._is_local:
            writing.make_folder(Path(path).parent)
            with writing.aside(Path(path), binary=True) as file:
                file.write(content)
            return
        self._files.pipe_file(path, content)

    def send(self, source: Path, name: str) -> None:
        """Copies a file there."""
        path = f"{self.root}/{name}"
        if self._is_local:
            writing.make_folder(Path(path).parent)
        self._files.put_file(str(source), path)

    def below(self, folder: str) -> Iterator[str]:
        """Yields the files below a folder, by their names from there."""
        base = f"{self.root}/{folder}"
        for path in self._files.find(base):
            name = PurePosixPath(path.removeprefix(base).lstrip("/"))
            if name.parts and not {"..", "."} & set(name.parts):
                yield name.as_posix()

    def copy(self, name: str, to: Path) -> None:
        """Copies a file from there."""
        writing.make_folder(to.parent)
        with (
            self._files.open(f"{self.root}/{name}", "rb") as source,
            writing.aside(to, binary=True) as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)

    def keep_only(self, folder: str, kept: Collection[str]) -> None:
        """Removes what lies in a folder and is none of some names."""
        for path in self._files.ls(f"{self.root}/{folder}", detail=False):
            name = str(path).rstrip("/").rpartition("/")[2]
            if name and name not in kept:
                self._files.rm(path, recursive=True)


def _names(protocol: str | Collection[str]) -> Collection[str]:
    return (protocol,) if isinstance(protocol, str) else protocol


# --- sending --------------------------------------------------------------------------------------


class Sender:
    """Sends a run's newest checkpoint and its records, in a thread of its own.

    What fails is tried again, later and later; meanwhile a newer checkpoint takes the place of one
    that is not sent yet. The training never waits for it before its end.

    Args:
      workdir: the run's directory.
      url: where its copy is.
    """

    def __init__(self, workdir: Path, url: str):
        self._workdir, self._place = workdir, Place(url)
        self._changed = threading.Condition()
        self._wanted: tuple[int, int] | None = None
        self._sending: tuple[int, int] | None = None
        self._sent: set[str] = set()
        self._newest, self._trouble, self._told, self._failed = -1, "", False, 0
        self._over = self._with_records = self._ending = self._hurry = self._checked = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="jdlopt-remote")
        self._thread.start()

    def send(self, step: int, best: int) -> None:
        """Asks for a checkpoint, and the best one that it names, to be sent; returns at once."""
        with self._changed:
            self._wanted = step, best
            self._changed.notify_all()

    def needed(self) -> set[Path]:
        """Returns the folders of checkpoints that are to be sent, or on their way."""
        folder = self._workdir / log.CHECKPOINTS
        with self._changed:
            both = [one for one in (self._wanted, self._sending) if one is not None]
        return {
            checkpoint.place(folder, number, kind)
            for pair in both
            for number, kind in zip(pair, ("step", "best"))
        }

    def tell(self) -> None:
        """Warns, once, where what was asked for can't be sent."""
        if self._trouble and not self._told:
            self._told = True
            warnings.warn(
                f"train.remote: {self._place.url}: can't be written: {self._trouble} It is tried "
                "again; the training goes on.",
                RemoteWarning,
                stacklevel=2,
            )

    def end(self) -> dict[str, object]:
        """Sends the records as they are now, and waits until all is sent, or has failed again.

        Returns:
          What ``result.json`` says of it: ``url``, the ``step`` that the copy goes on from, and if
          it is not as new as the run, ``reason``.
        """
        with self._changed:
            self._with_records = self._ending = self._hurry = True
            self._failed = 0
            self._changed.notify_all()
            while self._thread.is_alive() and self._failed < TRIES and self._is_behind():
                self._changed.wait(1.0)
            behind = self._is_behind()
        self.tell()
        reason = {"reason": self._trouble} if behind else {}
        return {"url": self._place.url, "step": self._newest, **reason}

    def close(self) -> None:
        """Ends the thread; what is on its way is not waited for for long."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join(LAST_WAIT)

    def _is_behind(self) -> bool:
        return self._with_records or self._wanted is not None or self._sending is not None

    def _run(self) -> None:
        wait = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._over or self._hurry, wait)
                self._hurry = False
                self._changed.wait_for(
                    lambda: self._over or self._wanted is not None or self._with_records
                )
                if self._over:
                    return
                work, self._wanted = self._wanted, None
                self._sending, records = work, self._with_records
                self._with_records = False
            try:
                self._send(work)
                wait, failed = 0.0, ""
            except Exception as error:  # of any library of any place
                wait = min(max(FIRST_WAIT, 2 * wait), LONGEST_WAIT)
                failed = _words(error)
            with self._changed:
                self._sending = None
                if failed:
                    self._trouble, self._failed = f"{failed}.", self._failed + 1
                    self._wanted = self._wanted or work
                    self._with_records = self._with_records or records
                    wait = min(wait, LAST_WAIT) if self._ending else wait
                elif work is not None:
                    self._newest, self._trouble = work[0], ""
                self._changed.notify_all()

    def _send(self, work: tuple[int, int] | None) -> None:
        """Sends a checkpoint, the records, and what names them; or the records alone."""
        self._check_owner()
        names = []
        if work is not None:
            folder = self._workdir / log.CHECKPOINTS
            for number, kind in zip(reversed(work), ("best", "step")):
                if number >= 0:
                    source = checkpoint.place(folder, number, kind)
                    names.append(source.name)
                    self._send_folder(source)
        for name in RECORDS:
            if (self._workdir / name).is_file():
                self._place.write(name, (self._workdir / name).read_bytes())
        if work is not None:
            said = {"step": work[0], "checkpoints": names}
            self._place.write(NEWEST, (json.dumps(said) + "\n").encode())
            self._place.keep_only(log.CHECKPOINTS, names)
            self._sent &= set(names)

    def _check_owner(self) -> None:
        """Raises an error if what is there is another run's."""
        if self._checked:
            return
        there = self._place.read(log.CONFIG)
        if there is not None:
            own = json.loads((self._workdir / log.CONFIG).read_text(encoding="utf-8"))
            if log.identity(json.loads(there)) != log.identity(own):
                raise WorkdirError("the copy of a run of another config lies there")
        self._checked = True

    def _send_folder(self, source: Path) -> None:
        if source.name in self._sent:
            return
        for path in sorted(source.rglob("*")):
            if path.is_file():
                name = path.relative_to(source).as_posix()
                self._place.send(path, f"{log.CHECKPOINTS}/{source.name}/{name}")
        self._sent.add(source.name)


# --- taking it from there -------------------------------------------------------------------------


def url_of(config: Mapping[str, object]) -> str | None:
    """Returns the ``train.remote`` of a config as given, which need not be checked yet."""
    train = config.get("train")
    url = train.get("remote") if isinstance(train, Mapping) else None
    if isinstance(url, configs.Override):
        url = read_text(url.text, configs.field_of(str | None))
    return url if isinstance(url, str) and url else None


@contextlib.contextmanager
def fetched(url: str, workdir: Path) -> Iterator[None]:
    """Takes a run's copy as `fetch` does, and says so."""
    step = fetch(url, workdir)
    if step is not None:
        text = f"{workdir}: goes on from step {step:,}, taken from {url}."
        warnings.warn(text, RemoteWarning, stacklevel=3)
    yield


def fetch(url: str, workdir: Path) -> int | None:
    """Takes a run's copy into a directory that has no checkpoint.

    Args:
      url: where the copy is.
      workdir: the run's directory.

    Returns:
      The step that it goes on from; None if there is a checkpoint already, or no copy.

    Raises:
      ConfigError, WorkdirError: the place can't be read, or what is there is damaged. To train from
        the beginning would overwrite it.
    """
    if checkpoint.steps(workdir / log.CHECKPOINTS):
        return None
    place, wait = Place(url), FIRST_WAIT
    writing.make_folder(workdir)
    writing.refuse_links(workdir, *log.FOLDERS)
    with writing.lock_file(workdir / log.LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None  # somebody trains there, which is said when it is claimed
        for left in reversed(range(TRIES)):
            try:
                return _fetch(place, workdir)
            except WorkdirError:
                raise
            except Exception as error:  # of any library of any place
                if not left:
                    raise WorkdirError(
                        f"train.remote: {url}: can't be read: {_words(error)}. Whether there is a "
                        "copy to go on from is not known: mend it, or train without it "
                        "(train.remote=None)."
                    ) from error
            time.sleep(wait)
            wait *= 2
    return None


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def _fetch(place: Place, workdir: Path) -> int | None:
    content = place.read(NEWEST)
    if content is None:
        return None
    try:
        said = json.loads(content)
        step, names = int(said["step"]), [str(name) for name in said["checkpoints"]]
        if f"step-{step}" not in names or not all(map(_is_folder, names)):
            raise ValueError(f"{names} are no checkpoints of it")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WorkdirError(f"train.remote: {place.url}/{NEWEST}: is damaged: {error}.") from error
    aside = workdir / FETCHING
    shutil.rmtree(aside, ignore_errors=True)
    for name in names:
        for file in place.below(f"{log.CHECKPOINTS}/{name}"):
            place.copy(f"{log.CHECKPOINTS}/{name}/{file}", aside / name / file)
        wrong = checksums.damage(aside / name)
        if wrong:
            raise WorkdirError(f"train.remote: {place.url}: its {name} is damaged: {wrong}.")
    for name in RECORDS:
        found = place.read(name)
        if found is not None and not (name == log.RESULT and _is_later(found, step)):
            with writing.aside(workdir / name, binary=True) as record:
                record.write(found)
    writing.make_folder(workdir / log.CHECKPOINTS)
    for name in sorted(names):  # what is gone on from comes last: until then nothing was taken
        shutil.rmtree(workdir / log.CHECKPOINTS / name, ignore_errors=True)
        (aside / name).rename(workdir / log.CHECKPOINTS / name)
    writing.settle(workdir / log.CHECKPOINTS)
    shutil.rmtree(aside, ignore_errors=True)
    return step


def _is_later(result: bytes, step: int) -> bool:
    """Whether a result is of a later step: killed before its checkpoint was sent, a run goes on."""
    try:
        return int(json.loads(result)["steps"]) > step
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _is_folder(name: str) -> bool:
    return re.fullmatch(r"(step|best)-\d+", name) is not None
