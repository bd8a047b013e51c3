"""The U-Net over images: an encoder, and a decoder that sees each of its sizes again."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, Natural, Rate, Scalar
from jdlopt.errors import ConfigError
from jdlopt.kernels.pooling import max_pool
from jdlopt.models.layers import (
    ACTIVATIONS,
    REMAT,
    BatchNorm,
    Conv,
    Dropout,
    Head,
    check_widths,
    rematerialised,
)


class DoubleConv(nn.Module):
    """Two 3×3 convolutions, each with batch norm (if asked) and activation, and dropout after."""

    features: tuple[int, int]
    activation: str
    batch_norm: bool
    dropout_rate: Scalar | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n height width channels"], train: bool) -> Array:
        """Maps images to images of as many channels as the second convolution has."""
        for index, width in enumerate(self.features):
            x = Conv(width, (3, 3), use_bias=not self.batch_norm, name=f"conv_{index}")(x)
            if self.batch_norm:
                x = BatchNorm(name=f"norm_{index}")(x, train)
            x = ACTIVATIONS[self.activation](x)
        return Dropout(self.dropout_rate, name="dropout")(x, train)


class UNet(nn.Module):
    """An encoder that halves the image ``depth`` times, and a decoder that doubles it as often.

    Each size has two 3×3 convolutions on both ways. The decoder repeats each pixel, and takes the
    encoder's image of that size beside it. A last layer has a row of outputs for each pixel; or,
    where an example has one target, one for the mean over the pixels. Dropout follows the
    convolutions of the two smallest sizes. Images whose sides are no multiple of ``2^depth`` are
    padded with zeros, and outputs cut.

    Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image
    segmentation", 2015; with padding, so that outputs have the images' size, and with repeated
    pixels for its transposed convolutions, which leave a checkerboard (Odena, Dumoulin and Olah,
    2016).

    Attributes:
      features: channels at the full size; each half has twice as many.
      depth: how often the image is halved.
      block_features: channels of each convolution instead, two for each size and way, in the order
        in which an image meets them.
    """

    num_outputs: int
    features: Count = 16
    depth: Natural = 3
    block_features: tuple[int, ...] | None = None
    batch_norm: bool = True
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    dropout_rate: Rate | None = None
    remat: Annotated[str, Choice(REMAT)] = "none"
    positions: int = 0

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps images to outputs."""
        x = inputs[..., None] if inputs.ndim == 3 else inputs
        self._check(x)
        height, width = x.shape[1:3]
        step = 2**self.depth
        edges = (-height % step, -width % step)
        if any(edges):
            x = jnp.pad(x, ((0, 0), (0, edges[0]), (0, edges[1]), (0, 0)))
        block = rematerialised(DoubleConv, self.remat)
        kept: list[Array] = []
        for name, level, features in self.blocks():
            if name.startswith("up"):
                x = jnp.concatenate([kept[level], _doubled(x)], axis=-1)
            rate = self.dropout_rate if level >= self.depth - 1 else None
            x = block(features, self.activation, self.batch_norm, rate, name=name)(x, train)
            if name.startswith("down"):
                kept.append(x)
                x = max_pool(x, 2)
        x = x[:, :height, :width]
        x = x if self.positions else x.mean(axis=(1, 2))
        return Head(self.num_outputs, (), self.activation, "he_normal", name="head")(x, train)

    def blocks(self) -> list[tuple[str, int, tuple[int, int]]]:
        """Returns the name, the halvings before, and the widths of each pair of convolutions."""
        down = [(f"down_{level}", level) for level in range(self.depth)]
        up = [(f"up_{level}", level) for level in reversed(range(self.depth))]
        order = [*down, ("bottom", self.depth), *up]
        each = self.block_features or tuple(
            self.features * 2**level for _, level in order for _ in range(2)
        )
        return [
            (name, level, (each[2 * place], each[2 * place + 1]))
            for place, (name, level) in enumerate(order)
        ]

    def _check(self, x: Array) -> None:
        if self.block_features is not None:
            wanted = 2 * (2 * self.depth + 1)
            check_widths("block_features", self.block_features, wanted, "convolution")
        if x.ndim != 4 or self.positions not in (0, 2):
            raise ConfigError(
                "model.name 'unet' takes images of shape (height, width) or (height, width, "
                f"channels), and predicts of each pixel or of the image; the data's inputs are "
                f"{x.shape[1:]}, with {self.positions} axes of positions in their targets."
            )
        if min(x.shape[1:3]) < 2**self.depth:
            raise ConfigError(
                f"model.depth: {self.depth} halves images to nothing: the data's are "
                f"{x.shape[1]}×{x.shape[2]}. Use fewer, or larger images (data.image_size)."
            )


def _doubled(x: Float[Array, "n h w c"]) -> Float[Array, "n height width c"]:
    """Repeats each pixel twice along both sides."""
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)
