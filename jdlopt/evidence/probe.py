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

from jdlopt.evidence import activations
from jdlopt.optim import joined
from jdlopt.optim.groups import path_name
from jdlopt.train.experiment import Experiment
from jdlopt.train.parts import num_outputs
from jdlopt.train.step import predict_step

LOOKED_AT = 2048
"""Training examples whose activations are watched."""
CHUNK = 256
LARGEST = 1 << 24
"""Values of inputs that lie on the device together, at most."""
FOR_NOISE = 1024
"""Examples that the gradient noise is measured on, at least, where there are as many."""
BATCHES = (4, 64)
"""The least and the most batches for it."""
PRUNED = (0.5, 0.8, 0.9, 0.95)
"""Shares of the weights that are set to 0, to see what they were for."""


class Predicted(NamedTuple):
    """What a model says of some examples.

    Attributes:
      outputs: the model's.
      probabilities: None for a regression.
      losses: per example.
      targets: what was to be said.
    """

    outputs: Float[np.ndarray, "n outputs"]
    probabilities: Float[np.ndarray, "n classes"] | None
    losses: Float[np.ndarray, " n"]
    targets: Num[np.ndarray, " n"]


# --- gradients ------------------------------------------------------------------------------------


def batches_for_noise(size: int, batch_size: int) -> int:
    """Returns how many batches the gradient noise is measured on; 0 where there are too few.

    Example:
      >>> batches_for_noise(4000, 100), batches_for_noise(4000, 4), batches_for_noise(150, 100)
      (11, 64, 0)
    """
    least, most = BATCHES
    wanted = max(least, min(most, -(-FOR_NOISE // batch_size)))
    available = size // batch_size
    return min(wanted, available) if available > 1 else 0


def gradients(
    parts: Experiment,
    params: PyTree,
    model_state: PyTree,
    hparams: PyTree,
    batches: Mapping[str, Num[Array, "batches batch *shape"]],
    key: Key[Array, ""],
) -> tuple[Float[Array, " batches"], list[Float[Array, " batches"]], list[Float[Array, ""]]]:
    """Returns each batch's loss, and the squared norms of the gradients by parameter. Pure.

    Args:
      parts: the experiment; its augmentation and dropout are part of the noise.
      params, model_state, hparams: where the gradients are taken.
      batches: training batches, stacked.
      key: of augmentation and dropout.

    Returns:
      The losses; for each trained leaf (in the order of its pytree) the squared norm of each
      batch's gradient; and for each leaf the squared norm of the mean gradient.
    """
    trained, frozen = parts.freezing.split(params)

    def objective(trained: PyTree, batch: Mapping[str, Array], key: Array) -> Array:
        augment_key, model_key = jax.random.split(key)
        batch = {**batch, "step": jnp.zeros((), jnp.int32)}
        batch = parts.augment(augment_key, batch, hparams["augment"], parts.preprocess)
        whole = joined(trained, frozen)
        outputs, _ = parts.model.apply(
            whole, model_state, batch["inputs"], hparams["model"], key=model_key, train=True
        )
        return parts.loss.objective(outputs, batch["targets"], whole, hparams["loss"])

    def one(total: PyTree, item: Any) -> Any:
        value, grads = jax.value_and_grad(objective)(trained, *item)
        return jax.tree.map(jnp.add, total, grads), (value, _squares(grads))

    count = len(batches["targets"])
    keys = jax.random.split(key, count)
    total, (losses, squares) = jax.lax.scan(
        one, jax.tree.map(jnp.zeros_like, trained), (dict(batches), keys)
    )
    return losses, squares, _squares(jax.tree.map(lambda leaf: leaf / count, total))


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
    parts: Experiment,
    program: Callable[..., Any],
    params: PyTree,
    model_state: PyTree,
    hparams: PyTree,
    batches: Mapping[str, Any],
    key: Key[Array, ""],
) -> dict[str, Any]:
    """Returns a record of the gradients: the loss, the noise scale, and a row for each kernel.

    Args:
      parts, params, model_state, hparams, batches, key: as `gradients` takes them.
      program: ``jit(partial(gradients, parts))``.
    """
    found = program(params, model_state, hparams, batches, key)
    jax.block_until_ready(found)
    start = time.perf_counter()
    losses, squares, of_mean = jax.device_get(program(params, model_state, hparams, batches, key))
    count, size = batches["targets"].shape[:2]
    seconds = (time.perf_counter() - start) / count
    trained, _ = parts.freezing.split(params)
    leaves = jax.tree_util.tree_leaves_with_path(trained)
    rows = []
    for (path, leaf), square in zip(leaves, squares, strict=True):
        if leaf.ndim < 2:
            continue
        parameter = float(jnp.linalg.norm(leaf.ravel()))
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


def natural(name: str) -> list[Any]:
    """Returns a sort key that puts ``dense_2`` before ``dense_10``."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", name)]


# --- activations and predictions ------------------------------------------------------------------


def activation_program(
    parts: Experiment,
    at: tuple[PyTree, PyTree],
    hparams: PyTree,
    inputs: Num[np.ndarray, "n *shape"],
) -> Callable[[PyTree, PyTree], list[dict[str, Any]]]:
    """Returns ``(params, model_state) → rows``, an `activations.finish` row for each activation.

    Args:
      parts, hparams: the model.
      at: parameters and model state, for their shapes.
      inputs: raw examples that are looked at.
    """
    size = min(chunk_size(inputs), len(inputs))

    def forward(params: PyTree, model_state: PyTree, inputs: Array) -> Array:
        seen = parts.preprocess(inputs)
        outputs, _ = parts.model.apply(
            params, model_state, seen, hparams["model"], key=None, train=False
        )
        return outputs

    kinds, measure = activations.watch(forward, *at, inputs[:size])
    program = jax.jit(measure)

    def look(params: PyTree, model_state: PyTree) -> list[dict[str, Any]]:
        total: list[dict[str, Any]] = []
        for first in range(0, len(inputs) - size + 1, size):
            found = jax.device_get(program(params, model_state, inputs[first : first + size]))
            total = activations.combine(total, found) if total else found
        return activations.finish(kinds, total)

    return look


def chunk_size(inputs: Num[np.ndarray, "n *shape"]) -> int:
    """Returns how many examples are looked at together."""
    return int(min(CHUNK, max(1, LARGEST // max(1, inputs[:1].size))))


def predict(
    parts: Experiment,
    params: PyTree,
    model_state: PyTree,
    hparams: PyTree,
    inputs: Num[np.ndarray, "n *shape"],
    targets: Num[np.ndarray, " n"],
    program: Callable[..., Any] | None = None,
) -> Predicted:
    """Returns what a model says of raw inputs, and the loss of each.

    Args:
      parts, params, model_state, hparams: the model.
      inputs, targets: the examples.
      program: `prediction_program` of the parts, where it was made already.
    """
    program = program or prediction_program(parts)
    size = min(chunk_size(inputs), len(targets))
    outputs, probabilities, losses = [], [], []
    for first in range(0, len(targets), size):
        # the last batch starts earlier, so that one program serves all
        start = min(first, len(targets) - size)
        some = slice(start, start + size)
        fresh = slice(first - start, None)
        found = jax.device_get(program(params, model_state, hparams, inputs[some], targets[some]))
        outputs.append(found[0][fresh])
        losses.append(found[2][fresh])
        if found[1] is not None:
            probabilities.append(found[1][fresh])
    return Predicted(
        np.concatenate(outputs),
        np.concatenate(probabilities) if probabilities else None,
        np.concatenate(losses),
        np.asarray(targets),
    )


def prediction_program(parts: Experiment) -> Callable[..., Any]:
    """Returns the compiled ``(params, model_state, hparams, inputs, targets) → outputs, …``."""
    step = partial(predict_step, model=parts.model, loss=parts.loss, preprocess=parts.preprocess)

    def outputs(params: PyTree, model_state: PyTree, hparams: Any, x: Array, y: Array) -> Any:
        out, probabilities = step(params, model_state, hparams, x)
        return out, probabilities, parts.loss.per_example(out, y, hparams["loss"])

    return jax.jit(outputs)


def trivial_loss(
    parts: Experiment, hparams: PyTree, train: Num[np.ndarray, " n"], targets: Num[np.ndarray, " m"]
) -> float:
    """Returns the loss of always saying the training split's class shares, or its mean.

    Args:
      parts, hparams: the experiment's loss.
      train: the training split's targets.
      targets: those that the loss is measured on.
    """
    width = num_outputs(parts.config, parts.dataset)
    if not parts.dataset.num_classes:
        constant = np.array([np.mean(train)])
    else:
        shares = np.bincount(train, minlength=parts.dataset.num_classes) / len(train)
        logs = np.log(np.maximum(shares, 1e-6))
        constant = logs if width > 1 else logs[1:] - logs[:1]
    outputs = jnp.broadcast_to(jnp.asarray(constant, jnp.float32), (len(targets), width))
    return float(jnp.mean(parts.loss.per_example(outputs, jnp.asarray(targets), hparams["loss"])))


def pruned(params: PyTree, share: Float[Array, ""]) -> PyTree:
    """Returns parameters with a share of each kernel's smallest weights set to 0.

    Magnitude pruning: Han, Pool, Tran and Dally, 2015.
    """

    def one(leaf: Array) -> Array:
        if leaf.ndim < 2:
            return leaf
        size = jnp.abs(leaf)
        return jnp.where(size < jnp.quantile(size, share), 0.0, leaf)

    return jax.tree.map(one, params)
