"""A run, opened to be looked at: its experiment, its states, and some of its examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Num

from jdlopt.data import feed
from jdlopt.data.check.arrays import kind_of
from jdlopt.data.check.examples import sampled
from jdlopt.data.dataset import Dataset, class_counts
from jdlopt.data.named import contents
from jdlopt.data.pools import Arrays
from jdlopt.errors import WorkdirError
from jdlopt.evidence import probe
from jdlopt.evidence.findings.finding import Record
from jdlopt.metrics import higher_is_better
from jdlopt.tasks import find_task
from jdlopt.train import data_record, serve
from jdlopt.train.compiling import Compiler
from jdlopt.train.components import num_outputs
from jdlopt.train.experiment import Experiment
from jdlopt.train.schema import Config
from jdlopt.train.state import TrainState, Weights

VALUES = 1 << 22
"""Of larger examples fewer are looked at: so many values of a split, or 64 examples."""


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


def open_run(workdir: Path, config: Record) -> Subject:
    """Opens a run's data, model and checkpoint.

    Raises:
      UserError: the data or the model's module is not there any more.
    """
    model = {**config["model"], "dtype": "float32"}
    experiment = serve.with_data({**config, "model": model}, workdir)
    data_record.check(workdir, experiment.data)
    seed = jnp.uint32(experiment.config.seed)
    state = Compiler()(jax.jit(experiment.init).lower(seed), quickly=True)(seed)
    checkpoint = None
    for which in ("best", "newest"):
        try:
            weights, _ = serve.load_weights(experiment, workdir, which)
        except WorkdirError:
            continue
        checkpoint = _placed(state.replace(params=weights.params, model_state=weights.model_state))
        break
    dataset = experiment.data
    most = at_most(dataset, probe.LOOKED_AT)
    some = {
        split: feed.read_examples(dataset.records(split), sampled(dataset.sizes[split], most))
        for split in ("train", "validation")
    }
    return Subject(
        experiment.config, experiment, _placed(state), checkpoint, some["train"], some["validation"]
    )


def at_most(dataset: Dataset, limit: int) -> int:
    """Returns how many examples are looked at: so many, fewer where values or classes are many."""
    values = sum(int(np.prod(one.shape)) for one in dataset.spec.named.values())
    values += dataset.spec.values_predicted
    return min(limit, max(64, VALUES // values))


def _placed(state: TrainState) -> TrainState:
    """A state whose weights lie where any other's do: a program is compiled for a placement."""
    weights = jax.device_put(jax.device_get((state.params, state.model_state)))
    return state.replace(params=weights[0], model_state=weights[1])


def sizes_of(subject: Subject) -> dict[str, Any]:
    """Returns the task, the sizes of the splits and classes, and the loss of knowing nothing."""
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
        "kinds": {name: kind_of(one) for name, one in contents(dataset.spec.named).items()},
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


def weights_of(state: TrainState) -> Weights:
    """Returns what a state predicts with as it is: a checkpoint's are averaged already."""
    return Weights(state.params, state.model_state, state.hparams, state.preprocess)
