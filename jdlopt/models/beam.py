"""Writing sequences with a model that scores the next token: greedy, or the best of a beam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jdlopt.config import Scalar
from jdlopt.data.coding import END, PAD
from jdlopt.data.named import DECODER_INPUT, INPUT
from jdlopt.models.bridge import Model
from jdlopt.models.seq2seq import CACHE, DECODER_MASK, MEMORY

_NEVER = -1e9
"""The log-probability of what can't be."""


class Beams(NamedTuple):
    """Where a search stands, of n sources with k hypotheses each.

    Attributes:
      step: tokens written so far.
      tokens: of the hypotheses that go on, `PAD` where none is written yet.
      scores: their log-probabilities.
      ended: the best of those that have ended; ``ended_scores``: theirs, by length.
      kept: the model's state, of n · k rows.
    """

    step: Int[Array, ""]
    tokens: Int[Array, "n k length"]
    scores: Float[Array, "n k"]
    ended: Int[Array, "n k length"]
    ended_scores: Float[Array, "n k"]
    kept: PyTree


def search(
    model: Model,
    params: PyTree,
    model_state: PyTree,
    source: Int[Array, "n positions"],
    hparams: PyTree,
    *,
    length: int,
    width: int = 1,
    length_penalty: Scalar = 1.0,
) -> Int[Array, "n length"]:
    """Returns the sequence that a model writes for each source: its tokens, `END`, then `PAD`.

    Keys and values of the source and of what is written are computed once and kept. At each step
    the ``width`` best continuations of a source's hypotheses go on, and those among them that end
    are put aside, by their log-probability over length ** length_penalty. A source is done when as
    many have ended as its beam is wide (as in fairseq), all of them when the last is, or after
    ``length`` tokens; where none has ended by then, it is the best of those that go on. With a
    width of 1 this is greedy decoding. Pure; one program per shape: penalties are traced.

    Args:
      model: it takes what `jdlopt.models.seq2seq.TransformerSeq2Seq` does.
      params, model_state, hparams: the model's.
      source: token ids.
      length: tokens that are written at most, `END` among them.
      width: hypotheses of each source.
      length_penalty: 0: short sequences, whose log-probabilities are sums of fewer, win; 1: the
        mean log-probability of a token decides.
    """
    count = len(source)

    def scored(given: Mapping[str, Array], step: Array, kept: PyTree) -> tuple[Array, PyTree]:
        """Log-probabilities of the next token after those that are given, and the state then."""
        rows = len(given[DECODER_INPUT])
        written = jnp.broadcast_to(jnp.arange(length) <= step, (rows, length))
        outputs, kept = model.apply(
            params,
            kept,
            {**given, DECODER_MASK: written},
            hparams,
            key=None,
            train=False,
            updates=(CACHE, MEMORY),
        )
        return jax.nn.log_softmax(outputs[:, 0].astype(jnp.float32)), kept

    def extended(beams: Beams, scores: Float[Array, "n k tokens"], kept: PyTree) -> Beams:
        """The beams with one more token each."""
        tokens = scores.shape[-1]
        totals = (beams.scores[..., None] + scores).reshape(count, -1)
        best, place = lax.top_k(totals, 2 * width)  # at most half of them end
        parent, token = place // tokens, place % tokens
        longer = jnp.take_along_axis(beams.tokens, parent[..., None], axis=1)
        longer = longer.at[:, :, beams.step].set(token)
        ends = token == END
        done = _done(beams)[:, None]
        by_length = best / (beams.step + 1.0) ** length_penalty
        among = ends & (jnp.arange(2 * width) < width) & ~done & (best > _NEVER / 2)
        aside = jnp.concatenate([beams.ended_scores, jnp.where(among, by_length, -jnp.inf)], axis=1)
        ended_scores, chosen = lax.top_k(aside, width)
        ended = jnp.concatenate([beams.ended, longer], axis=1)
        ended = jnp.take_along_axis(ended, chosen[..., None], axis=1)
        going, chosen = lax.top_k(jnp.where(ends, 2 * _NEVER, best), width)
        alive = jnp.take_along_axis(longer, chosen[..., None], axis=1)
        parents = jnp.take_along_axis(parent, chosen, axis=1)
        rows = (jnp.arange(count)[:, None] * width + parents).ravel()
        kept = _each(kept, CACHE, lambda leaf: leaf[rows])
        return Beams(beams.step + 1, alive, going, ended, ended_scores, kept)

    def advanced(beams: Beams) -> Beams:
        last = beams.tokens[:, :, beams.step - 1].reshape(-1, 1)
        scores, kept = scored({DECODER_INPUT: last}, beams.step, beams.kept)
        return extended(beams, scores.reshape(count, width, -1), kept)

    first = jnp.full((count, 1), END, jnp.int32)
    given = {INPUT: source, DECODER_INPUT: first}
    scores, kept = scored(given, jnp.asarray(0), model_state)
    kept = _each(_each(kept, CACHE, _repeated(width)), MEMORY, _repeated(width))
    empty = jnp.full((count, width, length), PAD, jnp.int32)
    alone = jnp.where(jnp.arange(width) == 0, 0.0, _NEVER)  # all hypotheses are one yet
    start = Beams(
        jnp.asarray(0),
        empty,
        jnp.broadcast_to(alone, (count, width)),
        empty,
        jnp.full((count, width), -jnp.inf),
        kept,
    )
    same = jnp.broadcast_to(scores[:, None], (count, width, scores.shape[-1]))
    start = extended(start, same, kept)
    end = lax.while_loop(lambda beams: (beams.step < length) & ~_done(beams).all(), advanced, start)
    some = jnp.isfinite(end.ended_scores[:, :1])
    return jnp.where(some, end.ended[:, 0], end.tokens[:, 0])


def _done(beams: Beams) -> Bool[Array, " n"]:
    """Which sources have as many ended hypotheses as their beam is wide."""
    return jnp.isfinite(beams.ended_scores).all(axis=1)


def _each(state: PyTree, collection: str, change: Callable[[Array], Array]) -> PyTree:
    """A model's state with the arrays of a collection changed, also of an ensemble's members."""

    def changed(path: tuple[object, ...], leaf: Array) -> Array:
        return change(leaf) if jax.tree_util.DictKey(collection) in path else leaf

    return jax.tree_util.tree_map_with_path(changed, state)


def _repeated(times: int) -> Callable[[Array], Array]:
    return lambda leaf: jnp.repeat(leaf, times, axis=0)
