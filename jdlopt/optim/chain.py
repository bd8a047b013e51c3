"""From a config's ``optim`` section to one optax transformation with traced hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree
from optax import contrib

from jdlopt.config import (
    Count,
    NonNegative,
    Positive,
    Scalar,
    Value,
    fields_of,
    find_part,
    own_keys,
    shared_keys,
)
from jdlopt.errors import ConfigError
from jdlopt.optim import transforms
from jdlopt.optim.average import AverageFields
from jdlopt.optim.groups import (
    NO_DECAY,
    REST,
    GroupFields,
    check_groups,
    decay_mask,
    joined,
    labels_of,
    layers_from_top,
    matching,
    members,
)
from jdlopt.optim.optimizers import OPTIMIZERS
from jdlopt.optim.schedules import ScheduleFields, Step, make_schedule, plateau_keys


@dataclass(frozen=True)
class OptimFields:
    """The ``optim`` section: the keys that every optimizer has, and the named optimizer's own.

    An optimizer's own key of the same name goes before (`adamw` decays by default).

    Attributes:
      name: an `OPTIMIZERS` entry, or ``package.module:function`` of the same signature.
      learning_rate: the step size that the schedule's factor multiplies.
      weight_decay: decoupled: each step takes ``learning_rate · weight_decay · w`` off the weights
        w; None: none.
      decay_exclude: regular expressions of the parameter paths that don't decay.
      clip_value: the largest absolute value of any gradient's entry.
      clip_adaptive: the largest ratio of a unit's gradient norm to its weights' norm.
      clip_norm: the largest global norm of the gradient. Of several clips, this is the last.
      accumulate: micro-batches whose mean gradient makes one update.
      freeze: regular expressions of the parameter paths that are never trained: no backward pass,
        no state, no decay, no part in a clipped norm.
      schedule, average: the sections of these names.
      groups: each group of parameters that is trained in its own way, by its name.
      options: the optimizer's own keys.
    """

    name: str = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative | None = None
    decay_exclude: tuple[str, ...] = NO_DECAY
    clip_value: Positive | None = None
    clip_adaptive: Positive | None = None
    clip_norm: Positive | None = None
    accumulate: Count = 1
    freeze: tuple[str, ...] = ()
    schedule: ScheduleFields = field(default_factory=ScheduleFields)
    average: AverageFields = field(default_factory=AverageFields)
    groups: Mapping[str, GroupFields] = field(default_factory=dict)
    options: Mapping[str, Value] = own_keys()


class OptimizerState(NamedTuple):
    """What an optimizer remembers: a plain pytree of arrays.

    Attributes:
      step: updates made so far.
      inner: the named optimizer's own state.
      plateau: the reductions so far (`transforms.PlateauState`), or empty.
      groups: the state of each group's optimizer; ``inner`` knows nothing of their parameters.
    """

    step: Int[Array, ""]
    inner: PyTree
    plateau: PyTree
    groups: dict[str, PyTree]


CLIPS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "clip_value": optax.clip,
    "clip_adaptive": transforms.clip_adaptively,
    "clip_norm": transforms.clip_by_norm,
}
SHARED = shared_keys(OptimFields)
GROUP_SHARED = shared_keys(GroupFields)


def complete(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an ``optim`` section with the keys that it leaves out at their defaults.

    Raises:
      ConfigError: an optimizer's name is unknown.
    """
    given = {"name": OptimFields.name, "schedule": {}, "average": {}, "groups": {}, **section}
    groups = {
        name: _filled(group, GroupFields, f"optim.groups.{name}.name")
        for name, group in given["groups"].items()
    }
    return {**_filled(given, OptimFields, "optim.name"), "groups": groups}


def _filled(given: Mapping[str, object], shared: type, what: str) -> dict[str, object]:
    fields = fields_of(shared)
    if given.get("name") is not None:
        fields |= fields_of(find_part(given["name"], OPTIMIZERS, what))
    return {**{key: field.default for key, field in fields.items()}, **given}


def _of_group(base: Mapping[str, object], group: Mapping[str, object]) -> dict[str, Any]:
    """A group's keys as ``optim``'s own would be: its optimizer's, and what it leaves to them."""
    named = group["name"] is not None
    own = (
        {key: value for key, value in group.items() if key not in GROUP_SHARED}
        if named
        else {key: value for key, value in base.items() if key not in SHARED}
    )
    given = {
        key: base[key] if group[key] is None else group[key]
        for key in ("name", "learning_rate", "weight_decay")
    }
    return {**given, **own, "decay_exclude": base["decay_exclude"]}


