"""Looks at a model on data: gradients by layer, their noise, activations, predictions. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num, PyTree

from jdlopt.data import named
from jdlopt.data.dataset import counts_of
from jdlopt.data.named import Inputs
from jdlopt.data.pools import Arrays
from jdlopt.data.preprocess import target
from jdlopt.evidence import activations
from jdlopt.optim import joined
from jdlopt.optim.groups import path_name
from jdlopt.tasks import find_task
from jdlopt.train.components import num_outputs
from jdlopt.train.experiment import Experiment
from jdlopt.train.predict import chunk_size
from jdlopt.train.state import TrainState, Weights
from jdlopt.train.step import Batch, objective, prepared

LOOKED_AT = 2048
"""Examples of a split that are looked at, at most."""
FOR_NOISE = 1024
"""Examples that the gradient noise is measured on, at least, where there are as many."""
BATCHES = (4, 64)
"""The least and the most batches for it."""
PRUNED = (0.5, 0.8, 0.9, 0.95)
"""Shares of the weights that are set to 0, to see what they were for."""
FOR_PRUNED = 1024
"""Validation examples that this is judged by, at most."""


# --- gradients ------------------------------------------------------------------------------------


def batches_for_noise(size: int, batch_size: int, examples: int = FOR_NOISE) -> int:
    """Returns how many batches the gradient noise is measured on; 0 where there are too few.

    Args:
      size: of the training split.
      batch_size: examples in a batch.
      examples: that it is measured on, at least, where there are as many.

    Example:
      >>> batches_for_noise(4000, 100), batches_for_noise(4000, 4), batches_for_noise(150, 100)
      (11, 64, 0)
    """
    least, most = BATCHES
    wanted = max(least, min(most, -(-examples // batch_size)))
    available = size // batch_size
    return min(wanted, available) if available > 1 else 0


def batch_gradient(
    experiment: Experiment, state: TrainState, batch: Batch, key: Key[Array, ""], total: PyTree
) -> tuple[Float[Array, ""], list[Float[Array, ""]], PyTree]:
    """Returns a batch's loss, its gradient's squared norms by parameter, and the sum so far. Pure.

    The function that is differentiated is the training step's own; augmentation and dropout are
    part of the noise.

    Args:
      experiment: what is trained.
      state: where the gradient is taken.
      batch: of training examples.
      key: of augmentation and dropout.
      total: the sum of the gradients of the batches before.

    Returns:
      The loss; for each trained leaf (in the order of its pytree) the squared norm of the gradient;
      and the sum with it.
    """
    components = experiment.components
    trained, frozen = components.freezing.split(state.params)

    def loss(trained: PyTree) -> Array:
        augment_key, model_key = jax.random.split(key)
        seen = prepared(components, state, batch, augment_key)
        whole = joined(trained, frozen)
        return objective(components, whole, state.model_state, seen, state.hparams, model_key)[0]

    value, grads = jax.value_and_grad(loss)(trained)
    return value, _squares(grads), jax.tree.map(jnp.add, total, grads)


class Gradients(NamedTuple):
    """What is known of the gradients of some batches.

    Attributes:
      losses: of each batch.
      squares: for each trained leaf, the squared norm of each batch's gradient.
      of_mean: for each leaf, the squared norm of the mean gradient.
      seconds: that a batch took, the median.
    """

    losses: Float[np.ndarray, " batches"]
    squares: list[Float[np.ndarray, " batches"]]
    of_mean: list[float]
    seconds: float


def gradient_program(
    experiment: Experiment,
    at: TrainState,
    batches: Mapping[str, PyTree[np.ndarray]],
    key: Key[Array, ""],
) -> Callable[[TrainState], Gradients]:
    """Compiles the gradients of some batches, to be taken at several states.

    Batch by batch: what XLA's CPU backend compiles in a loop, it runs on one core.

    Args:
      experiment, key: as `batch_gradient` takes them.
      at: a state, for its shapes.
      batches: training batches, stacked along the first axis.
    """
    count = len(batches["targets"])
    keys = jax.random.split(key, count)
    parts = [jax.tree.map(lambda leaf, i=i: leaf[i], dict(batches)) for i in range(count)]
    trained, _ = experiment.components.freezing.split(at.params)
    nothing = jax.tree.map(jnp.zeros_like, trained)
    one = jax.jit(partial(batch_gradient, experiment))
    program = one.lower(at, parts[0], keys[0], nothing).compile()

    def gradients(state: TrainState) -> Gradients:
        total, losses, squares, seconds = nothing, [], [], []
        for part, each in zip(parts, keys, strict=True):
            start = time.perf_counter()
            value, square, total = jax.block_until_ready(program(state, part, each, total))
            seconds.append(time.perf_counter() - start)
            losses.append(value)
            squares.append(square)
        stacked = [np.stack(leaves) for leaves in zip(*jax.device_get(squares), strict=True)]
        mean = [np.asarray(leaf) / count for leaf in jax.tree.leaves(jax.device_get(total))]
        of_mean = [float(np.vdot(leaf, leaf)) for leaf in mean]
        return Gradients(
            np.stack(jax.device_get(losses)), stacked, of_mean, float(np.median(seconds))
        )

    return gradients


def _squares(tree: PyTree) -> list[Array]:
    return [jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)]


def noise_scale(
    small_square: float, big_square: float, small: int, big: int
) -> dict[str, float | None]:
    """Returns the gradient noise scale ``tr(Σ) / |G|²``, from gradients at two batch sizes.

    With ``E|G_B|² = |G|² + tr(Σ) / B`` both are estimated without bias (McCandlish, Kaplan, Amodei
    et al., "An empirical model of large-batch training", 2018, appendix A.1). It is about the
    critical batch size: below it, twice the batch halves the steps; above it, hardly.

    Args:
      small_square: the mean of ``|G_small|²``.
      big_square: the mean of ``|G_big|²``.
      small, big: the batch sizes.

    Returns:
      ``gradient_square``, ``trace`` and ``scale``; the last is None where the gradient can't be
      told from noise.

    Example:
      >>> round(noise_scale(1.0 + 50.0 / 10, 1.0 + 50.0 / 100, 10, 100)["scale"], 6)
      50.0
    """
    square = (big * big_square - small * small_square) / (big - small)
    trace = (small_square - big_square) / (1 / small - 1 / big)
    scale = trace / square if square > 0 and trace > 0 else None
    return {"gradient_square": square, "trace": trace, "scale": scale}


def look_at_gradients(
    experiment: Experiment,
    program: Callable[[TrainState], Gradients],
    state: TrainState,
    size: int,
) -> dict[str, Any]:
    """Returns a record of the gradients: the loss, the noise scale, and a row for each kernel.

    Args:
      experiment: what is trained.
      program: of `gradient_program`.
      state: where the gradients are taken.
      size: examples in a batch.
    """
    losses, squares, of_mean, seconds = program(state)
    count = len(losses)
    trained, _ = experiment.components.freezing.split(state.params)
    leaves = jax.tree_util.tree_leaves_with_path(trained)
    rows = []
    for (path, leaf), square in zip(leaves, squares, strict=True):
        if leaf.ndim < 2:
            continue
        # on the host: on the device each shape of a layer would be a program to compile
        parameter = float(np.linalg.norm(np.asarray(leaf, np.float32)))
        gradient = float(np.sqrt(square.mean()))
        rows.append(
            {
                "name": path_name(path),
                "gradient": gradient,
                "parameter": parameter,
                "relative": gradient / parameter if parameter else None,
                "gain": parameter / float(np.sqrt(leaf.shape[-1])),
            }
        )
    rows.sort(key=lambda row: natural(str(row["name"])))
    small, big = float(sum(s.mean() for s in squares)), float(sum(of_mean))
    return {
        "loss": float(losses.mean()),
        "norm": float(np.sqrt(small)),
        "layers": rows,
        "batches": int(count),
        "seconds_a_step": seconds,
        "noise": noise_scale(small, big, int(size), int(size * count)),
    }


def natural(name: str) -> list[tuple[int, str]]:
    """Returns a sort key that puts ``dense_2`` before ``dense_10``."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", name)]


