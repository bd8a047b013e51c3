"""Losses: how far each output is from its target, and the objective that training minimises."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Num, PyTree

from jdlopt.config import (
    Choice,
    Fraction,
    NonNegative,
    Positive,
    Range,
    Value,
    fields_of,
    find_part,
    own_keys,
)
from jdlopt.errors import ConfigError, listing
from jdlopt.models.ensemble import member_names

Task = Literal["classification", "regression"]
Logits = Float[Array, "batch classes"]
Outputs = Float[Array, "batch outputs"]
Targets = Num[Array, "batch"] | Num[Array, "batch outputs"]
PerExample = Float[Array, "batch"]
Scalar = Float[Array, ""]


def _full_precision(values: Array) -> Array:
    """Casts to float32 or wider: a sum of exponentials in bfloat16 keeps two digits."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _distribution(outputs: Logits, targets: Targets) -> Logits:
    """Returns class indices as one-hot rows; rows that are distributions already pass through."""
    if targets.ndim == outputs.ndim:
        _require_shape(outputs, targets)
        return targets.astype(outputs.dtype)
    _require_shape(outputs[..., 0], targets)
    return jax.nn.one_hot(targets.astype(jnp.int32), outputs.shape[-1], dtype=outputs.dtype)


def _columns(outputs: Outputs, targets: Targets) -> Outputs:
    """Returns targets shaped as outputs, so that ``[n, 1] - [n]`` never becomes ``[n, n]``."""
    if targets.ndim == outputs.ndim - 1 and outputs.shape[-1] == 1:
        targets = targets[..., None]
    _require_shape(outputs, targets)
    return targets.astype(outputs.dtype)


def _require_shape(expected: Array, targets: Array) -> None:
    if expected.shape != targets.shape:
        raise ValueError(
            f"targets have shape {targets.shape}, but these outputs need {expected.shape}"
        )


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
    logits = _full_precision(outputs)
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
      outputs: logits; one column scores class 1 against class 0, several score one class each.
      targets: with one output, 0 or 1 or a probability; with several, a class index (one class
        against the rest) or a probability for each output.
      label_smoothing: moves targets this share of the way towards one half; None leaves it out.

    Example:
      >>> loss = binary_cross_entropy(jnp.array([[0.0], [100.0]]), jnp.array([1, 1]))
      >>> print(loss.round(4))
      [0.6931 0.    ]
    """
    logits = _full_precision(outputs)
    single = logits.shape[-1] == 1
    labels = _columns(logits, targets) if single else _distribution(logits, targets)
    if label_smoothing is not None:
        labels = (1.0 - label_smoothing) * labels + 0.5 * label_smoothing
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean(axis=-1)


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
    logits = _full_precision(outputs)
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
    predictions = _full_precision(outputs)
    return optax.squared_error(predictions, _columns(predictions, targets)).mean(axis=-1)


def mae(outputs: Outputs, targets: Targets) -> PerExample:
    """Returns the absolute error of each example, averaged over its outputs.

    Example:
      >>> print(mae(jnp.array([[3.0]]), jnp.array([1.0])))
      [2.]
    """
    predictions = _full_precision(outputs)
    return jnp.abs(predictions - _columns(predictions, targets)).mean(axis=-1)


def huber(outputs: Outputs, targets: Targets, *, delta: Positive = 1.0) -> PerExample:
    """Returns the Huber loss of each example, averaged over its outputs.

    It is ``error^2 / 2`` up to ``|error| = delta`` and ``delta (|error| - delta / 2)`` beyond
    (Huber, 1964), so that an outlier pulls no harder than ``delta``.

    Example:
      >>> print(huber(jnp.array([[3.0], [0.5]]), jnp.array([0.0, 0.0]), delta=1.0))
      [2.5   0.125]
    """
    predictions = _full_precision(outputs)
    targets = _columns(predictions, targets)
    return optax.huber_loss(predictions, targets, delta=delta).mean(axis=-1)


LOSSES: dict[str, Callable[..., PerExample]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "focal": focal,
    "mse": mse,
    "mae": mae,
    "huber": huber,
}

REGRESSION_LOSSES = ("mse", "mae", "huber")


def task_of(loss_name: str) -> Task:
    """Returns which task a loss is for.

    A user's own loss (``package.module:function``) is for classification unless it has an
    attribute ``task = "regression"``.

    Example:
      >>> task_of("huber")
      'regression'
    """
    part = find_part(loss_name, LOSSES, "loss.name")
    default: Task = "regression" if loss_name in REGRESSION_LOSSES else "classification"
    return getattr(part, "task", default)


def num_outputs(loss_name: str, num_classes: int) -> int:
    """Returns how many outputs a model needs under a loss.

    Args:
      loss_name: a key of `LOSSES`, or a dotted path.
      num_classes: of the dataset; 0 for regression.

    Example:
      >>> num_outputs("cross_entropy", 2), num_outputs("binary_cross_entropy", 2)
      (2, 1)
    """
    if task_of(loss_name) == "regression":
        return 1
    return 1 if loss_name == "binary_cross_entropy" and num_classes == 2 else num_classes


# --- class weights --------------------------------------------------------------------------------


def balanced_weights(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns ``n / (k count)`` per class, k the classes that occur: each gets an equal say.

    A class without examples gets weight 0.

    Args:
      counts: the number of training examples of each class.

    Example:
      >>> balanced_weights([30, 10]).round(4).tolist()
      [0.6667, 2.0]
    """
    counts = np.asarray(counts, np.float64)
    occurs = counts > 0
    # A stand-in count of 1 avoids a division by zero in the branch that is not taken.
    shares = counts.sum() / (max(occurs.sum(), 1) * np.where(occurs, counts, 1.0))
    return np.where(occurs, shares, 0.0)


