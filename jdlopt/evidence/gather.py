"""Gathers the numbers of a run that findings look at: its own records, and a probe of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdlopt import config as configs
from jdlopt.data import feed
from jdlopt.data.check import check_source
from jdlopt.data.check.arrays import kind_of
from jdlopt.data.check.examples import sampled
from jdlopt.errors import UserError, WorkdirError
from jdlopt.evidence import examples, probe, rates
from jdlopt.metrics import higher_is_better
from jdlopt.train import experiment, log, serve
from jdlopt.train.parts import num_outputs
from jdlopt.train.result import read_result
from jdlopt.train.state import as_arrays

MOST_VALIDATION = 5000
"""Validation examples that are looked at one by one, at most."""
LEAST_GIVEAWAY = 0.98
"""How well one column must tell the target alone, on a scale from chance (0) to certainty (1)."""
KINDS_OF_CHECK = ("leaks", "near_duplicates", "label_noise", "imbalance", "duplicates", "conflicts")


class Subject(NamedTuple):
    """A run, opened: its parts in float32, and where its parameters stood.

    Attributes:
      config: the run's resolved config.
      parts: of the same config, computing in float32.
      hparams: its traced floats.
      start: parameters and model state before the first step.
      checkpoint: the same of the best checkpoint, or of the newest; None where there is none.
      train, validation: raw examples.
    """

    config: Mapping[str, Any]
    parts: experiment.Experiment
    hparams: Any
    start: tuple[Any, Any]
    checkpoint: tuple[Any, Any] | None
    train: Any
    validation: Any


def gather(workdir: Path, lr_range: bool = False) -> dict[str, Any]:
    """Returns all that is known of a run, as JSON-able numbers for `jdlopt.evidence.findings`.

    Args:
      workdir: the run's directory.
      lr_range: whether the learning-rate range test is run however long it takes.

    Returns:
      ``config``; ``run``; ``curves``; and, as far as they can be measured, ``gradients``,
      ``layers``, ``predictions``, ``pruned``, ``inputs``, ``data``, ``splits``, ``reference``,
      ``rates``, ``speed`` and ``precision``. ``unseen`` says what could not be looked at, and why.

    Raises:
      WorkdirError: the directory holds no run.
    """
    config = serve.run_config(workdir)
    result = read_result(workdir) or {"status": "running"}
    rows = log.read_lines(workdir / log.METRICS)
    record: dict[str, Any] = {
        "config": config,
        "run": _run(config, result),
        "curves": curves(rows),
        "precision": precision(config, result, rows),
        "unseen": [],
    }
    try:
        subject = open_run(workdir, config)
    except UserError as error:
        record["unseen"].append(f"The data or the model can't be opened now: {error}")
        record["speed"] = speed(result, record)
        return record
    if subject.checkpoint is None:
        record["unseen"].append("There is no checkpoint: what was trained can't be looked at.")
    record["run"] |= _sizes(subject)
    _look_at_model(record, subject)
    _look_at_data(record, subject)
    _look_at_rates(record, subject, lr_range)
    record["speed"] = speed(result, record)
    return record


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Returns the logged values by name, each with its steps.

    Example:
      >>> curves([{"step": 5, "train/loss": 0.5}, {"step": 9, "train/loss": None}])
      {'train/loss': {'steps': [5], 'values': [0.5]}}
    """
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if "/" in name and isinstance(value, int | float) and np.isfinite(value):
                curve = found.setdefault(name, {"steps": [], "values": []})
                curve["steps"].append(row["step"])
                curve["values"].append(value)
    return found


