"""Optuna's storage, opened: SQLite in a study's directory, a journal file, a database server."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import sqlite3
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib import parse

import optuna

from jdlopt import writing
from jdlopt.errors import UserError

DATABASE = "study.db"
TRIES = 40
"""How often a storage is opened that another coordinator makes at the same moment."""
MEANWHILE = ("already exists", "locked", "UniqueViolation", "UNIQUE constraint", "duplicate key")


class JournalWarning(UserWarning):
    """The last line of a journal was cut, and has been left out."""


def quiet() -> None:
    """Keeps Optuna's own messages back: jdlopt says what a person needs to know."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_storage(url: str | None, workdir: Path) -> object:
    """Opens Optuna's storage: SQLite in the study's directory, ``journal:FILE``, or a database URL.

    Raises:
      UserError: it can't be opened.
    """
    for attempt in range(TRIES):
        try:
            return _open(url, workdir)
        except UserError:
            raise
        except Exception as error:  # whatever a database driver raises
            text = " ".join(str(error).split())
            if attempt + 1 < TRIES and any(word in text for word in MEANWHILE):
                time.sleep(random.uniform(0.1, 0.5))
                continue
            raise UserError(
                f"--storage: {shown(url, url) if url else workdir / DATABASE} can't be opened: "
                f"{type(error).__name__}: {shown(text, url)[:300]}. Expected a database URL such "
                "as postgresql+psycopg://user@host/name, journal:FILE, or nothing for SQLite in "
                "the study's directory."
            ) from error
    raise AssertionError


def shown(text: str, url: str | None) -> str:
    """Returns a text without the passwords that a database's URL holds.

    Example:
      >>> url = "postgresql://ann:se:cr@t@host/db?sslpassword=hush"
      >>> shown(url, url), shown("no user 'ann' with se:cr@t", url)
      ('postgresql://ann:***@host/db?sslpassword=***', "no user 'ann' with ***")
    """
    found = re.findall(r"://[^:@/]*:(.*)@", url or "")
    found += re.findall(r"(?i)(?:password|passwd|pwd|secret|token)=([^&#\s]+)", url or "")
    for secret in sorted({*found, *map(parse.unquote_plus, found)}, key=len, reverse=True):
        text = text.replace(secret, "***") if secret else text
    return text


def _open(url: str | None, workdir: Path) -> object:
    if url is not None and url.startswith("journal:"):
        from optuna.storages.journal import JournalFileBackend

        name = url.removeprefix("journal:")
        writing.refuse_links(Path(name).parent, Path(name).name)
        mend_journal(Path(name))
        backend = JournalFileBackend(name)
        return optuna.storages.JournalStorage(backend)
    if url is not None:
        return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    return _sqlite(workdir / DATABASE)


def mend_journal(path: Path) -> None:
    """Cuts what a full disk or a power cut left of a journal's last line, or joined to the next.

    Optuna reads no journal with such a line, and its writer was told that it failed.

    Raises:
      UserError: another line is damaged, which may not be left out.
    """
    if not path.is_file() or _whole_lines(path) is None:
        return
    from optuna.storages.journal import JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()  # who appends has it: what it writes now is no line that was cut
    try:
        text = _whole_lines(path)
        if text is None:
            return
        with writing.aside(path, binary=True) as file:
            file.write(text)
    finally:
        lock.release()
    warnings.warn(
        f"{path}: a line was cut while it was written, and is left out: what it would have said is "
        "done again.",
        JournalWarning,
        stacklevel=2,
    )


def _whole_lines(path: Path) -> bytes | None:
    """Returns a journal without what was cut; None if nothing was."""
    content = path.read_bytes()
    lines = content.split(b"\n")[:-1]
    kept = [mended for line in lines if (mended := _mended(line, path)) is not None]
    text = b"".join(line + b"\n" for line in kept)
    return None if text == content else text


def _mended(line: bytes, path: Path) -> bytes | None:
    """Returns a line without what was cut before it; None if nothing is left."""
    start = line
    while start:
        try:
            json.loads(start)
        except ValueError:
            place = start.find(b'{"op_code"', 1)
            start = start[place:] if place > 0 else b""
        else:
            return start
    if line.strip(b"\0"):
        raise UserError(
            f"--storage: {path} is damaged in the line that begins with {line[:60]!r}. Put back a "
            "copy of it, or name another journal."
        )
    return None


def _sqlite(path: Path) -> object:
    """Opens the database at a path, whatever its name holds: a URL would cut it at ``?``."""
    place = os.fsencode(path.absolute())

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(place, timeout=60, check_same_thread=False)
        # a commit is one append to a log; FULL: it is on the disk when it returns, so that what is
        # told as finished outlives a power cut
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    # the URL says no more than that it is SQLite in a file
    return optuna.storages.RDBStorage(f"sqlite:///{DATABASE}", engine_kwargs={"creator": connect})


@contextlib.contextmanager
def opened(url: str | None, workdir: Path) -> Iterator[Any]:
    """Opens a storage and closes its connections; see `open_storage`.

    Raises:
      UserError: it can't be opened, is gone, or broken.
    """
    storage = open_storage(url, workdir)
    try:
        with errors_for_people(url):
            yield storage
    finally:
        close_storage(storage)


@contextlib.contextmanager
def errors_for_people(url: str | None) -> Iterator[None]:
    """Makes an error of a storage that is gone, or broken, one for people.

    Raises:
      UserError: the storage failed.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        text = " ".join(str(error.__cause__ or error).split())
        raise UserError(
            f"--storage: {shown(url, url) if url else DATABASE} failed: {shown(text, url)[:300]}. "
            "What was finished is kept; the same command goes on from there."
        ) from error


def close_storage(storage: Any) -> None:
    """Closes the connections to a storage."""
    engine = getattr(storage, "engine", None)
    if engine is not None:
        storage.remove_session()
        engine.dispose()


def lock_folder(url: str | None, workdir: Path) -> Path | None:
    """Returns where the owners of a study can see each other's locks; None for a database server.

    All of them see the files of the storage, so they see those beside it.
    """
    if url is None:
        return workdir
    return Path(url.removeprefix("journal:")).parent if url.startswith("journal:") else None
