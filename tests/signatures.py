"""The check of signatures that tests run under: beartype, of shapes and types at each call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import jaxtyping
from beartype import BeartypeConf, beartype

Checked = TypeVar("Checked", bound=Callable[..., object])

NAMES = ("Array", "Bool", "Float", "Float32", "Int", "Num", "PyTree")
"""What a room names for types alone where it does without jax, until it computes."""
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float


def checked(function: Checked) -> Checked:
    """Returns a function whose arguments and result are checked against its signature."""
    if function.__name__ == "__init__":
        return function  # a config's sections are made before their keys are checked
    room = vars(sys.modules[function.__module__])
    for name in NAMES:
        room.setdefault(name, getattr(jaxtyping, name))
    return _checked(function)
