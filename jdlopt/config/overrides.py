"""Dotted keys that replace values of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jdlopt.config.tree import AnyConfig, to_dict
from jdlopt.config.values import inherited_keys, with_inherited
from jdlopt.errors import ConfigError, listing

if TYPE_CHECKING:
    import ml_collections


def override(config: AnyConfig, assignments: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Returns the config with dotted keys set; a string from a command line comes as `Override`.

    Where a part is named anew (``model.name``), `check_section` leaves out, with a warning, those
    keys of the part before that do not fit the new one; but none that is set here as well.

    Example:
      >>> override({"optim": {"learning_rate": 0.1}}, {"optim.learning_rate": 0.2}).optim.to_dict()
      {'learning_rate': 0.2}
    """
    import ml_collections  # help must not wait for it

    tree = to_dict(config)
    renamed = _renamed(tree, assignments)
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
        node[key] = with_inherited(value, renamed[dotted]) if dotted in renamed else value
        before = inherited_keys(node.get("name"))
        if key in before:
            node["name"] = with_inherited(node["name"], before - {key})
    return ml_collections.ConfigDict(tree)


def _renamed(tree: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Returns what the section of each part that is named anew holds, but the keys that are set."""
    found: dict[str, frozenset[str]] = {}
    for dotted, value in assignments.items():
        prefix, _, last = dotted.rpartition(".")
        node: Any = tree
        for section in prefix.split("."):
            node = node.get(section) if isinstance(node, Mapping) else None
        if last != "name" or not isinstance(node, Mapping):
            continue
        before = node.get("name")
        keys = inherited_keys(before)
        if getattr(before, "text", before) != getattr(value, "text", value):
            keys |= frozenset(node)
        asked = (key.removeprefix(f"{prefix}.") for key in assignments
                 if key.startswith(f"{prefix}."))  # fmt: skip
        found[dotted] = keys - {key.partition(".")[0] for key in asked}
    return found
