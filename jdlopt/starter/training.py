"""What is chosen whatever the inputs are: splits, the loss, batches, how long, what is best."""

from __future__ import annotations

import math

from jdlopt.starter.facts import Choice, Facts, Search

LOSSES = {
    "classification": "cross_entropy",
    "multilabel": "binary_cross_entropy",
    "regression": "mse",
}
RARE = 0.3
"""A class with less of an equal share is rare: accuracy hardly sees it."""
FEW_ROWS = 2000
"""With fewer training examples, a validation split is small, and luck decides much."""


def batch_size(rows: int, most: int = 256, per_epoch: int = 64) -> int:
    """Returns a power of two, such that an epoch of some rows has dozens of steps.

    Example:
      >>> [batch_size(rows) for rows in (9, 100, 5000, 1_000_000)]
      [8, 16, 64, 256]
    """
    wanted = min(max(16, min(most, rows / per_epoch)), max(1, rows))
    return 2 ** int(math.log2(wanted))


def validation_share(examples: int) -> float:
    """Returns the share of examples for validation: more of few, where luck decides much."""
    return 0.2 if examples < 5 * FEW_ROWS else 0.1


def split(own: tuple[str, ...], share: float) -> list[Choice]:
    """Returns how the examples are split.

    Args:
      own: the splits that the source has itself.
      share: of validation, see `validation_share`.
    """
    made = []
    if "test" not in own:
        why = "for the final figures alone; nothing is chosen by it"
        made.append(Choice("data.test_fraction", 0.2, why))
    if "validation" not in own:
        why = "of the rest: says which epoch, and which config, is best"
        made.append(Choice("data.validation_fraction", share, why))
    return made


def is_rare(facts: Facts) -> bool:
    """Returns whether the rarest class, or label, has a small part of an equal share.

    Example:
      >>> of_classes = Facts("table", 100, "classification", outputs=10, rarest=0.09)
      >>> is_rare(of_classes), is_rare(Facts("table", 100, "classification", 2, rarest=0.09))
      (False, True)
    """
    return facts.rarest * (facts.outputs if facts.task == "classification" else 2) < RARE


def loss(facts: Facts, smoothing: float | None = None) -> list[Choice]:
    """Returns the loss of a task, and what could be chosen instead.

    Args:
      facts: of the data.
      smoothing: of labels, for classes.
    """
    name = LOSSES.get(facts.task)
    if name is None:
        return []
    made = [Choice("loss.name", name)]
    if facts.task == "classification" and smoothing:
        why = "keeps the network from being too sure"
        made.append(Choice("loss.label_smoothing", smoothing, why))
    if facts.task == "regression":
        why = "Where single targets are far off, or wrong, they count less:"
        return [*made, Choice("loss.name", "huber", why, on=False)]
    if is_rare(facts):
        what = "class" if facts.task == "classification" else "label"
        why = (
            f"The rarest {what} has {facts.rarest:.1%} of the examples. If it matters as much as "
            "the others (probabilities are then no longer frequencies):"
        )
        made.append(Choice("loss.class_weights", "balanced", why, on=False))
    return made


def sampling(facts: Facts) -> list[Choice]:
    """Returns another way to count a rare class."""
    if facts.task != "classification" or not is_rare(facts):
        return []
    why = "Shows every class as often as the others; instead of loss.class_weights, not beside it:"
    return [Choice("data.sampling", "balanced", why, on=False)]


def adamw(learning_rate: float, weight_decay: float, warmup: float = 0.05) -> list[Choice]:
    """Returns AdamW with a rate that rises, then falls to nothing."""
    return [
        Choice("optim.name", "adamw"),
        Choice("optim.learning_rate", learning_rate, "the first key to tune"),
        Choice("optim.weight_decay", weight_decay),
        Choice("optim.schedule.name", "cosine", "the rate falls to 0 at the last step"),
        Choice("optim.schedule.warmup_fraction", warmup),
    ]


def around(learning_rate: float, weight_decay: float) -> tuple[Search, ...]:
    """Returns the ranges of a rate and a decay that a study searches."""
    rates, decays = (learning_rate / 10, learning_rate * 10), (weight_decay / 30, weight_decay * 10)
    return (
        Search("optim.learning_rate", "log_uniform", tuple(map(rounded, rates))),
        Search("optim.weight_decay", "log_uniform", tuple(map(rounded, decays))),
    )


def rounded(value: float) -> float:
    """Returns a number with two digits.

    Example:
      >>> rounded(0.02 / 30)
      0.00067
    """
    return float(f"{value:.2g}")


def epochs(rows: int, examples: int, least: int, most: int) -> int:
    """Returns passes over the data in which a model sees about so many examples.

    Example:
      >>> epochs(1000, 100_000, 5, 60), epochs(100, 100_000, 5, 60), epochs(10**6, 100_000, 5, 60)
      (60, 60, 5)
    """
    return max(least, min(most, round(examples / max(1, rows))))


def length(count: int, patience: int | None = None) -> list[Choice]:
    """Returns how long to train."""
    made = [Choice("train.epochs", count, "passes over the training split")]
    if patience is not None:
        why = "stops after so many epochs without a better one"
        made.append(Choice("train.patience", patience, why))
    return made


def monitor(facts: Facts) -> list[Choice]:
    """Returns which evaluation is the best: by the loss, where a score has ties and luck."""
    if facts.task == "regression":
        return []
    if facts.task == "classification" and is_rare(facts):
        why = "The best epoch is the one of the best loss. To judge by all classes alike:"
        return [
            Choice("train.monitor", "validation/loss"),
            Choice("train.monitor", "validation/balanced_accuracy", why, on=False),
        ]
    why = "the best epoch by the loss, which tells small differences apart"
    return [Choice("train.monitor", "validation/loss", why)]
