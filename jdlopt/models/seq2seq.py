"""An encoder-decoder transformer: it reads one sequence of tokens and writes another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from jdlopt.config import Choice, Count, NonNegative, Positive, Rate, Scalar
from jdlopt.data.named import DECODER_INPUT, INPUT
from jdlopt.errors import ConfigError
from jdlopt.models.attention import (
    Attention,
    FeedForward,
    LayerSizes,
    attend,
    make_layers,
    run_layers,
)
from jdlopt.models.axes import BATCH, HEADS, POSITIONS, named
from jdlopt.models.layers import (
    ACTIVATIONS,
    INITIALIZERS,
    REMAT,
    Dropout,
    Head,
    layer_norm,
    rematerialised,
)
from jdlopt.models.transformer import Embeddings

SHARED = ("none", "decoder", "all")
"""Which of the embeddings are one matrix."""
DECODER_MASK = "decoder_mask"
"""The input that says which places of the target are written, the one in `DECODER_INPUT` the last:
the model then takes that one token alone, and what came before from its collections."""
CACHE, MEMORY = "cache", "memory"
"""Collections of what is kept while a target is written: keys and values of the tokens so far, and
of the source."""

_INIT = INITIALIZERS["glorot_uniform"]


class CrossAttention(nn.Module):
    """Attention of a sequence to another one, which its keys and values are of."""

    num_heads: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n queries features"],
        memory: Float[Array, "n keys features"] | None,
        mask: Bool[Array, "n 1 1 keys"],
        keep: bool,
    ) -> Float[Array, "n queries features"]:
        """Mixes into each position what it finds in the other sequence.

        Args:
          x: the sequence that asks.
          memory: the other one; None: its keys and values are in the collection `MEMORY`.
          mask: which of its positions are seen.
          keep: whether these are put into, or taken from, that collection.
        """
        heads = (self.num_heads, x.shape[-1] // self.num_heads)

        def projected(name: str, of: Array) -> Array:
            made = nn.Dense(x.shape[-1], kernel_init=_INIT, name=name)(of)
            return made.reshape(*of.shape[:2], *heads)

        def of_memory(name: str) -> Array:
            def made() -> Array:
                assert memory is not None
                return projected(name, memory)

            return self.variable(MEMORY, f"{name}s", made).value if keep else made()

        query = named(projected("query", x), (BATCH, POSITIONS, HEADS, None))
        key, value = (
            named(of_memory(name), (BATCH, None, HEADS, None)) for name in ("key", "value")
        )
        mixed = attend(query, key, value, mask)
        mixed = named(mixed, (BATCH, POSITIONS, HEADS, None)).reshape(x.shape)
        return nn.Dense(x.shape[-1], kernel_init=_INIT, name="out")(mixed)


class DecoderLayer(nn.Module):
    """Attention to what is written, to the source, and a feed-forward network; pre-norm."""

    num_heads: int
    mlp_features: int
    activation: str
    norm_epsilon: Scalar
    dropout_rate: Scalar | None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n positions features"],
        train: bool,
        memory: Float[Array, "n keys features"] | None,
        seen: Bool[Array, "n 1 1 keys"],
        mask: Bool[Array, "n 1 positions slots"] | None = None,
        slots: Int[Array, "n positions"] | None = None,
    ) -> Float[Array, "n positions features"]:
        """Maps what is written to a sequence of the same shape.

        Args:
          x: of the target.
          train: whether dropout is on.
          memory, seen: of the source; as in `CrossAttention`.
          mask, slots: as in `jdlopt.models.attention.Attention`.
        """
        attention = Attention(self.num_heads, True, name="attention")
        cross = CrossAttention(self.num_heads, name="cross_attention")
        mlp = FeedForward(self.mlp_features, self.activation, name="mlp")
        parts: tuple[Callable[[Array], Array], ...] = (
            lambda x: attention(x, mask, slots),
            lambda x: cross(x, memory, seen, slots is not None),
            mlp,
        )
        x = named(x, (BATCH, POSITIONS, None))
        for index, part in enumerate(parts):
            norm = layer_norm(self.norm_epsilon, name=f"norm_{index}")
            x = x + Dropout(self.dropout_rate, name=f"dropout_{index}")(part(norm(x)), train)
        return named(x, (BATCH, POSITIONS, None))


class TransformerSeq2Seq(nn.Module):
    """Encoder layers over a source, decoder layers over a target that attend to it; pre-norm.

    Vaswani et al., "Attention is all you need", 2017; layer normalisation before each part, as in
    Xiong et al., "On layer normalization in the transformer architecture", 2020. The source is
    token ids, of which 0 is padding that nothing sees. While training the decoder is given the
    target's own tokens, each position the one before it; ``jdlopt predict`` has it write a target
    token by token (`jdlopt.models.beam`), keeping the ``beam_width`` best at each step, by their
    log-probability over their length to the power of ``length_penalty``; a width of 1 is greedy.
    """

    num_outputs: int
    features: Count = 128
    num_layers: Count = 2
    decoder_layers: Count | None = None
    num_heads: Count = 4
    mlp_features: Count | None = None
    share_embeddings: Annotated[str, Choice(SHARED)] = "decoder"
    max_positions: Count = 512
    activation: Annotated[str, Choice(ACTIVATIONS)] = "gelu"
    norm_epsilon: Positive = 1e-5
    dropout_rate: Rate | None = None
    remat: Annotated[str, Choice(REMAT)] = "none"
    beam_width: Count = 1
    length_penalty: NonNegative = 1.0
    num_tokens: int = 0
    positions: int = 0
    target_inputs: tuple[str, ...] = ()

    def setup(self) -> None:
        """Declares the submodules."""
        self._check()
        width = self.mlp_features or 4 * self.features
        others = (self.max_positions, self.dropout_rate)
        self.source_embeddings = Embeddings(self.features, self.num_tokens, *others)
        if self.share_embeddings != "all":
            self.target_embeddings = Embeddings(self.features, self.num_outputs, *others)
        sizes = LayerSizes(
            self.features, self.num_layers, self.num_heads, width, None, None, None, False
        )
        self.encoder_layer = make_layers(
            sizes,
            self.remat,
            activation=self.activation,
            norm_epsilon=self.norm_epsilon,
            dropout_rate=self.dropout_rate,
            pre_norm=True,
        )
        layer = rematerialised(DecoderLayer, self.remat)
        self.decoder_layer = [
            layer(self.num_heads, width, self.activation, self.norm_epsilon, self.dropout_rate)
            for _ in range(self.decoder_layers or self.num_layers)
        ]
        self.encoder_norm = layer_norm(self.norm_epsilon)
        self.norm = layer_norm(self.norm_epsilon)
        if self.share_embeddings == "none":
            self.head = Head(self.num_outputs, (), self.activation, "glorot_uniform")

    def _check(self) -> None:
        """Raises a `ConfigError` for what the model can't be."""
        if not self.num_tokens or self.target_inputs != (DECODER_INPUT,):
            raise ConfigError(
                "model.name: 'transformer_seq2seq' reads a text and writes one: it is for "
                "data.task='seq2seq'."
            )
        if self.share_embeddings == "all" and self.num_tokens != self.num_outputs:
            raise ConfigError(
                f"model.share_embeddings: 'all' needs one vocabulary of sources and targets; they "
                f"have {self.num_tokens:,} and {self.num_outputs:,} tokens. Give data.text and "
                "data.target_text one tokenizer.json, or take 'decoder'."
            )

    def __call__(
        self, inputs: Mapping[str, Array], train: bool = False
    ) -> Float[Array, "n positions num_outputs"]:
        """Scores every token of the targets' vocabulary at each position of the decoder's input.

        Args:
          inputs: ``input``, the source; ``decoder_input``, the tokens before each position; and
            where a target is being written, `DECODER_MASK`.
          train: whether dropout is on.
        """
        given, written = inputs[DECODER_INPUT], inputs.get(DECODER_MASK)
        mask, slots = None, None
        if written is not None:
            mask, slots = written[:, None, None, :], written.sum(axis=1)[:, None] - 1
        memory, seen = self._read(inputs.get(INPUT), train, written is not None)
        shared = self.share_embeddings == "all"
        embeddings = self.source_embeddings if shared else self.target_embeddings
        x = embeddings(given, train, positions=slots)
        for layer in self.decoder_layer:
            x = layer(x, train, memory, seen, mask, slots)
        x = self.norm(x)
        return self.head(x, train) if self.share_embeddings == "none" else embeddings.scores(x)

    def _read(
        self, source: Int[Array, "n positions"] | None, train: bool, keep: bool
    ) -> tuple[Float[Array, "n positions features"] | None, Bool[Array, "n 1 1 positions"]]:
        """Encodes the source; while a target is written, once: then the layers have kept it."""
        if keep and self.has_variable(MEMORY, "seen"):
            return None, self.get_variable(MEMORY, "seen")
        assert source is not None
        real = source != 0
        seen = real[:, None, None, :]
        if keep:
            self.put_variable(MEMORY, "seen", seen)
        x = self.source_embeddings(source, train)
        x = run_layers(self.encoder_layer, self.num_layers, x, train, seen, real=real)
        return self.encoder_norm(x), seen
