"""Narrower models: units are pruned while each seed trains on, and then cut out for good.

Masks are chosen while training, so that what is left makes up for what goes; slicing then takes out
what is 0. The result is an ordinary, smaller model that says what the masked one said.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

from jdlopt import config as configs
from jdlopt.compress.entry import Apply, Candidate, Given, Method, Train, TrainingBatches
from jdlopt.compress.pruned import why_not_pruned
from jdlopt.compress.slicing import sliced
from jdlopt.errors import ConfigError
from jdlopt.evidence.options import SIZE, SPEED
from jdlopt.models import pruning
from jdlopt.train.experiment import Experiment
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights, as_arrays

SHARES = (0.75, 0.5, 0.25)
"""Of each layer's units, that are left: widths are the same then, whatever the seed."""


def _section(share: float) -> dict[str, object]:
    """What a config says, to prune all but a share of each layer's units."""
    return {
        "model.prune.criterion": "magnitude",
        "model.prune.sparsity": 1.0 - share,
        "model.prune.structure": "units",
        "model.prune.scope": "layer",
    }


def cut_out(config: Config, weights: Weights, batches: TrainingBatches) -> tuple[Config, Weights]:
    """Returns a model without the channels that are 0; it says what it said with them."""
    found = sliced(config, weights)
    return found.config, found.weights


def _widths(given: Given) -> dict[float, dict[str, tuple[int, int]]]:
    """What each share would leave of each layer; shares that leave what a larger one does are out.

    Raises:
      ConfigError: the model has no units that can go, or how they are coupled is not known.
    """
    at_once = {**_section(SHARES[0]), "model.prune.start": 0.0, "model.prune.end": 0.0}
    experiment = Experiment.build(
        configs.override(given.config, at_once), given.experiment.data,
        learnt_before=given.experiment.learnt, check=False, begins=False,
    )  # fmt: skip
    model, inputs = experiment.components.model, experiment.seen(1)
    state = jax.jit(experiment.init)(experiment.config.seed).model_state
    kept = flatten_dict(given.weights.model_state)
    whole = unflatten_dict({**flatten_dict(state, keep_empty_nodes=True), **kept})

    @jax.jit  # of the pass through the model, only what chooses the masks is left
    def masked(params: PyTree, hparams: PyTree) -> PyTree:
        x = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), inputs)
        after = model.apply(params, whole, x, hparams, key=jax.random.key(0), train=True)[1]
        return _pruned(whole, after)

    found: dict[float, dict[str, tuple[int, int]]] = {}
    for share in SHARES:
        config = Config.from_dict(configs.to_dict(configs.override(
            experiment.config, {"model.prune.sparsity": 1.0 - share})))  # fmt: skip
        hparams = as_arrays(configs.hyperparameters(config))
        weights = given.weights.replace(
            model_state=masked(given.weights.params, hparams["model"]), hparams=hparams
        )
        widths = sliced(config, weights).widths
        narrower = any(before != after for before, after in widths.values())
        if narrower and widths not in found.values():
            found[share] = widths
    return found


def _pruned(before: PyTree, after: PyTree) -> dict[str, Array]:
    """A model's state in which only what pruning keeps is another one's."""
    flat = flatten_dict(before, keep_empty_nodes=True)
    own = {path: leaf for path, leaf in flatten_dict(after).items() if pruning.STATE in path}
    return unflatten_dict({**flat, **own})


def _why_not(given: Given) -> str | None:
    reason = why_not_pruned(given)
    if reason is not None:
        return reason
    try:
        if not _widths(given):
            return "No layer has units to spare: widths are multiples of 8."
    except ConfigError as error:
        return str(error)
    return None


def _candidates(given: Given) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            f"units_{round(100 * share)}",
            (Train(_section(share), rate=0.5), Apply("cut out what is 0", cut_out)),
        )
        for share in _widths(given)
    )


UNIT_PRUNING = Method(
    "unit_pruning", (SIZE, SPEED),
    "Prunes channels, heads and hidden units while it trains on, and cuts them out of the model.",
    "half a training, all shares together",
    "Li et al., Pruning filters for efficient ConvNets, 2017; Zhu and Gupta, To prune, or not to "
    "prune, 2018", _candidates, _why_not,
)  # fmt: skip
