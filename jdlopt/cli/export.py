"""The verb ``export``: a run's model as a file for another runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdlopt.cli.predict import runs_of_flags
from jdlopt.cli.show import DONE, console, print_json, print_path, start
from jdlopt.cli.verbs import ExportFlags


def export(flags: ExportFlags) -> int:
    """Writes a run's model, or the mean of several, in another format."""
    start()
    from jdlopt.export.formats import export_run, find_format

    find_format(flags.format)
    record = export_run(
        runs_of_flags("export", flags),
        flags.format,
        flags.out,
        checkpoint=flags.checkpoint,
        allow_code=flags.allow_code,
    )
    if flags.json:
        print_json(record)
    else:
        _print(record)
    return DONE


def _print(record: Mapping[str, Any]) -> None:
    out = console()
    for one in record["inputs"]:
        shape = "×".join(["n", *map(str, one["shape"])])
        out.print(f"  takes  {one['name']}  {one['dtype']} {shape}", soft_wrap=True)
    out.print(f"  gives  {', '.join(record['outputs'])}", soft_wrap=True)
    away = f"{record['relative_error']:.1g} of the largest output away from the model"
    print_path(out, Path(record["file"]), f"{record['bytes']:,} bytes, {away}")
