"""A model in two halves: what its head is given, and the head alone, for any Linen model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jdlopt.errors import ConfigError
from jdlopt.models import sown
from jdlopt.models.bridge import Model

HEAD = ("head",)
"""The path of the submodule that is trained alone."""
CACHED = "train.cache_features"


def _at_head(change: Callable[[Array], Array]) -> Any:
    """Intercepts the call of a Linen model's head; ``change`` takes its input and returns one."""

    def intercept(
        call: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, object],
        context: nn.module.InterceptorContext,
    ) -> object:
        if context.module.path == HEAD and context.method_name == "__call__":
            args = (change(args[0]), *args[1:])
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def features_of(
    model: Model,
    params: PyTree,
    model_state: PyTree,
    inputs: PyTree[Array],
    hparams: PyTree,
    where: str = CACHED,
) -> Float[Array, "n *features"]:
    """Returns what a model's head is given in evaluation mode. Pure.

    Args:
      model: the whole model.
      params, model_state: all of it.
      inputs: preprocessed inputs.
      hparams: the traced floats of the ``model`` section.
      where: what asks for them, for messages.

    Raises:
      ConfigError: the model doesn't call one submodule named ``head`` once.
    """
    found: list[Array] = []

    def keep(features: Array) -> Array:
        found.append(features)
        return features

    with _at_head(keep):
        model.apply(params, model_state, inputs, hparams, key=None, train=False)
    if len(found) != 1:
        instead = " Leave it out: freezing alone trains the same head." if where == CACHED else ""
        raise ConfigError(
            f"{where}: needs a Linen model that calls one submodule named 'head' once; this one "
            f"does {len(found)} times.{instead}"
        )
    return found[0].astype(jnp.float32)


def head_of(model: Model, inputs: PyTree[jax.ShapeDtypeStruct]) -> Model:
    """Returns a model of the same parameters whose inputs are the head's.

    The whole model runs on zeros, with the features in place of what its body makes of them; so
    names, random streams and state are the whole model's own, and a compiler drops the body.

    Args:
      model: the whole model.
      inputs: the shape and dtype of a batch of its inputs, or of each named one.
    """

    def apply(
        params: PyTree,
        model_state: PyTree,
        features: Array,
        hparams: PyTree,
        **options: Any,
    ) -> tuple[Array, PyTree]:
        zeros = jax.tree.map(
            lambda one: jnp.zeros((len(features), *one.shape[1:]), one.dtype), inputs
        )
        with _at_head(lambda body: features.astype(body.dtype)):
            outputs, after = model.apply(params, model_state, zeros, hparams, **options)
        return outputs, _with_heads(model_state, sown.without(after))

    return Model(model.init, apply)


def _with_heads(before: PyTree, after: PyTree) -> PyTree:
    """A model's state with only the head's taken from what the zeros led to."""

    def chosen(path: tuple[jax.tree_util.DictKey, ...], old: Array, new: Array) -> Array:
        return new if [key.key for key in path[1:2]] == [*HEAD] else old  # collection/head/…

    return jax.tree_util.tree_map_with_path(chosen, before, after)
