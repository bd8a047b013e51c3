"""Recurrent networks over sequences: gated recurrent units and long short-term memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Num, PyTree

from jdlopt.config import Choice, Count, Rate
from jdlopt.errors import ConfigError
from jdlopt.models.axes import BATCH, named
from jdlopt.models.layers import INITIALIZERS, REMAT, Dropout, Head, check_widths

READOUTS = ("last", "mean")


def gru_step(
    state: tuple[Array],
    projected: Array,
    kernel: Array,
    bias: Array,
    seen: Array,
) -> tuple[Array]:
    """Computes one step of a GRU, with the inputs' part of the gates already computed.

    ``r = σ(x_r + h·U_r)``, ``z = σ(x_z + h·U_z)``, ``n = tanh(x_n + r·(h·U_n + b))``,
    ``h' = (1 - z)·n + z·h``. Cho et al., "Learning phrase representations using RNN
    encoder-decoder", 2014.

    Args:
      state: (h,), each (n, features).
      projected: (n, 3 · features): the gates r, z and n from the inputs, with their bias.
      kernel: (features, 3 · features).
      bias: (features,): b.
      seen: (n, features): h as it goes into the product with U: some of it dropped, or quantized.
    """
    (h,) = state
    x_r, x_z, x_n = jnp.split(projected, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(seen @ kernel, 3, axis=-1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    candidate = jnp.tanh(x_n + r * (h_n + bias))
    return (candidate + z * (h - candidate),)


def lstm_step(
    state: tuple[Array, Array],
    projected: Array,
    kernel: Array,
    bias: Array,
    seen: Array,
) -> tuple[Array, Array]:
    """Computes one step of an LSTM, with the inputs' part of the gates already computed.

    ``i, f, o = σ(…)``, ``g = tanh(…)`` of ``x + h·U``; ``c' = f·c + i·g``, ``h' = o·tanh(c')``. The
    forget gate gets ``bias`` on top, which starts at 1 so that a new network remembers. Hochreiter
    and Schmidhuber, "Long short-term memory", 1997; Jozefowicz et al., 2015.

    Args:
      state: (h, c), each (n, features).
      projected: (n, 4 · features): the gates i, f, g and o from the inputs, with their bias.
      kernel: (features, 4 · features).
      bias: (features,), of the forget gate.
      seen: (n, features): h as it goes into the product with U: some of it dropped, or quantized.
    """
    _, c = state
    i, f, g, o = jnp.split(projected + seen @ kernel, 4, axis=-1)
    c = jax.nn.sigmoid(f + bias) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


_CELLS: dict[str, tuple[Callable[..., Any], int, int, Callable[..., Array]]] = {
    "gru": (gru_step, 3, 1, nn.initializers.zeros),
    "lstm": (lstm_step, 4, 2, nn.initializers.ones),
}
"""The step, its gates, its states, and how its recurrent bias starts."""


def _orthogonal_gates(key: Array, shape: tuple[int, int], dtype: object = jnp.float32) -> Array:
    width, columns = shape
    keys = jax.random.split(key, columns // width)
    orthogonal = nn.initializers.orthogonal()
    return jnp.concatenate([orthogonal(k, (width, width), dtype) for k in keys], axis=-1)


def _gates(init: Callable[..., Array], count: int) -> Callable[..., Array]:
    # Each gate is a matrix of its own: its variance must not depend on how many stand side by side.
    def initialize(key: Array, shape: tuple[int, int], dtype: object = jnp.float32) -> Array:
        keys = jax.random.split(key, count)
        part = (shape[0], shape[1] // count)
        return jnp.concatenate([init(k, part, dtype) for k in keys], axis=-1)

    return initialize


class Recurrence(nn.Module):
    """One layer in one direction; the inputs' projection is a single matmul before the loop."""

    features: int
    cell: str
    initializer: str
    reverse: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "time n channels"],
        real: Bool[Array, "time n"] | None = None,
        kept: Float[Array, "n features"] | None = None,
    ) -> tuple[Float[Array, "time n features"], Float[Array, "n features"]]:
        """Returns the states at all times (in the order of the inputs) and the final one.

        Args:
          x: sequences.
          real: what is no padding; elsewhere the state stays as it is.
          kept: a mask of dropout, which multiplies the state in every step's product.
        """
        step, gates, states, bias_init = _CELLS[self.cell]
        width = gates * self.features
        kernel_init = _gates(INITIALIZERS[self.initializer], gates)
        kernel = self.param("kernel", kernel_init, (x.shape[-1], width))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        recurrent = self.param("recurrent_kernel", _orthogonal_gates, (self.features, width))
        recurrent_bias = self.param("recurrent_bias", bias_init, (self.features,))
        # gathered once; in the loop it would be at every time, and so would what it multiplies
        recurrent = named(recurrent, (None, None))

        def advance(state: PyTree, inputs: tuple[Array, Array | None]) -> tuple[Any, Array]:
            projected, counts = inputs
            seen = self.kernel_state(state[0])
            seen = seen if kept is None else seen * kept
            after = step(state, projected, recurrent, recurrent_bias, seen)
            if counts is not None:
                after = tuple(
                    jnp.where(counts[:, None], new, old) for new, old in zip(after, state)
                )
            after = tuple(named(part, (BATCH, None)) for part in after)
            return after, after[0]

        policy = REMAT[self.remat]
        if policy is not None:
            # forward and backward are two loops: a compiler can't merge what is computed twice
            advance = jax.checkpoint(advance, policy=policy, prevent_cse=False)
        initial = (jnp.zeros((x.shape[1], self.features), x.dtype),) * states
        inputs = (named(x @ kernel + bias, (None, BATCH, None)), real)
        final, outputs = lax.scan(advance, initial, inputs, reverse=self.reverse)
        return outputs, final[0]

    def kernel_state(self, state: Float[Array, "n features"]) -> Float[Array, "n features"]:
        """Returns a state on its way into the product with the recurrent kernel.

        It lies in [-1, 1]. A method, so that it can be intercepted.
        """
        return state


