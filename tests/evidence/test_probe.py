"""What a probe measures, against closed forms and references."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.calibration import calibration_curve

from jdlopt.data.pools import Arrays
from jdlopt.evidence import activations, examples, gather, probe, rates
from jdlopt.train.experiment import Experiment
from jdlopt.train.predict import predictor

TINY = {
    "mesh": {"data": 1},
    "data": {"source": "iris", "batch_size": 10, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (6,)},
    "loss": {"name": "cross_entropy"},
    "optim": {"name": "sgd", "learning_rate": 0.1, "schedule": {"name": "cosine"}},
    "train": {"steps": 20},
}


@pytest.fixture(scope="module")
def tiny():
    parts = Experiment.build(TINY)
    return parts, jax.jit(parts.init)(jnp.uint32(0)), parts.hparams


# --- activations ----------------------------------------------------------------------------------


class Net(nn.Module):
    """A layer in which some ReLUs are dead and one in which some tanhs are flat."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(4, bias_init=lambda *_: jnp.array([0.0, 0.0, 0.0, -1e3]))(x))
        x = jnp.tanh(nn.Dense(5, bias_init=nn.initializers.constant(50.0))(x))
        return nn.Dense(2)(x)


def test_dead_and_saturated_units_are_counted():
    x = jax.random.normal(jax.random.key(0), (64, 3))
    net = Net()
    params = net.init(jax.random.key(1), x)["params"]
    kinds, measure = activations.watch(lambda p, x: net.apply({"params": p}, x), params, x)
    measured = jax.jit(measure)
    whole = activations.finish(kinds, measured(params, x))
    assert [(row["layer"], row["kind"]) for row in whole] == [
        ("Dense_0", "relu"),
        ("Dense_1", "tanh"),
    ]
    assert whole[0]["dead"] == 0.25 and whole[0]["saturated"] is None
    assert whole[1]["saturated"] == 1.0 and whole[1]["dead"] is None
    hidden = nn.relu(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    assert whole[0]["rms_after"] == pytest.approx(float(jnp.sqrt(jnp.mean(hidden**2))), rel=1e-5)
    values = np.linalg.eigvalsh(np.cov(np.asarray(hidden, np.float64).T, bias=True))
    assert whole[0]["rank"] == pytest.approx(activations.effective_rank(values), rel=1e-4)
    _, of_half = activations.watch(lambda p, x: net.apply({"params": p}, x), params, x[:32])
    halves = activations.combine(of_half(params, x[:32]), of_half(params, x[32:]))
    for one, other in zip(whole, activations.finish(kinds, halves)):
        assert one["layer"] == other["layer"]
        for key in ("dead", "saturated", "rms_after", "rank"):
            assert one[key] == (None if other[key] is None else pytest.approx(other[key], rel=1e-4))


def test_an_nnx_module_is_watched_too_and_gates_are_no_activations():
    module = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    graph, state = nnx.split(module)
    x = jnp.ones((5, 3))

    def gated(params, x):
        y = nnx.merge(graph, params)(x)
        return jax.nn.sigmoid(y) * jnp.tanh(y)

    assert activations.watch(gated, state, x)[0] == []

    def plain(params, x):
        return jax.nn.sigmoid(nnx.merge(graph, params)(x)) + 0.0

    assert [row["kind"] for row in activations.watch(plain, state, x)[0]] == ["sigmoid"]


def test_watching_looks_into_remat_and_leaves_the_result_as_it_is():
    def function(params, x):
        return jax.checkpoint(lambda p, x: jax.nn.relu(x @ p))(params["w"], x)

    params, x = {"w": jnp.eye(3)}, jax.random.normal(jax.random.key(0), (4, 3))
    kinds, measure = activations.watch(function, params, x)
    assert [row["kind"] for row in kinds] == ["relu"]
    assert float(measure(params, x)[0]["count"]) == 4


def rows_of(function, params, x):
    kinds, measure = activations.watch(function, params, x)
    return activations.finish(kinds, jax.device_get(jax.jit(measure)(params, x)))


def numbers(row):
    left_out = ("layer", "kind")
    return {k: value for k, value in row.items() if k not in left_out and value is not None}


def test_each_layer_of_a_scanned_stack_is_watched_as_if_it_stood_alone():
    weights = (
        jax.random.normal(jax.random.key(0), (3, 4, 4)) * jnp.array([0.1, 1.0, 9.0])[:, None, None]
    )
    params, x = {"block": {"kernel": weights}}, jax.random.normal(jax.random.key(1), (32, 4))

    def layer(x, w):
        return jnp.tanh(jax.nn.relu(x @ w) - 0.5)

    def scanned(params, x):
        x, _ = jax.lax.scan(lambda x, w: (layer(x, w), None), x, params["block"]["kernel"])
        return x @ jnp.ones((4, 2))

    def unrolled(params, x):
        for w in params["block"]["kernel"]:
            x = layer(x, w)
        return x @ jnp.ones((4, 2))

    found, expected = rows_of(scanned, params, x), rows_of(unrolled, params, x)
    assert [(row["layer"], row["kind"]) for row in found] == [
        (f"block[{index}]", kind) for index in range(3) for kind in ("relu", "tanh")
    ]
    for row, other in zip(found, expected, strict=True):
        assert numbers(row) == pytest.approx(numbers(other), rel=1e-4)
    assert found[5]["saturated"] > found[1]["saturated"]


def test_a_recurrent_cell_is_watched_over_all_its_steps():
    rnn = nn.RNN(nn.SimpleCell(5))
    x = 3 * jax.random.normal(jax.random.key(0), (8, 7, 3))
    params = rnn.init(jax.random.key(1), x)["params"]
    (row,) = rows_of(lambda p, x: rnn.apply({"params": p}, x), params, x)
    states = np.asarray(rnn.apply({"params": params}, x))
    flat = states.reshape(-1, 5)
    assert (row["kind"], row["units"]) == ("tanh", 5)
    assert row["rms_after"] == pytest.approx(np.sqrt(np.mean(flat**2)), rel=1e-5)
    assert row["saturated"] == pytest.approx(np.mean(1 - flat**2 < activations.FLAT))
    assert row["rank"] == pytest.approx(
        activations.effective_rank(np.linalg.eigvalsh(np.cov(flat.T, bias=True))), rel=1e-3
    )


def test_loops_in_loops_keep_their_layers_apart_and_gates_are_left_out():
    params = {"w": jax.random.normal(jax.random.key(0), (2, 3, 4, 4))}
    x = jax.random.normal(jax.random.key(1), (6, 4))

    def inner(x, w):
        return jax.nn.relu(x @ w) * jax.nn.sigmoid(x), None

    def function(params, x):
        return jax.lax.scan(lambda x, ws: (jax.lax.scan(inner, x, ws)[0], None), x, params["w"])[0]

    kinds, measure = activations.watch(function, params, x)
    assert kinds == [
        {"layer": f"w[{outer}][{index}]", "kind": "relu"}
        for outer in range(2)
        for index in range(3)
    ]
    last = measure(params, x)[-1]
    before = function({"w": params["w"][:1]}, x)
    before = jax.lax.scan(inner, before, params["w"][1, :2])[0]
    assert last["active"] == pytest.approx(jax.nn.relu(before @ params["w"][1, 2]).max(axis=0))


# --- gradients ------------------------------------------------------------------------------------


def test_gradients_are_those_of_each_batch_and_of_their_mean(tiny):
    parts, state, hparams = tiny
    arrays = parts.data.read("train")
    batches = {"inputs": arrays.inputs[:40], "targets": arrays.targets[:40]}
    batches = {name: v.reshape(4, 10, *v.shape[1:]) for name, v in batches.items()}
    found = probe.gradient_program(parts, state, batches, jax.random.key(0))(state)

    seen = partial(parts.components.preprocess, state.preprocess)

    def loss(params, inputs, targets):
        outputs, _ = parts.components.model.apply(
            params, {}, seen(inputs), hparams["model"], key=None, train=False
        )
        return parts.components.loss.per_example(outputs, targets, hparams["loss"]).mean()

    grad = jax.jit(jax.grad(loss))
    each = [grad(state.params, x, y) for x, y in zip(batches["inputs"], batches["targets"])]
    squares = [[float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(one)] for one in each]
    np.testing.assert_allclose(np.array(found[1]).T, squares, rtol=1e-4)
    whole = grad(state.params, arrays.inputs[:40], arrays.targets[:40])
    expected = [float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(whole)]
    np.testing.assert_allclose(found[2], expected, rtol=1e-4)


def test_the_noise_scale_of_a_known_noise():
    # gradients g + noise with covariance s² I in d dimensions: |G|² = |g|², tr(Σ) = d s²
    draw = np.random.default_rng(0)
    g, s, small, batches = np.full(50, 0.3), 2.0, 10, 4000
    means = g + s / np.sqrt(small) * draw.normal(size=(batches, 50))
    pairs = means.reshape(-1, 20, 50).mean(axis=1)
    found = probe.noise_scale(
        float((means**2).sum(1).mean()), float((pairs**2).sum(1).mean()), small, 20 * small
    )
    assert found["gradient_square"] == pytest.approx(g @ g, rel=0.05)
    assert found["trace"] == pytest.approx(50 * s**2, rel=0.05)
    assert found["scale"] == pytest.approx(50 * s**2 / (g @ g), rel=0.1)
    assert probe.noise_scale(1.0, 0.05, 1, 10)["scale"] is None  # all noise


def test_pruning_takes_the_smallest_weights_and_no_bias():
    params = {"kernel": jnp.arange(1.0, 11.0).reshape(2, 5), "bias": jnp.full(5, 0.01)}
    left = probe.pruned(params, jnp.float32(0.5))
    assert int((left["kernel"] == 0).sum()) == 5 and float(left["kernel"].max()) == 10
    np.testing.assert_array_equal(left["bias"], params["bias"])


def test_predictions_and_the_loss_of_saying_nothing(tiny):
    parts, state, _ = tiny
    arrays = parts.data.read("validation")
    told = predictor(parts, 16)(parts.weights(state), *arrays)
    assert told.probabilities.sum(axis=1) == pytest.approx(1.0)
    expected = -np.log(told.probabilities[np.arange(len(arrays.targets)), arrays.targets])
    np.testing.assert_allclose(told.losses, expected, rtol=1e-4)
    trivial = probe.trivial_loss(parts, np.array([0, 1, 2] * 10), arrays.targets)
    assert trivial == pytest.approx(np.log(3), rel=1e-5)


# --- rates ----------------------------------------------------------------------------------------


def test_the_range_test_compiles_once_and_finds_the_rates_of_a_model(tiny):
    parts, _, _ = tiny
    found = rates.range_test(parts.config, parts.data, steps=60, repeats=2)
    assert found["rate"] == 0.1 and len(found["rates"]) == len(found["losses"]) == 60
    # plain gradient descent on four standardised features: 1e-5 does nothing, 1000 breaks it
    assert 0.05 < found["best_rate"] < 100
    assert found["lowest"] < 0.5 < found["start"]
    assert found["suggested"] == pytest.approx(found["best_rate"] / 10)


def test_a_range_test_that_learns_nothing_says_nothing():
    some = np.logspace(-5, 1, 50)
    assert rates.read_curve(some, np.full(50, 2.3))["best_rate"] is None
    assert rates.read_curve(some, np.full(50, np.nan))["best_rate"] is None


# --- examples -------------------------------------------------------------------------------------


def test_the_calibration_error_against_scikit_learns_bins():
    draw = np.random.default_rng(0)
    first = draw.uniform(0.5, 1.0, 3000)
    targets = (draw.random(3000) > first**2).astype(int)
    probabilities = np.stack([first, 1 - first], axis=1)
    found = examples.calibration(probabilities, targets)
    right, claimed = calibration_curve(targets == 0, first, n_bins=15)
    counts = [row["count"] for row in found["bins"]]
    expected = np.sum(np.abs(right - claimed) * counts) / 3000
    assert found["ece"] == pytest.approx(expected, abs=1e-9)
    assert found["ece"] > found["chance"]
    fair = (draw.random(3000) > first).astype(int)
    told = examples.calibration(probabilities, fair)
    assert told["ece"] < 1.2 * told["chance"]


def test_gaps_and_categories_that_training_lacks_are_no_shift():
    draw = np.random.default_rng(0)
    values = np.stack([draw.normal(size=(800,)), draw.gamma(2.0, size=800)], axis=1)
    values[draw.random((800, 2)) < 0.3] = np.nan
    names = draw.integers(0, 300, 800)  # many occur once
    train, validation = names[:500], names[500:]
    known = {name: code for code, name in enumerate(np.unique(train), 1)}
    codes = np.array([known.get(name, 0) for name in names], float)
    rows = np.concatenate([values, codes[:, None]], axis=1)
    assert (codes[500:] == 0).mean() > 0.1 and len(train) > len(validation)
    one, other = (examples.vectors(rows[part], rows[:500], [2]) for part in
                  (slice(0, 500), slice(500, 800)))  # fmt: skip
    assert np.isfinite(one).all() and np.isfinite(other).all()
    median = np.nanmedian(rows[:500, 1])
    np.testing.assert_array_equal(other[np.isnan(rows[500:, 1]), 1], median)
    assert abs(examples.two_sample(one, other)["z"]) < 3
    assert examples.shifted_columns(one, other, "abc") == []
    more_gaps = rows[500:].copy()
    more_gaps[draw.random(300) < 0.8, 0] = np.nan  # how often a value is missing may differ
    assert examples.two_sample(one, examples.vectors(more_gaps, rows[:500], [2]))["z"] > 3


def test_a_random_split_of_wide_noise_is_no_shift():
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(700, 1500)), draw.normal(size=(250, 1500))
    assert abs(examples.two_sample(*examples.reduced(one, other))["z"]) < 3
    other[:, :200] += 0.5
    assert examples.two_sample(*examples.reduced(one, other))["z"] > 3


