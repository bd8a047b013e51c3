"""Metrics that are exact over a whole split, whatever its batches, padding and devices.

The device collects little per batch (`Collector.collect`, pure); the host computes in float64 from
what all batches gave (`Collector.finish`). Counts are added; the rest is kept per example, so that
an order of summation never shows in a result.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import chex
import numpy as np
from jaxtyping import Array, Float, Num

from jdlopt.config import find_part
from jdlopt.data.decision import USUAL, Decision
from jdlopt.errors import ConfigError, listing
from jdlopt.metrics import entities, masks, pairs, scores, texts, tokens, transcripts
from jdlopt.metrics.leaves import Batch, Leaf, leaf_of
from jdlopt.metrics.scores import Split, Value

MANY_CLASSES = 100
"""Beyond this, `all_metrics` leaves out what grows with the square of the classes, or with classes
times examples."""
LISTED_CLASSES = 1000
"""Beyond this, it leaves out the lists of all classes, too."""

Collected = Mapping[str, Any]


class Metric(NamedTuple):
    """One metric: what it collects, how it computes, and which way is better.

    Attributes:
      leaves: names in `jdlopt.metrics.leaves.LEAVES`.
      compute: the value, from the whole split.
      tasks: the tasks that it measures, by name; empty: any.
      higher_is_better: None where the value is not one number.
      several: whether it says something only where a target holds several numbers.
      needs: what a split must have for it, else it is NaN: `EACH_CLASS`, `TWO_EXAMPLES` or nothing.
      library: what must be installed for it beside jdlopt, if anything.
    """

    leaves: tuple[str, ...]
    compute: Callable[[Split], Value]
    tasks: tuple[str, ...]
    higher_is_better: bool | None
    several: bool = False
    needs: str = ""
    library: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether it can be computed here."""
        return not self.library or importlib.util.find_spec(self.library) is not None


EACH_CLASS, TWO_EXAMPLES = "examples of each class and of others", "two examples"
_ONE, _ANY, _BOTH = ("classification",), ("multilabel",), ("classification", "multilabel")
_TAGS, _NEXT = ("token_classification",), ("next_token",)


def _of_classes(
    leaves: tuple[str, ...],
    compute: Callable[[Split], Value],
    up: bool | None = True,
    tasks: tuple[str, ...] = _ONE,
) -> Metric:
    return Metric(leaves, compute, tasks, up)


def _of_values(compute: Callable[[Split], Value], up: bool | None = False) -> Metric:
    return Metric(("outputs", "targets"), compute, ("regression",), up, several=up is None)


def _of_masks(compute: Callable[[Split], Value], up: bool | None = True) -> Metric:
    return Metric(("pixels",), compute, ("segmentation",), up)


def _of_texts(compute: Callable[[Split], Value], library: str = "") -> Metric:
    return Metric(("written", "targets"), compute, ("seq2seq",), True, library=library)


def _of_transcripts(compute: Callable[[Split], Value]) -> Metric:
    return Metric(("path", "symbols"), compute, ("transcription",), False)


def _of_pairs(compute: Callable[[Split], float]) -> Metric:
    return Metric(("embeddings", "together"), compute, ("pairs",), True)


def _top_k_accuracy(k: int) -> Metric:
    leaf = f"top_{k}"
    return _of_classes((leaf,), lambda split: split.leaves[leaf] / split.size)


_PAIR = ("classes", "predicted")
_SCORED = ("classes", "probabilities")

