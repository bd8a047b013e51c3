"""EfficientNet-Lite: inverted bottlenecks over images, without squeeze-excitation."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, Rate, Scalar
from jdlopt.errors import ConfigError
from jdlopt.models.layers import (
    ACTIVATIONS,
    REMAT,
    BatchNorm,
    Conv,
    DepthwiseConv,
    Dropout,
    DropPath,
    Head,
    check_widths,
    rates_by_depth,
    rematerialised,
)

_EPSILON = 1e-3
"""Batch norm's, as published: ten times what other families add."""


class InvertedBottleneck(nn.Module):
    """A 1×1 convolution that widens, a depthwise one, and a 1×1 one that narrows, each normed.

    Without a ``width`` there is none that widens. What came in is added where the shape stays.
    Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018.
    """

    features: int
    width: int | None
    kernel_size: int
    strides: int
    activation: str
    batch_norm: bool = True
    drop_path_rate: Scalar | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n height width channels"], train: bool) -> Array:
        """Maps images to images of ``features`` channels."""
        activation, y, bias = ACTIVATIONS[self.activation], x, not self.batch_norm
        if self.width is not None:
            y = Conv(self.width, (1, 1), use_bias=bias, name="expand")(y)
            y = activation(self._normed(y, "expand_norm", train))
        taps = (self.kernel_size,) * 2
        y = DepthwiseConv(taps, self.strides, use_bias=bias, name="depthwise")(y)
        y = activation(self._normed(y, "depthwise_norm", train))
        y = Conv(self.features, (1, 1), use_bias=bias, name="project")(y)
        y = self._normed(y, "project_norm", train)
        if y.shape != x.shape:
            return y
        return x + DropPath(self.drop_path_rate, name="drop_path")(y, train)

    def _normed(self, y: Array, name: str, train: bool) -> Array:
        if not self.batch_norm:
            return y
        return BatchNorm(epsilon=_EPSILON, name=name)(y, train)


class EfficientNetLite0(nn.Module):
    """Stages of inverted bottlenecks, at the published sizes of EfficientNet-Lite0.

    The lite variant leaves out squeeze-excitation, uses ReLU6 instead of SiLU, and never scales the
    stem and the last convolution, so that it quantizes well. A stage's first block has the stage's
    stride. The mean over positions goes through dropout (0.2 as published) to the head.
    ``block_features`` are the widths inside the blocks whose expansion is not 1, instead of
    expansion times what comes in.
    ``drop_path_rate`` is the last block's (0.2 as published), earlier ones have less, evenly, and
    those that change the shape none. Without ``batch_norm`` convolutions have a bias, as
    `jdlopt.compress.folding` makes them. Tan and Le, "EfficientNet: rethinking model scaling for
    convolutional neural networks", 2019.
    """

    num_outputs: int
    stage_sizes: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    features: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    kernel_sizes: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expansions: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    block_features: tuple[int, ...] | None = None
    stem_features: Count = 32
    stem_strides: Count = 2
    last_features: Count = 1280
    batch_norm: bool = True
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu6"
    dropout_rate: Rate | None = None
    drop_path_rate: Rate | None = None
    remat: Annotated[str, Choice(REMAT)] = "none"

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps images to outputs."""
        x = inputs[..., None] if inputs.ndim == 3 else inputs
        self._check(x)
        activation, bias = ACTIVATIONS[self.activation], not self.batch_norm
        x = Conv(self.stem_features, (3, 3), self.stem_strides, use_bias=bias, name="stem")(x)
        if self.batch_norm:
            x = BatchNorm(epsilon=_EPSILON, name="stem_norm")(x, train)
        x = activation(x)
        block, number = rematerialised(InvertedBottleneck, self.remat), 0
        rates, widths = rates_by_depth(self.drop_path_rate, sum(self.stage_sizes)), self.widths()
        for stage, count in enumerate(self.stage_sizes):
            for index in range(count):
                x = block(
                    self.features[stage],
                    widths[number],
                    self.kernel_sizes[stage],
                    1 if index else self.strides[stage],
                    self.activation,
                    self.batch_norm,
                    rates[number],
                    name=f"block_{number:02}",
                )(x, train)
                number += 1
        x = Conv(self.last_features, (1, 1), use_bias=bias, name="last")(x)
        if self.batch_norm:
            x = BatchNorm(epsilon=_EPSILON, name="last_norm")(x, train)
        x = activation(x)
        x = Dropout(self.dropout_rate, name="dropout")(x.mean(axis=(1, 2)), train)
        return Head(self.num_outputs, (), self.activation, "he_normal", name="head")(x, train)

    def widths(self) -> list[int | None]:
        """Returns the width inside each block, None where it does not widen."""
        own = iter(self.block_features or ())
        found: list[int | None] = []
        before = self.stem_features
        for stage, count in enumerate(self.stage_sizes):
            for _ in range(count):
                expansion = self.expansions[stage]
                if expansion == 1:
                    found.append(None)
                else:
                    found.append(next(own, expansion * before))
                before = self.features[stage]
        return found

    def _check(self, x: Array) -> None:
        if x.ndim != 4:
            raise ConfigError(
                "model.name 'efficientnet_lite0' takes images of shape (height, width) or (height, "
                f"width, channels); the data's are {x.shape[1:]}."
            )
        total = self.stem_strides
        for key in ("stage_sizes", "features", "kernel_sizes", "strides", "expansions"):
            values = getattr(self, key)
            if len(values) != len(self.stage_sizes) or min(values, default=0) < 1:
                raise ConfigError(
                    f"model.{key}: expected a number of at least 1 for each of the "
                    f"{len(self.stage_sizes)} stages (model.stage_sizes), found {values}."
                )
        if self.block_features is not None:
            each = "block whose expansion is not 1"
            wanted = sum(width is not None for width in self.widths())
            check_widths("block_features", self.block_features, wanted, each)
        for step in self.strides:
            total *= step
        if min(x.shape[1:3]) < total:
            raise ConfigError(
                f"model.name 'efficientnet_lite0' makes images {total} times smaller "
                f"(model.stem_strides {self.stem_strides}, model.strides {self.strides}); "
                f"the data's are {x.shape[1]}×{x.shape[2]}. Use smaller strides, or larger images "
                "(data.image_size)."
            )
