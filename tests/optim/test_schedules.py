"""Each schedule against optax's or its formula over every step; warm-up; traced floats."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt.config import fields_of
from jdlopt.errors import ConfigError
from jdlopt.optim.schedules import SCHEDULES, make_schedule, plateau_keys

TOTAL = 100
STEPS = np.arange(TOTAL + 20)


def piecewise(step):
    return 0.3 ** np.sum(step >= np.array([20, 50]))


def cosine_log(step):
    share = min(step, TOTAL) / TOTAL
    return 0.5 * (1 - np.cos(2 * np.pi * np.log2(1 + 7 * share)))


REFERENCES = {
    "constant": ({}, lambda step: 1.0),
    "exponential": (
        {"decay_rate": 0.5, "transition_steps": 7},
        optax.exponential_decay(1.0, 7, 0.5),
    ),
    "natural_exponential": (
        {"decay_rate": 0.7, "transition_steps": 9},
        lambda step: np.exp(-0.7 * step / 9),
    ),
    "piecewise_constant": ({"boundaries": (20, 50), "factor": 0.3}, piecewise),
    "linear": ({"end_fraction": 0.2}, optax.linear_schedule(1.0, 0.2, TOTAL)),
    "polynomial": (
        {"power": 3.0, "end_fraction": 0.1},
        optax.polynomial_schedule(1.0, 0.1, 3.0, TOTAL),
    ),
    "cosine": ({"end_fraction": 0.05}, optax.cosine_decay_schedule(1.0, TOTAL, 0.05)),
    "cosine_log": ({"cycles": 3}, cosine_log),
    "one_cycle": (
        {"rise_fraction": 0.3, "start_fraction": 0.04, "end_fraction": 4e-6},
        optax.cosine_onecycle_schedule(TOTAL, 1.0, 0.3),
    ),
    "reduce_on_plateau": ({}, lambda step: 1.0),
}


def split(keys):
    floats = {key: value for key, value in keys.items() if isinstance(value, float)}
    return {key: value for key, value in keys.items() if key not in floats}, floats


def curve(section, hparams, total_steps=TOTAL, steps=STEPS):
    factor = make_schedule(section, total_steps)
    traced = jax.tree.map(jnp.float32, hparams)
    return jax.jit(jax.vmap(factor, (0, None)))(jnp.asarray(steps), traced)


def test_every_schedule_has_a_reference():
    assert set(REFERENCES) == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_equals_reference_at_every_step(name):
    keys, reference = REFERENCES[name]
    static, floats = split(keys)
    found = curve({"name": name, **static}, floats)
    np.testing.assert_allclose(found, [reference(step) for step in STEPS], rtol=2e-5, atol=1e-6)


def test_staircase_equals_optax():
    reference = optax.exponential_decay(1.0, 7, 0.5, staircase=True)
    section = {"name": "exponential", "transition_steps": 7, "staircase": True}
    found = curve(section, {"decay_rate": 0.5})
    np.testing.assert_allclose(found, [reference(step) for step in STEPS], rtol=2e-6)


@pytest.mark.parametrize("name", ["exponential", "natural_exponential"])
def test_one_transition_is_the_whole_training(name):
    found = curve({"name": name}, {"decay_rate": 0.25})
    end = 0.25 if name == "exponential" else np.exp(-0.25)
    assert found[TOTAL] == pytest.approx(end, rel=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_goes_before_any_schedule(name):
    static, floats = split(REFERENCES[name][0])
    warmup = 10
    whole = curve({"name": name, "warmup_steps": warmup, **static}, floats)
    alone = curve({"name": name, **static}, floats, TOTAL - warmup)
    np.testing.assert_allclose(whole[:warmup], np.arange(warmup) / warmup * alone[0], rtol=1e-6)
    np.testing.assert_allclose(whole[warmup:], alone[:-warmup], rtol=1e-6)


def test_warm_up_and_cosine_equal_optax():
    reference = optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, TOTAL, 0.05)
    found = curve({"name": "cosine", "warmup_steps": 10}, {"end_fraction": 0.05})
    np.testing.assert_allclose(found, [reference(step) for step in STEPS], rtol=2e-5, atol=1e-6)


def test_warm_up_may_be_the_whole_training_but_no_longer():
    assert curve({"name": "linear", "warmup_steps": TOTAL}, {})[TOTAL // 2] == 0.5
    with pytest.raises(ConfigError, match="warmup_steps: 101 is more than the 100 steps"):
        make_schedule({"name": "linear", "warmup_steps": TOTAL + 1}, TOTAL)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_fraction_is_that_many_steps_and_traced(name):
    static, floats = split(REFERENCES[name][0])
    section = {"name": name, **static}
    factor = jax.vmap(make_schedule({**section, "warmup_fraction": 0.5}, TOTAL), (0, None))
    traces = []

    @jax.jit
    def at_all_steps(hparams):
        traces.append(hparams)
        return factor(jnp.asarray(STEPS), hparams)

    for steps, fraction in ((0, 0.0), (0, 0.004), (10, 0.1), (33, 0.327), (TOTAL, 1.0)):
        hparams = jax.tree.map(jnp.float32, {**floats, "warmup_fraction": fraction})
        expected = curve({**section, "warmup_steps": steps}, floats)
        # float32 holds the cosine's argument, up to 8π, to 1e-6
        close = 2e-6 if name == "cosine_log" else 1e-7
        np.testing.assert_allclose(at_all_steps(hparams), expected, rtol=1e-6, atol=close)
    assert len(traces) == 1


def test_a_warm_up_is_given_once():
    section = {"name": "linear", "warmup_fraction": 0.1}
    np.testing.assert_array_equal(curve(section, {}), curve(section, {"warmup_fraction": 0.1}))
    with pytest.raises(ConfigError, match="give one of the two"):
        make_schedule({**section, "warmup_steps": 3}, TOTAL)


def test_an_unknown_name_tells_the_nearest():
    with pytest.raises(ConfigError, match=r"schedule.name 'cosin' is unknown. Did you mean 'cosi"):
        make_schedule({"name": "cosin"}, TOTAL)


@pytest.mark.parametrize("name", SCHEDULES)
def test_floats_are_traced_once_and_vmapped(name):
    fields = fields_of(SCHEDULES[name]).items()
    floats = {key: jnp.float32(field.default) for key, field in fields if float in field.types}
    factor = make_schedule({"name": name, **split(REFERENCES[name][0])[0]}, TOTAL)
    traces = []

    @jax.jit
    def at(step, hparams):
        traces.append(step)
        return factor(step, hparams)

    values = np.linspace(0.05, 0.95, 10, dtype=np.float32)
    for key in floats:
        singles = [at(jnp.int32(37), {**floats, key: jnp.float32(value)}) for value in values]
        batch = {**floats, key: jnp.asarray(values)}
        axes = {**dict.fromkeys(floats), key: 0}
        population = jax.vmap(factor, (None, axes))(jnp.int32(37), batch)
        np.testing.assert_allclose(np.broadcast_to(population, (10,)), singles, rtol=1e-5)
    assert len(traces) == (1 if floats else 0)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["linear", "polynomial", "cosine"]),
    end=st.floats(0, 1, width=32),
    total=st.integers(1, 500),
)
def test_falls_from_one_to_its_end_without_rising(name, end, total):
    steps = jnp.arange(501)  # one shape for all examples: each operation compiles once
    found = np.asarray(SCHEDULES[name](steps, total, end_fraction=end))[: total + 1]
    assert found[0] == pytest.approx(1.0, abs=1e-6)
    assert found[-1] == pytest.approx(end, abs=1e-6)
    assert np.all(np.diff(found) <= 1e-6)


@pytest.mark.parametrize("rise", [0.0, 1.0])
def test_one_cycle_is_finite_at_the_ends_of_its_range(rise):
    assert np.all(np.isfinite(curve({"name": "one_cycle"}, {"rise_fraction": rise})))


def test_plateau_windows_are_a_hundredth_of_the_training_by_default():
    assert plateau_keys({"name": "cosine"}, 1000) is None
    assert plateau_keys({"name": "reduce_on_plateau"}, 1000)["accumulation_steps"] == 10
    assert plateau_keys({"name": "reduce_on_plateau"}, 10)["accumulation_steps"] == 1
    given_keys = {"name": "reduce_on_plateau", "accumulation_steps": 3, "patience": 7}
    found = plateau_keys(given_keys, 1000)
    assert (found["accumulation_steps"], found["patience"]) == (3, 7)
