"""What a trained run is for: evaluating its checkpoints on a split, predicting for new data."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from jdlopt import config as configs
from jdlopt import mesh as meshes
from jdlopt import writing
from jdlopt.data import from_run, preprocess
from jdlopt.data.augment.batch import unchanged, without_mixing
from jdlopt.data.inputs import Inputs, read_inputs
from jdlopt.data.notes import Note
from jdlopt.data.spec import DataSpec
from jdlopt.errors import ConfigError, DataError, UserError, WorkdirError, escaped, listing
from jdlopt.metrics.scores import Value
from jdlopt.tasks import Columns, find_task
from jdlopt.train import checkpoint, data_record, disk, log
from jdlopt.train.compiling import Compiler
from jdlopt.train.components import augment_of
from jdlopt.train.evaluate import Evaluator
from jdlopt.train.experiment import Experiment
from jdlopt.train.predict import MOST_PROBABILITIES, Likeliest, likeliest, predictor
from jdlopt.train.schema import SECTIONS
from jdlopt.train.state import TrainState, Weights
from jdlopt.train.step import averaged_predict_step

OUTPUTS = (".csv", ".npz")
TOP = 5
"""Of very many classes, the likeliest that predictions have."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula begins so."""


class Predictions(NamedTuple):
    """What a model says about new examples.

    Attributes:
      rows: what names each example: a row number or a file.
      values: [n] class indices or predicted values; [n, k] labels (0, 1) or several values.
      labels: [n] class names, or the labels of each in one text; None for regression.
      probabilities: [n, classes]; None for regression and for more than `MOST_PROBABILITIES`
        classes.
      class_names: the columns of ``probabilities``, or of several values.
      columns: the columns of a table of predictions, beside ``row``.
      notes: what was left out, changed or guessed of the inputs.
      likeliest: the `TOP` likeliest of more than `MOST_PROBABILITIES` classes.
    """

    rows: list[str]
    values: np.ndarray
    labels: list[str] | None
    probabilities: Float[np.ndarray, "n classes"] | None
    class_names: tuple[str, ...]
    columns: Columns
    notes: tuple[Note, ...] = ()
    likeliest: Likeliest | None = None


def run_config(workdir: str | Path, allow_code: configs.Allowed = False) -> dict[str, Any]:
    """Returns the resolved config of a run.

    Args:
      workdir: the run's directory.
      allow_code: which dotted paths in it may be imported: all (True), none, or these.

    Raises:
      WorkdirError: the directory holds no run, or its config names code that is not allowed.
    """
    path = Path(workdir) / log.CONFIG
    if not path.is_file():
        raise WorkdirError(
            f"--workdir: {workdir} holds no run: there is no {log.CONFIG}. "
            "Name a directory that `jdlopt train` was given."
        )
    config = log.saved_config(path)
    missing = [section for section in SECTIONS if section not in config]
    if missing:
        raise WorkdirError(
            f"{path}: is not the resolved config of a run: it lacks {listing(missing)}. "
            "Name a directory that `jdlopt train` was given."
        )
    configs.refuse_code(config, path, allow_code)
    return config


def load_weights(experiment: Experiment, workdir: str | Path, which: str) -> tuple[Weights, int]:
    """Returns what a run's checkpoint predicts with, and its step.

    Args:
      experiment: of the run.
      workdir: the run's directory.
      which: ``best``, or ``newest`` (averaged where the config averages).

    Raises:
      WorkdirError: there is no such checkpoint, or it is damaged.
    """
    directory = Path(workdir) / log.CHECKPOINTS
    state = jax.eval_shape(partial(experiment.init, 0))
    if which == "best":
        found = checkpoint.steps(directory, "best")
        if not found:
            raise WorkdirError(
                f"{directory}: holds no best checkpoint yet; try --checkpoint=newest."
            )
        step = found[-1]
        template = checkpoint.best_of(jax.eval_shape(experiment.weights, state))
        folder = checkpoint.place(directory, step, "best")
        try:
            tree = checkpoint.restore(folder, _on_one_device(template))
        except WorkdirError as error:
            raise WorkdirError(f"{error} Try --checkpoint=newest.") from error
        learnt = jax.tree.map(jnp.asarray, experiment.learnt)
        return Weights(**tree, hparams=experiment.hparams, preprocess=learnt), step
    newest, step = load_state(experiment, workdir)
    return experiment.weights(newest), step


