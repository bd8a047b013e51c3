"""CutMix: a part of each example is another one's, and so is its target."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import Augmentation
from jdlopt.data.augment.mix.mixing import (
    Examples,
    Targets,
    mixed,
    partners,
    symmetric_beta,
    without_classes,
)


def cutmix(
    key: Key[Array, ""], inputs: Examples, targets: Targets, strength: Scalar
) -> tuple[Examples, Targets]:
    """Puts a rectangle of another example into each one, and mixes targets by its area.

    The rectangle has the image's proportions and ``1 - λ`` of its area, λ from Beta(α, α); its
    middle is uniform, what lies beyond the border is cut off, and the target's share is the area
    that is left. In signals it is an interval. Yun et al., "CutMix: regularization strategy to
    train strong classifiers with localizable features", 2019; here each example has a rectangle of
    its own, where the paper has one a batch.

    Args:
      key: a random key.
      inputs: images [n, h, w, c] or signals [n, length, c] or [n, length].
      targets: distributions over classes, or numbers.
      strength: α; 0 returns inputs and targets to the bit.
    """
    n, space = inputs.shape[0], inputs.shape[1:-1] or inputs.shape[1:]
    share_key, place_key = jax.random.split(key)
    side = (1 - symmetric_beta(share_key, strength, (n,))) ** (1 / len(space))
    middles = jax.random.uniform(place_key, (len(space), n))
    inside = jnp.ones((n, *[1] * len(space)), bool)
    for axis, size in enumerate(space):
        first = jnp.round((middles[axis] - side / 2) * size)
        end = first + jnp.round(side * size)
        place = jnp.arange(size, dtype=jnp.float32)
        within = (place >= first[:, None]) & (place < end[:, None])
        inside &= within.reshape(n, *[size if other == axis else 1 for other in range(len(space))])
    share = 1 - inside.mean(tuple(range(1, 1 + len(space))), dtype=jnp.float32)
    inside = inside.reshape(*inside.shape, *[1] * (inputs.ndim - inside.ndim))
    return jnp.where(inside, partners(inputs), inputs), mixed(targets, share, partners(targets))


CUTMIX = Augmentation(
    name="cutmix",
    apply=cutmix,
    stage="mix",
    strength="α of the Beta(α, α) that says how much to paste",
    high=None,
    first=(1.0,),
    fits=("image", "sequence", "waveform"),
    source="Yun et al., CutMix, 2019",
    prior=0.4,
    hindrance=without_classes,
)
