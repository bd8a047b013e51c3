"""What metrics collect on the device from one padded batch: counts, and arrays per example."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from jdlopt.data.decision import USUAL, Decision
from jdlopt.errors import ConfigError, listing, nearest
from jdlopt.metrics import entities, tokens


class Batch(NamedTuple):
    """What one padded batch offers to collect from."""

    outputs: Float[Array, "n *positions outputs"]
    probabilities: Float[Array, "n *positions classes"] | None
    targets: Num[Array, "n *outputs_or_positions"]
    real: Bool[Array, "n"]
    per_example_loss: Float[Array, "n"]
    decision: Decision = USUAL
    written: Callable[[], Int[Array, "n length"]] | None = None


class Leaf(NamedTuple):
    """One collected array: counts that are added over batches, or a row of each example.

    Attributes:
      collect: computes it of a batch; counts leave out padding (``real`` is False).
      rank: of what it computes.
      counts: whether these are counts, of any rank; a leaf of rank 0 always is.
    """

    collect: Callable[[Batch], Array]
    rank: int
    counts: bool = False

    @property
    def added(self) -> bool:
        """Whether batches are added, rather than joined."""
        return self.counts or self.rank == 0


def _probabilities(batch: Batch) -> Float[Array, "n *positions classes"]:
    if batch.probabilities is None:
        raise ValueError("a classification metric needs probabilities, found None")
    values = batch.probabilities
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _likeliest(batch: Batch) -> Int[Array, "n"]:
    return jnp.argmax(_probabilities(batch), axis=-1).astype(jnp.int32)


def _predicted(batch: Batch) -> Int[Array, "n"]:
    """Returns the likeliest class, or of two the one that a threshold decides for."""
    return batch.decision.classes(_probabilities(batch)).astype(jnp.int32)


def _classes(batch: Batch) -> Int[Array, "n"]:
    """Returns targets as class indices: of a soft target, the likeliest class."""
    targets = batch.targets
    if targets.ndim == 2:
        targets = jnp.argmax(targets, axis=-1) if targets.shape[-1] > 1 else targets[:, 0]
    return jnp.round(targets).astype(jnp.int32)


def _at_target(batch: Batch) -> Float[Array, "n"]:
    chosen = _classes(batch)[:, None]
    return jnp.take_along_axis(_probabilities(batch), chosen, axis=-1)[:, 0]


def _count(hits: Bool[Array, "n ..."], batch: Batch) -> Int[Array, ""]:
    return jnp.sum(hits & batch.real, dtype=jnp.int32)


def top_k(k: int) -> Leaf:
    """Returns the count of targets among the k likeliest classes, the later of equals first."""

    def collect(batch: Batch) -> Int[Array, ""]:
        scores, target = _probabilities(batch), _classes(batch)[:, None]
        mine = jnp.take_along_axis(scores, target, axis=-1)
        later = jnp.arange(scores.shape[-1]) > target
        # Put as what is not behind, so that NaN scores are never hits.
        ahead = ~((scores < mine) | ((scores == mine) & ~later))
        return _count(ahead.sum(axis=-1) < k, batch)

    return Leaf(collect, 0)


def _columns(values: Array) -> Float[Array, "n outputs"]:
    columns = values[:, None] if values.ndim == 1 else values
    return columns.astype(jnp.promote_types(values.dtype, jnp.float32))


def _labels(batch: Batch) -> Bool[Array, "n labels"]:
    """Returns which labels are there: of soft targets, those of at least one half."""
    return batch.targets >= 0.5


def _predicted_labels(batch: Batch) -> Bool[Array, "n labels"]:
    return batch.decision.labels(_probabilities(batch))


def _wrong_labels(batch: Batch) -> Int[Array, ""]:
    wrong = _predicted_labels(batch) != _labels(batch)
    return _count(wrong, batch._replace(real=batch.real[:, None]))


def _exact(batch: Batch) -> Int[Array, ""]:
    return _count((_predicted_labels(batch) == _labels(batch)).all(axis=-1), batch)


def _entities(batch: Batch) -> Int[Array, "kinds 3"]:
    kinds = (batch.outputs.shape[-1] - 1) // 2
    return entities.counted(batch.outputs.argmax(-1), batch.targets, batch.real, kinds)


def _pixels(batch: Batch) -> Int[Array, "classes classes"]:
    """Counts pixels by true class (row) and predicted class (column); void ones are none.

    An example's counts are a product of one-hot rows in float32, exact below 2²⁴ pixels.
    """
    probabilities = _probabilities(batch)
    classes, n = probabilities.shape[-1], len(probabilities)
    truth = jnp.where(batch.real[:, None], batch.targets.reshape(n, -1), -1)
    found = probabilities.argmax(-1).reshape(n, -1)
    rows, columns = (jax.nn.one_hot(one, classes, dtype=jnp.float32) for one in (truth, found))
    pairs = jnp.einsum("npt,npf->ntf", rows, columns, precision=jax.lax.Precision.HIGHEST)
    return pairs.astype(jnp.int32).sum(axis=0)


def _written(batch: Batch) -> Int[Array, "n length"]:
    if batch.written is None:
        raise ValueError("a metric needs what a model writes, found None")
    return batch.written()


_TOKENS = Leaf(
    lambda batch: entities.tokens_right(batch.outputs, batch.targets, batch.real), 1, True
)


LEAVES: dict[str, Leaf] = {
    "real": Leaf(lambda batch: batch.real, 1),
    "loss": Leaf(lambda batch: batch.per_example_loss, 1),
    "outputs": Leaf(lambda batch: _columns(batch.outputs), 2),
    "targets": Leaf(lambda batch: _columns(batch.targets), 2),
    "probabilities": Leaf(_probabilities, 2),
}
"""Everything that a metric of any task may ask for; each is collected once, however many metrics
share it."""

LEAVES_OF: dict[str, dict[str, Leaf]] = {
    "classification": {
        "correct": Leaf(lambda batch: _count(_predicted(batch) == _classes(batch), batch), 0),
        "predicted": Leaf(_predicted, 1),
        "likeliest": Leaf(_likeliest, 1),
        "classes": Leaf(_classes, 1),
        "confidence": Leaf(lambda batch: _probabilities(batch).max(axis=-1), 1),
        "at_target": Leaf(_at_target, 1),
    },
    "multilabel": {
        "exact": Leaf(_exact, 0),
        "wrong_labels": Leaf(_wrong_labels, 0),
        "predicted": Leaf(_predicted_labels, 2),
        "classes": Leaf(_labels, 2),
    },
    "token_classification": {
        "entities": Leaf(_entities, 2, counts=True),
        "tokens": _TOKENS,
    },
    "seq2seq": {
        "tokens": _TOKENS,
        "written": Leaf(_written, 2),
        "targets": Leaf(lambda batch: batch.targets, 2),
    },
    "segmentation": {"pixels": Leaf(_pixels, 2, counts=True)},
    "transcription": {
        "path": Leaf(lambda batch: jnp.argmax(batch.outputs, axis=-1).astype(jnp.int32), 2),
        "symbols": Leaf(lambda batch: batch.targets.astype(jnp.int32), 2),
    },
    "pairs": {
        "embeddings": Leaf(lambda batch: batch.outputs, 2),
        "together": Leaf(lambda batch: batch.targets, 1),
    },
    "next_token": {
        "nats": Leaf(lambda batch: tokens.nats(batch.outputs, batch.targets, batch.real), 1),
        "targets": Leaf(
            lambda batch: tokens.counts(batch.targets, batch.real, batch.outputs.shape[-1]), 1, True
        ),
        "tokens": _TOKENS,
    },
}
"""What the metrics of one task may ask for beside them: ``classes`` and ``predicted`` are the
numbers of classes [n], or which labels there are [n, labels]; ``likeliest`` is the class of the
largest probability, whatever threshold decides. Of a transcription, ``path`` is the likeliest class
of each step [n, steps], and ``symbols`` what is said [n, symbols]."""


def leaf_of(name: str, task: str) -> Leaf:
    """Returns the leaf of a name for a task, or the count of hits among the ``top_<k>``.

    Raises:
      ConfigError: there is none.
    """
    known = {**LEAVES, **LEAVES_OF.get(task, {})}
    if name in known:
        return known[name]
    if not re.fullmatch(r"top_[1-9][0-9]*", name):
        raise ConfigError(
            f"a metric asks for {name!r}, which {task} does not collect.{nearest(name, known)} "
            f"Known: {listing(known)}."
        )
    return top_k(int(name.removeprefix("top_")))
