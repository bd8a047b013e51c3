"""The one training step and the one evaluation step: pure functions, whole on one screen each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jdlopt import losses
from jdlopt.optim import Freezing, joined
from jdlopt.train import scaling
from jdlopt.train.state import TrainState

Batch = Mapping[str, Array]
"""``inputs`` [batch, …], ``targets`` [batch] or [batch, …]; in evaluation ``weights`` [batch]."""


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Any,
    loss: Any,
    optimizer: optax.GradientTransformationExtraArgs,
    average: Any,
    freezing: Freezing,
    preprocess: Callable[[Array], Array],
    augment: Callable[..., Batch],
    learning_rate: Callable[..., Float[Array, ""]],
    accumulate: int = 1,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One optimisation step. Pure: jit, vmap or shard it from outside.

    Args:
      state: where training stands.
      batch: one global batch.
      model, loss, optimizer, average, freezing: the parts that `jdlopt.train.experiment.build`
        makes.
      preprocess: raw inputs → model inputs, fit on the training split.
      augment: ``(key, batch, strengths, preprocess) → batch``; it preprocesses, since what changes
        pixels or waveforms comes before and what changes features or mixes examples comes after.
      learning_rate: ``(step, hparams, opt_state) → rate``, for the record.
      accumulate: micro-batches whose mean gradient makes the update; divides the batch size.

    Returns:
      The next state, and the step's ``loss`` and ``grad_norm`` (and ``accuracy`` where targets are
      classes), measured before the update, and its ``learning_rate``; with a loss scale also what
      `jdlopt.train.scaling.settled` adds.
    """
    augment_key, model_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    batch = {**batch, "step": state.step}
    batch = augment(augment_key, batch, state.hparams["augment"], preprocess)

    trained, frozen = freezing.split(state.params)

    def gradients(trained: Any) -> tuple[Any, Any, dict[str, Array]]:
        def objective(trained: Any, model_state: Any, part: Batch, key: Any) -> Any:
            params = joined(trained, frozen)
            outputs, model_state = model.apply(
                params, model_state, part["inputs"], state.hparams["model"], key=key, train=True
            )
            value = loss.objective(outputs, part["targets"], params, state.hparams["loss"])
            return value, (model_state, hits(outputs, part["targets"]))

        grad = scaling.value_and_grad(
            objective, state.loss_scale, partial(freezing.value_and_grad, step=state.step)
        )
        if accumulate == 1:
            (value, (model_state, measured)), grads = grad(
                trained, state.model_state, batch, model_key
            )
            return grads, model_state, {"loss": value, **measured}
        return _accumulated(grad, trained, state.model_state, batch, model_key, accumulate)

    grads, model_state, measured = gradients(trained)
    updates, opt_state = optimizer.update(
        grads,
        state.opt_state,
        trained,
        hparams=state.hparams["optim"],
        value=measured["loss"],
        grad_fn=lambda trained, *_: gradients(trained)[0],
    )
    params = joined(optax.apply_updates(trained, updates), frozen)
    rate = learning_rate(state.step, state.hparams["optim"], opt_state)
    step = state.step + 1
    after = state.replace(
        step=step,
        params=params,
        model_state=model_state,
        opt_state=opt_state,
        average=average.update(
            state.average, params, model_state, step, state.hparams["optim"].get("average", {})
        ),
    )
    measured = {**measured, "grad_norm": norm(grads), "learning_rate": rate}
    return scaling.settled(state, after, grads, measured) if state.loss_scale else (after, measured)


def _accumulated(grad, params, model_state, batch, key, parts):
    """The mean gradient over micro-batches, one after the other, so that only one is in memory."""
    split = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), batch)

    def micro(carry, item):
        model_state, total = carry
        part, part_key = item
        (value, (model_state, measured)), grads = grad(params, model_state, part, part_key)
        return (model_state, jax.tree.map(jnp.add, total, grads)), {"loss": value, **measured}

    zeros = jax.tree.map(jnp.zeros_like, params)
    (model_state, total), measured = jax.lax.scan(
        micro, (model_state, zeros), (split, jax.random.split(key, parts))
    )
    mean = jax.tree.map(lambda leaf: leaf / parts, total)
    return mean, model_state, jax.tree.map(jnp.mean, measured)