def resolve_class_weights(
    setting: str | Sequence[float] | None, counts: Sequence[int] | np.ndarray
) -> np.ndarray | None:
    """Returns the class weights that ``loss.class_weights`` asks for.

    Args:
      setting: ``"balanced"``, one weight per class, or None.
      counts: the number of training examples of each class.

    Raises:
      ConfigError: there are not as many weights as classes, or all are zero.
    """
    if setting is None:
        return None
    if setting == "balanced":
        return balanced_weights(counts)
    weights = np.asarray(setting, np.float64)
    if weights.shape != (len(counts),):
        raise ConfigError(
            f"loss.class_weights: found {weights.size} weights for {len(counts)} classes; "
            "give one per class, or 'balanced'."
        )
    if not np.any(weights > 0):
        raise ConfigError("loss.class_weights: all are 0, so no example would count.")
    return weights


def _example_weights(class_weights: Array, outputs: Outputs, targets: Targets) -> PerExample:
    """Returns each example's weight: its class's, or the mean under a soft target."""
    num_classes = class_weights.shape[0]
    if outputs.shape[-1] == 1 and num_classes == 2:
        share = _columns(_full_precision(outputs), targets)[..., 0]
        return class_weights[0] * (1.0 - share) + class_weights[1] * share
    if targets.ndim == outputs.ndim:
        return targets.astype(class_weights.dtype) @ class_weights
    return jnp.take(class_weights, targets.astype(jnp.int32))


# --- the objective --------------------------------------------------------------------------------


@dataclass(frozen=True)
class LossFields:
    """The ``loss`` section: the keys that every loss has, and the named loss's own.

    Attributes:
      name: a key of `LOSSES`.
      l1: adds ``l1 sum |p|`` over the penalised parameters.
      l2: adds ``l2 sum p^2`` over them.
      penalize: regular expressions, searched in a parameter's path (``layer_0/kernel``).
      class_weights: ``"balanced"`` (`balanced_weights`), one weight per class, or None.
      options: the loss's own keys.
    """

    name: Annotated[str, Choice(LOSSES)] = "cross_entropy"
    l1: NonNegative | None = None
    l2: NonNegative | None = None
    penalize: tuple[str, ...] = ("kernel",)
    class_weights: (
        Annotated[str, Choice(("balanced",))] | Annotated[tuple[float, ...], Range(0)] | None
    ) = None
    options: Mapping[str, Value] = own_keys()


class Loss(NamedTuple):
    """A loss as pure functions of arrays; `hparams` holds the traced floats of the loss section."""

    task: Task
    per_example: Callable[[Outputs, Targets, Mapping[str, Any]], PerExample]
    objective: Callable[[Outputs, Targets, PyTree, Mapping[str, Any]], Scalar]
    probabilities: Callable[[Outputs], Logits] | None


