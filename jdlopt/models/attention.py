"""Multi-head attention, the transformer layer around it, and stacks of such layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jdlopt.config import Scalar
from jdlopt.errors import ConfigError
from jdlopt.models.axes import BATCH, HEADS, HIDDEN, POSITIONS, named
from jdlopt.models.experts import Experts, Mixture
from jdlopt.models.kernel_inputs import RANGES
from jdlopt.models.layers import (
    ACTIVATIONS,
    INITIALIZERS,
    Dropout,
    check_widths,
    layer_norm,
    rematerialised,
)
from jdlopt.models.pipeline import num_stages, run_in_stages
from jdlopt.models.sown import LOSSES, MEASURED

_INIT = INITIALIZERS["glorot_uniform"]


def attend(
    query: Float[Array, "n queries heads width"],
    key: Float[Array, "n keys heads width"],
    value: Float[Array, "n keys heads width"],
    mask: Bool[Array, "n #heads #queries keys"] | None = None,
    causal: bool = False,
) -> Float[Array, "n queries heads width"]:
    """Returns ``softmax(q·kᵀ / √width)·v`` in each head, by `jax.nn.dot_product_attention`.

    On the CPU the division of the softmax comes after its product with the values: the same
    numbers, in fewer passes over the weights. The choice is made where a program is lowered.

    Args:
      query, key, value: what the linear maps before attention return.
      mask: which keys each query may see; all by default.
      causal: whether a query sees only keys at its own place and before.

    Example:
      >>> value = jnp.arange(3.0).reshape(1, 3, 1, 1)
      >>> attend(jnp.zeros_like(value), value, value, causal=True).ravel().tolist()
      [0.0, 0.5, 1.0]
    """

    def general(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
        return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=causal)

    def divided_last(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
        dtype = value.dtype
        # XLA's CPU backend has no float16 product that sums in float32.
        query, key, value = (part.astype(jnp.float32) for part in (query, key, value))
        if causal:
            before = jnp.tril(jnp.ones((query.shape[1], key.shape[1]), bool))
            mask = before if mask is None else before & mask
        scores = jnp.einsum("nqhd,nkhd->nhqk", query * query.shape[-1] ** -0.5, key)
        if mask is not None:
            scores = jnp.where(mask, scores, 0.7 * jnp.finfo(jnp.float32).min)
        weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
        total = weights.sum(axis=-1).swapaxes(1, 2)[..., None]
        return (jnp.einsum("nhqk,nkhd->nqhd", weights, value) / total).astype(dtype)

    return lax.platform_dependent(query, key, value, mask, cpu=divided_last, default=general)


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself.

    `attend`, with linear maps before and after. A head is ``head_features`` wide, by default its
    share of the features. Vaswani et al., "Attention is all you need", 2017.
    """

    num_heads: int
    causal: bool = False
    head_features: int | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n positions features"],
        mask: Bool[Array, "n #heads #queries keys"] | None = None,
        slots: Int[Array, "n positions"] | None = None,
    ) -> Float[Array, "n positions features"]:
        """Mixes the positions.

        Args:
          x: the sequence.
          mask: which keys each query may see; all by default.
          slots: where the keys and values of these positions are kept in the collection ``cache``,
            which has as many slots as ``mask`` has keys; the queries then see all that it holds.
        """
        n, positions, features = x.shape
        each = self.head_features or features // self.num_heads
        heads, width = (n, positions, self.num_heads, each), self.num_heads * each
        query, key, value = (
            nn.Dense(width, kernel_init=_INIT, name=name)(x).reshape(heads)
            for name in ("query", "key", "value")
        )
        query = named(query, (BATCH, POSITIONS, HEADS, None))
        # a query sees every position: of those that are split, its device gathers these two
        key, value = (named(part, (BATCH, None, HEADS, None)) for part in (key, value))
        if slots is not None and mask is not None:
            key = self._cached("keys", key, slots, mask.shape[-1])
            value = self._cached("values", value, slots, mask.shape[-1])
        mixed = attend(query, key, value, mask, self.causal and slots is None)
        mixed = named(mixed, (BATCH, POSITIONS, HEADS, None)).reshape(n, positions, width)
        return nn.Dense(features, kernel_init=_INIT, name="out")(mixed)

    def _cached(self, name: str, new: Array, slots: Array, capacity: int) -> Array:
        shape = (new.shape[0], capacity, *new.shape[2:])
        cache = self.variable("cache", name, jnp.zeros, shape, new.dtype)
        cache.value = cache.value.at[jnp.arange(new.shape[0])[:, None], slots].set(new)
        return cache.value