def load_state(experiment: Experiment, workdir: str | Path) -> tuple[TrainState, int]:
    """Returns the state of a run's newest checkpoint, and its step.

    Raises:
      WorkdirError: there is no checkpoint, or all are damaged.
    """
    directory = Path(workdir) / log.CHECKPOINTS
    state = jax.eval_shape(partial(experiment.init, 0))
    restored = checkpoint.restore_newest(directory, _on_one_device(checkpoint.saved_shapes(state)))
    if restored is None:
        raise WorkdirError(
            f"{directory}: holds no checkpoint yet; go on with `jdlopt train` first."
        )
    tree, meta = restored
    learnt = jax.tree.map(jnp.asarray, experiment.learnt)
    return checkpoint.unsaved(state.replace(preprocess=learnt), tree), meta["step"]


def _on_one_device(template: PyTree) -> PyTree:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), template
    )


def evaluate_run(
    workdir: str | Path,
    split: str = "validation",
    which: str = "best",
    tta: int = 0,
    allow_code: configs.Allowed = False,
    changed_data: str = "refuse",
) -> dict[str, Any]:
    """Returns ``{"split", "checkpoint", "step", "metrics"}`` of a run's checkpoint on a split.

    Args:
      workdir: the run's directory.
      split: ``train``, ``validation`` or ``test``.
      which: ``best`` or ``newest``.
      tta: how many augmented copies of each example predictions are averaged over, beside the
        example itself.
      allow_code: as in `run_config`.
      changed_data: as in `experiment_with_data`.

    Raises:
      UserError: the directory holds no run, its data are gone or others, or the checkpoint is
        damaged.
    """
    experiment = experiment_with_data(workdir, allow_code, changed_data)
    weights, step = load_weights(experiment, workdir, which)
    found = measure(experiment, weights, split, tta)
    record = {"split": split, "checkpoint": which, "step": step, "tta": tta, "metrics": found}
    return disk.as_json(record)


def measure(experiment: Experiment, weights: Weights, split: str, tta: int = 0) -> dict[str, Value]:
    """Returns ``{"split/metric": value}``, every metric that the task has, over all devices here.

    Args:
      experiment: with the data that are evaluated.
      weights: what predicts.
      split: of the data.
      tta: as in `evaluate_run`.
    """
    mesh = meshes.make_mesh(meshes.MeshFields())  # whatever the run had
    placed = meshes.put(weights, meshes.replicated(mesh))
    measured = with_tta(experiment, tta).measuring(experiment.all_metrics())
    return Evaluator(measured, mesh, Compiler())(split, placed)


def with_tta(experiment: Experiment, draws: int) -> Experiment:
    """Returns the experiment with predictions averaged over augmented copies; 0 leaves it.

    Raises:
      UserError: the run's augmentation changes no single example.
    """
    if not draws:
        return experiment
    config = experiment.config
    made = augment_of(config, experiment.spec, without_mixing(config.data.augment))
    if made is unchanged:
        raise UserError(
            "--tta: the run's data.augment changes no single example, so every copy would be the "
            "same. Leave --tta out."
        )
    return dataclasses.replace(
        experiment,
        components=experiment.components._replace(augment=made),
        predictor=partial(averaged_predict_step, draws=draws),
    )


def save_inputs_record(experiment: Experiment, workdir: Path) -> None:
    """Writes ``inputs.json``: what prediction must know of the data, so that it needs no data."""
    record = {
        "dataset": experiment.spec.to_dict(),
        "preprocess": preprocess.to_dict(experiment.learnt),
    }
    log.write_aside(workdir / log.INPUTS, json.dumps(record) + "\n")


