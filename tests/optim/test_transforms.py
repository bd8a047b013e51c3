"""Clipping, AdaGrad's sum, schedule-free, SAM and the plateau's states against references."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optax import contrib

from jdlopt.optim import transforms


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def test_clipping_by_norm_equals_optax_and_keeps_zeros_and_types():
    grads = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([[12.0]], jnp.bfloat16)}
    for limit in (1.0, 12.9, 13.1, 100.0):
        found, _ = transforms.clip_by_norm(jnp.float32(limit)).update(grads, ())
        expected, _ = optax.clip_by_global_norm(limit).update(grads, ())
        np.testing.assert_allclose(found["a"], expected["a"], rtol=1e-6)
        assert found["b"].dtype == jnp.bfloat16
    assert not np.any(transforms.clip_by_norm(1.0).update(jnp.zeros(3), ())[0])
    assert np.all(np.isnan(transforms.clip_by_norm(1.0).update(jnp.array([1.0, jnp.nan]), ())[0]))


def test_adaptive_clipping_equals_optax_for_vectors_matrices_and_2d_kernels():
    shapes = ((5,), (4, 3), (3, 3, 2, 6))
    params, grads = arrays(0, *shapes), arrays(1, *shapes)
    for clipping in (0.01, 0.5, 5.0):
        ours, theirs = transforms.clip_adaptively(clipping), optax.adaptive_grad_clip(clipping)
        found, _ = ours.update(grads, ours.init(params), params)
        expected, _ = theirs.update(grads, theirs.init(params), params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_adaptive_clipping_of_a_1d_kernel_is_per_output():
    (params,), (grads,) = arrays(0, (3, 4, 6)), arrays(1, (3, 4, 6))
    ours = transforms.clip_adaptively(0.1)
    found, _ = ours.update(grads, ours.init(params), params)
    ratio = np.linalg.norm(found.reshape(-1, 6), axis=0)
    ratio = ratio / np.linalg.norm(params.reshape(-1, 6), axis=0)
    np.testing.assert_allclose(ratio, 0.1, rtol=1e-5)


def test_adaptive_clipping_lets_zeros_leave_zero():
    ours = transforms.clip_adaptively(0.1)
    found, _ = ours.update(jnp.ones((2, 2)), (), jnp.zeros((2, 2)))
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 0.1 * 1e-3, rtol=1e-5)
    assert not np.any(ours.update(jnp.zeros((2, 2)), (), jnp.ones((2, 2)))[0])


@pytest.mark.parametrize("initial", [0.0, 0.1, 2.0])
def test_sum_of_squares_equals_optax(initial):
    ours = transforms.scale_by_sum_of_squares(initial, 1e-7)
    theirs = optax.scale_by_rss(initial, 1e-7)
    mine, other = ours.init(jnp.zeros(4)), theirs.init(jnp.zeros(4))
    for grads in [jnp.zeros(4), *arrays(0, (4,), (4,), (4,))]:
        found, mine = ours.update(grads, mine)
        expected, other = theirs.update(grads, other)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_schedule_free_keeps_the_traced_b1_for_evaluation():
    params = jnp.array([1.0, -2.0])

    def evaluated(make, b1, b1_of_init):
        optimizer, y = make(optax.sgd(0.1), 0.1, b1), params
        state = make(optax.sgd(0.1), 0.1, b1_of_init).init(y)
        for _ in range(4):
            updates, state = optimizer.update(2 * y, state, y)
            y = y + updates
        return contrib.schedule_free_eval_params(state, y)

    for b1 in (0.5, 0.95):
        found = jax.jit(lambda b1: evaluated(transforms.schedule_free, b1, 0.9))(b1)
        np.testing.assert_allclose(found, evaluated(contrib.schedule_free, b1, b1), rtol=1e-5)


def gradient(params):
    return jax.tree.map(lambda w: 4 * w**3 + 1, params)


def test_sam_equals_the_two_gradient_formula():
    rho, rate = 0.3, 0.01
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[0.5]])}
    sam = transforms.sharpness_aware(optax.sgd(rate), rho)
    updates, _ = sam.update(gradient(params), sam.init(params), params, grad_fn=gradient)
    first = gradient(params)
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(first)))
    for key, w in params.items():
        np.testing.assert_allclose(
            updates[key], -rate * gradient(w + rho * first[key] / norm), rtol=1e-6
        )


def test_sam_at_a_gradient_of_zero_stays_finite():
    sam = transforms.sharpness_aware(optax.sgd(0.1), 0.5)
    params = jnp.zeros(3)
    updates, _ = sam.update(params, sam.init(params), params, grad_fn=lambda w: 2 * w)
    assert not np.any(updates)


def test_sam_without_a_gradient_function_says_so():
    sam = transforms.sharpness_aware(optax.sgd(0.1), 0.5)
    with pytest.raises(ValueError, match="grad_fn"):
        sam.update(jnp.ones(2), sam.init(jnp.ones(2)), jnp.ones(2))


KEYS = {
    "factor": 0.5,
    "patience": 2,
    "relative_tolerance": 1e-2,
    "cooldown": 0,
    "accumulation_steps": 1,
    "end_fraction": 0.0,
}


def scales(values, **changes):
    def body(state, value):
        state = transforms.update_plateau(state, value, **{**KEYS, **changes})
        return state, state.scale

    return np.asarray(
        jax.lax.scan(body, transforms.init_plateau(), jnp.asarray(values, jnp.float32))[1]
    )


def test_plateau_reduces_after_patience_and_not_while_improving():
    assert np.all(scales(0.5 ** np.arange(20)) == 1)
    np.testing.assert_array_equal(scales([1, 1, 1, 1, 1, 1]), [1, 1, 0.5, 0.5, 0.25, 0.25])
    np.testing.assert_array_equal(scales([3, 3, 2, 2, 2]), [1, 1, 1, 1, 0.5])


def test_plateau_has_a_floor_a_cooldown_and_windows():
    assert scales(np.ones(50), end_fraction=0.3)[-1] == np.float32(0.3)
    np.testing.assert_array_equal(
        scales([1] * 8, cooldown=2), [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    )
    # Means of windows of 2: 2, 1.5, 1.5, 1.5.
    np.testing.assert_array_equal(
        scales([1, 3, 2, 1, 1, 2, 2, 1], accumulation_steps=2), [1, 1, 1, 1, 1, 1, 1, 0.5]
    )


def test_plateau_of_a_negative_loss_improves_by_falling():
    assert np.all(scales(-(1.1 ** np.arange(20))) == 1)
    np.testing.assert_array_equal(scales([-1, -1, -1]), [1, 1, 0.5])


@settings(max_examples=15, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.5, 0.7, 1.0, 1.5, 3.0]), min_size=24, max_size=24),
    patience=st.integers(1, 3),
    cooldown=st.integers(0, 2),
    window=st.integers(1, 2),
)
def test_plateau_equals_optax(values, patience, cooldown, window):
    theirs = contrib.reduce_on_plateau(
        0.5, patience, rtol=1e-2, cooldown=cooldown, accumulation_size=window, min_scale=0.1
    )

    def body(state, value):
        _, state = theirs.update(jnp.ones(()), state, value=value)
        return state, state.scale

    _, expected = jax.lax.scan(body, theirs.init(jnp.ones(())), jnp.asarray(values))
    found = scales(
        values, patience=patience, cooldown=cooldown, accumulation_steps=window, end_fraction=0.1
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
