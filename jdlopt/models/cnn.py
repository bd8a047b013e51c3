"""The convolutional network: 1-D over sequences, 2-D over images."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, Rate
from jdlopt.errors import ConfigError
from jdlopt.kernels.pooling import average_pool, max_pool
from jdlopt.models.layers import (
    ACTIVATIONS,
    INITIALIZERS,
    MONOTONE,
    REMAT,
    BatchNorm,
    Conv,
    Dropout,
    Head,
)

POOLS = ("none", "max", "avg")
READOUTS = ("flatten", "average")
PADDINGS = ("same", "valid")


class CNN(nn.Module):
    """Blocks of convolution, batch norm (if asked), activation, pooling (if asked) and dropout.

    There is one block for each of ``features``. Inputs (length, channels) are convolved in one
    dimension, (height, width, channels) in two; inputs (length,) get a channel. The last feature
    map is flattened, or averaged over its positions, and goes through dense layers of ``hidden`` to
    the outputs.
    """

    num_outputs: int
    features: tuple[int, ...] = (32, 64)
    kernel_size: Count = 3
    strides: Count = 1
    padding: Annotated[str, Choice(PADDINGS)] = "same"
    pool: Annotated[str, Choice(POOLS)] = "none"
    pool_size: Count = 2
    batch_norm: bool = False
    readout: Annotated[str, Choice(READOUTS)] = "flatten"
    hidden: tuple[int, ...] = ()
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "he_normal"
    dropout_rate: Rate | None = None
    remat: Annotated[str, Choice(REMAT)] = "none"

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps sequences or images to outputs."""
        x = inputs[..., None] if inputs.ndim == 2 else inputs
        if x.ndim not in (3, 4):
            raise ConfigError(
                "model.name 'cnn' takes inputs of shape (length,), (length, channels) or "
                f"(height, width, channels); the data's are {inputs.shape[1:]}. Use 'mlp', or "
                "reshape the data."
            )
        policy, block = REMAT[self.remat], CNN._block
        if policy is not None:
            block = nn.remat(block, policy=policy, static_argnums=(2, 3, 4))
        for index, width in enumerate(self.features):
            x = block(self, x, index, width, train)
        if self.readout == "average":
            x = x.mean(axis=tuple(range(1, x.ndim - 1)))
        return Head(
            self.num_outputs,
            self.hidden,
            self.activation,
            self.initializer,
            self.dropout_rate,
            name="head",
        )(x.reshape(x.shape[0], -1), train)

    def _block(self, x: Array, index: int, width: int, train: bool) -> Array:
        rank = x.ndim - 2
        self._check_space(x, index, "kernel_size", self.kernel_size, self.padding == "valid")
        x = Conv(
            width,
            (self.kernel_size,) * rank,
            self.strides,
            self.padding.upper(),
            use_bias=not self.batch_norm,
            kernel_init=INITIALIZERS[self.initializer],
            name=f"conv_{index}",
        )(x)
        if self.batch_norm:
            x = BatchNorm(name=f"norm_{index}")(x, train)
        activation = ACTIVATIONS[self.activation]
        self._check_space(x, index, "pool_size", self.pool_size, self.pool != "none")
        if self.pool == "max" and self.activation in MONOTONE:
            x = activation(max_pool(x, self.pool_size))  # the same values from fewer activations
        elif self.pool == "max":
            x = max_pool(activation(x), self.pool_size)
        elif self.pool == "avg":
            x = average_pool(activation(x), self.pool_size)
        else:
            x = activation(x)
        return Dropout(self.dropout_rate, name=f"dropout_{index}")(x, train)

    def _check_space(self, x: Array, index: int, key: str, size: int, applies: bool) -> None:
        if applies and min(x.shape[1:-1]) < size:
            raise ConfigError(
                f"model.{key}={size} is larger than what is left of the inputs at convolution "
                f"{index + 1} of {len(self.features)}: {'×'.join(map(str, x.shape[1:-1]))}. Use "
                "fewer model.features, smaller model.pool_size or model.strides, or padding 'same'."
            )
