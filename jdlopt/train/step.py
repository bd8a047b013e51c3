"""The one training step and the one evaluation step: pure functions, whole on one screen each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from jdlopt.data.coding import PAD
from jdlopt.data.preprocess import target
from jdlopt.losses import Loss, feature_distance
from jdlopt.models import Model, sown
from jdlopt.models.axes import BATCH, named
from jdlopt.models.intermediate import with_layers
from jdlopt.optim import Average, Freezing, joined
from jdlopt.train import scaling
from jdlopt.train.state import TrainState, Weights

Inputs: TypeAlias = PyTree[Array | np.ndarray]
"""One array, or named ones."""
Batch: TypeAlias = Mapping[str, Inputs]
"""``inputs`` [batch, …], ``targets`` [batch] or [batch, …]; in evaluation ``weights`` [batch]."""
Measured = dict[str, Float[Array, ""]]
"""What a step says of itself: ``loss``, ``grad_norm``, ``learning_rate`` and more, by name."""
TEACHER = "teacher"
"""What of a batch is its teacher's: see `Said`."""
LAYERS = "loss.distill.features"
"""The key that says which layers are to be like the teacher's."""
Collected = Mapping[str, Array]
"""What the metrics need of one batch, added up or joined over a split on the host."""


class Augment(Protocol):
    """Augments a batch and preprocesses it."""

    def __call__(
        self,
        key: Key[Array, ""],
        batch: Batch,
        strengths: Mapping[str, Array],
        preprocess: Callable[[Array], Array],
    ) -> Batch:
        """Returns the batch with ``inputs`` as the model takes them."""
        ...


class Said(NamedTuple):
    """What a teacher says of a batch.

    Attributes:
      outputs: as the loss takes them; of numbers, in the unit of the targets until `prepared`.
      layers: the outputs of its layers, where layers are learnt from.
    """

    outputs: Float[Array, "batch outputs"]
    layers: tuple[Array, ...] = ()


class Teacher(NamedTuple):
    """What a model learns from beside the targets (``loss.distill``).

    Attributes:
      says: ``(components, state, raw batch, inputs as the model takes them) → Said``. Pure.
      once: ``raw inputs → Said``, where what it says of an example is always the same: then it may
        be computed before the training, and be the batch's `TEACHER`. None: it isn't.
      layers: patterns of the model's own layers that are to be like the teacher's.
      record: which runs it is, each with its directory and its checkpoint; a run's own record
        keeps it.
    """

    says: Callable[[Components, TrainState, Batch, Inputs], Said]
    once: Callable[[Inputs], Said] | None
    layers: tuple[str, ...]
    record: tuple[Mapping[str, str], ...]


class Components(NamedTuple):
    """What a step is made of, all pure; `jdlopt.train.experiment.Experiment.build` makes it.

    Attributes:
      model, loss, optimizer, average, freezing: as their rooms make them.
      preprocess: ``(what it learnt, raw inputs) → model inputs``.
      augment: ``(key, batch, strengths, preprocess) → batch``; it preprocesses, since what changes
        pixels or waveforms comes before and what changes features or mixes examples comes after.
      learning_rate: ``(step, hparams, opt_state) → rate``, for the record.
      eval_params: ``(opt_state, params) → params``: those to evaluate, which an optimizer may keep
        in its state.
      measured: ``(outputs, targets) → values`` that a training step measures beside the loss.
      collect: ``(outputs, probabilities, targets, weights, losses, written or None) → collected``,
        what the metrics need of a batch.
      accumulate: micro-batches whose mean gradient makes the update; divides the batch size.
      loss_scale: makes the state of float16's loss scale, or an empty pytree.
      teacher: what else than the targets is learnt from, or None.
      teacher_forcing: ``(inputs as the model takes them, targets) → inputs``, with those that
        targets make (`jdlopt.tasks.Task`); None: there are none.
    """

    model: Model
    loss: Loss
    optimizer: optax.GradientTransformationExtraArgs
    average: Average
    freezing: Freezing
    preprocess: Callable[[PyTree, Array], Array]
    augment: Augment
    learning_rate: Callable[..., Float[Array, ""]]
    eval_params: Callable[[PyTree, PyTree], PyTree]
    measured: Callable[[Array, Array], Measured]
    collect: Callable[..., Collected]
    accumulate: int = 1
    loss_scale: Callable[[], PyTree] = tuple
    teacher: Teacher | None = None
    teacher_forcing: Callable[[Inputs, Array], Inputs] | None = None


