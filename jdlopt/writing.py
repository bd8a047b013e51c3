"""Opening files to write, in directories that others may share: nothing is written elsewhere.

A link that somebody put where a file is to be written would lead out of the directory. New files
are made as such (``O_EXCL``) and renamed, which replaces a link instead of following it; files that
are written on are opened without following one (``O_NOFOLLOW``); folders that are links are
refused. What was written is on the disk before it is renamed, and the name before it is relied on:
a power cut leaves the file before or the whole new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from jdlopt.errors import WorkdirError

NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)
"""A pipe with nobody at its other end would be waited for."""
A_LINK = "it is a link, and nothing is written through one"
NO_FILE = "it is no plain file of this directory alone"


@contextlib.contextmanager
def aside(
    path: Path, name: str = "writing", *, binary: bool = False, settled: bool = True
) -> Iterator[IO[Any]]:
    """Opens a new file beside a path; at the end it is renamed, so that nobody reads half of it.

    Args:
      path: where it will be; a link there is replaced, and what it leads to stays as it is.
      name: tells it from what other processes write for the same path at the same moment. Where
        there are none, one name lets a killed process leave one such file at most.
      binary: bytes are written, instead of text.
      settled: whether it is on the disk at the end; else a power cut may leave an empty file.

    Raises:
      OSError: it can't be written; what was there before is as it was.
    """
    beside = path.with_name(f".{path.name}.{name}")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()  # what a killed process left, or a link that is no file of ours
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666)
    try:
        with _as_file(number, "w", binary) as file:
            yield file
            file.flush()
            if settled:
                os.fsync(file.fileno())
        beside.replace(path)
        if settled:
            settle(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _as_file(number: int, mode: str, binary: bool) -> IO[Any]:
    if binary:
        return os.fdopen(number, f"{mode}b")
    return os.fdopen(number, mode, encoding="utf-8", errors="backslashreplace", newline="")


def write_aside(path: Path, text: str, name: str = "writing", *, settled: bool = True) -> None:
    """Writes a text as `aside` does.

    Raises:
      OSError: it can't be written; what was there before is as it was.
    """
    with aside(path, name, settled=settled) as file:
        file.write(text)


def write_new(path: Path, text: str) -> None:
    """Writes a text where nothing is yet.

    Raises:
      FileExistsError: something is there, which stays as it is.
      OSError: it can't be written, and nothing is there.
    """
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666)
    try:
        with _as_file(number, "w", False) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        settle(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def settle(folder: Path) -> None:
    """Waits until a folder's entries are on the disk: names that were made, renamed or removed.

    A file system that has no such wait is left as it is.
    """
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(number)
        finally:
            os.close(number)


def settle_all(folder: Path) -> None:
    """Waits until all that lies below a folder is on the disk.

    Raises:
      OSError: a file's content can't be written.
    """
    for inner, _, names in os.walk(folder):
        for name in names:
            with open(Path(inner, name), "rb") as file:
                os.fsync(file.fileno())
        settle(Path(inner))


def make_folder(folder: Path) -> None:
    """Makes a folder, and those that it lies in, if they are not there; see `settle`.

    Raises:
      OSError: it can't be made.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in made:
        settle(one.parent)


def appended(path: Path) -> IO[bytes]:
    """Opens a file to read it and to write behind its end; it is made if it is not there.

    Raises:
      OSError: it can't be opened, or is a link, or no plain file of this directory alone.
    """
    number = _opened(path, os.O_RDWR | os.O_APPEND)
    if os.fstat(number).st_nlink > 1:
        os.close(number)
        raise OSError(errno.EMLINK, NO_FILE, str(path))
    return os.fdopen(number, "a+b")


def lock_file(path: Path) -> IO[bytes]:
    """Opens a file to lock it, which is made if it is not there; nothing is written into it.

    Raises:
      OSError: it can't be opened, or is a link or no plain file.
    """
    return os.fdopen(_opened(path, os.O_RDWR), "r+b")


def _opened(path: Path, flags: int) -> int:
    try:
        number = os.open(path, flags | os.O_CREAT | NO_LINK | NO_WAIT, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise OSError(error.errno, A_LINK, str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, NO_FILE, str(path))
    return number


def refuse_links(workdir: Path, *names: str) -> None:
    """Checks that what is written below a directory lies in it: none of it is a link.

    Args:
      workdir: the directory, which may be a link itself: the person has named it.
      names: its files and folders that are written to, by libraries too, with all that is in them.

    Raises:
      WorkdirError: one is a link.
    """
    for name in names:
        for path in _walked(workdir / name):
            if path.is_symlink():
                raise WorkdirError(
                    f"{path}: is a link, to {os.readlink(path)!r}, and nothing is written through "
                    f"one. Remove it, or choose another directory than {workdir}."
                )


def _walked(path: Path) -> Iterable[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder, name) for name in (*folders, *files))


# --- homes ----------------------------------------------------------------------------------------


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path with ``~`` as the user's home; as it is where the user has none.

    Example:
      >>> expanded("a/b")
      PosixPath('a/b')
    """
    return Path(os.path.expanduser(path))


def user_cache() -> Path | None:
    """Returns ``$XDG_CACHE_HOME`` or ``~/.cache``; None where the user has no home."""
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return expanded(named)
    found = expanded("~/.cache")
    return found if found.is_absolute() else None
