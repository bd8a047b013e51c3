"""How far a model's outputs are from a teacher's: distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jdlopt.config import Fraction, NonNegative, Positive
from jdlopt.losses.functions import Outputs, PerExample, Scalar, full_precision

EMA = "ema"
"""The teacher that is the model itself, its parameters averaged over the steps before."""


@dataclass(frozen=True, kw_only=True)
class DistillFields:
    """The ``loss.distill`` section: what a model learns from a teacher, beside the targets.

    Attributes:
      teacher: a run's directory; several, whose mean teaches; ``STUDY:k``, the best k runs that a
        study keeps; or ``ema``, the average that ``optim.average`` makes of the model itself. None:
        no teacher, and no section.
      temperature: what outputs are divided by before they become probabilities: the higher, the
        more the teacher says of unlikely classes. The squared temperature multiplies that loss, so
        that its gradient stays as large. Of numbers it changes nothing.
      weight: of the teacher's part of the loss; the targets' has the rest.
      features: regular expressions of the paths of layers whose outputs are to be like the
        teacher's.
      teacher_features: the same of the teacher's layers, in the same order; (): the same paths.
      feature_weight: what the layers' part is multiplied by before it is added.
    """

    teacher: str | tuple[str, ...] | None = None
    temperature: Positive = 4.0
    weight: Fraction = 0.5
    features: tuple[str, ...] = ()
    teacher_features: tuple[str, ...] = ()
    feature_weight: NonNegative = 1.0


def softened(
    outputs: Float[Array, "batch classes"],
    teacher: Float[Array, "batch classes"],
    temperature: Scalar,
) -> PerExample:
    r"""Returns ``T² KL(softmax(teacher / T) ‖ softmax(outputs / T))`` of each example.

    Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.

    Example:
      >>> said = jnp.array([[0.0, 2.0]])
      >>> print(softened(said, said, jnp.float32(2.0)))
      [0.]
    """
    log_p = jax.nn.log_softmax(full_precision(teacher) / temperature)
    log_q = jax.nn.log_softmax(full_precision(outputs) / temperature)
    return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def softened_each(outputs: Outputs, teacher: Outputs, temperature: Scalar) -> PerExample:
    """Returns the same of outputs that are each a probability of its own, averaged over them.

    Example:
      >>> said = jnp.array([[0.0, 2.0]])
      >>> print(softened_each(jnp.zeros((1, 2)), said, jnp.float32(1.0)).round(4))
      [0.1639]
    """
    mine, its = full_precision(outputs) / temperature, full_precision(teacher) / temperature
    asked = jax.nn.sigmoid(its)
    cross = optax.sigmoid_binary_cross_entropy(mine, asked)
    return temperature**2 * (cross - optax.sigmoid_binary_cross_entropy(its, asked)).mean(axis=-1)


SOFTENED: Mapping[str, Callable[[Outputs, Outputs, Scalar], PerExample]] = {
    "softmax": softened,
    "one_vs_rest": softened_each,
    "sigmoid": softened_each,
}
"""What is minimised, by a task's link; of numbers the run's own loss, its targets the teacher's."""


def feature_distance(
    mine: Sequence[Float[Array, "batch ..."]], its: Sequence[Float[Array, "batch ..."]]
) -> Scalar:
    """Returns how far layers' outputs are from a teacher's, averaged over pairs of layers.

    Of the same shape it is the mean squared difference, over the mean square of the teacher's
    (Romero et al., "FitNets: hints for thin deep nets", 2015, without a regressor). Of others it is
    that of which examples of a batch are alike: the matrices of their cosines (Tung and Mori,
    "Similarity-preserving knowledge distillation", 2019).
    """
    return jnp.stack([_distance(*pair) for pair in zip(mine, its, strict=True)]).mean()


def _distance(mine: Array, its: Array) -> Scalar:
    mine, its = full_precision(mine), full_precision(its)
    if mine.shape == its.shape:
        size = jnp.mean(jnp.square(its))
        return jnp.mean(jnp.square(mine - its)) / jnp.maximum(size, jnp.finfo(its.dtype).tiny)
    return jnp.mean(jnp.square(_likeness(mine) - _likeness(its)))


def _likeness(features: Array) -> Float[Array, "batch batch"]:
    """The cosines of the examples' features."""
    rows = features.reshape(len(features), -1)
    square = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    rows = rows * jax.lax.rsqrt(square + 1e-12)  # of a row of zeros the norm has no gradient
    return rows @ rows.T
