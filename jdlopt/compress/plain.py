"""A run's model without what was wrapped around it: masks applied, adapters merged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jaxtyping import PyTree

from jdlopt import config as configs
from jdlopt.models import ModelFields, PruneFields, lora, pruning
from jdlopt.models.ensemble import member_names
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights, as_arrays


def plain_model(config: Config, weights: Weights) -> tuple[Config, Weights]:
    """Returns a model's own parameters: masks applied, adapters merged, nothing to start from.

    Args:
      config: resolved; ``model.prune``, ``model.lora_rank`` and ``model.pretrained`` become None.
      weights: its own.
    """
    model, optim = config.model, config.optim
    params = pruning.applied(weights.params, weights.model_state)
    if model.lora_rank is not None:
        params = lora.merged(params, weights.hparams["model"].get("lora_alpha"))
        freeze = tuple(one for one in optim.freeze if not one.startswith("^base/"))
        optim = dataclasses.replace(optim, freeze=freeze)
    model = dataclasses.replace(
        model,
        pretrained=None,
        lora_rank=None,
        lora_alpha=None,
        lora_patterns=ModelFields.lora_patterns,
        prune=PruneFields(),
    )
    config = dataclasses.replace(config, model=model, optim=optim)
    left = as_arrays(configs.hyperparameters(config)["model"])
    own = {key: weights.hparams["model"].get(key, value) for key, value in left.items()}
    if "prune" in left:
        own["prune"] = left["prune"]
    hparams = {**weights.hparams, "model": own}
    state = pruning.without_masks(weights.model_state)
    return config, dataclasses.replace(weights, params=params, model_state=state, hparams=hparams)


def each_model(config: Config, params: PyTree, change: Callable[[PyTree], PyTree]) -> PyTree:
    """Returns parameters, changed: of the only model, or of each of an ensemble.

    Args:
      config: of the model.
      params: its parameters, without adapters.
      change: of a module's own parameters; an embedding that stands before it stays.
    """
    if config.model.ensemble > 1:
        names = member_names(config.model.ensemble)
        return {name: _inner(params[name], change) for name in names}
    return _inner(params, change)


def own_params(params: PyTree) -> PyTree:
    """Returns a module's own parameters, without those of an embedding that stands before it."""
    return params["model"] if set(params) == {"embedding", "model"} else params


def _inner(params: PyTree, change: Callable[[PyTree], PyTree]) -> PyTree:
    own = own_params(params)
    return change(own) if own is params else {**params, "model": change(own)}