class Predictions(NamedTuple):
    """What a model says of a batch.

    Attributes:
      outputs: the model's own; of numbers, in the unit of the targets.
      probabilities: of the classes or labels; None for a regression.
      scaled: the model's outputs as the loss takes them.
      spread: the standard deviation of the outputs over the models, where several predict numbers.
    """

    outputs: Float[Array, "batch *positions outputs"]
    probabilities: Float[Array, "batch *positions classes"] | None
    scaled: Float[Array, "batch *positions outputs"]
    spread: Float[Array, "batch outputs"] | None = None


def prepared(components: Components, state: TrainState, batch: Batch, key: Key[Array, ""]) -> Batch:
    """Returns a training batch as model and loss take it: augmented and preprocessed. Pure.

    Where there is a teacher, what it says of the batch is in it as `TEACHER`.
    """
    targets = target.scaled(state.preprocess, batch["targets"])
    made = components.augment(
        key,
        {**batch, "targets": targets, "step": state.step},
        state.hparams["augment"],
        partial(components.preprocess, state.preprocess),
    )
    if components.teacher_forcing is not None:
        made = {**made, "inputs": components.teacher_forcing(made["inputs"], made["targets"])}
    if components.teacher is None:
        return made
    return {**made, TEACHER: components.teacher.says(components, state, batch, made["inputs"])}


def objective(
    components: Components,
    params: PyTree,
    model_state: PyTree,
    batch: Batch,
    hparams: Mapping[str, PyTree],
    key: Key[Array, ""],
) -> tuple[Float[Array, ""], tuple[PyTree, Measured]]:
    """Computes what training minimises, of one `prepared` batch. Pure; its gradient is a step's.

    Returns:
      The loss with its penalties and what the model adds (`jdlopt.models.sown`); and the new model
      state with what is measured on the way.
    """
    chex.assert_equal_shape_prefix(
        jax.tree.leaves((batch["inputs"], batch["targets"])),
        1,
        custom_message="a batch has as many targets as inputs",
    )
    teacher, said = components.teacher, batch.get(TEACHER)
    given = (params, model_state, batch["inputs"], hparams["model"])
    (outputs, model_state), layers = with_layers(
        lambda: components.model.apply(*given, key=key, train=True),
        () if teacher is None else teacher.layers,
        LAYERS,
    )
    outputs = _rows(components.loss, outputs)
    taught = () if said is None else (said.outputs,)
    value = components.loss.objective(outputs, batch["targets"], params, hparams["loss"], *taught)
    if layers and said is not None:
        weight = hparams["loss"]["distill"]["feature_weight"]
        value += weight * feature_distance(layers, said.layers)
    model_state, added, beside = sown.taken(model_state)
    if added is not None:
        value += added
    return value, (model_state, beside | components.measured(outputs, batch["targets"]))


