"""Links: how outputs become probabilities, and which outputs have given probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdlopt.losses.functions import full_precision

Outputs = Float[Array, "*batch outputs"]
Probabilities = Float[Array, "*batch classes"]


class Link(NamedTuple):
    """What turns outputs into probabilities, and back.

    Attributes:
      probabilities: outputs [..., outputs] → probabilities [..., classes].
      outputs: ``(probabilities, width)`` → outputs of this width that have these probabilities.
    """

    probabilities: Callable[[Outputs], Probabilities]
    outputs: Callable[[Probabilities, int], Outputs]


def _log(probabilities: Probabilities) -> Probabilities:
    return jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny))


def _softmax(outputs: Outputs) -> Probabilities:
    return jax.nn.softmax(full_precision(outputs))


def _sigmoid(outputs: Outputs) -> Probabilities:
    return jax.nn.sigmoid(full_precision(outputs))


def _logit(probabilities: Probabilities, width: int) -> Outputs:
    return _log(probabilities) - _log(1.0 - probabilities)


def _against_the_rest(outputs: Outputs) -> Probabilities:
    pair = [-outputs, outputs] if outputs.shape[-1] == 1 else [outputs]
    return _sigmoid(jnp.concatenate(pair, axis=-1))


def _one_logit_or_each(probabilities: Probabilities, width: int) -> Outputs:
    if width > 1:
        return _logit(probabilities, width)
    return _log(probabilities[..., 1:]) - _log(probabilities[..., :1])


LINKS: dict[str, Link | None] = {
    "softmax": Link(_softmax, lambda probabilities, width: _log(probabilities)),
    "one_vs_rest": Link(_against_the_rest, _one_logit_or_each),
    "sigmoid": Link(_sigmoid, _logit),
    "identity": None,
}
"""How outputs become probabilities: those of exclusive classes; of a class against the rest (of two
classes, one output scores class 1); of labels, each by itself; or not at all."""
