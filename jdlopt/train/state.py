"""Everything that changes from step to step, as one pytree, and what of it predicts."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PyTree

CHANGED = ("step", "params", "model_state", "opt_state", "average", "loss_scale")
"""The fields of a state that a step changes; the others are what it was made from."""
SHARDED = ("params", "model_state", "opt_state", "average")
"""The fields with arrays as large as the model, which FSDP splits over devices."""
NOT_SAVED = ("preprocess",)
"""The fields that a checkpoint leaves out: a run's ``inputs.json`` has them once."""


class TrainState(flax.struct.PyTreeNode):
    """The state of one run; a population is the same pytree with a leading axis.

    Attributes:
      step: updates made so far.
      params: the model's parameters.
      model_state: what the model keeps beside them, such as batch norm's running statistics.
      opt_state: the optimizer's state.
      average: averaged parameters (EMA, SWA), or an empty pytree.
      hparams: every float of the config's traced sections, as float32 scalars.
      key: the run's random key; a step folds its number in, so the key itself never changes.
      preprocess: what preprocessing learnt from the training split; a fold's own.
      loss_scale: of float16 training (`jdlopt.train.scaling.LossScale`), or an empty pytree.
    """

    step: Int[Array, ""]
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    average: PyTree
    hparams: PyTree
    key: Key[Array, ""]
    preprocess: PyTree = ()
    loss_scale: PyTree = ()


class Weights(flax.struct.PyTreeNode):
    """What predicts: a state without what only training needs, its parameters averaged if asked.

    Attributes:
      params, model_state, hparams, preprocess: as in `TrainState`.
    """

    params: PyTree
    model_state: PyTree
    hparams: PyTree
    preprocess: PyTree = ()


def as_arrays(hyperparameters: PyTree) -> PyTree:
    """Returns hyperparameters as float32 scalars, so that a new value is no new program."""
    return jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), hyperparameters)
