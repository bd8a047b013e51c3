"""A bundle: a directory with a model and all that predicting with it needs, checked by hashes.

It is written beside its place and renamed, so that nothing half there is ever taken for one. What
others made is data: opening a bundle runs no code of it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.data.named import by_name, stacked
from jdlopt.errors import UserError, WorkdirError
from jdlopt.export import int8 as int8s
from jdlopt.export import readme, standalone
from jdlopt.export.example import coded_inputs, example_rows, example_tensors
from jdlopt.export.layer_errors import layer_errors
from jdlopt.export.manifest import describe_inputs, describe_outputs
from jdlopt.export.measured import measure
from jdlopt.export.onnx import convert
from jdlopt.export.opened import open_model
from jdlopt.export.program import Program, make_program
from jdlopt.export.standalone.answers import answer
from jdlopt.export.standalone.examples import has_rows
from jdlopt.export.standalone.opening import (
    ANSWER,
    DIGEST,
    FORMAT,
    MANIFEST,
    REQUEST,
    Bundle,
    BundleError,
    InputError,
    open_bundle,
)
from jdlopt.train import serve
from jdlopt.train.experiment import Experiment
from jdlopt.train.log import versions
from jdlopt.train.state import Weights

PREDICT, README = "predict.py", "README.md"
MODEL = "model.onnx"
TOLERANCE = 1e-4
"""How far an answer in float32 may be from that of another machine, relative above 1."""
INT8_TOLERANCE = 0.05
"""That of 8 bits: processors round what they add up in ways of their own."""
LAYERS_LOOKED_AT = 64
"""Examples that tell what 8 bits change of each layer."""
LOOKED_AT = 4096
"""Examples whose columns' quartiles make the example request."""
SAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Model:
    """The model file of a bundle, and what is known of it.

    Attributes:
      content: ONNX, whose inputs are called as the data's, the only one ``input``, and whose
        outputs are ``probabilities``, or of numbers ``outputs`` (and maybe ``spread``).
      precision: of its weights and arithmetic, in words: ``float32``, ``int8``.
      tolerance: how far an answer may be from that of another machine.
      layer_errors: what quantization changes of each layer's output, by its name.
      others: more files of the bundle by name: the same model in other formats.
    """

    content: bytes
    precision: str = "float32"
    tolerance: float = TOLERANCE
    layer_errors: Mapping[str, float] = field(default_factory=dict)
    others: Mapping[str, bytes] = field(default_factory=dict)


def bundle_runs(
    workdirs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    checkpoint: str = "best",
    int8: bool = False,
    allow_code: configs.Allowed = False,
) -> Bundle:
    """Writes a finished run, or several that predict as one, as a bundle with an ONNX model.

    Args:
      workdirs: the run's directory, or those of an ensemble.
      out: the bundle's directory; by default ``bundle`` in the run's.
      checkpoint: ``best`` or ``newest``.
      int8: in 8 bits, for which the run's data must be there.
      allow_code: as in `jdlopt.train.serve.run_config`.

    Raises:
      UserError: there is no finished run, its model can't be written as ONNX, or it predicts a
        class at each position.
    """
    place = Path(workdirs[0]) / "bundle" if out is None else Path(out)
    _refuse_taken(place)
    opened = open_model(workdirs, checkpoint, allow_code)
    narrow = open_model(workdirs, checkpoint, allow_code, in_float32=True, in_integers=int8)
    program = make_program(narrow.experiment, narrow.weights)
    made_from = {"runs": [Path(one).name for one in workdirs], "steps": list(opened.steps)}
    made_from |= {"checkpoint": checkpoint}
    experiment = opened.experiment
    if experiment.spec.positions:
        raise UserError(
            f"--format=bundle: its predict.py decodes one prediction an example; "
            f"{experiment.spec.task} predicts a class at each position. --format=onnx has the "
            "probabilities of all."
        )
    try:
        data = serve.experiment_with_data(workdirs[0], allow_code).data
        experiment = experiment.on(data)
    except UserError as error:  # a bundle needs no data; that it was not measured is said
        if int8:
            raise
        made_from |= {"not_measured": next(iter(str(error).splitlines()), "")}
    if int8:
        model, facts = _in_8_bits(program, narrow.experiment.on(experiment.data))
        made_from |= {"int8": facts}
    else:
        model = Model(convert(program).SerializeToString())
    return write_bundle(place, experiment, opened.weights, model, made_from=made_from)


