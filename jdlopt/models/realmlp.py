"""RealMLP: a perceptron for tables whose defaults were tuned on many of them."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdlopt.config import Choice, Count, Natural, Positive, Rate
from jdlopt.models.layers import ACTIVATIONS, Dropout
from jdlopt.models.table_features import NUMERIC_EMBEDDINGS, row_features


class NTKDense(nn.Module):
    """A dense layer of the neural tangent parametrization: ``x W / √inputs + b``.

    Kernel and bias start from a standard normal distribution, or from zeros.
    """

    features: int
    zero: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n inputs"]) -> Float[Array, "n features"]:
        """Maps inputs to features."""
        init = nn.initializers.zeros if self.zero else nn.initializers.normal(1.0)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        return x @ kernel * x.shape[-1] ** -0.5 + bias


class RealMLP(nn.Module):
    r"""Dense layers over the columns of a table, each column scaled by a learnt number first.

    Numbers have periodic embeddings (`jdlopt.models.table_features.NumericEmbedding`); of
    categories, with ``data.preprocess.encode='embedding'``, columns of up to ``one_hot_up_to`` are
    one-hot and others embedded. Kernels are divided by √inputs and outputs start from 0.
    Holzmüller, Grinsztajn and Steinwart, "Better by default: strong pre-tuned MLPs and boosted
    trees on tabular data", 2024, without what it initialises from data and its learnt activations.

    It wants what it was tuned with: ``data.preprocess.scale='robust_clipped'``, Adam with
    ``b2=0.95``, the schedule ``cosine_log``, a learning rate of 0.04 (classes; label smoothing of
    0.1; SELU) or 0.2 (numbers; Mish), 6 times that for ``^scaling/`` and 0.1 times for
    ``^numbers/`` and ``\bbias\b``, as ``optim.groups``, and a ``dropout_rate`` of 0.15.
    """

    num_outputs: int
    features: tuple[int, ...] = (256, 256, 256)
    activation: Annotated[str, Choice(ACTIVATIONS)] = "selu"
    dropout_rate: Rate | None = None
    numeric_embedding: Annotated[str, Choice(NUMERIC_EMBEDDINGS)] = "pbld"
    numeric_frequencies: Count = 16
    numeric_features: Count = 4
    numeric_sigma: Positive = 0.1
    one_hot_up_to: Natural = 8
    embedding_features: Count = 8
    column_sizes: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "n columns"], train: bool = False
    ) -> Float[Array, "n num_outputs"]:
        """Maps rows of a table to outputs.

        Raises:
          ConfigError: the inputs are no rows.
        """
        x = jnp.concatenate(row_features(self, inputs, "realmlp"), axis=1)
        x = Scaling(name="scaling")(x)
        for index, width in enumerate(self.features):
            x = NTKDense(width, name=f"dense_{index}")(x)
            x = ACTIVATIONS[self.activation](x)
            x = Dropout(self.dropout_rate, name=f"dropout_{index}")(x, train)
        return NTKDense(self.num_outputs, zero=True, name="head")(x)


class Scaling(nn.Module):
    """Multiplies each feature by a learnt number, 1 at the start."""

    @nn.compact
    def __call__(self, x: Float[Array, "n features"]) -> Float[Array, "n features"]:
        """Scales features."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return x.astype(scale.dtype) * scale
