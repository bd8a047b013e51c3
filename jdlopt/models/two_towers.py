"""Two towers: an encoder for each of two inputs, whose embeddings can be compared."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, Positive, Rate, Scalar
from jdlopt.errors import ConfigError, listing
from jdlopt.models.encoders import (
    TEXT_ENCODERS,
    Encoding,
    InputFacts,
    Inputs,
    encode,
    facts_by_name,
)
from jdlopt.models.layers import ACTIVATIONS, INITIALIZERS

LARGEST_SCALE = 100.0
"""What similarities are multiplied by, at most: beyond it trainings were unstable (CLIP)."""


class TwoTowers(nn.Module):
    """An encoder for each of two inputs, and a projection to ``features`` numbers of length 1.

    It is for the task ``pairs``. The encoders are those of ``fusion``: a table goes through dense
    layers of ``table_features``, an image, a sequence or sound through blocks of convolution and
    max pooling of ``image_features`` or ``sequence_features``; a text becomes the mean of its
    tokens' embeddings, or what a GRU makes of them; each is ``width`` wide before the projection.
    What similarities are divided by, at first ``temperature``, and the ``bias`` that is added to
    them are learnt. Outputs are the first embedding, the second, the logarithm of the inverse of
    the temperature, and the bias (`jdlopt.tasks.pair_outputs.parted`). Radford et al., "Learning
    transferable visual models from natural language supervision", 2021; Zhai et al., "Sigmoid loss
    for language image pre-training", 2023.
    """

    features: Count = 64
    width: Count = 128
    table_features: tuple[int, ...] = (64,)
    image_features: tuple[int, ...] = (16, 32)
    sequence_features: tuple[int, ...] = (16, 32)
    text_encoder: Annotated[str, Choice(TEXT_ENCODERS)] = "mean"
    embedding_features: Count = 32
    temperature: Positive = 0.1
    bias: Scalar = -10.0
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "he_normal"
    dropout_rate: Rate | None = None
    named_inputs: tuple[tuple[str, InputFacts], ...] = ()

    @nn.compact
    def __call__(self, inputs: Inputs, train: bool = False) -> Float[Array, "n outputs"]:
        """Embeds both inputs of each example.

        Raises:
          ConfigError: there are not two, or one has more dimensions than an image.
        """
        given, facts, _ = facts_by_name(inputs, self.named_inputs, 0, ())
        if len(facts) != 2:
            names = [name for name, _ in facts]
            raise ConfigError(
                f"model.name: 'two_towers' takes two inputs; the data have {len(names)}: "
                f"{listing(names)}."
            )
        how = Encoding.of("two_towers", self)
        made = []
        for place, (name, one) in enumerate(facts):
            x = encode(how, given[name], place, name, one, train)
            x = ACTIVATIONS[self.activation](x)
            x = nn.Dense(
                self.features,
                use_bias=False,
                kernel_init=INITIALIZERS["lecun_normal"],
                name=f"projection_{place}",
            )(x)
            x = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # a square may leave float16
            made.append(x * lax.rsqrt(jnp.maximum(jnp.square(x).sum(1, keepdims=True), 1e-6)))
        start = jnp.asarray(self.temperature, jnp.float32), jnp.asarray(self.bias, jnp.float32)
        # its logarithm; weight decay leaves what has this name alone
        log_scale = self.param("scale", lambda key: -jnp.log(start[0]))
        bias = self.param("bias", lambda key: start[1])
        # the gradient is that without the bound, or beyond it there was no way back
        bounded = jnp.minimum(log_scale, jnp.log(LARGEST_SCALE))
        beside = jnp.stack([log_scale + lax.stop_gradient(bounded - log_scale), bias])
        # of an example, not of their number, which an exported file does not know
        rows = 0 * made[0][:, :1] + beside.astype(made[0].dtype)
        return jnp.concatenate([*made, rows], axis=1)
