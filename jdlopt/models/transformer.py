"""Transformers over token ids or numeric sequences: an encoder, as BERT, and a decoder, as GPT."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from jdlopt.config import Choice, Count, Natural, NonNegative, Positive, Rate, Scalar
from jdlopt.errors import ConfigError
from jdlopt.models.attention import LayerSizes, make_layers, run_layers
from jdlopt.models.experts import mixture_of
from jdlopt.models.layers import ACTIVATIONS, REMAT, Dropout, Head, layer_norm

POOLINGS = ("cls", "mean")
_INIT = nn.initializers.normal(0.02)


def lengths_of(tokens: Int[Array, "n positions"]) -> Int[Array, " n"]:
    """Returns how many ids each row has before the padding at its end, which is id 0.

    Example:
      >>> lengths_of(jnp.array([[5, 0, 7, 0], [0, 0, 0, 0]])).tolist()
      [3, 0]
    """
    return jnp.max(jnp.where(tokens != 0, jnp.arange(1, tokens.shape[1] + 1), 0), axis=1)


class Embeddings(nn.Module):
    """The vector of each token (or a linear map of numbers), its position's and its type's."""

    features: int
    num_tokens: int
    max_positions: int
    dropout_rate: Scalar | None
    num_types: int = 0
    norm_epsilon: Scalar | None = None

    def setup(self) -> None:
        """Declares the submodules."""
        if self.num_tokens:
            self.tokens = nn.Embed(self.num_tokens, self.features, embedding_init=_INIT)
        else:
            self.inputs = nn.Dense(self.features)
        self.positions = nn.Embed(self.max_positions, self.features, embedding_init=_INIT)
        if self.num_types:
            self.types = nn.Embed(self.num_types, self.features, embedding_init=_INIT)
        if self.norm_epsilon is not None:
            self.norm = layer_norm(self.norm_epsilon)
        self.dropout = Dropout(self.dropout_rate)

    def __call__(
        self,
        inputs: Num[Array, "n positions *channels"],
        train: bool,
        types: Int[Array, "n positions"] | None = None,
        positions: Int[Array, "n positions"] | None = None,
    ) -> Float[Array, "n positions features"]:
        """Looks a sequence up; types are 0 and positions count from 0 by default.

        Raises:
          ConfigError: the sequence is too long, or of another shape.
        """
        self._check(inputs)
        if self.num_tokens:
            x = self.tokens(inputs)
        else:
            x = self.inputs(inputs[..., None] if inputs.ndim == 2 else inputs)
        x = x + self.positions(jnp.arange(inputs.shape[1]) if positions is None else positions)
        if self.num_types:
            x = x + self.types(jnp.zeros((), jnp.int32) if types is None else types)
        if self.norm_epsilon is not None:
            x = self.norm(x)
        return self.dropout(x, train)

    def scores(self, x: Float[Array, "*shape features"]) -> Float[Array, "*shape num_tokens"]:
        """Scores every token by the product of its vector and ``x``."""
        return self.tokens.attend(x)

    def _check(self, inputs: Array) -> None:
        if inputs.ndim not in (2, 3) or (self.num_tokens and inputs.ndim == 3):
            kind = "token ids" if self.num_tokens else "shape (length,) or (length, channels)"
            raise ConfigError(
                f"model.name: this transformer takes inputs of {kind}; the data's have shape "
                f"{inputs.shape[1:]}. Use 'vit' for images, 'mlp' for any other shape."
            )
        if inputs.shape[1] > self.max_positions:
            raise ConfigError(
                f"model.max_positions: {self.max_positions} is fewer than the {inputs.shape[1]} "
                "positions of the inputs. Raise it, or shorten the sequences (those of texts by "
                "data.text.max_tokens)."
            )


class TransformerEncoder(nn.Module):
    """Layers in which every position sees all others, as in BERT; post-norm.

    Inputs are token ids, of which 0 is padding that nothing sees, or numbers (length, channels).
    The features are the mean over the positions that are no padding, or with ``pooling='cls'`` the
    first position through a dense layer and tanh. ``layer_heads`` and ``layer_mlp_features`` are
    those of each layer, where they differ; a head is ``head_features`` wide, by default its share.
    With ``positions=1`` the head reads what the last layer makes of each position, and nothing is
    pooled. Devlin et al., "BERT: pre-training of deep
    bidirectional transformers for language understanding", 2019.

    With ``experts``, each feed-forward network is so many of them (`jdlopt.models.experts`), of
    which a token goes through ``experts_per_token``; each takes at most ``capacity`` tokens of a
    sequence, by default 1.25 times its even share. ``balance_weight`` is what the load-balancing
    loss counts (0.01 if None), ``router_z_weight`` the router's z-loss.
    """

    num_outputs: int
    features: Count = 128
    num_layers: Count = 2
    num_heads: Count = 4
    mlp_features: Count | None = None
    head_features: Count | None = None
    layer_heads: tuple[int, ...] | None = None
    layer_mlp_features: tuple[int, ...] | None = None
    experts: Count | None = None
    experts_per_token: Count = 1
    capacity: Count | None = None
    balance_weight: NonNegative | None = None
    router_z_weight: NonNegative | None = None
    max_positions: Count = 512
    num_types: Natural = 0
    pooling: Annotated[str, Choice(POOLINGS)] = "mean"
    activation: Annotated[str, Choice(ACTIVATIONS)] = "gelu_exact"
    norm_epsilon: Positive = 1e-12
    dropout_rate: Rate | None = None
    scan_layers: bool = False
    remat: Annotated[str, Choice(REMAT)] = "none"
    num_tokens: int = 0
    microbatches: int | None = None
    positions: int = 0

    def setup(self) -> None:
        """Declares the submodules; what a method does not call gets no parameters."""
        self.embeddings = Embeddings(
            self.features,
            self.num_tokens,
            self.max_positions,
            self.dropout_rate,
            self.num_types,
            self.norm_epsilon,
        )
        layers = _layers(self, pre_norm=False)
        if self.scan_layers:
            (self.layers,) = layers
        else:
            self.layer = layers
        if self.pooling == "cls" and not self.positions:
            self.pooler = nn.Dense(self.features)
        self.dropout = Dropout(self.dropout_rate)
        self.head = _head(self)

    def __call__(self, inputs: Num[Array, "n positions *channels"], train: bool = False) -> Array:
        """Maps sequences to outputs: one row each, or one at each position."""
        x = self.states(inputs, train) if self.positions else self.encode(inputs, train)
        return self.head(self.dropout(x, train), train)

    def encode(
        self,
        inputs: Num[Array, "n positions *channels"],
        train: bool = False,
        types: Int[Array, "n positions"] | None = None,
    ) -> Float[Array, "n features"]:
        """Maps each sequence to its features, which the head is given."""
        x = self.states(inputs, train, types)
        if self.pooling == "cls":
            return jnp.tanh(self.pooler(x[:, 0]))
        if not self.num_tokens:
            return x.mean(axis=1)
        real = (inputs != 0).astype(x.dtype)[..., None]
        return (x * real).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)

    def states(
        self,
        inputs: Num[Array, "n positions *channels"],
        train: bool = False,
        types: Int[Array, "n positions"] | None = None,
    ) -> Float[Array, "n positions features"]:
        """Maps sequences to what the last layer makes of each position."""
        x = self.embeddings(inputs, train, types)
        real = inputs != 0 if self.num_tokens else None
        mask = None if real is None else real[:, None, None, :]
        layers = self.layers if self.scan_layers else self.layer
        count, cut = self.num_layers, self.microbatches
        return run_layers(layers, count, x, train, mask, real=real, microbatches=cut)


class TransformerDecoder(nn.Module):
    """Layers in which a position sees itself and those before it, as in GPT-2; pre-norm.

    Inputs are token ids, of which 0 at the end is padding, or numbers (length, channels). As a
    classifier it reads the last position that is no padding; as a language model (`logits`) it
    scores the token after each position. With ``positions=1`` it has a row of outputs at each
    position; where these are as many as there are tokens, they are `next_scores`. ``layer_heads``,
    ``layer_mlp_features``, ``head_features`` and the keys of experts are as in
    `TransformerEncoder`. Radford et al., "Language models are unsupervised multitask learners",
    2019.
    """

    num_outputs: int
    features: Count = 128
    num_layers: Count = 2
    num_heads: Count = 4
    mlp_features: Count | None = None
    head_features: Count | None = None
    layer_heads: tuple[int, ...] | None = None
    layer_mlp_features: tuple[int, ...] | None = None
    experts: Count | None = None
    experts_per_token: Count = 1
    capacity: Count | None = None
    balance_weight: NonNegative | None = None
    router_z_weight: NonNegative | None = None
    max_positions: Count = 1024
    activation: Annotated[str, Choice(ACTIVATIONS)] = "gelu"
    norm_epsilon: Positive = 1e-5
    dropout_rate: Rate | None = None
    scan_layers: bool = False
    remat: Annotated[str, Choice(REMAT)] = "none"
    num_tokens: int = 0
    microbatches: int | None = None
    positions: int = 0

    def setup(self) -> None:
        """Declares the submodules; what a method does not call gets no parameters."""
        self.embeddings = Embeddings(
            self.features, self.num_tokens, self.max_positions, self.dropout_rate
        )
        layers = _layers(self, pre_norm=True, causal=True)
        if self.scan_layers:
            (self.layers,) = layers
        else:
            self.layer = layers
        self.norm = layer_norm(self.norm_epsilon)
        self.head = _head(self)

    def __call__(self, inputs: Num[Array, "n positions *channels"], train: bool = False) -> Array:
        """Maps sequences to outputs: one row each, or one at each position."""
        x = self.states(inputs, train)
        if self.positions:
            of_tokens = self.num_tokens and self.num_outputs == self.num_tokens
            return self.next_scores(x) if of_tokens else self.head(x, train)
        if not self.num_tokens:
            return self.head(x[:, -1], train)
        last = jnp.maximum(lengths_of(inputs) - 1, 0)
        return self.head(jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0], train)

    def logits(
        self, tokens: Int[Array, "n positions"], train: bool = False
    ) -> Float[Array, "n positions num_tokens"]:
        """Scores each token of the vocabulary as the one after each position."""
        return self.scores(self.states(tokens, train))

    def scores(self, states: Float[Array, "*shape features"]) -> Float[Array, "*shape num_tokens"]:
        """Scores each token of the vocabulary as the one after each of the last layer's vectors.

        The output matrix is the token embedding. Press and Wolf, "Using the output embedding to
        improve language models", 2017.
        """
        return self.embeddings.scores(states)

    def next_scores(
        self, states: Float[Array, "*shape features"]
    ) -> Float[Array, "*shape num_tokens"]:
        """Scores each token as `scores` does, but padding, which is no text, as the worst of them.

        Its vector, which a pretrained vocabulary may not have, then says nothing: with zeros it
        would outdo tokens whose scores are all below 0.
        """
        found = self.scores(states)
        worst = lax.stop_gradient(found[..., 1:].min(axis=-1, keepdims=True))
        return jnp.concatenate([worst, found[..., 1:]], axis=-1)

    def states(
        self,
        inputs: Num[Array, "n positions *channels"],
        train: bool = False,
        positions: Int[Array, "n positions"] | None = None,
        mask: Bool[Array, "n 1 positions slots"] | None = None,
    ) -> Float[Array, "n positions features"]:
        """Maps sequences to what the last layer makes of each position, normalised.

        Args:
          inputs: token ids or numbers.
          train: whether dropout is on.
          positions, mask: with a cache (`jdlopt.models.generate`), where in their sequences these
            tokens stand, and which slots of the cache each of them sees.
        """
        x = self.embeddings(inputs, train, positions=positions)
        layers, real = self.layers if self.scan_layers else self.layer, None
        if self.num_tokens and mask is None:
            real = jnp.arange(inputs.shape[1]) < lengths_of(inputs)[:, None]
        count, cut = self.num_layers, self.microbatches
        return self.norm(run_layers(layers, count, x, train, mask, positions, real, cut))


def sizes_of(model: TransformerEncoder | TransformerDecoder) -> LayerSizes:
    """Returns the sizes of a model's layers."""
    return LayerSizes(*(getattr(model, key) for key in LayerSizes._fields))


def _layers(
    model: TransformerEncoder | TransformerDecoder, pre_norm: bool, causal: bool = False
) -> list[nn.Module]:
    return make_layers(
        sizes_of(model),
        model.remat,
        activation=model.activation,
        norm_epsilon=model.norm_epsilon,
        dropout_rate=model.dropout_rate,
        pre_norm=pre_norm,
        causal=causal,
        mixture=mixture_of(model),
    )


def _head(model: TransformerEncoder | TransformerDecoder) -> Head:
    return Head(model.num_outputs, (), model.activation, "glorot_uniform")