def make_loss(
    section: Mapping[str, Any], class_weights: np.ndarray | None = None, members: int = 1
) -> Loss:
    """Returns the loss that a resolved loss section describes.

    Args:
      section: the loss section; its floats only say that a feature is on, their values come
        with ``hparams``.
      class_weights: one weight per class (`resolve_class_weights`), or None.
      members: of an ensemble (`jdlopt.models.ensemble`); with several, ``objective`` takes the
        outputs of all of them.

    Returns:
      A `Loss`. ``objective`` is the weighted mean ``sum w l / sum w`` plus the penalties.

    Raises:
      ConfigError: an unknown loss, class weights for a regression, or a pattern that is no
        regular expression. ``objective`` raises it, while traced, if no parameter is penalised.
    """
    name = section["name"]
    part = find_part(name, LOSSES, "loss.name")
    task = task_of(name)
    if class_weights is not None and task == "regression":
        raise ConfigError(f"loss.class_weights: {name!r} is a regression loss; it has no classes.")
    try:
        patterns = [re.compile(each) for each in section.get("penalize", LossFields.penalize)]
    except re.error as error:
        raise ConfigError(
            f"loss.penalize: {error.pattern!r} is not a regular expression: {error}."
        ) from error
    accepted = list(fields_of(part))
    floats = {key for key in accepted if isinstance(section.get(key), float)}
    static = {key: section[key] for key in accepted if key in section and key not in floats}
    penalties = tuple(key for key in ("l1", "l2") if section.get(key) is not None)

    def per_example(outputs: Outputs, targets: Targets, hparams: PyTree) -> PerExample:
        traced = {key: hparams[key] for key in accepted if key in hparams or key in floats}
        return part(outputs, targets, **{**static, **traced})

    def objective(outputs: Outputs, targets: Targets, params: PyTree, hparams: PyTree) -> Scalar:
        losses = per_example(outputs, targets, hparams)
        if class_weights is None:
            value = losses.mean()
        else:
            weights = _example_weights(jnp.asarray(class_weights, losses.dtype), outputs, targets)
            total = weights.sum()
            value = jnp.sum(weights * losses) / jnp.where(total > 0, total, 1.0)
        if penalties:
            chosen = penalized(params, patterns)
            if "l1" in penalties:
                value += hparams["l1"] * sum(jnp.abs(leaf).sum() for leaf in chosen)
            if "l2" in penalties:
                value += hparams["l2"] * sum(jnp.square(leaf).sum() for leaf in chosen)
        return value

    def probabilities(outputs: Logits) -> Logits:
        outputs = _full_precision(outputs)
        return _sigmoids(outputs) if part is binary_cross_entropy else jax.nn.softmax(outputs)

    whole = objective if members == 1 else _of_members(objective, members)
    return Loss(task, per_example, whole, probabilities if task == "classification" else None)


def _of_members(objective: Callable[..., Scalar], members: int) -> Callable[..., Scalar]:
    """The mean objective of an ensemble's members, with the gradient that each has alone."""

    def mean(
        outputs: Float[Array, "members batch outputs"],
        targets: Targets,
        params: Mapping[str, PyTree],
        hparams: PyTree,
    ) -> Scalar:
        values = [
            objective(outputs[index], targets, params[name], hparams)
            for index, name in enumerate(member_names(members))
        ]
        total = jnp.stack(values).sum()
        shown = lax.stop_gradient(total / members - total)
        return total + shown  # dividing would shorten the steps of all optimizers that scale

    return mean


def outputs_of(probabilities: Logits, width: int) -> Logits:
    """Returns the outputs whose class probabilities are these.

    Args:
      probabilities: of the classes.
      width: of the outputs; 1: a logit that scores class 1 against class 0.
    """
    log = jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny))
    return log[..., 1:] - log[..., :1] if width == 1 else log


def mean_outputs(
    loss: Loss, outputs: Float[Array, "members batch outputs"]
) -> Float[Array, "batch outputs"]:
    """Returns the outputs that stand for several: of their mean class probabilities, or their mean.

    Example:
      >>> loss = make_loss({"name": "cross_entropy"})
      >>> sure, unsure = jnp.log(jnp.array([[0.9, 0.1]])), jnp.log(jnp.array([[0.5, 0.5]]))
      >>> shares = loss.probabilities(mean_outputs(loss, jnp.stack([sure, unsure])))
      >>> [round(float(share), 3) for share in shares[0]]
      [0.7, 0.3]
    """
    if loss.probabilities is None:
        return outputs.mean(axis=0)
    return outputs_of(loss.probabilities(outputs).mean(axis=0), outputs.shape[-1])


def _sigmoids(logits: Outputs) -> Logits:
    both = [-logits, logits] if logits.shape[-1] == 1 else [logits]
    return jax.nn.sigmoid(jnp.concatenate(both, axis=-1))


def penalized(params: PyTree, patterns: Sequence[str | re.Pattern[str]]) -> list[Array]:
    """Returns the parameters whose ``/``-joined path holds a match of any pattern.

    Raises:
      ConfigError: none does, so that a penalty would silently do nothing.

    Example:
      >>> params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
      >>> [leaf.shape for leaf in penalized(params, ["dense/kernel"])]
      [(2, 2)]
    """
    paths = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    chosen = [
        leaf for path, leaf in paths.items() if any(re.search(each, path) for each in patterns)
    ]
    if not chosen:
        raise ConfigError(
            "loss.penalize: matches no parameter, so l1 and l2 would do nothing. "
            f"Parameters: {listing(paths)}."
        )
    return chosen