def experiment_with_data(
    workdir: str | Path, allow_code: configs.Allowed = False, changed_data: str = "refuse"
) -> Experiment:
    """Returns the experiment of a run with its data, opened anew.

    Args:
      workdir, allow_code: as in `run_config`.
      changed_data: ``ok`` takes data that are not those of training.

    Raises:
      UserError: the directory holds no run, or its data are gone or others.
    """
    experiment = with_data(run_config(workdir, allow_code), Path(workdir))
    data_record.check(Path(workdir), experiment.data, changed_data)
    return experiment


def with_data(config: Mapping[str, Any], workdir: Path) -> Experiment:
    """Returns the experiment of a run with its data, which are coded and scaled as in its training.

    Args:
      config: the run's.
      workdir: its directory.

    Raises:
      UserError: the data are gone, or would be prepared where the run's config says.
    """
    data_record.refuse_preparing(workdir, config)
    data = config["data"]
    with contextlib.suppress(ConfigError):  # a damaged record: all is learnt once more
        from_run.kept(str(workdir))
        data = {**data, "fit_on": str(workdir)}
    # on the devices that are here now, whatever the run had
    return Experiment.build({**config, "data": data, "mesh": {"data": 1}}, begins=False)


def run_experiment(workdir: str | Path, allow_code: configs.Allowed = False) -> Experiment:
    """Returns the experiment of a run, built from its directory alone, without its data.

    Args:
      workdir, allow_code: as in `run_config`.

    Raises:
      WorkdirError: the directory holds no run, its records are damaged, or they name code that is
        not allowed.
    """
    config = run_config(workdir, allow_code)
    record_path = Path(workdir) / log.INPUTS
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
        spec = DataSpec.from_dict(record["dataset"])
        learnt = preprocess.from_dict(record["preprocess"])
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError
    ) as error:  # fmt: skip
        raise WorkdirError(
            f"{record_path}: can't be read: {error}. It says what the model was trained on; "
            "`jdlopt train` writes it anew when the run goes on."
        ) from error
    configs.refuse_code({"dataset": {"task": spec.task}}, record_path, allow_code)
    # on the devices that are here now, whatever the run had
    return Experiment.build({**config, "mesh": {"data": 1}}, spec, learnt_before=learnt)


def predict_run(
    workdir: str | Path,
    path: str | Path,
    which: str = "best",
    batch_size: int = 256,
    tta: int = 0,
    allow_code: configs.Allowed = False,
    all_classes: bool = False,
) -> Predictions:
    """Returns a run's predictions for a CSV, Parquet or NPZ file or an image folder.

    Args:
      workdir: the run's directory.
      path: the inputs.
      which: ``best`` or ``newest``.
      batch_size: examples in one dispatch.
      tta, allow_code: as in `evaluate_run`.
      all_classes: as in `predict`.

    Raises:
      UserError: the directory holds no finished run, or the file can't be read as its inputs.
    """
    experiment = run_experiment(workdir, allow_code)
    found = read_inputs(path, experiment.spec.inputs)
    if not len(found.ids):
        raise DataError(f"--input: {path} holds no example.")
    weights, _ = load_weights(experiment, workdir, which)
    return predict(experiment, weights, found, batch_size, tta, all_classes)


def predict(
    experiment: Experiment,
    weights: Weights,
    given: Inputs,
    batch_size: int = 256,
    tta: int = 0,
    all_classes: bool = False,
) -> Predictions:
    """Returns predictions with the names of examples, and of classes, labels or values.

    Args:
      experiment: what predicts.
      weights: with which it does.
      given: at least one example.
      batch_size, tta: as in `predict_run`.
      all_classes: give the probability of each class, even of more than `MOST_PROBABILITIES`; else
        those of the `TOP` likeliest, which a note says.
    """
    spec, ids = experiment.spec, given.ids
    task, averaged = find_task(spec.task), with_tta(experiment, tta)
    many = spec.num_classes > MOST_PROBABILITIES and not all_classes
    if many and "classes" in task.shows:
        top = likeliest(averaged, TOP, batch_size)(weights, given.inputs, None)
        return _of_likeliest(top, spec, given)
    found = predictor(averaged, batch_size)(weights, given.inputs, None)
    decoded = task.decode(found.outputs, found.probabilities, spec)
    return Predictions(
        ids,
        decoded.values,
        decoded.labels,
        found.probabilities,
        spec.class_names or spec.target_names,
        task.columns(decoded, found.probabilities, spec),
        given.notes,
    )


