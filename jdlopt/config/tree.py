"""Configs as nested dicts: plain, flat, as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

from jdlopt.config.sections import section_dict
from jdlopt.errors import ConfigError

if TYPE_CHECKING:
    import ml_collections
    from _typeshed import DataclassInstance

AnyConfig: TypeAlias = "Mapping[str, Any] | ml_collections.ConfigDict | DataclassInstance"
"""A config or section: nested dicts, ml_collections' own kind of them, or a frozen dataclass."""


def to_dict(config: AnyConfig) -> dict[str, Any]:
    """Returns a config or one of its sections as nested dicts, a part's own keys beside the others.

    References of a `ConfigDict` are followed, and values are made plain as `tuples` does. The names
    of columns in ``data.columns`` are whole, dots and all.
    """
    if is_dataclass(config):
        assert not isinstance(config, type)
        return section_dict(config)
    given = config if isinstance(config, Mapping) else config.to_dict()
    found = {
        key: to_dict(value) if isinstance(value, Mapping) else tuples(value)
        for key, value in given.items()
    }
    return _with_columns(found, flat)


def nested_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is said of columns with keys without dots, as `ml_collections` takes them.

    Raises:
      ConfigError: a column is called as another one is before a dot.

    Example:
      >>> nested_columns({"note": "text", "size.cm": "number"})
      {'note': 'text', 'size': {'cm': 'number'}}
    """
    made: dict[str, Any] = {}
    for name, kind in columns.items():
        *sections, last = str(name).split(".")
        node: Any = made
        for section in sections:
            node = node.setdefault(section, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last in node:
            raise ConfigError(
                f"data.columns: {name!r} can't be named beside a column that is called the same up "
                "to a dot. Leave one of the two out: what it holds is guessed."
            )
        node[last] = kind
    return made


def nested(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns nested dicts as a `ConfigDict` takes them: columns by `nested_columns`."""
    return _with_columns(tree, nested_columns)


def _with_columns(
    tree: dict[str, Any], change: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    section = tree.get("data")
    if not isinstance(section, Mapping) or not isinstance(section.get("columns"), Mapping):
        return tree
    return {**tree, "data": {**section, "columns": change(section["columns"])}}


def tuples(value: Any) -> Any:
    """Returns a value as plain Python has it: every list, range and array in it as a tuple.

    NumPy's and JAX's numbers become Python's, a member of an enumeration its value, a path its
    text.

    Example:
      >>> tuples([range(2), PurePath("a")])
      ((0, 1), 'a')
    """
    if isinstance(value, Enum):
        value = value.value
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: tuples(item) for key, item in value.items()}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | range) or type(value) is tuple:
        return tuple(tuples(item) for item in value)
    return value


def is_plain(value: object) -> bool:
    """Returns whether a config can hold a value: a number, name, bool, None or tuple of them."""
    if isinstance(value, tuple):
        return all(is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def flat(config: AnyConfig, prefix: str = "") -> dict[str, Any]:
    """Returns a config as one dict of dotted keys.

    Example:
      >>> flat({"a": {"b": 1}, "c": 2})
      {'a.b': 1, 'c': 2}
    """
    leaves: dict[str, Any] = {}
    for key, value in to_dict(config).items():
        if isinstance(value, Mapping):
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def dumps(config: AnyConfig) -> str:
    """Returns a resolved config as JSON text, keys in their own order."""
    return json.dumps(to_dict(config), indent=2) + "\n"
