"""A quantized run's model for runtimes that compute in integers: rounded kernels, no simulation."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from jdlopt import config as configs
from jdlopt.models import lora, pruning
from jdlopt.models.kernel_inputs import is_range
from jdlopt.models.pruning_plan import PruneFields
from jdlopt.models.quantization import QuantizeFields, quantized
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights

GONE = ("quantize", "prune", "lora_alpha")
"""Hyperparameters of what became part of the kernels."""


def rounded(experiment: Experiment, weights: Weights) -> tuple[Experiment, Weights]:
    """Returns a model whose kernels are rounded, and that rounds nothing while it predicts.

    Inputs of layers are left to whoever quantizes its graph. Adapters and masks become part of the
    kernels. Without ``model.quantize``, and of an ensemble, it is as it was.

    Args:
      experiment: of the weights.
      weights: its own.
    """
    model = experiment.config.model
    if not model.quantize.on or model.ensemble > 1:
        return experiment, weights
    raw = configs.to_dict(experiment.config)
    raw["model"] = {
        **raw["model"],
        "quantize": configs.to_dict(QuantizeFields()),
        "prune": configs.to_dict(PruneFields()),
        "lora_rank": None,
        "lora_alpha": None,
    }
    plain = Experiment.build(
        raw,
        experiment.spec if experiment.dataset is None else experiment.dataset,
        learnt_before=experiment.learnt,
        check=False,
        begins=False,
    )
    weights = jax.tree.map(jnp.asarray, weights)
    rates = weights.hparams["model"]
    params: PyTree = pruning.applied(weights.params, weights.model_state)
    if "adapters" in params:
        params = lora.merged(params, rates.get("lora_alpha"))
    asked = dataclasses.replace(model.quantize, **rates.get("quantize", {}))
    stacked = {"stacked": lora.STACKED} if model.options.get("scan_layers") else {}
    state = {
        path: leaf
        for path, leaf in flatten_dict(dict(weights.model_state)).items()
        if path[0] != pruning.STATE and not is_range("/".join(map(str, path)))
    }
    kept = {name: rate for name, rate in rates.items() if name not in GONE}
    made = weights.replace(
        params=quantized(params, asked, **stacked),
        model_state=unflatten_dict(state),
        hparams={**weights.hparams, "model": kept},
    )
    return dataclasses.replace(plain, predictor=experiment.predictor), made