METRICS: dict[str, Metric] = {
    "loss": Metric(
        ("loss",), lambda split: float(split.leaves["loss"].mean(dtype=np.float64)), (), False
    ),
    "accuracy": _of_classes(("correct",), lambda split: split.leaves["correct"] / split.size),
    "top_5_accuracy": _top_k_accuracy(5),
    "balanced_accuracy": _of_classes(_PAIR, scores.balanced_accuracy),
    "subset_accuracy": _of_classes(
        ("exact",), lambda split: split.leaves["exact"] / split.size, tasks=_ANY
    ),
    "hamming_loss": _of_classes(
        ("wrong_labels",),
        lambda split: split.leaves["wrong_labels"] / (split.size * split.num_classes),
        False,
        _ANY,
    ),
    "precision": _of_classes(_PAIR, scores.of_positive(scores.precision)),
    "recall": _of_classes(_PAIR, scores.of_positive(scores.recall)),
    "f1": _of_classes(_PAIR, scores.of_positive(scores.f1)),
    **{
        f"{name}_{average}": _of_classes(
            _PAIR, scores.averaged(score, average), None if tasks != _BOTH else True, tasks
        )
        for name, score in {
            "precision": scores.precision,
            "recall": scores.recall,
            "f1": scores.f1,
        }.items()
        for average, tasks in {
            "macro": _BOTH,
            "micro": _BOTH,
            "per_class": _ONE,
            "per_label": _ANY,
        }.items()
    },
    "roc_auc": _of_classes(
        _SCORED, lambda split: scores.one_vs_rest(scores.binary_roc_auc, split), tasks=_BOTH
    )._replace(needs=EACH_CLASS),
    "average_precision": _of_classes(
        _SCORED,
        lambda split: scores.one_vs_rest(scores.binary_average_precision, split),
        tasks=_BOTH,
    ),
    "label_ranking_average_precision": _of_classes(
        _SCORED, scores.label_ranking_average_precision, tasks=_ANY
    ),
    "confusion_matrix": _of_classes(_PAIR, lambda split: scores.confusion(split).tolist(), None),
    "log_loss": _of_classes(("at_target",), scores.log_loss, False),
    "expected_calibration_error": _of_classes(
        ("classes", "likeliest", "confidence"), scores.expected_calibration_error, False
    ),
    "mse": _of_values(scores.mean_of(scores.mse)),
    "rmse": _of_values(scores.mean_of(scores.rmse)),
    "mae": _of_values(scores.mean_of(scores.mae)),
    "r2": _of_values(scores.mean_of(scores.r2), True)._replace(needs=TWO_EXAMPLES),
    "wer": _of_transcripts(transcripts.word_error_rate),
    "cer": _of_transcripts(transcripts.character_error_rate),
    "rmse_per_output": _of_values(scores.each_of(scores.rmse), None),
    "mae_per_output": _of_values(scores.each_of(scores.mae), None),
    "r2_per_output": _of_values(scores.each_of(scores.r2), None)._replace(needs=TWO_EXAMPLES),
    **{
        f"entity_{name}{each}": _of_classes(("entities",), of(score), up, _TAGS)
        for name, score in entities.SCORES.items()
        for each, of, up in (
            ("", entities.of_all, True),
            ("_per_kind", entities.of_each_kind, None),
        )
    },
    "token_accuracy": _of_classes(
        ("tokens",), entities.token_accuracy, tasks=(*_TAGS, *_NEXT, "seq2seq")
    ),
    "perplexity": _of_classes(("nats", "targets"), tokens.perplexity, False, _NEXT),
    "bits_per_byte": _of_classes(("nats", "targets"), tokens.bits_per_byte, False, _NEXT),
    "mean_iou": _of_masks(masks.mean_iou),
    "dice": _of_masks(masks.mean_dice),
    "pixel_accuracy": _of_masks(masks.pixel_accuracy),
    "iou_per_class": _of_masks(masks.iou_per_class, None),
    "exact_match": _of_texts(texts.exact_match),
    "chrf": _of_texts(texts.chrf, texts.LIBRARY),
    "bleu": _of_texts(texts.bleu, texts.LIBRARY),
    "mean_recall": _of_pairs(pairs.mean_recall),
    **{f"recall_at_{k}": _of_pairs(pairs.recall(k)) for k in pairs.AT},
    **{f"reverse_recall_at_{k}": _of_pairs(pairs.recall(k, of_first=True)) for k in pairs.AT},
    "zero_shot_accuracy": _of_pairs(pairs.zero_shot_accuracy),
}
"""Every metric by name; any other ``top_<k>_accuracy`` is known as well.

Classification takes the predicted class from the probabilities (the first of equals, or of two
classes as `jdlopt.data.decision.Decision` says), and a soft target's likeliest class as the true
one. Of labels, those with a probability above their threshold, one half unless a config says
otherwise, are predicted. All equal scikit-learn's functions of the same name:

- ``precision``, ``recall``, ``f1`` are those of the positive class of two (``data.positive``, else
  the later in the order of the class names), and 0 where their denominator is 0; ``macro`` is over
  the classes that occur as a target or a prediction, or over all labels, ``micro`` over all
  decisions together, ``per_class`` and ``per_label`` a list over all; ``balanced_accuracy`` is over
  the classes that occur as a target.
- ``subset_accuracy`` is the share of examples whose labels are all right (scikit-learn's
  ``accuracy_score``), ``hamming_loss`` the share of labels that are wrong.
- ``roc_auc`` and ``average_precision`` score the positive class of two; of more, each class against
  the rest, and each label, averaged. A class without examples makes ``roc_auc`` NaN and counts 0 in
  ``average_precision``.
- ``label_ranking_average_precision`` is the mean share, over an example's labels, of its labels
  among those that are ranked as high; 1 for an example with no label or all of them.
- ``top_<k>_accuracy`` ranks the later of equally likely classes first.
- ``log_loss`` clips probabilities to ``[eps, 1 - eps]`` of their own type.
- ``mse``, ``rmse``, ``mae``, ``r2`` of several outputs are the mean of each output's, which
  ``…_per_output`` lists; ``r2`` of a constant target is 1 if predicted exactly and else 0, and of
  fewer than two examples NaN.
- ``mean_iou`` and ``dice`` of masks are scikit-learn's ``jaccard_score`` and ``f1_score`` over the
  pixels of a whole split that are not void, their ``macro`` mean over the classes that occur as a
  target or a prediction; ``iou_per_class`` lists the first of all classes.
- ``recall_at_<k>`` of pairs is the share of examples by whose first input one of their own seconds
  is among the k nearest of the split, ``reverse_recall_at_<k>`` the same the other way round, and
  ``mean_recall`` the mean of all six. What belongs together is right; ties count against it.
  ``zero_shot_accuracy`` takes what belongs together for a class (`jdlopt.metrics.pairs`).

``entity_precision``, ``entity_recall`` and ``entity_f1`` are of the entities of all sentences
together (``conlleval``, and ``seqeval`` as it is by default), ``…_per_kind`` lists those of each
kind; ``token_accuracy`` is the share of words with the right tag, and of ``seq2seq`` that of tokens
that are the likeliest after those of the target before them.

``exact_match``, ``chrf`` and ``bleu`` are of texts that are written from the inputs alone, which
takes a step of the decoder for each token: evaluations during training measure them only where
``train.metrics`` or ``train.monitor`` names them, the one at the end always. ``chrf`` and ``bleu``
are sacrebleu's (``pip install 'jdlopt[seq2seq]'``), from 0 to 100; without it they are left out.

``wer`` and ``cer`` are the insertions, deletions and substitutions of words and characters that
make the texts of the likeliest classes of all steps of what is said, by the words or characters of
the latter; they may exceed 1. They equal jiwer's.

``perplexity`` is of the next token, ``bits_per_byte`` of the bytes of UTF-8 that the tokens are;
both are of all tokens of a split together. There ``token_accuracy`` is the share of tokens that are
the likeliest.

``expected_calibration_error`` has `CALIBRATION_BINS` equal-width bins, closed on the right, of the
predicted class's probability (Guo et al., 2017, https://arxiv.org/abs/1706.04599).
"""

