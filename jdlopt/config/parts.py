"""Parts by name: a table's entry, or one of a user's own by dotted path.

A dotted path is code that runs. One that the person gives, in a config file or from Python, is
imported. One that stands in the records of a directory is imported only with leave: whoever reads
such a record calls `refuse_code`, so that what gets beyond, into worker processes too, may be run.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from jdlopt.config.python_file import make_importable
from jdlopt.config.tree import AnyConfig, to_dict
from jdlopt.config.values import shown
from jdlopt.errors import ConfigError, WorkdirError, listing, nearest

Allowed = bool | Collection[str]
"""Which dotted paths of a directory's records may be imported: all, none, or these."""

OF_DATA = frozenset(
    f"data.{name}"
    for name in ("target", "label_delimiter", "text_column", "weight", "group", "split_by", "time",
                 "ignore", "categorical", "columns", "missing_values", "data_dir", "fit_on", "id",
                 "positive")
) | {
    "model.pretrained", "model.use_inputs", "model.modality_dropout", "loss.distill.teacher",
}  # fmt: skip
"""Keys whose values name columns, values, folders and files: a colon means nothing there."""
VARIANT = re.compile(r":\d+$")


def is_path(name: str) -> bool:
    """Says whether a name is a dotted path, ``package.module:Name``.

    Example:
      >>> is_path("my_parts:Net"), is_path("mnist:3.0.1"), is_path("adamw"), is_path("a:b:c")
      (True, False, False, False)
    """
    module, colon, attribute = name.partition(":")
    return (
        bool(colon)
        and attribute.isidentifier()
        and all(word.isidentifier() for word in module.split("."))
    )


def paths_in(config: AnyConfig) -> list[tuple[str, str]]:
    """Returns the dotted paths that stand anywhere in a config, each with its dotted key.

    Names of splits before one and of variants behind it are left out; what names columns of data
    is none.

    Example:
      >>> paths_in({"train": {"metrics": ("accuracy", "mine:f1"), "monitor": "validation/mine:f1"}})
      [('train.metrics', 'mine:f1'), ('train.monitor', 'mine:f1')]
    """
    return [
        (key, name) for key, text in _texts(to_dict(config), "") if is_path(name := _bare(text))
    ]


def _bare(text: str) -> str:
    return VARIANT.sub("", text.strip().rpartition("/")[2])


def _texts(value: object, key: str) -> Iterator[tuple[str, str]]:
    """Yields every text of a config, keys too, each with the dotted key where it stands."""
    if key in OF_DATA:
        return
    if isinstance(value, Mapping):
        for name, item in value.items():
            inner = f"{key}.{name}" if key else str(name)
            yield inner, str(name)
            yield from _texts(item, inner)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


def code_in(config: AnyConfig) -> set[str]:
    """Returns the dotted paths that a config names, whatever keys name them."""
    return {path for _, path in paths_in(config)}


def refuse_code(record: AnyConfig, place: Path, allowed: Allowed = False) -> None:
    """Checks that what a directory's record names by dotted path may be imported.

    Args:
      record: a config, or a part of one, that was read from a file of the directory.
      place: that file.
      allowed: the leave that the person gave.

    Raises:
      WorkdirError: it names code that there is no leave for.

    Example:
      >>> refuse_code({"model": {"name": "mlp"}}, Path("runs/a/config.json"))
    """
    if allowed is True:
        return
    for key, name in paths_in(record):
        if allowed is False or name not in allowed:
            raise WorkdirError(
                f"{place}: {key} is {name!r}, code that would be run. Opening the directory "
                f"{place.parent} runs none unless you say so: if you trust {name.partition(':')[0]}"
                " and whoever made the directory, add --allow-code (from Python: allow_code=True)."
            )


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
    if not is_path(name):
        raise ConfigError(
            f"{what} {name!r} is unknown.{nearest(name, table)} Known: {listing(table)}; "
            "or a dotted path 'package.module:Name' to a part of your own."
        )
    module_name, _, attribute = name.partition(":")
    make_importable(os.getcwd())  # `jdlopt` is a script: its sys.path lacks the user's folder
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
