"""Parts by name: a table's entry, or one of a user's own by dotted path."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdlopt.config.values import shown
from jdlopt.errors import ConfigError, listing, nearest


def find_part(
    name: object,
    table: Mapping[str, Any],
    what: str,
    kind: type | None = None,
    or_function: bool = True,
) -> Any:
    """Returns the part that a name means: a table's entry, or ``package.module:Name`` imported.

    Args:
      name: what the user gave.
      table: the parts that come with jdlopt.
      what: what the name is the value of, for messages.
      kind: a class of which an imported part may be an instance.
      or_function: whether it may be a function or class to call.

    Raises:
      ConfigError: the name is in neither, with the nearest known name.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"{what}: expected a name, found {shown(name)}. Known: {listing(table)}; "
            "or a dotted path 'package.module:Name' to a part of your own."
        )
    if name in table:
        return table[name]
    if ":" not in name:
        raise ConfigError(
            f"{what} {name!r} is unknown.{nearest(name, table)} Known: {listing(table)}; "
            "or a dotted path 'package.module:Name' to a part of your own."
        )
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # `jdlopt` is a script: its sys.path lacks the user's folder
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"{what} {name!r}: importing {module_name!r} failed: {type(error).__name__}: {error}."
            f"{nearest(module_name, [file.stem for file in Path().glob('*.py')])}"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(
            f"{what} {name!r}: {module_name!r} has no {attribute!r}."
            f"{nearest(attribute, dir(module))}"
        )
    part = getattr(module, attribute)
    is_kind = kind is not None and isinstance(part, kind)
    if not is_kind and not (or_function and callable(part)):
        wanted = ["a function or class to call"] if or_function else []
        wanted = wanted if kind is None else [f"an instance of {kind.__name__}", *wanted]
        raise ConfigError(f"{what} {name!r}: is {shown(part)}; expected {' or '.join(wanted)}.")
    return part
