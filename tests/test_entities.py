"""Entity scores against seqeval and against entities cut one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt.data.coding import PAD
from jdlopt.data.tags import kinds_of, names_of
from jdlopt.metrics import make_collector
from jdlopt.tasks.token_classification import entities_in

NAMES = names_of(("LOC", "ORG", "PER"))
WORDS = 12
METRICS = ("entity_f1", "entity_precision", "entity_recall", "token_accuracy", "entity_f1_per_kind")


@jax.jit
def collect(outputs, targets, weights):
    made = make_collector(METRICS, "token_classification", len(NAMES), class_names=NAMES)
    return made.collect(outputs, outputs, targets, weights, jnp.zeros(len(targets)))


def measured(true, predicted, drawn):
    """Metrics of sentences, in two batches, their words with gaps between and padding behind."""
    finish = make_collector(METRICS, "token_classification", len(NAMES), class_names=NAMES).finish
    count = -(-len(true) // 8) * 8
    targets = np.full((count, 2 * WORDS), PAD)
    codes = drawn.integers(0, len(NAMES), targets.shape)  # what is said of other tokens is nothing
    for row, (one, other) in enumerate(zip(true, predicted, strict=True)):
        places = np.sort(drawn.choice(2 * WORDS, len(one), replace=False))
        targets[row, places], codes[row, places] = one, other
    targets[len(true) :] = 1  # padding of the batch, right in all
    codes[len(true) :] = 1
    weights = np.arange(count) < len(true)
    outputs = np.eye(len(NAMES), dtype=np.float32)[codes]
    parts = [slice(start, start + 8) for start in range(0, count, 8)]
    return finish([collect(outputs[p], targets[p], weights[p].astype(float)) for p in parts])


def sentences(drawn, count):
    lengths = drawn.integers(1, WORDS + 1, count)
    true = [drawn.choice(len(NAMES), size, p=[0.4, *[0.1] * 6]) for size in lengths]
    return true, [
        np.where(drawn.random(len(one)) < 0.3, drawn.integers(0, len(NAMES), len(one)), one)
        for one in true
    ]


def scores_one_by_one(true, predicted):
    found = [[(row, *one) for row, tags in enumerate(some) for one in entities_in(tags.tolist())]
             for some in (true, predicted)]  # fmt: skip
    right = len(set(found[0]) & set(found[1]))
    return right, len(found[0]), len(found[1])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_scores_are_those_of_entities_cut_one_by_one(seed):
    drawn = np.random.default_rng(seed)
    true, predicted = sentences(drawn, 13)
    found = measured(true, predicted, drawn)
    right, there, guessed = scores_one_by_one(true, predicted)
    assert found["entity_precision"] == pytest.approx(right / max(1, guessed))
    assert found["entity_recall"] == pytest.approx(right / max(1, there))
    assert found["entity_f1"] == pytest.approx(2 * right / max(1, there + guessed))
    same = [np.equal(*pair) for pair in zip(true, predicted, strict=True)]
    assert found["token_accuracy"] == pytest.approx(np.concatenate(same).mean())


def test_scores_are_seqevals():
    seqeval = pytest.importorskip("seqeval.metrics")
    drawn = np.random.default_rng(0)
    true, predicted = sentences(drawn, 1000)
    found = measured(true, predicted, drawn)
    named = [[[NAMES[code] for code in tags] for tags in some] for some in (true, predicted)]
    for ours, theirs in (
        ("entity_f1", seqeval.f1_score),
        ("entity_precision", seqeval.precision_score),
        ("entity_recall", seqeval.recall_score),
        ("token_accuracy", seqeval.accuracy_score),
    ):
        assert found[ours] == pytest.approx(theirs(*named), abs=1e-12)
    each = seqeval.classification_report(*named, output_dict=True)
    expected = [each[kind]["f1-score"] for kind in kinds_of(NAMES)]
    assert found["entity_f1_per_kind"] == pytest.approx(expected, abs=1e-12)


def test_nothing_found_is_no_division_by_zero():
    drawn = np.random.default_rng(0)
    found = measured([np.array([0, 0])], [np.array([0, 0])], drawn)
    assert found["entity_f1"] == found["entity_precision"] == found["entity_recall"] == 0
    assert found["token_accuracy"] == 1