# --- activations and predictions ------------------------------------------------------------------


def activation_program(
    experiment: Experiment, at: Weights, some: Arrays
) -> Callable[[Weights], list[dict[str, Any]]]:
    """Returns ``weights → rows``, an `activations.finish` row for each activation.

    Args:
      experiment: whose model is watched.
      at: weights, for their shapes.
      some: raw examples that are looked at.
    """
    count = named.count(some.inputs)
    size = min(chunk_size(some.inputs, experiment.spec), count)

    components = experiment.components

    def examples(first: int) -> tuple[Inputs, np.ndarray]:
        rows = slice(first, first + size)
        return named.rows(some.inputs, rows), some.targets[rows]

    def forward(params: PyTree, model_state: PyTree, given: tuple[PyTree[Array], Array]) -> Array:
        seen = components.preprocess(at.preprocess, given[0])
        if components.teacher_forcing is not None:
            seen = components.teacher_forcing(seen, given[1])
        # the model alone: what makes probabilities of its outputs is no layer
        outputs, _ = components.model.apply(
            params, model_state, seen, at.hparams["model"], key=None, train=False
        )
        return outputs

    kinds, measure = activations.watch(forward, at.params, at.model_state, examples(0))
    program = jax.jit(measure)

    def look(weights: Weights) -> list[dict[str, Any]]:
        total: list[dict[str, Any]] = []
        for first in range(0, count - size + 1, size):
            found = jax.device_get(program(weights.params, weights.model_state, examples(first)))
            total = activations.combine(total, found) if total else found
        return activations.finish(kinds, total)

    return look


