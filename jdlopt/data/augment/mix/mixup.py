"""Mixup: each example is a mean of two, and so is its target."""

from __future__ import annotations

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


def mixup(
    key: Key[Array, ""], inputs: Examples, targets: Targets, strength: Scalar
) -> tuple[Examples, Targets]:
    """Makes each example a mean of itself and another one, and its target the same mean.

    ``λ · x + (1 - λ) · x'`` with λ from Beta(α, α). Zhang, Cissé, Dauphin and Lopez-Paz, "mixup:
    beyond empirical risk minimization", 2018. The paper draws one λ a batch; here each example has
    its own, from the same distribution, so that all batches are mixed about as much.

    Args:
      key: a random key.
      inputs: inputs of any shape.
      targets: distributions over classes, or numbers.
      strength: α; 0 returns inputs and targets to the bit.
    """
    share = symmetric_beta(key, strength, inputs.shape[:1])
    return mixed(inputs, share, partners(inputs)), mixed(targets, share, partners(targets))


MIXUP = Augmentation(
    name="mixup",
    apply=mixup,
    stage="mix",
    alike=True,
    strength="α of the Beta(α, α) that says how to mix examples",
    high=None,
    first=(0.2, 0.4),
    fits=("image", "sequence", "waveform"),
    source="Zhang et al., mixup: beyond empirical risk minimization, 2018",
    prior=0.45,
    hindrance=without_classes,
)
