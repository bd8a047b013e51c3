"""Temporal convolutional networks over sequences."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, Rate, Scalar
from jdlopt.errors import ConfigError
from jdlopt.models.layers import (
    ACTIVATIONS,
    INITIALIZERS,
    REMAT,
    Dropout,
    Head,
    check_widths,
    rematerialised,
)

READOUTS = ("last", "mean")


def causal_convolution(
    x: Float[Array, "n time channels"],
    kernel: Float[Array, "taps channels features"],
    dilation: int,
) -> Float[Array, "n time features"]:
    """Convolves each time with the ``taps`` times ``dilation`` apart that end there.

    ``y_t = Σ_k x_{t - (taps - 1 - k)·dilation} · W_k``, with zeros before the start: shifted slices
    side by side and one matmul, which is fast on CPUs too.

    Args:
      x: sequences.
      kernel: the last tap is the present.
      dilation: times between two taps.

    Example:
      >>> x = jnp.arange(4.0).reshape(1, 4, 1)
      >>> causal_convolution(x, jnp.ones((2, 1, 1)), dilation=2).ravel().tolist()
      [0.0, 1.0, 2.0, 4.0]
    """
    taps, length = kernel.shape[0], x.shape[1]
    reach = (taps - 1) * dilation
    padded = jnp.pad(x, ((0, 0), (reach, 0), (0, 0)))
    shifted = [
        lax.slice_in_dim(padded, tap * dilation, tap * dilation + length, axis=1)
        for tap in range(taps)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


class CausalConv(nn.Module):
    """`causal_convolution` with a kernel and a bias of its own."""

    features: int
    kernel_size: int
    dilation: int
    initializer: str
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n time channels"]) -> Float[Array, "n time features"]:
        """Convolves and adds the bias."""
        shape = (self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", INITIALIZERS[self.initializer], shape)
        y = causal_convolution(x, kernel, self.dilation)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))
        return y


class TemporalBlock(nn.Module):
    """Two causal convolutions, each with activation and dropout, added to what came in."""

    features: int
    inner: int
    kernel_size: int
    dilation: int
    activation: str
    initializer: str
    dropout_rate: Scalar | None

    @nn.compact
    def __call__(self, x: Float[Array, "n time channels"], train: bool) -> Array:
        """Maps sequences to sequences of the same length."""
        activation, y = ACTIVATIONS[self.activation], x
        for index, width in enumerate((self.inner, self.features)):
            y = CausalConv(
                width,
                self.kernel_size,
                self.dilation,
                self.initializer,
                name=f"conv_{index}",
            )(y)
            y = Dropout(self.dropout_rate, name=f"dropout_{index}")(activation(y), train)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, name="shortcut")(x)
        return activation(x + y)


class TCN(nn.Module):
    """Residual blocks of causal convolutions whose dilation doubles from block to block.

    There is one block for each of ``features``; the last output sees this many times:
    ``1 + 2·(kernel_size - 1)·(2^blocks - 1)``. It goes to the head, or the mean over time does.
    ``block_features`` are the widths between a block's convolutions, where they are others.
    Bai, Kolter and Koltun, "An empirical evaluation of generic convolutional and recurrent networks
    for sequence modeling", 2018; without its weight normalisation.
    """

    num_outputs: int
    features: tuple[int, ...] = (32, 32, 32, 32)
    block_features: tuple[int, ...] | None = None
    kernel_size: Count = 3
    readout: Annotated[str, Choice(READOUTS)] = "last"
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "he_normal"
    dropout_rate: Rate | None = None
    remat: Annotated[str, Choice(REMAT)] = "none"

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps sequences to outputs."""
        x = inputs[..., None] if inputs.ndim == 2 else inputs
        if x.ndim not in (3, 4):
            raise ConfigError(
                "model.name 'tcn' takes inputs of shape (length,), (length, channels) or (rows, "
                f"columns, channels); the data's are {inputs.shape[1:]}. Use 'mlp', or reshape the "
                "data."
            )
        x = x.reshape(*x.shape[:2], -1)
        if min(self.features, default=0) < 1:
            raise ConfigError(
                "model.features: expected the width of at least one block, each at least 1, found "
                f"{self.features}."
            )
        if self.block_features is not None:
            check_widths("block_features", self.block_features, len(self.features), "block")
        block = rematerialised(TemporalBlock, self.remat)
        inner = self.block_features or self.features
        for index, width in enumerate(self.features):
            x = block(
                width,
                inner[index],
                self.kernel_size,
                2**index,
                self.activation,
                self.initializer,
                self.dropout_rate,
                name=f"block_{index}",
            )(x, train)
        summary = x[:, -1] if self.readout == "last" else x.mean(axis=1)
        return Head(self.num_outputs, (), self.activation, self.initializer, name="head")(
            summary, train
        )
