"""Residual networks over images."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, Rate, Scalar
from jdlopt.errors import ConfigError, listing
from jdlopt.models.layers import (
    ACTIVATIONS,
    REMAT,
    BatchNorm,
    Conv,
    Dropout,
    DropPath,
    Head,
    check_widths,
    rates_by_depth,
    rematerialised,
)


class Sizes(NamedTuple):
    """The blocks of each stage, and whether they are bottlenecks."""

    stage_sizes: tuple[int, ...]
    bottleneck: bool


DEPTHS = {
    18: Sizes((2, 2, 2, 2), False),
    34: Sizes((3, 4, 6, 3), False),
    50: Sizes((3, 4, 6, 3), True),
    101: Sizes((3, 4, 23, 3), True),
    152: Sizes((3, 8, 36, 3), True),
}
"""He et al., "Deep residual learning for image recognition", 2016, table 1."""

STEMS = ("imagenet", "cifar")
_EXPANSION = 4


def _conv(features: int, size: int, strides: int, use_bias: bool, name: str) -> Conv:
    edge = size // 2  # on both sides: what "SAME" pads depends on the image where strides are 2
    padding = ((edge, edge),) * 2
    return Conv(features, (size, size), strides, padding, use_bias=use_bias, name=name)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, or 1×1, 3×3, 1×1 as a bottleneck, added to what came in.

    The stride is in the (first) 3×3 convolution, which in a bottleneck is "version 1.5". The last
    norm's scale starts at 0, so that a new block is the identity: Goyal et al., "Accurate, large
    minibatch SGD", 2017.
    """

    features: int
    inner: tuple[int, ...]
    strides: int
    bottleneck: bool
    activation: str
    batch_norm: bool = True
    drop_path_rate: Scalar | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n height width channels"], train: bool) -> Array:
        """Maps images to images of ``features`` channels, four times as many in a bottleneck."""
        activation = ACTIVATIONS[self.activation]
        width = self.features * (_EXPANSION if self.bottleneck else 1)
        plan = [(self.inner[0], 3, self.strides), (self.features, 3, 1)]
        if self.bottleneck:
            plan = [(self.inner[0], 1, 1), (self.inner[1], 3, self.strides), (width, 1, 1)]
        y, bias = x, not self.batch_norm
        for index, (features, size, strides) in enumerate(plan):
            last = index == len(plan) - 1
            y = _conv(features, size, strides, bias, f"conv_{index}")(y)
            if self.batch_norm:
                scale_init = nn.initializers.zeros if last else nn.initializers.ones
                y = BatchNorm(scale_init=scale_init, name=f"norm_{index}")(y, train)
            y = y if last else activation(y)
        if x.shape[-1] != width or self.strides != 1:
            x = _conv(width, 1, self.strides, bias, "shortcut")(x)
            if self.batch_norm:
                x = BatchNorm(name="shortcut_norm")(x, train)
        return activation(x + DropPath(self.drop_path_rate, name="drop_path")(y, train))


class Plan(NamedTuple):
    """The sizes of a network.

    Attributes:
      stage_sizes, features, strides, bottleneck: as in `ResNet`.
      stem: the width of the stem.
      inner: of each block, the widths inside it.
    """

    stage_sizes: tuple[int, ...]
    features: tuple[int, ...]
    strides: tuple[int, ...]
    bottleneck: bool
    stem: int
    inner: tuple[tuple[int, ...], ...]


