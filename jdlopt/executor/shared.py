"""Whether a worker on another machine sees the files that its coordinator sees.

A path that is there on both may still be two folders: a study's would then be in pieces. So the
coordinator leaves a mark in the directory that it keeps its results in, and workers look for it.
"""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections.abc import Mapping
from pathlib import Path

from jdlopt import writing
from jdlopt.errors import UserError

SEES = "JDLOPT_SEES"
"""The environment variable that tells a worker on another machine what it must see."""
MARK = ".machines"


def to_be_seen(workdir: Path) -> dict[str, str]:
    """Returns the environment by which a worker knows what it must see, and leaves the mark.

    Args:
      workdir: where results are kept.

    Raises:
      OSError: it can't be written there.
    """
    path = workdir.absolute() / MARK
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = uuid.uuid4().hex
        writing.write_aside(path, text)
    return {SEES: json.dumps([os.getcwd(), str(path), text])}


def check_seen(environment: Mapping[str, str]) -> None:
    """Checks that this machine sees what its coordinator sees, where that said what.

    Raises:
      UserError: it does not.
    """
    if SEES not in environment:
        return
    folder, path, text = json.loads(environment[SEES])
    same = "All machines must see the same files under the same names."
    if os.getcwd() != folder:
        raise UserError(f"the folder {folder}, where jdlopt was started, is not there. {same}")
    try:
        found = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{Path(path).parent} can't be read: {error.strerror}. {same}") from error
    if found != text:
        raise UserError(
            f"{Path(path).parent} is another folder than on the coordinator's machine: {same} "
            f"{platform.node()} has one of its own there."
        )
