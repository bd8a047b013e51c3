"""Batched prediction: what weights say of any number of raw examples, as arrays of the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree

from jdlopt.data import feed
from jdlopt.data.spec import DataSpec
from jdlopt.models.head import features_of
from jdlopt.train import step
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights

BATCH_SIZE = 256
LARGEST = 1 << 24
"""Values of inputs and probabilities that lie on the device together, at most."""
MOST_PROBABILITIES = 1000
"""Of more classes, the probabilities of the likeliest alone are kept; see `likeliest`."""
TOP = 5
"""Of so many classes, the likeliest that predictions have."""

Inputs = Num[np.ndarray, "n ..."] | Mapping[str, Num[np.ndarray, "n ..."]]
"""Raw inputs: one array, or named ones."""


class Predicted(NamedTuple):
    """What a model says of some examples.

    Attributes:
      outputs: the model's; of numbers, in the unit of the targets.
      probabilities: of the classes; None for a regression.
      losses: of each example, where its target was given.
      spread: of the outputs of an ensemble that predicts numbers: the models' standard deviation.
    """

    outputs: Float[np.ndarray, "n *positions outputs"]
    probabilities: Float[np.ndarray, "n *positions classes"] | None
    losses: Float[np.ndarray, " n"] | None
    spread: Float[np.ndarray, "n outputs"] | None = None


Predictor = Callable[[Weights, Inputs, Num[np.ndarray, "n *k"] | None], Predicted]
"""``(weights, inputs, targets or None) → Predicted``."""


class Likeliest(NamedTuple):
    """The likeliest classes of some examples, where all probabilities would be too many.

    Attributes:
      classes: their numbers, at each position where there are any, the likeliest first; of equals,
        the lower number.
      probabilities: theirs.
      losses: of each example, where its target was given.
    """

    classes: Int[np.ndarray, "n *positions top"]
    probabilities: Float[np.ndarray, "n *positions top"]
    losses: Float[np.ndarray, " n"] | None


def predictor(experiment: Experiment, batch_size: int | None = None) -> Predictor:
    """Returns what predicts batch by batch with `Experiment.predict`, compiled once.

    Args:
      experiment: what predicts.
      batch_size: examples in one dispatch; by default `BATCH_SIZE`, fewer where they are large.
    """

    @jax.jit
    def program(
        weights: Weights, inputs: PyTree[Array], targets: Array | None
    ) -> tuple[step.Predictions, Array | None]:
        found = experiment.predict(weights, inputs)
        return found, _losses(experiment, weights, inputs, found, targets)

    def predict(
        weights: Weights, inputs: Inputs, targets: Num[np.ndarray, "n *k"] | None = None
    ) -> Predicted:
        size = batch_size or chunk_size(inputs, experiment.spec)
        said, losses = _batched(program, weights, inputs, targets, size)
        return Predicted(said.outputs, said.probabilities, losses, said.spread)

    return predict


def features(
    experiment: Experiment, batch_size: int | None = None
) -> Callable[[Weights, Inputs], Float[np.ndarray, "n *features"]]:
    """Returns what computes batch by batch what the model's head is given.

    Args:
      experiment: whose model it is.
      batch_size: as for `predictor`.

    Raises:
      ConfigError: when it is called: the model doesn't call one submodule named ``head`` once.
    """
    components = experiment.components

    @jax.jit
    def program(weights: Weights, inputs: PyTree[Array], _: None) -> Array:
        seen = components.preprocess(weights.preprocess, inputs)
        given = (weights.params, weights.model_state, seen, weights.hparams["model"])
        return features_of(components.model, *given, where="--embeddings")

    def compute(weights: Weights, inputs: Inputs) -> np.ndarray:
        size = batch_size or chunk_size(inputs, experiment.spec)
        return np.asarray(_batched(program, weights, inputs, None, size))

    return compute


def taught(experiment: Experiment, inputs: Inputs) -> step.Said | None:
    """Returns what an experiment's teacher says of training examples, to lie beside them.

    None where that changes from step to step, or would take too much memory: the step asks then.

    Args:
      experiment: what is trained.
      inputs: all raw inputs, in memory.
    """
    teacher = experiment.components.teacher
    if teacher is None or teacher.once is None:
        return None
    once, count = teacher.once, len(jax.tree.leaves(inputs)[0])
    one = jax.tree.map(lambda leaf: leaf[:1], inputs)
    if not feed.fits(count * sum(leaf.nbytes for leaf in jax.tree.leaves(once(one)))):
        return None

    @jax.jit
    def program(_: None, inputs: PyTree[Array], __: None) -> step.Said:
        return once(inputs)

    return _batched(program, None, inputs, None, chunk_size(inputs, experiment.spec))


def likeliest(
    experiment: Experiment, top: int, batch_size: int | None = None
) -> Callable[[Weights, Inputs, Num[np.ndarray, "n"] | None], Likeliest]:
    """Returns what predicts the likeliest classes as `predictor` does all; no others are kept.

    Args:
      experiment: what predicts; a classifier.
      top: how many classes of an example are kept.
      batch_size: as for `predictor`, but no more than is looked at together by default.
    """
    top = min(top, experiment.spec.num_classes)

    @jax.jit
    def program(
        weights: Weights, inputs: PyTree[Array], targets: Array | None
    ) -> tuple[tuple[Array, Array], Array | None]:
        found = experiment.predict(weights, inputs)
        assert found.probabilities is not None
        kept = jax.lax.top_k(found.probabilities, top)
        return (kept[0], kept[1]), _losses(experiment, weights, inputs, found, targets)

    def predict(
        weights: Weights, inputs: Inputs, targets: Num[np.ndarray, "n"] | None = None
    ) -> Likeliest:
        size = min(chunk_size(inputs, experiment.spec), batch_size or BATCH_SIZE)
        (probabilities, classes), losses = _batched(program, weights, inputs, targets, size)
        return Likeliest(classes, probabilities, losses)

    return predict


def losses_of(
    experiment: Experiment, weights: Weights, inputs: Inputs, targets: Num[np.ndarray, "n *k"]
) -> Float[np.ndarray, " n"]:
    """Returns the losses of examples alone, where all outputs would be too many to keep."""

    @jax.jit
    def program(weights: Weights, inputs: PyTree[Array], targets: Array) -> Array:
        found = experiment.predict(weights, inputs)
        return step.per_example(experiment.components, weights, found, targets)

    return _batched(program, weights, inputs, targets, chunk_size(inputs, experiment.spec))


def _losses(
    experiment: Experiment,
    weights: Weights,
    inputs: PyTree[Array],
    found: step.Predictions,
    targets: Array | None,
) -> Array | None:
    if targets is None:
        return None
    if experiment.components.teacher_forcing is not None:
        found = step.forced_predictions(experiment.components, weights, inputs, targets)
    return step.per_example(experiment.components, weights, found, targets)


def _batched(
    program: Callable[..., Any],
    weights: Weights | None,
    inputs: Inputs,
    targets: np.ndarray | None,
    size: int,
) -> Any:
    """Returns what a program gives of all examples, which go through it in batches of one size."""
    count = len(jax.tree.leaves(inputs)[0])
    size = min(size, count)
    found = []
    for first in range(0, count, size):
        # the last batch starts earlier, so that one program serves all
        start = min(first, count - size)
        rows, fresh = slice(start, start + size), slice(first - start, None)
        part = jax.tree.map(lambda values, rows=rows: values[rows], (inputs, targets))
        made = jax.device_get(program(weights, *part))
        found.append(jax.tree.map(lambda values, fresh=fresh: values[fresh], made))
    return jax.tree.map(lambda *values: np.concatenate(values), *found)


def chunk_size(inputs: Inputs, spec: DataSpec) -> int:
    """Returns how many examples are looked at together, by the size of inputs and outputs."""
    values = sum(leaf[:1].size for leaf in jax.tree.leaves(inputs)) + spec.values_predicted
    return int(min(BATCH_SIZE, max(1, LARGEST // max(1, values))))
