"""The files of a kind under a folder, through links, and why each of the others is passed over."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jdlopt.data.notes import Notes
from jdlopt.errors import DataError, nearest

HEAD = 64
"""So many bytes of a file tell its format."""
SYSTEM = frozenset(("thumbs.db", "desktop.ini", "__macosx"))
"""Files and folders that an operating system leaves, in small letters."""

HIDDEN = "hidden files and those of an operating system"
IN_HIDDEN = "files in hidden folders and those of an operating system"
NO_FILES = "pipes, sockets and devices"
NOWHERE = "links that lead nowhere"


@dataclass(frozen=True)
class FileKind:
    """A kind of files that can be read.

    Attributes:
      name: what such a file holds, for messages.
      suffixes: the endings, in small letters, of such files.
      begins: whether a file of another ending is one, by its first bytes.
    """

    name: str
    suffixes: frozenset[str]
    begins: Callable[[bytes], bool]

    def holds(self, path: Path) -> bool:
        """Returns whether a file is of this kind: by its ending, or else by its content."""
        return path.suffix.lower() in self.suffixes or self.begins(head(path))


@dataclass
class PassedOver:
    """What is not used of a folder's files: by reason."""

    notes: Notes = field(default_factory=Notes)

    def file(self, reason: str, path: Path | str, remedy: str = "") -> None:
        """Counts one file."""
        self.notes.add("left out", reason, str(path), 1, "files", remedy)

    def folder(self, reason: str, path: Path, remedy: str = "") -> None:
        """Counts all files of a folder, as they lie there; links are not followed."""
        count = sum(len(names) for _, _, names in os.walk(path))
        if count:
            self.notes.add("left out", reason, str(path), count, "files", remedy)

    def __str__(self) -> str:
        return "; ".join(map(str, self.notes))


def head(path: Path) -> bytes:
    """Returns a regular file's first bytes; none of what is no file, or can't be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            return b""
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def check_regular(path: Path, name: str = "") -> None:
    """Raises a `DataError` for a path that is no regular file: to read a pipe could take for ever.

    One that is not there passes: to open it says so.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise DataError(f"{name or path}: is {what}, not a file. Name a file that holds the data.")


def neighbours(path: Path) -> list[str]:
    """Returns the names in the folder that a path would be in."""
    return [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []


def check_there(path: Path, key: str) -> None:
    """Raises a `DataError` for a path that a key names and that is not there."""
    if not path.exists():
        hint = nearest(path.name, neighbours(path))
        raise DataError(f"{key}: there is no file '{path}' (from {os.getcwd()}).{hint}")


def check_file(path: Path, key: str) -> None:
    """Raises a `DataError` for a path that a key names and that is no file which can be read."""
    check_there(path, key)
    check_regular(path, f"{key}: {path}")
    if not os.access(path, os.R_OK):
        raise DataError(f"{key}: no permission to read {path}.")


def files_under(
    folder: Path,
    kind: FileKind,
    passed: PassedOver,
    above: Iterable[Path] = (),
    but: Collection[Path] = (),
) -> list[Path]:
    """Returns the files of a kind in a folder, however deep, sorted by path.

    Links are followed, each folder is gone through once. A file of another ending is opened and
    taken if it begins as files of this kind do.

    Args:
      folder: the folder.
      kind: of the files.
      passed: where the other files are counted, and those that are taken by their content.
      above: folders that a link must not lead back to, beside this one and those that hold it.
      but: files, and folders with all that is in them, that are used otherwise.

    Raises:
      DataError: a folder can't be read.
    """
    taken: list[Path] = []
    for path in _regular(folder, passed, above, but):
        if path in but:
            continue
        if path.suffix.lower() in kind.suffixes:
            taken.append(path)
        elif kind.begins(head(path)):
            taken.append(path)
            ending = f"end in {path.suffix!r}" if path.suffix else "have no ending"
            what = f"files that {ending} are {kind.name}s by their content"
            passed.notes.add("guessed", what, str(path), 1, "files")
        else:
            passed.file(_of_no_kind(path, kind), path)
    return sorted(taken)


def why_not(path: Path, kind: FileKind) -> str | None:
    """Returns why something that is no folder can't be used; None if it is a file of the kind."""
    if is_aside(path.name):
        return HIDDEN
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return NO_FILES
    except OSError:
        return NOWHERE
    return None if kind.holds(path) else _of_no_kind(path, kind)


def _of_no_kind(path: Path, kind: FileKind) -> str:
    ending = f"that end in {path.suffix.lower()!r}" if path.suffix else "without an ending"
    return f"files {ending}, which hold no {kind.name} that can be read"


def _regular(
    folder: Path, passed: PassedOver, above: Iterable[Path], but: Iterable[Path] = ()
) -> Iterator[Path]:
    """Yields the regular files under a folder; what else there is, is passed over."""
    seen = identities((folder, *above))
    apart = {identity(path) for path in but if path.is_dir()}
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        for entry in entries(place):
            path = Path(entry.path)
            if is_aside(entry.name):
                _pass_over(path, passed)
                continue
            try:
                if entry.is_file(follow_symlinks=False):
                    yield path
                    continue
                found = entry.stat()  # through links
            except OSError:
                passed.file(NOWHERE, path)
                continue
            if stat.S_ISREG(found.st_mode):
                yield path
            elif not stat.S_ISDIR(found.st_mode):
                passed.file(NO_FILES, path)
            elif (found.st_dev, found.st_ino) in apart:
                continue
            elif (found.st_dev, found.st_ino) in seen:
                passed.file("links to a folder that is gone through already", path)
            else:
                seen.add((found.st_dev, found.st_ino))
                waiting.append(path)


def _pass_over(path: Path, passed: PassedOver) -> None:
    if path.is_dir() and not path.is_symlink():
        passed.folder(IN_HIDDEN, path)
    else:
        passed.file(HIDDEN, path)


def is_aside(name: str) -> bool:
    """Returns whether a file or folder of this name is hidden, or an operating system's."""
    return name.startswith(".") or name.lower() in SYSTEM


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what lies in a folder, sorted by name.

    Raises:
      DataError: it can't be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: the folder can't be read: {error.strerror}.") from error


def identities(folders: Iterable[Path]) -> set[tuple[int, int]]:
    """Returns the `identity` of folders, and of all that hold them."""
    found = set()
    for folder in folders:
        for place in (folder.resolve(), *folder.resolve().parents):
            found.add(identity(place))
    return found


def identity(folder: Path) -> tuple[int, int]:
    """Returns what tells a folder from others, whatever links lead there."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def refuse_same(folders: Mapping[str, Path], where: Path) -> None:
    """Raises a `DataError` if two names are of one folder: its files would count twice.

    Args:
      folders: by their names.
      where: what holds them, for the message.
    """
    seen: dict[tuple[int, int], str] = {}
    for name, path in folders.items():
        first = seen.setdefault(identity(path), name)
        if first != name:
            raise DataError(
                f"{where}: {first!r} and {name!r} are one folder, by a link. Remove one of them."
            )


def most_of(folder: Path, kinds: Sequence[FileKind]) -> FileKind | None:
    """Returns the kind that most files under a folder are of; None if none is of any.

    Where no file has a known ending, contents tell. The first kind is taken of equally many.
    """
    paths = list(_regular(folder, PassedOver(), ()))
    counts = [sum(path.suffix.lower() in kind.suffixes for path in paths) for kind in kinds]
    if not any(counts):
        heads = [head(path) for path in paths]
        counts = [sum(map(kind.begins, heads)) for kind in kinds]
    return kinds[counts.index(max(counts))] if any(counts) else None
