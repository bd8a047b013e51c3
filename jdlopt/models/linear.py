"""The linear model: logistic regression with a classification loss, least squares with `mse`."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
from jaxtyping import Array, Float

from jdlopt.config import Choice, Rate
from jdlopt.models.layers import INITIALIZERS, Dropout


class Linear(nn.Module):
    """One matrix and a bias over the flattened inputs."""

    num_outputs: int
    initializer: Annotated[str, Choice(INITIALIZERS)] = "lecun_normal"
    dropout_rate: Rate | None = None

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps inputs to outputs; dropout, if any, is of the inputs."""
        x = inputs.reshape(inputs.shape[0], -1)
        x = Dropout(self.dropout_rate, name="dropout")(x, train)
        init = INITIALIZERS[self.initializer]
        return nn.Dense(self.num_outputs, kernel_init=init, name="outputs")(x)