class ResNet(nn.Module):
    """Stages of residual blocks; each stage but the first halves the image.

    ``depth`` names a published size; ``stage_sizes``, ``features``, ``bottleneck`` and ``strides``
    (of each stage) make one of your own. The ``imagenet`` stem is a 7×7 convolution and a pooling,
    which make the image a quarter as high and wide; the ``cifar`` stem is a 3×3 convolution.
    ``stem_features`` is its width and ``block_features`` those inside the blocks, one for each (two
    in a bottleneck), where they are not those of the first stage and of the block's own. The
    mean over positions goes through dropout (if asked) to the head. ``drop_path_rate`` is the last
    block's, earlier ones have less, evenly. Without ``batch_norm`` convolutions have a bias, as
    `jdlopt.compress.folding` makes them: so many layers are hard to train from random values
    without it.

    Where each pixel has a target, the head has a row of outputs for each place of the last stage,
    which are interpolated linearly to the images' size: Long, Shelhamer and Darrell, "Fully
    convolutional networks for semantic segmentation", 2015 (FCN, without the skips). ``strides``
    say how coarse that is.

    He et al., "Deep residual learning for image recognition", 2016.
    """

    num_outputs: int
    depth: Annotated[int, Choice(DEPTHS)] = 18
    stem: Annotated[str, Choice(STEMS)] = "imagenet"
    stage_sizes: tuple[int, ...] = ()
    features: tuple[int, ...] = ()
    stem_features: Count | None = None
    block_features: tuple[int, ...] | None = None
    bottleneck: bool | None = None
    strides: tuple[int, ...] = ()
    batch_norm: bool = True
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    dropout_rate: Rate | None = None
    drop_path_rate: Rate | None = None
    remat: Annotated[str, Choice(REMAT)] = "none"
    positions: int = 0

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps images to outputs."""
        x = inputs[..., None] if inputs.ndim == 3 else inputs
        size = x.shape[:3]
        plan, bias = self.plan(), not self.batch_norm
        sizes, strides = plan.stage_sizes, plan.strides
        self._check(x, plan)
        side, step = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = _conv(plan.stem, side, step, bias, "stem")(x)
        if self.batch_norm:
            x = BatchNorm(name="stem_norm")(x, train)
        x = ACTIVATIONS[self.activation](x)
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        block = rematerialised(ResidualBlock, self.remat)
        rates, inner = iter(rates_by_depth(self.drop_path_rate, sum(sizes))), iter(plan.inner)
        for stage, count in enumerate(sizes):
            for index in range(count):
                x = block(
                    plan.features[stage],
                    next(inner),
                    1 if index else strides[stage],
                    plan.bottleneck,
                    self.activation,
                    self.batch_norm,
                    next(rates),
                    name=f"stage_{stage}_block_{index}",
                )(x, train)
        x = x if self.positions else x.mean(axis=(1, 2))
        x = Dropout(self.dropout_rate, name="dropout")(x, train)
        x = Head(self.num_outputs, (), self.activation, "he_normal", name="head")(x, train)
        return jax.image.resize(x, (*size, self.num_outputs), "linear") if self.positions else x

    def plan(self) -> Plan:
        """Returns the sizes that the keys come to."""
        sizes = self.stage_sizes or DEPTHS[self.depth].stage_sizes
        bottleneck = self.bottleneck
        if bottleneck is None:
            bottleneck = not self.stage_sizes and DEPTHS[self.depth].bottleneck
        features = self.features or tuple(64 * 2**stage for stage in range(len(sizes)))
        each = 1 + bottleneck
        inner = self.block_features or tuple(
            width for width, count in zip(features, sizes) for _ in range(count * each)
        )
        return Plan(
            sizes,
            features,
            self.strides or (1,) + (2,) * (len(sizes) - 1),
            bottleneck,
            self.stem_features or features[0],
            tuple(inner[place : place + each] for place in range(0, len(inner), each)),
        )

    def _check(self, x: Array, plan: Plan) -> None:
        sizes, features, strides = plan.stage_sizes, plan.features, plan.strides
        if x.ndim != 4 or self.positions not in (0, 2):
            raise ConfigError(
                "model.name 'resnet' takes images of shape (height, width) or (height, width, "
                f"channels), and predicts of each pixel or of the image; the data's are "
                f"{x.shape[1:]}, with {self.positions} axes of positions in their targets."
            )
        for key, values in (("features", features), ("strides", strides)):
            if len(values) != len(sizes):
                raise ConfigError(
                    f"model.{key}: {values} are {len(values)}, but there are {len(sizes)} stages "
                    f"(model.stage_sizes {sizes}): give one for each."
                )
        for key, values in (("stage_sizes", sizes), ("features", features), ("strides", strides)):
            if min(values, default=1) < 1:
                raise ConfigError(f"model.{key}: each must be at least 1, found {values}.")
        if self.block_features is not None:
            wanted = sum(sizes) * (1 + plan.bottleneck)
            check_widths("block_features", self.block_features, wanted, "width inside a block")
        total = 4 if self.stem == "imagenet" else 1
        for step in strides:
            total *= step
        if min(x.shape[1:3]) < total:
            raise ConfigError(
                f"model.name 'resnet' makes images {total} times smaller (model.stem "
                f"{self.stem!r}, model.strides {listing(strides)}); the data's are "
                f"{x.shape[1]}×{x.shape[2]}. Use model.stem 'cifar', fewer stages, or larger "
                "images (data.image_size)."
            )
