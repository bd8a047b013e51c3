"""What an exported model is worth in the runtime that will serve it, measured beside the run's own.

Both go through the same batches and the same metrics, so that what differs is the model file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdlopt import mesh as meshes
from jdlopt.data.named import by_name
from jdlopt.data.preprocess import target
from jdlopt.tasks import find_task
from jdlopt.train import disk, step
from jdlopt.train.compiling import Compiler
from jdlopt.train.evaluate import Evaluator
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights
from jdlopt.train.step import Batch, Collected, Predictions

Runtime = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
"""Arrays by input's name → ``probabilities`` and ``outputs``, or of numbers ``outputs``."""
SPLITS = ("validation", "test")


def measure(experiment: Experiment, weights: Weights, runtime: Runtime) -> dict[str, Any]:
    """Returns what a model file says of each split, beside what the run itself says of it.

    Args:
      experiment: of the run, with its data.
      weights: what the file was made of.
      runtime: runs the file.

    Returns:
      By split: ``examples``; ``metrics``, each as ``{"bundle": …, "run": …}``; ``same``, the share
      of examples that both predict alike; ``largest_difference`` of a probability or of a value.
    """
    made = experiment.measuring(experiment.all_metrics())
    evaluator = Evaluator(made, meshes.make_mesh(meshes.MeshFields()), Compiler())
    sizes = experiment.data.sizes
    return {
        split: _of_split(evaluator, weights, runtime, split) for split in SPLITS if sizes.get(split)
    }


def _of_split(
    evaluator: Evaluator, weights: Weights, runtime: Runtime, split: str
) -> dict[str, Any]:
    experiment = evaluator.experiment
    own = jax.jit(experiment.predict)

    @jax.jit
    def collected(weights: Weights, batch: Batch, found: Predictions) -> Collected:
        components = experiment.components
        return step.evaluate_step(components, weights, batch, lambda *_: found)

    ours, theirs = [], []
    same, seen, largest = 0, 0, 0.0
    for batch in evaluator.batches(split):
        host = jax.tree.map(np.asarray, batch)
        run = own(weights, host["inputs"])
        file = _as_predictions(experiment, weights, runtime(dict(by_name(host["inputs"]))))
        ours.append(collected(weights, host, run))
        theirs.append(collected(weights, host, file))
        real = host["weights"] > 0
        alike, difference = _compared(experiment, run, file, real)
        same, seen = same + alike, seen + int(real.sum())
        largest = max(largest, difference)
    found, of_run = evaluator.finish(split, theirs), evaluator.finish(split, ours)
    metrics = {
        name.partition("/")[2]: {"bundle": value, "run": of_run[name]}
        for name, value in found.items()
        if isinstance(value, int | float)
    }
    return disk.as_json(
        {
            "examples": seen,
            "metrics": metrics,
            "same": same / max(1, seen),
            "largest_difference": largest,
        }
    )


def _as_predictions(
    experiment: Experiment, weights: Weights, found: Mapping[str, np.ndarray]
) -> Predictions:
    """Returns what a file says as a step has it; outputs are such as give its probabilities."""
    link = experiment.components.loss.link
    if link is None:
        outputs = jnp.asarray(found["outputs"])
        return Predictions(outputs, None, target.scaled(weights.preprocess, outputs))
    shares = jnp.asarray(found["probabilities"])
    width = find_task(experiment.spec.task).width(experiment.spec, experiment.config.loss.name)
    outputs = link.outputs(shares, width)
    return Predictions(outputs, shares, outputs)


def _compared(
    experiment: Experiment, run: Predictions, file: Predictions, real: np.ndarray
) -> tuple[int, float]:
    """Returns how many examples both predict alike, and the largest difference."""
    task, spec = find_task(experiment.spec.task), experiment.spec
    if run.probabilities is None or file.probabilities is None:
        one, other = np.asarray(run.outputs)[real], np.asarray(file.outputs)[real]
        near = np.isclose(one, other, rtol=1e-3, atol=1e-6)
        return int(near.reshape(len(near), -1).all(axis=1).sum()), _largest(one, other)
    shares = [np.asarray(one.probabilities)[real] for one in (run, file)]
    decided = [task.decode(one, one, spec).values for one in shares]
    alike = (decided[0] == decided[1]).reshape(len(decided[0]), -1).all(axis=1)
    return int(alike.sum()), _largest(*shares)


def _largest(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max(initial=0.0))
