"""Gathers the numbers of a run that findings look at: its own records, and a probe of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Num

from jdlopt import config as configs
from jdlopt.data import feed
from jdlopt.data.check import check_source
from jdlopt.data.check.arrays import kind_of
from jdlopt.data.check.examples import sampled
from jdlopt.data.dataset import class_counts
from jdlopt.data.named import by_name, each
from jdlopt.data.pools import Arrays
from jdlopt.data.spec import InputSpec
from jdlopt.errors import UserError, WorkdirError
from jdlopt.evidence import examples, judged, probe, rates, techniques
from jdlopt.evidence.findings.cures import ruled_out
from jdlopt.evidence.findings.finding import Record
from jdlopt.metrics import higher_is_better
from jdlopt.tasks import find_task
from jdlopt.train import data_record, log, serve
from jdlopt.train.components import num_outputs
from jdlopt.train.experiment import Experiment
from jdlopt.train.predict import predictor
from jdlopt.train.result import read_result
from jdlopt.train.schema import Config
from jdlopt.train.state import TrainState, Weights

MOST_VALIDATION = 5000
"""Validation examples that are looked at one by one, at most."""
LEAST_GIVEAWAY = 0.98
"""How well one column must tell the target alone, on a scale from chance (0) to certainty (1)."""
KINDS_OF_CHECK = (
    "leaks", "group_leak", "near_duplicates", "label_noise", "imbalance", "duplicates", "conflicts",
)  # fmt: skip
NUMBERS = ("equal", "agreement")
"""Of a check's finding, what a finding of diagnosis looks at."""


class Subject(NamedTuple):
    """A run, opened: its experiment in float32, and where its parameters stood.

    Attributes:
      config: the run's resolved config, computing in float32 on one device.
      experiment: built from it.
      start: the state before the first step.
      checkpoint: that of the best checkpoint, or of the newest; None where there is none.
      train, validation: raw examples.
    """

    config: Config
    experiment: Experiment
    start: TrainState
    checkpoint: TrainState | None
    train: Arrays
    validation: Arrays