class GRU(nn.Module):
    """Gated recurrent units over token ids or (length, channels); an image is read row by row.

    The readout is the final state (of both directions if bidirectional), or the mean over time.
    Padding, id 0, changes nothing: the state stays as it is there. Dropout is between the layers
    and before the head. Variational dropout draws one mask a sequence, the same at every time, and
    also drops embedded tokens and the state on its way into the gates; numbers as inputs stay
    whole. Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural
    networks", 2016.

    ``layer_features`` are the widths of the layers, where they differ. With ``positions=1`` the
    head reads the state at each time, of both directions if bidirectional, and nothing is read out.
    """

    num_outputs: int
    features: Count = 64
    layer_features: tuple[int, ...] | None = None
    num_layers: Count = 1
    bidirectional: bool = False
    readout: Annotated[str, Choice(READOUTS)] = "last"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "glorot_uniform"
    dropout_rate: Rate | None = None
    variational_dropout: bool = False
    remat: Annotated[str, Choice(REMAT)] = "none"
    embedding_features: Count = 32
    num_tokens: int = 0
    positions: int = 0

    @nn.compact
    def __call__(self, inputs: Num[Array, "n *shape"], train: bool = False) -> Array:
        """Maps sequences to outputs: one row each, or one at each time."""
        return _outputs(self, "gru", inputs, train)


class LSTM(nn.Module):
    """Long short-term memory over sequences; its keys are those of `GRU`."""

    num_outputs: int
    features: Count = 64
    layer_features: tuple[int, ...] | None = None
    num_layers: Count = 1
    bidirectional: bool = False
    readout: Annotated[str, Choice(READOUTS)] = "last"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "glorot_uniform"
    dropout_rate: Rate | None = None
    variational_dropout: bool = False
    remat: Annotated[str, Choice(REMAT)] = "none"
    embedding_features: Count = 32
    num_tokens: int = 0
    positions: int = 0

    @nn.compact
    def __call__(self, inputs: Num[Array, "n *shape"], train: bool = False) -> Array:
        """Maps sequences to outputs: one row each, or one at each time."""
        return _outputs(self, "lstm", inputs, train)


def _outputs(
    model: GRU | LSTM, cell: str, inputs: Num[Array, "n *shape"], train: bool
) -> Float[Array, "n *time num_outputs"]:
    """Runs the layers of a model, whose submodules they become, and its head."""
    rate, variational = model.dropout_rate, model.variational_dropout
    if variational and rate is None:
        raise ConfigError(
            "model.variational_dropout: draws the masks of model.dropout_rate, which is None. Give "
            "a rate, or leave it out."
        )

    def dropped(x: Float[Array, "time n channels"], name: str) -> Float[Array, "time n channels"]:
        drop = Dropout(rate, name=name)
        if not variational:
            return drop(x, train)
        return x * drop(jnp.ones(x.shape[1:], x.dtype), train)

    if model.layer_features is not None:
        check_widths("layer_features", model.layer_features, model.num_layers, "layer")
    x, real = _sequence(model, cell, inputs)
    for index, width in enumerate(model.layer_features or (model.features,) * model.num_layers):
        if index or (variational and model.num_tokens):
            x = dropped(x, f"dropout_{index}")
        runs = []
        for direction in ("forward", "backward")[: 1 + model.bidirectional]:
            layer = Recurrence(
                width,
                cell,
                model.initializer,
                direction == "backward",
                model.remat,
                name=f"{cell}_{index}_{direction}",
            )
            kept = None
            if variational and train:
                whole = jnp.ones((x.shape[1], width), x.dtype)
                kept = Dropout(rate, name=f"state_dropout_{index}_{direction}")(whole, train)
            runs.append(layer(x, real, kept))
        x = jnp.concatenate([states for states, _ in runs], axis=-1)
        summary = jnp.concatenate([final for _, final in runs], axis=-1)
    if model.positions:
        summary = x.swapaxes(0, 1)
    elif model.readout == "mean":
        summary = x.mean(axis=0) if real is None else _mean(x, real)
    summary = Dropout(rate, name="dropout")(summary, train)
    return Head(model.num_outputs, (), "relu", model.initializer, name="head")(summary, train)


def _sequence(
    model: GRU | LSTM, cell: str, inputs: Num[Array, "n *shape"]
) -> tuple[Float[Array, "time n channels"], Bool[Array, "time n"] | None]:
    """Returns what the first layer reads, times first, and what of token ids is no padding."""
    if model.num_tokens and inputs.ndim == 2:
        tokens = inputs.T
        vectors = nn.Embed(model.num_tokens, model.embedding_features, name="tokens")(tokens)
        return vectors, tokens != 0
    x = inputs[..., None] if inputs.ndim == 2 else inputs
    if model.num_tokens or x.ndim not in (3, 4):
        raise ConfigError(
            f"model.name {cell!r} takes token ids, or inputs of shape (length,), (length, "
            f"channels) or (rows, columns, channels); the data's are {inputs.shape[1:]}. Use "
            "'mlp', or reshape the data."
        )
    return x.reshape(*x.shape[:2], -1).swapaxes(0, 1), None


def _mean(
    x: Float[Array, "time n features"], real: Bool[Array, "time n"]
) -> Float[Array, "n features"]:
    weights = real.astype(x.dtype)[..., None]
    return (x * weights).sum(axis=0) / jnp.maximum(weights.sum(axis=0), 1)
