"""A value made the type that its key asks for, and shown in messages."""

from __future__ import annotations

import ast
import contextlib
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from jdlopt.config.schema import Field
from jdlopt.config.tree import tuples
from jdlopt.errors import listing


class Override(NamedTuple):
    """The text of ``--config.KEY=TEXT``, read as the type that its key asks for.

    Attributes:
      text: as it was typed.
      inherited: of a part's name: the keys that its section held for the part before.
    """

    text: str
    inherited: frozenset[str] = frozenset()


class PartName(str):
    """The name of a part that replaces another one, with the keys that were the other's."""

    inherited: frozenset[str] = frozenset()


def text_of(value: Any) -> Any:
    """Returns the text of an override, any other value as it is."""
    return value.text if isinstance(value, Override) else value


def inherited_keys(name: object) -> frozenset[str]:
    """Returns the keys of a section that were set for another part than the one it names."""
    return name.inherited if isinstance(name, Override | PartName) else frozenset()


def with_inherited(name: Any, keys: frozenset[str]) -> Any:
    """Returns a part's name that knows which keys of its section were set for another part."""
    if isinstance(name, Override):
        return name._replace(inherited=keys)
    if isinstance(name, str):
        name = PartName(name)
        name.inherited = keys
    return name


def read_text(text: str, field: Field) -> Any:
    """Returns a command-line value read as its key's type: names need no quotes."""
    if types.NoneType in field.types and text in ("None", "none", "null"):
        return None
    if bool in field.types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if value == text and float in field.types and str not in field.types:
        with contextlib.suppress(ValueError):
            value = float(text)  # nan and inf, to be told what they are
    if isinstance(value, float) and value.is_integer() and float not in field.types:
        value = int(value) if int in field.types else value
    if str in field.types and not any(is_kind(coerced(value, field), kind) for kind in field.types):
        return text
    if isinstance(value, str) and str in field.types:
        return value
    wants_tuple = any(typing.get_origin(kind) is tuple for kind in field.types)
    if wants_tuple and not isinstance(value, tuple | list) and value is not None:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return (value,)
    return value


def coerced(value: Any, field: Field) -> Any:
    """Returns lists as tuples, and an int as a float where only a float will do."""
    value = tuples(value)
    plain_int = isinstance(value, int) and not isinstance(value, bool)
    if plain_int and float in field.types and int not in field.types:
        return float(value)
    if isinstance(value, Mapping) and Mapping[str, float] in field.types:
        return {
            key: float(item) if isinstance(item, int) and not isinstance(item, bool) else item
            for key, item in value.items()
        }
    if isinstance(value, tuple) and tuple[float, ...] in field.types:
        whole = [isinstance(item, int) and not isinstance(item, bool) for item in value]
        return tuple(
            float(item) if is_int else item for item, is_int in zip(value, whole, strict=True)
        )
    return value


def is_kind(value: object, kind: Any) -> bool:
    """Returns whether a value is of a type: exactly for numbers, bools and strings."""
    if kind is types.NoneType:
        return value is None
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        return isinstance(value, tuple) and all(is_kind(item, element) for item in value)
    if typing.get_origin(kind) is Mapping:
        element = typing.get_args(kind)[1]
        if not isinstance(value, Mapping):
            return False
        return element is Any or all(is_kind(one, element) for one in value.values())
    if kind in (int, float, bool, str):
        return type(value) is kind
    return isinstance(value, kind) if inspect.isclass(kind) else True


def shown(value: object) -> str:
    """Returns a value as a message shows it, at most 60 characters."""
    if isinstance(value, Mapping):
        return f"a section with the keys {listing(value)}" if value else "an empty section"
    text = repr(text_of(value))
    return text if len(text) <= 60 else text[:57] + "..."
