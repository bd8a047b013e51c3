"""A Python file of the user's, executed as a module; the folders that it may import from."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

FOLDERS = "JDLOPT_FOLDERS"
"""The environment variable that gives a worker process the folders of its coordinator."""

_folders: list[str] = []


def make_importable(folder: str | os.PathLike[str]) -> None:
    """Lets modules of a folder be imported, where no other folder has one of that name.

    The folder comes last in ``sys.path``, so that a file of it never stands for a package.
    """
    path = str(Path(folder).absolute())
    if path not in _folders:
        _folders.append(path)
    if path not in sys.path:
        sys.path.append(path)


def folders_for_workers() -> dict[str, str]:
    """Returns the environment that gives a worker process what `make_importable` was given."""
    return {FOLDERS: json.dumps(_folders)} if _folders else {}


def make_importable_again(environment: Mapping[str, str]) -> None:
    """Makes importable what `folders_for_workers` of the coordinator said."""
    for folder in json.loads(environment.get(FOLDERS, "[]")):
        make_importable(folder)


def execute(path: Path, kind: str) -> ModuleType | None:
    """Returns a Python file as a module, or None if it is none.

    The file's folder and the working directory become importable. The module stays in
    ``sys.modules``, where dataclasses and pickles look for the names of their annotations.

    Args:
      path: the file.
      kind: what the file is, as a part of the module's name.

    Raises:
      Exception: whatever the file raises.
    """
    name = f"jdlopt_{kind}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        return None
    make_importable(path.parent)
    make_importable(Path.cwd())
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def explained(error: BaseException, path: Path) -> str:
    """Returns what a file's own code raised, with its line and what to do about it."""
    text = f"{path}{_line_of(error, path)}: {type(error).__name__}: {error}"
    if isinstance(error, ImportError) and "relative import" in str(error):
        text += (
            ". A config file is no part of a package: import a file beside it by its name, "
            "as in `from NAME import …` without the dot; its folder is importable."
        )
    elif isinstance(error, ModuleNotFoundError):
        text += (
            f". The file's folder ({path.parent.absolute()}) and the working directory "
            f"({os.getcwd()}) are importable, after all that is installed."
        )
    return text


def _line_of(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        # of the file itself, or of one that it imports
        same = error.filename is None or Path(error.filename) == path
        return (
            f", line {error.lineno}" if same else f" imports {error.filename}, line {error.lineno}"
        )
    trace, line = error.__traceback__, None
    while trace:
        if Path(trace.tb_frame.f_code.co_filename) == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""


def split_argument(text: str) -> tuple[str, str | None]:
    """Returns the file and the argument of ``FILE[:ARG]``; the longest name of a file wins.

    What follows a file's name is the argument as it is, colons and spaces in it.

    Example:
      >>> split_argument("missing.py:a:b")
      ('missing.py', 'a:b')
    """
    cuts = [place for place, sign in enumerate(text) if sign == ":"]
    for cut in (len(text), *reversed(cuts)):
        if Path(text[:cut]).is_file():
            return text[:cut], text[cut + 1 :] if cut < len(text) else None
    for cut in cuts:
        if text[:cut].endswith((".py", ".json")):
            return text[:cut], text[cut + 1 :]
    return text, None
