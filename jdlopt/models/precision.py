"""Mixed precision: a model that computes in half the bits, its parameters kept in float32."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jdlopt.errors import ConfigError, listing, nearest
from jdlopt.models.bridge import Model
from jdlopt.models.sown import SOWN

DTYPES = ("float32", "bfloat16", "float16")
"""What a model may compute in. float16's range is small: its training scales the loss."""
ROUTER = "router"
"""The name of parameters that stay float32: rounded, a router would choose other experts."""


def computing_in(
    model: Model, dtype: str, *, cast_inputs: bool = True, kept: Collection[str] = ()
) -> Model:
    """Returns a model that computes in another type and looks like a float32 one from outside.

    Float parameters and float inputs are cast before the module, float outputs back to float32.
    So are the gradients, which arrive through the casts. What the model keeps beside its
    parameters (running statistics) goes in as it is, and comes back in the type that it had.
    Micikevicius et al., "Mixed precision training", 2018.

    Args:
      model: what computes; float32 returns it untouched.
      dtype: a `DTYPES` entry.
      cast_inputs: whether inputs are cast; category codes, which are floats until they are looked
        up, would be rounded.
      kept: which of named inputs are not cast.

    Raises:
      ConfigError: the type is unknown.

    Example:
      >>> double = Model(lambda *_: ({}, {}), lambda p, s, x, h, **_: (x * p["two"], s))
      >>> params, x = {"two": jnp.float32(2)}, jnp.float32([1 / 3])
      >>> outputs, _ = computing_in(double, "bfloat16").apply(params, {}, x, {}, train=False)
      >>> outputs.dtype, round(float(outputs[0]), 4)
      (dtype('float32'), 0.668)
    """
    if dtype not in DTYPES:
        raise ConfigError(
            f"model.dtype: {dtype!r} is unknown.{nearest(dtype, DTYPES)} Known: {listing(DTYPES)}."
        )
    if dtype == "float32":
        return model

    def apply(
        params: PyTree,
        model_state: PyTree,
        inputs: PyTree[Array],
        hparams: PyTree,
        *,
        train: bool,
        **options: object,
    ) -> tuple[Array, PyTree]:
        seen = _cast(inputs, dtype) if cast_inputs else inputs
        if kept:
            seen = dict(seen) | {name: inputs[name] for name in kept}
        outputs, state = model.apply(
            _cast_but_routers(params, dtype), model_state, seen, hparams, train=train, **options
        )
        if train:
            own = {key: one for key, one in state.items() if key not in SOWN}
            own = jax.tree.map(lambda new, old: new.astype(old.dtype), own, model_state)
            state = {**state, **own}
        return _cast(outputs, "float32"), state

    return Model(model.init, apply)


def _cast_but_routers(params: PyTree, dtype: str) -> PyTree:
    """Casts parameters but those of routers."""
    if not isinstance(params, Mapping):
        return _cast(params, dtype)
    return {
        key: one if key == ROUTER else _cast_but_routers(one, dtype) for key, one in params.items()
    }


def _cast(tree: PyTree, dtype: str) -> PyTree:
    """Casts the floats of a tree; integers and keys stay."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )
