"""Fusion of several inputs: an encoder for each of them, put together early, late or by attention.

An input that an example lacks, as the input `jdlopt.data.named.PRESENT` says, is masked: nothing of
what stands in its place reaches an output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jdlopt.config import Choice, Count, Rate
from jdlopt.errors import ConfigError, listing, nearest
from jdlopt.models.attention import TransformerLayer
from jdlopt.models.encoders import (
    TEXT_ENCODERS,
    Encoding,
    InputFacts,
    Inputs,
    called,
    encode,
    facts_by_name,
)
from jdlopt.models.layers import ACTIVATIONS, INITIALIZERS, Head, layer_norm

FUSIONS = ("early", "late", "attention")
EPSILON = 1e-5
_INIT = nn.initializers.normal(0.02)


def _mean(
    outputs: Float[Array, "heads n outputs"], weights: Float[Array, "heads n"] | None = None
) -> Float[Array, "n outputs"]:
    if weights is None:
        return outputs.mean(axis=0)
    return (outputs * weights[..., None]).sum(axis=0) / weights.sum(axis=0)[:, None]


def _check_names(key: str, given: Iterable[str], names: Sequence[str]) -> None:
    """Raises a `ConfigError` that names the first name which is no input's."""
    for name in given:
        if name not in names:
            raise ConfigError(
                f"model.{key}: {name!r} is no input.{nearest(name, names)} There are "
                f"{listing(names)}."
            )


