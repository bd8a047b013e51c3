"""What of a config is traced and what is structure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jdlopt.config.tree import AnyConfig, to_dict

TRACED_SECTIONS = (("model",), ("loss",), ("optim",), ("data", "augment"))
"""The sections whose float leaves are traced hyperparameters; all else is structure."""


SWITCHES = {("model", "prune"): ("criterion",), ("model", "low_rank"): ("rank", "ranks")}
"""Sections that change nothing while these keys of theirs are None or empty: no structure then."""

Floats = dict[str, "float | Floats"]
"""Floats by key, nested."""


def _section(config: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    node: Any = config
    for key in path:
        node = node.get(key, {})
    return node


def _floats(tree: Mapping[str, Any]) -> Floats:
    kept: Floats = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            nested = _floats(value)
            if nested:
                kept[key] = nested
        elif isinstance(value, float):
            kept[key] = value
    return kept


def hyperparameters(config: AnyConfig) -> Floats:
    """Returns the traced floats of a resolved config: ``{"model": {…}, "loss": {…}, …}``."""
    tree = to_dict(config)
    return {path[-1]: _floats(_section(tree, path)) for path in TRACED_SECTIONS}


def structure(config: AnyConfig) -> dict[str, Any]:
    """Returns a resolved config without traced floats and seed: what a program is made of."""
    tree = to_dict(config)
    tree.pop("seed", None)
    for place, switches in SWITCHES.items():
        section = _section(tree, place)
        if not any(section.get(key) for key in switches):
            _section(tree, place[:-1]).pop(place[-1], None)
    for path in TRACED_SECTIONS:
        parent: Any = _section(tree, path[:-1])
        if path[-1] in parent:
            parent[path[-1]] = _without_floats(parent[path[-1]])
    return tree


def _without_floats(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_floats(item) for key, item in value.items()}
    return "float" if isinstance(value, float) else value


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def fingerprint(config: AnyConfig) -> str:
    """Returns 16 hex digits, equal for configs of equal structure whatever their floats.

    A key that is None counts as none: what is off, or did not exist yet, changes nothing.
    """
    text = json.dumps(_without_none(structure(config)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
