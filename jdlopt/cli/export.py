"""The verb ``export``: a run's model as a file for another runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdlopt.cli.predict import runs_of_flags
from jdlopt.cli.show import DONE, console, number, print_json, print_path, print_rows, start
from jdlopt.cli.verbs import ExportFlags


def export(flags: ExportFlags) -> int:
    """Writes a run's model, or the mean of several, in another format."""
    start()
    from jdlopt.export.formats import BUNDLE, SAFETENSORS, export_run, find_format

    if flags.format == BUNDLE:
        return _bundle(flags)
    if flags.format != SAFETENSORS:
        find_format(flags.format)
    record = export_run(
        runs_of_flags("export", flags),
        flags.format,
        flags.out,
        checkpoint=flags.checkpoint,
        int8=flags.int8,
        allow_code=flags.allow_code,
    )
    if flags.json:
        print_json(record)
    else:
        _print(record)
    return DONE


def _print(record: Mapping[str, Any]) -> None:
    out = console()
    if "tensors" in record:
        told = f"{record['tensors']} tensors in the names of {record['names']}"
        print_path(out, Path(record["file"]), f"{record['bytes']:,} bytes, {told}")
        if record["opens"]:
            out.print(f"  transformers.{record['opens']} opens it", soft_wrap=True)
        else:
            out.print(f"  transformers can't open it. {record['why_not']}.", soft_wrap=True)
        return
    for one in record["inputs"]:
        shape = "×".join(["n", *map(str, one["shape"])])
        out.print(f"  takes  {one['name']}  {one['dtype']} {shape}", soft_wrap=True)
    out.print(f"  gives  {', '.join(record['outputs'])}", soft_wrap=True)
    path, size = Path(record["file"]), f"{record['bytes']:,} bytes"
    if "int8" not in record:
        away = f"{record['relative_error']:.1g} of the largest output away from the model"
        print_path(out, path, f"{size}, {away}")
        return
    found = record["int8"]
    rows = [
        {
            "way": one["name"] + (" (kept)" if one["name"] == found["kept"] else ""),
            "score": number(one["score"]),
            "ms a batch of 32": round(one["milliseconds"], 3),
            "bytes": one["bytes"],
        }
        for one in (found["float"], *found["ways"])
    ]
    print_rows(rows, f"on {found['judged_on']:,} {found['judged_split']} examples")
    print_path(out, path, size)


def _bundle(flags: ExportFlags) -> int:
    from jdlopt.export.bundle import bundle_runs

    runs = runs_of_flags("export", flags)
    made = bundle_runs(
        runs,
        flags.out,
        checkpoint=flags.checkpoint,
        int8=flags.int8,
        allow_code=flags.allow_code,
    )
    found = made.manifest.get("measured", {})
    if flags.json:
        print_json({"format": flags.format, "file": str(made.folder), "measured": found})
        return DONE
    out = console()
    for split, one in found.items():
        told = f"{one['same']:.2%} of {one['examples']:,} predictions are the run's"
        out.print(f"  {split}  {told}", soft_wrap=True)
    if not found:
        out.print("  not measured: the run's data are not there", soft_wrap=True)
    print_path(out, made.folder, f"serve it with `jdlopt serve --bundle={made.folder}`")
    return DONE
