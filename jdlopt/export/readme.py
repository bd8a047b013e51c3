"""The README of a bundle: what the model predicts, how good it is, and how it is called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jdlopt.export.standalone.opening import MANIFEST

MOST_NAMED = 30
"""Columns and classes that are named; the manifest has all."""
TEXT = """\
# {name}

A model for {task}{classes}, in ONNX ({precision}). It was made by jdlopt {version} of a run with
fingerprint `{fingerprint}`.

## Inputs

{inputs}

## How good it is

{measured}

## Predict

`predict.py` needs Python 3.10 or later, `onnxruntime` and `numpy`, nothing else:

    pip install onnxruntime numpy
    python predict.py --check          # this machine's answer to the example is as it should be
    python predict.py {file}

With jdlopt (`pip install 'jdlopt[serve]'`) the same predictions, or a server:

    jdlopt predict --bundle=. --input={file}
    jdlopt serve --bundle=. --port=8000
    curl -s http://127.0.0.1:8000{path} -d @example_request.json

The request in `example_request.json`, which is made up, begins

{request}

and its answer, in `example_answer.json`, begins

{answer}

`manifest.json` has the SHA-256 of every file, and `manifest.sha256` that of the manifest. Whatever
opens the bundle compares them first; a file that has changed is refused.
"""


def text(manifest: Mapping[str, Any], request: object, answer: object) -> str:
    """Returns the README of a bundle.

    Args:
      manifest: the bundle's, before its files are listed.
      request, answer: the example.
    """
    outputs = manifest["outputs"]
    rows = isinstance(request, Mapping) and "rows" in request
    path = "/predict" if rows else f"/v2/models/{manifest['name']}/infer"
    return TEXT.format(
        name=manifest["name"],
        task=outputs["task"],
        classes=f" ({_listed(outputs['classes'])})" if outputs["classes"] else "",
        precision=manifest["model"]["precision"],
        version=manifest["versions"].get("jdlopt", ""),
        fingerprint=manifest["made_from"]["fingerprint"],
        inputs="\n".join(map(_input, manifest["inputs"])),
        measured=_measured(manifest.get("measured")),
        file="INPUT.csv" if rows else "INPUT.npz",
        path=path,
        request=_shown(request),
        answer=_shown(answer),
    )


def _listed(names: list[str]) -> str:
    rest = len(names) - MOST_NAMED
    return ", ".join(map(_plain, names[:MOST_NAMED])) + (f" and {rest} more" if rest > 0 else "")


def _plain(name: str) -> str:
    return " ".join(str(name).replace("`", "'").replace("|", "/").split())


def _input(one: Mapping[str, Any]) -> str:
    what = f"`{_plain(one['name'])}`: {one['datatype']} [n, {', '.join(map(str, one['shape']))}]"
    if one["missing"] == "fill":
        what += ", values may be missing"
    columns = one.get("columns")
    if columns is None:
        return f"- {what}"
    lines = [f"- {what}, of the columns"]
    for column in columns[:MOST_NAMED]:
        if column["type"] == "number":
            unit = f" in {_plain(column['unit'])}" if column["unit"] else ""
            lines.append(f"  - `{_plain(column['name'])}`: a number{unit}")
        else:
            lines.append(f"  - `{_plain(column['name'])}`: one of {_listed(column['categories'])}")
    if len(columns) > MOST_NAMED:
        lines.append(f"  - and {len(columns) - MOST_NAMED} more, see {MANIFEST}")
    return "\n".join(lines)


def _measured(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "It was not measured: the run's data were not there when the bundle was made."
    lines = ["| split | metric | this file, in onnxruntime | the run |", "|---|---|---|---|"]
    for split, one in found.items():
        for name, values in one["metrics"].items():
            bundle, run = (_number(values[which]) for which in ("bundle", "run"))
            lines.append(f"| {split} ({one['examples']:,}) | {name} | {bundle} | {run} |")
    told = [
        f"On {split}, {one['same']:.2%} of the predictions are the run's; a number differs by at "
        f"most {one['largest_difference']:.2g}."
        for split, one in found.items()
    ]
    return "\n".join([*lines, "", *told])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"


def _shown(value: object) -> str:
    lines = json.dumps(value, indent=1).splitlines()
    shown = lines[:16] + (["…"] if len(lines) > 16 else [])
    return "\n".join(f"    {line}" for line in shown)
