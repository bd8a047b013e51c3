"""Frames of sound or of other sequences: which of them are padding."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def real_frames(x: Float[Array, "n frames features"]) -> Bool[Array, "n frames"]:
    """Says which frames are no padding: all but those at the end that are equal to the last.

    Silence of zeros at the end of a waveform makes such frames, whatever else preprocessing does to
    each; where only the last frame is equal to itself, there is none.

    Example:
      >>> real_frames(jnp.array([[[1.0], [0.0], [2.0], [0.0], [0.0]]])).tolist()
      [[True, True, True, False, False]]
    """
    differs, places = (x != x[:, -1:]).any(axis=-1), jnp.arange(x.shape[1])
    last = jnp.max(jnp.where(differs, places, -1), axis=1, keepdims=True)
    return places <= jnp.where(last == x.shape[1] - 2, x.shape[1] - 1, last)
