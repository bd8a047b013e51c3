"""Losses of each example: how far its outputs are from its target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num

from jdlopt.config import Fraction, NonNegative, Positive, find_part
from jdlopt.losses.ctc import ctc
from jdlopt.losses.overlap import cross_entropy_dice, dice
from jdlopt.losses.pairs import clip, siglip

Logits = Float[Array, "batch classes"]
Outputs = Float[Array, "batch outputs"]
Targets = Num[Array, "batch"] | Num[Array, "batch outputs"]
AllOutputs = Float[Array, "batch *positions outputs"]
"""With a row of outputs at each of an example's positions, where it has any."""
AllTargets = Num[Array, "batch *outputs_or_positions"]
PerExample = Float[Array, "batch"]
Scalar = Float[Array, ""]


def full_precision(values: Array) -> Array:
    """Casts to float32 or wider: a sum of exponentials in bfloat16 keeps two digits."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _distribution(outputs: Logits, targets: Targets) -> Logits:
    """Returns class indices as one-hot rows; rows that are distributions already pass through."""
    if targets.ndim == outputs.ndim:
        _require_shape(outputs, targets)
        return targets.astype(outputs.dtype)
    _require_shape(outputs[..., 0], targets)
    return jax.nn.one_hot(targets.astype(jnp.int32), outputs.shape[-1], dtype=outputs.dtype)


def columns(outputs: Outputs, targets: Targets) -> Outputs:
    """Returns targets shaped as outputs, so that ``[n, 1] - [n]`` never becomes ``[n, n]``."""
    if targets.ndim == outputs.ndim - 1 and outputs.shape[-1] == 1:
        targets = targets[..., None]
    _require_shape(outputs, targets)
    return targets.astype(outputs.dtype)


def _require_shape(expected: Array, targets: Array) -> None:
    need = f"targets have shape {targets.shape}, but these outputs need {expected.shape}"
    chex.assert_shape(targets, expected.shape, custom_message=need)


# --- classification -------------------------------------------------------------------------------


def cross_entropy(
    outputs: Logits, targets: Targets, *, label_smoothing: Fraction | None = None
) -> PerExample:
    r"""Returns the softmax cross-entropy ``-sum_j y_j log softmax(outputs)_j`` of each example.

    Args:
      outputs: logits.
      targets: class indices, or a distribution over the classes in each row.
      label_smoothing: moves this share of each target evenly onto all classes (Szegedy et al.,
        2016, https://arxiv.org/abs/1512.00567); None leaves the feature out of the program.

    Example:
      >>> loss = cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
      >>> print(loss.round(4))
      [0.6931]
    """
    logits = full_precision(outputs)
    if label_smoothing is None and targets.ndim < logits.ndim:
        _require_shape(logits[..., 0], targets)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets.astype(jnp.int32))
    labels = _distribution(logits, targets)
    if label_smoothing is not None:
        labels = optax.smooth_labels(labels, label_smoothing)
    return optax.softmax_cross_entropy(logits, labels)


def binary_cross_entropy(
    outputs: Outputs, targets: Targets, *, label_smoothing: Fraction | None = None
) -> PerExample:
    """Returns the sigmoid cross-entropy of each example, averaged over its outputs.

    Args:
      outputs: logits; one column scores class 1 against class 0, several score a class or a label
        each.
      targets: with one output, 0 or 1 or a probability; with several, a class index (one class
        against the rest), or for each output a label (0 or 1) or a probability.
      label_smoothing: moves targets this share of the way towards one half; None leaves it out.

    Example:
      >>> loss = binary_cross_entropy(jnp.array([[0.0], [100.0]]), jnp.array([1, 1]))
      >>> print(loss.round(4))
      [0.6931 0.    ]
    """
    logits, labels = _binary(outputs, targets, label_smoothing)
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean(axis=-1)


def _binary(
    outputs: Outputs, targets: Targets, label_smoothing: Fraction | None
) -> tuple[Outputs, Outputs]:
    """Returns logits, and for each of them the probability that its target asks for."""
    logits = full_precision(outputs)
    single = logits.shape[-1] == 1
    labels = columns(logits, targets) if single else _distribution(logits, targets)
    if label_smoothing is not None:
        labels = (1.0 - label_smoothing) * labels + 0.5 * label_smoothing
    return logits, labels


def positively_weighted(
    outputs: Outputs,
    targets: Targets,
    weights: Float[Array, "outputs"],
    *,
    label_smoothing: Fraction | None = None,
) -> PerExample:
    r"""Returns the binary cross-entropy with a weight on each output's positives.

    ``-mean_j [w_j y_j log p_j + (1 - y_j) log(1 - p_j)]``, ``p = sigmoid(outputs)``; the
    ``pos_weight`` of PyTorch's ``BCEWithLogitsLoss``.

    Args:
      outputs: logits, a label each.
      targets: 0 or 1 or a probability for each.
      weights: of the positives of each label.
      label_smoothing: as in `binary_cross_entropy`.
    """
    logits, labels = _binary(outputs, targets, label_smoothing)
    chex.assert_shape(
        weights, logits.shape[-1:], custom_message="positives have one weight an output"
    )
    there, absent = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -(weights * labels * there + (1.0 - labels) * absent).mean(axis=-1)


def focal(outputs: Logits, targets: Targets, *, gamma: NonNegative = 2.0) -> PerExample:
    """Returns the focal loss ``-sum_j y_j (1 - p_j)^gamma log p_j``, with ``p = softmax(outputs)``.

    It lowers the weight of examples that are already right (Lin et al., 2017,
    https://arxiv.org/abs/1708.02002); ``gamma = 0`` is the cross-entropy.

    Args:
      outputs: logits.
      targets: class indices, or a distribution over the classes in each row.
      gamma: the focusing exponent.

    Example:
      >>> loss = focal(jnp.array([[0.0, 0.0]]), jnp.array([1]), gamma=1.0)
      >>> print(loss.round(4))
      [0.3466]
    """
    logits = full_precision(outputs)
    log_p = jax.nn.log_softmax(logits)
    # The floor keeps 0^0 = 1 and its gradient finite where p rounds to 1.
    rest = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(logits.dtype).tiny)
    modulation = jnp.exp(gamma * jnp.log(rest))
    return -jnp.sum(_distribution(logits, targets) * modulation * log_p, axis=-1)


# --- regression -----------------------------------------------------------------------------------


def mse(outputs: Outputs, targets: Targets) -> PerExample:
    """Returns the squared error of each example, averaged over its outputs.

    Example:
      >>> print(mse(jnp.array([[3.0]]), jnp.array([1.0])))
      [4.]
    """
    predictions = full_precision(outputs)
    return optax.squared_error(predictions, columns(predictions, targets)).mean(axis=-1)


def mae(outputs: Outputs, targets: Targets) -> PerExample:
    """Returns the absolute error of each example, averaged over its outputs.

    Example:
      >>> print(mae(jnp.array([[3.0]]), jnp.array([1.0])))
      [2.]
    """
    predictions = full_precision(outputs)
    return jnp.abs(predictions - columns(predictions, targets)).mean(axis=-1)


def huber(outputs: Outputs, targets: Targets, *, delta: Positive = 1.0) -> PerExample:
    """Returns the Huber loss of each example, averaged over its outputs.

    It is ``error^2 / 2`` up to ``|error| = delta`` and ``delta (|error| - delta / 2)`` beyond
    (Huber, 1964), so that an outlier pulls no harder than ``delta``.

    Example:
      >>> print(huber(jnp.array([[3.0], [0.5]]), jnp.array([0.0, 0.0]), delta=1.0))
      [2.5   0.125]
    """
    predictions = full_precision(outputs)
    targets = columns(predictions, targets)
    return optax.huber_loss(predictions, targets, delta=delta).mean(axis=-1)


LOSSES: dict[str, Callable[..., PerExample]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "focal": focal,
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "dice": dice,
    "cross_entropy_dice": cross_entropy_dice,
    "ctc": ctc,
    "clip": clip,
    "siglip": siglip,
}

WHOLE_LOSSES: frozenset[str] = frozenset({"dice", "cross_entropy_dice", "ctc", "clip", "siglip"})
"""Those that take the outputs of all positions of an example together, [batch, *positions,
outputs]; the others take a row an example, and where there are positions each of them is a row."""

TOGETHER = frozenset({"clip", "siglip"})
"""Those that compare the examples of a batch with one another."""


def fits(loss_name: str, task: str, bundled: Sequence[str]) -> bool:
    """Says whether a loss can be minimised for a task.

    A user's own loss (``package.module:function``) is for classification, unless it has an
    attribute ``task``: the name of a task, or several.

    Args:
      loss_name: a key of `LOSSES`, or a dotted path.
      task: the task's name.
      bundled: the keys of `LOSSES` that are for it.

    Example:
      >>> fits("huber", "regression", ("mse", "mae", "huber"))
      True
    """
    part = find_part(loss_name, LOSSES, "loss.name")
    if loss_name in bundled or loss_name in LOSSES:
        return loss_name in bundled
    own = getattr(part, "task", "classification")
    return task in ((own,) if isinstance(own, str) else own)
