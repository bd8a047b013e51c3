"""The verb ``diagnose``: what holds a run back, and what to try."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdlopt.cli.show import DONE, console, print_json, start
from jdlopt.cli.verbs import DiagnoseFlags
from jdlopt.errors import UserError

COLOURS = {"serious": "red", "warning": "yellow", "note": "dim", "good": "green"}


def diagnose(flags: DiagnoseFlags) -> int:
    """Diagnoses a run, and writes ``diagnosis.json`` and ``diagnosis.html``."""
    if (flags.run_directory is None) == (flags.workdir is None):
        both = "both are given" if flags.workdir else "neither is given"
        raise UserError(f"diagnose: takes a WORKDIR or --workdir=DIR; {both}.")
    folder = Path(flags.run_directory or flags.workdir or "")
    speaks = start()
    from jdlopt.evidence import diagnose as evidence
    from jdlopt.report import diagnosis

    found = evidence.diagnose(folder, lr_range=flags.lr_range)
    page = diagnosis.write_page(folder, found)
    if not speaks:
        return DONE
    if flags.json:
        print_json({**found, "page": str(page)})
    else:
        _print(folder, found, page)
    return DONE


def _print(folder: Path, found: Mapping[str, Any], page: Path) -> None:
    from rich.markup import escape

    from jdlopt.report.grid import printable

    out = console()
    findings = found["findings"]
    counts = [
        f"{sum(one['level'] == level for one in findings)} {level}"
        for level in COLOURS
        if any(one["level"] == level for one in findings)
    ]
    told = ", ".join(counts) or "nothing was found that holds it back"
    out.print(f"[bold]{escape(str(folder))}[/bold]: {told}", highlight=False)
    for one in findings:
        colour = COLOURS[one["level"]]
        name = one["name"].replace("_", " ")
        # names of classes and columns come from the data: no control character reaches a terminal
        text, hint = (escape(printable(one[key], 2000)) for key in ("text", "suggestion"))
        out.print(f"\n[{colour}]{one['level']}[/{colour}] [bold]{name}[/bold]", highlight=False)
        out.print(f"  {text}", highlight=False)
        if hint:
            out.print(f"  [dim]{hint}[/dim]", highlight=False)
        if one["techniques"]:
            out.print(f"  [dim]techniques: {', '.join(one['techniques'])}[/dim]", highlight=False)
    for reason in found["unseen"]:
        out.print(f"\n[dim]{escape(printable(reason, 2000))}[/dim]", highlight=False)
    out.print("")
    for path, what in ((folder / "diagnosis.json", "the numbers"), (page, "with figures")):
        out.print(f"  {escape(str(path))}  [dim]{what}[/dim]", highlight=False, soft_wrap=True)
