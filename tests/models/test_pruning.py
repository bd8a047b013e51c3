"""Pruning while training: how much goes and when, what is left, and that nothing else changes."""

from __future__ import annotations

import copy
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt import config as configs
from jdlopt.errors import ConfigError
from jdlopt.models import make_model, masks, pruning
from jdlopt.models.pruning_plan import PruneFields, schedule_of, settled_after, sparsity_at
from jdlopt.train import checkpoint
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import as_arrays

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 8)).astype(np.float32)
Y = (X[:, :3] + 0.1 * RNG.normal(size=(48, 3))).argmax(axis=1)
BATCH = {"inputs": jnp.asarray(X[:16]), "targets": jnp.asarray(Y[:16])}
STEPS = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    place = tmp_path_factory.mktemp("pruning") / "data.npz"
    np.savez(place, x_train=X, y_train=Y, x_test=X[:9], y_test=Y[:9])
    return str(place)


@pytest.fixture(scope="module")
def made(source):
    """Makes the experiment of a section and other keys."""

    def build(prune, **more):
        config = {
            "data": {"source": source, "batch_size": 8, "validation_fraction": 0.25},
            "model": {"name": "mlp", "features": (8, 12), "prune": prune},
            "optim": {"learning_rate": 0.02},
            "train": {"steps": STEPS},
            "mesh": {"data": 1},
        }
        return Experiment.build(configs.override(config, more), check=False)

    return build


def trained(experiment, steps=STEPS, state=None, start=0):
    state = experiment.init(0) if state is None else state
    step = jax.jit(experiment.train_step)
    for _ in range(start, steps):
        state, _ = step(state, BATCH)
    return state


def zeros(tree):
    return {"/".join(path): float((leaf == 0).mean()) for path, leaf in flatten_dict(tree).items()}


# --- thresholds -----------------------------------------------------------------------------------


globally = jax.jit(partial(masks.largest, by_layer=False))
by_layers = jax.jit(partial(masks.largest, by_layer=True, stacked=["a"]))


@settings(max_examples=40)
@given(
    st.lists(st.integers(-40, 40), min_size=12, max_size=12, unique=True),
    st.floats(0, 0.99),
)
def test_the_smallest_scores_go(values, sparsity):
    array = np.array(values, np.float32) / 8
    scores = {"a": jnp.asarray(array[:8]).reshape(2, 4), "b": jnp.asarray(array[8:])}
    count = min(round(float(np.float32(sparsity) * np.float32(12))), 11)
    kept = globally(scores, sparsity)
    found = np.concatenate([np.asarray(one).ravel() for one in kept.values()])
    assert found.tolist() == (array >= np.sort(array)[count]).tolist()
    by_layer = by_layers(scores, sparsity)
    for row, score in zip(by_layer["a"], scores["a"], strict=True):
        least = min(round(float(np.float32(sparsity) * np.float32(4))), 3)
        assert row.tolist() == (score >= np.sort(score)[least]).tolist()


def test_of_equal_scores_the_first_go():
    kept = masks.largest({"a": jnp.zeros(3), "b": jnp.array([0.0, 1])}, 0.6, by_layer=False)
    assert kept["a"].tolist() == [False] * 3 and kept["b"].all()
    kept = masks.largest({"a": jnp.array([[0.0, 0, 1], [2, 2, 2]])}, 0.3, by_layer=True,
                         stacked=["a"])  # fmt: skip
    assert kept["a"].tolist() == [[False, True, True]] * 2


def test_two_of_four_stay_along_the_inputs():
    scores = jax.random.normal(KEY, (3, 8, 5))
    kept = np.asarray(masks.n_of_m(scores, 2, 4)).reshape(3, 2, 4, 5)
    ranked = np.argsort(np.argsort(np.asarray(scores).reshape(3, 2, 4, 5), axis=2), axis=2)
    assert (kept == (ranked >= 2)).all()
    assert masks.n_of_m(jnp.zeros((8, 1)), 1, 4).sum() == 2


