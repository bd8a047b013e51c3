"""EMA and SWA against a loop in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.optim.average import make_average

STEPS = 12


def history(seed=0):
    rng = np.random.default_rng(seed)
    return [
        ({"w": rng.normal(size=(3, 2)).astype("f"), "b": rng.normal(size=2).astype("f")},
         {"mean": rng.normal(size=2).astype("f"), "count": np.int32(step)})
        for step in range(STEPS + 1)
    ]  # fmt: skip


def run(section, hparams, trajectory):
    average = make_average(section, STEPS)
    state = average.init(*jax.tree.map(jnp.asarray, trajectory[0]))
    update = jax.jit(average.update)
    states = [state]
    for step, (params, model_state) in enumerate(trajectory[1:], 1):
        state = update(state, params, model_state, jnp.int32(step), hparams)
        states.append(state)
    return average, states


def check(states, trajectory, weights_at):
    """``weights_at(t)``: the weights of all vectors in the average after update t."""
    for t, state in enumerate(states):
        weights = weights_at(t)
        for part in ("w", "b"):
            mean = sum(w * point[0][part] for w, point in zip(weights, trajectory))
            np.testing.assert_allclose(state.params[part], mean, rtol=1e-5, atol=1e-6)
        mean = sum(w * point[1]["mean"] for w, point in zip(weights, trajectory))
        np.testing.assert_allclose(state.model_state["mean"], mean, rtol=1e-5, atol=1e-6)
        assert state.model_state["count"] == t


def test_ema_is_the_debiased_moving_average_of_params_and_model_state():
    decay, trajectory = 0.8, history()
    section = {"average": {"name": "ema", "decay": 0.5}}
    _, states = run(section, {"decay": jnp.float32(decay)}, trajectory)

    def weights(t):
        if t == 0:
            return [1.0]
        raw = np.array([0.0] + [decay ** (t - i) for i in range(1, t + 1)])
        return raw / raw.sum()

    check(states, trajectory, weights)


@pytest.mark.parametrize(("start", "every"), [(1, 1), (4, 1), (3, 4), (0, 5), (99, 1), (None, 1)])
def test_swa_is_the_mean_of_regular_steps(start, every):
    trajectory = history(1)
    section = {"average": {"name": "swa", "start_step": start, "every": every}}
    _, states = run(section, {}, trajectory)
    first = STEPS * 3 // 4 if start is None else start

    def weights(t):
        chosen = [i for i in range(1, t + 1) if i >= first and (i - first) % every == 0]
        # Before the first of them the newest parameters stand in.
        return [float(i in chosen) / len(chosen) if chosen else float(i == t) for i in range(t + 1)]

    check(states, trajectory, weights)


def test_the_average_is_what_is_evaluated():
    average, states = run({"average": {"name": "swa", "start_step": 1}}, {}, history())
    params, model_state = average.evaluated(states[-1], {"w": 0}, {"mean": 0})
    assert params is states[-1].params
    assert model_state is states[-1].model_state


@pytest.mark.parametrize("section", [{}, {"average": {}}, {"average": {"name": "none"}}])
def test_no_average_has_no_state(section):
    average = make_average(section, STEPS)
    state = average.init({"w": 1}, {})
    assert jax.tree.leaves(average.update(state, {"w": 2}, {}, jnp.int32(1), {})) == []
    assert average.evaluated(state, {"w": 2}, {"m": 3}) == ({"w": 2}, {"m": 3})


def test_ema_decay_is_traced_once_and_vmaps():
    average = make_average({"average": {"name": "ema", "decay": 0.9}}, STEPS)
    traces = []

    def last(decay):
        traces.append(decay)
        state = average.init({"w": jnp.zeros(())}, {})
        for step in range(1, 5):
            params = {"w": jnp.float32(step)}
            state = average.update(state, params, {}, jnp.int32(step), {"decay": decay})
        return state.params["w"]

    decays = jnp.linspace(0.0, 0.99, 10)
    jitted = jax.jit(last)
    singles = [jitted(decay) for decay in decays]
    assert len(traces) == 1
    assert len(set(map(float, singles))) == 10
    np.testing.assert_allclose(jax.vmap(last)(decays), singles, rtol=1e-6)


def test_the_average_owns_its_memory():
    average = make_average({"average": {"name": "ema"}}, STEPS)
    params = {"w": jnp.ones(3)}
    state = average.init(params, {})
    assert state.params["w"].unsafe_buffer_pointer() != params["w"].unsafe_buffer_pointer()
