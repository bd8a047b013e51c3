"""Simulated quantization: few values, exact arithmetic, straight gradients, one program."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

import jdlopt
from jdlopt import config as configs
from jdlopt.errors import ConfigError
from jdlopt.models import make_model
from jdlopt.models.bridge import bridge
from jdlopt.models.kernel_inputs import is_range, layer_of
from jdlopt.models.quantization import (
    QuantizeFields,
    activation_codes,
    quantized_activations,
    quantized_state,
    weight_codes,
    with_quantization,
)
from jdlopt.models.recurrent import gru_step
from jdlopt.train.experiment import Experiment
from jdlopt.train.longer import LongerRunWarning

KEY = jax.random.key(0)
GRU = {"name": "gru", "features": 6}


def few(weights=None, activations=None):
    """The hyperparameters of a model with so many bits."""
    bits = {"weights": weights, "activations": activations}
    return {"quantize": {name: jnp.float32(bit) for name, bit in bits.items() if bit is not None}}


def model_of(section, weights=8.0, activations=8.0, **keys):
    quantize = {"weights": weights, "activations": activations, **keys}
    return make_model({**section, "quantize": quantize}, 3)


# --- numbers --------------------------------------------------------------------------------------


def test_eight_bits_of_a_linear_layer_equal_integer_arithmetic():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(16, 12)), rng.normal(size=(12, 3))
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)
    model, low, high = model_of({"name": "linear"}), np.float32(-2), np.float32(3)
    params = {"outputs": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(3)}}
    state = {"ranges": {"outputs": {"input": {"low": jnp.asarray(low), "high": jnp.asarray(high)}}}}
    apply = jax.jit(lambda x, bits: model.apply(params, state, x, bits, key=None, train=False)[0])
    found = apply(jnp.asarray(x), few(8, 8))
    scales = np.abs(kernel).max(axis=0) / np.float32(127)
    weights = np.clip(np.round(kernel / scales), -127, 127).astype(np.int32)
    step = (high - low) / np.float32(255)
    zero = np.round(-low / step)
    inputs = np.clip(np.round(x / step) + zero, 0, 255).astype(np.int32)
    sums = (inputs - int(zero)) @ weights  # what an integer kernel adds up
    np.testing.assert_allclose(found, sums * step * scales, rtol=2e-6, atol=2e-6)
    made = weight_codes(jnp.asarray(kernel), 8)
    np.testing.assert_array_equal(made.codes, weights)
    np.testing.assert_array_equal(made.values, weights.astype(np.float32) * scales)
    np.testing.assert_array_equal(activation_codes(jnp.asarray(x), 8, -2.0, 3.0).codes, inputs)


@jax.jit
def coded(x, bits):
    inputs = activation_codes(x, bits, x.min() / 2, x.max() / 2)
    weights = [weight_codes(x, bits, calibration=how).codes for how in ("minmax", "mse")]
    return inputs.codes, inputs.zero, inputs.values, *weights


@given(bits=st.floats(2, 8, width=32) | st.integers(2, 8), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_codes_take_at_most_as_many_values_as_bits_have(bits, seed):
    x = np.random.default_rng(seed).normal(size=(500, 2)).astype(np.float32)
    inputs, zero, values, *weights = map(np.asarray, coded(jnp.asarray(x), jnp.float32(bits)))
    for codes in (inputs, *(one[:, channel] for one in weights for channel in (0, 1))):
        assert len(np.unique(codes)) <= 2**bits
        assert np.array_equal(codes, np.round(codes))
    assert inputs.min() >= 0 and max(np.abs(one).max() for one in weights) < 2 ** (bits - 1)
    assert not values[inputs == zero].any()


@pytest.mark.slow
def test_less_is_lost_where_the_range_is_chosen_by_the_error():
    kernel = jax.random.laplace(KEY, (400, 3))
    error = {
        how: float(jnp.square(weight_codes(kernel, 4, calibration=how).values - kernel).sum())
        for how in ("minmax", "percentile", "mse")
    }
    assert error["mse"] <= min(error.values()) and error["mse"] < 0.7 * error["minmax"]
    each = weight_codes(kernel * jnp.array([1.0, 10.0, 0.1]), 4)
    assert each.scale.shape == (1, 3)
    assert weight_codes(kernel, 4, per="tensor").scale.shape == (1, 1)
    layers = weight_codes(kernel.reshape(4, 100, 3), 4, stacked=True)
    assert layers.scale.shape == (4, 1, 3)


@pytest.mark.slow
def test_equals_torchs_fake_quantization():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(40, 7)).astype(np.float32)
    x = rng.normal(size=(50, 9)).astype(np.float32)
    made = weight_codes(jnp.asarray(kernel), 5)
    scales = torch.tensor(np.asarray(made.scale[0]))
    zeros = torch.zeros(7, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(torch.tensor(kernel), scales, zeros, 1, -15, 15)
    np.testing.assert_allclose(made.values, theirs.numpy(), rtol=1e-6)
    known = activation_codes(jnp.asarray(x), 4, -1.0, 2.0)
    given = torch.tensor(x, requires_grad=True)
    other = torch.fake_quantize_per_tensor_affine(given, float(known.scale), int(known.zero), 0, 15)
    np.testing.assert_allclose(known.values, other.detach().numpy(), rtol=1e-6)
    other.sum().backward()
    gradient = jax.grad(lambda x: quantized_activations(x, 4, -1.0, 2.0).sum())(jnp.asarray(x))
    np.testing.assert_array_equal(gradient, given.grad.numpy())


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_recurrence_is_quantized_in_its_kernels_and_its_state():
    model, x = model_of(GRU), jax.random.normal(KEY, (4, 5, 3))
    params, state = jax.jit(model.init)(KEY, x, few(3, 3))
    layer, head = params["gru_0_forward"], params["head"]["outputs"]
    known = state["ranges"]["gru_0_forward"]["input"]
    known |= {"low": jnp.float32(-2), "high": jnp.float32(3)}
    found = jax.jit(
        lambda params, state: model.apply(params, state, x, few(3, 3), key=None, train=False)[0]
    )(params, state)
    kernel, recurrent, last = (
        weight_codes(one, 3).values
        for one in (layer["kernel"], layer["recurrent_kernel"], head["kernel"])
    )
    h = jnp.zeros((4, 6))
    for time in range(5):
        projected = quantized_activations(x[:, time], 3, -2.0, 3.0) @ kernel + layer["bias"]
        seen = quantized_state(h, 3)
        (h,) = gru_step((h,), projected, recurrent, layer["recurrent_bias"], seen)
    np.testing.assert_allclose(found, h @ last + head["bias"], atol=1e-5)


def test_gradients_pass_through_rounding():
    model, x = model_of({"name": "linear"}, activations=None), jax.random.normal(KEY, (8, 4))
    params, state = model.init(KEY, x, few(2))

    def value(params):
        return jnp.square(model.apply(params, state, x, few(2), key=None, train=True)[0]).sum()

    found = jax.grad(value)(params)["outputs"]["kernel"]
    outputs = x @ weight_codes(params["outputs"]["kernel"], 2).values
    np.testing.assert_allclose(found, x.T @ (2 * outputs), rtol=1e-5)


def test_ranges_run_while_training_and_rest_in_evaluation():
    model, x = model_of({"name": "linear"}, momentum=0.75), jnp.array([[-1.0, 3.0]])
    params, state = model.init(KEY, x, few(8, 8))

    def after(state, x, train=True):
        _, state = model.apply(params, state, x, few(8, 8), key=KEY, train=train)
        one = state["ranges"]["outputs"]["input"]
        return state, [float(one["low"]), float(one["high"])]

    state, first = after(state, x)
    assert first == [-1, 3]
    state, second = after(state, 5 * x)
    assert second == [0.75 * -1 + 0.25 * -5, 0.75 * 3 + 0.25 * 15]
    assert after(state, 100 * x, train=False)[1] == second


class Nnx(nnx.Module):
    def __init__(self, num_outputs: int, *, rngs: nnx.Rngs):
        self.cell = nnx.RNN(nnx.GRUCell(3, 4, rngs=rngs))
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(4, num_outputs, rngs=rngs)])

    def __call__(self, x, train: bool):
        return self.layers[0](self.norm(self.cell(x).mean(axis=1)))


@pytest.mark.slow
def test_nnx_layers_are_quantized_with_their_cells():
    plain, x = bridge(Nnx, "net", {}, 3), jax.random.normal(KEY, (16, 4, 3))
    model = with_quantization(plain, QuantizeFields(weights=8.0, activations=8.0))

    @jax.jit
    def run(bits):
        params, state = model.init(KEY, x, few(bits, bits))
        kept = {"params": params, "state": state}
        _, after = model.apply(params, state, x, few(bits, bits), key=KEY, train=True)
        norm = plain.apply(params, plain.init(KEY, x, {})[1], x, {}, key=KEY, train=True)[1]["norm"]
        whole, _ = plain.apply(params, {"norm": norm}, x, {}, key=None, train=False)
        own = {**after, "norm": norm}
        return model.apply(params, own, x, few(bits, bits), key=None, train=False)[0], whole, kept

    found, whole, kept = run(jnp.float32(8))
    names = ["/".join(map(str, path)) for path in flatten_dict(kept["state"])]
    layers = {layer_of(name) for name in names if is_range(name)}
    assert layers == {"cell/cell/dense_h", "cell/cell/dense_i", "layers/0"}
    np.testing.assert_allclose(found, whole, atol=0.05)
    assert 0 < float(jnp.abs(found - whole).max()) < float(jnp.abs(run(2.0)[0] - whole).max())
    assert run._cache_size() <= 2  # an array and a Python float


# --- training -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("points") / "points.npz"
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 6)).astype(np.float32), np.arange(64) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    return {
        "data": {"source": str(path), "batch_size": 8, "validation_fraction": 0.2},
        "model": {"name": "mlp", "features": (5,)},
        "optim": {"name": "sgd", "learning_rate": 0.1},
        "train": {"steps": 4},
        "mesh": {"data": 1},
    }


def changed(config, **keys):
    model = {**config["model"], "quantize": {**config["model"].get("quantize", {}), **keys}}
    return {**config, "model": model}


def test_off_is_the_same_model(config):
    plain, off = (Experiment.build(one) for one in (config, changed(config, weights=None)))
    assert plain.config == off.config
    assert configs.fingerprint(plain.config) == configs.fingerprint(off.config)
    assert "quantize" not in plain.hparams["model"]
    x = jax.ShapeDtypeStruct((8, 6), jnp.float32)
    without = make_model(config["model"], 3)
    with_none = make_model(plain.config.to_dict()["model"], 3)

    def program(model):
        def run(x):
            params, state = model.init(KEY, x, {})
            return model.apply(params, state, x, {}, key=KEY, train=True)

        return str(jax.make_jaxpr(run)(x))

    assert program(without) == program(with_none)
    assert Experiment.build(json.loads(configs.dumps(plain.config))).config == plain.config


@pytest.mark.slow
def test_one_program_trains_all_bits_and_equals_each_alone(config):
    experiment = Experiment.build(changed(config, weights=4.0, activations=8.0))
    train = experiment.data.read("train")
    batch = {"inputs": jnp.asarray(train.inputs[:8]), "targets": jnp.asarray(train.targets[:8])}

    def trained(seed, weights, activations):
        hparams = {**experiment.hparams, "model": few(weights, activations)}
        state = experiment.init(seed, hparams)
        for _ in range(3):
            state, _ = experiment.train_step(state, batch)
        return state.params, state.model_state

    seeds, weights = jnp.arange(4) // 2, jnp.array([2.0, 8.0, 3.5, 4.0])
    alone = jax.jit(trained)
    each = [alone(*one) for one in zip(seeds, weights, weights[::-1], strict=True)]
    assert alone._cache_size() == 1
    together = jax.jit(jax.vmap(trained))(seeds, weights, weights[::-1])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), together, stacked)
    first, second = each[0][0], each[1][0]
    assert not np.array_equal(
        first["head"]["outputs"]["kernel"], second["head"]["outputs"]["kernel"]
    )


@pytest.mark.slow
def test_a_run_goes_on_with_its_ranges_and_starts_from_one_without(config, tmp_path):
    quantize = changed(config, weights=4.0, activations=4.0)
    shorter = {**quantize, "train": {"steps": 2}}
    whole = jdlopt.fit(quantize, tmp_path / "whole")
    jdlopt.fit(shorter, tmp_path / "parts")
    with pytest.warns(LongerRunWarning):
        again = jdlopt.fit(quantize, tmp_path / "parts")
    assert jax.tree.leaves(whole.state.model_state)
    for one in ("params", "model_state"):
        pair = getattr(whole.state, one), getattr(again.state, one)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), *pair)
    jdlopt.fit(config, tmp_path / "plain")
    place = {"pretrained": str(tmp_path / "plain")}
    begun = Experiment.build({**quantize, "model": {**quantize["model"], **place}})
    assert begun.pretrained().record["new"] == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"weights": 1.5}, r"model.quantize.weights: must be in \[2, 8\], found 1.5"),
        ({"activations": 9}, r"model.quantize.activations: must be in \[2, 8\]"),
        ({"weights": 4.0, "patterns": ("dnse",)}, "'dnse' matches no parameter.*dense_0/kernel"),
        ({"weights": 4.0, "patterns": ("bias",)}, "'bias' matches only vectors"),
        ({"weights": 4.0, "patterns": ("(",)}, "patterns: .* is not a regular expression"),
        ({"wieghts": 4.0}, "model.quantize.wieghts: is unknown.*weights"),
    ],
)
def test_says_what_is_wrong(config, keys, message):
    with pytest.raises(ConfigError, match=message):
        Experiment.build(changed(config, **keys))
