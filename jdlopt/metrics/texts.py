"""Metrics of texts that were written, against those that were to be written, on the host."""

from __future__ import annotations

import numpy as np

from jdlopt.data.target_texts import spelt_whole
from jdlopt.metrics.scores import Split

LIBRARY = "sacrebleu"
"""What computes BLEU and chrF as papers report them; an extra."""


def _pairs(split: Split) -> tuple[list[str], list[str]]:
    """Returns the written texts, and the true ones."""
    assert split.told is not None
    return split.told(split.leaves["written"]), split.told(split.leaves["targets"])


def exact_match(split: Split) -> float:
    """Returns the share of texts that are right to the letter.

    A target with a character that the vocabulary lacks can't be written, so no text is right.
    """
    written, true = _pairs(split)
    same = np.array([one == other for one, other in zip(written, true, strict=True)], bool)
    return int((same & spelt_whole(split.leaves["targets"])).sum()) / split.size


def chrf(split: Split) -> float:
    """Returns the F-score of n-grams of characters, from 0 to 100; recall counts twice.

    Popović, "chrF: character n-gram F-score for automatic MT evaluation", 2015.
    """
    from sacrebleu.metrics import CHRF

    written, true = _pairs(split)
    return float(CHRF().corpus_score(written, [true]).score)


def bleu(split: Split) -> float:
    """Returns BLEU, from 0 to 100, tokenised as WMT's is (``13a``).

    Papineni et al., "BLEU: a method for automatic evaluation of machine translation", 2002; Post,
    "A call for clarity in reporting BLEU scores", 2018.
    """
    from sacrebleu.metrics import BLEU

    written, true = _pairs(split)
    return float(BLEU().corpus_score(written, [true]).score)
