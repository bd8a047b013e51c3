"""Hiding a span of each sequence."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SERIES, Augmentation
from jdlopt.data.augment.sequence.timeline import along_time, draw_spans, spans, without_order


def time_mask(
    key: Key[Array, ""], inputs: Float[Array, "n time *channels"], strength: Scalar
) -> Float[Array, "n time *channels"]:
    """Sets one span of each example to 0, in all of its channels.

    Width and start are uniform over the whole numbers, the width from 0 to ``strength · time``.

    DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout",
    2017, in one dimension.

    Args:
      key: a random key, used once.
      inputs: a batch of sequences.
      strength: the widest span, as a share of the length.
    """
    length = inputs.shape[1]
    hidden = spans(*draw_spans(key, (len(inputs), 1), length, strength), length)
    return jnp.where(along_time(hidden, inputs), 0, inputs)


TIME_MASK = Augmentation(
    name="time_mask",
    apply=time_mask,
    stage="features",
    strength="widest span set to 0, as a share of the length",
    high=1.0,
    first=(0.1, 0.2),
    fits=("sequence",),
    source=SERIES,
    prior=0.35,
    hindrance=without_order,
)
