"""The first config for a table of numbers and categories."""

from __future__ import annotations

from jdlopt.starter import training
from jdlopt.starter.facts import Choice, Chosen, Facts, Search

MANY_CATEGORIES = 10
"""Columns of more categories are embedded rather than written out as 0 and 1."""
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 3e-4
EXAMPLES = 400_000
"""So many are seen in training, each 20 to 256 times."""
MANY_NUMBERS = 16
"""Of more columns of numbers, each has an embedding half as wide."""


def preprocess(facts: Facts) -> list[Choice]:
    """Returns what is done to the columns before a model sees them."""
    made = _missing(facts)
    if facts.numbers:
        why = "numbers get mean 0 and standard deviation 1"
        made.append(Choice("data.preprocess.scale", "standard", why))
    if facts.categories:
        made.append(_encoding(facts))
    return [*made, *target_scale(facts)]


def _missing(facts: Facts) -> list[Choice]:
    made = []
    if facts.missing:
        columns = "1 column lacks" if facts.missing == 1 else f"{facts.missing} columns lack"
        why = (
            f"{columns} values: filled with the training split's median, or most frequent category"
        )
        made.append(Choice("data.preprocess.missing", "median", why))
        why = "a column of 0 and 1 beside each of these says where"
        made.append(Choice("data.preprocess.missing_indicator", True, why))
    return made


def _encoding(facts: Facts) -> Choice:
    most = max(facts.categories)
    if most > MANY_CATEGORIES:
        why = f"up to {most:,} categories a column: a learnt vector each"
        return Choice("data.preprocess.encode", "embedding", why)
    return Choice("data.preprocess.encode", "one_hot", "a column of 0 and 1 for each category")


def target_scale(facts: Facts) -> list[Choice]:
    """Returns the scale on which the loss of a regression is measured."""
    if facts.task != "regression":
        return []
    why = "the loss is measured on a target of mean 0 and deviation 1; metrics in its own unit"
    made = [Choice("data.preprocess.target_scale", "standard", why)]
    if facts.long_tail:
        why = "The target is positive with a long tail. If relative errors matter:"
        made.append(Choice("data.preprocess.target_scale", "log", why, on=False))
    return made


def choices(facts: Facts) -> Chosen:
    """Returns what is chosen for a table: pure, by its numbers of rows and columns alone."""
    made = [
        Choice("data.batch_size", training.batch_size(facts.rows, per_epoch=16)),
        *training.sampling(facts),
        *_missing(facts),
        *_for_tabm(facts),
        *target_scale(facts),
        Choice("model.name", "tabm", "perceptrons that share kernels and are averaged"),
        Choice("model.submodels", 8, "of the paper's 32 most of the gain; time grows with them"),
        Choice("model.features", (128, 128)),
        Choice("model.dropout_rate", 0.1),
        *_embedding(facts),
        *training.loss(facts),
        *training.adamw(LEARNING_RATE, WEIGHT_DECAY),
        *training.length(training.epochs(facts.rows, EXAMPLES, 20, 256)),
        *training.monitor(facts),
    ]
    space = (
        Search("model.features", "choice", ((64, 64), (128, 128), (256, 256)), "scientific"),
        Search("model.dropout_rate", "uniform", (0.0, 0.5)),
        *training.around(LEARNING_RATE, WEIGHT_DECAY),
    )
    return Chosen(tuple(made), space, "How wide need the network be?")


def _for_tabm(facts: Facts) -> list[Choice]:
    made = []
    if facts.numbers:
        why = "numbers are scaled by their quartiles, and far-off values drawn in"
        made.append(Choice("data.preprocess.scale", "robust_clipped", why))
    if facts.categories:
        why = "codes; the model makes 0 and 1 of up to 8 categories, and learns vectors of more"
        made.append(Choice("data.preprocess.encode", "embedding", why))
    return made


def _embedding(facts: Facts) -> list[Choice]:
    if not facts.numbers:
        return []
    return [
        Choice("model.numeric_embedding", "pbld", "each number beside waves of it"),
        Choice("model.numeric_features", 8 if facts.numbers <= MANY_NUMBERS else 4),
        Choice("model.numeric_sigma", 0.1, "how fast the waves are at the start"),
    ]
