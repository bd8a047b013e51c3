"""`FORMATS`: what a run's model may be written as, and the one function that does it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.data.spec import InputSpec
from jdlopt.errors import UserError, WorkdirError, listing, nearest
from jdlopt.export import int8 as int8s
from jdlopt.export import litert, onnx, saved_model, stablehlo, weights
from jdlopt.export.agreement import BATCHES, Loaded, agreement, examples
from jdlopt.export.opened import Opened, open_model
from jdlopt.export.program import Program, make_program
from jdlopt.train import disk, serve
from jdlopt.train.experiment import Experiment

TOLERANCE = 1e-4
"""A file whose outputs are further from the model's than this share of the largest is refused."""


SAFETENSORS = "safetensors"
"""The format that has weights alone, and what its folder is called."""
INT8 = "model.int8.onnx"
"""What an ONNX file in 8 bits is called."""


class Format(NamedTuple):
    """One format.

    Attributes:
      file: what it is called in the directory.
      write: ``(program, path) → facts``.
      load: ``path → `` the file in its runtime.
      in_float32: whether its runtimes compute in nothing narrower.
      summary: what reads it.
    """

    file: str
    write: Callable[[Program, Path], dict[str, Any]]
    load: Callable[[Path], Loaded]
    in_float32: bool
    summary: str


FORMATS: dict[str, Format] = {
    "onnx": Format("model.onnx", onnx.write, onnx.load, True, "ONNX Runtime, TensorRT, …"),
    "stablehlo": Format("model.stablehlo", stablehlo.write, stablehlo.load, False, "JAX, XLA"),
    "litert": Format("model.tflite", litert.write, litert.load, True, "LiteRT (TensorFlow Lite)"),
    "saved_model": Format(
        "saved_model", saved_model.write, saved_model.load, False, "TensorFlow, TensorFlow Serving"
    ),
}
"""Format → how it is written."""
BUNDLE = "bundle"
"""No file but a directory with one, and all that predicting takes: `jdlopt.export.bundle`."""


def export_run(
    workdirs: Sequence[str | Path],
    format: str,
    out: str | Path | None = None,
    *,
    checkpoint: str = "best",
    int8: bool = False,
    allow_code: configs.Allowed = False,
) -> dict[str, Any]:
    """Writes a finished run's model, or the mean of several, as a file of another format.

    What the file computes is `jdlopt.export.program.make_program`. Once written it is loaded in its
    runtime and asked for made-up examples in batches of several sizes.

    Args:
      workdirs: the run's directory, or those of an ensemble.
      format: a key of `FORMATS`.
      out: the directory that it is written to; by default ``export`` in the run's.
      checkpoint: ``best`` or ``newest``.
      int8: of ``onnx``; in 8 bits, for which the run's data must be there.
      allow_code: as in `jdlopt.train.serve.run_config`.

    Returns:
      ``format``, ``file``, ``bytes``; ``inputs`` and ``outputs``, see `described`;
      ``relative_error`` and ``same_classes``, see `jdlopt.export.agreement.Agreement`; or of 8 bits
      ``int8``, see `jdlopt.export.int8.write`; the ``checkpoint`` and its ``steps``; and the facts
      of the format.

    Raises:
      UserError: there is no such format, no finished run, a library is missing, or the model can't
        be written so.
    """
    if format == SAFETENSORS and not int8:
        return _weights_alone(open_model(workdirs, checkpoint, allow_code), checkpoint, out)
    found = find_format(format)
    if int8 and format != "onnx":
        raise UserError(f"--int8: is for --format=onnx; {format} has no 8 bits here.")
    opened = open_model(
        workdirs, checkpoint, allow_code, in_float32=found.in_float32, in_integers=int8
    )
    program = make_program(opened.experiment, opened.weights)
    path = _directory(opened, out) / (INT8 if int8 else found.file)
    try:
        facts = (
            {"int8": int8s.write(program, path, _with_data(opened, allow_code))}
            if int8
            else found.write(program, path)
        )
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {disk.reason(path, error)}.") from error
    if not int8:
        given = examples(opened.experiment.spec, max(BATCHES))
        same = agreement(program, found.load(path), given)
        if same.relative_error > TOLERANCE:
            _remove(path)
            raise UserError(
                f"--format={format}: the file said other things than the model: its outputs are up "
                f"to {same.relative_error:.2g} of the largest away. It is not kept."
            )
        facts |= same._asdict()
    return {
        "format": format,
        "file": str(path),
        "bytes": _size(path),
        "checkpoint": checkpoint,
        "steps": list(opened.steps),
        **described(opened, program),
        **facts,
    }


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.stat().st_size for one in files if one.is_file())


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _weights_alone(opened: Opened, checkpoint: str, out: str | Path | None) -> dict[str, Any]:
    """Writes the weights of one run; the facts are those of `export_run` that they have."""
    if len(opened.workdirs) > 1:
        raise UserError(f"--ensemble: {SAFETENSORS} has the weights of one run; export each alone.")
    folder = _directory(opened, opened.workdirs[0] / "export" if out is None else out)
    folder /= SAFETENSORS
    try:
        writing.make_folder(folder)
        facts = weights.write(opened.experiment, opened.weights, folder)
    except OSError as error:
        raise WorkdirError(f"{folder}: can't be written: {disk.reason(folder, error)}.") from error
    said = {"checkpoint": checkpoint, "steps": list(opened.steps)}
    return {"format": SAFETENSORS, "file": str(folder), "bytes": _size(folder), **said, **facts}


