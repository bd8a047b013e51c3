"""Configs as nested dicts: plain, flat, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from jdlopt.config.sections import section_dict

if TYPE_CHECKING:
    import ml_collections
    from _typeshed import DataclassInstance

AnyConfig: TypeAlias = "Mapping[str, Any] | ml_collections.ConfigDict | DataclassInstance"
"""A config or section: nested dicts, ml_collections' own kind of them, or a frozen dataclass."""


def to_dict(config: AnyConfig) -> dict[str, Any]:
    """Returns a config or one of its sections as nested dicts, a part's own keys beside the others.

    References of a `ConfigDict` are followed, and lists become tuples.
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
    """Returns a value with every list in it as a tuple."""
    if isinstance(value, Mapping):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


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
