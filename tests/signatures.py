"""The check of signatures that tests run under: beartype, of shapes and types at each call."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TypeVar, cast

import jaxtyping
from beartype import BeartypeConf, beartype

Checked = TypeVar("Checked", bound=Callable[..., object])

NAMES = ("Array", "Bool", "Float", "Float32", "Int", "Num", "PyTree")
"""What a room names for types alone where it does without jax, until it computes."""
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
_known: dict[tuple[object, ...], Callable[..., object]] = {}
"""What checks a signature: a function within another is defined at each call of that one."""


def checked(function: Checked) -> Checked:
    """Returns a function whose arguments and result are checked against its signature."""
    if function.__name__ == "__init__":
        return function  # a config's sections are made before their keys are checked
    room = vars(sys.modules[function.__module__])
    for name in NAMES:
        room.setdefault(name, getattr(jaxtyping, name))
    made: list[Callable[..., object]] = []

    def check(*args: object, **keys: object) -> object:
        if not made:  # at the first call: beartype takes milliseconds, and most are never called
            made.append(_known_or_made(function))
        return made[0](*args, **keys)

    return cast(Checked, functools.wraps(function)(check))


def _known_or_made(function: Callable[..., object]) -> Callable[..., object]:
    # jaxtyping hands over an empty function of its own, which differs by its signature alone.
    key = (function.__module__, function.__qualname__, inspect.signature(function))
    if key not in _known:
        _known[key] = _beartype(function)
    return _known[key]
