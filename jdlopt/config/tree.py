"""Configs as nested dicts: plain, flat, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import ml_collections


def to_dict(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config as nested plain dicts, references followed, lists as tuples."""
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    return {
        key: to_dict(value) if isinstance(value, Mapping) else tuples(value)
        for key, value in config.items()
    }


def tuples(value: Any) -> Any:
    """Returns a value with every list in it as a tuple."""
    if isinstance(value, Mapping):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


def is_plain(value: Any) -> bool:
    """Says whether a config can hold a value: a number, name, bool, None or tuple of them."""
    if isinstance(value, tuple):
        return all(is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
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


def dumps(config: Mapping[str, Any]) -> str:
    """Returns a resolved config as JSON text, keys in their own order."""
    return json.dumps(to_dict(config), indent=2) + "\n"
