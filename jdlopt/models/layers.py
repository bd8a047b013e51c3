"""What models are built of: activations, initialisers, dropout with a traced rate, convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jdlopt.config import Scalar
from jdlopt.errors import ConfigError
from jdlopt.kernels.algorithms import Padding
from jdlopt.kernels.bits import sixteen_bits
from jdlopt.kernels.convolution import convolve
from jdlopt.kernels.depthwise import depthwise
from jdlopt.models.axes import batched


def gelu_exact(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes the Gaussian error linear unit ``x · Φ(x)`` by `erf`: half the cost of `erfc`.

    Hendrycks and Gimpel, "Gaussian error linear units", 2016.
    """
    return x * (0.5 + 0.5 * lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "gelu": jax.nn.gelu,
    "gelu_exact": gelu_exact,
    "silu": jax.nn.silu,
    "mish": jax.nn.mish,
}

MONOTONE = frozenset({"sigmoid", "tanh", "relu", "relu6", "leaky_relu", "elu", "selu"})
"""Activations that never decrease: they may follow a maximum instead of preceding it."""

INITIALIZERS: dict[str, Callable[..., Array]] = {
    "he_normal": nn.initializers.he_normal(),
    "he_uniform": nn.initializers.he_uniform(),
    "glorot_normal": nn.initializers.glorot_normal(),
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "lecun_normal": nn.initializers.lecun_normal(),
    "lecun_uniform": nn.initializers.lecun_uniform(),
}

_STEPS = 1 << 16


def layer_norm(epsilon: Scalar, name: str | None = None) -> nn.LayerNorm:
    """Returns flax's layer normalisation, whose ``epsilon`` may be traced; flax's type says not."""
    return nn.LayerNorm(epsilon, name=name)  # type: ignore[arg-type]


def dropout(key: Array, x: Float[Array, "*shape"], rate: Scalar) -> Float[Array, "*shape"]:
    """Sets each value to 0 with probability ``rate`` and scales the others to keep the expectation.

    The rate may be traced: one program serves all. It is rounded to a multiple of 2⁻¹⁶, since a
    draw takes 16 random bits (they cost much of a small network's training step on a CPU), and the
    scale is the inverse of the rounded rate's keep probability, so that the expectation is exact.
    Rate 0 returns ``x`` to the bit. Srivastava et
    al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.

    Args:
      key: a random key.
      x: values.
      rate: probability of 0, in [0, 1).
    """
    dropped = jnp.round(jnp.asarray(rate, jnp.float32) * _STEPS)
    dropped = jnp.minimum(dropped, _STEPS - 1.0)
    kept = sixteen_bits(key, x.shape) >= dropped.astype(jnp.uint32)
    scale = (_STEPS / (_STEPS - dropped)).astype(x.dtype)
    return jnp.where(kept, x * scale, jnp.zeros((), x.dtype))


REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""What the backward pass finds in memory: all activations; or each block's inputs alone, all
matmuls' outputs beside them, or those of matmuls without a batch dimension; it computes the rest
again. Chen et al., "Training deep nets with sublinear memory cost", 2016."""


def rematerialised(block: type[nn.Module], remat: str) -> type[nn.Module]:
    """Returns a block's class whose activations are computed again in the backward pass.

    Args:
      block: a Linen module called as ``block(...)(x, train)``, with ``train`` a Python bool.
      remat: a `REMAT` entry; ``none`` returns the block as it is.
    """
    policy = REMAT[remat]
    return block if policy is None else nn.remat(block, policy=policy, static_argnums=(2,))


class Dropout(nn.Module):
    """`dropout` as a module: draws its key from the stream ``dropout``; no rate, no cost."""

    rate: Scalar | None

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"], train: bool) -> Float[Array, "*shape"]:
        """Drops values while training, and passes them through otherwise."""
        if self.rate is None or not train:
            return x
        return dropout(self.make_rng("dropout"), x, self.rate)


class DropPath(nn.Module):
    """Stochastic depth: leaves a block's branch out, example by example, while training.

    Draws its key from the stream ``dropout``; what is kept is scaled as in `dropout`. Huang et al.,
    "Deep networks with stochastic depth", 2016.
    """

    rate: Scalar | None

    @nn.compact
    def __call__(self, y: Float[Array, "n *shape"], train: bool) -> Float[Array, "n *shape"]:
        """Sets the branch of some examples to 0 while training; no rate, no cost."""
        if self.rate is None or not train:
            return y
        each = jnp.ones((len(y), *(1,) * (y.ndim - 1)), y.dtype)
        return y * dropout(self.make_rng("dropout"), each, self.rate)


def rates_by_depth(rate: Scalar | None, count: int) -> list[Scalar | None]:
    """Returns the `DropPath` rate of each of ``count`` blocks: from 0, evenly, to ``rate``.

    Example:
      >>> rates_by_depth(0.2, 3)
      [0.0, 0.1, 0.2]
    """
    if rate is None:
        return [None] * count
    return [rate * (index / max(1, count - 1)) for index in range(count)]


def check_widths(key: str, values: tuple[int, ...], count: int, each: str) -> None:
    """Raises a `ConfigError` where a key of the model does not hold a width for each of something.

    Args:
      key: of the ``model`` section.
      values: what it holds.
      count: how many widths there must be.
      each: what one of them is, for the message.
    """
    if len(values) != count or min(values, default=1) < 1:
        raise ConfigError(
            f"model.{key}: expected {count} numbers of at least 1, one for each {each}, found "
            f"{values}."
        )


class Conv(nn.Module):
    """`convolve` with a kernel and a bias of its own, as many dimensions as its kernel has."""

    features: int
    kernel_size: tuple[int, ...]
    strides: int = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    kernel_init: Callable[..., Array] = INITIALIZERS["he_normal"]

    @nn.compact
    def __call__(self, x: Float[Array, "n *space channels"]) -> Float[Array, "n *outs features"]:
        """Convolves and adds the bias."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        y = convolve(x, self.param("kernel", self.kernel_init, shape), self.strides, self.padding)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))
        return y


class DepthwiseConv(nn.Module):
    """`depthwise` with a kernel and a bias of its own: as many channels come out as went in."""

    kernel_size: tuple[int, ...]
    strides: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n *space channels"]) -> Float[Array, "n *outs channels"]:
        """Convolves each channel by itself, with "SAME" padding, and adds the bias."""
        shape = (*self.kernel_size, 1, x.shape[-1])
        y = depthwise(x, self.param("kernel", INITIALIZERS["he_normal"], shape), self.strides)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return y


class BatchNorm(nn.Module):
    """Batch normalisation over all but the channels, with running statistics for evaluation.

    The statistics are of the global batch wherever it is sharded, since `jit` sees it as one array;
    with ``model.batch_norm_groups`` they are of each group of it. Ioffe and Szegedy, "Batch
    normalization", 2015.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Callable[..., Array] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "n *space channels"], train: bool) -> Array:
        """Normalises by the batch's statistics while training, else by the running ones."""
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            scale_init=self.scale_init,
            name="norm",
        )
        return norm(x)


class Head(nn.Module):
    """Hidden dense layers, each with activation and dropout, and the linear outputs."""

    num_outputs: int
    features: tuple[int, ...]
    activation: str
    initializer: str
    dropout_rate: Scalar | None = None
    batch_norm: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "n *positions features"], train: bool
    ) -> Float[Array, "n *positions num_outputs"]:
        """Maps features to outputs (logits, or predictions of a regression)."""
        policy, layer = REMAT[self.remat], Head._layer
        if policy is not None:
            layer = nn.remat(layer, policy=policy, static_argnums=(2, 3, 4))
        x = batched(x)
        for index, width in enumerate(self.features):
            x = batched(layer(self, x, index, width, train))
        return nn.Dense(self.num_outputs, kernel_init=INITIALIZERS["lecun_normal"], name="outputs")(
            x
        )

    def _layer(self, x: Array, index: int, width: int, train: bool) -> Array:
        init = INITIALIZERS[self.initializer]
        x = nn.Dense(width, use_bias=not self.batch_norm, kernel_init=init, name=f"dense_{index}")(
            x
        )
        if self.batch_norm:
            x = BatchNorm(name=f"norm_{index}")(x, train)
        x = ACTIVATIONS[self.activation](x)
        return Dropout(self.dropout_rate, name=f"dropout_{index}")(x, train)