def _with_data(opened: Opened, allow_code: configs.Allowed) -> Experiment:
    """Returns the experiment with the data of its (first) run, which must be those of training."""
    first = serve.experiment_with_data(opened.workdirs[0], allow_code)
    return opened.experiment.on(first.data)


def find_format(name: str) -> Format:
    """Returns a format by its name.

    Raises:
      UserError: there is no such format.
    """
    if name not in FORMATS:
        known = (*FORMATS, SAFETENSORS, BUNDLE)
        raise UserError(
            f"--format: {name!r} is unknown.{nearest(name, known)} Known: {listing(known)}."
        )
    return FORMATS[name]


def _directory(opened: Opened, out: str | Path | None) -> Path:
    """Returns where files go, which is made if it is not there.

    Raises:
      WorkdirError: it can't be made.
    """
    place = opened.workdirs[0] / "export" if out is None else Path(out)
    try:
        writing.make_folder(place)
    except OSError as error:
        raise WorkdirError(f"{place}: can't be written: {disk.reason(place, error)}.") from error
    return place


def described(opened: Opened, program: Program) -> dict[str, Any]:
    """Returns what a caller of a file must know, JSON-able.

    Returns:
      ``inputs``: of each its ``name``, ``shape`` of an example and ``dtype``; of a table also the
      ``columns``, of each the ``categories`` whose codes it holds (1 is the first, 0 any other) and
      the ``offset`` that is taken off it first; of a text ``tokens``, what its ids are.
      ``outputs``: the names. ``task``, ``classes``, ``targets``, as the data have them.
    """
    spec = opened.experiment.spec
    inputs = [
        {"name": name, "shape": list(one.shape), "dtype": one.dtype, **_contents(spec.named[name])}
        for name, one in program.inputs.items()
    ]
    return {
        "inputs": inputs,
        "outputs": list(program.outputs),
        "task": spec.task,
        "classes": list(spec.class_names),
        "targets": list(spec.target_names),
    }


def _contents(spec: InputSpec) -> dict[str, Any]:
    if spec.text is not None:
        return {"tokens": "ids of the run's tokenizer, 0 is padding", "vocabulary": spec.text.size}
    if spec.sample_rate is not None:
        return {"sample_rate": spec.sample_rate}
    if spec.feature_names is None:
        return {}
    columns: list[dict[str, Any]] = []
    for index, name in enumerate(spec.feature_names):
        column: dict[str, Any] = {"name": name}
        if name in spec.categories:
            column["categories"] = list(spec.categories[name])
        elif spec.offsets and spec.offsets[index]:
            column["offset"] = spec.offsets[index]
        columns.append(column)
    return {"columns": columns, "missing_values": spec.missing}
