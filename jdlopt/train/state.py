"""Everything that changes from step to step, as one pytree."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key


class TrainState(flax.struct.PyTreeNode):
    """The state of one run; a population is the same pytree with a leading axis.

    Attributes:
      step: updates made so far.
      params: the model's parameters.
      model_state: what the model keeps beside them, such as batch norm's running statistics.
      opt_state: the optimizer's state.
      average: averaged parameters (EMA, SWA), or an empty pytree.
      loss_scale: of float16 training (`jdlopt.train.scaling.LossScale`), or an empty pytree.
      hparams: every float of the config's traced sections, as float32 scalars.
      key: the run's random key; a step folds its number in, so the key itself never changes.
    """

    step: Int[Array, ""]
    params: Any
    model_state: Any
    opt_state: Any
    average: Any
    hparams: Any
    key: Key[Array, ""]
    loss_scale: Any = ()


def as_arrays(hyperparameters: Any) -> Any:
    """Returns hyperparameters as float32 scalars, so that a new value is no new program."""
    return jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), hyperparameters)
