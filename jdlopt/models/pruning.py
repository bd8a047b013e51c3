"""Pruning while training: a model whose weights are masked, the masks part of its state."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

from jdlopt.errors import ConfigError
from jdlopt.kernels.branches import largest_of_all
from jdlopt.models.bridge import Model
from jdlopt.models.pruning_plan import (
    KERNEL,
    Flat,
    check,
    chosen_masks,
    is_due,
    plan_of,
    schedule_of,
    sparsity_at,
    whole,
)
from jdlopt.models.units import Path, name_of

STATE, SCORES = "pruning", "pruning_scores"
"""Where masks and counter are in the model's state, and scores among its parameters."""
MEMORY = 0.9
"""What a step multiplies the older steps' part of ``gradient`` scores by."""
SMALL = 2.0**-10
"""Scales the scores' gradients, so that the gradient norm that is logged is that of the weights."""
STACKED = re.compile(r"^(model/)?layers/(?!\d)")
"""The kernels of a model with ``scan_layers``: one array for all layers."""

# --- the model ------------------------------------------------------------------------------------


def with_masks(
    model: Model,
    section: Mapping[str, Any],
    *,
    steps: int,
    calls: int = 1,
    heads: int | None = None,
    stacked: str = "$^",
) -> Model:
    """Returns a model that is pruned while it is trained, and computes with what is left.

    Its state holds ``{"pruning": {"masks": …, "step": …}}`` beside the model's own. A mask has its
    parameter's shape, or one that broadcasts to it. In training mode masks are chosen anew at every
    ``every``-th call between ``start`` and ``end``; all trials of a population do so in the same
    calls, and other calls cost nothing. What is pruned has no gradient. By ``magnitude`` and
    ``gradient`` it stays pruned; by ``movement`` it may come back.

    ``gradient`` and ``movement`` have scores among the parameters (``pruning_scores``), whose
    gradient is ``weight · gradient`` of the whole kernel, masked or not; `scored` makes an
    optimizer add them up. Molchanov et al., "Importance estimation for neural network pruning",
    2019 (gradient); Sanh, Wolf and Rush, "Movement pruning", 2020; Mishra et al., "Accelerating
    sparse deep neural networks", 2021 (N:M).

    Args:
      model: what is pruned.
      section: ``model.prune``; floats in ``hparams["prune"]`` of a call go before it.
      steps: updates in the whole training.
      calls: of the model in each.
      heads: of attention, if there is any.
      stacked: finds the paths of parameters that have a leading axis of layers.

    Raises:
      ConfigError: the section is wrong, or (from ``init``) its patterns choose nothing, or what
        can't be pruned so.
    """
    check(section)

    def init(key: Array, inputs: PyTree, hparams: PyTree) -> tuple[PyTree, PyTree]:
        params, state = model.init(key, inputs, _own(hparams))
        flat = flatten_dict(params)
        shapes = {path: leaf.shape for path, leaf in flat.items()}
        plan = plan_of(section, shapes, heads, stacked)
        if section["criterion"] != "magnitude":
            scores = {path: jnp.zeros(shapes[path]) for path in plan.kernels}
            params = {**params, SCORES: unflatten_dict(scores)}
        masks = unflatten_dict(whole(plan, shapes))
        return params, {**state, STATE: {"masks": masks, "step": jnp.zeros((), jnp.int32)}}

    def advanced(params: Flat, scores: Flat, state: PyTree, hparams: PyTree) -> PyTree:
        call, old = state["step"], flatten_dict(state["masks"])
        schedule = schedule_of(section, hparams.get("prune", {}), steps, calls)
        plan = plan_of(section, {p: one.shape for p, one in params.items()}, heads, stacked)
        due = is_due(call, schedule)

        def anew(old: Flat) -> Flat:
            found = {path: _score(section, params, scores, path) for path in plan.kernels}
            made = chosen_masks(plan, found, old, sparsity_at(call, schedule))
            # in a population, other trials may be due
            return {path: jnp.where(due > 0, made[path], mask) for path, mask in old.items()}

        masks = jax.lax.cond(largest_of_all(due) > 0, anew, lambda old: old, old)
        return {"masks": unflatten_dict(masks), "step": call + 1}

    def apply(
        params: PyTree,
        state: PyTree,
        inputs: PyTree[Array],
        hparams: PyTree,
        *,
        train: bool,
        updates: Collection[str] = (),
        **options: object,
    ) -> tuple[Array, PyTree]:
        own, pruning = _without(state, STATE), state[STATE]
        scores = flatten_dict(params.get(SCORES, {}))
        flat = flatten_dict(_without(params, SCORES))
        # weights that are saved have no scores: then masks are as they were saved
        if train and (scores or section["criterion"] == "magnitude"):
            fixed = jax.lax.stop_gradient((flat, scores))
            pruning = advanced(*fixed, pruning, hparams)
        for path, mask in flatten_dict(pruning["masks"]).items():
            if path in scores:
                flat[path] = _straight_through(flat[path], scores[path], mask)
            else:
                flat[path] = _masked(flat[path], mask)
        outputs, own = model.apply(
            unflatten_dict(flat),
            own,
            inputs,
            _own(hparams),
            train=train,
            updates=updates,
            **options,
        )
        return outputs, ({**own, STATE: pruning} if train or updates else state)

    return Model(init, apply)