def _run(config: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    best = result.get("best") or {}
    kept = ("status", "steps", "total_steps", "n_params", "wall_seconds", "compile_seconds")
    return {
        **{name: result.get(name) for name in kept},
        "diverged": result.get("diverged"),
        "metrics": {k: v for k, v in (result.get("metrics") or {}).items() if "test/" not in k},
        "best": best,
        "batch_size": config["data"]["batch_size"],
        "learning_rate": config["optim"]["learning_rate"],
        "monitor": best.get("metric"),
    }


def precision(
    config: Mapping[str, Any], result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns the type that the model computes in, and the share of steps that overflowed."""
    steps, skipped, before = 0, 0.0, 0
    for row in rows:
        share = row.get("train/skipped")
        if isinstance(share, int | float):
            steps += row["step"] - before
            skipped += share * (row["step"] - before)
        before = row["step"]
    return {
        "dtype": config["model"].get("dtype", "float32"),
        "skipped": skipped,
        "skipped_share": skipped / steps if steps else None,
        "diverged": result.get("status") == "diverged",
    }


def open_run(workdir: Path, config: Mapping[str, Any]) -> Subject:
    """Opens a run's data, model and checkpoint.

    Raises:
      UserError: the data or the model's module is not there any more.
    """
    model = {**config["model"], "dtype": "float32"}
    resolved, dataset = experiment.prepare({**config, "model": model, "mesh": {"data": 1}})
    parts = experiment.build(resolved, dataset)
    hparams = as_arrays(configs.hyperparameters(resolved))
    state = jax.jit(partial(experiment.init_state, parts))(jnp.uint32(config["seed"]), hparams)
    shape = (parts.input_shape, parts.input_dtype)
    checkpoint = None
    for which in ("best", "newest"):
        try:
            params, model_state, _ = serve.load_parameters(
                config, parts.model, shape, workdir, which
            )
        except WorkdirError:
            continue
        checkpoint = (params, model_state)
        break
    values = int(np.prod(dataset.input_shape))
    most = min(probe.LOOKED_AT, max(64, (1 << 26) // values))
    some = {
        split: feed.read_examples(
            dataset.records(split), sampled(dataset.sizes[split], min(most, limit))
        )
        for split, limit in (("train", probe.LOOKED_AT), ("validation", MOST_VALIDATION))
    }
    start = (state.params, state.model_state)
    return Subject(config, parts, hparams, start, checkpoint, some["train"], some["validation"])


def _sizes(subject: Subject) -> dict[str, Any]:
    dataset, parts = subject.parts.dataset, subject.parts
    every = dataset.targets("train")
    classes = dataset.num_classes
    counts = np.bincount(every, minlength=classes) if classes else None
    return {
        "task": dataset.task,
        "classes": [str(name) for name in dataset.class_names],
        "counts": None if counts is None else counts.tolist(),
        "train_size": dataset.sizes["train"],
        "validation_size": dataset.sizes["validation"],
        "kind": kind_of(dataset),
        "steps_per_epoch": feed.steps_per_epoch(
            dataset.sizes["train"], subject.config["data"]["batch_size"]
        ),
        "total_steps": parts.total_steps,
        "monitor": parts.monitor,
        "higher": higher_is_better(parts.monitor.partition("/")[2]),
        "trivial_loss": probe.trivial_loss(
            parts, subject.hparams, every, subject.validation.targets
        ),
        "num_outputs": num_outputs(parts.config, dataset),
    }


# --- the model ------------------------------------------------------------------------------------


def _look_at_model(record: dict[str, Any], subject: Subject) -> None:
    parts, hparams = subject.parts, subject.hparams
    places = {"start": subject.start, "checkpoint": subject.checkpoint}
    batch_size, size = subject.config["data"]["batch_size"], parts.dataset.sizes["train"]
    count = probe.batches_for_noise(size, batch_size)
    looked: dict[str, Any] = {"gradients": {}, "layers": {}, "predictions": {}}
    if count:
        order = feed.batch_examples(subject.config["seed"], 0, batch_size, size, count, parts.order)
        arrays = feed.read_examples(parts.dataset.records("train"), order.ravel())
        batches = {
            "inputs": arrays.inputs.reshape(count, batch_size, *arrays.inputs.shape[1:]),
            "targets": arrays.targets.reshape(count, batch_size),
        }
        program = jax.jit(partial(probe.gradients, parts))
    watch = probe.activation_program(parts, subject.start, hparams, subject.train.inputs)
    for place, at in places.items():
        if at is None:
            continue
        looked["layers"][place] = watch(*at)
        if count:
            looked["gradients"][place] = probe.look_at_gradients(
                parts, program, *at, hparams, batches, jax.random.key(0)
            )
    if subject.checkpoint is not None:
        saying = probe.prediction_program(parts)
        said = {
            split: probe.predict(
                parts, *subject.checkpoint, hparams, some.inputs, some.targets, saying
            )
            for split, some in (("train", subject.train), ("validation", subject.validation))
        }
        classes = parts.dataset.num_classes
        looked["predictions"] = {split: of_predictions(one, classes) for split, one in said.items()}
        looked["pruned"] = _pruned(subject, saying)
    record |= looked


def of_predictions(said: probe.Predicted, classes: int) -> dict[str, Any]:
    """Returns how good predictions are: loss, and of classes accuracy, calibration, confusions."""
    losses = said.losses[np.isfinite(said.losses)]
    found: dict[str, Any] = {
        "count": len(said.targets),
        "finite": len(losses) / max(1, len(said.losses)),
        "loss": float(losses.mean()) if len(losses) else None,
    }
    if said.probabilities is None:
        errors = (said.outputs.reshape(len(said.targets), -1)[:, 0] - said.targets) ** 2
        spread = float(np.var(said.targets))
        found["r2"] = 1 - float(np.mean(errors)) / spread if spread else None
        found["mse"] = float(np.mean(errors))
        return found
    probabilities = np.nan_to_num(said.probabilities)
    guesses = probabilities.argmax(axis=1)
    matrix = examples.confusion(guesses, said.targets, classes)
    return {
        **found,
        "accuracy": float((guesses == said.targets).mean()),
        "calibration": examples.calibration(probabilities, said.targets),
        "confusion": matrix.tolist() if classes <= 100 else None,
        "recall": [
            float(row[place] / row.sum()) if row.sum() else None for place, row in enumerate(matrix)
        ],
        "counts": matrix.sum(axis=1).tolist(),
    }


def _pruned(subject: Subject, saying: Any) -> list[dict[str, float]]:
    """The validation split's loss and accuracy without the smallest weights."""
    assert subject.checkpoint is not None
    params, model_state = subject.checkpoint
    prune = jax.jit(probe.pruned)
    rows = []
    for share in (0.0, *probe.PRUNED):
        said = probe.predict(
            subject.parts,
            prune(params, jnp.float32(share)),
            model_state,
            subject.hparams,
            subject.validation.inputs,
            subject.validation.targets,
            saying,
        )
        row = {"share": share, "loss": float(said.losses.mean())}
        if said.probabilities is not None:
            right = said.probabilities.argmax(axis=1) == said.targets
            row["accuracy"] = float(right.mean())
        rows.append(row)
    return rows


# --- data -----------------------------------------------------------------------------------------


def _look_at_data(record: dict[str, Any], subject: Subject) -> None:
    parts, dataset = subject.parts, subject.parts.dataset
    train, validation = subject.train, subject.validation
    kind, classes = kind_of(dataset), dataset.num_classes
    record["data"] = _checked(record, subject)
    splits: dict[str, Any] = {}
    record["splits"] = splits
    if classes:
        splits["labels"] = examples.label_shift(
            dataset.targets("train"), dataset.targets("validation"), classes
        )
    if kind == "text":
        record["inputs"] = {"padding": float(np.mean(train.inputs == 0))}
        return
    seen = np.asarray(jax.jit(parts.preprocess)(train.inputs), np.float32)
    record["inputs"] = input_scale(seen)
    ours, theirs = examples.vectors(train.inputs), examples.vectors(validation.inputs)
    splits["inputs"] = examples.two_sample(ours, theirs)
    if kind == "table":
        names = dataset.feature_names or [f"feature {i}" for i in range(ours.shape[1])]
        splits["columns"] = examples.shifted_columns(ours, theirs, names)[:20]
        record["data"]["giveaways"] = examples.giveaways(
            ours, train.targets, names, bool(classes), LEAST_GIVEAWAY
        )
    if len(validation.targets):
        score = examples.forest_score(
            ours, train.targets, theirs, validation.targets, bool(classes)
        )
        record["reference"] = {"name": "random forest", "score": score}


def _checked(record: dict[str, Any], subject: Subject) -> dict[str, Any]:
    """What `jdlopt data check` finds, without a look at the test split."""
    if not feed.fits(subject.parts.dataset.nbytes("train")):
        record["unseen"].append(
            "The training split doesn't fit memory: near-duplicates, leaks and doubtful labels "
            "were not looked for. `jdlopt data check` does."
        )
        return {}
    found = check_source(subject.config["data"], with_test=False).findings
    return {
        one.kind: {
            "count": one.count,
            "of": one.of,
            "severity": one.severity,
            "text": one.text,
            "config": one.config,
            "parts": [
                {"name": part.name, "count": part.count, "detail": part.detail}
                for part in one.parts[:10]
            ],
        }
        for one in found
        if one.kind in KINDS_OF_CHECK
    }


def input_scale(inputs: Any) -> dict[str, float | None]:
    """Returns the size of what a model is given: ``rms``, and that of its extreme features.

    Args:
      inputs: preprocessed examples; the features lie along the last axis.
    """
    flat = np.asarray(inputs, np.float64).reshape(-1, inputs.shape[-1])
    sizes = np.sqrt(np.nanmean(flat**2, axis=0))
    some = sizes[sizes > 0]
    return {
        "rms": float(np.sqrt(np.nanmean(flat**2))),
        "largest": float(some.max()) if len(some) else None,
        "smallest": float(some.min()) if len(some) else None,
    }


# --- rates and speed ------------------------------------------------------------------------------


def _look_at_rates(record: dict[str, Any], subject: Subject, lr_range: bool) -> None:
    dataset, batch_size = subject.parts.dataset, subject.config["data"]["batch_size"]
    start = record["gradients"].get("start")
    seconds = start["seconds_a_step"] if start else 0.0
    if not lr_range and not rates.affordable(dataset, batch_size, seconds):
        record["unseen"].append(
            f"The learning-rate range test would take about {seconds * 480:,.0f} s: --lr-range."
        )
        return
    record["rates"] = rates.range_test(subject.parts.config, dataset)


def speed(result: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns where the time of a run went: waiting for data, and beside the steps themselves."""
    a_second, batch_size = result.get("examples_per_second"), record["run"]["batch_size"]
    dispatch = result.get("dispatch") or {}
    timed = [s for s in (dispatch.get("step_seconds") or {}).values() if s]
    bare = record["rates"]["seconds_a_step"] if record.get("rates") else None
    return {
        "waiting": result.get("data_wait_share"),
        "seconds_a_step": batch_size / a_second if a_second else None,
        "bare_step": min([*timed, *([bare] if bare else [])], default=None),
        "mode": dispatch.get("mode"),
        "steps_a_dispatch": dispatch.get("steps"),
        "chosen": dispatch.get("chosen"),
        "eval_every": record["config"]["train"]["eval_every"],
    }
