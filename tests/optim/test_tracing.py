"""Rule 2: every float of every optimizer is traced, counts, vmaps, and leaves the state alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdlopt.config import fields_of, hyperparameters
from jdlopt.optim.chain import OptimFields, complete, make_optimizer
from jdlopt.optim.optimizers import OPTIMIZERS

STEPS = 3
RNG = np.random.default_rng(0)
SHAPES = {"kernel": (5, 4), "bias": (4,)}


def draw(low, high):
    return {key: jnp.asarray(RNG.uniform(low, high, shape), "f") for key, shape in SHAPES.items()}


PARAMS, TARGETS, CURVATURES = draw(-2, 2), draw(-1, 1), draw(0.5, 2)


def grad_fn(params, *_):
    """That of a quadratic."""
    return jax.tree.map(lambda p, t, c: c * (p - t), params, TARGETS, CURVATURES)


def train(section, hparams):
    """The parameters and the optimizer's state after a short training."""
    optimizer = make_optimizer(section, STEPS)

    def body(_, carry):
        params, state = carry
        updates, state = optimizer.update(
            grad_fn(params), state, params, hparams=hparams, value=0.0, grad_fn=grad_fn
        )
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, STEPS, body, (PARAMS, optimizer.init(PARAMS)))


def close(found, expected, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


def floats_of(section):
    return jax.tree.map(jnp.float32, hyperparameters({"optim": section})["optim"])


def fully_traced(name):
    """A section in which everything that can be a float is one."""
    fields = {**fields_of(OptimFields), **fields_of(OPTIMIZERS[name])}
    floats = {
        key: 0.3 if field.default is None else field.default
        for key, field in fields.items()
        if float in field.types
    }
    return complete({"name": name, **floats, "learning_rate": 0.05, "clip_norm": 0.6})


def values_of(key, name):
    """Ten legal values."""
    field = {**fields_of(OptimFields), **fields_of(OPTIMIZERS[name])}[key]
    if field.range.high is not None:
        return np.linspace(0.05, 0.95, 10, dtype=np.float32)
    return np.geomspace(1e-3, 0.3, 10, dtype=np.float32)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_values_of_every_float_compile_once_count_and_vmap(name):
    section = fully_traced(name)
    hparams = floats_of(section)
    traces = []

    def final(hparams):
        traces.append(name)
        return train(section, hparams)[0]

    jitted = jax.jit(final)
    runs, batches = [], []
    for key in hparams:
        for value in values_of(key, name):
            batches.append({**hparams, key: jnp.float32(value)})
            runs.append(jitted(batches[-1]))
    assert len(traces) == 1
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
    flat = np.concatenate([np.reshape(x, (len(runs), -1)) for x in jax.tree.leaves(stacked)], 1)
    assert np.all(np.isfinite(flat))
    for index, key in enumerate(hparams):
        different = np.unique(flat[10 * index : 10 * index + 10], axis=0)
        # Lion takes signs, and a sign has no length that could be clipped.
        assert len(different) > 1 or (name == "lion" and "clip" in key), f"{key} has no effect"
    population = jax.jit(jax.vmap(final))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches))
    close(population, stacked, 3e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_keeps_structure_and_types_and_ignores_the_floats(name):
    section = fully_traced(name)
    optimizer = make_optimizer(section, STEPS)
    before = optimizer.init(PARAMS)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(before))
    after = jax.eval_shape(lambda: train(section, floats_of(section))[1])
    assert jax.tree.map(jnp.shape, before) == jax.tree.map(jnp.shape, after)
    assert jax.tree.map(lambda x: x.dtype, before) == jax.tree.map(lambda x: x.dtype, after)
    if name != "schedule_free_adamw":  # it remembers b1, which the first update overwrites
        other = {key: 0.77 if isinstance(v, float) else v for key, v in section.items()}
        close(make_optimizer(other, STEPS).init(PARAMS), before, 0)
