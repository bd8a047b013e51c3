"""Metrics against scikit-learn on random splits, and invariance to how a split is batched."""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt import metrics
from jdlopt.errors import ConfigError
from jdlopt.metrics import METRICS, Collector, make_collector

CLOSE = {"rel": 1e-6, "abs": 1e-6}


@functools.cache
def compiled(names, task, classes):
    """Returns a collector whose device part is compiled, once for each batch shape."""
    collector = make_collector(names, task, classes)
    return collector._replace(collect=jax.jit(collector.collect))


def batches_of(collector: Collector, arrays, sizes, padded=None, seed=0):
    """Collects from a split cut into batches of some sizes, each padded with rubbish, shuffled."""
    rng = np.random.default_rng(seed)
    outputs, probabilities, targets, loss = arrays
    collected, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        start += size
        padding = (padded or max(sizes)) - size
        order = rng.permutation(size + padding)

        def pad(array, rubbish, part=part, padding=padding, order=order):
            filler = np.full((padding, *array.shape[1:]), rubbish, array.dtype)
            return np.concatenate([array[part], filler])[order]

        weights = pad(np.ones(len(targets), np.float32), 0)
        collected.append(
            jax.device_get(
                collector.collect(
                    jnp.asarray(pad(outputs, np.nan)),
                    None if probabilities is None else jnp.asarray(pad(probabilities, np.nan)),
                    jnp.asarray(pad(targets, 0)),
                    jnp.asarray(weights),
                    jnp.asarray(pad(loss, np.nan)),
                )
            )
        )
    assert start == len(targets)
    return collected


def cut(n, rng):
    """Cuts n examples into batches of random sizes, some of them empty."""
    edges = np.sort(rng.integers(0, n + 1, rng.integers(0, 6)))
    return np.diff([0, *edges, n]).tolist()


def split_evenly(size, limit):
    """Cuts a size into parts of at most a limit."""
    return [min(limit, size - start) for start in range(0, size, limit)]


def classification(seed, n, classes, ties=False, present=None):
    """Draws probabilities (of few distinct values, for ties) and classes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    if ties:
        logits = np.round(logits)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
    if classes == 2:
        probabilities[:, 0] = 1 - probabilities[:, 1]
    known = np.arange(classes) if present is None else np.asarray(present)
    targets = rng.choice(known, n).astype(np.int32)
    return probabilities, probabilities, targets, rng.random(n).astype(np.float32)


def multilabel(seed, n, labels, ties=False, share=0.4):
    """Draws probabilities (of few distinct values, for ties) and labels that are there or not."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, labels)).astype(np.float32)
    if ties:
        logits = np.round(logits)
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    targets = (rng.random((n, labels)) < share).astype(np.int32)
    return logits, probabilities, targets, rng.random(n).astype(np.float32)


def regression(seed, n, outputs=1, scale=1.0):
    rng = np.random.default_rng(seed)
    predictions, targets = (scale * rng.normal(size=(2, n, outputs))).astype(np.float32)
    return predictions, None, targets, rng.random(n).astype(np.float32)


def evaluate(arrays, names, task="classification", classes=0, sizes=None):
    collector = compiled(tuple(names), task, classes)
    sizes = sizes or [len(arrays[2])]
    return collector.finish(batches_of(collector, arrays, sizes, 64))


