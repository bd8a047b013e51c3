"""References between keys, as `ml_collections` has them: a key whose value follows another's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any

from jdlopt.config.schema import Field
from jdlopt.config.tree import AnyConfig, nested, to_dict
from jdlopt.config.values import Override, coerced, is_kind, read_text
from jdlopt.errors import ConfigError

if TYPE_CHECKING:
    import ml_collections


def linked(config: AnyConfig) -> ml_collections.ConfigDict | None:
    """Returns a copy of a config whose keys refer to each other, or None if no key does."""
    import ml_collections  # help must not wait for it

    if not isinstance(config, ml_collections.ConfigDict) or not _refers(config):
        return None
    if isinstance(config, ml_collections.FrozenConfigDict):
        config = config.as_configdict()
    found = copy.deepcopy(config)
    found.unlock()
    return found


def _refers(config: ml_collections.ConfigDict) -> bool:
    import ml_collections

    return any(
        isinstance(value, ml_collections.FieldReference)
        or (isinstance(value, ml_collections.ConfigDict) and _refers(value))
        for _, value in config.items(preserve_field_references=True)
    )


def assign(section: ml_collections.ConfigDict, key: str, value: Any, dotted: str) -> None:
    """Sets a key of a config with references, so that the keys that refer to it follow.

    A key that is set itself refers to nothing any more, as in `ml_collections`. A text from a
    command line is read as the type of the reference; one that is no such value is left for the
    check of the config to tell.

    Raises:
      ConfigError: what refers to the key can't be computed with the value.
    """
    import ml_collections

    held = dict(section.items(preserve_field_references=True)).get(key)
    if not isinstance(held, ml_collections.FieldReference):
        if key in section:
            del section[key]  # whatever its type was
        section[key] = value
        return
    field = Field((held.get_type(), NoneType))
    if isinstance(value, Override):
        read = coerced(read_text(value.text, field), field)
        if not any(is_kind(read, kind) for kind in field.types):
            del section[key]
            section[key] = value
            return
        value = read
    try:
        held.set(value, type_safe=False)
    except (TypeError, ValueError, ml_collections.config_dict.MutabilityError) as error:
        raise ConfigError(f"{dotted}: other keys refer to it, and {error}.") from error


def check_references(config: ml_collections.ConfigDict, keys: Mapping[str, Any]) -> None:
    """Raises a `ConfigError` where a reference can't be computed with the keys that were set."""
    import ml_collections

    try:
        to_dict(config)
    except ml_collections.config_dict.RequiredValueError:
        pass  # told with its name, where a config is loaded
    except Exception as error:
        names = ", ".join(keys)
        raise ConfigError(
            f"{names}: other keys are computed from it, and that failed: "
            f"{type(error).__name__}: {error}."
        ) from error


def with_values(config: AnyConfig, tree: Mapping[str, Any]) -> AnyConfig:
    """Returns a config of other values that keeps the references that still hold.

    Args:
      config: with references, or without; then the tree is returned.
      tree: nested dicts: the keys and values of the result.
    """
    found = linked(config)
    if found is None:
        return tree
    with found.ignore_type():
        _set_all(found, nested(dict(tree)))
    return found


def _set_all(section: ml_collections.ConfigDict, tree: Mapping[str, Any], prefix: str = "") -> None:
    before = nested(to_dict(section))
    for key in before.keys() - tree.keys():
        del section[key]
    for key, value in tree.items():
        if isinstance(value, Mapping) and isinstance(before.get(key), Mapping):
            _set_all(section[key], value, f"{prefix}{key}.")
        elif key not in before or before[key] != value or type(before[key]) is not type(value):
            assign(section, key, value, prefix + key)
