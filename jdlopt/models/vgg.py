"""VGG: deep stacks of 3×3 convolutions over images."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
from jaxtyping import Array, Float

from jdlopt.config import Choice, Rate
from jdlopt.errors import ConfigError
from jdlopt.kernels.pooling import max_pool
from jdlopt.models.layers import ACTIVATIONS, REMAT, BatchNorm, Conv, Head, rematerialised

DEPTHS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions in each stage: Simonyan and Zisserman, 2015, table 1, D and E."""


class VGGStage(nn.Module):
    """Convolutions of one width, each with its activation, and a 2×2 maximum."""

    features: int
    count: int
    batch_norm: bool
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "n height width channels"], train: bool) -> Array:
        """Maps images to images half as high and wide."""
        for index in range(self.count):
            x = Conv(self.features, (3, 3), name=f"conv_{index}")(x)
            if self.batch_norm:
                x = BatchNorm(name=f"norm_{index}")(x, train)
            x = ACTIVATIONS[self.activation](x)
        return max_pool(x, 2)


class VGG(nn.Module):
    """Stages of 3×3 convolutions, and dense layers of ``hidden`` over the flattened last map.

    There is one stage for each of ``features``; ``depth`` says how many convolutions each has.
    Dropout is behind each hidden layer (the paper's rate is 0.5). Simonyan and Zisserman, "Very
    deep convolutional networks for large-scale image recognition", 2015.
    """

    num_outputs: int
    depth: Annotated[int, Choice(DEPTHS)] = 16
    features: tuple[int, ...] = (64, 128, 256, 512, 512)
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
        for index, (width, count) in enumerate(zip(self.features, DEPTHS[self.depth])):
            x = stage(width, count, self.batch_norm, self.activation, name=f"stage_{index}")(
                x, train
            )
        return Head(
            self.num_outputs,
            self.hidden,
            self.activation,
            "he_normal",
            self.dropout_rate,
            name="head",
        )(x.reshape(x.shape[0], -1), train)

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
        total = 2 ** len(self.features)
        if min(x.shape[1:3]) < total:
            raise ConfigError(
                f"model.name 'vgg' halves images {len(self.features)} times (model.features), so "
                f"they need {total} pixels at least; the data's are {x.shape[1]}×{x.shape[2]}. Use "
                "fewer stages, or larger images (data.image_size)."
            )