class FeedForward(nn.Module):
    """Two dense layers, applied at each position."""

    features: int
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "n positions width"]) -> Float[Array, "n positions width"]:
        """Maps each vector to one of the same width."""
        hidden = nn.Dense(self.features, kernel_init=_INIT, name="up")(x)
        hidden = ACTIVATIONS[self.activation](named(hidden, (BATCH, POSITIONS, HIDDEN)))
        return nn.Dense(x.shape[-1], kernel_init=_INIT, name="down")(hidden)


class TransformerLayer(nn.Module):
    """Attention and a feed-forward network, each around a residual connection.

    With ``pre_norm``, ``x + f(norm(x))``, as in GPT-2 and ViT; else ``norm(x + f(x))``, as in BERT.
    With a ``mixture``, the feed-forward network is `jdlopt.models.experts.Experts`.
    """

    num_heads: int
    mlp_features: int
    activation: str
    norm_epsilon: Scalar
    dropout_rate: Scalar | None
    pre_norm: bool
    causal: bool = False
    head_features: int | None = None
    mixture: Mixture | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n positions features"],
        train: bool,
        mask: Array | None = None,
        slots: Array | None = None,
        real: Array | None = None,
    ) -> Float[Array, "n positions features"]:
        """Maps a sequence to one of the same shape.

        Args:
          x: the sequence.
          train: whether dropout is on.
          mask, slots: as in `Attention`.
          real: which positions are no padding, for `jdlopt.models.experts`; None: all.
        """
        attention = Attention(self.num_heads, self.causal, self.head_features, name="attention")
        parts: tuple[Callable[[Array], Array], ...] = (
            lambda x: attention(x, mask, slots),
            self._mlp(real),
        )
        # in a scan nothing else says that a layer's batch stays split: all of it would be gathered
        x = named(x, (BATCH, POSITIONS, None))
        for index, part in enumerate(parts):
            norm = layer_norm(self.norm_epsilon, name=f"norm_{index}")
            drop = Dropout(self.dropout_rate, name=f"dropout_{index}")
            x = x + drop(part(norm(x)), train) if self.pre_norm else norm(x + drop(part(x), train))
        return named(x, (BATCH, POSITIONS, None))

    def _mlp(self, real: Array | None) -> Callable[[Array], Array]:
        if self.mixture is None:
            return FeedForward(self.mlp_features, self.activation, name="mlp")
        experts = Experts(self.mlp_features, self.activation, self.mixture, name="experts")
        return lambda x: experts(x, real)


class LayerSizes(NamedTuple):
    """The sizes of a stack of transformer layers, by their config keys.

    Attributes:
      features: the width.
      num_layers: how many there are.
      num_heads: of a layer; ``layer_heads``: of each, where they differ.
      mlp_features: the width inside the feed-forward networks, 4 · ``features`` if None;
        ``layer_mlp_features``: of each layer's, where they differ.
      head_features: the width of a head; None: its share of the features.
      scan_layers: whether the layers are one, run as a loop.
    """

    features: int
    num_layers: int
    num_heads: int
    mlp_features: int | None
    head_features: int | None
    layer_heads: tuple[int, ...] | None
    layer_mlp_features: tuple[int, ...] | None
    scan_layers: bool

    @property
    def heads(self) -> tuple[int, ...]:
        """The heads of each layer."""
        return self.layer_heads or (self.num_heads,) * self.num_layers

    @property
    def mlps(self) -> tuple[int, ...]:
        """The width inside each layer's feed-forward network."""
        width = self.mlp_features or 4 * self.features
        return self.layer_mlp_features or (width,) * self.num_layers

    @property
    def each(self) -> int:
        """The width of a head."""
        return self.head_features or self.features // self.num_heads


