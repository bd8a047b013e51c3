"""What all verbs share: a config from flags, the start of jax, and output for people or scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jdlopt.errors import UserError, escaped

if TYPE_CHECKING:
    import ml_collections
    from rich.console import Console
    from rich.table import Table

    from jdlopt.cli.verbs import ConfigFlags, RunFlags

DONE, DEFECT, WRONG_INPUT, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 130
"""What a verb's exit code means; `jdlopt.errors.HUNG` is that of a process which ended itself."""

A_RUN = "a run's directory"
CONFIGS_IN = ("best_config.json", "improved.py")
"""Of the directories of studies and improvements, the config that each came to."""


def load(flags: ConfigFlags) -> ml_collections.ConfigDict:
    """Returns the config that the flags name, its overrides still as text."""
    return config_at(place_of(flags), flags.overrides, flags.allow_code)


def place_of(flags: ConfigFlags) -> str:
    """Returns the config file, or the run's directory, that the flags name.

    Raises:
      UserError: they name none, or two.
    """
    found = one_of(RUN=flags.run, **{"--config": flags.config})
    if found is None:
        raise UserError(
            "--config: is missing; name a config file (FILE.py with get_config(), or FILE.json), "
            "or a run's directory as RUN."
        )
    return found


def run_of(verb: str, flags: RunFlags, what: str = A_RUN, must_be_run: bool = True) -> str:
    """Returns the directory that the flags of a verb name in one way or another.

    Args:
      verb: its words.
      flags: what was given.
      what: the verb takes, in words.
      must_be_run: a directory of anything else is refused.

    Raises:
      UserError: they name none, two, or a file.
    """
    named = {"RUN": flags.run, "--config": flags.config, "--workdir": flags.workdir}
    found = one_of(**named)
    if found is None:
        raise UserError(f"{verb}: takes {what}, `jdlopt {verb} RUN`; none is given.")
    way = next(name for name, path in named.items() if path is not None)
    if Path(found).is_file():
        raise UserError(
            f"{way}: {verb} takes {what}; {found} is a file, which holds no run (no config.json). "
            f"Train a config first: `jdlopt train --config={found} --workdir=RUN`."
        )
    if must_be_run:
        check_run(way, found)
    return found


def check_run(way: str, place: str) -> None:
    """Raises a `UserError` where a directory is no run's, by the flag that named it."""
    from jdlopt.data.from_run import CONFIG, first_run_in

    if (Path(place) / CONFIG).is_file():
        return
    first = first_run_in(Path(place))
    there = "Name a directory that `jdlopt train` was given."
    if first is not None:
        there = f"It holds several; name one of them, such as {first}."
    is_folder = " is a folder, not a file, and" if way == "--config" else ""
    raise UserError(f"{way}: {place}{is_folder} holds no run: there is no {CONFIG}. {there}")


def one_of(**named: str | None) -> str | None:
    """Returns the one path that is given under some names, or None.

    Raises:
      UserError: two different ones are.
    """
    given = {name: path for name, path in named.items() if path is not None}
    if len({Path(path) for path in given.values()}) > 1:
        told = " and ".join(f"{name} {path!r}" for name, path in given.items())
        raise UserError(f"{told} are both given, and mean the same thing; give one of them.")
    return next(iter(given.values()), None)


def config_at(
    place: str, overrides: Mapping[str, str], allow_code: bool = False
) -> ml_collections.ConfigDict:
    """Returns the config of a file, or of a run's directory, its overrides still as text.

    Args:
      place: ``FILE[:ARG]``, or the directory.
      overrides: text by key.
      allow_code: whether a directory's config may name code, which would be imported.

    Raises:
      UserError: it is neither, or names code.
    """
    from jdlopt import config

    texts = {key: config.Override(text) for key, text in overrides.items()}
    path = Path(place)
    if not path.is_dir():
        return config.load(place, texts)
    from jdlopt.data.from_run import CONFIG, TRAIN, is_run

    better = next((path / name for name in CONFIGS_IN if (path / name).is_file()), None)
    if better is not None and not (path / CONFIG).is_file():
        raise UserError(
            f"--config: {place} is no run's directory; its best config is {better}: name that file."
        )
    check_run("--config", place)
    from jdlopt.train.data_record import refuse_preparing
    from jdlopt.train.serve import run_config

    resolved = run_config(place, allow_code)
    kept = resolved["data"].get("fit_on", TRAIN)
    if kept != TRAIN and not is_run(Path(kept)) and is_run(path):
        resolved["data"]["fit_on"] = place  # what it kept of another run lies in its own directory
    found = config.override(resolved, texts)
    if "data.data_dir" not in overrides:
        refuse_preparing(path, config.to_dict(found))
    return found


def is_config_file(place: str) -> bool:
    """Says whether a word is ``FILE.py[:ARG]`` or ``FILE.json``, and the file is there."""
    from jdlopt.config import split_argument

    return Path(split_argument(place)[0]).is_file()


def has_functions(place: str) -> bool:
    """Says whether a config is a Python file, which may have a ``get_space()``."""
    from jdlopt.config import split_argument

    return not (Path(place).is_dir() or split_argument(place)[0].endswith(".json"))


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
    fill(table, rows)
    console().print(table)


def fill(table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Gives a table the columns that rows have, those of numbers on the right, and the rows."""
    for column in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(column, "") for row in rows]
        numeric = all(isinstance(value, int | float) or value in ("", "–") for value in values)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))


def cell(value: object) -> str:
    """Returns a value as a table's cell."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else escaped(str(value))
