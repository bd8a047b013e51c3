"""Dotted keys that replace values of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_collections

from jdlopt.config.tree import to_dict
from jdlopt.errors import ConfigError, listing


def override(
    config: Mapping[str, Any] | ml_collections.ConfigDict, assignments: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Returns the config with dotted keys set; a string from a command line comes as `Override`.

    Example:
      >>> override({"optim": {"learning_rate": 0.1}}, {"optim.learning_rate": 0.2}).optim.to_dict()
      {'learning_rate': 0.2}
    """
    tree = to_dict(config)
    for dotted, value in assignments.items():
        *sections, key = dotted.split(".")
        node = tree
        for depth, section in enumerate(sections):
            child = node.setdefault(section, {})
            if not isinstance(child, dict):
                prefix = ".".join(sections[: depth + 1])
                raise ConfigError(f"--config.{dotted}: {prefix} is a value, not a section.")
            node = child
        if isinstance(node.get(key), dict) and not isinstance(value, Mapping):
            raise ConfigError(
                f"--config.{dotted}: is a section; set one of its keys: {listing(node[key])}."
            )
        node[key] = value
    return ml_collections.ConfigDict(tree)