def _transformation(values: Mapping[str, Any], learning_rate: Any) -> Any:
    """The optimizer of a section's values, some of them traced, at a step's learning rate."""
    add_decay = optax.identity()
    if values["weight_decay"] is not None:
        mask = partial(decay_mask, exclude=values["decay_exclude"])
        add_decay = optax.add_decayed_weights(values["weight_decay"], mask)
    entry = find_part(values["name"], OPTIMIZERS, "optim.name")
    own = {key: value for key, value in values.items() if key not in SHARED}
    return optax.with_extra_args_support(entry(learning_rate, add_decay, **own))


def make_optimizer(
    section: Mapping[str, Any], total_steps: int
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer of a config's ``optim`` section.

    Its ``update`` takes, beside gradients, state and parameters:
      hparams: the section's floats (``{"learning_rate": …, "schedule": {…}}``), traced; one that is
        missing has the section's value.
      value: the step's training loss (for ``reduce_on_plateau``).
      grad_fn: parameters → gradients on the same batch (for ``sam``).

    Args:
      section: the section, nested; what it leaves out has its default.
      total_steps: updates in the whole training.

    Raises:
      ConfigError: a name or pattern is wrong, or two settings exclude each other.

    Example:
      >>> section = {"name": "sgd", "learning_rate": 0.5, "clip_norm": 1.0}
      >>> optimizer = make_optimizer(section, total_steps=100)
      >>> params = {"kernel": jnp.array([1.0, 2.0])}
      >>> state = optimizer.init(params)
      >>> grads = {"kernel": jnp.array([3.0, 4.0])}
      >>> hparams = {"learning_rate": jnp.float32(0.1), "clip_norm": jnp.float32(5.0)}
      >>> print(optimizer.update(grads, state, params, hparams=hparams)[0]["kernel"])
      [-0.3 -0.4]
    """
    section = complete(section)
    _check(section)
    factor = make_schedule(section["schedule"], total_steps)
    plateau = plateau_keys(section["schedule"], total_steps)
    clips = [key for key in CLIPS if section[key] is not None]
    groups, of = section["groups"], partial(members, labels_of(section))

    def init(params: PyTree) -> OptimizerState:
        check_groups(section, params)
        return OptimizerState(
            step=jnp.zeros((), jnp.int32),
            inner=_transformation(section, section["learning_rate"]).init(of((REST,), params)),
            plateau=() if plateau is None else transforms.init_plateau(),
            groups={
                name: _transformation(_of_group(section, group), section["learning_rate"]).init(
                    of((name,), params)
                )
                for name, group in groups.items()
            },
        )

    def update(
        grads: PyTree,
        state: OptimizerState,
        params: PyTree,
        *,
        hparams: PyTree,
        value: Scalar | None = None,
        grad_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, OptimizerState]:
        chex.assert_trees_all_equal_shapes(
            grads, params, custom_message="a gradient has the shapes of its parameters"
        )
        values = {**section, **hparams}
        scheduled = hparams.get("schedule", {})
        grads, params = (of((REST, *groups), tree) for tree in (grads, params))
        scale = factor(state.step, scheduled)
        reduced = state.plateau
        if plateau is not None:
            if value is None:
                raise ValueError("reduce_on_plateau needs update(..., value=): the step's loss.")
            floats = {key: item for key, item in scheduled.items() if key in plateau}
            reduced = transforms.update_plateau(reduced, value, **{**plateau, **floats})
            scale = scale * reduced.scale

        def clipped(grads: PyTree, at: PyTree) -> PyTree:
            for key in clips:
                grads, _ = CLIPS[key](values[key]).update(grads, optax.EmptyState(), at)
            return grads

        if grad_fn is not None:
            extra["grad_fn"] = lambda at: clipped(grad_fn(at), at)
        grads = clipped(grads, params)

        def updated(name: str, values: Mapping[str, Any], state: PyTree) -> tuple[PyTree, PyTree]:
            own = _transformation(values, values["learning_rate"] * scale)
            return own.update(of((name,), grads), state, of((name,), params), value=value, **extra)

        def of_group(name: str) -> tuple[PyTree, PyTree]:
            keys = {**groups[name], **hparams.get("groups", {}).get(name, {})}
            own = _of_group(values, keys)
            own["learning_rate"] = own["learning_rate"] * keys["learning_rate_scale"]
            mine = of((name,), params)

            def moved(state: PyTree) -> tuple[PyTree, PyTree]:
                updates, state = updated(name, own, state)
                if keys["layer_decay"] is not None:
                    above = layers_from_top(name, keys["params"], mine)
                    decay = jnp.asarray(keys["layer_decay"])
                    updates = jax.tree.map(
                        lambda u, layers: u * (decay**layers).astype(u.dtype), updates, above
                    )
                return updates, state

            def held(state: PyTree) -> tuple[PyTree, PyTree]:
                # -0.0 is what leaves every number as it is: 0.0 would turn -0.0 into itself
                return jax.tree.map(lambda leaf: jnp.full_like(leaf, -0.0), mine), state

            if not keys["unfreeze_at"]:
                return moved(state.groups[name])
            unfrozen = state.step >= keys["unfreeze_at"]
            return jax.lax.cond(unfrozen, moved, held, state.groups[name])

        rest, inner_state = updated(REST, values, state.inner)
        moves = {name: of_group(name) for name in groups}
        updates = joined(rest, *(updates for updates, _ in moves.values()))
        states = {name: own for name, (_, own) in moves.items()}
        return updates, OptimizerState(state.step + 1, inner_state, reduced, states)

    return optax.GradientTransformationExtraArgs(init, update)


def _check(section: Mapping[str, Any]) -> None:
    """Raises what is wrong with a section before anything is traced."""
    matching({}, section["decay_exclude"], "optim.decay_exclude")
    average = section["average"].get("name", "none")
    groups = section["groups"]
    names = {"optim": section["name"]}
    names |= {f"optim.groups.{name}": group["name"] for name, group in groups.items()}
    for where, name in names.items():
        if name == "schedule_free_adamw" and average != "none":
            raise ConfigError(
                f"optim.average.name is {average!r}, but {where}.name 'schedule_free_adamw' "
                "averages the parameters itself: set optim.average.name to 'none'."
            )
        if name == "sam" and groups:
            raise ConfigError(
                f"{where}.name: 'sam' looks for the worst point of all parameters together and "
                "can't be one of several optimizers: leave optim.groups out, or choose another."
            )
    for name, group in groups.items():
        own = group["name"] or section["name"]
        if group["layer_decay"] is not None and own == "schedule_free_adamw":
            raise ConfigError(
                f"optim.groups.{name}.layer_decay: 'schedule_free_adamw' weighs its average by one "
                "learning rate: leave layer_decay out, or make a group of each layer."
            )


def learning_rate_at(
    section: Mapping[str, object],
    total_steps: int,
    step: Step,
    hparams: PyTree,
    opt_state: OptimizerState | None = None,
) -> Float[Array, ""]:
    """Returns the learning rate of one step, for logs.

    Args:
      section: the ``optim`` section.
      total_steps: updates in the whole training.
      step: how many updates were made before it.
      hparams: the section's floats.
      opt_state: the optimizer's state after the step; without it the reductions of
        ``reduce_on_plateau`` are left out.
    """
    section = complete(section)
    factor = make_schedule(section["schedule"], total_steps)
    base = hparams.get("learning_rate", section["learning_rate"])
    rate = base * factor(step, hparams.get("schedule", {}))
    if opt_state is not None and isinstance(opt_state.plateau, transforms.PlateauState):
        rate = rate * opt_state.plateau.scale
    return rate


def eval_params(section: Mapping[str, Any], opt_state: OptimizerState, params: PyTree) -> PyTree:
    """Returns the parameters to evaluate: schedule-free's average, or for all others ``params``.

    Args:
      section: the ``optim`` section.
      opt_state: the optimizer's state.
      params: the parameters, trained and frozen.
    """
    label = labels_of(section)
    states = {REST: opt_state.inner, **opt_state.groups}
    averages = []
    for name, state in states.items():
        own = section["groups"][name].get("name") if name else None
        if (own or section.get("name")) == "schedule_free_adamw":
            mine = members(label, (name,), params)
            averages.append(contrib.schedule_free_eval_params(state, mine))
    return joined(*averages, params) if averages else params
