"""Losses against closed forms, scipy and scikit-learn; traced floats; the objective's parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from jdlopt import losses
from jdlopt.config import fields_of, hyperparameters
from jdlopt.errors import ConfigError
from jdlopt.losses import LOSSES, make_loss
from jdlopt.tasks import TASKS

CLASSIFICATION = ["cross_entropy", "binary_cross_entropy", "focal"]
REGRESSION = ["mse", "mae", "huber"]
FLOATS = {
    "cross_entropy": "label_smoothing",
    "binary_cross_entropy": "label_smoothing",
    "focal": "gamma",
    "huber": "delta",
}


COMPILED = {name: jax.jit(loss) for name, loss in LOSSES.items()}
OF_ROWS = [name for name in LOSSES if name not in {"ctc", *losses.TOGETHER}]


def draw(seed, n=40, classes=5, scale=3.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (n, classes)).astype(np.float32)
    return jnp.asarray(logits), jnp.asarray(rng.integers(0, classes, n), jnp.int32)


def one_hot(targets, classes):
    return jnp.eye(classes)[targets]


def soft_targets(seed, n, classes):
    labels = np.random.default_rng(seed).dirichlet(np.ones(classes), n)
    return jnp.asarray(labels, jnp.float32)


# --- numbers --------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), classes=st.sampled_from([2, 5, 12]))
@settings(max_examples=15, deadline=None)
def test_cross_entropy_is_scikit_learns_log_loss(seed, classes):
    logits, targets = draw(seed, classes=classes, scale=1.5)
    probabilities = scipy.special.softmax(np.asarray(logits, np.float64), axis=1)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = sklearn.metrics.log_loss(targets, probabilities, labels=range(classes))
    assert np.mean(COMPILED["cross_entropy"](logits, targets)) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_of_soft_targets_is_the_closed_form():
    logits, _ = draw(0)
    labels = soft_targets(1, *logits.shape)
    expected = -(labels * jax.nn.log_softmax(logits)).sum(axis=1)
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing_mixes_with_the_uniform_distribution(smoothing):
    logits, targets = draw(0)
    labels = (1 - smoothing) * one_hot(targets, 5) + smoothing / 5
    expected = -(labels * jax.nn.log_softmax(logits)).sum(axis=1)
    smoothed = losses.cross_entropy(logits, targets, label_smoothing=smoothing)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [None, 0.0, 0.2])
def test_binary_cross_entropy_is_the_closed_form(smoothing):
    logits, _ = draw(0, classes=1)
    targets = jnp.asarray(np.random.default_rng(1).integers(0, 2, len(logits)))
    labels = targets if smoothing is None else (1 - smoothing) * targets + smoothing / 2
    p = scipy.special.expit(np.asarray(logits[:, 0], np.float64))
    expected = -(labels * np.log(p) + (1 - labels) * np.log1p(-p))
    for shaped in (targets, targets[:, None], targets.astype(np.float32)):
        actual = losses.binary_cross_entropy(logits, shaped, label_smoothing=smoothing)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_binary_cross_entropy_of_several_outputs_takes_classes_one_against_the_rest():
    logits, targets = draw(0)
    each = losses.binary_cross_entropy(
        logits.reshape(-1, 1), one_hot(targets, 5).reshape(-1)
    ).reshape(logits.shape)
    np.testing.assert_allclose(
        losses.binary_cross_entropy(logits, targets), each.mean(axis=1), rtol=1e-6
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_the_closed_form(gamma):
    logits, targets = draw(0)
    log_p = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=1)
    log_p = np.take_along_axis(log_p, targets[:, None], 1)[:, 0]
    expected = -((1 - np.exp(log_p)) ** gamma) * log_p
    actual = losses.focal(logits, targets, gamma=gamma)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_focal_with_gamma_zero_is_the_cross_entropy():
    logits, targets = draw(2)
    np.testing.assert_allclose(
        losses.focal(logits, targets, gamma=0.0),
        losses.cross_entropy(logits, targets),
        rtol=1e-5,
        atol=1e-6,
    )


@given(seed=st.integers(0, 10_000), outputs=st.sampled_from([1, 3]))
@settings(max_examples=15, deadline=None)
def test_regression_losses_are_scikit_learns(seed, outputs):
    rng = np.random.default_rng(seed)
    predictions, targets = jnp.asarray(rng.normal(size=(2, 30, outputs)), jnp.float32)
    for name, reference in {
        "mse": sklearn.metrics.mean_squared_error,
        "mae": sklearn.metrics.mean_absolute_error,
    }.items():
        assert np.mean(COMPILED[name](predictions, targets)) == pytest.approx(
            reference(targets, predictions), rel=1e-5
        )


@pytest.mark.parametrize("delta", [0.1, 1.0, 3.0])
def test_huber_is_scipys(delta):
    rng = np.random.default_rng(0)
    predictions, targets = jnp.asarray(rng.normal(0, 2, (2, 30, 3)), jnp.float32)
    expected = scipy.special.huber(delta, predictions - targets).mean(axis=1)
    np.testing.assert_allclose(losses.huber(predictions, targets, delta=delta), expected, rtol=1e-5)


# --- laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("value", [None, 0.3])
def test_one_hot_targets_are_class_indices(name, value):
    logits, targets = draw(3)
    keywords = {} if value is None else {FLOATS[name]: value}
    np.testing.assert_allclose(
        COMPILED[name](logits, targets, **keywords),
        COMPILED[name](logits, one_hot(targets, 5), **keywords),
        rtol=1e-6,
        atol=1e-7,
    )


@pytest.mark.parametrize("name", REGRESSION)
def test_a_single_column_and_a_vector_of_targets_are_the_same(name):
    predictions, _ = draw(4, classes=1)
    targets, _ = draw(5, classes=1)
    actual = LOSSES[name](predictions, targets[:, 0])
    assert actual.shape == (len(targets),)
    np.testing.assert_array_equal(actual, LOSSES[name](predictions, targets))


@pytest.mark.parametrize("name", OF_ROWS)
def test_losses_are_per_example_and_not_negative(name):
    outputs, targets = draw(6)
    if name in REGRESSION:
        targets = draw(7)[0]
    whole = COMPILED[name](outputs, targets)
    assert whole.shape == (len(outputs),)
    assert np.all(whole >= 0)
    parts = [COMPILED[name](outputs[i : i + 1], targets[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(whole[:5], parts, rtol=1e-6)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("name", OF_ROWS)
def test_a_wrong_shape_of_targets_is_an_error(name):
    outputs, _ = draw(0)
    with pytest.raises(AssertionError, match="targets have shape"):
        LOSSES[name](outputs, jnp.zeros(7, jnp.int32))


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_extreme_logits_give_finite_values_and_gradients(name, soft, value):
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, 1e4, 1e4], [0.0, 0.0, -1e4]])
    targets = jnp.array([0, 0, 1, 2])
    labels = jax.nn.one_hot(targets, 3) if soft else targets

    def total(x, traced):
        return LOSSES[name](x, labels, **{FLOATS[name]: traced}).sum()

    total_value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(logits, value)
    assert np.isfinite(total_value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_half_precision_outputs_are_summed_in_float32():
    logits, targets = draw(0)
    rounded = jnp.asarray(logits, jnp.bfloat16)
    actual = losses.cross_entropy(rounded, targets)
    assert actual.dtype == jnp.float32
    np.testing.assert_array_equal(
        actual, losses.cross_entropy(rounded.astype(jnp.float32), targets)
    )


# --- traced hyperparameters -----------------------------------------------------------------------


@pytest.mark.parametrize("name", list(FLOATS))
def test_one_program_serves_every_value_and_vmap_is_a_population(name):
    outputs, targets = draw(8)
    if name == "huber":
        targets = draw(9)[0]
    loss = make_loss({"name": name, FLOATS[name]: 0.1, "l1": 0.1, "l2": 0.1})
    params = {"dense": {"kernel": jnp.arange(4.0), "bias": jnp.ones(2)}}
    traces = []

    @jax.jit
    def objective(hparams):
        traces.append(1)
        return loss.objective(outputs, targets, params, hparams)

    values = np.linspace(0.05, 0.95, 10).astype(np.float32)
    points = [{FLOATS[name]: v, "l1": v / 2, "l2": v / 3} for v in values]
    singles = [objective(jax.tree.map(jnp.float32, point)) for point in points]
    assert len(traces) == 1
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
    together = jax.jit(jax.vmap(lambda hp: loss.objective(outputs, targets, params, hp)))(stacked)
    np.testing.assert_allclose(together, singles, rtol=1e-6)
    assert len(set(np.round(np.asarray(singles), 6).tolist())) == len(values)


def test_the_configs_own_floats_are_ignored_for_the_traced_ones():
    outputs, targets = draw(0)
    section = {"name": "focal", "gamma": 2.0}
    loss = make_loss(section)
    np.testing.assert_array_equal(
        loss.per_example(outputs, targets, {"gamma": 1.0}),
        losses.focal(outputs, targets, gamma=1.0),
    )
    with pytest.raises(KeyError, match="gamma"):
        loss.per_example(outputs, targets, {})


def test_a_feature_that_is_off_is_not_a_hyperparameter():
    section = {"name": "cross_entropy", "label_smoothing": None, "l1": None, "l2": 0.5}
    assert hyperparameters({"loss": section})["loss"] == {"l2": 0.5}
    outputs, targets = draw(0)
    params = {"kernel": jnp.ones(3)}
    value = make_loss(section).objective(outputs, targets, params, {"l2": 0.5})
    expected = losses.cross_entropy(outputs, targets).mean() + 1.5
    assert float(value) == pytest.approx(float(expected), rel=1e-6)


def test_config_keys_are_the_signatures():
    keys = {name: list(fields_of(part)) for name, part in LOSSES.items()}
    masks = {"dice": ["dice_smooth"], "cross_entropy_dice": ["dice_weight", "dice_smooth"]}
    assert keys == {name: [FLOATS[name]] if name in FLOATS else [] for name in LOSSES} | masks
    assert list(fields_of(losses.LossFields)) == [
        "name", "l1", "l2", "penalize", "class_weights", "distill",
    ]  # fmt: skip


# --- class weights --------------------------------------------------------------------------------


@given(counts=st.lists(st.integers(1, 500), min_size=1, max_size=10))
@settings(max_examples=30, deadline=None)
def test_balanced_weights_are_scikit_learns(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    np.testing.assert_allclose(losses.balanced_weights(counts), expected, rtol=1e-12)


def test_a_class_without_examples_weighs_nothing():
    np.testing.assert_allclose(losses.balanced_weights([5, 0, 15]), [2.0, 0.0, 2 / 3])


def test_class_weights_are_resolved_and_checked():
    assert losses.resolve_class_weights(None, [1, 2]) is None
    np.testing.assert_allclose(losses.resolve_class_weights("balanced", [1, 3]), [2.0, 2 / 3])
    np.testing.assert_allclose(losses.resolve_class_weights((1.0, 4.0), [1, 3]), [1.0, 4.0])
    with pytest.raises(ConfigError, match="3 weights for 2 classes"):
        losses.resolve_class_weights((1.0, 2.0, 3.0), [1, 3])
    np.testing.assert_allclose(losses.resolve_class_weights("balanced", [1, 4], 5), [4.0, 0.25])
    with pytest.raises(ConfigError, match="1 weights for 2 labels"):
        losses.resolve_class_weights((1.0,), [1, 4], 5)
    with pytest.raises(ConfigError, match="all are 0"):
        losses.resolve_class_weights((0.0, 0.0), [1, 3])


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("soft", [False, True])
def test_the_objective_is_the_weighted_mean(name, soft):
    outputs, targets = draw(10)
    weights = np.array([0.5, 1.0, 2.0, 0.0, 3.0])
    labels = one_hot(targets, 5) if soft else targets
    loss = make_loss({"name": name}, weights)
    per_example = np.asarray(loss.per_example(outputs, labels, {}), np.float64)
    expected = np.average(per_example, weights=weights[targets])
    assert float(loss.objective(outputs, labels, {}, {})) == pytest.approx(expected, rel=1e-5)


def test_the_weighted_mean_of_a_single_output_follows_its_targets():
    outputs, _ = draw(11, classes=1)
    targets = jnp.asarray(np.random.default_rng(0).integers(0, 2, len(outputs)))
    weights = np.array([1.0, 5.0])
    loss = make_loss({"name": "binary_cross_entropy"}, weights)
    expected = np.average(loss.per_example(outputs, targets, {}), weights=weights[targets])
    for shaped in (targets, targets[:, None], targets.astype(np.float32)):
        value = loss.objective(outputs, shaped, {}, {})
        assert float(value) == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_weightless_classes_alone_counts_nothing():
    outputs, targets = draw(0, classes=2)
    loss = make_loss({"name": "cross_entropy"}, np.array([0.0, 1.0]))
    assert float(loss.objective(outputs, 0 * targets, {}, {})) == 0.0


def test_equal_class_weights_are_none():
    outputs, targets = draw(0)
    weighted = make_loss({"name": "cross_entropy"}, np.full(5, 3.0))
    plain = make_loss({"name": "cross_entropy"})
    assert float(weighted.objective(outputs, targets, {}, {})) == pytest.approx(
        float(plain.objective(outputs, targets, {}, {})), rel=1e-6
    )


# --- penalties ------------------------------------------------------------------------------------

PARAMS = {
    "layer_0": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])},
    "layer_1": {"kernel": jnp.array([[4.0], [-5.0]]), "bias": jnp.array([6.0])},
}


@pytest.mark.parametrize(
    ("patterns", "absolute", "squared"),
    [
        (("kernel",), 12.0, 46.0),
        (("bias",), 9.0, 45.0),
        (("layer_0/kernel",), 3.0, 5.0),
        (("^layer_0/", "layer_1/b"), 12.0, 50.0),
        (("",), 21.0, 91.0),
    ],
)
def test_penalties_are_over_the_chosen_parameters(patterns, absolute, squared):
    outputs, targets = draw(0)
    section = {"name": "cross_entropy", "l1": 0.1, "l2": 0.01, "penalize": patterns}
    loss = make_loss(section)
    base = float(make_loss({"name": "cross_entropy"}).objective(outputs, targets, PARAMS, {}))
    value = loss.objective(outputs, targets, PARAMS, {"l1": 0.1, "l2": 0.01})
    assert float(value) - base == pytest.approx(0.1 * absolute + 0.01 * squared, abs=1e-5)


def test_penalties_that_match_nothing_or_are_no_pattern_are_errors():
    outputs, targets = draw(0)
    loss = make_loss({"name": "cross_entropy", "l2": 0.1, "penalize": ("weights",)})
    with pytest.raises(ConfigError, match=r"matches no parameter.*layer_0/kernel"):
        loss.objective(outputs, targets, PARAMS, {"l2": 0.1})
    with pytest.raises(ConfigError, match="not a regular expression"):
        make_loss({"name": "cross_entropy", "penalize": ("(",)})


# --- probabilities, tasks, names ------------------------------------------------------------------


def test_probabilities_are_softmax_or_sigmoids():
    logits, _ = draw(0)
    for name in ("cross_entropy", "focal"):
        np.testing.assert_allclose(
            make_loss({"name": name}).probabilities(logits),
            scipy.special.softmax(logits, axis=1),
            rtol=1e-5,
        )
    binary = make_loss({"name": "binary_cross_entropy"}).probabilities
    np.testing.assert_allclose(binary(logits), scipy.special.expit(logits), rtol=1e-5)
    p = scipy.special.expit(logits[:, 0])
    np.testing.assert_allclose(binary(logits[:, :1])[:, 1], p, rtol=1e-5)
    np.testing.assert_allclose(binary(logits[:, :1]).sum(axis=1), 1, rtol=1e-6)
    for name in REGRESSION:
        assert make_loss({"name": name}, link="identity").probabilities is None


@given(st.integers(0, 100), st.sampled_from(["softmax", "one_vs_rest", "sigmoid"]))
@settings(max_examples=20, deadline=None)
def test_a_link_gives_outputs_of_the_probabilities_that_it_gave(seed, link):
    logits = np.random.default_rng(seed).normal(0, 3, (7, 1 if seed % 3 == 0 else 4))
    if link == "softmax" and logits.shape[1] == 1:
        logits = np.repeat(logits, 2, axis=1)
    made = losses.LINKS[link]
    probabilities = made.probabilities(jnp.asarray(logits, jnp.float32))
    again = made.probabilities(made.outputs(probabilities, logits.shape[1]))
    np.testing.assert_allclose(again, probabilities, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("smoothing", [None, 0.2])
def test_weights_of_labels_are_on_their_positives(smoothing):
    rng = np.random.default_rng(0)
    outputs = jnp.asarray(rng.normal(size=(9, 3)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, 2, (9, 3)))
    weights = np.array([1.0, 2.5, 7.0])
    section = {"name": "binary_cross_entropy", "label_smoothing": smoothing}
    hparams = {} if smoothing is None else {"label_smoothing": jnp.float32(smoothing)}
    loss = make_loss(section, weights, link="sigmoid")
    y = np.asarray(targets)
    y = y if smoothing is None else (1 - smoothing) * y + smoothing / 2
    p = scipy.special.expit(np.asarray(outputs, np.float64))
    expected = -(weights * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    found = loss.objective(outputs, targets, {}, hparams)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    ones = make_loss(section, np.ones(3), link="sigmoid").objective(outputs, targets, {}, hparams)
    plain = make_loss(section, link="sigmoid").objective(outputs, targets, {}, hparams)
    assert float(ones) == pytest.approx(float(plain), rel=1e-6)


@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_several_numbers_are_averaged(name):
    rng = np.random.default_rng(1)
    outputs, targets = jnp.asarray(rng.normal(size=(2, 8, 3)), jnp.float32)
    each = [LOSSES[name](outputs[:, i : i + 1], targets[:, i]) for i in range(3)]
    np.testing.assert_allclose(LOSSES[name](outputs, targets), np.mean(each, axis=0), rtol=1e-6)


def test_tasks_and_outputs():
    fitting = {
        name: [task.name for task in TASKS.values() if losses.fits(name, task.name, task.losses)]
        for name in LOSSES
    }
    at_positions = ["token_classification", "next_token", "segmentation", "seq2seq"]
    assert fitting == {
        "cross_entropy": ["classification", *at_positions],
        "binary_cross_entropy": ["classification", "multilabel"],
        "focal": ["classification", *at_positions],
        "ctc": ["transcription"],
        **{key: ["regression"] for key in ("mse", "mae", "huber")},
        **{key: ["segmentation"] for key in ("dice", "cross_entropy_dice")},
        **{key: ["pairs"] for key in losses.TOGETHER},
    }


def test_wrong_names_and_wrong_tasks_are_errors():
    with pytest.raises(ConfigError, match="Did you mean 'cross_entropy'"):
        make_loss({"name": "crossentropy"})
    with pytest.raises(ConfigError, match="regression loss"):
        make_loss({"name": "mse"}, np.ones(2), link="identity")


def test_a_users_own_loss_by_dotted_path(tmp_path, monkeypatch):
    (tmp_path / "own_loss.py").write_text(
        "def quantile(outputs, targets, *, level: float = 0.5, power: int = 1):\n"
        "    error = targets - outputs[:, 0]\n"
        "    return power * abs(error) * (level * (error > 0) + (1 - level) * (error <= 0))\n"
        "quantile.task = 'regression'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    section = {"name": "own_loss:quantile", "level": 0.5, "power": 2}
    loss = make_loss(section, link="identity")
    assert loss.probabilities is None
    value = loss.per_example(jnp.array([[0.0], [4.0]]), jnp.array([1.0, 1.0]), {"level": 0.9})
    np.testing.assert_allclose(value, [1.8, 0.6], rtol=1e-5)
    assert losses.fits("own_loss:quantile", "regression", ())
    assert not losses.fits("own_loss:quantile", "classification", ())
