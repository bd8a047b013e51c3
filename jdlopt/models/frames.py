"""Frames of sound or of other sequences: fewer of them, and outputs at each."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jdlopt.errors import ConfigError
from jdlopt.models.layers import INITIALIZERS, Conv

FAR = 1e4
"""How far other classes lie below the blank where nothing can be said: in float16 as well, their
probability is 0 and the blank's is 1."""

MOST_FRAMES = 8192
"""More frames are samples of a waveform, of which features are to be made first."""

Frames = Float[Array, "n frames features"]
Real = Bool[Array, "n frames"]


def frames_of(inputs: Float[Array, "n *shape"], name: str) -> Frames:
    """Returns inputs as frames with features.

    Args:
      inputs: (frames,), (frames, features), or (rows, columns, channels), read row by row.
      name: the model's, for messages.

    Raises:
      ConfigError: an example is none of these, or as long as a waveform.
    """
    x = inputs[..., None] if inputs.ndim == 2 else inputs
    if x.ndim not in (3, 4) or x.shape[1] > MOST_FRAMES:
        raise ConfigError(
            f"model.name {name!r} takes frames with features (length, channels); the data's are "
            f"{inputs.shape[1:]}. Of sound, data.preprocess.audio='log_mel' makes such."
        )
    return x.reshape(*x.shape[:2], -1)


class Subsampling(nn.Module):
    """Convolutions over time, each with a stride: so many times fewer frames.

    What is padding stays 0 between them, and where a kernel lies depends on no length: outputs do
    not change with the amount of padding.
    """

    features: int
    strides: tuple[int, ...]
    kernel_size: int
    initializer: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "n frames channels"], real: Real
    ) -> tuple[Float[Array, "n steps features"], Bool[Array, "n steps"]]:
        """Returns fewer frames, and which of them are real."""
        if not self.strides or min(self.strides) < 1:
            raise ConfigError(
                "model.strides: expected the stride of at least one convolution, each at least 1, "
                f"found {self.strides}."
            )
        before = (self.kernel_size - 1) // 2
        for index, stride in enumerate(self.strides):
            x = jax.nn.relu(
                Conv(
                    self.features,
                    (self.kernel_size,),
                    stride,
                    ((before, self.kernel_size - 1 - before),),
                    kernel_init=INITIALIZERS[self.initializer],
                    name=f"conv_{index}",
                )(only(x, real))
            )
            real = real[:, ::stride]
        return only(x, real), real


def only(x: Frames, real: Real) -> Frames:
    """Returns frames with zeros where they are padding."""
    return jnp.where(real[..., None], x, jnp.zeros((), x.dtype))


def mean_of(x: Frames, real: Real) -> Float[Array, "n features"]:
    """Returns the mean over the frames that are no padding."""
    return only(x, real).sum(axis=1) / jnp.maximum(real.sum(axis=1, keepdims=True), 1)


def blank_where_padded(
    outputs: Float[Array, "n steps classes"], real: Bool[Array, "n steps"]
) -> Float[Array, "n steps classes"]:
    """Returns outputs whose likeliest class in padding is 0, the blank, with a probability of 1.

    So a loss or a decoder over all steps is one over an example's own, and its length need not be
    known.
    """
    blank = jnp.where(jnp.arange(outputs.shape[-1]) == 0, 0.0, -FAR).astype(outputs.dtype)
    return jnp.where(real[..., None], outputs, blank)
