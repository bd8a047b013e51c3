"""Config files: Python with `get_config`, or JSON."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdlopt.config.overrides import override
from jdlopt.config.tree import to_dict
from jdlopt.errors import ConfigError, listing, nearest

if TYPE_CHECKING:
    import ml_collections


def load(
    file: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
    """Returns the config of ``FILE.py[:argument]`` (its ``get_config``) or of ``FILE.json``.

    Args:
      file: the file.
      overrides: dotted keys and their values, such as ``{"optim.learning_rate": 1e-3}``.

    Raises:
      ConfigError: no such file, or it can't be read as a config.
    """
    config = _loaded(file)
    return override(config, overrides) if overrides else config


def _loaded(file: str | os.PathLike[str]) -> ml_collections.ConfigDict:
    text = os.fspath(file)
    name, argument = text, None
    if not Path(text).exists() and ":" in text:
        name, _, argument = text.rpartition(":")
    path = Path(name)
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "not there"
        siblings = [other.name for other in path.parent.glob("*.*") if other.suffix == path.suffix]
        raise ConfigError(
            f"--config: the file {name!r} is {what}.{nearest(path.name, siblings)} Name a Python "
            "file with a function get_config(), or a JSON file."
        )
    if path.suffix == ".json":
        return _load_json(path)
    spec = importlib.util.spec_from_file_location(f"jdlopt_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config: {name!r} is neither a Python file (.py) nor JSON (.json).")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ConfigError(f"{name}: has no function get_config().")
        config = module.get_config(*([] if argument is None else [argument]))
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code: name its line, not ours
        raise ConfigError(
            f"{name}{_line_of(error, path)}: {type(error).__name__}: {error}"
        ) from error
    import ml_collections  # help must not wait for it

    if not isinstance(config, Mapping | ml_collections.ConfigDict):
        raise ConfigError(f"{name}: get_config() returned {type(config).__name__}, not a config.")
    return _as_config(config, name)


def _as_config(found: Mapping[str, Any], where: str) -> ml_collections.ConfigDict:
    import ml_collections

    if isinstance(found, ml_collections.ConfigDict):
        unset = list(_unset(found))
        if unset:
            raise ConfigError(f"{where}: {listing(unset)}: is required and has no value.")
    tree = to_dict(found)
    wrong = [key for key in _keys(tree) if not isinstance(key, str) or "." in key]
    if wrong:
        raise ConfigError(
            f"{where}: {wrong[0]!r} can't be a key: expected a name without dots; a key of a "
            "section is nested, as in {'optim': {'learning_rate': 0.1}}."
        )
    return ml_collections.ConfigDict(tree)


def _keys(tree: Mapping[Any, Any]) -> Iterator[Any]:
    for key, value in tree.items():
        yield key
        if isinstance(value, Mapping):
            yield from _keys(value)


def _unset(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[str]:
    import ml_collections

    for key in config:
        try:
            value = config[key]
        except ml_collections.config_dict.RequiredValueError:
            yield prefix + key
        else:
            if isinstance(value, ml_collections.ConfigDict):
                yield from _unset(value, f"{prefix}{key}.")


def _line_of(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    trace, line = error.__traceback__, None
    while trace:
        if Path(trace.tb_frame.f_code.co_filename) == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""


def _load_json(path: Path) -> ml_collections.ConfigDict:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: is not a JSON config: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, not a config.")
    return _as_config(data, str(path))
