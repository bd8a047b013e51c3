"""Fusion of several inputs: an encoder for each of them, and a head on all encodings together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from jdlopt.config import Choice, Count, Rate
from jdlopt.errors import ConfigError
from jdlopt.models.cnn import CNN
from jdlopt.models.embedding import EMBEDDING_INIT, numbers_and_codes, width_of
from jdlopt.models.layers import ACTIVATIONS, INITIALIZERS, Head
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


class Fusion(nn.Module):
    """An encoder for each input, and dense layers of ``hidden`` on their encodings side by side.

    A table goes through dense layers of ``table_features``, its categories embedded with
    ``data.preprocess.encode='embedding'``; an image, a sequence or sound goes through blocks of
    convolution and max pooling of ``image_features`` or ``sequence_features``; a text becomes the
    mean of its tokens' embeddings, or what a GRU makes of them. Each encoding is ``width`` wide.
    With one input it is that input's encoder and the head. Late fusion by concatenation:
    Baltrušaitis, Ahuja and Morency, "Multimodal machine learning: a survey and taxonomy", 2019.
    """

    num_outputs: int
    width: Count = 64
    hidden: tuple[int, ...] = (64,)
    table_features: tuple[int, ...] = (64,)
    image_features: tuple[int, ...] = (16, 32)
    sequence_features: tuple[int, ...] = (16, 32)
    text_encoder: Annotated[str, Choice(TEXT_ENCODERS)] = "mean"
    embedding_features: Count = 32
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "he_normal"
    dropout_rate: Rate | None = None
    num_tokens: int = 0
    column_sizes: tuple[int, ...] = ()
    named_inputs: tuple[tuple[str, InputFacts], ...] = ()

    @nn.compact
    def __call__(
        self,
        inputs: Num[Array, "n *shape"] | Mapping[str, Num[Array, "n *shape"]],
        train: bool = False,
    ) -> Float[Array, "n num_outputs"]:
        """Maps named inputs, or one, to outputs.

        Raises:
          ConfigError: an input has more dimensions than an image.
        """
        if not isinstance(inputs, Mapping):
            inputs = {"input": inputs}
            facts = [("input", InputFacts(self.num_tokens, self.column_sizes))]
        else:
            facts = list(self.named_inputs or ((name, InputFacts()) for name in sorted(inputs)))
        activation, encoded = ACTIVATIONS[self.activation], []
        for place, (name, one) in enumerate(facts):
            called = f"encoder_{place}_{re.sub(r'[^A-Za-z0-9]+', '_', name)}"
            encoded.append(activation(self._encoded(inputs[name], name, one, called, train)))
        return Head(
            self.num_outputs,
            self.hidden,
            self.activation,
            self.initializer,
            self.dropout_rate,
            name="head",
        )(jnp.concatenate(encoded, axis=1), train)

    def _encoded(
        self, x: Array, name: str, facts: InputFacts, called: str, train: bool
    ) -> Float[Array, "n width"]:
        """One input's encoding, before its activation."""
        if facts.tokens:
            return Words(
                self.width,
                facts.tokens,
                self.embedding_features,
                self.text_encoder,
                self.initializer,
                name=called,
            )(x, train)
        if x.ndim == 2 and not facts.waveform:
            x = Embedded(facts.columns, self.embedding_features, name=f"{called}_columns")(x)
            return MLP(
                self.width,
                self.table_features,
                self.activation,
                self.initializer,
                self.dropout_rate,
                name=called,
            )(x, train)
        if x.ndim not in (2, 3, 4):
            raise ConfigError(
                f"model.name 'fusion' has no encoder for the input {name!r} of shape "
                f"{x.shape[1:]}: expected a table, a text, a sequence, sound or an image."
            )
        features = self.image_features if x.ndim == 4 else self.sequence_features
        wave = facts.waveform and x.ndim == 2
        return CNN(
            self.width,
            features,
            strides=WAVEFORM_STRIDES if wave else 1,
            kernel_size=2 * WAVEFORM_STRIDES + 1 if wave else 3,
            pool="none" if wave else "max",
            activation=self.activation,
            initializer=self.initializer,
            dropout_rate=self.dropout_rate,
            readout="average" if wave else "flatten",
            name=called,
        )(x, train)
