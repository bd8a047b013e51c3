"""The first config for a table of numbers and categories."""

from __future__ import annotations

from jdlopt.starter import training
from jdlopt.starter.facts import Choice, Chosen, Facts, Search

MANY_CATEGORIES = 10
"""Columns of more categories are embedded rather than written out as 0 and 1."""
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.02
EXAMPLES = 1_500_000
"""So many are seen in training, at most 100 times each."""


def preprocess(facts: Facts) -> list[Choice]:
    """Returns what is done to the columns before a model sees them."""
    made = []
    if facts.missing:
        columns = "1 column lacks" if facts.missing == 1 else f"{facts.missing} columns lack"
        why = (
            f"{columns} values: filled with the training split's median, or most frequent category"
        )
        made.append(Choice("data.preprocess.missing", "median", why))
        why = "a column of 0 and 1 beside each of these says where"
        made.append(Choice("data.preprocess.missing_indicator", True, why))
    if facts.numbers:
        why = "numbers get mean 0 and standard deviation 1"
        made.append(Choice("data.preprocess.scale", "standard", why))
    if facts.categories:
        made.append(_encoding(facts))
    return [*made, *target_scale(facts)]


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
    small = facts.rows < training.FEW_ROWS
    width = 64 if small else 256
    embeds = bool(facts.categories) and max(facts.categories) > MANY_CATEGORIES
    made = [
        Choice("data.batch_size", training.batch_size(facts.rows)),
        *training.sampling(facts),
        *preprocess(facts),
        Choice("model.name", "mlp", "dense layers"),
        Choice("model.features", (width, width)),
        Choice("model.dropout_rate", 0.1),
        *([Choice("model.embedding_features", 16)] if embeds else []),
        Choice(
            "model.ensemble", 4, "Four models that are averaged, for four times the cost:", False
        ),
        *training.loss(facts),
        *training.adamw(LEARNING_RATE, WEIGHT_DECAY),
        *training.length(training.epochs(facts.rows, EXAMPLES, 20, 100), 16),
        *training.monitor(facts),
    ]
    space = (
        Search("model.features", "choice", ((64, 64), (256, 256), (256, 256, 256)), "scientific"),
        Search("model.dropout_rate", "uniform", (0.0, 0.5)),
        *training.around(LEARNING_RATE, WEIGHT_DECAY),
    )
    return Chosen(tuple(made), space, "How wide and deep need the network be?")