class Fusion(nn.Module):
    """An encoder for each input, and one of three ways to put their encodings together.

    ``fusion='early'``: dense layers of ``hidden`` on the encodings side by side. ``'late'``: a head
    for each input, of dense layers of ``hidden``; each learns by itself, and what is predicted is
    the mean of their class probabilities, or of their outputs. ``'attention'``:
    ``fusion_layers`` transformer layers with ``fusion_heads`` heads over a token an input and one
    that gathers what they hold, which the dense layers of ``hidden`` are given.

    A table goes through dense layers of ``table_features``, its categories embedded with
    ``data.preprocess.encode='embedding'``; an image, a sequence or sound goes through blocks of
    convolution and max pooling of ``image_features`` or ``sequence_features``; a text becomes the
    mean of its tokens' embeddings, or what a GRU makes of them. Each encoding is ``width`` wide.
    With one input it is that input's encoder and the head. Baltrušaitis, Ahuja and Morency,
    "Multimodal machine learning: a survey and taxonomy", 2019; Nagrani et al., "Attention
    bottlenecks for multimodal fusion", 2021.

    With ``data.missing_inputs='mask'``, inputs that an example lacks are masked: zeros side by
    side, left out of the mean, not attended to. ``modality_dropout`` masks each input of an example
    at random while training, all at one rate or each at its own by name, but never all that an
    example has. Neverova et al., "ModDrop: adaptive multi-modal gesture recognition", 2016. With
    ``use_inputs`` the inputs of these names alone are looked at, to see what the others add.
    """

    num_outputs: int
    fusion: Annotated[str, Choice(FUSIONS)] = "early"
    use_inputs: tuple[str, ...] = ()
    width: Count = 64
    hidden: tuple[int, ...] = (64,)
    table_features: tuple[int, ...] = (64,)
    image_features: tuple[int, ...] = (16, 32)
    sequence_features: tuple[int, ...] = (16, 32)
    text_encoder: Annotated[str, Choice(TEXT_ENCODERS)] = "mean"
    embedding_features: Count = 32
    fusion_layers: Count = 1
    fusion_heads: Count = 4
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "he_normal"
    dropout_rate: Rate | None = None
    modality_dropout: Rate | Mapping[str, float] | None = None
    num_tokens: int = 0
    column_sizes: tuple[int, ...] = ()
    named_inputs: tuple[tuple[str, InputFacts], ...] = ()
    mean_outputs: Callable[..., Array] = _mean

    @nn.compact
    def __call__(self, inputs: Inputs, train: bool = False) -> Float[Array, "*heads n num_outputs"]:
        """Maps named inputs, or one, to outputs; late fusion returns each head's while training.

        Raises:
          ConfigError: an input has more dimensions than an image, or a rate is of no input.
        """
        given, facts, there = facts_by_name(
            inputs, self.named_inputs, self.num_tokens, self.column_sizes
        )
        every = [name for name, _ in facts]
        _check_names("use_inputs", self.use_inputs, every)
        used = [place for place, name in enumerate(every) if name in (self.use_inputs or every)]
        names = [every[place] for place in used]
        how = Encoding.of("fusion", self)
        encoded = [
            ACTIVATIONS[self.activation](encode(how, given[name], place, name, one, train))
            for place, (name, one) in enumerate(facts)
            if place in used
        ]
        if there is not None:
            there = there[:, np.array(used)]
        there = self._there(there, names, encoded[0], train)
        if there is not None:
            encoded = [
                jnp.where(there[:, place : place + 1], one, 0) for place, one in enumerate(encoded)
            ]
        if self.fusion == "late":
            return self._late(encoded, names, there, train)
        if self.fusion == "attention":
            return self._head("head")(self._gathered(encoded, there, train), train)
        return self._head("head")(jnp.concatenate(encoded, axis=1), train)

    def _head(self, name: str) -> Head:
        return Head(
            self.num_outputs,
            self.hidden,
            self.activation,
            self.initializer,
            self.dropout_rate,
            name=name,
        )

    def _there(
        self,
        there: Bool[Array, "n inputs"] | None,
        names: list[str],
        like: Float[Array, "n features"],
        train: bool,
    ) -> Bool[Array, "n inputs"] | None:
        """Which inputs count: those that examples have, but for those dropped; None: all."""
        rates = self.modality_dropout
        if isinstance(rates, Mapping):
            _check_names("modality_dropout", rates, names)
            rates = jnp.stack([jnp.asarray(rates.get(name, 0.0)) for name in names])
        if rates is None or not train:
            return there
        shape = like.shape[0], len(names)  # the size of a batch may be symbolic
        drawn = jax.random.uniform(self.make_rng("dropout"), shape)
        had = jnp.ones(shape, bool) if there is None else there
        left = had & (drawn >= rates)
        return jnp.where(left.any(axis=1, keepdims=True), left, had)

    def _late(
        self,
        encoded: list[Array],
        names: list[str],
        there: Bool[Array, "n inputs"] | None,
        train: bool,
    ) -> Float[Array, "*heads n num_outputs"]:
        """The outputs of a head an input, or those that stand for all of them.

        In training, one whose input is masked says what the others say together, and so learns
        nothing from that example.
        """
        outputs = jnp.stack(
            [
                self._head(called(place, name, "head"))(one, train)
                for place, (name, one) in enumerate(zip(names, encoded, strict=True))
            ]
        )
        if there is None:
            return outputs if train else self.mean_outputs(outputs)
        # of an example that has none, each counts
        weights = jnp.where(there.any(axis=1), there.T, True).astype(jnp.float32)
        mean = self.mean_outputs(outputs, weights).astype(outputs.dtype)
        if not train:
            return mean
        return jnp.where(weights[..., None] > 0, outputs, jax.lax.stop_gradient(mean))

    def _gathered(
        self, encoded: list[Array], there: Bool[Array, "n inputs"] | None, train: bool
    ) -> Float[Array, "n width"]:
        """What a token that sees those of the inputs has become after the layers."""
        if self.width % self.fusion_heads:
            raise ConfigError(
                f"model.fusion_heads: {self.fusion_heads} heads can't share a width of "
                f"{self.width} evenly. Change model.width or model.fusion_heads."
            )
        tokens = jnp.stack(encoded, axis=1)
        kinds = self.param("kinds", _INIT, (len(encoded), self.width))
        gathers = self.param("gathers", _INIT, (self.width,))
        # of an example, not of their number, which an exported file does not know
        first = 0 * tokens[:, :1] + gathers.astype(tokens.dtype)
        x = jnp.concatenate([first, tokens + kinds.astype(tokens.dtype)], axis=1)
        mask = None
        if there is not None:
            itself = jnp.logical_or(there[:, :1], True)
            mask = jnp.concatenate([itself, there], axis=1)[:, None, None, :]
        for index in range(self.fusion_layers):
            x = TransformerLayer(
                self.fusion_heads,
                4 * self.width,
                self.activation,
                EPSILON,
                self.dropout_rate,
                pre_norm=True,
                name=f"layer_{index}",
            )(x, train, mask)
        return layer_norm(EPSILON, name="norm")(x[:, 0])
