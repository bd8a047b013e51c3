"""Conformers: attention and convolutions over frames of sound, in turn."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from jdlopt.config import Choice, Count, Rate, Scalar
from jdlopt.data.frames import real_frames
from jdlopt.errors import ConfigError
from jdlopt.models.attention import Attention, FeedForward
from jdlopt.models.frames import (
    Subsampling,
    blank_where_padded,
    frames_of,
    mean_of,
    only,
)
from jdlopt.models.layers import (
    INITIALIZERS,
    REMAT,
    DepthwiseConv,
    Dropout,
    Head,
    layer_norm,
    rematerialised,
)

EPSILON = 1e-5


def sinusoids(positions: int, features: int) -> Float32[np.ndarray, "positions features"]:
    """Returns sines and cosines of places, of wavelengths from 2π to 20,000π.

    Vaswani et al., "Attention is all you need", 2017; the sines stand before the cosines.

    Example:
      >>> sinusoids(2, 4)[0].tolist()
      [0.0, 0.0, 1.0, 1.0]
    """
    half = features // 2
    rates = 1e4 ** (-np.arange(half) / max(1, half))
    angles = np.arange(positions)[:, None] * rates
    whole = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.pad(whole, ((0, 0), (0, features - 2 * half))).astype(np.float32)


class Convolution(nn.Module):
    """The convolution of a conformer: a gate, each channel over time by itself, a dense layer."""

    kernel_size: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "n steps features"], real: Bool[Array, "n steps"]
    ) -> Float[Array, "n steps features"]:
        """Mixes neighbouring steps."""
        features = x.shape[-1]
        value, gate = jnp.split(nn.Dense(2 * features, name="gated")(x), 2, axis=-1)
        x = only(value * jax.nn.sigmoid(gate), real)
        x = DepthwiseConv((self.kernel_size,), name="depthwise")(x)
        # Layer normalisation in place of the paper's batch norm, which would see padding.
        x = jax.nn.silu(layer_norm(EPSILON, name="norm")(x))
        return nn.Dense(features, name="out")(x)


class ConformerBlock(nn.Module):
    """Half a feed-forward network, attention, a convolution, and the other half, each added."""

    num_heads: int
    mlp_features: int
    kernel_size: int
    dropout_rate: Scalar | None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n steps features"], train: bool, real: Bool[Array, "n steps"]
    ) -> Float[Array, "n steps features"]:
        """Maps steps to as many."""

        def branch(name: str) -> Float[Array, "n steps features"]:
            y = layer_norm(EPSILON, name=f"{name}_norm")(x)
            if name == "attention":
                y = Attention(self.num_heads, name=name)(y, real[:, None, None, :])
            elif name == "convolution":
                y = Convolution(self.kernel_size, name=name)(y, real)
            else:
                y = FeedForward(self.mlp_features, "silu", name=name)(y)
            return Dropout(self.dropout_rate, name=f"{name}_dropout")(y, train)

        x = x + 0.5 * branch("first_half")
        x = x + branch("attention")
        x = x + branch("convolution")
        x = x + 0.5 * branch("second_half")
        return layer_norm(EPSILON, name="norm")(x)


class Conformer(nn.Module):
    """A small conformer over frames: convolutions with strides, then blocks.

    For speech recognition it has a row of outputs at each step that the ``strides`` leave, and is
    sure of the blank in padding, which nothing else sees; for other tasks, one of the mean over the
    steps. Frames at the end that are all equal are padding. Gulati et al., "Conformer:
    convolution-augmented transformer for speech recognition", 2020; with sinusoidal positions,
    which are added, and layer normalisation in place of batch norm.

    Attributes:
      features: width of the vector at each step.
      num_layers: blocks, one on top of the other.
      mlp_features: width inside each half of a feed-forward network; None: 4 · ``features``.
      kernel_size: steps that the convolution of a block covers.
      stem_kernel_size: frames that a convolution before the blocks covers.
      strides: of each convolution before the blocks, how many frames it moves by; their product is
        the frames of a step.
    """

    num_outputs: int
    features: Count = 144
    num_layers: Count = 4
    num_heads: Count = 4
    mlp_features: Count | None = None
    kernel_size: Count = 15
    stem_kernel_size: Count = 5
    strides: tuple[int, ...] = (1, 2)
    initializer: Annotated[str, Choice(INITIALIZERS)] = "glorot_uniform"
    dropout_rate: Rate | None = None
    remat: Annotated[str, Choice(REMAT)] = "none"
    positions: int = 0

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps frames to outputs."""
        if self.features % self.num_heads:
            raise ConfigError(
                f"model.num_heads: {self.num_heads} heads can't share a width of {self.features} "
                "evenly. Make model.features a multiple of it."
            )
        x = frames_of(inputs, "conformer")
        real = real_frames(x)
        x, real = Subsampling(
            self.features, self.strides, self.stem_kernel_size, self.initializer,
            name="subsampling",
        )(x, real)  # fmt: skip
        x = x + sinusoids(x.shape[1], self.features).astype(x.dtype)
        x = Dropout(self.dropout_rate, name="dropout")(x, train)
        block = rematerialised(ConformerBlock, self.remat)
        width = self.mlp_features or 4 * self.features
        for index in range(self.num_layers):
            x = block(
                self.num_heads, width, self.kernel_size, self.dropout_rate, name=f"block_{index}"
            )(x, train, real)
        x = x if self.positions else mean_of(x, real)
        outputs = Head(self.num_outputs, (), "relu", self.initializer, name="head")(x, train)
        return blank_where_padded(outputs, real) if self.positions else outputs
