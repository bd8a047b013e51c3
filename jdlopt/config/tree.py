"""Configs as nested dicts: plain, flat, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

from jdlopt.config.sections import section_dict

if TYPE_CHECKING:
    import ml_collections
    from _typeshed import DataclassInstance

AnyConfig: TypeAlias = "Mapping[str, Any] | ml_collections.ConfigDict | DataclassInstance"
"""A config or section: nested dicts, ml_collections' own kind of them, or a frozen dataclass."""


def to_dict(config: AnyConfig) -> dict[str, Any]:
    """Returns a config or one of its sections as nested dicts, a part's own keys beside the others.

    References of a `ConfigDict` are followed, and values are made plain as `tuples` does.
    """
    if is_dataclass(config):
        assert not isinstance(config, type)
        return section_dict(config)
    given = config if isinstance(config, Mapping) else config.to_dict()
    return {
        key: to_dict(value) if isinstance(value, Mapping) else tuples(value)
        for key, value in given.items()
    }


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
