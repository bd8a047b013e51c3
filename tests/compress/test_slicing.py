"""Slicing: what is cut changes nothing if it was zero, and what is left is an ordinary model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAST, OUTPUTS, ROWS, SLOW, Row, base_config, made, outputs

from jdlopt import config as configs
from jdlopt.cli import main
from jdlopt.compress.coupling import COUPLINGS, couplings_of
from jdlopt.compress.entry import Given, Train
from jdlopt.compress.made import save_made
from jdlopt.compress.methods import METHODS
from jdlopt.compress.slicing import flat_weights, nested_weights, sliced
from jdlopt.errors import ConfigError
from jdlopt.models import MODELS
from jdlopt.models.ensemble import with_members
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.state import Weights

slow = pytest.mark.slow


def test_every_model_has_a_coupling_that_is_tested():
    assert set(COUPLINGS) == {name.split()[0] for name in ROWS}
    # refused by name
    assert set(MODELS) - set(COUPLINGS) == {"transformer_seq2seq", "two_towers"}


@pytest.fixture(scope="module")
def base():
    return base_config()


def zeroed(config, weights, keep):
    """Masks that keep a share of each group's channels, and weights without the others."""
    arrays = {path: np.array(one) for path, one in flat_weights(config, weights).items()}
    known = couplings_of(
        config.model.name,
        config.model.options,
        {path: one.shape for path, one in arrays.items()},
        config.model.ensemble,
    )
    rng, masks, counts = np.random.default_rng(2), {}, {}
    for group in known.groups:
        # groups that share a width keep equally many, each its own
        count = counts.setdefault(group.width, max(1, round(keep * group.width)))
        mask = np.zeros(group.width, bool)
        mask[rng.permutation(group.width)[:count]] = True
        masks[group.name] = mask
        for axis in group.axes:
            places = axis.places(group.width, np.flatnonzero(~mask))
            np.moveaxis(arrays[axis.path], axis.axis, 0)[places] = 0.0
    return masks, arrays


def check(base, row, name, ensemble=1):
    config, model, weights = made(base, row, name, ensemble)
    masks, arrays = zeroed(config, weights, 0.5)
    weights = nested_weights(config, weights, arrays)
    found = sliced(config, weights, masks, multiple=1)
    # what is 0 is found, too
    alike = sliced(config, weights, multiple=1)
    jax.tree.map(np.testing.assert_array_equal, alike.weights.params, found.weights.params)
    section = configs.to_dict(found.config.model)
    smaller = row.model(section)
    if ensemble > 1:
        smaller = with_members(smaller, ensemble, lambda outputs: outputs.mean(axis=0))
    shapes = jax.eval_shape(smaller.init, jax.random.key(0), row.inputs(), weights.hparams["model"])
    ours = found.weights.params, found.weights.model_state
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    before, after = outputs(model, weights, row), outputs(smaller, found.weights, row)
    np.testing.assert_allclose(after, before, rtol=2e-4, atol=1e-5 * np.abs(before).max())
    if masks:
        assert np.abs(before).max() > 1e-3
        size = sum(leaf.size for leaf in jax.tree.leaves(ours))
        assert size < sum(leaf.size for leaf in jax.tree.leaves(weights.params))


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(one, marks=slow) for one in SLOW)])
def test_channels_that_are_zero_are_cut_without_a_change(base, name):
    check(base, ROWS[name], name.split()[0])


def test_models_of_an_ensemble_lose_channels_of_their_own_and_equally_many(base):
    check(base, ROWS["mlp"], "mlp", ensemble=2)


def test_adapters_are_merged_and_what_was_started_from_is_left_behind(base):
    row = Row({"features": (6, 4), "lora_rank": 2, "lora_alpha": 3.0, "pretrained": "x"}, (5, 2))
    config, model, weights = made(base, row, "cnn")
    optim = dataclasses.replace(config.optim, freeze=("^base/(?!head/)", "bias"))
    found = sliced(dataclasses.replace(config, optim=optim), weights, 1.0)
    section = configs.to_dict(found.config.model)
    assert section["lora_rank"] is section["lora_alpha"] is section["pretrained"] is None
    assert found.config.optim.freeze == ("bias",)
    np.testing.assert_allclose(
        outputs(row.model(section), found.weights, row), outputs(model, weights, row), rtol=1e-5
    )


WIDE = Row({"features": (32, 20, 8)}, (3,))


def test_widths_are_multiples_of_8_and_never_0(base):
    config, _, weights = made(base, WIDE, "mlp")
    widths = {share: sliced(config, weights, share) for share in (1.0, 0.7, 0.5, 0.01)}
    assert {share: one.config.model.options["features"] for share, one in widths.items()} == {
        1.0: (32, 20, 8), 0.7: (24, 16, 8), 0.5: (16, 8, 8), 0.01: (8, 8, 8),
    }  # fmt: skip
    assert widths[0.5].widths["head/dense_1"] == (20, 8)