def reference_classification(probabilities, targets, classes):
    """Returns every classification metric as scikit-learn computes it."""
    predicted = probabilities.argmax(axis=1)
    labels = np.arange(classes)
    values = {
        "accuracy": sk.accuracy_score(targets, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(targets, predicted),
        "confusion_matrix": sk.confusion_matrix(targets, predicted, labels=labels).tolist(),
        "log_loss": sk.log_loss(targets, probabilities, labels=labels),
    }
    for name, score in {
        "precision": sk.precision_score,
        "recall": sk.recall_score,
        "f1": sk.f1_score,
    }.items():
        for average in ("macro", "micro"):
            values[f"{name}_{average}"] = score(
                targets, predicted, average=average, zero_division=0
            )
        if classes == 2:
            values[name] = score(targets, predicted, zero_division=0)
        values[f"{name}_per_class"] = score(
            targets, predicted, average=None, labels=labels, zero_division=0
        ).tolist()
    binarized = (targets[:, None] == labels).astype(int)
    if classes == 2:
        values["roc_auc"] = sk.roc_auc_score(targets, probabilities[:, 1])
        values["average_precision"] = sk.average_precision_score(targets, probabilities[:, 1])
    else:
        values["roc_auc"] = sk.roc_auc_score(
            binarized, probabilities, average="macro", labels=labels
        )
        values["average_precision"] = sk.average_precision_score(binarized, probabilities)
        for k in range(1, classes):
            values[f"top_{k}_accuracy"] = sk.top_k_accuracy_score(
                targets, probabilities, k=k, labels=labels
            )
    return values


def reference_multilabel(probabilities, targets):
    """Returns every multi-label metric as scikit-learn computes it."""
    predicted = (probabilities > 0.5).astype(int)
    values = {
        "subset_accuracy": sk.accuracy_score(targets, predicted),
        "hamming_loss": sk.hamming_loss(targets, predicted),
        "roc_auc": sk.roc_auc_score(targets, probabilities, average="macro"),
        "average_precision": sk.average_precision_score(targets, probabilities, average="macro"),
        "label_ranking_average_precision": sk.label_ranking_average_precision_score(
            targets, probabilities
        ),
    }
    for name, score in {
        "precision": sk.precision_score,
        "recall": sk.recall_score,
        "f1": sk.f1_score,
    }.items():
        for average in ("macro", "micro", None):
            value = score(targets, predicted, average=average, zero_division=0)
            values[f"{name}_{average or 'per_label'}"] = value
    return values


def assert_same(actual, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


# --- equal to scikit-learn ------------------------------------------------------------------------


@given(
    seed=st.integers(0, 100_000),
    n=st.integers(1, 64),
    classes=st.sampled_from([2, 3, 7]),
    ties=st.booleans(),
    missing=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_classification_is_scikit_learns(seed, n, classes, ties, missing):
    rng = np.random.default_rng(seed)
    present = rng.choice(classes, rng.integers(1, classes + 1), replace=False) if missing else None
    arrays = classification(seed, n, classes, ties, present)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where a class is missing
        expected = reference_classification(*arrays[1:3], classes)
    assert_same(evaluate(arrays, expected, classes=classes, sizes=cut(n, rng)), expected)


@given(
    seed=st.integers(0, 100_000),
    n=st.integers(2, 64),
    labels=st.sampled_from([2, 3, 9]),
    ties=st.booleans(),
    share=st.sampled_from([0.02, 0.4, 0.98]),  # labels that nobody has, examples that have all
)
@settings(max_examples=40, deadline=None)
def test_multilabel_is_scikit_learns(seed, n, labels, ties, share):
    arrays = multilabel(seed, n, labels, ties, share)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where a label is missing
        expected = reference_multilabel(*arrays[1:3])
    assert set(expected) == set(metrics.all_metrics("multilabel", labels))
    sizes = cut(n, np.random.default_rng(seed))
    assert_same(evaluate(arrays, expected, "multilabel", labels, sizes=sizes), expected)


@given(
    seed=st.integers(0, 100_000),
    n=st.integers(2, 64),
    outputs=st.integers(1, 3),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
)
@settings(max_examples=25, deadline=None)
def test_regression_is_scikit_learns(seed, n, outputs, scale):
    arrays = regression(seed, n, outputs, scale)
    targets, predictions = arrays[2].astype(np.float64), arrays[0].astype(np.float64)
    actual = evaluate(
        arrays,
        metrics.all_metrics("regression", 2),
        "regression",
        sizes=cut(n, np.random.default_rng(seed)),
    )
    for name, score in {
        "mse": sk.mean_squared_error,
        "rmse": sk.root_mean_squared_error,
        "mae": sk.mean_absolute_error,
        "r2": sk.r2_score,
    }.items():
        assert actual[name] == pytest.approx(score(targets, predictions), rel=1e-6), name
        each = score(targets, predictions, multioutput="raw_values")
        assert actual.get(f"{name}_per_output", each) == pytest.approx(each, rel=1e-6), name


@given(seed=st.integers(0, 100_000), n=st.integers(1, 64))
@settings(max_examples=25, deadline=None)
def test_calibration_error_agrees_with_scikit_learns_curve(seed, n):
    arrays = classification(seed, n, 3, ties=seed % 2 == 0)
    confidence = arrays[1].max(axis=1).astype(np.float64)
    correct = arrays[1].argmax(axis=1) == arrays[2]
    accuracy, mean_confidence = sklearn.calibration.calibration_curve(
        correct, confidence, n_bins=15
    )
    bins = np.searchsorted(np.linspace(0, 1, 16)[1:-1], confidence)
    share = np.bincount(bins)[np.unique(bins)] / n
    actual = evaluate(arrays, ["expected_calibration_error"], classes=3)
    assert actual["expected_calibration_error"] == pytest.approx(
        np.sum(share * np.abs(accuracy - mean_confidence)), **CLOSE
    )


# --- edge cases -----------------------------------------------------------------------------------


def test_a_split_of_one_class_has_no_roc_auc():
    arrays = classification(0, 20, 2, present=[1])
    actual = evaluate(arrays, ["roc_auc", "average_precision", "recall_per_class"], classes=2)
    assert np.isnan(actual["roc_auc"])
    assert actual["average_precision"] == 1.0
    assert actual["recall_per_class"][0] == 0.0


def test_a_constant_regression_target():
    predictions, _, targets, loss = regression(0, 10)
    constant = np.full_like(targets, 2.0)
    off = (predictions, None, constant, loss)
    right = (constant, None, constant, loss)
    assert evaluate(off, ["r2"], "regression")["r2"] == 0.0
    assert evaluate(right, ["r2"], "regression")["r2"] == 1.0
    single = tuple(None if array is None else array[:1] for array in off)
    assert np.isnan(evaluate(single, ["r2"], "regression")["r2"])


def test_perfect_and_confident_predictions():
    targets = np.arange(12, dtype=np.int32) % 3
    probabilities = np.eye(3, dtype=np.float32)[targets]
    arrays = (probabilities, probabilities, targets, np.zeros(12, np.float32))
    actual = evaluate(arrays, metrics.all_metrics("classification", 3), classes=3)
    assert actual.pop("confusion_matrix") == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    for name in ("loss", "log_loss", "expected_calibration_error"):
        assert actual.pop(name) == pytest.approx(0, abs=1e-6)
    assert all(np.all(np.asarray(value) == 1) for value in actual.values())


def test_impossible_predictions_have_a_finite_log_loss():
    arrays = (*2 * [np.array([[1.0, 0.0]], np.float32)], np.array([1]), np.ones(1, np.float32))
    value = evaluate(arrays, ["log_loss"], classes=2)["log_loss"]
    assert value == pytest.approx(-np.log(np.finfo(np.float32).eps), rel=1e-6)


def test_probabilities_that_are_nan_are_never_hits_and_show():
    probabilities, _, targets, loss = classification(0, 20, 7)
    nothing = np.full_like(probabilities, np.nan)
    names = ["top_5_accuracy", "log_loss", "roc_auc", "average_precision"]
    actual = evaluate((nothing, nothing, targets, loss * np.nan), names, classes=7)
    assert actual.pop("top_5_accuracy") == 0.0
    assert all(np.isnan(value) for value in actual.values())


def test_a_split_without_examples_is_an_error():
    collector = make_collector(["accuracy"], "classification", 2)
    collected = batches_of(collector, classification(0, 0, 2), [0], padded=4)
    with pytest.raises(ValueError, match="no example"):
        collector.finish(collected)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
def test_half_precision_probabilities_are_taken_as_they_are(dtype):
    probabilities, _, targets, loss = map(jnp.asarray, classification(0, 30, 3))
    rounded = np.asarray(jnp.asarray(probabilities, dtype).astype(jnp.float32))
    names = ["accuracy", "roc_auc", "log_loss"]
    collector = make_collector(names, "classification", 3)
    given_half = collector.collect(
        jnp.asarray(probabilities), jnp.asarray(rounded, dtype), targets, jnp.ones(30), loss
    )
    in_float32 = collector.collect(probabilities, jnp.asarray(rounded), targets, jnp.ones(30), loss)
    assert collector.finish([given_half]) == collector.finish([in_float32])


# --- soft targets, shapes -------------------------------------------------------------------------


def test_soft_targets_count_as_their_likeliest_class():
    probabilities, _, targets, loss = classification(1, 40, 4)
    soft = 0.4 * np.eye(4, dtype=np.float32)[targets] + 0.15
    names = metrics.all_metrics("classification", 4)
    hard = evaluate((probabilities, probabilities, targets, loss), names, classes=4)
    assert evaluate((probabilities, probabilities, soft, loss), names, classes=4) == hard


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_binary_targets_may_be_floats_or_a_column(shape, dtype):
    probabilities, _, targets, loss = classification(1, 40, 2)
    names = metrics.all_metrics("classification", 2)
    plain = evaluate((probabilities, probabilities, targets, loss), names, classes=2)
    shaped = (probabilities, probabilities, targets.astype(dtype).reshape(shape), loss)
    assert evaluate(shaped, names, classes=2) == plain


def test_a_vector_and_a_column_of_regression_targets_are_the_same():
    predictions, _, targets, loss = regression(0, 30)
    names = metrics.all_metrics("regression", 0)
    column = evaluate((predictions, None, targets, loss), names, "regression")
    assert evaluate((predictions, None, targets[:, 0], loss), names, "regression") == column


# --- invariance to batching and padding -----------------------------------------------------------


@given(
    seed=st.integers(0, 100_000), n=st.integers(1, 80), padded=st.sampled_from([1, 5, 16, 37, 80])
)
@settings(max_examples=25, deadline=None)
def test_any_padded_batching_gives_the_same_numbers(seed, n, padded):
    rng = np.random.default_rng(seed)
    sizes = [each for size in cut(n, rng) for each in split_evenly(size, padded)]
    for task, classes, arrays in (
        ("classification", 7, classification(seed, n, 7)),
        ("multilabel", 3, multilabel(seed, n, 3)),
        ("regression", 2, regression(seed, n, 2)),
    ):
        collector = compiled(metrics.all_metrics(task, classes), task, classes)
        whole = collector.finish(batches_of(collector, arrays, [n], 80))
        parts = batches_of(collector, arrays, sizes, padded, seed)
        rng.shuffle(parts)
        split = collector.finish(parts)
        assert list(split) == list(whole)
        for name in whole:
            np.testing.assert_allclose(split[name], whole[name], rtol=1e-12, err_msg=name)


def test_the_order_within_a_split_kept_makes_it_bitwise_the_same():
    arrays = classification(0, 50, 7)
    collector = compiled(metrics.all_metrics("classification", 7), "classification", 7)
    results = []
    for size in (1, 7, 50):
        collected, start = [], 0
        for each in split_evenly(50, size):
            part = [array[start : start + each] for array in arrays]
            pad = [jnp.pad(a, [(0, size - each)] + [(0, 0)] * (a.ndim - 1)) for a in part]
            weights = np.arange(size) < each
            collected.append(collector.collect(*pad[:3], jnp.asarray(weights, jnp.float32), pad[3]))
            start += each
        results.append(collector.finish(collected))
    assert results[0] == results[1] == results[2]


def test_batches_stacked_by_a_scan_are_batches():
    arrays = classification(3, 48, 7)
    collector = make_collector(metrics.all_metrics("classification", 7), "classification", 7)
    outputs, probabilities, targets, loss = map(jnp.asarray, arrays)
    whole = collector.finish(
        [collector.collect(outputs, probabilities, targets, jnp.ones(48), loss)]
    )

    @jax.jit
    def scanned(outputs, probabilities, targets, loss):
        cutting = lambda array: array.reshape(4, 12, *array.shape[1:])  # noqa: E731
        stacked = jax.tree.map(cutting, (outputs, probabilities, targets, loss))

        def body(_, batch):
            outputs, probabilities, targets, loss = batch
            weights = jnp.ones(len(targets))
            return None, collector.collect(outputs, probabilities, targets, weights, loss)

        return jax.lax.scan(body, None, stacked)[1]

    assert collector.finish([jax.device_get(scanned(*arrays))]) == whole


def test_collect_is_pure_and_its_shapes_follow_from_shapes():
    collector = make_collector(metrics.all_metrics("classification", 7), "classification", 7)
    first, second = (classification(seed, 16, 7) for seed in (0, 1))
    traces = []

    @jax.jit
    def collect(outputs, probabilities, targets, loss, weights):
        traces.append(1)
        return collector.collect(outputs, probabilities, targets, weights, loss)

    for arrays, weights in ((first, np.ones(16)), (second, np.arange(16) < 3)):
        leaves = collect(*arrays, weights.astype(np.float32))
        for name, leaf in leaves.items():
            assert (leaf.ndim > 0) == (name in collector.gathered), name
            assert leaf.ndim == 0 or len(leaf) == 16
    assert len(traces) == 1


def test_vmap_collects_a_population():
    collector = make_collector(["accuracy", "roc_auc"], "classification", 3)
    trials = [classification(seed, 20, 3) for seed in range(3)]
    stacked = [np.stack(arrays) for arrays in zip(*trials, strict=True)]
    outputs, probabilities, targets, loss = stacked
    collect = jax.vmap(collector.collect, in_axes=(0, 0, 0, None, 0))
    leaves = jax.device_get(collect(outputs, probabilities, targets, jnp.ones(20), loss))
    for trial, arrays in enumerate(trials):
        one = collector.finish([jax.tree.map(lambda leaf, i=trial: leaf[i], leaves)])
        assert one == evaluate(arrays, ["accuracy", "roc_auc"], classes=3)


# --- what is collected, names ---------------------------------------------------------------------


def test_accuracy_keeps_nothing_per_example_but_the_loss():
    collector = make_collector(["accuracy"], "classification", 10)
    assert collector.gathered == {"real", "loss"}


def test_the_loss_is_always_there_and_is_the_mean():
    arrays = classification(0, 33, 3)
    actual = evaluate(arrays, [], classes=3, sizes=[10, 20, 3])
    assert list(actual) == ["loss"]
    assert actual["loss"] == pytest.approx(arrays[3].astype(np.float64).mean(), rel=1e-12)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_values_are_plain_python(task):
    classes, draw = 7, {"classification": classification, "multilabel": multilabel}
    arrays = draw.get(task, regression)(0, 20, classes)
    for value in evaluate(arrays, metrics.all_metrics(task, classes), task, classes).values():
        flat = np.ravel(value).tolist() if isinstance(value, list) else [value]
        assert type(value) in (float, list)
        assert all(type(item) in (int, float) for item in flat)


def test_what_a_final_evaluation_reports():
    two, ten, many = (metrics.all_metrics("classification", n) for n in (2, 10, 1000))
    assert "top_5_accuracy" not in two
    assert set(ten) - set(two) == {"top_5_accuracy"}
    assert set(two) - set(ten) == {"precision", "recall", "f1"}  # of the positive class
    assert set(ten) - set(many) == {"roc_auc", "average_precision", "confusion_matrix"}
    assert metrics.all_metrics("regression", 0) == ("mse", "rmse", "mae", "r2")
    several = metrics.all_metrics("regression", 3)
    assert several[4:] == ("rmse_per_output", "mae_per_output", "r2_per_output")
    labels, hundreds = (metrics.all_metrics("multilabel", n) for n in (3, 1000))
    assert set(labels) - set(hundreds) == {
        "roc_auc", "average_precision", "label_ranking_average_precision",
    }  # fmt: skip
    masks = metrics.all_metrics("segmentation", 3)
    assert masks == ("mean_iou", "dice", "pixel_accuracy", "iou_per_class")
    one = {"classification", "multilabel", "regression"}
    others = {
        name for name, metric in METRICS.items() if metric.tasks and not one & {*metric.tasks}
    }
    assert {*two, *ten, *labels, *several, "loss", *others} == set(METRICS)


def test_which_way_is_better():
    lower = {"loss", "log_loss", "expected_calibration_error", "mse", "rmse", "mae"}
    lower |= {"hamming_loss", "wer", "cer", "perplexity", "bits_per_byte"}
    for name, metric in METRICS.items():
        if metric.higher_is_better is None:
            with pytest.raises(ConfigError, match="not one number"):
                metrics.higher_is_better(name)
        else:
            assert metrics.higher_is_better(name) == (name not in lower)
    assert metrics.higher_is_better("top_3_accuracy")


@pytest.mark.parametrize(
    ("names", "task", "message"),
    [
        (["acuracy"], "classification", "Did you mean 'accuracy'"),
        (["top_0_accuracy"], "classification", "is unknown"),
        (["top_3_accuracy"], "classification", "of 3 classes is always 1"),
        (["accuracy"], "regression", "is for classification, but the task is regression"),
        (["r2"], "classification", "is for regression"),
        (["f1_macro"], "regression", "is for classification and multilabel"),
        (["f1"], "classification", "positive class among two; there are 3"),
        (["accuracy"], "multilabel", "is for classification"),
    ],
)
def test_wrong_names_are_errors(names, task, message):
    with pytest.raises(ConfigError, match=message):
        make_collector(names, task, 3)


def test_a_classification_metric_without_probabilities_is_an_error():
    collector = make_collector(["accuracy"], "classification", 3)
    outputs, _, targets, loss = map(jnp.asarray, classification(0, 4, 3))
    with pytest.raises(ValueError, match="needs probabilities"):
        collector.collect(outputs, None, targets, jnp.ones(4), loss)