def _own(hparams: PyTree) -> dict[str, object]:
    return _without(hparams, "prune")


def _without(tree: Mapping[Any, Any], key: str) -> dict[Any, Any]:
    return {name: value for name, value in tree.items() if name != key}


def _score(section: Mapping[str, Any], params: Flat, scores: Flat, path: Path) -> Array:
    """The scores of a kernel's weights; of units, what adds up to a unit's."""
    if section["criterion"] != "magnitude":
        return scores[path]
    kernel = params[path].astype(jnp.float32)
    return jnp.square(kernel) if section["structure"] == "units" else jnp.abs(kernel)


def _masked(leaf: Array, mask: Array) -> Array:
    return jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))


@jax.custom_vjp
def _straight_through(kernel: Array, scores: Array, mask: Array) -> Array:
    """Masks a kernel; its scores' gradient is what a mask of theirs, passed through, would have."""
    del scores
    return _masked(kernel, mask)


def _forward(kernel: Array, scores: Array, mask: Array) -> tuple[Array, tuple[Array, Array]]:
    del scores
    return _masked(kernel, mask), (kernel, mask)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array, None]:
    kernel, mask = kept
    return _masked(gradient, mask), SMALL * kernel * gradient, None


_straight_through.defvjp(_forward, _backward)


def scored(
    optimizer: optax.GradientTransformationExtraArgs, criterion: str | None
) -> optax.GradientTransformationExtraArgs:
    """Returns an optimizer that adds up scores, and makes all other updates as before.

    So scores mean the same whatever the optimizer, its clips, decay and groups: the sum of
    ``-weight · gradient`` (Sanh et al.'s, of learning rate 1) or a mean of its absolute value.

    Args:
      optimizer: of the weights; it never sees a score.
      criterion: ``model.prune.criterion``.
    """
    if criterion in (None, "magnitude"):
        return optimizer

    def moved(score: Array, gradient: Array) -> Array:
        if criterion == "movement":
            return -gradient / SMALL
        return (1 - MEMORY) * (jnp.abs(gradient) / SMALL - score)

    def joined(updates: PyTree, params: PyTree, grads: PyTree) -> PyTree:
        if not isinstance(params, Mapping):
            return updates
        return {
            key: jax.tree.map(moved, one, grads[key])
            if key == SCORES
            else joined(updates[key], one, grads[key])
            for key, one in params.items()
        }

    def init(params: PyTree) -> Any:
        return optimizer.init(without_scores(params))

    def update(
        grads: PyTree, state: PyTree, params: PyTree, **extra: object
    ) -> tuple[PyTree, PyTree]:
        updates, state = optimizer.update(
            without_scores(grads), state, without_scores(params), **extra
        )
        return joined(updates, params, grads), state

    return optax.GradientTransformationExtraArgs(init, update)


def without_scores(params: PyTree) -> PyTree:
    """Returns parameters as the model without pruning has them."""
    if not isinstance(params, Mapping):
        return params
    return {key: without_scores(one) for key, one in params.items() if key != SCORES}


# --- what comes out -------------------------------------------------------------------------------