def gather(
    workdir: Path,
    lr_range: bool = False,
    allow_code: configs.Allowed = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Returns all that is known of a run, as JSON-able numbers for `jdlopt.evidence.findings`.

    Args:
      workdir: the run's directory.
      lr_range: whether the learning-rate range test is run however long it takes.
      allow_code: which dotted paths in the run's config may be imported.
      say: called with a line for people before each part that takes time.

    Returns:
      ``config``; ``run``; ``curves``; and, as far as they can be measured, ``gradients``,
      ``layers``, ``predictions``, ``pruned``, ``inputs``, ``data``, ``splits``, ``reference``,
      ``rates``, ``speed`` and ``precision``. ``ruled_out`` says which techniques no finding may
      suggest, ``unseen`` what could not be looked at, each with the reason.

    Raises:
      WorkdirError: the directory holds no run.
    """
    config = serve.run_config(workdir, allow_code)
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
        say("opening the run, its data and its checkpoint")
        subject = open_run(workdir, config)
    except UserError as error:
        record["unseen"].append(f"The data or the model can't be opened now: {error}")
        record["speed"] = speed(result, record)
        return record
    if subject.checkpoint is None:
        record["unseen"].append("There is no checkpoint: what was trained can't be looked at.")
    record["run"] |= _sizes(subject)
    facts = techniques.facts_of(subject.config, subject.experiment.data)
    record["ruled_out"] = ruled_out(subject.config, facts)
    say("looking at gradients, activations and predictions")
    _look_at_model(record, subject)
    say("checking the data")
    record["data"] = _checked(record, subject)
    say("comparing training and validation examples")
    _look_at_data(record, subject)
    say("testing learning rates")
    _look_at_rates(record, subject, lr_range)
    record["speed"] = speed(result, record)
    return record


def curves(rows: Sequence[Record]) -> dict[str, dict[str, list[float]]]:
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


def _run(config: Record, result: Record) -> dict[str, Any]:
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


def precision(config: Record, result: Record, rows: Sequence[Record]) -> dict[str, Any]:
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


def open_run(workdir: Path, config: Record) -> Subject:
    """Opens a run's data, model and checkpoint.

    Raises:
      UserError: the data or the model's module is not there any more.
    """
    model = {**config["model"], "dtype": "float32"}
    experiment = Experiment.build({**config, "model": model, "mesh": {"data": 1}})
    data_record.check(workdir, experiment.data)
    state = jax.jit(experiment.init)(jnp.uint32(experiment.config.seed))
    checkpoint = None
    for which in ("best", "newest"):
        try:
            weights, _ = serve.load_weights(experiment, workdir, which)
        except WorkdirError:
            continue
        checkpoint = _placed(state.replace(params=weights.params, model_state=weights.model_state))
        break
    dataset = experiment.data
    values = sum(int(np.prod(one.shape)) for one in dataset.spec.named.values())
    most = min(probe.LOOKED_AT, max(64, (1 << 26) // values))
    some = {
        split: feed.read_examples(
            dataset.records(split), sampled(dataset.sizes[split], min(most, limit))
        )
        for split, limit in (("train", probe.LOOKED_AT), ("validation", MOST_VALIDATION))
    }
    return Subject(
        experiment.config, experiment, _placed(state), checkpoint, some["train"], some["validation"]
    )


def _placed(state: TrainState) -> TrainState:
    """A state whose weights lie where any other's do: a program is compiled for a placement."""
    weights = jax.device_put(jax.device_get((state.params, state.model_state)))
    return state.replace(params=weights[0], model_state=weights[1])


def _sizes(subject: Subject) -> dict[str, Any]:
    experiment, dataset = subject.experiment, subject.experiment.data
    every = dataset.targets("train")
    shows = find_task(dataset.spec.task).shows
    counts = class_counts(dataset) if {"classes", "labels"} & shows else None
    return {
        "task": dataset.spec.task,
        "unit": "label" if "labels" in shows else "class",
        "classes": [str(name) for name in dataset.spec.class_names],
        "counts": None if counts is None else counts.tolist(),
        "train_size": dataset.sizes["train"],
        "validation_size": dataset.sizes["validation"],
        "kinds": {name: kind_of(one) for name, one in dataset.spec.named.items()},
        "steps_per_epoch": feed.steps_per_epoch(
            dataset.sizes["train"], subject.config.data.batch_size
        ),
        "total_steps": experiment.total_steps,
        "monitor": experiment.monitor,
        "higher": higher_is_better(experiment.monitor.partition("/")[2]),
        "trivial_loss": probe.trivial_loss(experiment, every, subject.validation.targets),
        "num_outputs": num_outputs(experiment.config, experiment.spec),
        "target": _target(subject, every) if "values" in shows else None,
    }


def _target(subject: Subject, targets: Num[np.ndarray, "n *k"]) -> dict[str, Any]:
    """The size of the numbers to predict, of several the one that is furthest from 1."""
    columns = np.asarray(targets, np.float64).reshape(len(targets), -1)
    rms = np.sqrt(np.mean(columns**2, axis=0))
    furthest = int(np.argmax(np.abs(np.log(np.where(rms > 0, rms, 1.0)))))
    column = columns[:, furthest]
    return {
        "rms": float(rms[furthest]),
        "mean": float(column.mean()),
        "spread": float(column.std()),
        "scale": subject.config.data.preprocess.target_scale,
    }


# --- the model ------------------------------------------------------------------------------------


def _look_at_model(record: dict[str, object], subject: Subject) -> None:
    experiment = subject.experiment
    places = {"start": subject.start, "checkpoint": subject.checkpoint}
    batch_size, size = subject.config.data.batch_size, experiment.data.sizes["train"]
    count = probe.batches_for_noise(size, batch_size)
    looked: dict[str, Any] = {"gradients": {}, "layers": {}, "predictions": {}}
    if count:
        seed = subject.config.seed
        order = feed.batch_examples(seed, 0, batch_size, size, count, experiment.order)
        arrays = feed.read_examples(experiment.data.records("train"), order.ravel())

        def in_batches(values: np.ndarray) -> np.ndarray:
            return values.reshape(count, batch_size, *values.shape[1:])

        batches = {
            "inputs": each(in_batches, arrays.inputs),
            "targets": in_batches(arrays.targets),
        }
        program = jax.jit(partial(probe.gradients, experiment))
    watch = probe.activation_program(experiment, _weights(subject.start), subject.train.inputs)
    for place, at in places.items():
        if at is None:
            continue
        looked["layers"][place] = watch(_weights(at))
        if count:
            looked["gradients"][place] = probe.look_at_gradients(
                experiment, program, at, batches, jax.random.key(0)
            )
    if subject.checkpoint is not None:
        predict = predictor(experiment)
        weights = _weights(subject.checkpoint)
        looked["predictions"] = {
            split: judged.of_predictions(
                predict(weights, some.inputs, some.targets), some.targets, experiment.spec
            )
            for split, some in (("train", subject.train), ("validation", subject.validation))
        }
        looked["pruned"] = judged.pruned(experiment, weights, subject.validation, predict)
    record |= looked


def _weights(state: TrainState) -> Weights:
    """What a state predicts with as it is: a checkpoint's parameters are averaged already."""
    return Weights(state.params, state.model_state, state.hparams, state.preprocess)


# --- data -----------------------------------------------------------------------------------------


def _look_at_data(record: dict[str, Any], subject: Subject) -> None:
    dataset, shows = subject.experiment.data, find_task(subject.experiment.spec.task).shows
    of_classes, classes = "classes" in shows, dataset.spec.num_classes
    splits: dict[str, object] = {}
    record["splits"] = splits
    if of_classes:
        splits["labels"] = examples.label_shift(
            dataset.targets("train"), dataset.targets("validation"), classes
        )
    train, validation = by_name(subject.train.inputs), by_name(subject.validation.inputs)
    texts = [name for name, one in dataset.spec.named.items() if one.text is not None]
    seen: Mapping[str, Any] = {}
    if len(texts) < len(train):
        preprocess = jax.jit(subject.experiment.components.preprocess)
        seen = by_name(preprocess(subject.start.preprocess, subject.train.inputs))
    record["inputs"] = {
        name: {"padding": float(np.mean(np.asarray(raw) == 0))}
        if name in texts
        else input_scale(np.asarray(seen[name], np.float32))
        for name, raw in train.items()
    }
    parts = {
        name: tuple(
            examples.vectors(split[name], train[name], _codes(dataset.spec.named[name]))
            for split in (train, validation)
        )
        for name in train
        if name not in texts  # token ids are no quantities
    }
    if not parts:
        return
    # of several, so that wide ones don't drown the others
    pairs = [examples.reduced(*pair) if len(parts) > 1 else pair for pair in parts.values()]
    ours, theirs = (np.concatenate([pair[side] for pair in pairs], axis=1) for side in (0, 1))
    splits["inputs"] = examples.two_sample(ours, theirs)
    for name, one in dataset.spec.named.items():
        if name not in parts or kind_of(one) != "table":
            continue
        mine, others = parts[name]
        columns = one.feature_names or [f"feature {i}" for i in range(mine.shape[1])]
        splits["columns"] = examples.shifted_columns(mine, others, columns)[:20]
        if "simple models" in shows:
            record["data"]["giveaways"] = examples.giveaways(
                mine, subject.train.targets, columns, of_classes, LEAST_GIVEAWAY
            )
    if texts and "simple models" in shows:
        return  # a forest that can't read would say too little of what can be reached
    if len(subject.validation.targets) and "simple models" in shows:
        targets = subject.train.targets, subject.validation.targets
        score = examples.forest_score(ours, targets[0], theirs, targets[1], of_classes)
        record["reference"] = {"name": "random forest", "score": score}


def _codes(spec: InputSpec) -> list[int]:
    """The columns of category codes in which 0 stands for all that the training split lacks."""
    names = spec.feature_names or ()
    hashed = spec.hash_buckets is not None
    return [] if hashed else [place for place, one in enumerate(names) if one in spec.categories]


def _checked(record: dict[str, Any], subject: Subject) -> dict[str, object]:
    """What `jdlopt data check` finds, without a look at the test split."""
    if not feed.fits(subject.experiment.data.nbytes("train")):
        record["unseen"].append(
            "The training split doesn't fit memory: near-duplicates, leaks and doubtful labels "
            "were not looked for. `jdlopt data check` does."
        )
        return {}
    found = check_source(subject.config.data, with_test=False).findings
    return {
        one.kind: {
            "count": one.count,
            "of": one.of,
            "severity": one.severity,
            "text": one.text,
            "config": one.config,
            "numbers": {key: one.numbers[key] for key in NUMBERS if key in one.numbers},
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
    dataset, batch_size = subject.experiment.data, subject.config.data.batch_size
    start = record["gradients"].get("start")
    seconds = start["seconds_a_step"] if start else 0.0
    if not lr_range and not rates.affordable(dataset, batch_size, seconds):
        record["unseen"].append(
            f"The learning-rate range test would take about {seconds * 480:,.0f} s: --lr-range."
        )
        return
    record["rates"] = rates.range_test(subject.config, dataset)


def speed(result: Record, record: Record) -> dict[str, Any]:
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
