"""What all verbs share: a config from flags, the start of jax, and output for people or scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jdlopt.errors import escaped

if TYPE_CHECKING:
    import ml_collections
    from rich.console import Console

DONE, DEFECT, WRONG_INPUT, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 130
"""What a verb's exit code means."""


def load(file: str, overrides: Mapping[str, str]) -> ml_collections.ConfigDict:
    """Returns the config of a file, with overrides by key that are still text."""
    from jdlopt import config

    texts = {key: config.Override(text) for key, text in overrides.items()}
    return config.load(file, texts)


def start() -> bool:
    """Joins the other processes of the run, if any; says whether this one may print."""
    from jdlopt.train import processes

    processes.join()
    import jax

    from jdlopt.train.compiling import keep_programs

    keep_programs()

    return jax.process_index() == 0


def console() -> Console:
    """Returns the terminal that people read: stderr.

    Text is printed as it is: nothing in it is markup, and a control character of it becomes its
    escape. Colours are given apart, as `rich.text.Text` or a style.
    """
    from jdlopt.cli.terminal import stderr

    return stderr()


def print_json(value: Mapping[str, object]) -> None:
    """Prints one JSON object on stdout, for scripts."""
    print(json.dumps(value))


def print_path(out: Console, path: Path | str, what: str) -> None:
    """Prints a file, on one line whatever its length, and what it holds."""
    from rich.text import Text

    out.print(Text.assemble("  ", str(path), "  ", (what, "dim")), soft_wrap=True)


def number(value: float | None) -> str:
    """Returns a metric's value as a table shows it."""
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:,.0f}"


def print_rows(rows: Sequence[Mapping[str, object]], title: str) -> None:
    """Prints rows as one table."""
    from rich.table import Table

    table = Table(title=title)
    for column in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(column, "") for row in rows]
        numeric = all(isinstance(value, int | float) or value in ("", "–") for value in values)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    console().print(table)


def cell(value: object) -> str:
    """Returns a value as a table's cell."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else escaped(str(value))
