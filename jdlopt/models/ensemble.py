"""Ensembles: copies of a model that start from other values and are trained side by side."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jdlopt.models.bridge import Model


def member_names(count: int) -> list[str]:
    """Returns what the models' parameters are called.

    Example:
      >>> member_names(2)
      ['member_0', 'member_1']
    """
    return [f"member_{index}" for index in range(count)]


def with_members(
    model: Model,
    count: int,
    mean: Callable[[Float[Array, "models n outputs"]], Float[Array, "n outputs"]],
) -> Model:
    """Returns a model of ``count`` independent copies of one.

    Its parameters are ``{"member_0": the model's own, "member_1": …}``. While training, it returns
    the outputs of all models [models, n, outputs], for a loss that has as many
    (`jdlopt.losses.make_loss`); otherwise their mean. Lakshminarayanan et al., "Simple and scalable
    predictive uncertainty estimation using deep ensembles", 2017.

    Args:
      model: what is copied.
      count: how often.
      mean: what is said of all models' outputs.

    Example:
      >>> from jdlopt.models import make_model
      >>> one, x = make_model({"name": "linear"}, 3), jnp.ones((2, 4))
      >>> model = with_members(one, 5, lambda outputs: outputs.mean(axis=0))
      >>> params, state = model.init(jax.random.key(0), x, {})
      >>> sorted(params)[:2], model.apply(params, state, x, {}, key=None, train=False)[0].shape
      (['member_0', 'member_1'], (2, 3))
    """
    names = member_names(count)

    def init(key: Array, inputs: PyTree[Array], hparams: PyTree) -> tuple[PyTree, PyTree]:
        keys = jax.random.split(key, count)
        made = [model.init(one, inputs, hparams) for one in keys]
        params, states = zip(*made, strict=True)
        return dict(zip(names, params)), dict(zip(names, states))

    def apply(
        params: PyTree,
        state: PyTree,
        inputs: PyTree[Array],
        hparams: PyTree,
        *,
        key: Array | None,
        train: bool,
        **options: object,
    ) -> tuple[Array, PyTree]:
        outputs, states = [], {}
        for index, name in enumerate(names):
            own = None if key is None else jax.random.fold_in(key, index)
            found, states[name] = model.apply(
                params[name], state[name], inputs, hparams, key=own, train=train, **options
            )
            outputs.append(found)
        stacked = jnp.stack(outputs)
        return (stacked if train else mean(stacked)), states

    return Model(init, apply)