def test_two_samples_that_differ_are_told_apart_and_equal_ones_are_not():
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(300, 5)), draw.normal(size=(200, 5))
    alike = examples.two_sample(one, other)
    assert abs(alike["z"]) < 3
    moved = other + np.array([2.0, 0, 0, 0, 0])
    apart = examples.two_sample(one, moved)
    assert apart["area"] > 0.8 and apart["z"] > 10
    names = list("abcde")
    assert [row["name"] for row in examples.shifted_columns(one, moved, names)] == ["a"]
    assert examples.shifted_columns(one, other, names) == []
    assert examples.two_sample(one, other[:10]) is None


def test_a_column_that_gives_the_target_away_is_named():
    draw = np.random.default_rng(0)
    targets = draw.integers(3, size=300)
    columns = np.stack([draw.normal(size=300), 2.0 * targets + draw.normal(size=300) * 0.1], axis=1)
    found = examples.giveaways(columns, targets, ["noise", "leak"], True, 0.98)
    assert [row["name"] for row in found] == ["leak"]
    assert examples.giveaways(columns, columns[:, 1], ["noise", "leak"], False, 0.98)


def test_skipped_steps_are_counted_by_the_steps_that_a_line_stands_for():
    lines = [{"step": 10, "train/skipped": 0.5}, {"step": 30, "train/skipped": 0.0}]
    config = {"model": {"dtype": "float16"}}
    found = gather.precision(config, {"status": "done"}, lines)
    assert found["skipped"] == 5 and found["skipped_share"] == pytest.approx(5 / 30)


def test_what_makes_probabilities_of_outputs_is_no_layer():
    raw = {**TINY, "loss": {"name": "binary_cross_entropy"}, "model": {"name": "linear"}}
    built = Experiment.build(raw)
    train = built.data.read("train")
    some = Arrays(train.inputs[:32], train.targets[:32])
    watch = probe.activation_program(built, built.weights(built.init(0)), some)
    assert watch(built.weights(built.init(0))) == []