def applied(params: PyTree, state: PyTree) -> PyTree:
    """Returns the weights that predict, without scores: exactly 0 where they are pruned. Pure.

    Args:
      params, state: of a pruned model, or of an ensemble of such; others come back as they are.
    """
    if not (isinstance(params, Mapping) and isinstance(state, Mapping)):
        return params
    if STATE not in state:
        return {
            key: applied(one, state[key]) if key in state else one for key, one in params.items()
        }
    flat = flatten_dict(_without(params, SCORES))
    for path, mask in flatten_dict(state[STATE]["masks"]).items():
        flat[path] = _masked(*map(jnp.asarray, (flat[path], mask)))  # the host's, too
    return unflatten_dict(flat)


def without_masks(state: PyTree) -> PyTree:
    """Returns a model's state, or that of each model of an ensemble, without what pruning keeps."""
    if not isinstance(state, Mapping):
        return state
    return {key: without_masks(one) for key, one in state.items() if key != STATE}


def masks_of(state: PyTree) -> dict[Path, PyTree]:
    """Returns the masks in a model's state, or an ensemble's, by the paths of their parameters.

    Args:
      state: arrays, or their shapes.
    """
    found: dict[Path, PyTree] = {}
    for path, mask in flatten_dict(state).items():
        if STATE in path and "masks" in path:
            at = path.index(STATE)
            found[(*path[:at], *path[at + 2 :])] = mask
    return found


def kept_channels(params: PyTree, state: PyTree) -> dict[str, np.ndarray]:
    """Returns which output channels of each pruned kernel have a weight left.

    Args:
      params, state: of one pruned model.

    Returns:
      By the kernel's path, ``a/b/kernel``: whether a channel is left, [outputs]; of layers in one
      array, [layers, outputs].

    Raises:
      ConfigError: a layer is left without channels.
    """
    flat, found = flatten_dict(without_scores(params)), {}
    for path, mask in flatten_dict(state.get(STATE, {}).get("masks", {})).items():
        if not KERNEL.search(name_of(path)) or flat[path].ndim < 2:
            continue
        layers = int(bool(STACKED.search(name_of(path))))
        axes = tuple(range(layers, flat[path].ndim - 1))
        kept = np.any(np.asarray(mask), axis=axes)
        assert isinstance(kept, np.ndarray)
        if not kept.any(axis=-1).all():
            raise ConfigError(
                f"model.prune: the layer {name_of(path[:-1])!r} is left without channels. Prune "
                "less (model.prune.sparsity), or a share of each layer (model.prune.scope='layer')."
            )
        found[name_of(path)] = kept
    return found


def sparsity_of(params: PyTree, state: PyTree) -> dict[str, Any]:
    """Returns how much of a model is pruned, for its record.

    Args:
      params, state: of a pruned model, or of an ensemble of such.

    Returns:
      ``sparsity``, the share of the weights of all chosen parameters that is 0; ``weights``, how
      many are left; and ``layers``, the share of each.
    """
    layers, left, total = {}, 0, 0
    flat = flatten_dict(params)
    for own, mask in masks_of(state).items():
        kernel = flat[own]
        if kernel.ndim < 2:
            continue
        kept = int(jnp.sum(mask, dtype=jnp.int32)) * (kernel.size // mask.size)
        layers[name_of(own)] = round(1 - kept / kernel.size, 6)
        left, total = left + kept, total + kernel.size
    return {"sparsity": round(1 - left / max(1, total), 6), "weights": left, "layers": layers}


def rewound(
    early: tuple[PyTree, PyTree], state: PyTree
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns where the next round of a lottery ticket starts: early weights, masked. Pure.

    Iterative magnitude pruning with rewinding: Frankle and Carbin, "The lottery ticket hypothesis",
    2019; Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", 2020. The
    round's own ``sparsity`` is the next one; what was pruned stays so.

    Args:
      early: parameters and state of the run's first step, or of an early one.
      state: at the end of the round.

    Returns:
      ``(params, state)`` by path, as `jdlopt.train.experiment.Experiment.init` takes them.
    """
    params, beside = early
    masks = {STATE: {"masks": state[STATE]["masks"], "step": jnp.zeros((), jnp.int32)}}
    start = applied(without_scores(params), masks), {**beside, **masks}
    by_path = [{name_of(path): leaf for path, leaf in flatten_dict(one).items()} for one in start]
    return by_path[0], by_path[1]
