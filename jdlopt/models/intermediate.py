"""What a Linen model's layers return on the way, by patterns of their paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, PyTree

from jdlopt.errors import ConfigError, listing, nearest
from jdlopt.models.kernel_inputs import SECOND

Applied = tuple[Array, PyTree]
"""What a model returns: outputs and state."""


def with_layers(
    apply: Callable[[], Applied], patterns: Sequence[str], where: str
) -> tuple[Applied, tuple[Array, ...]]:
    """Applies a model; returns also the outputs of the layers that patterns find. Pure.

    Args:
      apply: applies it.
      patterns: regular expressions, each searched anywhere in the path of a layer (``hidden_0``,
        ``block_1/conv``). Of nested layers that one finds, the outermost counts.
      where: the config key that they are the value of, for messages.

    Returns:
      What the model returns, and the layers' outputs: by pattern, and in the order of their calls.

    Raises:
      ConfigError: a pattern finds nothing, or a layer that has no output of its own: one in a loop
        over layers, or whose outputs are computed again (``remat``).
    """
    if not patterns:
        return apply(), ()
    found: list[tuple[str, object]] = []

    def keep(
        call: Callable[..., object],
        given: tuple[Any, ...],
        named: dict[str, object],
        context: nn.module.InterceptorContext,
    ) -> object:
        made = call(*given, **named)
        inner = context.module.name == SECOND  # a part of the layer in whose place it is
        if context.method_name == "__call__" and context.module.path and not inner:
            found.append(("/".join(context.module.path), made))
        return made

    with nn.intercept_methods(keep):
        returned = apply()
    chosen = [one for pattern in patterns for one in _chosen(pattern, found, where)]
    return returned, tuple(_usable(path, made, where) for path, made in chosen)


def _chosen(
    pattern: str, found: Sequence[tuple[str, object]], where: str
) -> list[tuple[str, object]]:
    """The layers that a pattern finds, without those that lie in one of them."""
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise ConfigError(f"{where}: {pattern!r} is not a regular expression: {error}.") from error
    paths = dict.fromkeys(path for path, _ in found)
    outermost = {
        path for path in paths
        if search(path) and not any(path.startswith(f"{o}/") and search(o) for o in paths)
    }  # fmt: skip
    if not outermost:
        near = nearest(pattern, paths) or f" There are {listing(paths)}." if paths else ""
        raise ConfigError(f"{where}: {pattern!r} matches no layer of a Linen model.{near}")
    return [(path, made) for path, made in found if path in outermost]


def _usable(path: str, made: object, where: str) -> Array:
    if not isinstance(made, jax.Array) or made.ndim < 2:
        raise ConfigError(f"{where}: the layer {path!r} does not return one array of examples.")
    try:
        return made + 0
    except jax.errors.UnexpectedTracerError as error:
        raise ConfigError(
            f"{where}: the layer {path!r} is run in a loop or computed again (model.scan_layers, "
            "model.remat): its outputs can't be looked at. Name another, or switch that off."
        ) from error
