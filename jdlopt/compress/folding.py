"""Batch norm folded into the layer before it: the same outputs from fewer arrays and passes.

In evaluation mode batch norm is a product and a sum in each channel, and so a part of the kernel
and bias before it: ``(x·W + b - mean) · s + shift`` is ``x·(W·s) + ((b - mean)·s + shift)``. Jacob
et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", 2018, section 3.2.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

from jdlopt.compress.entry import Apply, Candidate, Given, Method, TrainingBatches
from jdlopt.compress.made import save_made, with_data_of
from jdlopt.compress.plain import own_params, plain_model
from jdlopt.compress.quantize import training_batches
from jdlopt.errors import ConfigError, listing
from jdlopt.evidence.options import SIZE, SPEED
from jdlopt.models.ensemble import member_names
from jdlopt.train.experiment import Experiment
from jdlopt.train.run import Run
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights

STATISTICS = "batch_stats"
"""The collection of a Linen model's running statistics."""
LARGEST_DIFFERENCE = 1e-4
"""Of the largest output, by which those of a folded run may differ: more is no rounding."""

NormPath = tuple[str, ...]


def folded(experiment: Experiment, weights: Weights) -> tuple[Config, Weights]:
    """Returns a model without batch norm whose outputs in evaluation mode are the same. Pure.

    Args:
      experiment: of the weights; its config must have ``model.batch_norm``.
      weights: its own. Masks are applied and adapters merged.

    Raises:
      ConfigError: there is no batch norm, the model's config can't say so, it is quantized, or
        which layer a norm follows is not known.
    """
    config = experiment.config
    name, norms = config.model.name, _norms(experiment)
    if not norms:
        raise ConfigError(f"folding: model {name!r} has no batch norm here: nothing to fold.")
    if config.model.options.get("batch_norm") is not True:
        raise ConfigError(
            f"folding: model {name!r} has no key model.batch_norm, so no config says that it has "
            "none. `jdlopt export --format=onnx` folds it in the file all the same."
        )
    if config.model.quantize.on:
        raise ConfigError(
            "folding: scaled kernels would be rounded otherwise (model.quantize): fold first."
        )
    config, weights = plain_model(config, weights)
    fold = partial(_folded, norms)
    if config.model.ensemble > 1:
        params, state = dict(weights.params), dict(weights.model_state)
        for member in member_names(config.model.ensemble):
            params[member], state[member] = fold(params[member], state[member])
    else:
        params, state = fold(weights.params, weights.model_state)
    model = dataclasses.replace(
        config.model,
        freeze_norm=False,
        batch_norm_groups=1,
        options={**config.model.options, "batch_norm": False},
    )
    config = dataclasses.replace(config, model=model)
    return config, weights.replace(params=params, model_state=state)


def fold_run(source: Run, directory: str | Path) -> Run:
    """Writes a finished run, its batch norm folded, as a run of its own.

    It is an ordinary run of a model without batch norm: it can be trained on, but without what
    batch norm does for training.

    Args:
      source: the finished run.
      directory: the new run's.

    Raises:
      ConfigError: as `folded`; or outputs differ, as where something lies between a layer and its
        norm.
      DataError, WorkdirError: as `save_made`.
    """
    experiment = with_data_of(source, source.config)
    config, weights = folded(experiment, source.weights)
    made = with_data_of(source, config)
    inputs = next(iter(training_batches(experiment)))["inputs"]
    before, after = (
        jax.jit(one.predict)(own, inputs).outputs
        for one, own in ((experiment, source.weights), (made, weights))
    )
    difference = float(jnp.abs(after - before).max() / jnp.maximum(jnp.abs(before).max(), 1e-30))
    if not difference <= LARGEST_DIFFERENCE:
        raise ConfigError(
            f"folding: the outputs of model {config.model.name!r} change by {difference:.2g} of "
            "their largest: its norms do not follow right behind the layers that their names say."
        )
    how = {
        "method": "folding",
        "norms": ["/".join(path) for path in _norms(experiment)],
        "difference": difference,
    }
    return save_made(source, config, weights, directory, how)