OF_TWO = ("precision", "recall", "f1")
"""Metrics of the positive class of two."""
_TOP_K = re.compile(r"top_([1-9][0-9]*)_accuracy")


def find_metric(name: str) -> Metric:
    """Returns the metric of a name, or the `Metric` that ``package.module:NAME`` means.

    Raises:
      ConfigError: there is none, with the nearest known name.
    """
    match = _TOP_K.fullmatch(name)
    if match is not None and name not in METRICS:
        return _top_k_accuracy(int(match[1]))
    metric = find_part(name, METRICS, "metric", Metric, or_function=False)
    assert isinstance(metric, Metric)
    return metric


def higher_is_better(name: str) -> bool:
    """Returns whether a larger value of a metric is the better one.

    Raises:
      ConfigError: the metric is unknown, or not one number, so that it can't be monitored.

    Example:
      >>> higher_is_better("accuracy"), higher_is_better("loss")
      (True, False)
    """
    better = find_metric(name).higher_is_better
    if better is None:
        scalars = [
            known for known, metric in METRICS.items() if metric.higher_is_better is not None
        ]
        raise ConfigError(
            f"metric {name!r} is not one number, so no run can be better by it; "
            f"choose from: {listing(scalars, 40)}."
        )
    return better


def all_metrics(task: str, size: int) -> tuple[str, ...]:
    """Returns what a final evaluation reports, beside the loss.

    Top-5 accuracy needs more than 5 classes to say anything; with more than `MANY_CLASSES`, the
    confusion matrix and the metrics that keep every probability are left out, with more than
    `LISTED_CLASSES` the lists by class, too.

    Args:
      task: its name.
      size: the number of classes or labels, or of the numbers of a target.
    """
    too_large = {
        "confusion_matrix", "roc_auc", "average_precision", "label_ranking_average_precision",
    }  # fmt: skip
    return tuple(
        name
        for name, metric in METRICS.items()
        if task in metric.tasks
        and not (name == "top_5_accuracy" and size <= 5)
        and not (name in OF_TWO and size != 2)
        and not (name in too_large and size > MANY_CLASSES)
        and not (name.endswith(("_per_class", "_per_label")) and size > LISTED_CLASSES)
        and not (metric.several and size <= 1)
        and metric.is_installed
    )