# --- when -----------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1), st.integers(1, 30) | st.none())
def test_masks_are_settled_when_the_host_says_so(steps, start, end, every):
    section = vars(PruneFields("magnitude", 0.8, start=start, end=end, every=every))
    after = settled_after(section, steps)
    assert 1 <= after <= steps
    schedule = schedule_of(section, {}, steps)
    reached = np.float32(max(schedule.start, schedule.end)) <= after - 1
    assert reached or after == steps


def test_sparsity_rises_as_a_cubic():
    schedule = schedule_of(vars(PruneFields("magnitude", 0.9, start=0.2, end=0.6)), {}, 101)
    found = [float(sparsity_at(jnp.int32(call), schedule)) for call in (0, 20, 30, 40, 60, 100)]
    wanted = [0, 0, 0.9 * (1 - 0.75**3), 0.9 * (1 - 0.5**3), 0.9, 0.9]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


# --- training -------------------------------------------------------------------------------------


def test_a_model_ends_with_the_sparsity_that_is_asked_for(made):
    experiment = made({"criterion": "magnitude", "sparsity": 0.75})
    state = trained(experiment)
    weights = experiment.weights(state)
    found = pruning.sparsity_of(weights.params, weights.model_state)
    assert found["sparsity"] == 0.75 and found["weights"] == 40
    share = zeros(weights.params)
    assert found["layers"] == pytest.approx(
        {path: share[path] for path in ("head/dense_0/kernel", "head/dense_1/kernel")}, abs=1e-6
    )
    assert share["head/outputs/kernel"] == 0 and share["head/dense_0/bias"] == 0
    plain = make_model({"name": "mlp", "features": (8, 12)}, 3)
    outputs = plain.apply(weights.params, {}, BATCH["inputs"], {}, key=None, train=False)[0]
    np.testing.assert_array_equal(experiment.predict(state, BATCH["inputs"]).scaled, outputs)


def test_what_is_pruned_is_not_trained_and_stays_pruned(made):
    experiment = made({"criterion": "magnitude", "sparsity": 0.75})
    before = trained(experiment, 7)
    after = trained(experiment, state=before, start=7)
    for path, mask in flatten_dict(before.model_state["pruning"]["masks"]).items():
        later = flatten_dict(after.model_state["pruning"]["masks"])[path]
        assert not (later & ~mask).any()
    params = unflatten_dict(flatten_dict(before.params))

    def loss(params):
        state = before.model_state
        outputs, _ = experiment.components.model.apply(
            params, state, BATCH["inputs"], before.hparams["model"], key=KEY, train=True
        )
        return (outputs**2).sum()

    gradient = jax.grad(loss)(params)["head"]["dense_1"]["kernel"]
    mask = after.model_state["pruning"]["masks"]["head"]["dense_1"]["kernel"]
    assert (gradient[~mask] == 0).all() and (gradient[mask] != 0).any()


@pytest.mark.parametrize("criterion", ["movement", "gradient"])
def test_scores_are_sums_or_means_of_weight_times_gradient(made, criterion):
    more = {"optim.name": "adamw", "optim.clip_norm": 0.1}
    prune = {"criterion": criterion, "sparsity": 0.5, "start": 0.9, "end": 0.9}
    experiment, plain = made(prune, **more), made({}, **more)

    def loss(params):
        model, objective = plain.components.model, plain.components.loss.objective
        outputs = model.apply(params, {}, BATCH["inputs"], {}, key=KEY, train=True)[0]
        return objective(outputs, BATCH["targets"], params, plain.hparams["loss"])

    state, other, total = experiment.init(0), plain.init(0), 0.0
    step, plainly, gradients = map(
        jax.jit, (experiment.train_step, plain.train_step, jax.grad(loss))
    )
    for _ in range(3):
        kernel = other.params["head"]["dense_0"]["kernel"]
        product = kernel * gradients(other.params)["head"]["dense_0"]["kernel"]
        total += -product if criterion == "movement" else 0.1 * (jnp.abs(product) - total)
        (state, measured), (other, same) = step(state, BATCH), plainly(other, BATCH)
        np.testing.assert_allclose(measured["grad_norm"], same["grad_norm"], rtol=1e-5)
    # nothing is pruned yet: the weights are those of the plain model
    found = state.params[pruning.SCORES]["head"]["dense_0"]["kernel"]
    np.testing.assert_allclose(found, total, atol=1e-6)
    kernels = [one.params["head"]["dense_0"]["kernel"] for one in (state, other)]
    np.testing.assert_allclose(*kernels, atol=1e-6)
    assert pruning.SCORES not in experiment.weights(state).params


