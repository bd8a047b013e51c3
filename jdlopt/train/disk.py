"""JSON as files have it: numbers that it lacks, damaged files, and what to tell of a full disk."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdlopt import memory

FULL = ("no space left", "enospc", "quota exceeded", "file too large")
"""What libraries call a full disk, in lower case."""


def as_json(value: object) -> Any:
    """Returns a value with numbers that JSON lacks (NaN, infinities) as None."""
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_object(path: Path) -> dict[str, Any] | None:
    """Returns the object that a JSON file holds; None if there is none, or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_full(error: BaseException) -> bool:
    """Says whether an error, or what a library made of it, means that no room is left."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    text = str(error).lower()
    if "resource_exhausted" in text and not memory.is_exhausted(text):
        return True
    return any(word in text for word in FULL)


def reason(path: Path, error: BaseException) -> str:
    """Returns why a path could not be written, naming the disk if it is full."""
    if not is_full(error):
        found = error.strerror if isinstance(error, OSError) else None
        return found or " ".join(str(error).split())[:300]
    too_large = isinstance(error, OSError) and error.errno == errno.EFBIG
    if too_large or "file too large" in str(error).lower():
        return "it would be larger than a file may be here (see `ulimit -f`)"
    disk = next(parent for parent in path.absolute().parents if os.path.ismount(parent))
    try:
        usage = shutil.disk_usage(disk)
    except OSError:
        return f"the disk at {disk} is full"
    room = f"{usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB are free"
    return f"the disk at {disk} is full, or its quota is ({room})"
