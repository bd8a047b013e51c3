"""The objective that training minimises: a loss's weighted mean, and penalties on parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from jdlopt.config import (
    Choice,
    NonNegative,
    Range,
    Value,
    fields_of,
    find_part,
    own_keys,
)
from jdlopt.errors import ConfigError, listing
from jdlopt.losses.distill import SOFTENED, DistillFields
from jdlopt.losses.functions import (
    LOSSES,
    TOGETHER,
    WHOLE_LOSSES,
    AllOutputs,
    AllTargets,
    PerExample,
    Scalar,
    binary_cross_entropy,
    positively_weighted,
)
from jdlopt.losses.links import LINKS, Link
from jdlopt.losses.positions import of_rows, over_positions
from jdlopt.losses.weights import example_weights
from jdlopt.models.ensemble import member_names
from jdlopt.models.pruning import without_scores


@dataclass(frozen=True)
class LossFields:
    """The ``loss`` section: the keys that every loss has, and the named loss's own.

    Attributes:
      name: a key of `LOSSES`; where a config names none, its task's: ``cross_entropy`` of classes,
        ``binary_cross_entropy`` of labels, ``mse`` of numbers.
      l1: adds ``l1 sum |p|`` over the penalised parameters.
      l2: adds ``l2 sum p^2`` over them.
      penalize: regular expressions, searched in a parameter's path (``layer_0/kernel``).
      class_weights: ``"balanced"`` (`balanced_weights`), one weight per class, or None. Of labels
        they weigh the positives of each (`positively_weighted`, `balanced_positives`).
      distill: what is learnt from a teacher, or None.
      options: the loss's own keys.
    """

    name: Annotated[str, Choice(LOSSES)] = "cross_entropy"
    l1: NonNegative | None = None
    l2: NonNegative | None = None
    penalize: tuple[str, ...] = ("kernel",)
    class_weights: (
        Annotated[str, Choice(("balanced",))] | Annotated[tuple[float, ...], Range(0)] | None
    ) = None
    distill: DistillFields | None = None
    options: Mapping[str, Value] = own_keys()


class Loss(NamedTuple):
    """A loss as pure functions of arrays; `hparams` holds the traced floats of the loss section.

    Attributes:
      per_example: ``(outputs, targets, hparams) → losses``, of the targets alone.
      objective: ``(outputs, targets, params, hparams, teacher's outputs or None) → loss``.
      link: how outputs become probabilities, or None.
      positions: axes of the outputs between the batch and the last.
      together: whether it compares the examples of a batch with one another.
    """

    per_example: Callable[[AllOutputs, AllTargets, Mapping[str, object]], PerExample]
    objective: Callable[..., Scalar]
    link: Link | None
    positions: int = 0
    together: bool = False

    @property
    def probabilities(self) -> Callable[[AllOutputs], AllOutputs] | None:
        """Turns outputs into probabilities; None where outputs are the predictions."""
        return None if self.link is None else self.link.probabilities


def make_loss(
    section: Mapping[str, Any],
    class_weights: np.ndarray | None = None,
    members: int = 1,
    link: str = "softmax",
    positions: int = 0,
) -> Loss:
    """Returns the loss that a resolved loss section describes.

    Args:
      section: the loss section; its floats only say that a feature is on, their values come
        with ``hparams``.
      class_weights: one weight per class or label (`resolve_class_weights`), or None.
      members: of an ensemble (`jdlopt.models.ensemble`); with several, ``objective`` takes the
        outputs of all of them.
      link: of the task, in `LINKS`; `binary_cross_entropy` has each class against the rest, where
        the task has a softmax.
      positions: axes between the batch and the last one of the outputs (`jdlopt.data.coding`).

    Returns:
      A `Loss`. ``objective`` is the weighted mean ``sum w l / sum w`` plus the penalties; of labels
      the mean of `positively_weighted`. Of a model that has submodels, whose outputs while training
      are [submodels, batch, outputs], it is the mean over them. With ``loss.distill`` and
      a teacher's outputs t it is ``(1 - weight) · (that mean) + weight · mean(d(outputs, t))``, d
      by `SOFTENED`, before penalties. Where there are positions, an example's loss is the mean over
      those that have a target (`jdlopt.losses.positions`), but for `WHOLE_LOSSES` and one's own.

    Raises:
      ConfigError: an unknown loss, class weights that it can't take, or a pattern that is no
        regular expression. ``objective`` raises it, while traced, if no parameter is penalised.
    """
    name = section["name"]
    part = find_part(name, LOSSES, "loss.name")
    if link == "softmax" and part is binary_cross_entropy:
        link = "one_vs_rest"
    if class_weights is not None and link == "identity":
        raise ConfigError(f"loss.class_weights: {name!r} is a regression loss; it has no classes.")
    of_labels = class_weights is not None and link == "sigmoid"
    if of_labels and part is not binary_cross_entropy:
        raise ConfigError(
            f"loss.class_weights: of labels they weigh the positives of 'binary_cross_entropy'; "
            f"{name!r} has no such weights. Leave them out."
        )
    try:
        patterns = [re.compile(each) for each in section.get("penalize", LossFields.penalize)]
    except re.error as error:
        raise ConfigError(
            f"loss.penalize: {error.pattern!r} is not a regular expression: {error}."
        ) from error
    accepted = list(fields_of(part))
    floats = {key for key in accepted if isinstance(section.get(key), float)}
    static = {key: section[key] for key in accepted if key in section and key not in floats}
    rows = positions > 0 and name in LOSSES and name not in WHOLE_LOSSES
    if positions and not rows and class_weights is not None:
        raise ConfigError(
            f"loss.class_weights: {name!r} looks at all positions of an example together, and has "
            "no weights of classes. Leave them out."
        )
    penalties = tuple(key for key in ("l1", "l2") if section.get(key) is not None)
    softened = SOFTENED.get(link)

    def called(hparams: PyTree) -> Callable[[AllOutputs, AllTargets], PerExample]:
        traced = {key: hparams[key] for key in accepted if key in hparams or key in floats}
        return partial(part, **{**static, **traced})

    def per_example(outputs: AllOutputs, targets: AllTargets, hparams: PyTree) -> PerExample:
        one = called(hparams)
        if rows:
            return over_positions(*of_rows(one, outputs, targets, positions))
        return one(outputs, targets)

    def learnt(outputs: AllOutputs, teacher: AllOutputs, hparams: PyTree) -> Scalar:
        if softened is None:
            return per_example(outputs, teacher, hparams).mean()
        return softened(outputs, teacher, hparams["distill"]["temperature"]).mean()

    def objective(
        outputs: AllOutputs,
        targets: AllTargets,
        params: PyTree,
        hparams: PyTree,
        teacher: AllOutputs | None = None,
    ) -> Scalar:
        losses = per_example(outputs, targets, hparams)
        if class_weights is None:
            value = losses.mean()
        elif rows:
            each, real = of_rows(called(hparams), outputs, targets, positions)
            weights = jnp.asarray(class_weights, each.dtype)[jnp.maximum(targets, 0)] * real
            total = weights.sum()
            value = jnp.sum(weights * each) / jnp.where(total > 0, total, 1.0)
        elif of_labels:
            positives = jnp.asarray(class_weights, losses.dtype)
            smoothing = hparams.get("label_smoothing")
            value = positively_weighted(
                outputs, targets, positives, label_smoothing=smoothing
            ).mean()
        else:
            weights = example_weights(jnp.asarray(class_weights, losses.dtype), outputs, targets)
            total = weights.sum()
            value = jnp.sum(weights * losses) / jnp.where(total > 0, total, 1.0)
        if teacher is not None:
            share = hparams["distill"]["weight"]
            value = (1.0 - share) * value + share * learnt(outputs, teacher, hparams)
        if penalties:
            chosen = penalized(params, patterns)
            if "l1" in penalties:
                value += hparams["l1"] * sum(jnp.abs(leaf).sum() for leaf in chosen)
            if "l2" in penalties:
                value += hparams["l2"] * sum(jnp.square(leaf).sum() for leaf in chosen)
        return value

    averaged = _of_submodels(objective, 2 + positions)
    whole = averaged if members == 1 else _of_members(averaged, members)
    return Loss(per_example, whole, LINKS[link], positions, name in TOGETHER)


def _of_submodels(objective: Callable[..., Scalar], rank: int) -> Callable[..., Scalar]:
    """The mean objective over outputs with an axis of submodels, which share parameters.

    Args:
      objective: of the outputs of one.
      rank: of these.
    """

    def mean(
        outputs: Float[Array, "*submodels_and_batch outputs"],
        targets: AllTargets,
        params: PyTree,
        hparams: PyTree,
        teacher: AllOutputs | None = None,
    ) -> Scalar:
        if outputs.ndim == rank:
            return objective(outputs, targets, params, hparams, teacher)
        each = jax.vmap(objective, (0, None, None, None, None))
        return each(outputs, targets, params, hparams, teacher).mean()

    return mean


def _of_members(objective: Callable[..., Scalar], members: int) -> Callable[..., Scalar]:
    """The mean objective of an ensemble's members, with the gradient that each has alone."""

    def mean(
        outputs: Float[Array, "members *submodels_and_batch outputs"],
        targets: AllTargets,
        params: Mapping[str, PyTree],
        hparams: PyTree,
        teacher: AllOutputs | None = None,
    ) -> Scalar:
        values = [
            objective(outputs[index], targets, params[name], hparams, teacher)
            for index, name in enumerate(member_names(members))
        ]
        total = jnp.stack(values).sum()
        shown = lax.stop_gradient(total / members - total)
        return total + shown  # dividing would shorten the steps of all optimizers that scale

    return mean


def mean_outputs(
    loss: Loss,
    outputs: Float[Array, "members *batch outputs"],
    weights: Float[Array, "members *batch"] | None = None,
) -> Float[Array, "*batch outputs"]:
    """Returns the outputs that stand for several: of their mean class probabilities, or their mean.

    Args:
      loss: says what probabilities are.
      outputs: of several models.
      weights: of each in the mean, of each example; None: all count alike.

    Example:
      >>> loss = make_loss({"name": "cross_entropy"})
      >>> sure, unsure = jnp.log(jnp.array([[0.9, 0.1]])), jnp.log(jnp.array([[0.5, 0.5]]))
      >>> shares = loss.probabilities(mean_outputs(loss, jnp.stack([sure, unsure])))
      >>> [round(float(share), 3) for share in shares[0]]
      [0.7, 0.3]
    """

    def mean(values: Float[Array, "members *batch k"]) -> Float[Array, "*batch k"]:
        if weights is None:
            return values.mean(axis=0)
        return (weights[..., None] * values).sum(axis=0) / weights.sum(axis=0)[..., None]

    if loss.link is None:
        return mean(outputs)
    return loss.link.outputs(mean(loss.link.probabilities(outputs)), outputs.shape[-1])


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
        for path, leaf in jax.tree_util.tree_leaves_with_path(without_scores(params))
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
