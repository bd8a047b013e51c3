"""What a config key may hold, and the keys that a signature describes.

A part's config keys are its Python signature: a model, loss, optimizer or schedule is a callable
whose keyword parameters are typed and have defaults, and `fields_of` reads the schema from them.
A user's own part is therefore checked by the same code as a bundled one.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from jdlopt.config.tree import is_plain, tuples


@dataclass(frozen=True)
class Range:
    """Bounds of a number, each closed unless said to be open."""

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    def __str__(self) -> str:
        low, high = (
            f"{bound:g}" if isinstance(bound, float) else str(bound)
            for bound in (self.low, self.high)
        )
        if self.high is None:
            return f"{'greater than' if self.low_open else 'at least'} {low}"
        left, right = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"in {left}{'-inf' if self.low is None else low}, {high}{right}"

    def holds(self, value: float) -> bool:
        """Returns whether a finite number lies within the bounds."""
        if not math.isfinite(value):
            return False
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            return False
        return self.high is None or not (
            value > self.high or (self.high_open and value == self.high)
        )


@dataclass(frozen=True)
class Choice:
    """The names that a string may take: the keys of a table, or a tuple."""

    names: Container[str]


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
LARGEST_SEED = 2**32 - 1
"""What scikit-learn's splitters and NumPy's generators take at most."""
Seed = Annotated[int, Range(0, LARGEST_SEED)]


class Required:
    """Marks a key that has no default."""


@dataclass(frozen=True)
class Field:
    """What one config key may hold: any of ``types``, each with the element type of a tuple."""

    types: tuple[Any, ...]
    default: Any = Required
    range: Range | None = None
    choice: Choice | None = None

    def describe(self) -> str:
        """Returns in words what the key takes."""
        words = " or ".join(_type_name(kind) for kind in self.types)
        return words + (f" {self.range}" if self.range else "")


Schema = dict[str, Any]
"""Key → `Field`, or a nested `Schema`."""


class OptionalSection(dict[str, Any]):
    """The `Schema` of a section that a config has only where its switch is set.

    Without it, a resolved config has no key of the section: it is the config that it would be if
    there were no such section, with the same hyperparameters, structure and fingerprint.

    Args:
      keys: of the section.
      switch: the key that turns it on, whose default is None.
    """

    def __init__(self, keys: Schema, switch: str):
        super().__init__(keys)
        self.switch = switch


def _type_name(kind: Any) -> str:
    if kind is types.NoneType:
        return "None"
    if typing.get_origin(kind) is tuple:
        return f"tuple of {_type_name(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is Mapping:
        return f"{_type_name(typing.get_args(kind)[1])} by name"
    return getattr(kind, "__name__", str(kind))


def field_of(annotation: Any, default: Any = Required) -> Field:
    """Returns the `Field` that a parameter's annotation and default describe."""
    bounds, choice = None, None
    kinds: list[Any] = []
    pending = [annotation]
    while pending:
        kind = pending.pop(0)
        if typing.get_origin(kind) is Annotated:
            kind, *markers = typing.get_args(kind)
            for marker in markers:
                bounds = marker if isinstance(marker, Range) else bounds
                choice = marker if isinstance(marker, Choice) else choice
            pending.insert(0, kind)
        elif typing.get_origin(kind) in (typing.Union, types.UnionType):
            pending[:0] = typing.get_args(kind)
        elif not hasattr(kind, "array_type"):  # jaxtyping's: a traced float, of which a config
            kinds.append(kind)  # holds the value
    return Field(tuple(kinds), default, bounds, choice)


def fields_of(part: Callable[..., Any], without: Iterable[str] = ()) -> dict[str, Field]:
    """Returns the config keys of a part: its keyword parameters with a type that a config can hold.

    Args:
      part: a function, class, Linen module or dataclass. Positional-only and positional parameters
        of a function are its data, not its config; a class's parameters are all config.
      without: parameters that jdlopt fills in itself.
    """
    left_out = set(without)
    return {name: field for name, field in _declared(part).items() if name not in left_out}


@functools.lru_cache(maxsize=1024)
def _declared(part: Callable[..., Any]) -> Mapping[str, Field]:
    """All keys of a part; a config is checked against hundreds of parts, again and again."""
    # a class may have a metaclass whose signature says nothing, as NNX modules do
    target = part.__init__ if inspect.isclass(part) else part
    signature = inspect.signature(target)
    hints = dict(typing.get_type_hints(target, include_extras=True))
    if inspect.isclass(part):
        hints = {**typing.get_type_hints(part, include_extras=True), **hints}
    skipped = {"self", "rngs"}
    if "parent" in signature.parameters:  # a Linen module: flax fills these in
        skipped |= {"parent", "name"}
    fields = {}
    for name, parameter in signature.parameters.items():
        if name in skipped or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
            parameter.POSITIONAL_ONLY,
        ):
            continue
        if not inspect.isclass(part) and parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        default = Required if parameter.default is parameter.empty else parameter.default
        if default is not Required and not is_plain(tuples(default)):
            continue  # a function or dtype: no config can hold it, so the part keeps its own
        annotation = hints.get(name, Any)
        fields[name] = field_of(annotation, default)
    return types.MappingProxyType(fields)