def _norms(experiment: Experiment) -> dict[NormPath, float]:
    """The paths of a Linen model's batch norms, and what each adds to the variance."""
    found: dict[NormPath, float] = {}

    def look(
        call: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> object:
        if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            found[tuple(context.module.path)] = float(context.module.epsilon)
        return call(*args, **kwargs)

    model, hparams = experiment.components.model, experiment.hparams["model"]
    with nn.intercept_methods(look):
        # a function that was traced before is not traced again
        jax.eval_shape(
            lambda *given: model.init(*given), jax.random.key(0), experiment.seen(1), hparams
        )
    return found


def _folded(
    norms: Mapping[NormPath, float], params: PyTree, state: PyTree
) -> tuple[PyTree, PyTree]:
    """One model's parameters and state with its norms in the layers before them."""
    own = own_params(params)
    flat, beside = flatten_dict(own), flatten_dict(state)
    for path, epsilon in norms.items():
        layer = _layer_before(path, flat)
        mean, var = (
            np.asarray(beside.pop((STATISTICS, *path, one)), np.float64) for one in ("mean", "var")
        )
        ones = np.ones_like(mean)
        scale = np.asarray(flat.pop((*path, "scale"), ones), np.float64) / np.sqrt(var + epsilon)
        shift = np.asarray(flat.pop((*path, "bias"), 0 * ones), np.float64)
        bias = np.asarray(flat.get((*layer, "bias"), 0 * ones), np.float64)
        kernel = flat[(*layer, "kernel")]
        flat[(*layer, "kernel")] = _rounded(np.asarray(kernel, np.float64) * scale)
        flat[(*layer, "bias")] = _rounded((bias - mean) * scale + shift)
    made = unflatten_dict(flat)
    return made if own is params else {**params, "model": made}, unflatten_dict(beside)


def _rounded(values: np.ndarray) -> Array:
    return jnp.asarray(values.astype(np.float32))


def _layer_before(path: NormPath, params: Mapping[tuple[object, ...], object]) -> NormPath:
    """The layer whose outputs a norm takes, by their names."""
    # jdlopt's own batch norm is a module around flax's, which is called `norm`
    *parent, name = path[:-1] if path[-1] == "norm" and len(path) > 1 else path
    numbered = re.fullmatch(r"norm_(\d+)", name)
    if numbered:
        named = [f"{kind}_{numbered[1]}" for kind in ("conv", "dense")]
    else:
        named = [name.removesuffix("_norm")]
    found = [(*parent, one) for one in named if (*parent, one, "kernel") in params]
    if len(found) != 1:
        raise ConfigError(
            f"folding: which layer the batch norm {'/'.join(path)!r} follows is not known: "
            f"expected a kernel in {listing(['/'.join((*parent, one)) for one in named])}."
        )
    return found[0]


# --- a method of compress -------------------------------------------------------------------------


def _fold(
    given: Given, config: Config, weights: Weights, batches: TrainingBatches
) -> tuple[Config, Weights]:
    own = given.experiment
    experiment = Experiment.build(
        config, own.data, learnt_before=own.learnt, check=False, begins=False
    )
    return folded(experiment, weights)


def _why_not(given: Given) -> str | None:
    try:
        folded(given.experiment, given.weights)
    except ConfigError as error:
        return str(error)
    return None


FOLDING = Method(
    "folding", (SIZE, SPEED),
    "Puts batch norm into the layers before it; outputs stay.", "nothing",
    "Jacob et al., Quantization and training of neural networks, 2018",
    lambda given: (Candidate("folded", (Apply("fold batch norm", partial(_fold, given)),)),),
    _why_not, follows=True,
)  # fmt: skip