def _in_8_bits(program: Program, experiment: Experiment) -> tuple[Model, dict[str, Any]]:
    """Returns a program in 8 bits, with what that changes of each layer, and how it was made."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        facts = int8s.write(program, path, experiment)
        content = path.read_bytes()
    seen = by_name(_some_inputs(experiment, LAYERS_LOOKED_AT))
    errors = layer_errors(
        int8s.optimized(convert(program)),
        onnx.load_from_string(content),
        {name: np.asarray(values) for name, values in seen.items()},
    )
    return Model(content, "int8", INT8_TOLERANCE, errors), facts


def write_bundle(
    directory: str | Path,
    experiment: Experiment,
    weights: Weights,
    model: Model,
    *,
    name: str | None = None,
    made_from: Mapping[str, object] | None = None,
) -> Bundle:
    """Writes a bundle and returns it opened; its model is measured where the data are there.

    Args:
      directory: where it will be; nothing may be there.
      experiment: of the run, with its data if they are there.
      weights: what the model file was made of.
      model: the file.
      name: what a server calls the model; by default the data's name.
      made_from: what else is known of where it came from: the run, its step, its own metrics.

    Raises:
      UserError: something is there, it can't be written, or the model can't be put in a bundle.
    """
    place = Path(directory)
    _refuse_taken(place)
    called = SAFE.sub("-", name or experiment.spec.name).strip("-.") or "model"
    beside = place.parent / f".{place.name}.writing"
    try:
        writing.make_folder(place.parent)
        if beside.is_symlink():
            beside.unlink()  # it would lead elsewhere
        shutil.rmtree(beside, ignore_errors=True)  # what a killed process left
        beside.mkdir()
        made = _filled(beside, experiment, weights, model, called, made_from or {})
        writing.settle_all(beside)
        os.replace(beside, place)
        writing.settle(place.parent)
    except OSError as error:
        raise WorkdirError(f"{place}: can't be written: {error.strerror or error}.") from error
    except BundleError as error:
        raise UserError(f"export: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return made._replace(folder=place)


def _refuse_taken(place: Path) -> None:
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise WorkdirError(f"{place}: something is there already; name another directory.")


def _filled(
    folder: Path,
    experiment: Experiment,
    weights: Weights,
    model: Model,
    name: str,
    made_from: Mapping[str, object],
) -> Bundle:
    """Writes the files of a bundle into a folder; the manifest comes last, and once before."""
    import jax

    spec = experiment.spec
    shapes = jax.eval_shape(experiment.predict, weights, _one(experiment))
    found = {"probabilities": shapes.probabilities, "outputs": shapes.outputs}
    found |= {"spread": shapes.spread}
    wanted = ("outputs", "spread") if spec.task == "regression" else ("probabilities",)
    tensors = {one: found[one].shape[1:] for one in wanted if found[one] is not None}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "model": {"file": MODEL, "format": "onnx", "precision": model.precision},
        "inputs": describe_inputs(spec),
        "outputs": describe_outputs(spec, tensors),
        "other_columns": sorted(serve.passed_over(experiment)),
        "id_column": experiment.config.data.id,
        "tolerance": model.tolerance,
        "made_from": {
            "fingerprint": configs.fingerprint(experiment.config),
            "model": experiment.config.model.name,
            **made_from,
        },
        "versions": {**versions(), **_runtime_versions()},
    }
    if model.layer_errors:
        manifest["layer_errors"] = dict(model.layer_errors)
    files = {MODEL: model.content, PREDICT: standalone.source().encode(), **model.others}
    for file, content in files.items():
        _write(folder, file, content)
    _write_manifest(folder, manifest, files)
    opened = open_bundle(folder)
    known: dict[str, np.ndarray] = {}
    if experiment.dataset is not None:
        manifest["measured"] = measure(experiment, weights, opened.run)
        known = coded_inputs(_some_inputs(experiment)) if has_rows(opened) else {}
    request = example_rows(opened, known) if has_rows(opened) else example_tensors(spec)
    try:
        answered = answer(opened, request)
    except InputError as error:
        raise UserError(f"export: the example request has no answer: {error}") from error
    texts = {
        REQUEST: json.dumps(request, indent=1) + "\n",
        ANSWER: json.dumps(answered, indent=1) + "\n",
        README: readme.text(manifest, request, answered),
    }
    for file, text in texts.items():
        files[file] = text.encode()
        _write(folder, file, files[file])
    _write_manifest(folder, manifest, files)
    return open_bundle(folder)


def _one(experiment: Experiment) -> Any:
    import jax

    shapes = {
        name: jax.ShapeDtypeStruct((1, *one.shape), np.dtype(one.dtype))
        for name, one in by_name(experiment.spec.inputs).items()
    }
    return shapes if isinstance(experiment.spec.inputs, Mapping) else next(iter(shapes.values()))


def _some_inputs(experiment: Experiment, most: int = LOOKED_AT) -> Any:
    split = "validation" if experiment.data.sizes.get("validation") else "train"
    records = experiment.data.records(split)
    return stacked([records[place][0] for place in range(min(most, len(records)))])


def _runtime_versions() -> dict[str, str]:
    return {"onnxruntime": importlib.metadata.version("onnxruntime")}


def _write_manifest(folder: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    listed = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in files.items()
    }
    text = json.dumps({**manifest, "files": listed}, indent=1, allow_nan=False) + "\n"
    raw = text.encode()
    _write(folder, MANIFEST, raw)
    _write(folder, DIGEST, f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n".encode())


def _write(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing.aside(path, binary=True) as file:
        file.write(content)
