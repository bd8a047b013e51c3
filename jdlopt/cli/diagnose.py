"""The verb ``diagnose``: what holds a run back, and what to try."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdlopt.cli.show import DONE, console, print_json, print_path, run_of, start
from jdlopt.cli.verbs import DiagnoseFlags

COLOURS = {"serious": "red", "warning": "yellow", "note": "dim", "good": "green"}


def diagnose(flags: DiagnoseFlags) -> int:
    """Diagnoses a run, and writes ``diagnosis.json`` and ``diagnosis.html``."""
    folder = Path(run_of("diagnose", flags))
    speaks = start()
    from jdlopt.evidence import diagnose as evidence
    from jdlopt.report import diagnosis

    started, out = time.perf_counter(), console()

    def say(text: str) -> None:
        if speaks:
            seconds = time.perf_counter() - started
            out.print(f"{seconds:5.0f} s  {text}", style="dim", soft_wrap=True)

    found = evidence.diagnose(
        folder, lr_range=flags.lr_range, allow_code=flags.allow_code, on_progress=say
    )
    page = diagnosis.write_page(folder, found, flags.allow_code)
    if not speaks:
        return DONE
    if flags.json:
        print_json({**found, "page": str(page)})
    else:
        _print(folder, found, page)
    return DONE


def _print(folder: Path, found: Mapping[str, Any], page: Path) -> None:
    from rich.text import Text

    from jdlopt.report.grid import printable

    out = console()
    findings = found["findings"]
    counts = [
        f"{sum(one['level'] == level for one in findings)} {level}"
        for level in COLOURS
        if any(one["level"] == level for one in findings)
    ]
    told = ", ".join(counts) or "nothing was found that holds it back"
    out.print(Text.assemble((str(folder), "bold"), f": {told}"))
    for one in findings:
        colour = COLOURS[one["level"]]
        name = one["name"].replace("_", " ")
        # names of classes and columns come from the data: no control character reaches a terminal
        text, hint = (printable(one[key], 2000) for key in ("text", "suggestion"))
        out.print(Text.assemble("\n", (one["level"], colour), " ", (name, "bold")))
        out.print(f"  {text}")
        if hint:
            out.print(f"  {hint}", style="dim")
        if one["techniques"]:
            out.print(f"  techniques: {', '.join(one['techniques'])}", style="dim")
    for reason in found["unseen"]:
        out.print(f"\n{printable(reason, 2000)}", style="dim")
    out.print("")
    for path, what in ((folder / "diagnosis.json", "the numbers"), (page, "with figures")):
        print_path(out, path, what)
