"""The verbs of a dataset: ``data list``, ``describe``, ``check``, ``show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdlopt import writing
from jdlopt.cli.data_description import print_description
from jdlopt.cli.show import (
    DONE,
    config_at,
    console,
    load,
    place_of,
    print_json,
    print_path,
    print_rows,
)
from jdlopt.cli.verbs import CheckFlags, DescribeFlags, ListFlags, ShowFlags
from jdlopt.data import from_run
from jdlopt.errors import UserError

if TYPE_CHECKING:
    from jdlopt.data.fields import DataFields

COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}


def listed(flags: ListFlags) -> int:
    """Lists the datasets that are here."""
    from jdlopt.data.describe import list_datasets

    rows = list_datasets(flags.data_dir)
    if flags.json:
        print_json({"datasets": rows})
        return DONE
    shown = [
        {
            "data.source": row["name"],
            "task": row["task"] or "",
            "examples": " + ".join(f"{size:,} {split}" for split, size in row["sizes"].items()),
            "what it is": row["description"].partition("\n")[0],
        }
        for row in rows
    ]
    print_rows(shown, "datasets")
    return DONE


def described(flags: DescribeFlags) -> int:
    """Describes a config's dataset."""
    from jdlopt.data.describe import describe
    from jdlopt.data.source import open_dataset
    from jdlopt.train import split_record
    from jdlopt.train.disk import as_json
    from jdlopt.train.schema import resolve_data

    section = resolve_data(load(flags))
    description = describe(open_dataset(section, allow_missing=True))
    others = any(key.startswith("data.") for key in flags.overrides)
    splits = None if others else split_record.find(Path(place_of(flags)))  # of a run
    if flags.json:
        told = {"splits_file": None if splits is None else str(splits)}
        print_json(as_json({**description, **told}))
        return DONE
    print_description(description, flags.all)
    if splits is not None:
        print_path(console(), splits, "which rows or files are in which split")
    return DONE


def checked(flags: CheckFlags) -> int:
    """Looks for problems in a dataset, and says what to do about each."""
    from jdlopt.data.check import check_source

    section = _section(flags)
    check = check_source(section, with_test=not flags.without_test)
    path = None
    if flags.workdir is not None:
        from jdlopt.report import data

        path = data.write_page(check, Path(flags.workdir), flags.config)
    if flags.json:
        from jdlopt.train.disk import as_json

        print_json(as_json({**check.as_dict(), "page": None if path is None else str(path)}))
        return DONE
    _print_check(check)
    if path is not None:
        print_path(console(), path, "every finding, with figures")
    return DONE


def _section(flags: CheckFlags) -> DataFields:
    """Returns the ``data`` section that the flags mean: a config's, or of one file."""
    from jdlopt.train.schema import resolve_data

    is_run = flags.file is not None and from_run.is_run(Path(flags.file))
    if (flags.file is None) == (flags.config is None):
        both = "both are given" if flags.file is not None else "neither is given"
        raise UserError(
            f"data check: takes a FILE or --config=CONFIG (a RUN stands for either); {both}."
        )
    if flags.config is not None or is_run:
        for name in ("target", "ignore", "task"):
            if getattr(flags, name):
                raise UserError(
                    f"--{name}: is for a FILE; with a config write --config.data.{name}=…"
                )
        place = flags.config or flags.file or ""
        return resolve_data(config_at(place, flags.overrides, flags.allow_code))
    if flags.overrides:
        raise UserError(f"--config.{next(iter(flags.overrides))}: there is no --config to change.")
    given = {
        "source": flags.file,
        "target": flags.target,
        "ignore": flags.ignore,
        "task": flags.task or "auto",
    }
    return resolve_data({"data": given})


def _print_check(check: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from jdlopt.report.grid import printable

    sizes = ", ".join(f"{count:,} {name}" for name, count in check.sizes.items())
    out = console()
    title = f"{printable(check.source)}: {sizes}" if sizes else printable(check.source)
    if not check.findings:
        out.print(f"{title}. Nothing was found that needs attention.")
    else:
        table = Table(title=title, show_lines=True)
        for name in ("problem", "where", "how much", "what to do"):
            table.add_column(name, overflow="fold")
        for finding in check.findings:
            what = f"{finding.advice}\n{finding.config}".strip()
            # words of the data itself: no control character of theirs reaches the terminal
            cells = [
                finding.problem,
                printable(finding.where, 100),
                f"{finding.count:,} of {finding.of:,} {finding.unit}",
                "\n".join(printable(line, 400) for line in what.splitlines()),
            ]
            if finding.kind in ("opening", "target"):
                lines = finding.text.splitlines()
                cells[1] = "\n".join(printable(line, 300) for line in lines)
            colour = COLOURS[finding.severity]
            problem = Text.assemble((finding.severity, colour), f": {cells[0]}")
            table.add_row(problem, *cells[1:])
        out.print(table)
        lines = dict.fromkeys(
            line for finding in check.findings for line in (finding.config or "").splitlines()
        )
        if lines:
            out.print("Lines for the config, each in one piece:")
        for line in lines:
            out.print(f"  {printable(line, 2000)}", soft_wrap=True)
    for sentence in check.looked_at:
        out.print(sentence, style="dim")


def shown(flags: ShowFlags) -> int:
    """Draws training examples raw, preprocessed and augmented."""
    from jdlopt.report import grid, samples
    from jdlopt.train.schema import resolve_data

    path = Path(flags.output)
    if path.suffix.lower() != ".png":
        raise UserError(f"--output: {flags.output!r} must end in .png.")
    if not path.parent.is_dir() or path.is_dir():
        what = "is a folder" if path.is_dir() else "there is no such folder to write it in"
        raise UserError(f"--output: {flags.output}: {what}.")
    taken = samples.take(resolve_data(load(flags)), everything=flags.all, seed=flags.seed)
    with writing.aside(path, binary=True) as file:
        file.write(grid.png(taken, flags.examples))
    rows = [
        {
            **({"input": one.input} if len(taken) > 1 else {}),
            "column": column.label,
            "mean absolute change": "–" if column.change is None else column.change,
        }
        for one in taken
        for column in one.columns
    ]
    if flags.json:
        inputs = [
            {"input": one.input, "columns": [_as_row(column) for column in one.columns]}
            for one in taken
        ]
        print_json({"output": str(path), "inputs": inputs})
        return DONE
    print_rows(rows, f"{len(taken[0].labels):,} training examples")
    console().print(str(path), soft_wrap=True)
    return DONE


def _as_row(column: Any) -> dict[str, object]:
    return {"label": column.label, "strength": column.strength, "change": column.change}