def _of_likeliest(top: Likeliest, spec: DataSpec, given: Inputs) -> Predictions:
    """Returns predictions of one of very many classes an example: the likeliest of them."""
    named = [[spec.class_names[one] for one in column] for column in top.classes.T.tolist()]
    columns: Columns = {}
    for place, (names, shares) in enumerate(zip(named, top.probabilities.T, strict=True), start=1):
        ending = "" if place == 1 else f"_{place}"
        columns |= {f"prediction{ending}": names, f"probability{ending}": shares.tolist()}
    note = Note(
        "left out",
        f"the probabilities of all but the {len(named)} likeliest of {spec.num_classes:,} classes",
        len(given.ids),
        "predictions",
        (),
        "--all-classes (all_classes=True) gives all.",
    )
    notes = (*given.notes, note)
    values = top.classes[:, 0]
    return Predictions(
        given.ids, values, named[0], None, spec.class_names, columns, notes, likeliest=top
    )


def as_columns(predictions: Predictions) -> Columns:
    """Returns predictions as named columns."""
    return {"row": predictions.rows, **predictions.columns}


def write_csv(predictions: Predictions, file: IO[str]) -> None:
    """Writes predictions as CSV, a header first.

    Text in it is safe for terminals and spreadsheets: see `jdlopt.errors.escaped`, and an
    apostrophe stands before what a spreadsheet would take for a formula.
    """
    columns = as_columns(predictions)
    writer = csv.writer(file)
    writer.writerow(map(_cell, columns))
    writer.writerows(map(_cell, row) for row in zip(*columns.values(), strict=True))


def _cell(value: Any) -> Any:
    """Returns a cell of a CSV, its text safe."""
    if not isinstance(value, str):
        return value
    text = escaped(value)
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def check_output(path: str | Path) -> None:
    """Says that predictions can't be written to a path, before they are computed.

    Raises:
      UserError: the path is a folder, lies in none, or ends in neither ``.csv`` nor ``.npz``.
    """
    path = Path(path)
    if path.suffix not in OUTPUTS:
        raise UserError(f"--output: {path}: expected a file ending in {' or '.join(OUTPUTS)}.")
    if path.is_dir():
        raise UserError(f"--output: {path} is a folder; name a file.")
    if not path.parent.is_dir():
        raise UserError(f"--output: {path} can't be written: there is no folder {path.parent}.")


def write_predictions(predictions: Predictions, path: str | Path) -> None:
    """Writes predictions to a ``.csv`` or ``.npz`` file.

    Raises:
      UserError: another suffix, or the file can't be written.
    """
    check_output(path)
    path = Path(path)
    try:
        with writing.aside(path, binary=path.suffix == ".npz") as file:
            if path.suffix == ".csv":
                write_csv(predictions, file)
            else:
                np.savez(file, **_as_arrays(predictions))
    except OSError as error:
        raise UserError(f"--output: {path} can't be written: {error.strerror or error}.") from error


def _as_arrays(predictions: Predictions) -> dict[str, Any]:
    columns: dict[str, Any] = {"row": np.array(predictions.rows), "prediction": predictions.values}
    if predictions.probabilities is not None:
        columns["probabilities"] = predictions.probabilities
    if predictions.likeliest is not None:
        columns["likeliest"] = predictions.likeliest.classes
        columns["probabilities_of_likeliest"] = predictions.likeliest.probabilities
    if predictions.class_names:
        of_values = predictions.labels is None
        columns["target_names" if of_values else "class_names"] = np.array(predictions.class_names)
    return columns