def train_step(
    components: Components, state: TrainState, batch: Batch
) -> tuple[TrainState, Measured]:
    """Makes one update. Pure: jit, vmap or shard it from outside.

    Args:
      components: what the step is made of.
      state: where training stands.
      batch: one global batch of raw inputs and targets.

    Returns:
      The next state, and the step's ``loss`` and ``grad_norm`` and what its task measures (such as
      ``accuracy``), measured before the update, and its ``learning_rate``; with a loss scale also
      what `jdlopt.train.scaling.settled` adds.
    """
    one_run = "train_step is of one run; for a population jax.vmap it over the states"
    chex.assert_rank([state.step, state.key], 0, custom_message=one_run)
    augment_key, model_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    batch = prepared(components, state, batch, augment_key)
    freezing = components.freezing
    trained, frozen = freezing.split(state.params)

    def gradients(trained: PyTree) -> tuple[PyTree, PyTree, Measured]:
        def of_trained(
            trained: PyTree, model_state: PyTree, part: Batch, key: Key[Array, ""]
        ) -> tuple[Float[Array, ""], tuple[PyTree, Measured]]:
            params = joined(trained, frozen)
            return objective(components, params, model_state, part, state.hparams, key)

        grad = scaling.value_and_grad(
            of_trained, state.loss_scale, partial(freezing.value_and_grad, step=state.step)
        )
        if components.accumulate == 1:
            (value, (model_state, measured)), grads = grad(
                trained, state.model_state, batch, model_key
            )
            return grads, model_state, {"loss": value, **measured}
        return _accumulated(
            grad, trained, state.model_state, batch, model_key, components.accumulate
        )

    grads, model_state, measured = gradients(trained)
    updates, opt_state = components.optimizer.update(
        grads,
        state.opt_state,
        trained,
        hparams=state.hparams["optim"],
        value=measured["loss"],
        grad_fn=lambda trained, *_: gradients(trained)[0],
    )
    params = joined(optax.apply_updates(trained, updates), frozen)
    rate = components.learning_rate(state.step, state.hparams["optim"], opt_state)
    step = state.step + 1
    after = state.replace(
        step=step,
        params=params,
        model_state=model_state,
        opt_state=opt_state,
        average=components.average.update(
            state.average, params, model_state, step, state.hparams["optim"].get("average", {})
        ),
    )
    measured = {**measured, "grad_norm": norm(grads), "learning_rate": rate}
    return scaling.settled(state, after, grads, measured) if state.loss_scale else (after, measured)


def weights_of(components: Components, state: TrainState) -> Weights:
    """Returns what a state predicts with; parameters are averaged where the config asks for it."""
    params = components.eval_params(state.opt_state, state.params)
    params, model_state = components.average.evaluated(state.average, params, state.model_state)
    return Weights(params, model_state, state.hparams, state.preprocess)


def _accumulated(
    grad: Callable[..., tuple[tuple[Array, tuple[PyTree, Measured]], PyTree]],
    params: PyTree,
    model_state: PyTree,
    batch: Batch,
    key: Key[Array, ""],
    parts: int,
) -> tuple[PyTree, PyTree, Measured]:
    """The mean gradient over micro-batches, one after the other, so that only one is in memory.

    A micro-batch is every ``parts``-th example: devices that hold examples in a row have as many of
    each, and so share the work on it without exchanging any.
    """
    split = jax.tree.map(
        lambda leaf: leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1), batch
    )

    def micro(
        carry: tuple[PyTree, PyTree], item: tuple[Batch, Key[Array, ""]]
    ) -> tuple[tuple[PyTree, PyTree], Measured]:
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


def _rows(loss: Loss, outputs: Float[Array, "*submodels_and_batch outputs"]) -> Array:
    """Outputs of which a device has whole rows: the largest of one is found without the others."""
    within = loss.positions + 1
    return named(outputs, (*(None,) * (outputs.ndim - 1 - within), BATCH, *(None,) * within))


def norm(tree: PyTree) -> Float[Array, ""]:
    """The global norm of a pytree; its sums as dot products, which XLA's CPU backend vectorises."""
    return jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)))


def predict_step(components: Components, weights: Weights, inputs: Inputs) -> Predictions:
    """Computes the outputs for raw inputs, and their class probabilities. Pure."""
    return predictions_of(components, weights, components.preprocess(weights.preprocess, inputs))


