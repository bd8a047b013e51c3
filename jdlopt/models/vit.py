"""The vision transformer: an image as a sequence of patches."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, NonNegative, Positive, Rate, Scalar
from jdlopt.errors import ConfigError
from jdlopt.models.attention import LayerSizes, make_layers, run_layers
from jdlopt.models.experts import mixture_of
from jdlopt.models.layers import ACTIVATIONS, REMAT, Dropout, Head, layer_norm


class Sizes(NamedTuple):
    """The sizes that a variant's letter stands for."""

    features: int
    num_layers: int
    num_heads: int


VARIANTS = {"Ti": Sizes(192, 12, 3), "S": Sizes(384, 12, 6), "B": Sizes(768, 12, 12)}
"""Dosovitskiy et al., 2021 (B); Touvron et al., "Training data-efficient image transformers &
distillation through attention", 2021 (Ti, S)."""

POOLINGS = ("cls", "mean")
_INIT = nn.initializers.normal(0.02)


class PatchEmbeddings(nn.Module):
    """A linear map of each patch's pixels, and its position's vector.

    Rows of the kernel are the patch's pixels row by row, each pixel's channels side by side.
    """

    features: int
    patch_size: int
    class_token: bool
    dropout_rate: Scalar | None

    @nn.compact
    def __call__(
        self, images: Float[Array, "n height width channels"], train: bool
    ) -> Float[Array, "n positions features"]:
        """Returns the patches row by row, after the class token if there is one."""
        n, height, width, channels = images.shape
        size = self.patch_size
        rows, columns = height // size, width // size
        x = images.reshape(n, rows, size, columns, size, channels).swapaxes(2, 3)
        x = x.reshape(n, rows * columns, size * size * channels)
        x = nn.Dense(self.features, name="patches")(x)
        if self.class_token:
            token = self.param("class_token", _INIT, (self.features,)).astype(x.dtype)
            x = jnp.concatenate([jnp.broadcast_to(token, (n, 1, self.features)), x], axis=1)
        positions = nn.Embed(x.shape[1], self.features, embedding_init=_INIT, name="positions")
        return Dropout(self.dropout_rate, name="dropout")(
            x + positions(jnp.arange(x.shape[1])), train
        )


class ViT(nn.Module):
    """Pre-norm transformer layers over the patches of an image.

    The features are the class token's (``pooling='cls'``), or the mean over the patches. Sizes that
    are not given are the variant's; ``layer_heads``, ``layer_mlp_features``, ``head_features`` and
    the keys of experts are as in `jdlopt.models.transformer.TransformerEncoder`. Dosovitskiy et
    al., "An image is worth 16x16 words: transformers for image recognition at scale", 2021.
    """

    num_outputs: int
    variant: Annotated[str, Choice(VARIANTS)] = "Ti"
    patch_size: Count = 16
    features: Count | None = None
    num_layers: Count | None = None
    num_heads: Count | None = None
    mlp_features: Count | None = None
    head_features: Count | None = None
    layer_heads: tuple[int, ...] | None = None
    layer_mlp_features: tuple[int, ...] | None = None
    experts: Count | None = None
    experts_per_token: Count = 1
    capacity: Count | None = None
    balance_weight: NonNegative | None = None
    router_z_weight: NonNegative | None = None
    pooling: Annotated[str, Choice(POOLINGS)] = "cls"
    activation: Annotated[str, Choice(ACTIVATIONS)] = "gelu_exact"
    norm_epsilon: Positive = 1e-6
    dropout_rate: Rate | None = None
    scan_layers: bool = False
    remat: Annotated[str, Choice(REMAT)] = "none"
    microbatches: int | None = None

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps images to outputs."""
        images = inputs[..., None] if inputs.ndim == 3 else inputs
        self._check(images)
        sizes = self.sizes()
        count = sizes.num_layers
        x = PatchEmbeddings(
            sizes.features,
            self.patch_size,
            self.pooling == "cls",
            self.dropout_rate,
            name="embeddings",
        )(images, train)
        layers = make_layers(
            sizes,
            self.remat,
            named=True,
            activation=self.activation,
            norm_epsilon=self.norm_epsilon,
            dropout_rate=self.dropout_rate,
            pre_norm=True,
            mixture=mixture_of(self),
        )
        run = layers[0] if self.scan_layers else layers
        x = run_layers(run, count, x, train, microbatches=self.microbatches)
        norm = layer_norm(self.norm_epsilon, name="norm")
        x = norm(x[:, 0]) if self.pooling == "cls" else norm(x).mean(axis=1)
        return Head(self.num_outputs, (), self.activation, "glorot_uniform", name="head")(x, train)

    def sizes(self) -> LayerSizes:
        """Returns the sizes of the layers, the variant's where no key gives them."""
        variant = VARIANTS[self.variant]
        return LayerSizes(
            features=self.features or variant.features,
            num_layers=self.num_layers or variant.num_layers,
            num_heads=self.num_heads or variant.num_heads,
            mlp_features=self.mlp_features,
            head_features=self.head_features,
            layer_heads=self.layer_heads,
            layer_mlp_features=self.layer_mlp_features,
            scan_layers=self.scan_layers,
        )

    def _check(self, images: Array) -> None:
        if images.ndim != 4:
            raise ConfigError(
                "model.name 'vit' takes images of shape (height, width) or (height, width, "
                f"channels); the data's are {images.shape[1:]}. Use 'transformer_encoder' for "
                "sequences, 'mlp' for anything else."
            )
        height, width = images.shape[1:3]
        size = self.patch_size
        if height % size or width % size:
            fitting = [
                part
                for part in range(1, min(height, width) + 1)
                if not (height % part or width % part)
            ]
            raise ConfigError(
                f"model.patch_size: images of {height}×{width} can't be cut into patches of "
                f"{size}×{size}; {', '.join(map(str, fitting))} would fit, or resize the images "
                "(data.preprocess.resize)."
            )
