"""The training step of an experiment, traced for an estimate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, PyTree

from jdlopt.optim import joined
from jdlopt.plan.analytic import Workload
from jdlopt.plan.held import whole_model
from jdlopt.plan.traced import trace
from jdlopt.train.components import model_of, shaped
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import TrainState
from jdlopt.train.step import TEACHER, Components, objective, prepared

SEEN = ("inputs", "targets", TEACHER)
"""What of a prepared batch has an entry for each example."""


def workload_of(experiment: Experiment, batch: PyTree = None, state: PyTree = None) -> Workload:
    """Traces an experiment's loss and gradient, for estimates on any number of meshes.

    Augmentation and preprocessing of the raw batch are left out, and so is the update but for its
    bytes. No array is made.

    Args:
      experiment: what is trained.
      batch, state: shapes of a prepared batch and of a state, where they are known.
    """
    components = experiment.components
    state = state_of(experiment) if state is None else state
    batch = batch_of(experiment, state) if batch is None else batch
    trained, frozen = components.freezing.split(state.params)
    rest = (frozen, state.model_state, state.hparams, _key())
    traced = trace(
        partial(_loss, components),
        trained,
        batch,
        *rest,
        frozen=1,
        placing=whole_model(experiment.config.mesh.rules),
    )
    resident = experiment.dataset is not None and not experiment.streams
    return Workload(
        traced=traced,
        params=trained,
        beside=_beside(state),
        rules=experiment.config.mesh.rules,
        data_bytes=experiment.data.nbytes("train") if resident else 0,
    )


def state_of(experiment: Experiment) -> TrainState:
    """Returns the shapes of an experiment's state."""
    return jax.eval_shape(partial(experiment.init, 0))


def batch_of(experiment: Experiment, state: TrainState) -> dict[str, PyTree]:
    """Returns the shapes of a batch as the loss takes it."""
    spec = experiment.spec
    raw = {
        "inputs": shaped(spec.inputs, 2),
        "targets": jax.ShapeDtypeStruct((2, *spec.target_shape), spec.target_dtype),
    }
    batch = jax.eval_shape(partial(prepared, experiment.components), state, raw, _key())
    return {name: batch[name] for name in SEEN if name in batch}


def workloads(experiment: Experiment) -> Callable[[Mapping[str, Any]], Workload]:
    """Returns what traces an experiment whose model has other keys, each once.

    ``remat`` changes nothing of a state, and no key of those that a search changes anything of a
    batch, so their shapes are found once.
    """
    known: dict[tuple[tuple[str, Any], ...], Workload] = {}
    states: dict[object, TrainState] = {}
    batches: list[dict[str, PyTree]] = []

    def of(model: Mapping[str, Any]) -> Workload:
        key = tuple(sorted(model.items()))
        if key not in known:
            other, stacked = changed(experiment, model), model.get("scan_layers")
            if stacked not in states:
                states[stacked] = state_of(other)
            if not batches:
                batches.append(batch_of(other, states[stacked]))
            known[key] = workload_of(other, batches[0], states[stacked])
        return known[key]

    return of


def _loss(
    components: Components,
    trained: PyTree,
    batch: Mapping[str, PyTree],
    frozen: PyTree,
    model_state: PyTree,
    hparams: Mapping[str, PyTree],
    key: Array,
) -> Array:
    params = joined(trained, frozen)
    return objective(components, params, model_state, batch, hparams, key)[0]


def _beside(state: TrainState) -> dict[str, PyTree]:
    """What a state keeps beside the parameters, by what it is called in an estimate."""
    return {
        "optimizer": state.opt_state,
        "average": state.average,
        "model_state": state.model_state,
    }


def changed(experiment: Experiment, model: Mapping[str, Any]) -> Experiment:
    """Returns an experiment whose model has other keys, none of them a size."""
    section = experiment.config.model
    config = replace(
        experiment.config, model=replace(section, options={**section.options, **model})
    )
    made = model_of(config, experiment.spec, experiment.recipe)
    components = experiment.components._replace(model=made)
    return replace(experiment, config=config, components=components)


def _key() -> Array:
    return jax.eval_shape(lambda: jax.random.key(0))
