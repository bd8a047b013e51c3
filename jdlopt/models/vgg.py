"""VGG: deep stacks of 3×3 convolutions over images."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
from jaxtyping import Array, Float

from jdlopt.config import Choice, Rate
from jdlopt.errors import ConfigError
from jdlopt.kernels.pooling import max_pool
from jdlopt.models.layers import (
    ACTIVATIONS,
    REMAT,
    BatchNorm,
    Conv,
    Head,
    check_widths,
    rematerialised,
)

DEPTHS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions in each stage: Simonyan and Zisserman, 2015, table 1, D and E."""


class VGGStage(nn.Module):
    """Convolutions, each with its activation, and a 2×2 maximum."""

    features: tuple[int, ...]
    batch_norm: bool
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "n height width channels"], train: bool) -> Array:
        """Maps images to images half as high and wide."""
        for index, width in enumerate(self.features):
            x = Conv(width, (3, 3), name=f"conv_{index}")(x)
            if self.batch_norm:
                x = BatchNorm(name=f"norm_{index}")(x, train)
            x = ACTIVATIONS[self.activation](x)
        return max_pool(x, 2)


class VGG(nn.Module):
    """Stages of 3×3 convolutions, and dense layers of ``hidden`` over the flattened last map.

    There is one stage for each of ``features``; ``depth`` says how many convolutions each has.
    ``conv_features`` are the widths of all convolutions, where those of a stage differ.
    Dropout is behind each hidden layer (the paper's rate is 0.5). Simonyan and Zisserman, "Very
    deep convolutional networks for large-scale image recognition", 2015.
    """

    num_outputs: int
    depth: Annotated[int, Choice(DEPTHS)] = 16
    features: tuple[int, ...] = (64, 128, 256, 512, 512)
    conv_features: tuple[int, ...] | None = None
    hidden: tuple[int, ...] = (4096, 4096)
    batch_norm: bool = False
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    dropout_rate: Rate | None = None
    remat: Annotated[str, Choice(REMAT)] = "none"

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps images to outputs."""
        x = inputs[..., None] if inputs.ndim == 3 else inputs
        self._check(x)
        stage = rematerialised(VGGStage, self.remat)
        for index, widths in enumerate(self.plan()):
            x = stage(widths, self.batch_norm, self.activation, name=f"stage_{index}")(x, train)
        return Head(
            self.num_outputs,
            self.hidden,
            self.activation,
            "he_normal",
            self.dropout_rate,
            name="head",
        )(x.reshape(x.shape[0], -1), train)

    def plan(self) -> list[tuple[int, ...]]:
        """Returns the widths of each stage's convolutions."""
        counts = DEPTHS[self.depth][: len(self.features)]
        if self.conv_features is None:
            return [(width,) * count for width, count in zip(self.features, counts)]
        ends = [sum(counts[: place + 1]) for place in range(len(counts))]
        return [self.conv_features[end - count : end] for end, count in zip(ends, counts)]

    def _check(self, x: Array) -> None:
        if x.ndim != 4:
            raise ConfigError(
                "model.name 'vgg' takes images of shape (height, width) or (height, width, "
                f"channels); the data's are {x.shape[1:]}."
            )
        stages = len(DEPTHS[self.depth])
        if not 1 <= len(self.features) <= stages or min(self.features) < 1:
            raise ConfigError(
                f"model.features: expected 1 to {stages} widths of at least 1, one for each stage, "
                f"found {self.features}."
            )
        if self.conv_features is not None:
            count = sum(DEPTHS[self.depth][: len(self.features)])
            check_widths("conv_features", self.conv_features, count, "convolution")
        total = 2 ** len(self.features)
        if min(x.shape[1:3]) < total:
            raise ConfigError(
                f"model.name 'vgg' halves images {len(self.features)} times (model.features), so "
                f"they need {total} pixels at least; the data's are {x.shape[1]}×{x.shape[2]}. Use "
                "fewer stages, or larger images (data.image_size)."
            )
