"""Dotted keys that replace values of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jdlopt.config.references import assign, check_references, linked
from jdlopt.config.tree import AnyConfig, flat, nested, to_dict
from jdlopt.config.values import inherited_keys, text_of, with_inherited
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

    kept = linked(config)
    tree: Any = nested(to_dict(config)) if kept is None else kept
    renamed = _renamed(tree, assignments)
    for dotted, value in assignments.items():
        *sections, key = dotted.split(".")
        if any(map(is_reserved, (*sections, key))):
            raise ConfigError(f"--config.{dotted}: is unknown; no key has such a name.")
        node = tree
        for depth, section in enumerate(sections):
            if section not in node:
                node[section] = {}
            node = node[section]
            if not _is_section(node):
                prefix = ".".join(sections[: depth + 1])
                raise ConfigError(f"--config.{dotted}: {prefix} is a value, not a section.")
        if _is_section(_held(node, key)) and not isinstance(value, Mapping):
            raise ConfigError(
                f"--config.{dotted}: is a section; set one of its keys: {listing(node[key])}."
            )
        before = inherited_keys(_held(node, "name"))
        wanted = with_inherited(value, renamed[dotted]) if dotted in renamed else value
        _set(node, key, wanted, dotted)
        if key in before and key != "name":
            _set(node, "name", with_inherited(node["name"], before - {key}), dotted)
    if kept is None:
        return ml_collections.ConfigDict(tree)
    check_references(kept, assignments)
    return kept


def is_reserved(key: str) -> bool:
    """Says whether a name is one of Python's own, which a `ConfigDict` can't have as a key.

    Example:
      >>> is_reserved("__class__"), is_reserved("_class")
      (True, False)
    """
    return key.startswith("__") and key.endswith("__")


def _is_section(node: object) -> bool:
    import ml_collections

    return isinstance(node, dict | ml_collections.ConfigDict)


def _held(node: Any, key: str) -> Any:
    """The value of a key, or None if it has none, or none yet."""
    import ml_collections

    try:
        return node.get(key)
    except ml_collections.config_dict.RequiredValueError:
        return None


def _set(node: Any, key: str, value: Any, dotted: str) -> None:
    if isinstance(node, dict):
        node[key] = value
        return
    with node.ignore_type():
        assign(node, key, value, dotted)


def _renamed(tree: Any, assignments: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Returns what the section of each part that is named anew holds, but the keys that are set."""
    found: dict[str, frozenset[str]] = {}
    for dotted, value in assignments.items():
        prefix, _, last = dotted.rpartition(".")
        node: Any = tree
        for section in prefix.split("."):
            node = _held(node, section) if _is_section(node) else None
        if last != "name" or not _is_section(node):
            continue
        before = _held(node, "name")
        keys = inherited_keys(before)
        if text_of(before) != text_of(value):
            keys |= frozenset(node)
        asked = (key.removeprefix(f"{prefix}.") for key in assignments
                 if key.startswith(f"{prefix}."))  # fmt: skip
        found[dotted] = keys - {key.partition(".")[0] for key in asked}
    return found


class References:
    """What follows from setting keys, of a config whose keys refer to each other.

    Args:
      config: as `jdlopt.config.load` gives it, its overrides set.
    """

    def __init__(self, config: AnyConfig | None = None):
        self._config = None if config is None else linked(config)
        self._plain = {} if self._config is None else flat(self._config)

    def __bool__(self) -> bool:
        """Whether any key follows another."""
        return self._config is not None

    def following(self, assignments: Mapping[str, Any]) -> dict[str, Any]:
        """Returns assignments together with the keys that follow them, and their new values.

        Example:
          >>> import ml_collections
          >>> config = ml_collections.ConfigDict({"train": {"steps": 100}})
          >>> config.train.eval_every = config.train.get_ref("steps") // 4
          >>> References(config).following({"train.steps": 200})
          {'train.steps': 200, 'train.eval_every': 50}
        """
        if self._config is None:
            return dict(assignments)
        after = flat(override(self._config, assignments))
        followers = {
            key: value
            for key, value in after.items()
            if key in self._plain and self._plain[key] != value and key not in assignments
        }
        return {**assignments, **followers}
