"""Models as pure functions: a table of names, and any Linen or NNX module by its dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdlopt.config import find_part
from jdlopt.models.bridge import Model, bridge
from jdlopt.models.cnn import CNN
from jdlopt.models.linear import Linear
from jdlopt.models.mlp import MLP
from jdlopt.models.recurrent import GRU, LSTM

__all__ = ["MODELS", "Model", "make_model"]

MODELS: dict[str, Any] = {"linear": Linear, "mlp": MLP, "cnn": CNN, "gru": GRU, "lstm": LSTM}


def make_model(section: Mapping[str, Any], num_outputs: int) -> Model:
    """Returns the pure functions of the model that a resolved config section describes.

    Args:
      section: ``name`` (of `MODELS`, or ``package.module:Name`` of a Linen or NNX module) and the
        module's own keys. Floats among them are defaults only: hyperparameters replace them.
      num_outputs: width of the outputs; given to the module if it has a field of that name.

    Raises:
      ConfigError: the name is unknown or is no module.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = make_model({"name": "mlp", "features": (8,), "dropout_rate": 0.1}, num_outputs=3)
      >>> x, rate = jnp.ones((2, 4)), {"dropout_rate": jnp.float32(0.5)}
      >>> params, state = model.init(jax.random.key(0), x, rate)
      >>> outputs, state = model.apply(params, state, x, rate, key=jax.random.key(1), train=True)
      >>> outputs.shape
      (2, 3)
    """
    keys = {key: section[key] for key in section if key != "name"}
    part = find_part(section["name"], MODELS, "model.name")
    return bridge(part, section["name"], keys, num_outputs)
