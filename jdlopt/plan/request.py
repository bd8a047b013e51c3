"""A config on its way to a planning process: as JSON, with what was typed on a command line."""

from __future__ import annotations

from collections.abc import Mapping

from jdlopt.config import AnyConfig, Override, PartName, to_dict

TYPED, NAME, INHERITED = "--typed", "--name", "--inherited"
"""Keys that no config has."""


def encoded(config: AnyConfig) -> object:
    """Returns a config as JSON holds it; `decoded` gives it back."""
    return _encoded(to_dict(config))


def _encoded(value: object) -> object:
    if isinstance(value, Override):
        return {TYPED: value.text, INHERITED: sorted(value.inherited)}
    if isinstance(value, PartName):
        return {NAME: str(value), INHERITED: sorted(value.inherited)}
    if isinstance(value, Mapping):
        return {str(key): _encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    return value


def decoded(value: object) -> object:
    """Returns what `encoded` was given, tuples as lists.

    Example:
      >>> decoded(encoded({"model": {"name": Override("mlp"), "features": (8, 8)}}))
      {'model': {'name': Override(text='mlp', inherited=frozenset()), 'features': [8, 8]}}
    """
    if isinstance(value, Mapping):
        if TYPED in value:
            return Override(value[TYPED], frozenset(value[INHERITED]))
        if NAME in value:
            name = PartName(value[NAME])
            name.inherited = frozenset(value[INHERITED])
            return name
        return {key: decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value
