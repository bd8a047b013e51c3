"""An encoder for an input of any kind: what of several inputs makes vectors of one width."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from jdlopt.config import Scalar
from jdlopt.data.named import PRESENT
from jdlopt.errors import ConfigError
from jdlopt.models.cnn import CNN
from jdlopt.models.embedding import EMBEDDING_INIT, numbers_and_codes, width_of
from jdlopt.models.layers import INITIALIZERS
from jdlopt.models.mlp import MLP
from jdlopt.models.recurrent import GRU

TEXT_ENCODERS = ("mean", "gru")
WAVEFORM_STRIDES = 4
"""A waveform has many samples: each convolution keeps one in so many."""


class InputFacts(NamedTuple):
    """What a model must know of an input beside its shape.

    Attributes:
      tokens: the size of the vocabulary where it holds token ids, else 0.
      columns: where a table's categories are to be embedded, the number of them in each column, 0
        for numbers.
      names: of a table's columns.
      waveform: whether it holds samples of sound.
    """

    tokens: int = 0
    columns: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    waveform: bool = False


Inputs = Shaped[Array, "n *shape"] | Mapping[str, Shaped[Array, "n *shape"]]
"""The only input, or named ones."""
Named = tuple[tuple[str, InputFacts], ...]
"""What is known of each of several inputs, in their order."""


class Encoding(NamedTuple):
    """How inputs become vectors.

    A table goes through dense layers, its categories embedded with
    ``data.preprocess.encode='embedding'``; an image, a sequence or sound through blocks of
    convolution and max pooling; a text becomes the mean of its tokens' embeddings, or what a GRU
    makes of them.

    Attributes:
      model: ``model.name``, for messages.
      width: of the vectors.
      table_features, image_features, sequence_features: the widths of these layers.
      text_encoder: one of `TEXT_ENCODERS`.
      embedding_features: the width of a token's embedding, and the largest of a category's.
      activation, initializer, dropout_rate: of all of them.
    """

    model: str
    width: int
    table_features: tuple[int, ...]
    image_features: tuple[int, ...]
    sequence_features: tuple[int, ...]
    text_encoder: str
    embedding_features: int
    activation: str
    initializer: str
    dropout_rate: Scalar | None

    @staticmethod
    def of(name: str, module: object) -> Encoding:
        """Returns what a module's fields of these names say; ``name`` is the model's."""
        return Encoding(name, *(getattr(module, field) for field in Encoding._fields[1:]))


def facts_by_name(
    inputs: Inputs, named: Named, tokens: int, columns: tuple[int, ...]
) -> tuple[Mapping[str, Array], Named, Bool[Array, "n inputs"] | None]:
    """Returns inputs by name, what is known of each, and which of them each example has.

    Args:
      inputs: as a model is called with them.
      named: what is known of named ones; empty: nothing.
      tokens, columns: of the only input.

    Returns:
      The last is None where every example has all; its columns are in the order of the facts.
    """
    if not isinstance(inputs, Mapping):
        return {"input": inputs}, (("input", InputFacts(tokens, columns)),), None
    facts = named or tuple((name, InputFacts()) for name in sorted(inputs))
    there = inputs.get(PRESENT)
    known = tuple((name, one) for name, one in facts if name != PRESENT)
    return inputs, known, None if there is None else there.astype(bool)


def called(place: int, name: str, what: str = "encoder") -> str:
    """Returns what a submodule of an input is called.

    Example:
      >>> called(1, "front view")
      'encoder_1_front_view'
    """
    return f"{what}_{place}_{re.sub(r'[^A-Za-z0-9]+', '_', name)}"


class Embedded(nn.Module):
    """The numbers of a table beside an embedding of each of its categories."""

    columns: tuple[int, ...]
    features: int

    @nn.compact
    def __call__(self, inputs: Float[Array, "n columns"]) -> Float[Array, "n features"]:
        """Looks the categories up; a table without any is returned as it is."""
        if not any(self.columns):
            return inputs
        numbers, codes = numbers_and_codes(inputs, self.columns)
        vectors = []
        for index, count in enumerate(filter(None, self.columns)):
            shape = (count + 1, width_of(count + 1, self.features))
            table = self.param(f"column_{index}", EMBEDDING_INIT, shape)
            vectors.append(table[codes[:, index]])
        return jnp.concatenate([numbers.astype(vectors[0].dtype), *vectors], axis=1)


class Words(nn.Module):
    """A text's tokens as one vector: the mean of their embeddings, or what a GRU makes of them."""

    num_outputs: int
    tokens: int
    features: int
    encoder: str
    initializer: str

    @nn.compact
    def __call__(
        self, inputs: Int[Array, "n positions"], train: bool
    ) -> Float[Array, "n num_outputs"]:
        """Looks the tokens up, 0 being padding, and sums them up."""
        if self.encoder == "gru":
            return GRU(
                self.num_outputs,
                features=self.num_outputs,
                embedding_features=self.features,
                num_tokens=self.tokens,
                name="encoder",
            )(inputs, train)
        table = self.param("tokens", EMBEDDING_INIT, (self.tokens, self.features))
        real = (inputs != 0)[..., None]
        vectors = jnp.where(real, table[inputs], 0)
        mean = vectors.sum(axis=1) / jnp.maximum(real.sum(axis=1), 1).astype(vectors.dtype)
        return nn.Dense(
            self.num_outputs, kernel_init=INITIALIZERS[self.initializer], name="outputs"
        )(mean)


def encode(
    how: Encoding, x: Num[Array, "n *shape"], place: int, name: str, facts: InputFacts, train: bool
) -> Float[Array, "n width"]:
    """Returns one input's vectors, before an activation; called in a module's compact method.

    Args:
      how: the widths.
      x: the input.
      place, name: its number and name, which its encoder is called by.
      facts: what is known of it.
      train: whether dropout is on.

    Raises:
      ConfigError: it has more dimensions than an image.
    """
    own = called(place, name)
    if facts.tokens:
        return Words(
            how.width,
            facts.tokens,
            how.embedding_features,
            how.text_encoder,
            how.initializer,
            name=own,
        )(x, train)
    if x.ndim == 2 and not facts.waveform:
        x = Embedded(facts.columns, how.embedding_features, name=f"{own}_columns")(x)
        return MLP(
            how.width,
            how.table_features,
            how.activation,
            how.initializer,
            how.dropout_rate,
            name=own,
        )(x, train)
    if x.ndim not in (2, 3, 4):
        raise ConfigError(
            f"model.name {how.model!r} has no encoder for the input {name!r} of shape "
            f"{x.shape[1:]}: expected a table, a text, a sequence, sound or an image."
        )
    features = how.image_features if x.ndim == 4 else how.sequence_features
    wave = facts.waveform and x.ndim == 2
    return CNN(
        how.width,
        features,
        strides=WAVEFORM_STRIDES if wave else 1,
        kernel_size=2 * WAVEFORM_STRIDES + 1 if wave else 3,
        pool="none" if wave else "max",
        activation=how.activation,
        initializer=how.initializer,
        dropout_rate=how.dropout_rate,
        readout="average" if wave else "flatten",
        name=own,
    )(x, train)
