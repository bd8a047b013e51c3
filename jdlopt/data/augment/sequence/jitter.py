"""Adding noise to sequences and tables."""

from __future__ import annotations

from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SERIES, Augmentation, unless_zero
from jdlopt.data.augment.draws import normals


def jitter(
    key: Key[Array, ""], inputs: Float[Array, "n *shape"], strength: Scalar
) -> Float[Array, "n *shape"]:
    """Adds Gaussian noise to every value: ``x + strength · N(0, 1)``.

    Um et al., "Data augmentation of wearable sensor data for Parkinson's disease monitoring using
    convolutional neural networks", 2017.

    Args:
      key: a random key, used once.
      inputs: a batch.
      strength: the noise's standard deviation; 0 returns the inputs.
    """
    noise = normals(key, inputs.shape)
    return unless_zero(strength, inputs + strength * noise, inputs)


JITTER = Augmentation(
    name="jitter",
    apply=jitter,
    stage="features",
    strength="standard deviation of the noise added to each value",
    high=None,
    first=(0.05, 0.2),
    fits=("sequence",),
    source=SERIES,
    prior=0.35,
)
