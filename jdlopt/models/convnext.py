"""ConvNeXt: a convolutional network built like a transformer, over images."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, Positive, Rate, Scalar
from jdlopt.errors import ConfigError
from jdlopt.models.layers import (
    ACTIVATIONS,
    INITIALIZERS,
    REMAT,
    Conv,
    DepthwiseConv,
    Dropout,
    DropPath,
    Head,
    check_widths,
    layer_norm,
    rates_by_depth,
    rematerialised,
)

_EXPANSION = 4
_INITIALIZER = "lecun_normal"


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, a norm, and two dense layers over each position's channels.

    The result, each channel scaled by a parameter that starts at ``layer_scale``, is added to what
    came in. Touvron et al., "Going deeper with image transformers", 2021, has the scale.
    """

    width: int
    kernel_size: int
    activation: str
    layer_scale: Scalar | None
    norm_epsilon: Scalar
    drop_path_rate: Scalar | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n height width channels"], train: bool) -> Array:
        """Maps images to images of the same shape."""
        features, init = x.shape[-1], INITIALIZERS[_INITIALIZER]
        y = DepthwiseConv((self.kernel_size,) * 2, name="depthwise")(x)
        y = layer_norm(self.norm_epsilon, name="norm")(y)
        y = nn.Dense(self.width, kernel_init=init, name="expand")(y)
        y = nn.Dense(features, kernel_init=init, name="project")(ACTIVATIONS[self.activation](y))
        scale = self.layer_scale
        if scale is not None:
            y = y * self.param("scale", lambda _: jnp.full((features,), scale, jnp.float32))
        return x + DropPath(self.drop_path_rate, name="drop_path")(y, train)


class ConvNeXt(nn.Module):
    """Stages of depthwise blocks over patches; between stages the image is halved.

    The sizes are ConvNeXt-T's unless given. The stem cuts patches of ``patch_size``, the layers
    between the stages patches of 2×2, without what is left over at an edge. ``block_features`` are
    the widths inside the blocks, instead of four times their stage's. The mean over positions
    is normed and goes through dropout (if asked) to the head. ``drop_path_rate`` is the last
    block's, earlier ones have less, evenly (0.1 as published). Liu et al., "A ConvNet for the
    2020s", 2022.
    """

    num_outputs: int
    stage_sizes: tuple[int, ...] = (3, 3, 9, 3)
    features: tuple[int, ...] = (96, 192, 384, 768)
    block_features: tuple[int, ...] | None = None
    patch_size: Count = 4
    kernel_size: Count = 7
    activation: Annotated[str, Choice(ACTIVATIONS)] = "gelu_exact"
    layer_scale: Positive | None = 1e-6
    norm_epsilon: Positive = 1e-6
    dropout_rate: Rate | None = None
    drop_path_rate: Rate | None = None
    remat: Annotated[str, Choice(REMAT)] = "none"

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps images to outputs."""
        x = inputs[..., None] if inputs.ndim == 3 else inputs
        self._check(x)
        block = rematerialised(ConvNeXtBlock, self.remat)
        rates = iter(rates_by_depth(self.drop_path_rate, sum(self.stage_sizes)))
        widths = iter(self.widths())
        for stage, (count, width) in enumerate(zip(self.stage_sizes, self.features, strict=True)):
            if stage == 0:
                x = self._patches(x, width, self.patch_size, "stem")
                x = layer_norm(self.norm_epsilon, name="stem_norm")(x)
            else:
                x = layer_norm(self.norm_epsilon, name=f"stage_{stage}_norm")(x)
                x = self._patches(x, width, 2, f"stage_{stage}_halving")
            for index in range(count):
                x = block(
                    next(widths),
                    self.kernel_size,
                    self.activation,
                    self.layer_scale,
                    self.norm_epsilon,
                    next(rates),
                    name=f"stage_{stage}_block_{index}",
                )(x, train)
        x = layer_norm(self.norm_epsilon, name="norm")(x.mean(axis=(1, 2)))
        x = Dropout(self.dropout_rate, name="dropout")(x, train)
        return Head(self.num_outputs, (), self.activation, _INITIALIZER, name="head")(x, train)

    def widths(self) -> tuple[int, ...]:
        """Returns the width inside each block."""
        stages = zip(self.features, self.stage_sizes)
        own = self.block_features
        return own or tuple(_EXPANSION * width for width, count in stages for _ in range(count))

    def _patches(self, x: Array, width: int, size: int, name: str) -> Array:
        init = INITIALIZERS[_INITIALIZER]
        return Conv(width, (size, size), size, "VALID", kernel_init=init, name=name)(x)

    def _check(self, x: Array) -> None:
        if x.ndim != 4:
            raise ConfigError(
                "model.name 'convnext' takes images of shape (height, width) or (height, width, "
                f"channels); the data's are {x.shape[1:]}."
            )
        for key in ("stage_sizes", "features"):
            values = getattr(self, key)
            if len(values) != len(self.stage_sizes) or min(values, default=0) < 1:
                raise ConfigError(
                    f"model.{key}: expected a number of at least 1 for each of the "
                    f"{len(self.stage_sizes)} stages (model.stage_sizes), found {values}."
                )
        if self.block_features is not None:
            check_widths("block_features", self.block_features, sum(self.stage_sizes), "block")
        total = self.patch_size * 2 ** (len(self.stage_sizes) - 1)
        if min(x.shape[1:3]) < total:
            raise ConfigError(
                f"model.name 'convnext' makes images {total} times smaller (model.patch_size "
                f"{self.patch_size}, and 2 for each stage after the first); the data's are "
                f"{x.shape[1]}×{x.shape[2]}. Use a smaller patch_size, fewer stages, or larger "
                "images (data.image_size)."
            )
