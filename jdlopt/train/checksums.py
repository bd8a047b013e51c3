"""Whether the files of a checkpoint are as they were written: their SHA-256 sums, beside them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jax

from jdlopt.train import processes

FILE = "checksums.json"


def write(folder: Path) -> None:
    """Writes the sums of all files in a folder."""
    sums = {name: _digest(path) for name, path in sorted(_files(folder).items())}
    (folder / FILE).write_text(json.dumps(sums), encoding="utf-8")


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path.name != FILE
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(folder: Path, part: int = 0, parts: int = 1) -> str | None:
    """Says what is wrong with a checkpoint's files, or None if they are as they were written.

    Args:
      folder: the checkpoint.
      part, parts: which of so many equal shares of the files is looked at.
    """
    try:
        expected = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if not isinstance(expected, dict):
            return f"{FILE} is no table of checksums"
        found = _files(folder)
        for name in sorted(expected)[part::parts]:
            if name not in found:
                return f"{name} is missing"
            if _digest(found[name]) != expected[name]:
                return f"{name} was changed or cut after it was written"
    except (OSError, ValueError, RecursionError) as error:
        return f"{FILE} can't be read ({error})"
    return None


def damage_found_together(folder: Path) -> str | None:
    """Says what `damage` does; of several processes, all of which call it, each reads a share."""
    mine = damage(folder, jax.process_index(), jax.process_count())
    found = [str(said) for said in processes.all_say(mine) if said is not None]
    return found[0] if found else None


def fingerprint(folder: Path) -> str:
    """Returns the SHA-256 of a checkpoint's checksums, which tells it from any other.

    Raises:
      OSError: they can't be read.
    """
    return hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