def trivial_loss(
    experiment: Experiment, train: Num[np.ndarray, "n *k"], targets: Num[np.ndarray, "m *k"]
) -> float | None:
    """Returns the loss of always predicting the training split's shares of classes, or its mean.

    None of transcripts, whose outputs are at other positions than their targets.

    Args:
      experiment: whose loss it is.
      train: the training split's targets.
      targets: those that the loss is measured on.
    """
    if "transcripts" in find_task(experiment.spec.task).shows:
        return None
    if experiment.spec.num_classes == 0:  # in the scale of the loss
        train = np.asarray(target.scaled(experiment.learnt, jnp.asarray(train)))
        targets = np.asarray(target.scaled(experiment.learnt, jnp.asarray(targets)))
    width = num_outputs(experiment.config, experiment.spec)
    loss, hparams = experiment.components.loss, experiment.hparams["loss"]
    link = loss.link
    if link is None:
        # of pairs: that all are alike
        none = "pairs" in find_task(experiment.spec.task).shows
        known = np.zeros(width) if none else np.mean(train, axis=0)
    else:
        counts = counts_of(train, experiment.spec)
        of = max(1, counts.sum()) if experiment.spec.positions else len(train)
        known = np.clip(counts / of, 1e-6, 1 - 1e-6)

    def mean_loss(known: Array, targets: Array, hparams: PyTree) -> Array:
        constant = known if link is None else link.outputs(known, width)
        shape = targets.shape[: 1 + experiment.spec.positions]
        outputs = jnp.broadcast_to(constant, (*shape, width))
        return jnp.mean(loss.per_example(outputs, targets, hparams))

    # in one program: one by one, thirty small operations take longer to compile
    found = jax.jit(mean_loss)(jnp.asarray(known, jnp.float32), jnp.asarray(targets), hparams)
    return float(found)


def pruned(params: PyTree, share: float) -> PyTree:
    """Returns parameters with a share of each kernel's smallest weights set to 0.

    Magnitude pruning: Han, Pool, Tran and Dally, 2015. On the host, where nothing is compiled for
    each shape of a layer, and a part is sorted in place of all.
    """

    def one(leaf: Array) -> np.ndarray:
        values = np.asarray(leaf)
        if values.ndim < 2:
            return values
        size = np.abs(values)
        return np.where(size < np.quantile(size, share), np.zeros_like(values), values)

    return jax.tree.map(one, params)
