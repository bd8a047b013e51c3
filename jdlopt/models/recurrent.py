"""Recurrent networks over sequences: gated recurrent units and long short-term memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, Rate
from jdlopt.errors import ConfigError
from jdlopt.models.layers import INITIALIZERS, Dropout, Head

READOUTS = ("last", "mean")


def gru_step(state: tuple[Array], projected: Array, kernel: Array, bias: Array) -> tuple[Array]:
    """One step of a GRU, with the inputs' part of the gates already computed.

    ``r = σ(x_r + h·U_r)``, ``z = σ(x_z + h·U_z)``, ``n = tanh(x_n + r·(h·U_n + b))``,
    ``h' = (1 - z)·n + z·h``. Cho et al., "Learning phrase representations using RNN
    encoder-decoder", 2014.

    Args:
      state: (h,), each (n, features).
      projected: (n, 3 · features): the gates r, z and n from the inputs, with their bias.
      kernel: (features, 3 · features).
      bias: (features,): b.
    """
    (h,) = state
    x_r, x_z, x_n = jnp.split(projected, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(h @ kernel, 3, axis=-1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    candidate = jnp.tanh(x_n + r * (h_n + bias))
    return (candidate + z * (h - candidate),)


def lstm_step(
    state: tuple[Array, Array], projected: Array, kernel: Array, bias: Array
) -> tuple[Array, Array]:
    """One step of an LSTM, with the inputs' part of the gates already computed.

    ``i, f, o = σ(…)``, ``g = tanh(…)`` of ``x + h·U``; ``c' = f·c + i·g``, ``h' = o·tanh(c')``. The
    forget gate gets ``bias`` on top, which starts at 1 so that a new network remembers. Hochreiter
    and Schmidhuber, "Long short-term memory", 1997; Jozefowicz et al., 2015.

    Args:
      state: (h, c), each (n, features).
      projected: (n, 4 · features): the gates i, f, g and o from the inputs, with their bias.
      kernel: (features, 4 · features).
      bias: (features,), of the forget gate.
    """
    h, c = state
    i, f, g, o = jnp.split(projected + h @ kernel, 4, axis=-1)
    c = jax.nn.sigmoid(f + bias) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


_CELLS: dict[str, tuple[Callable[..., Any], int, int, Callable[..., Array]]] = {
    "gru": (gru_step, 3, 1, nn.initializers.zeros),
    "lstm": (lstm_step, 4, 2, nn.initializers.ones),
}
"""The step, its gates, its states, and how its recurrent bias starts."""


def _orthogonal_gates(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
    width, columns = shape
    keys = jax.random.split(key, columns // width)
    orthogonal = nn.initializers.orthogonal()
    return jnp.concatenate([orthogonal(k, (width, width), dtype) for k in keys], axis=-1)


def _gates(init: Callable[..., Array], count: int) -> Callable[..., Array]:
    # Each gate is a matrix of its own: its variance must not depend on how many stand side by side.
    def initialize(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
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

    @nn.compact
    def __call__(
        self, x: Float[Array, "time n channels"]
    ) -> tuple[Float[Array, "time n features"], Float[Array, "n features"]]:
        """Returns the states at all times (in the order of the inputs) and the final one."""
        step, gates, states, bias_init = _CELLS[self.cell]
        width = gates * self.features
        kernel_init = _gates(INITIALIZERS[self.initializer], gates)
        kernel = self.param("kernel", kernel_init, (x.shape[-1], width))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        recurrent = self.param("recurrent_kernel", _orthogonal_gates, (self.features, width))
        recurrent_bias = self.param("recurrent_bias", bias_init, (self.features,))

        def advance(state: Any, projected: Array) -> tuple[Any, Array]:
            state = step(state, projected, recurrent, recurrent_bias)
            return state, state[0]

        initial = (jnp.zeros((x.shape[1], self.features), x.dtype),) * states
        final, outputs = lax.scan(advance, initial, x @ kernel + bias, reverse=self.reverse)
        return outputs, final[0]


class _Recurrent(nn.Module):
    """Layers of a recurrence, in one or both directions, and a linear head."""

    num_outputs: int
    cell: str
    features: int
    num_layers: int
    bidirectional: bool
    readout: str
    initializer: str
    dropout_rate: Any

    @nn.compact
    def __call__(self, inputs: Array, train: bool) -> Array:
        x = inputs[..., None] if inputs.ndim == 2 else inputs
        if x.ndim not in (3, 4):
            raise ConfigError(
                f"model.name {self.cell!r} takes inputs of shape (length,), (length, channels) or "
                f"(rows, columns, channels); the data's are {inputs.shape[1:]}. Use 'mlp', or "
                "reshape the data."
            )
        x = x.reshape(*x.shape[:2], -1).swapaxes(0, 1)
        summary = x
        for index in range(self.num_layers):
            if index:
                x = Dropout(self.dropout_rate, name=f"dropout_{index}")(x, train)
            runs = []
            for direction in ("forward", "backward")[: 1 + self.bidirectional]:
                layer = Recurrence(
                    self.features,
                    self.cell,
                    self.initializer,
                    reverse=direction == "backward",
                    name=f"{self.cell}_{index}_{direction}",
                )
                runs.append(layer(x))
            x = jnp.concatenate([states for states, _ in runs], axis=-1)
            summary = jnp.concatenate([final for _, final in runs], axis=-1)
        if self.readout == "mean":
            summary = x.mean(axis=0)
        summary = Dropout(self.dropout_rate, name="dropout")(summary, train)
        return Head(self.num_outputs, (), "relu", self.initializer, name="head")(summary, train)


class GRU(nn.Module):
    """Gated recurrent units over (length, channels); an image is read row by row.

    The readout is the final state (of both directions if bidirectional), or the mean over time.
    Dropout is between the layers and before the head.
    """

    num_outputs: int
    features: Count = 64
    num_layers: Count = 1
    bidirectional: bool = False
    readout: Annotated[str, Choice(READOUTS)] = "last"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "glorot_uniform"
    dropout_rate: Rate | None = None

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps sequences to outputs."""
        return _recurrent(self, "gru")(inputs, train)


class LSTM(nn.Module):
    """Long short-term memory over (length, channels); its keys are those of `GRU`."""

    num_outputs: int
    features: Count = 64
    num_layers: Count = 1
    bidirectional: bool = False
    readout: Annotated[str, Choice(READOUTS)] = "last"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "glorot_uniform"
    dropout_rate: Rate | None = None

    @nn.compact
    def __call__(self, inputs: Float[Array, "n *shape"], train: bool = False) -> Array:
        """Maps sequences to outputs."""
        return _recurrent(self, "lstm")(inputs, train)


def _recurrent(model: GRU | LSTM, cell: str) -> _Recurrent:
    return _Recurrent(
        model.num_outputs,
        cell,
        model.features,
        model.num_layers,
        model.bidirectional,
        model.readout,
        model.initializer,
        model.dropout_rate,
        name="layers",
    )
