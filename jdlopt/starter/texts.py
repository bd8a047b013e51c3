"""The first config for texts, and for tables of which texts or files are a part."""

from __future__ import annotations

from jdlopt.starter import tables, training
from jdlopt.starter.facts import Choice, Chosen, Facts, Search

LENGTHS = (16, 32, 64, 128, 256, 512)
"""Tokens that texts are cut or padded to: the smallest that holds most of them."""
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.1


def tokenized(facts: Facts) -> list[Choice]:
    """Returns how texts are cut into tokens."""
    length = next((one for one in LENGTHS if one >= facts.tokens), LENGTHS[-1])
    vocabulary = 4000 if facts.rows < training.FEW_ROWS else 8000
    why = f"19 of 20 texts have at most {facts.tokens:,}; what is longer is cut"
    return [
        Choice("data.text.vocab_size", vocabulary, "word pieces, learnt from the training texts"),
        Choice("data.text.max_tokens", length, why),
        Choice("data.text.truncate", "start", "If the end of a text matters more:", on=False),
        Choice("data.text.html", True, "If texts hold tags such as <br>:", on=False),
        Choice("data.text.lowercase", False, "If capitals mean something:", on=False),
    ]


def texts(facts: Facts) -> Chosen:
    """Returns what is chosen for texts: convolutions over embedded word pieces."""
    width = 32 if facts.rows < training.FEW_ROWS else 64
    made = [
        Choice("data.batch_size", training.batch_size(facts.rows, 64)),
        *training.sampling(facts),
        *tokenized(facts),
        *tables.target_scale(facts),
        Choice("data.augment.token_dropout", 0.1, "a tenth of the tokens is hidden at each look"),
        Choice(
            "model.name",
            "cnn",
            "A vector for each token, and convolutions over these. On few "
            "texts a pretrained encoder is far better: configs/text/minilm.py, docs/transfer.md.",
        ),
        Choice("model.embedding_features", width),
        Choice("model.features", (2 * width,)),
        Choice("model.kernel_size", 5),
        Choice("model.readout", "average"),
        Choice("model.hidden", (width,)),
        Choice("model.dropout_rate", 0.4),
        *training.loss(facts, 0.05),
        *training.adamw(LEARNING_RATE, WEIGHT_DECAY, 0.1),
        *training.length(training.epochs(facts.rows, 150_000, 4, 30), 5),
        *training.monitor(facts),
    ]
    space = (
        Search("data.text.vocab_size", "choice", (2000, 8000), "scientific"),
        Search("data.augment.token_dropout", "uniform", (0.0, 0.3)),
        Search("model.dropout_rate", "uniform", (0.1, 0.6)),
        *training.around(LEARNING_RATE, WEIGHT_DECAY),
    )
    return Chosen(tuple(made), space, "How large a vocabulary pays?")


def mixed(facts: Facts) -> Chosen:
    """Returns what is chosen for rows of several inputs: an encoder for each, and a head."""
    kinds = set(facts.inputs.values())
    made = [
        Choice("data.batch_size", training.batch_size(facts.rows, 64)),
        *training.sampling(facts),
        *(tokenized(facts) if "text" in kinds else []),
        *_preprocess(facts),
        Choice("model.name", "fusion", "an encoder for each input, and dense layers on all"),
        Choice("model.width", 64, "numbers that each input becomes"),
        Choice("model.dropout_rate", 0.2),
        *training.loss(facts),
        *training.adamw(2e-3, 0.05),
        *training.length(training.epochs(facts.rows, 200_000, 10, 40), 10),
        *training.monitor(facts),
    ]
    space = (
        Search("model.width", "choice", (16, 64), "scientific"),
        Search("model.dropout_rate", "uniform", (0.0, 0.5)),
        *training.around(2e-3, 0.05),
    )
    return Chosen(tuple(made), space, "How wide need each input's encoding be?")


def _preprocess(facts: Facts) -> list[Choice]:
    made = tables.preprocess(facts)
    scaled = any(choice.key == "data.preprocess.scale" for choice in made)
    if not scaled and set(facts.inputs.values()) - {"text", "table"}:
        made.insert(0, Choice("data.preprocess.scale", "standard", "of images and sounds"))
    return made
