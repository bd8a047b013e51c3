"""The names of activations' axes, by which a mesh splits them: `flax.linen.spmd` does the rest.

A model says what the axes of an activation are. Over which devices they are split is not its
business: where no rules are set, as in a population or on one device, nothing happens.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped

from jdlopt.errors import ConfigError

BATCH, POSITIONS, HEADS, HIDDEN = "batch", "positions", "heads", "hidden"
EXPERTS, ROUTED = "experts", "routed"
"""The experts of a mixture, and the batch beside them, which the devices of each expert share."""
STAGES = "stages"
"""The stages of `jdlopt.models.pipeline`."""
_MEANING = {
    POSITIONS: ("positions of a sequence", "Give it a divisor, or pad or cut sequences; a class "
                "token is a position, too (model.pooling)"),
    HEADS: ("heads of attention", "Give it a divisor, or change model.num_heads"),
    EXPERTS: ("experts", "Give it a divisor, or change model.experts"),
    HIDDEN: ("hidden units", "Give it a divisor, or change model.mlp_features"),
}  # fmt: skip


def named(x: Shaped[Array, "*shape"], axes: tuple[str | None, ...]) -> Shaped[Array, "*shape"]:
    """Returns an activation whose axes are split over the devices that their names stand for.

    The numbers are the same. A batch that can't be split evenly is left as it is.

    Args:
      x: the activation.
      axes: a name for each axis; None: every device has all of it.

    Raises:
      ConfigError: an axis can't be split evenly.
    """
    if not nn.get_logical_axis_rules():
        return x
    sizes = jax.sharding.get_abstract_mesh().shape
    chosen: list[str | object | None] = list(axes)
    split = nn.logical_to_mesh_axes(axes) or PartitionSpec()
    for index, (name, places) in enumerate(zip(axes, split, strict=True)):
        over: tuple[str, ...] = (places,) if isinstance(places, str) else tuple(places or ())
        ways = math.prod(sizes[place] for place in over)
        if not x.shape[index] % ways:
            continue
        if name not in _MEANING:
            chosen[index] = PartitionSpec.UNCONSTRAINED
            continue
        what, remedy = _MEANING[name]
        raise ConfigError(
            f"mesh.{over[0]}: {ways} devices can't share {x.shape[index]} {what} evenly. {remedy}."
        )
    return nn.with_logical_constraint(x, tuple(chosen))


def ways_of(name: str) -> tuple[int, str | None]:
    """Returns over how many devices an axis of activations is split, and along which of the mesh.

    Args:
      name: of the axis.

    Returns:
      ``(1, None)`` where nothing is split: on one device, in a population.
    """
    if not nn.get_logical_axis_rules():
        return 1, None
    (places,) = nn.logical_to_mesh_axes((name,)) or (None,)
    place = places if isinstance(places, str) or places is None else places[0]
    return (1, None) if place is None else (jax.sharding.get_abstract_mesh().shape[place], place)


def batched(x: Shaped[Array, "n *shape"]) -> Shaped[Array, "n *shape"]:
    """Returns an activation whose first axis is the batch's, split as that is; the others as it is.

    Without it XLA may split hidden units over ``fsdp``, and exchange activations where gathering
    the parameters would do. A batch that can't be split evenly is left as it is.
    """
    if not nn.get_logical_axis_rules():
        return x
    [places] = nn.logical_to_mesh_axes((BATCH,)) or (None,)
    over = (places,) if isinstance(places, str) else tuple(places or ())
    sizes = jax.sharding.get_abstract_mesh().shape
    if len(x) % math.prod(sizes[place] for place in over):
        return x
    return nn.with_logical_constraint(x, (BATCH, *[PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)))