@settings(max_examples=15, deadline=None)
@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    share=st.floats(0.01, 1.0),
    multiple=st.integers(1, 9),
    scope=st.sampled_from(("layer", "global")),
)
def test_any_share_leaves_each_layer_some_channels_in_their_order(
    base, widths, share, multiple, scope
):
    model = dataclasses.replace(base.model, name="mlp", options={"features": tuple(widths)})
    config, rng = dataclasses.replace(base, model=model), np.random.default_rng(0)
    layers = {f"dense_{index}": width for index, width in enumerate(widths)} | {"outputs": OUTPUTS}
    params, before = {}, 2
    for name, width in layers.items():
        # a bias says which channel it was
        kernel = jnp.asarray(rng.normal(size=(before, width)))
        params[name], before = {"kernel": kernel, "bias": jnp.arange(float(width))}, width
    weights = Weights({"head": params}, {}, {"model": {}})
    found = sliced(config, weights, share, scope=scope, multiple=multiple)
    after = 2
    for name, kept in zip(layers, (*found.config.model.options["features"], OUTPUTS)):
        layer, old = found.weights.params["head"][name], params[name]
        assert layer["kernel"].shape == (after, kept) and layer["bias"].shape == (kept,)
        numbers = np.asarray(layer["bias"], int)
        assert (np.diff(numbers) > 0).all()
        if name != "outputs":
            assert kept == layers[name] or (kept % multiple == 0 and 0 < kept < layers[name])
        if after == len(old["kernel"]):
            np.testing.assert_array_equal(layer["kernel"], old["kernel"][:, numbers])
        after = kept


@slow
def test_units_that_training_pruned_are_cut_without_a_change():
    prune = {"criterion": "magnitude", "sparsity": 0.5, "structure": "units", "scope": "layer"}
    raw = {
        "data": {"source": "digits", "batch_size": 64},
        "mesh": {"data": 1},
        "model": {"name": "cnn", "features": (6, 4), "hidden": (8,), "batch_norm": True,
                  "prune": prune},
        "optim": {"name": "sgd", "learning_rate": 1e-3},
        "train": {"epochs": 1},
    }  # fmt: skip
    run = fit(raw)
    found = sliced(run.config, run.weights, multiple=1)
    assert found.config.model.options["features"] == (3, 2)
    smaller = Experiment.build(found.config, run.experiment.data, begins=False)
    assert jax.tree.structure(smaller.hparams) == jax.tree.structure(found.weights.hparams)
    x = run.experiment.data.read("validation")[0][:9]
    before = run.experiment.predict(run.weights, x).outputs
    np.testing.assert_allclose(smaller.predict(found.weights, x).outputs, before, atol=1e-4)


@slow
def test_units_of_an_ensemble_are_pruned_to_widths_that_are_known_before():
    raw = {
        "data": {"source": "iris"},
        "model": {"name": "mlp", "features": (32,), "ensemble": 2},
        "optim": {"name": "sgd"},
        "mesh": {"data": 1},
    }
    experiment = Experiment.build(raw, check=False)
    method = METHODS["unit_pruning"]
    given = Given(Path("run"), experiment, experiment.weights(experiment.init(0)), None)
    assert method.why_not(given) is None
    assert [one.name for one in method.candidates(given)] == ["units_75", "units_50", "units_25"]


def test_ranges_of_inputs_are_kept(base):
    config, _, weights = made(base, ROWS["cnn"], "cnn")
    ranges = {"conv_1": {"input": {"low": jnp.float32(-1), "high": jnp.float32(2)}}}
    state = {**weights.model_state, "ranges": ranges}
    found = sliced(config, weights.replace(model_state=state), 0.5, multiple=1)
    assert found.weights.model_state["ranges"] == ranges
    assert found.config.model.options["features"] == (2, 3)


def test_the_channels_that_count_most_are_kept_in_a_layer_or_in_the_model(base):
    config, _, weights = made(base, WIDE, "mlp")
    params = weights.params["head"]
    # the first layer's odd channels count, and the second's none against them
    weak = jnp.where(jnp.arange(32) % 2, 1.0, 0.01)
    first, second = params["dense_0"], params["dense_1"]
    first = {**first, "kernel": first["kernel"] * weak}
    second = {**second, "kernel": second["kernel"] * weak[:, None]}
    weights = weights.replace(params={"head": {**params, "dense_0": first, "dense_1": second}})
    found = sliced(config, weights, 0.5)
    np.testing.assert_array_equal(
        found.weights.params["head"]["dense_0"]["kernel"], first["kernel"][:, 1::2]
    )
    spread = sliced(config, weights, 0.75, scope="global").config.model.options["features"]
    assert spread == (16, 20, 8)
    scores = {"head/dense_0": np.arange(32.0), "head/dense_1": np.ones(20)}
    scores["head/dense_2"] = np.ones(8)
    last = sliced(config, weights, 0.25, scores=scores).weights.params["head"]["dense_0"]["kernel"]
    np.testing.assert_array_equal(last, first["kernel"][:, -8:])


