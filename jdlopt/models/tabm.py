"""TabM: many perceptrons for a table that share their weights, and are averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jdlopt.config import Choice, Count, Natural, Positive, Rate
from jdlopt.models.layers import ACTIVATIONS, INITIALIZERS, Dropout
from jdlopt.models.table_features import NUMERIC_EMBEDDINGS, row_features

ADAPTERS = ("all", "first")
"""Which layers each submodel has numbers of its own for."""


def _mean(outputs: Float[Array, "submodels n outputs"]) -> Float[Array, "n outputs"]:
    return outputs.mean(axis=0)


class Adapter(nn.Module):
    """Multiplies each feature by a number of each submodel's own."""

    submodels: int
    start: Callable[[PRNGKeyArray, tuple[int, ...]], Array] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "n _ features"]) -> Float[Array, "n submodels features"]:
        """Scales features; one submodel alone has nothing to differ in."""
        if self.submodels == 1:
            return x
        scale = self.param("scale", self.start, (self.submodels, x.shape[-1]))
        return x.astype(scale.dtype) * scale


class SharedDense(nn.Module):
    """A dense layer whose kernel all submodels share, and whose bias is each one's own."""

    features: int
    submodels: int
    initializer: str

    @nn.compact
    def __call__(self, x: Float[Array, "n _ inputs"]) -> Float[Array, "n submodels features"]:
        """Maps inputs to features."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", INITIALIZERS[self.initializer], shape)
        bias = self.param("bias", nn.initializers.zeros, (self.submodels, self.features))
        return x.astype(kernel.dtype) @ kernel + bias


class SeparateDense(nn.Module):
    """A dense layer for each submodel."""

    features: int
    submodels: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "n submodels inputs"]
    ) -> Float[Array, "n submodels features"]:
        """Maps inputs to features."""
        init = nn.initializers.lecun_normal(batch_axis=(0,))
        kernel = self.param("kernel", init, (self.submodels, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.submodels, self.features))
        return jnp.einsum("nki,kif->nkf", x, kernel) + bias


class TabM(nn.Module):
    """Perceptrons that share their kernels, each with scales, biases and outputs of its own.

    Each of ``submodels`` multiplies what goes into and what comes out of a shared layer by numbers
    of its own (``adapters='first'``: only what goes into the first, TabM-mini). While training, the
    loss is the mean of the submodels' losses; what is predicted is the mean of their class
    probabilities, or of their outputs. One submodel is an MLP. Gorishniy, Kotelnikov and Babenko,
    "TabM: advancing tabular deep learning with parameter-efficient ensembling", 2024; adapters are
    those of Wen, Tran and Ba, "BatchEnsemble", 2020.

    It wants AdamW with a learning rate near 0.002 and a ``dropout_rate`` of 0.1; with
    ``data.preprocess.bins`` or a ``numeric_embedding`` it is the paper's TabM†. Columns of up to
    ``one_hot_up_to`` categories are one-hot and others embedded, with
    ``data.preprocess.encode='embedding'``.
    """

    num_outputs: int
    submodels: Count = 32
    features: tuple[int, ...] = (512, 512, 512)
    adapters: Annotated[str, Choice(ADAPTERS)] = "all"
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "he_normal"
    dropout_rate: Rate | None = None
    numeric_embedding: Annotated[str, Choice(NUMERIC_EMBEDDINGS)] = "none"
    numeric_frequencies: Count = 16
    numeric_features: Count = 16
    numeric_sigma: Positive = 0.1
    one_hot_up_to: Natural = 8
    embedding_features: Count = 16
    column_sizes: tuple[int, ...] = ()
    mean_outputs: Callable[[Array], Array] = _mean

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "n columns"], train: bool = False
    ) -> Float[Array, "*submodels n num_outputs"]:
        """Maps rows of a table to the outputs of all submodels while training, else to their mean.

        Raises:
          ConfigError: the inputs are no rows.
        """
        columns = row_features(self, inputs, "tabm")
        x = jnp.concatenate(columns, axis=1)[:, None]
        start = self._start([one.shape[1] for one in columns])
        x = Adapter(self.submodels, start, name="adapter_in_0")(x)
        for index, width in enumerate(self.features):
            adapted = self.adapters == "all"
            if adapted and index:
                x = Adapter(self.submodels, name=f"adapter_in_{index}")(x)
            x = SharedDense(width, self.submodels, self.initializer, name=f"dense_{index}")(x)
            if adapted:
                x = Adapter(self.submodels, name=f"adapter_out_{index}")(x)
            x = ACTIVATIONS[self.activation](x)
            x = Dropout(self.dropout_rate, name=f"dropout_{index}")(x, train)
        outputs = SeparateDense(self.num_outputs, self.submodels, name="outputs")(x)
        outputs = jnp.moveaxis(outputs, 1, 0)
        return outputs if train else self.mean_outputs(outputs)

    def _start(self, widths: list[int]) -> Callable[[PRNGKeyArray, tuple[int, ...]], Array]:
        """Draws the first scales: a sign for each feature; of embeddings a number for each."""

        def drawn(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
            if self.numeric_embedding == "none":
                return jax.random.rademacher(key, shape, jnp.float32)
            each = jax.random.normal(key, (shape[0], len(widths)))
            return jnp.repeat(each, jnp.asarray(widths), axis=1, total_repeat_length=shape[1])

        return drawn