def predictions_of(components: Components, weights: Weights, inputs: Inputs) -> Predictions:
    """Computes the same for inputs as the model takes them. Pure."""
    outputs, _ = components.model.apply(
        weights.params,
        weights.model_state,
        inputs,
        weights.hparams["model"],
        key=None,
        train=False,
    )
    outputs = _rows(components.loss, outputs)
    probabilities = components.loss.probabilities
    found = None if probabilities is None else probabilities(outputs)
    return Predictions(target.unscaled(weights.preprocess, outputs), found, outputs)


def forced_predictions(
    components: Components, weights: Weights, inputs: Inputs, targets: Int[Array, "batch length"]
) -> Predictions:
    """Computes the outputs at each position of the targets, from those before it. Pure.

    Args:
      components: of a task with `jdlopt.tasks.Task.teacher_forcing`.
      weights: what predicts.
      inputs: a batch of raw inputs.
      targets: its targets.
    """
    assert components.teacher_forcing is not None
    seen = components.preprocess(weights.preprocess, inputs)
    return predictions_of(components, weights, components.teacher_forcing(seen, targets))


def averaged_predict_step(
    components: Components, weights: Weights, inputs: Inputs, *, draws: int, seed: int = 0
) -> Predictions:
    """Predicts like `predict_step`, averaged over the batch as it is and augmented copies. Pure.

    Class probabilities are averaged, and the outputs are such as give their mean; of a regression
    the outputs are. Test-time augmentation: Krizhevsky, Sutskever and Hinton, 2012.

    Args:
      components: of the step; its ``augment`` must not mix examples.
      weights: what predicts.
      inputs: a batch of raw inputs.
      draws: how many augmented copies of each example.
      seed: of the draws.
    """
    preprocess = partial(components.preprocess, weights.preprocess)
    rows = len(jax.tree.leaves(inputs)[0])

    def drawn(draw: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), draw)
        batch = {"inputs": inputs, "targets": jnp.zeros(rows, jnp.int32), "step": draw}
        augmented = components.augment(key, batch, weights.hparams["augment"], preprocess)
        one = predictions_of(components, weights, augmented["inputs"])
        return one.scaled if one.probabilities is None else one.probabilities

    plain = predict_step(components, weights, inputs)
    first = plain.scaled if plain.probabilities is None else plain.probabilities
    mean = (first + jax.lax.map(drawn, jnp.arange(draws)).sum(axis=0)) / (draws + 1)
    link = components.loss.link
    if link is None:
        return Predictions(target.unscaled(weights.preprocess, mean), None, mean)
    outputs = link.outputs(mean, plain.outputs.shape[-1])
    return Predictions(outputs, mean, outputs)


def per_example(
    components: Components,
    weights: Weights,
    predicted: Predictions,
    targets: Num[Array, "batch *k"],
) -> Float[Array, " batch"]:
    """Returns the loss of each example, without penalties and class weights. Pure.

    Args:
      components, weights: that predicted.
      predicted: of a batch.
      targets: its targets, in their own unit.
    """
    of_loss = target.scaled(weights.preprocess, targets)
    return components.loss.per_example(predicted.scaled, of_loss, weights.hparams["loss"])


def evaluate_step(
    components: Components,
    weights: Weights,
    batch: Batch,
    predict: Callable[[Components, Weights, Array], Predictions] = predict_step,
) -> Collected:
    """Collects what the metrics need of one padded batch; ``weights`` are 0 on padding. Pure.

    Of a task whose targets make inputs, outputs are those after the targets' own tokens. What is
    written from the inputs alone is computed where a metric asks for it.
    """
    inputs, targets = batch["inputs"], batch["targets"]
    if components.teacher_forcing is None:
        found, written = predict(components, weights, inputs), None
    else:
        found = forced_predictions(components, weights, inputs, targets)

        def written() -> Array:
            return predict(components, weights, inputs).outputs

    if components.loss.together:  # padding is nothing to be compared with
        targets = jnp.where(batch["weights"] > 0, targets, PAD)
    each = per_example(components, weights, found, targets)
    return components.collect(
        found.outputs, found.probabilities, targets, batch["weights"], each, written
    )