SECTIONS = {
    "gradient": {"criterion": "gradient", "sparsity": 0.5, "scope": "layer"},
    "movement": {"criterion": "movement", "sparsity": 0.5},
    "2:4": {"criterion": "magnitude", "structure": "2:4"},
    "units": {"criterion": "gradient", "sparsity": 0.5, "structure": "units", "scope": "layer"},
}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_kind_reaches_its_sparsity_in_every_form(made, name):
    more = {
        "model.ensemble": 2 if name == "movement" else 1,
        "model.dtype": "float16" if name == "gradient" else "bfloat16",
        "optim.average.name": "ema",
        "optim.accumulate": 2,
    }
    experiment = made(SECTIONS[name], **more)
    weights = experiment.weights(trained(experiment))
    found = pruning.sparsity_of(weights.params, weights.model_state)
    assert found["sparsity"] == pytest.approx(0.5, abs=0.01)
    share = zeros(weights.params)
    for path, sparsity in found["layers"].items():
        assert share[path] == pytest.approx(sparsity, abs=1e-6), "the average is pruned as well"
    if name == "units":
        kept = pruning.kept_channels(weights.params, weights.model_state)
        assert [int(one.sum()) for one in kept.values()] == [4, 6]
        bias = weights.params["head"]["dense_1"]["bias"]
        assert (bias[~kept["head/dense_1/kernel"]] == 0).all()


def test_a_population_of_sparsities_equals_its_trials_alone_in_one_program(made):
    experiment = made({"criterion": "magnitude", "sparsity": 0.5, "start": 0.0, "end": 0.5})
    points = [(0.3, 0.0, 0.5), (0.9, 0.1, 0.8), (0.0, 0.2, 0.2)]
    floats = [
        configs.hyperparameters(
            configs.override(
                experiment.config,
                {f"model.prune.{key}": value for key, value in zip(keys, point, strict=True)},
            )
        )
        for point in points
        for keys in [("sparsity", "start", "end")]
    ]
    every = [as_arrays(one) for one in floats]
    hparams = jax.tree.map(lambda *leaves: jnp.stack(leaves), *every)
    together = jax.vmap(experiment.init)(jnp.arange(3), hparams)
    step = jax.jit(jax.vmap(experiment.train_step, in_axes=(0, None)))
    single = jax.jit(experiment.train_step)
    alone = [experiment.init(seed, one) for seed, one in enumerate(every)]
    for _ in range(STEPS):
        together, _ = step(together, BATCH)
        alone = [single(one, BATCH)[0] for one in alone]
    assert single._cache_size() == 1
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    jax.tree.map(
        partial(np.testing.assert_allclose, atol=1e-5),
        (together.params, together.model_state),
        (stacked.params, stacked.model_state),
    )
    reached = [pruning.sparsity_of(one.params, one.model_state)["sparsity"] for one in alone]
    assert reached == pytest.approx([0.3, 0.9, 0.0], abs=0.004)


def test_masks_are_chosen_in_a_branch_of_a_population_too(made):
    experiment = made({"criterion": "magnitude", "sparsity": 0.5})
    states = jax.vmap(experiment.init)(jnp.arange(2))
    traced = jax.make_jaxpr(jax.vmap(experiment.train_step, in_axes=(0, None)))(states, BATCH)
    assert " cond[" in str(traced)


