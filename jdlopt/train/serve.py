"""What a trained run is for: evaluating its checkpoints on a split, predicting for new data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jdlopt import config as configs
from jdlopt import mesh as meshes
from jdlopt.data import from_run, labelled, preprocess
from jdlopt.data.augment.batch import unchanged, without_mixing
from jdlopt.data.decision import Threshold
from jdlopt.data.inputs import Inputs, read_inputs
from jdlopt.data.masks import images_in
from jdlopt.data.spec import DataSpec
from jdlopt.data.transcript_coding import TASK as TRANSCRIPTION
from jdlopt.errors import ConfigError, DataError, UserError, WorkdirError, listing
from jdlopt.metrics.scores import Value
from jdlopt.tasks import TASKS, find_task
from jdlopt.train import checkpoint, continuing, data_record, disk, log
from jdlopt.train.compiling import Compiler
from jdlopt.train.components import augment_of
from jdlopt.train.continuation import Continuation
from jdlopt.train.evaluate import Evaluator
from jdlopt.train.experiment import Experiment
from jdlopt.train.predict import MOST_PROBABILITIES, TOP, likeliest, predictor
from jdlopt.train.predictions import (
    Predictions,
    of_likeliest,
    of_masks,
    predictions_of,
    with_columns,
)
from jdlopt.train.schema import SECTIONS
from jdlopt.train.state import TrainState, Weights
from jdlopt.train.step import averaged_predict_step


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
            f"{workdir} holds no run: there is no {log.CONFIG}. Name a directory that "
            "`jdlopt train` was given."
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


def predicts_masks(workdir: str | Path) -> bool:
    """Returns whether a run's model predicts masks, as far as its record of the data says so."""
    try:
        saved = json.loads((Path(workdir) / log.INPUTS).read_text(encoding="utf-8"))
        return bool("masks" in TASKS[saved["dataset"]["task"]].shows)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def evaluate_run(
    workdir: str | Path,
    split: str = "validation",
    which: str = "best",
    tta: int = 0,
    allow_code: configs.Allowed = False,
    changed_data: str = "refuse",
    positive: object = None,
    threshold: Threshold = None,
    beam_width: int | None = None,
    length_penalty: float | None = None,
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
      positive, threshold, beam_width, length_penalty: as in `deciding`.

    Raises:
      UserError: the directory holds no run, its data are gone or others, or the checkpoint is
        damaged.
    """
    experiment = experiment_with_data(workdir, allow_code, changed_data)
    experiment = deciding(experiment, positive, threshold, beam_width, length_penalty, True)
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


def deciding(
    experiment: Experiment,
    positive: object,
    threshold: Threshold,
    beam_width: int | None = None,
    length_penalty: float | None = None,
    measured: bool = False,
) -> Experiment:
    """Returns the experiment with another way from outputs to predictions; None leaves its own.

    Args:
      experiment: of a run.
      positive: the positive class of two, by its name.
      threshold: see `jdlopt.data.decision.Decision`.
      beam_width, length_penalty: how texts are written, as in `jdlopt.models.beam.search`; of
        a transcription the first alone, as ``data.beam_width``.
      measured: metrics are asked for, and no predictions.

    Raises:
      DataError: there is no such class, or nothing to decide.
      UserError: no texts are written, or metrics don't depend on how.
    """
    if experiment.spec.task == TRANSCRIPTION and beam_width is not None:
        if measured:
            raise UserError(
                f"--beam-width: the metrics of a {TRANSCRIPTION} run are of the likeliest class of "
                "each step, without a beam. Leave it out; `jdlopt predict` takes it."
            )
        spec = dataclasses.replace(experiment.spec, beam_width=beam_width)
        experiment, beam_width = dataclasses.replace(experiment, spec=spec), None
    asked = {"width": beam_width, "length_penalty": length_penalty}
    asked = {key: value for key, value in asked.items() if value is not None}
    if asked and experiment.components.teacher_forcing is None:
        raise UserError(
            "--beam-width and --length-penalty are about texts that are written token by token; "
            f"this is a {experiment.spec.task} run. Leave them out."
        )
    if asked:
        predictor = partial(experiment.predictor, **asked)
        experiment = dataclasses.replace(experiment, predictor=predictor)
    if positive is None and threshold is None:
        return experiment
    return dataclasses.replace(experiment, spec=experiment.spec.deciding(positive, threshold))


def with_tta(experiment: Experiment, draws: int) -> Experiment:
    """Returns the experiment with predictions averaged over augmented copies; 0 leaves it.

    Raises:
      UserError: the run's augmentation changes no single example, or moves what is predicted.
    """
    if not draws:
        return experiment
    config, spec = experiment.config, experiment.spec
    if spec.positions:
        raise UserError(
            f"--tta: {spec.task} predicts a class at each position, which an augmented copy has "
            "elsewhere. Leave --tta out."
        )
    made = augment_of(config, spec, without_mixing(config.data.augment))
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
    workdir: str | Path,
    allow_code: configs.Allowed = False,
    changed_data: str = "refuse",
    trains: bool = False,
) -> Experiment:
    """Returns the experiment of a run with its data, opened anew.

    Args:
      workdir, allow_code: as in `run_config`.
      changed_data: ``ok`` takes data that are not those of training.
      trains: as in `with_data`.

    Raises:
      UserError: the directory holds no run, or its data are gone or others.
    """
    experiment = with_data(run_config(workdir, allow_code), Path(workdir), trains)
    data_record.check(Path(workdir), experiment.data, changed_data)
    return experiment


def with_data(config: Mapping[str, Any], workdir: Path, trains: bool = False) -> Experiment:
    """Returns the experiment of a run with its data, which are coded and scaled as in its training.

    Args:
      config: the run's.
      workdir: its directory.
      trains: steps of it are to be made, so on its own mesh, and with the runs that it learns from.

    Raises:
      UserError: the data are gone, or would be prepared where the run's config says.
    """
    data_record.refuse_preparing(workdir, config)
    data = config["data"]
    with contextlib.suppress(ConfigError):  # a damaged record: all is learnt once more
        from_run.kept(str(workdir))
        data = {**data, "fit_on": str(workdir)}
    # on the devices that are here now, whatever the run had
    mesh = config["mesh"] if trains else {"data": 1}
    return Experiment.build(
        {**config, "data": data, "mesh": mesh}, begins=False, learns=trains or None
    )


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
    experiment = Experiment.build({**config, "mesh": {"data": 1}}, spec, learnt_before=learnt)
    try:
        _ = experiment.model_inputs  # traces what preprocessing does with what it learnt
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkdirError(
            f"{record_path}: what preprocessing learnt is not what its config needs "
            f"({type(error).__name__}: {str(error)[:200]}): it is damaged, or was saved by another "
            "version of jdlopt. `jdlopt train` with the run's config writes it anew, from the data."
        ) from error
    return experiment


def predict_run(
    workdir: str | Path,
    path: str | Path,
    which: str = "best",
    batch_size: int = 256,
    tta: int = 0,
    allow_code: configs.Allowed = False,
    all_classes: bool = False,
    with_inputs: bool = False,
    positive: object = None,
    threshold: Threshold = None,
    beam_width: int | None = None,
    length_penalty: float | None = None,
    continuation: Continuation | None = None,
) -> Predictions:
    """Returns a run's predictions for a CSV, Parquet or NPZ file or an image folder.

    Args:
      workdir: the run's directory.
      path: the inputs.
      which: ``best`` or ``newest``.
      batch_size: examples in one dispatch.
      tta, allow_code: as in `evaluate_run`.
      all_classes: as in `predict`.
      with_inputs: whether the columns of the inputs, or their files, stand beside the predictions.
      positive, threshold, beam_width, length_penalty: as in `deciding`.
      continuation: as in `predict`.

    Raises:
      UserError: the directory holds no finished run, or the file can't be read as its inputs.
    """
    experiment = run_experiment(workdir, allow_code)
    experiment = deciding(experiment, positive, threshold, beam_width, length_penalty)
    found = read_for(experiment, path)
    weights, _ = load_weights(experiment, workdir, which)
    made = predict(experiment, weights, found, batch_size, tta, all_classes, continuation)
    return beside_inputs(made, experiment, path, with_inputs)


def read_for(experiment: Experiment, path: str | os.PathLike[str]) -> Inputs:
    """Returns inputs to predict on; columns that the run does not know are noted.

    Raises:
      DataError: the file can't be read as its inputs, or holds none.
    """
    found = read_inputs(
        _inputs_in(experiment, path), experiment.spec.inputs, passed_over(experiment)
    )
    if not len(found.ids):
        raise DataError(f"--input: {path} holds no example.")
    return found


def _inputs_in(experiment: Experiment, path: str | os.PathLike[str]) -> Path:
    """Returns where the inputs lie: of a folder that holds their masks as well, the images."""
    return images_in(Path(path)) if experiment.spec.positions == 2 else Path(path)


def passed_over(experiment: Experiment) -> set[str]:
    """Returns the columns that a run's config names, and takes for no input."""
    fields = experiment.config.data
    named = (name for _, name in labelled.beside_named(fields))
    target = labelled.names_of(fields.target)
    split = tuple(part.strip() for name in target for part in name.split(","))
    return {*target, *split, *fields.unused, *named}


def beside_inputs(
    predictions: Predictions, experiment: Experiment, path: str | Path, whole: bool
) -> Predictions:
    """Returns predictions with columns of their inputs; see `with_columns`."""
    spec, name = experiment.spec, experiment.config.data.id
    return with_columns(predictions, spec, name, _inputs_in(experiment, path), whole)


def predict(
    experiment: Experiment,
    weights: Weights,
    given: Inputs,
    batch_size: int = 256,
    tta: int = 0,
    all_classes: bool = False,
    continuation: Continuation | None = None,
) -> Predictions:
    """Returns predictions with the names of examples, and of classes, labels or values.

    Args:
      experiment: what predicts.
      weights: with which it does.
      given: at least one example.
      batch_size, tta: as in `predict_run`.
      all_classes: give the probability of each class, even of more than `MOST_PROBABILITIES`; else
        those of the `TOP` likeliest, which a note says.
      continuation: how texts are continued, where the task is to know their next token.
    """
    spec, averaged = experiment.spec, with_tta(experiment, tta)
    asked = continuation or Continuation()
    if "continuations" in find_task(spec.task).shows:
        return continuing.predictions(experiment, weights, given, asked)
    if asked != Continuation():
        raise UserError(
            f"--new-tokens, --temperature, --top-k, --top-p, --seed: are for continuing texts; the "
            f"run's task is {spec.task}. Leave them out."
        )
    if "masks" in find_task(spec.task).shows:
        return of_masks(
            likeliest(averaged, 1, batch_size)(weights, given.inputs, None), spec, given
        )
    many = spec.num_classes > MOST_PROBABILITIES and not all_classes
    if many and "classes" in find_task(spec.task).shows:
        top = likeliest(averaged, TOP, batch_size)(weights, given.inputs, None)
        return of_likeliest(top, spec, given)
    found = predictor(averaged, batch_size)(weights, given.inputs, None)
    return predictions_of(found, spec, given, all_classes)
