"""Narrower models: units are pruned while each seed trains on, and then cut out for good.

Masks are chosen while training, so that what is left makes up for what goes; slicing then takes out
what is 0. The result is an ordinary, smaller model that says what the masked one said.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

from jdlopt import config as configs
from jdlopt.compress.entry import Apply, Candidate, Given, Method, Train, TrainingBatches
from jdlopt.compress.pruned import why_not_pruned
from jdlopt.compress.sliced_width import SHARES, Widths, narrower
from jdlopt.compress.slicing import sliced
from jdlopt.evidence.options import SIZE, SPEED
from jdlopt.models import pruning
from jdlopt.train.experiment import Experiment
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights, as_arrays


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


def _widths(given: Given) -> Callable[[float], Widths]:
    """Returns what a share of the units would leave of each layer.

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

    def widths_at(share: float) -> Widths:
        config = Config.from_dict(configs.to_dict(configs.override(
            experiment.config, {"model.prune.sparsity": 1.0 - share})))  # fmt: skip
        hparams = as_arrays(configs.hyperparameters(config))
        weights = given.weights.replace(
            model_state=masked(given.weights.params, hparams["model"]), hparams=hparams
        )
        return sliced(config, weights).widths

    return widths_at


def _pruned(before: PyTree, after: PyTree) -> dict[str, Array]:
    """A model's state in which only what pruning keeps is another one's."""
    flat = flatten_dict(before, keep_empty_nodes=True)
    own = {path: leaf for path, leaf in flatten_dict(after).items() if pruning.STATE in path}
    return unflatten_dict({**flat, **own})


def _candidates(given: Given) -> tuple[Candidate, ...]:
    """One for each share.

    Raises:
      ConfigError: the model can't be sliced, or has nothing to spare.
    """
    return tuple(
        Candidate(
            f"units_{round(100 * share)}",
            (Train(_section(share), rate=0.5), Apply("cut out what is 0", cut_out)),
        )
        for share in narrower(_widths(given), "units")
    )


UNIT_PRUNING = Method(
    "unit_pruning", (SIZE, SPEED),
    "Prunes channels, heads and hidden units while it trains on, and cuts them out of the model.",
    "half a training, all shares together",
    "Li et al., Pruning filters for efficient ConvNets, 2017; Zhu and Gupta, To prune, or not to "
    "prune, 2018", _candidates, why_not_pruned,
)  # fmt: skip