# --- the collector --------------------------------------------------------------------------------


class Collector(NamedTuple):
    """Metrics as two functions: one per batch on the device, one per split on the host.

    Attributes:
      collect: ``(outputs, probabilities, targets, weights, per_example_loss, written) → leaves``,
        pure; weights are 1 for an example and 0 for padding, probabilities None for a regression;
        ``written`` computes the targets that a model writes from the inputs alone, or is None.
      finish: the leaves of all batches, in any order of batches → values by name,
        ``"loss"`` (the mean per-example loss) first. A batch may itself be several, stacked along
        leading axes.
      gathered: the leaves with a leading axis of examples; the others are counts, which are added.
    """

    collect: Callable[..., dict[str, Array]]
    finish: Callable[[Iterable[Collected]], dict[str, Value]]
    gathered: frozenset[str]


def make_collector(
    names: Iterable[str],
    task: str,
    num_classes: int,
    decision: Decision = USUAL,
    class_names: tuple[str, ...] = (),
    told: Callable[[np.ndarray], list[str]] | None = None,
) -> Collector:
    """Returns the collector of some metrics.

    Args:
      names: keys of `METRICS`, or ``top_<k>_accuracy``.
      task: its name.
      num_classes: the number of classes or labels; not used for a regression.
      decision: which class or labels probabilities mean.
      class_names: of the classes or labels, where metrics are of what they spell.
      told: targets, or what is written in their place → texts, where metrics are of texts.

    Raises:
      ConfigError: a metric is unknown, is for the other task, or can say nothing.

    Example:
      >>> collector = make_collector(["accuracy"], "classification", 2)
      >>> import jax.numpy as jnp
      >>> probabilities = jnp.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
      >>> loss, weights = jnp.array([0.1, 1.6, 9.9]), jnp.array([1.0, 1.0, 0.0])
      >>> targets = jnp.array([0, 0, 0])
      >>> leaves = collector.collect(probabilities, probabilities, targets, weights, loss)
      >>> collector.finish([leaves])["accuracy"]
      0.5
    """
    metrics = {name: find_metric(name) for name in ("loss", *names)}
    for name, metric in metrics.items():
        if metric.tasks and task not in metric.tasks:
            raise ConfigError(
                f"metric {name!r} is for {' and '.join(metric.tasks)}, but the task is {task}; "
                f"choose from: {listing(all_metrics(task, num_classes), 40)}."
            )
        if not metric.is_installed:
            raise ConfigError(
                f"metric {name!r}: needs {metric.library}, which is not installed: "
                "pip install 'jdlopt[seq2seq]'."
            )
        match = _TOP_K.fullmatch(name)
        if name in OF_TWO and num_classes != 2:
            raise ConfigError(
                f"metric {name!r} is of a positive class among two; there are {num_classes}: take "
                f"{name}_macro or {name}_per_class."
            )
        if match and int(match[1]) >= num_classes:
            raise ConfigError(f"metric {name!r} of {num_classes} classes is always 1.")
    wanted = ["real", *(leaf for metric in metrics.values() for leaf in metric.leaves)]
    leaves = {name: leaf_of(name, task) for name in dict.fromkeys(wanted)}

    def collect(
        outputs: Float[Array, "n *positions outputs"],
        probabilities: Float[Array, "n *positions classes"] | None,
        targets: Num[Array, "n *outputs_or_positions"],
        weights: Num[Array, "n"],
        per_example_loss: Float[Array, "n"],
        written: Callable[[], Array] | None = None,
    ) -> dict[str, Array]:
        each = [outputs, targets, weights, per_example_loss]
        chex.assert_equal_shape_prefix(each, 1, custom_message="metrics are of one batch")
        chex.assert_rank(
            [weights, per_example_loss], 1, custom_message="an example has one weight and one loss"
        )
        real = weights > 0
        batch = Batch(outputs, probabilities, targets, real, per_example_loss, decision, written)
        return {name: leaf.collect(batch) for name, leaf in leaves.items()}

    def finish(batches: Iterable[Collected]) -> dict[str, Value]:
        batches = list(batches)
        joined = {
            name: _joined([np.asarray(batch[name]) for batch in batches], leaf)
            for name, leaf in leaves.items()
        }
        real = joined["real"]
        kept = {
            name: joined[name] if leaf.added else joined[name][real]
            for name, leaf in leaves.items()
        }
        split = Split(int(real.sum()), num_classes, kept, decision.positive, class_names, told)
        if split.size == 0:
            raise ValueError("metrics of no example: every weight was 0")
        return {name: metric.compute(split) for name, metric in metrics.items()}

    gathered = frozenset(name for name, leaf in leaves.items() if not leaf.added)
    return Collector(collect, finish, gathered)


def _joined(arrays: list[np.ndarray], leaf: Leaf) -> Any:
    """Adds counts; joins per-example arrays along the examples, whatever was stacked on top."""
    if leaf.rank == 0:
        return sum(int(np.sum(array, dtype=np.int64)) for array in arrays)
    kept = leaf.rank if leaf.added else leaf.rank - 1
    trailing = arrays[0].shape[-kept:] if kept else ()
    joined = np.concatenate([array.reshape(-1, *trailing) for array in arrays])
    if not leaf.added:
        return joined
    return joined.sum(axis=0, dtype=np.float64 if joined.dtype.kind == "f" else np.int64)
