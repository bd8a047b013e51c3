"""Sections of a config as frozen dataclasses: what is shared typed, a part's own keys a mapping."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from jdlopt.errors import ConfigError, listing, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Value = bool | int | float | str | tuple[Any, ...] | None
"""What one key of a config holds."""

Section = TypeVar("Section")

_OWN = "own keys of a part"


def own_keys() -> Any:
    """Returns the field of a section that takes all keys which the section has no field for."""
    return dataclasses.field(default_factory=dict, metadata={_OWN: True})


@functools.cache
def shared_keys(kind: type[DataclassInstance]) -> frozenset[str]:
    """Returns the keys that a section's dataclass has a field for, a part's own left out."""
    return frozenset(one.name for one in dataclasses.fields(kind) if _OWN not in one.metadata)


@functools.cache
def _nested(kind: type[object]) -> Mapping[str, Callable[[Any, str], Any]]:
    """What makes the value of each field that is a section, or a mapping of names to sections."""
    found: dict[str, Callable[[Any, str], Any]] = {}
    for key, hint in typing.get_type_hints(kind).items():
        inner = typing.get_args(hint)[-1] if typing.get_origin(hint) is Mapping else hint
        if isinstance(hint, types.UnionType):  # an optional section
            inner = hint = typing.get_args(hint)[0]
        if not (isinstance(inner, type) and dataclasses.is_dataclass(inner)):
            continue
        one = functools.partial(section_of, inner)
        found[key] = one if inner is hint else functools.partial(_each, one)
    return found


def _each(one: Callable[[Any, str], Any], values: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {name: one(value, f"{path}.{name}") for name, value in values.items()}


def section_of(kind: type[Section], values: Mapping[str, Any], path: str = "") -> Section:
    """Returns a section's dataclass of checked values; what they lack has its default.

    Args:
      kind: the dataclass. A field whose type is a dataclass, or a mapping to one, is a section in
        it; one that may be None as well, an optional section; the field made by `own_keys` takes
        the keys that no other field takes.
      values: the section, nested, as `check_section` returns it.
      path: the section's dotted name, for messages.

    Raises:
      ConfigError: a key is unknown or missing.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Part:
      ...     name: str
      ...     rate: float = 0.5
      ...     options: Mapping[str, Value] = own_keys()
      >>> section_of(Part, {"name": "mine", "width": 3})
      Part(name='mine', rate=0.5, options={'width': 3})
    """
    prefix = f"{path}." if path else ""
    wanted: Any = kind
    shared, nested = shared_keys(wanted), _nested(wanted)
    given: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in values.items():
        if key not in shared:
            rest[key] = value
        elif key in nested:
            given[key] = nested[key](value, prefix + key)
        else:
            given[key] = value
    fields = dataclasses.fields(wanted)
    own = next((one.name for one in fields if _OWN in one.metadata), None)
    if own is not None:
        given[own] = rest
    elif rest:
        key = next(iter(rest))
        hint = nearest(key, shared) or f" Known: {listing(sorted(shared))}."
        raise ConfigError(f"{prefix}{key}: is unknown.{hint}")
    for one in fields:
        unset = one.default is one.default_factory is dataclasses.MISSING
        if unset and one.name not in given:
            raise ConfigError(f"{prefix}{one.name}: is missing.")
    return kind(**given)


def section_dict(section: DataclassInstance) -> dict[str, Any]:
    """Returns a section as nested dicts, a part's own keys beside the shared ones.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Part:
      ...     name: str
      ...     options: Mapping[str, Value] = own_keys()
      >>> section_dict(Part("mine", {"width": 3}))
      {'name': 'mine', 'width': 3}
    """
    values: dict[str, Any] = {}
    for one in dataclasses.fields(section):
        value = getattr(section, one.name)
        if _OWN in one.metadata:
            values |= _plain(value)
        elif value is not None or one.name not in _nested(type(section)):
            values[one.name] = _plain(value)  # an optional section that is off has no key
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    is_section = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return section_dict(value) if is_section else value
