"""Config files: Python with `get_config`, or JSON."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdlopt.config.overrides import is_reserved, override
from jdlopt.config.python_file import execute, explained, split_argument
from jdlopt.config.references import linked
from jdlopt.config.tree import flat, nested, to_dict
from jdlopt.config.values import Override, text_of
from jdlopt.errors import ConfigError, listing, nearest

DATASETS = (
    "mnist1d", "digits", "iris", "wine", "breast_cancer", "diabetes", "shapes", "tone_digits",
)  # fmt: skip
"""The bundled datasets: these words name no folder beside a config."""
SOURCES = ("data.source", "data.validation_source", "data.test_source")

if TYPE_CHECKING:
    import ml_collections

    from jdlopt.config.tree import AnyConfig


def load(
    file: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
    """Returns the config of ``FILE.py[:argument]`` (its ``get_config``) or of ``FILE.json``.

    Keys that refer to others (`ml_collections`' ``get_ref``) go on following them. A relative path
    that is not in the working directory is looked for beside the config file.

    Args:
      file: the file.
      overrides: dotted keys and their values, such as ``{"optim.learning_rate": 1e-3}``.

    Raises:
      ConfigError: no such file, or it can't be read as a config.
    """
    config, path = _loaded(file)
    if overrides:
        config = override(config, overrides)
    unset = list(_unset(config))
    if unset:
        raise ConfigError(f"{path}: {listing(unset)}: is required and has no value.")
    beside = paths_beside(config, path.parent)
    return override(config, beside) if beside else config


def _loaded(file: str | os.PathLike[str]) -> tuple[ml_collections.ConfigDict, Path]:
    name, argument = split_argument(os.fspath(file))
    path = Path(name)
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "not there"
        siblings = [other.name for other in path.parent.glob("*.*") if other.suffix == path.suffix]
        raise ConfigError(
            f"--config: the file {name!r} is {what}.{nearest(path.name, siblings)} Name a Python "
            "file with a function get_config(), a JSON file, or a run's directory."
        )
    if path.suffix == ".json":
        return _load_json(path), path
    try:
        module = execute(path, "config")
        if module is None:
            raise ConfigError(
                f"--config: {name!r} is neither a Python file (.py) nor JSON (.json)."
            )
        if not hasattr(module, "get_config"):
            raise ConfigError(f"{name}: has no function get_config().")
        config = module.get_config(*([] if argument is None else [argument]))
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code: name its line, not ours
        raise ConfigError(explained(error, path)) from error
    import ml_collections  # help must not wait for it

    if not isinstance(config, Mapping | ml_collections.ConfigDict):
        raise ConfigError(f"{name}: get_config() returned {type(config).__name__}, not a config.")
    return _as_config(config, name), path


def paths_beside(config: AnyConfig, folder: Path) -> dict[str, Any]:
    """Returns the keys whose relative paths lie beside the config file, and those paths.

    A path is a text in ``data`` or ``model`` with a separator or an ending, and a source of data by
    any other word than a `DATASETS`. The working directory's file is taken where both have one.
    Either is said in a warning.
    """
    if folder.resolve() == Path.cwd():
        return {}
    found: dict[str, Any] = {}
    for key, value in _texts(config):
        text = str(text_of(value))
        path = Path(text)
        is_path = path.suffix or os.sep in text or (key in SOURCES and text not in DATASETS)
        if path.is_absolute() or not text.strip() or not is_path or "\n" in text:
            continue
        beside = folder / path
        try:
            here, there = path.exists(), beside.exists()
        except (OSError, ValueError):
            continue  # no path at all: too long, or a zero byte
        if there and not here:
            found[key] = str(beside)
            said = f"is not in the working directory; taken from beside the config: {beside}."
        elif there and here and not path.samefile(beside):
            said = (
                f"is both in the working directory and beside the config ({beside}); the working "
                "directory's is taken. Give a whole path to take the other."
            )
        else:
            continue
        warnings.warn(f"{key}: {text!r} {said}", stacklevel=3)
    return found


def _texts(config: AnyConfig) -> Iterator[tuple[str, object]]:
    for key, value in flat(config).items():
        if isinstance(value, str | Override) and key.startswith(("data.", "model.")):
            yield key, value


def _as_config(found: Mapping[str, Any], where: str) -> ml_collections.ConfigDict:
    import ml_collections

    kept = linked(found)
    tree: Any = nested(to_dict(found)) if kept is None else kept
    wrong = [key for key in _keys(tree) if not isinstance(key, str) or "." in key]
    if wrong:
        raise ConfigError(
            f"{where}: {wrong[0]!r} can't be a key: expected a name without dots; a key of a "
            "section is nested, as in {'optim': {'learning_rate': 0.1}}."
        )
    unknown = [key for key in _keys(tree) if is_reserved(key)]
    if unknown:
        raise ConfigError(f"{where}: {unknown[0]}: is unknown; no key has such a name.")
    return ml_collections.ConfigDict(tree) if kept is None else kept


def _keys(tree: Any) -> Iterator[Any]:
    import ml_collections

    linked_tree = isinstance(tree, ml_collections.ConfigDict)
    items = tree.items(preserve_field_references=True) if linked_tree else tree.items()
    for key, value in items:
        yield key
        if isinstance(value, Mapping | ml_collections.ConfigDict):
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


def _load_json(path: Path) -> ml_collections.ConfigDict:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not a JSON config: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, not a config.")
    return _as_config(data, str(path))