def test_widths_that_must_differ_do(base):
    row = Row({"features": (16, 24)}, (5, 4))
    config, _, weights = made(base, row, "tcn")
    found = sliced(config, weights, {"block_0/conv_1": np.arange(16) < 8,
                                     "block_1/conv_1": np.arange(24) < 8})  # fmt: skip
    assert found.config.model.options["features"] == (8, 16)
    assert found.config.model.options["block_features"] == (16, 24)
    smaller = row.model(configs.to_dict(found.config.model))
    shapes = jax.eval_shape(smaller.init, jax.random.key(0), row.inputs(), {})[0]
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(
        jnp.shape, found.weights.params
    )


def test_what_cannot_be_sliced_is_refused_by_the_name_of_its_layer(base):
    config, _, weights = made(base, WIDE, "mlp")

    def refused(kept, weights=weights, config=config, **options):
        with pytest.raises(ConfigError) as error:
            sliced(config, weights, kept, **options)
        return str(error.value)

    assert "'head/dense_1' is left without channels" in refused({"head/dense_1": np.zeros(20)})
    assert "20 channels" in refused({"head/dense_1": np.ones(3)})
    assert "'head/dens_1'" in refused({"head/dens_1": np.ones(20)})
    for share in (0.0, 1.5, float("nan")):
        assert "in (0, 1]" in refused(share)
    assert "'model'" in refused(0.5, scope="model")
    own = dataclasses.replace(config.model, name="my.models:Net", options={})
    assert "head/dense_0" in refused(0.5, config=dataclasses.replace(config, model=own))
    odd = {**weights.params, "gate": {"kernel": jnp.ones((32, 2))}}
    assert "gate" in refused(0.5, weights.replace(params=odd))


def test_keys_of_widths_change_nothing_where_they_say_what_is_so_already():
    """Parameters are the same to the bit, whether a width is said or left out."""
    row, key = ROWS["resnet"], jax.random.key(3)
    said = {"stem_features": 4, "block_features": (4, 6)}
    models = [row.model({"name": "resnet", **row.section, **more}) for more in ({}, said)]
    params = [jax.jit(model.init)(key, row.inputs(), {})[0] for model in models]
    jax.tree.map(np.testing.assert_array_equal, *params)
    wrong = row.model({"name": "resnet", **row.section, "block_features": (4,)})
    with pytest.raises(ConfigError, match="block_features: expected 2 numbers"):
        wrong.init(key, row.inputs(), {})
    # nor does a key that is off, in the fingerprint
    plain = {"model": {"name": "resnet", "features": (4, 6)}}
    off = {"model": {**plain["model"], "block_features": None}}
    assert configs.fingerprint(plain) == configs.fingerprint(off)
    assert configs.fingerprint(plain) != configs.fingerprint({"model": {**plain["model"], **said}})


def test_a_run_has_candidates_whose_widths_are_the_same_for_every_seed(base):
    config, _, weights = made(base, WIDE, "mlp")
    method, given = METHODS["slicing"], Given(None, SimpleNamespace(config=config), weights, None)
    assert method.why_not(given) is None
    widths = {}
    for one in method.candidates(given):
        cut, train = one.stages
        assert isinstance(train, Train) and not train.anew
        smaller, fewer = cut.function(config, weights, lambda: iter(()))
        widths[one.name] = smaller.model.options["features"]
        assert fewer.params["head"]["dense_0"]["kernel"].shape == (3, widths[one.name][0])
    assert widths == {"slice_75": (24, 16, 8), "slice_50": (16, 8, 8), "slice_25": (8, 8, 8)}
    config, _, weights = made(base, Row({"features": (8,)}, (3,)), "mlp")
    given = Given(None, SimpleNamespace(config=config), weights, None)
    with pytest.raises(ConfigError, match="multiples of 8"):
        method.candidates(given)


@slow
def test_a_sliced_run_is_a_run(tmp_path):
    """It is evaluated, diagnosed and trained on as any other."""
    raw = {
        "data": {"source": "wine", "batch_size": 16, "preprocess": {"scale": "standard"}},
        "model": {"name": "mlp", "features": (32,), "batch_norm": True},
        "optim": {"name": "adam", "learning_rate": 0.01},
        "train": {"epochs": 3, "tensorboard": False},
    }
    source = fit(raw, tmp_path / "source")
    found = sliced(source.config, source.weights, 0.5)
    run = save_made(source, found.config, found.weights, tmp_path / "made", {"method": "slicing"})
    assert run.config.model.options["features"] == (16,)
    assert run.metrics["test/loss"] == pytest.approx(run.evaluate("test")["loss"])
    assert main(["diagnose", str(run.workdir), "--json"]) == 0
    on = configs.override(raw, {"model.pretrained": str(run.workdir), "model.features": (16,)})
    assert fit(on).record["pretrained"]["tensors"] == 7