def test_a_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(made, tmp_path):
    experiment = made({"criterion": "movement", "sparsity": 0.8})
    half = trained(experiment, 5)
    checkpoint.save(tmp_path, 5, checkpoint.saved(half), {"step": 5})
    tree = checkpoint.restore(checkpoint.place(tmp_path, 5), checkpoint.saved(experiment.init(1)))
    resumed = trained(experiment, state=checkpoint.unsaved(half, tree), start=5)
    whole = trained(experiment, state=half, start=5)
    jax.tree.map(
        np.testing.assert_array_equal,
        (resumed.params, resumed.model_state),
        (whole.params, whole.model_state),
    )


def test_the_next_round_of_a_ticket_starts_from_early_weights_and_the_masks(made):
    experiment = made({"criterion": "magnitude", "sparsity": 0.5, "start": 0.2, "end": 0.2})
    early = trained(experiment, 2)
    late = trained(experiment, state=early, start=2)
    start = pruning.rewound((early.params, early.model_state), late.model_state)
    hparams = copy.deepcopy(experiment.hparams)
    hparams["model"]["prune"]["sparsity"] = jnp.float32(0.75)
    following = experiment.init(0, hparams, start)
    first = flatten_dict(late.model_state["pruning"]["masks"])
    for path, mask in first.items():
        wanted = np.where(mask, flatten_dict(early.params)[path], 0)
        np.testing.assert_array_equal(flatten_dict(following.params)[path], wanted)
    final = trained(experiment, state=following)
    assert pruning.sparsity_of(final.params, final.model_state)["sparsity"] == 0.75
    for path, mask in flatten_dict(final.model_state["pruning"]["masks"]).items():
        assert not (mask & ~first[path]).any()


# --- units ----------------------------------------------------------------------------------------

UNITS = {
    "cnn": ({"features": (6, 4), "batch_norm": True, "readout": "average"}, (4, 6, 6, 2)),
    "gru": ({"features": 6, "num_layers": 2}, (4, 5, 3)),
    "lstm": ({"features": 6}, (4, 5, 3)),
    "transformer_encoder": ({"features": 8, "num_heads": 4, "num_layers": 2}, (4, 5, 3)),
    "resnet": ({"stem": "cifar", "stage_sizes": (1,), "features": (8,)}, (4, 8, 8, 3)),
}
READERS = {
    "cnn": [("conv_0", "conv_1"), ("conv_1", "head/outputs")],
    "gru": [("gru_0_forward", "gru_1_forward"), ("gru_1_forward", "head/outputs")],
    "lstm": [("lstm_0_forward", "head/outputs")],
    "transformer_encoder": [("layer_1/attention/value", "layer_1/attention/out"),
                            ("layer_0/mlp/up", "layer_0/mlp/down")],
    "resnet": [("stage_0_block_0/conv_0", "stage_0_block_0/conv_1")],
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["gru", *(pytest.param(name, marks=pytest.mark.slow) for name in UNITS if name != "gru")],
)
def test_a_unit_that_is_pruned_says_nothing(name):
    keys, shape = UNITS[name]
    prune = vars(PruneFields("magnitude", 0.5, "units", "layer", start=0.0, end=0.0))
    model = make_model({"name": name, **keys, "prune": prune}, 3)
    x = jax.random.normal(KEY, shape)
    params, state = jax.jit(model.init)(KEY, x, {})
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(KEY, leaf.shape), params)
    apply = jax.jit(partial(model.apply, train=True))
    _, state = apply(params, state, x, {}, key=KEY)
    wanted, _ = apply(params, state, x, {}, key=KEY)
    kept = pruning.kept_channels(params, state)
    changed = flatten_dict(params, sep="/")
    for producer, reader in READERS[name]:
        width = changed[f"{reader}/kernel"].shape[-2]
        gone = ~kept[f"{producer}/kernel"][-width:]
        assert 0 < gone.sum() < width
        changed[f"{reader}/kernel"] += 9.0 * gone[:, None]
    outputs, _ = apply(unflatten_dict(changed, sep="/"), state, x, {}, key=KEY)
    np.testing.assert_allclose(outputs, wanted, atol=1e-5)


