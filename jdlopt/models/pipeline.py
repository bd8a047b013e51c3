"""Layers in stages: each group of devices has some of them, and hands its work on.

Huang et al., "GPipe: efficient training of giant neural networks using pipeline parallelism", 2019;
as one program, in which all stages are one vmap and handing on is a shift along its axis: Xu et
al., "GSPMD: general and scalable parallelization for ML computation graphs", 2021.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jdlopt.errors import ConfigError
from jdlopt.models.axes import BATCH, POSITIONS, STAGES, named, ways_of


class _Stage(nn.Module):
    """One layer, whose path is that of the layers of a scan."""

    layers: nn.Module

    def __call__(self, *args: object) -> Array:
        return self.layers(*args)


def num_stages() -> int:
    """Returns how many stages what is traced now is to run in; 1: layers run one after another."""
    return ways_of(STAGES)[0]


def run_in_stages(
    layers: nn.Module,
    count: int,
    microbatches: int | None,
    x: Float[Array, "n positions features"],
    train: bool,
    mask: Bool[Array, "n #heads #queries keys"] | None = None,
) -> Float[Array, "n positions features"]:
    """Runs a sequence through ``count`` layers in `num_stages` stages of as many layers each.

    The batch is cut into microbatches. At each of ``microbatches + stages - 1`` turns every stage
    runs its layers on one of them and hands it on; at the first and last turns some have none, and
    compute on zeros or on what nobody reads. Results are those of the layers one after the other,
    but for dropout, whose masks are drawn for each microbatch and layer.

    Args:
      layers: a bound layer, whose parameters have a leading axis of layers.
      count: how many there are.
      microbatches: that the batch is cut into; None: as many as stages. An evaluation's, which may
        be of any size, into as many of them as divide it.
      x: the sequence.
      train: whether dropout is on.
      mask: which keys each query may see.

    Raises:
      ConfigError: the stages can't share the layers, or the microbatches the batch, evenly; or the
        layers keep more than parameters.
    """
    stages, axis = ways_of(STAGES)
    cut = microbatches or stages
    if not train:  # an evaluation's last batch is of any size
        cut = math.gcd(cut, len(x))
    _check(layers, count, stages, cut, len(x))
    own = layers.clone(parent=None, name=None)
    key = layers.make_rng("dropout") if train and layers.has_rng("dropout") else None

    def staged(leaf: Array) -> Array:
        return leaf.reshape(stages, count // stages, *leaf.shape[1:])

    def one_stage(
        params: PyTree, places: Int[Array, " layers"], x: Array, mask: Array | None, part: Array
    ) -> Array:
        def one_layer(x: Array, layer: tuple[PyTree, Array]) -> tuple[Array, None]:
            params, place = layer
            rngs = {}
            if key is not None:
                rngs = {"dropout": jax.random.fold_in(jax.random.fold_in(key, place), part)}
            variables = {"params": {"layers": params}}
            made = _Stage(own, parent=None).apply(variables, x, train, mask, rngs=rngs)
            return jnp.asarray(made), None

        return lax.scan(one_layer, x, (params, places))[0]

    params = jax.tree.map(staged, layers.variables["params"])
    places, parts = staged(jnp.arange(count)), _parts(x, cut)
    masks = None if mask is None else _parts(mask, cut)
    all_stages = jax.vmap(one_stage, spmd_axis_name=axis)
    split = (STAGES, BATCH, POSITIONS, None)
    is_first = (jnp.arange(stages) == 0).reshape(stages, *(1,) * x.ndim)

    def turn(work: Array, time: Int[Array, ""]) -> tuple[Array, Array]:
        at = jnp.clip(time - jnp.arange(stages), 0, cut - 1)
        handed_on = jnp.pad(work, ((1, 0), *((0, 0),) * x.ndim))[:-1]
        work = named(jnp.where(is_first, parts[at[0]], handed_on), split)
        seen = None if masks is None else masks[at]
        work = named(all_stages(params, places, work, seen, at), split)
        return work, work  # of the last stage alone it would be sent everywhere at each turn

    start = jnp.zeros((stages, *parts.shape[1:]), x.dtype)
    _, made = lax.scan(turn, start, jnp.arange(cut + stages - 1))
    return made[stages - 1 :, -1].swapaxes(0, 1).reshape(x.shape)


def _parts(x: Array, cut: int) -> Array:
    """A batch as microbatches, each of rows from everywhere: rows stay on their devices."""
    parts = x.reshape(len(x) // cut, cut, *x.shape[1:]).swapaxes(0, 1)
    return named(parts, (None, BATCH, *(None,) * (x.ndim - 1)))


def _check(layers: nn.Module, count: int, stages: int, cut: int, rows: int) -> None:
    if count % stages:
        below = count // stages * stages
        fitting = " or ".join(str(one) for one in (below, below + stages) if one)
        raise ConfigError(
            f"mesh.pipeline: {stages} stages can't share {count} layers evenly. Set "
            f"model.num_layers to {fitting}, or mesh.pipeline to a divisor."
        )
    if rows % cut:
        raise ConfigError(
            f"mesh.microbatches: {rows} examples can't be cut into {cut} evenly. Change it, or "
            "data.batch_size."
        )
    if getattr(layers, "mixture", None) is not None:
        raise ConfigError(
            "mesh.pipeline: experts are balanced over a whole batch, and stages see parts of one. "
            "Split them over mesh.expert instead."
        )
    kept = sorted(name for name in layers.variables if name != "params")
    if kept:
        raise ConfigError(
            f"mesh.pipeline: its stages keep nothing but parameters; these layers have {kept[0]!r} "
            "as well (model.quantize.activations). Use mesh.fsdp or mesh.tensor instead."
        )
