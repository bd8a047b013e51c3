"""The pure function that an exported file computes: from raw inputs to what a model says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, PyTree

from jdlopt.data.named import by_name
from jdlopt.errors import UserError
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights

BATCH = "B"
"""What the number of examples is called in shapes of files."""

Said = dict[str, Array]
"""What a model says of a batch, by `Program.outputs`."""


class Input(NamedTuple):
    """One input of a file: the shape of one example, and the type of its values."""

    shape: tuple[int, ...]
    dtype: str


class Program(NamedTuple):
    """What a file computes.

    Attributes:
      function: ``(*inputs, in the order of the mapping) → Said``, pure; everything that was learnt
        is a constant in it, preprocessing and the link to probabilities are inside.
      inputs: by name, as a batch of raw examples has them; the only one is called ``input``.
      outputs: the names of what it gives: ``probabilities`` [n, classes] or [n, labels], and
        ``outputs`` [n, width] as the model has them; of numbers, ``outputs`` in the unit of the
        targets, and the ``spread`` of several models.
    """

    function: Callable[..., Said]
    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]

    def shapes(self, batch: object = 1) -> list[jax.ShapeDtypeStruct]:
        """Returns the shapes and types of a batch's inputs; its size may be symbolic."""
        return [
            jax.ShapeDtypeStruct((batch, *one.shape), np.dtype(one.dtype))
            for one in self.inputs.values()
        ]

    def symbolic(self) -> list[jax.ShapeDtypeStruct]:
        """Returns the shapes and types of a batch of any size."""
        (size,) = export.symbolic_shape(BATCH)
        return self.shapes(size)


def make_program(experiment: Experiment, weights: Weights) -> Program:
    """Returns what an exported file computes, of a run or of an ensemble's combined experiment.

    Args:
      experiment: whose `Experiment.predict` it is.
      weights: what predicts; constants of the file.

    Raises:
      UserError: its predictions are no function of one pass through the model.
    """
    spec = experiment.spec
    if experiment.components.teacher_forcing is not None:
        raise UserError(
            f"export: a {spec.task} run writes texts token by token, which these formats have no "
            "program for. Use `jdlopt predict`, or --format=safetensors for its weights."
        )
    named = by_name(spec.inputs)
    inputs = {name: Input(one.shape, one.dtype) for name, one in named.items()}
    alone = named is not spec.inputs
    weights = jax.tree.map(jnp.asarray, weights)

    def function(*given: Array) -> Said:
        batch: PyTree = given[0] if alone else dict(zip(inputs, given, strict=True))
        found = experiment.predict(weights, batch)
        made = {
            "probabilities": found.probabilities,
            "outputs": found.outputs,
            "spread": found.spread,
        }
        return {
            name: value.astype(jnp.float32) for name, value in made.items() if value is not None
        }

    shapes = Program(function, inputs, ()).shapes(2)
    return Program(function, inputs, tuple(jax.eval_shape(function, *shapes)))
