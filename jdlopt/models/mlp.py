"""The multi-layer perceptron: dense layers over the flattened inputs."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
from jaxtyping import Array, Float

from jdlopt.config import Choice, Rate
from jdlopt.models.layers import ACTIVATIONS, INITIALIZERS, REMAT, Head


class MLP(nn.Module):
    """Dense layers of ``features``, each with batch norm (if asked), activation and dropout."""

    num_outputs: int
    features: tuple[int, ...] = (128, 128)
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "he_normal"
    dropout_rate: Rate | None = None
    batch_norm: bool = False
    remat: Annotated[str, Choice(REMAT)] = "none"

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps inputs of any shape to outputs."""
        return Head(
            self.num_outputs,
            self.features,
            self.activation,
            self.initializer,
            self.dropout_rate,
            self.batch_norm,
            self.remat,
            name="head",
        )(inputs.reshape(inputs.shape[0], -1), train)
