"""Whether a file says what the model says: both are asked, of the same made-up examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.export.program import Program

BATCHES = (1, 2, 5)
"""Sizes of the batches that both are asked for."""
Loaded = Callable[..., Mapping[str, np.ndarray]]
"""A file in its runtime: inputs in their order → outputs by name."""


class Agreement(NamedTuple):
    """How far a file's outputs are from the model's.

    Attributes:
      relative_error: the largest difference, as a share of the largest value of that output.
      same_classes: the share of examples whose largest probability is of the same class.
    """

    relative_error: float
    same_classes: float


def examples(spec: DataSpec, count: int, seed: int = 0) -> list[np.ndarray]:
    """Returns made-up inputs of the right shapes and types, in the order of a program's inputs.

    Bytes and token ids are uniform, numbers normal, and the columns of categories hold codes, that
    of an unknown category among them.

    Args:
      spec: of the data.
      count: of examples.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    return [_drawn(one, count, rng) for one in spec.named.values()]


def _drawn(spec: InputSpec, count: int, rng: np.random.Generator) -> np.ndarray:
    shape = (count, *spec.shape)
    if spec.text is not None:
        return rng.integers(0, spec.text.size, shape).astype(spec.dtype)
    if spec.dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    values = rng.normal(size=shape).astype(spec.dtype)
    for column, name in enumerate(spec.feature_names or ()):
        if name in spec.categories:
            values[:, column] = rng.integers(0, len(spec.categories[name]) + 1, count)
    return values


def agreement(program: Program, loaded: Loaded, given: list[np.ndarray]) -> Agreement:
    """Asks both for batches of several sizes.

    Args:
      program: what the file is to compute; it is compiled as training compiles it.
      loaded: the file in its runtime.
      given: at least as many examples as the largest of `BATCHES`.
    """
    own = jax.jit(program.function)
    errors, same = [0.0], []
    for size in BATCHES:
        batch = [values[:size] for values in given]
        expected = {name: np.asarray(one) for name, one in own(*batch).items()}
        found = loaded(*batch)
        for name, values in expected.items():
            errors.append(relative_error(found[name], values))
        if "probabilities" in expected:
            likeliest = (one["probabilities"].argmax(axis=-1) for one in (expected, found))
            same.append(np.mean(np.equal(*likeliest)))
    return Agreement(max(errors), float(np.mean(same)) if same else 1.0)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference, as a share of the largest expected value.

    Example:
      >>> relative_error(np.array([1.0, 2.1]), np.array([1.0, 2.0])).__round__(6)
      0.05
    """
    if found.shape != expected.shape:
        return float("inf")
    largest = float(np.abs(expected).max(initial=0.0))
    difference = float(np.abs(found - expected).max(initial=0.0))
    return difference / largest if largest else difference
