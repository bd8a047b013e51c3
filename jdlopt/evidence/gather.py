"""Gathers the numbers of a run that findings look at: its own records, and a probe of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdlopt import config as configs
from jdlopt.data import feed
from jdlopt.data.named import each
from jdlopt.errors import UserError
from jdlopt.evidence import judged, probe, rates, techniques
from jdlopt.evidence.data_probe import checked, look_at_data
from jdlopt.evidence.findings.cures import ruled_out
from jdlopt.evidence.findings.finding import Record
from jdlopt.evidence.subject import Subject, at_most, open_run, sizes_of, weights_of
from jdlopt.profiling.record import PROFILE, SHARES
from jdlopt.train import checks, disk, log, serve
from jdlopt.train.predict import predictor
from jdlopt.train.result import read_result


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
      ConfigError: its validation split was trained on, so that no finding could be trusted.
    """
    config = serve.run_config(workdir, allow_code)
    checks.check_choosing(config["data"].get("train_on", "train"))
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
        record["speed"] = speed(result, record) | {"profile": profiled(workdir)}
        return record
    if subject.checkpoint is None:
        record["unseen"].append("There is no checkpoint: what was trained can't be looked at.")
    record["run"] |= sizes_of(subject)
    facts = techniques.facts_of(subject.config, subject.experiment.data)
    record["ruled_out"] = ruled_out(subject.config, facts)
    say("looking at gradients, activations and predictions")
    _look_at_model(record, subject)
    say("checking the data")
    record["data"] = checked(record, subject)
    say("comparing training and validation examples")
    look_at_data(record, subject)
    say("testing learning rates")
    _look_at_rates(record, subject, result, lr_range)
    record["speed"] = speed(result, record) | {"profile": profiled(workdir)}
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


# --- the model ------------------------------------------------------------------------------------


def _look_at_model(record: dict[str, object], subject: Subject) -> None:
    experiment = subject.experiment
    places = {"start": subject.start, "checkpoint": subject.checkpoint}
    batch_size, size = subject.config.data.batch_size, experiment.data.sizes["train"]
    wanted = at_most(experiment.data, probe.FOR_NOISE)
    count = probe.batches_for_noise(size, batch_size, wanted)
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
        program = probe.gradient_program(experiment, subject.start, batches, jax.random.key(0))
    watch = probe.activation_program(experiment, weights_of(subject.start), subject.train)
    for place, at in places.items():
        if at is None:
            continue
        looked["layers"][place] = watch(weights_of(at))
        if count:
            looked["gradients"][place] = probe.look_at_gradients(
                experiment, program, at, batch_size
            )
    if subject.checkpoint is not None:
        predict = predictor(experiment)
        weights = weights_of(subject.checkpoint)
        for split, some in (("train", subject.train), ("validation", subject.validation)):
            said = predict(weights, some.inputs, some.targets)
            looked["predictions"][split] = judged.of_predictions(
                said, some.targets, experiment.spec
            )
        looked["pruned"] = judged.pruned(experiment, weights, subject.validation, predict, said)
    record |= looked


# --- rates and speed ------------------------------------------------------------------------------


def _look_at_rates(
    record: dict[str, Any], subject: Subject, result: Record, lr_range: bool
) -> None:
    dataset, batch_size = subject.experiment.data, subject.config.data.batch_size
    start, known = record["gradients"].get("start"), speed(result, record)
    timed = [start["seconds_a_step"] if start else None, known["bare_step"]]
    # where neither was timed, there are too few examples for several batches
    seconds = min((one for one in timed if one), default=known["seconds_a_step"] or 0.0)
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


def profiled(workdir: Path) -> dict[str, float] | None:
    """Returns what the time of a step went to, by its profile, as shares; None if there is none."""
    shares = (disk.read_object(workdir / PROFILE) or {}).get("shares")
    if not isinstance(shares, dict) or set(shares) != set(SHARES):
        return None
    known = {kind: share for kind, share in shares.items() if isinstance(share, int | float)}
    return known if len(known) == len(SHARES) else None