def test_stacked_layers_are_pruned_each_by_itself():
    keys = {"name": "transformer_encoder", "features": 8, "num_heads": 2, "num_layers": 2}
    prune = vars(PruneFields("magnitude", 0.5, "units", "layer", start=0.0, end=0.0))
    model = make_model({**keys, "scan_layers": True, "prune": prune}, 3)
    x = jnp.ones((2, 4, 3))
    params, state = jax.jit(model.init)(KEY, x, {})
    shapes = {path: mask.shape for path, mask in flatten_dict(state["pruning"]["masks"]).items()}
    assert shapes["layers", "attention", "value", "kernel"] == (2, 1, 8)
    assert shapes["layers", "mlp", "up", "bias"] == (2, 32)
    _, state = jax.jit(partial(model.apply, train=True))(params, state, x, {}, key=KEY)
    kept = pruning.kept_channels(params, state)
    assert kept["layers/attention/value/kernel"].sum(axis=-1).tolist() == [4, 4]
    assert kept["layers/mlp/up/kernel"].sum(axis=-1).tolist() == [16, 16]


# --- what is off, and what can't be ---------------------------------------------------------------


def test_a_config_that_does_not_prune_is_what_it_was(made):
    experiment = made({})
    plain = experiment.config.to_dict()
    before = copy.deepcopy(plain)
    del before["model"]["prune"]
    assert configs.fingerprint(plain) == configs.fingerprint(before)
    assert "prune" not in configs.hyperparameters(plain)["model"]
    on = configs.override(plain, {"model.prune.criterion": "magnitude"})
    assert configs.fingerprint(on) != configs.fingerprint(plain)
    state = experiment.init(0)
    assert state.model_state == {} and set(state.params) == {"head"}


@pytest.mark.parametrize(
    ("prune", "more", "message"),
    [
        ({"sparsity": 1.0}, {}, r"model.prune.sparsity: must be in \[0, 1\), found 1.0"),
        ({"sparsity": -0.1}, {}, r"model.prune.sparsity: must be in \[0, 1\), found -0.1"),
        ({}, {}, "model.prune.sparsity: is missing"),
        ({"criterion": None, "sparsity": 0.5}, {}, "nothing is pruned without a criterion"),
        ({"structure": "4:2"}, {}, "'4:2' keeps 4 of each 2 weights"),
        ({"structure": "2:5"}, {}, r"does not divide those of head/dense_0/kernel \(8 inputs\)"),
        ({"structure": "2:4", "sparsity": 0.5}, {}, "says already how much goes"),
        ({"structure": "rows", "sparsity": 0.5}, {}, "'rows' is unknown"),
        (
            {"sparsity": 0.5, "patterns": ("dense_00",)},
            {},
            "'dense_00' matches no parameter. The ne",
        ),
        ({"sparsity": 0.5, "patterns": ("bias",)}, {}, "'bias' matches only vectors"),
        ({"sparsity": 0.5, "patterns": ("(",)}, {}, "is not a regular expression"),
        ({"sparsity": 0.5, "start": 0.5, "end": 0.2}, {}, "0.2 is before model.prune.start"),
        ({"sparsity": 0.5, "criterion": "movement", "end": 0.0}, {}, "goes by gradients"),
        ({"sparsity": 0.5, "structure": "units", "patterns": ("outputs",)}, {}, "outputs themselv"),
        ({"sparsity": 0.5}, {"model.lora_rank": 2}, "Leave model.lora_rank out"),
        ({"sparsity": 0.5}, {"train.cache_features": True}, "body that is pruned"),
        ({"sparsity": 0.5}, {"model.features": ()}, "has no kernels but its head's"),
    ],
)
def test_says_what_is_wrong(made, prune, more, message):
    with pytest.raises(ConfigError, match=message):
        made({"criterion": "magnitude", **prune}, **more).init(0)


def test_a_layer_without_channels_is_refused():
    params = {"dense_0": {"kernel": jnp.ones((2, 3))}}
    gone = {"pruning": {"masks": {"dense_0": {"kernel": jnp.zeros((2, 3), bool)}}}}
    with pytest.raises(ConfigError, match="the layer 'dense_0' is left without channels"):
        pruning.kept_channels(params, gone)