def norm(tree: Any) -> Float[Array, ""]:
    """The global norm of a pytree; its sums as dot products, which XLA's CPU backend vectorises."""
    return jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)))


def hits(outputs: Array, targets: Array) -> dict[str, Float[Array, ""]]:
    """The share of a batch that is classified right; empty where targets are no class indices.

    Of an ensemble's outputs it is the mean share of its members.
    """
    if (
        outputs.ndim not in (2, 3)
        or targets.ndim != 1
        or not jnp.issubdtype(targets.dtype, jnp.integer)
    ):
        return {}
    guesses = (
        outputs.argmax(-1) if outputs.shape[-1] > 1 else (outputs[..., 0] > 0).astype(jnp.int32)
    )
    return {"accuracy": jnp.mean(guesses == targets)}


def predict_step(
    params: Any,
    model_state: Any,
    hparams: Any,
    inputs: Array,
    *,
    model: Any,
    loss: Any,
    preprocess: Callable[[Array], Array],
) -> tuple[Array, Array | None]:
    """The outputs for a batch, and their class probabilities (None for regression). Pure."""
    outputs, _ = model.apply(
        params, model_state, preprocess(inputs), hparams["model"], key=None, train=False
    )
    return outputs, None if loss.probabilities is None else loss.probabilities(outputs)


def averaged_predict_step(
    params: Any,
    model_state: Any,
    hparams: Any,
    inputs: Array,
    *,
    model: Any,
    loss: Any,
    preprocess: Callable[[Array], Array],
    augment: Callable[..., Batch],
    draws: int,
    seed: int = 0,
) -> tuple[Array, Array | None]:
    """Like `predict_step`, averaged over the batch as it is and ``draws`` augmentations. Pure.

    Class probabilities are averaged, and the outputs are such as give their mean; of a regression
    the outputs are. Test-time augmentation: Krizhevsky, Sutskever and Hinton, 2012.

    Args:
      params, model_state, hparams, inputs, model, loss, preprocess: as in `predict_step`.
      augment: ``(key, batch, strengths, preprocess) → batch``; it must not mix examples.
      draws: how many augmented copies of each example.
      seed: of the draws.
    """

    def predicted(raw: Array, prepare: Callable[[Array], Array]) -> tuple[Array, Array | None]:
        return predict_step(
            params, model_state, hparams, raw, model=model, loss=loss, preprocess=prepare
        )

    def drawn(draw: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), draw)
        batch = {"inputs": inputs, "targets": jnp.zeros(len(inputs), jnp.int32), "step": draw}
        prepared = augment(key, batch, hparams["augment"], preprocess)["inputs"]
        outputs, probabilities = predicted(prepared, lambda values: values)
        return outputs if probabilities is None else probabilities

    outputs, probabilities = predicted(inputs, preprocess)
    plain = outputs if probabilities is None else probabilities
    mean = (plain + jax.lax.map(drawn, jnp.arange(draws)).sum(axis=0)) / (draws + 1)
    if probabilities is None:
        return mean, None
    return losses.outputs_of(mean, outputs.shape[-1]), mean


def eval_step(
    params: Any,
    model_state: Any,
    hparams: Any,
    batch: Batch,
    *,
    model: Any,
    loss: Any,
    collect: Callable[..., Any],
    preprocess: Callable[[Array], Array],
    predict: Callable[..., Any] = predict_step,
) -> Any:
    """What the metrics need to know of one padded batch; ``weights`` are 0 on padding. Pure."""
    outputs, probabilities = predict(
        params,
        model_state,
        hparams,
        batch["inputs"],
        model=model,
        loss=loss,
        preprocess=preprocess,
    )
    per_example = loss.per_example(outputs, batch["targets"], hparams["loss"])
    return collect(outputs, probabilities, batch["targets"], batch["weights"], per_example)
