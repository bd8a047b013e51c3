"""A section checked against its schema: defaults, types, ranges, names."""

from __future__ import annotations

import math
import typing
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from jdlopt.config.schema import Field, OptionalSection, Required, Schema
from jdlopt.config.tree import is_plain
from jdlopt.config.values import (
    Override,
    PartName,
    coerced,
    inherited_keys,
    is_kind,
    read_text,
    shown,
)
from jdlopt.errors import ConfigError, listing, nearest


def check_section(
    values: Any, schema: Schema, path: str, problems: list[str], extra: str = ""
) -> dict[str, Any]:
    """Returns a section with defaults filled in and types made right; notes what is wrong.

    Args:
      values: the section as the user gave it.
      schema: the keys that it may hold.
      path: the section's dotted name, for messages.
      problems: messages are appended here, so that all of them can be told at once.
      extra: what to add to the message of an unknown key.
    """
    prefix = f"{path}." if path else ""
    if not isinstance(values, Mapping):
        problems.append(f"{path}: expected a section of keys, found {shown(values)}.")
        values = {}
    values = _without_unfit(values, schema, prefix)
    for key in values:
        if key not in schema:
            hint = nearest(key, schema) or f" Known: {listing(schema)}."
            problems.append(f"{prefix}{key}: is unknown.{hint}{extra}")
    checked: dict[str, Any] = {}
    for key, field in schema.items():
        if isinstance(field, OptionalSection):
            found = _switched(values.get(key, {}), field, prefix + key, problems)
            checked |= {} if found is None else {key: found}
        elif isinstance(field, dict):
            checked[key] = check_section(values.get(key, {}), field, prefix + key, problems)
        elif key in values:
            checked[key] = check_value(values[key], field, prefix + key, problems)
        elif field.default is Required:
            problems.append(f"{prefix}{key}: is missing; it must be {field.describe()}.")
        else:
            checked[key] = coerced(field.default, field)
    return checked


def _switched(
    values: Any, schema: OptionalSection, path: str, problems: list[str]
) -> dict[str, Any] | None:
    """Returns an optional section, checked; None where it is off."""
    if values is None:
        return None
    switch = schema.switch
    found = check_section(values, schema, path, problems)
    if found[switch] is not None:
        return found
    if isinstance(values, Mapping) and values and switch not in values:
        given = next(iter(values))
        problems.append(f"{path}.{given}: does nothing without {path}.{switch}.")
    return None


def settled(values: Mapping[str, Any], schema: Schema, path: str = "") -> dict[str, Any]:
    """Returns a config as given, in plain values: a file or a message can hold it.

    Texts of a command line are read as the types of their keys, and what was set for a part that
    was replaced is left out where it does not fit. Defaults are not filled in, nothing is checked.

    Args:
      values: the config, overrides applied.
      schema: the keys that it may hold; a text of another key stays an `Override`.
      path: the section's dotted name.
    """
    prefix = f"{path}." if path else ""
    found: dict[str, Any] = {}
    for key, value in _without_unfit(values, schema, prefix).items():
        field = schema.get(key)
        if isinstance(value, Mapping) and isinstance(field, dict):
            value = settled(value, field, prefix + key)
        elif isinstance(value, Override) and isinstance(field, Field):
            value = coerced(read_text(value.text, field), field)
        found[key] = str(value) if isinstance(value, PartName) else value
    return found


def _without_unfit(values: Mapping[str, Any], schema: Schema, prefix: str) -> Mapping[str, Any]:
    """Returns a section without what was set for another part and does not fit the one named."""
    name = values.get("name")

    def fits(key: str) -> bool:
        problems: list[str] = []
        if key in schema and isinstance(schema[key], Field):
            check_value(values[key], schema[key], key, problems)
        return key in schema and not problems

    unfit = [key for key in inherited_keys(name) if key in values and not fits(key)]
    if unfit:
        warnings.warn(
            f"{prefix}name: the config's {listing(unfit)} are for another part and do not fit "
            f"{str(getattr(name, 'text', name))!r}: left out.",
            stacklevel=3,
        )
    return {key: value for key, value in values.items() if key not in unfit}


def check_value(value: Any, field: Field, path: str, problems: list[str]) -> Any:
    """Returns a value as its field's type; notes a wrong type, range or name in ``problems``."""
    if isinstance(value, Override):
        value = read_text(value.text, field)
    elif isinstance(value, PartName):
        value = str(value)
    elif isinstance(value, Mapping):
        value = {
            key: read_text(one.text, field) if isinstance(one, Override) else one
            for key, one in value.items()
        }
    value = coerced(value, field)
    if Any not in field.types and not any(is_kind(value, kind) for kind in field.types):
        kind = "" if isinstance(value, Mapping) else f"{type(value).__name__} "
        problems.append(f"{path}: expected {field.describe()}, found {kind}{shown(value)}.")
        return value
    if not isinstance(value, Mapping) and not is_plain(value):
        problems.append(
            f"{path}: a config holds numbers, names, bools, None and tuples of them; "
            f"found {type(value).__name__} {shown(value)}."
        )
    items = tuple(value.values()) if isinstance(value, Mapping) else value
    each = "each " if isinstance(items, tuple) else ""
    for item in items if isinstance(items, tuple) else (items,):
        if isinstance(item, bool) or not isinstance(item, int | float):
            continue
        if not math.isfinite(item):
            problems.append(f"{path}: {each}must be a finite number, found {item}.")
        elif field.range is not None and not field.range.holds(item):
            problems.append(f"{path}: {each}must be {field.range}, found {item!r}.")
    if field.choice is not None and isinstance(value, str) and value not in field.choice.names:
        known = typing.cast(Iterable[str], field.choice.names)
        problems.append(
            f"{path}: {value!r} is unknown.{nearest(value, known)} Known: {listing(known)}."
        )
    return value


def raise_problems(problems: list[str], where: str = "config") -> None:
    """Raises one `ConfigError` that tells all the problems found, if there are any."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{where}: {count}\n" + "\n".join(f"  {item}" for item in problems))