def make_layers(
    sizes: LayerSizes, remat: str, named: bool = False, **keys: object
) -> list[nn.Module]:
    """Returns the layers of a model, from its config keys; a single one where they are scanned.

    Args:
      sizes: of the layers.
      remat: a `jdlopt.models.layers.REMAT` entry.
      named: whether they are given their names, as a compact module's are.
      keys: the other fields of `TransformerLayer`.

    Raises:
      ConfigError: the heads do not divide the width, or there is not a number for each layer.
    """
    for key in ("layer_heads", "layer_mlp_features"):
        values = getattr(sizes, key)
        if values is None:
            continue
        check_widths(key, values, sizes.num_layers, "layer")
        if sizes.scan_layers:
            raise ConfigError(
                f"model.{key}: {values} can't be had with model.scan_layers, whose layers are "
                "alike. Leave one of them out."
            )
    features, num_heads = sizes.features, sizes.num_heads
    if features % num_heads and sizes.head_features is None:
        fitting = [count for count in range(1, features + 1) if features % count == 0]
        near = min(fitting, key=lambda count: abs(count - num_heads))
        raise ConfigError(
            f"model.num_heads: {num_heads} heads can't share a width of {features} evenly; "
            f"{near} would, or a width of {-(-features // num_heads) * num_heads}."
        )
    layer = rematerialised(TransformerLayer, remat)
    count = 1 if sizes.scan_layers else sizes.num_layers
    names = ["layers"] if sizes.scan_layers else [f"layer_{index}" for index in range(count)]
    return [
        layer(
            num_heads=sizes.heads[index],
            mlp_features=sizes.mlps[index],
            head_features=sizes.head_features,
            **({"name": names[index]} if named else {}),
            **keys,
        )
        for index in range(count)
    ]


def run_layers(
    layers: nn.Module | Sequence[nn.Module],
    count: int,
    x: Float[Array, "n positions features"],
    train: bool,
    mask: Array | None = None,
    slots: Array | None = None,
    real: Array | None = None,
    microbatches: int | None = None,
) -> Float[Array, "n positions features"]:
    """Runs a sequence through layers one after the other.

    Args:
      layers: the layers; or a single one, that a scan runs ``count`` times with parameters of its
        own each time: compiled once, however many there are.
      count: how many there are.
      x: the sequence.
      train, mask, slots, real: as in `TransformerLayer`.
      microbatches: as in `jdlopt.models.pipeline.run_in_stages`, which runs scanned layers where a
        mesh has stages for them.
    """
    if not isinstance(layers, nn.Module):
        for layer in layers:
            x = layer(x, train, mask, slots, real)
        return x
    if num_stages() > 1 and slots is None and not layers.is_initializing():
        return run_in_stages(layers, count, microbatches, x, train, mask)
    # what a loop begins with, and what it leaves, lie as what its layers hand on
    x = named(x, (BATCH, POSITIONS, None))
    scanned = nn.scan(
        lambda layer, x, _: (layer(x, train, mask, slots, real), None),
        variable_axes=dict.fromkeys(("params", "cache", RANGES, LOSSES, MEASURED), 0),
        split_rngs={"params": True, "dropout": True},
        length=count,
    )
    return scanned(layers, x, None)[0]


_LAYER = re.compile(r"layer_\d+")


def stack_layers(params: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Returns parameters of unrolled layers in the form that ``scan_layers`` needs.

    Args:
      params: a model's, with ``layer_0``, ``layer_1``, …; nothing changes if it has none.

    Returns:
      The same with ``layers`` instead, each array with a leading axis of layers.

    Example:
      >>> layers = {"layer_0": {"bias": jnp.zeros(3)}, "layer_1": {"bias": jnp.ones(3)}}
      >>> stack_layers(layers)["layers"]["bias"].shape
      (2, 3)
    """
    names = sorted(filter(_LAYER.fullmatch, params), key=lambda name: int(name[6:]))
    if not names:
        return dict(params)
    rest = {name: params[name] for name in params if name not in names}
    layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in names))
    return {**rest, "layers": layers}


def unstack_layers(params: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Returns parameters of scanned layers in the form of unrolled ones; undoes `stack_layers`.

    Args:
      params: a model's, with ``layers``; nothing changes if it has none.

    Example:
      >>> sorted(unstack_layers({"layers": {"bias": jnp.zeros((2, 3))}}))
      ['layer_0', 'layer_1']
    """
    if "layers" not in params:
        return dict(params)
    rest = {name: params[name] for name in params if name != "layers"}
    count = jax.tree.leaves(params["layers"])[0].shape[0]
    single = {
        f"layer_{index}": jax.tree.map(lambda leaf: leaf[index], params["layers"])  # noqa: B023
        for index in range(count)
    }
    return {**rest, **single}
