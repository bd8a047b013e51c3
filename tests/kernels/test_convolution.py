"""The convolution equals `lax`'s in every product and transform."""

from __future__ import annotations

import builtins
import functools
import io
import os
import re
import sys
import time

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jdlopt.kernels.convolution import convolve
from jdlopt.models import make_model

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}


def reference(x, kernel, strides, padding):
    rank = kernel.ndim - 2
    strides = (strides,) * rank if isinstance(strides, int) else strides
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUTS[rank])


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def close(actual, expected, tolerance=1e-5):
    scale = max(1.0, float(jnp.abs(expected).max()))
    np.testing.assert_allclose(actual / scale, expected / scale, atol=tolerance)


def assert_same(x, kernel, strides, padding):
    @functools.partial(jax.jit, static_argnums=0)
    def products(convolution, x, kernel):
        y, pull = jax.vjp(lambda x, k: convolution(x, k, strides, padding), x, kernel)
        return y, *pull(normal(7, y.shape))

    for actual, expected in zip(
        products(convolve, x, kernel), products(reference, x, kernel), strict=True
    ):
        assert actual.shape == expected.shape
        close(actual, expected)


@st.composite
def convolutions(draw):
    rank = draw(st.sampled_from([1, 2]))
    taps = tuple(draw(st.integers(1, 5)) for _ in range(rank))
    space = tuple(draw(st.integers(max(taps), 9)) for _ in range(rank))
    strides = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    pads = tuple((draw(st.integers(0, tap)), draw(st.integers(0, tap))) for tap in taps)
    padding = draw(st.sampled_from(["SAME", "VALID", pads]))
    channels, features = draw(st.sampled_from([1, 3, 16])), draw(st.sampled_from([1, 4]))
    return (
        (draw(st.integers(1, 3)), *space, channels),
        (*taps, channels, features),
        strides,
        padding,
    )


@hypothesis.given(convolutions())
@hypothesis.settings(max_examples=6)
def test_equals_lax(case):
    x_shape, kernel_shape, strides, padding = case
    assert_same(normal(0, x_shape), normal(1, kernel_shape), strides, padding)


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "strides", "padding"),
    [
        ((4, 40, 1), (5, 1, 25), 2, "SAME"),
        ((4, 20, 25), (5, 25, 25), 2, ((1, 1),)),
        ((2, 9, 9, 1), (3, 3, 1, 8), 1, "SAME"),
        ((2, 9, 9, 16), (3, 3, 16, 8), 1, "SAME"),
        ((2, 9, 8, 16), (3, 3, 16, 8), 1, "VALID"),
        ((2, 9, 8, 16), (3, 2, 16, 8), (2, 1), "SAME"),
        ((2, 9, 9, 16), (3, 3, 16, 8), 2, "SAME"),
        ((2, 9, 9, 80), (1, 1, 80, 8), 2, "SAME"),
        ((2, 9, 9, 16), (2, 2, 16, 8), 1, ((2, 0), (0, 3))),
    ],
)
def test_every_form_equals_lax(x_shape, kernel_shape, strides, padding):
    assert_same(normal(0, x_shape), normal(1, kernel_shape), strides, padding)


SHAPES = [((3, 9, 4), (3, 4, 5)), ((2, 7, 7, 16), (3, 3, 16, 5))]


@pytest.mark.parametrize(("x_shape", "kernel_shape"), SHAPES)
@pytest.mark.parametrize("in_axes", [(0, 0), (None, 0), (0, None)])
def test_gradients_under_vmap_equal_single_ones(x_shape, kernel_shape, in_axes):
    trials = 3
    x = normal(0, (trials, *x_shape) if in_axes[0] == 0 else x_shape)
    kernel = normal(1, (trials, *kernel_shape) if in_axes[1] == 0 else kernel_shape)

    @jax.jit
    def gradients(x, kernel):
        return jax.grad(lambda x, k: (convolve(x, k) ** 2).sum(), argnums=(0, 1))(x, kernel)

    batched = jax.jit(jax.vmap(gradients, in_axes))(x, kernel)
    for trial in range(trials):
        single = gradients(
            x[trial] if in_axes[0] == 0 else x, kernel[trial] if in_axes[1] == 0 else kernel
        )
        for actual, expected in zip(batched, single, strict=True):
            close(actual[trial], expected)


@pytest.mark.parametrize(("x_shape", "kernel_shape"), SHAPES)
def test_nested_vmap_and_gradient_of_a_vmap(x_shape, kernel_shape):
    x, kernel = normal(0, (2, 2, *x_shape)), normal(1, (2, 2, *kernel_shape))

    def total(convolution, x, kernel):
        nested = jax.vmap(jax.vmap(convolution))
        return (nested(x, kernel) ** 2).sum()

    actual = jax.jit(jax.grad(functools.partial(total, convolve), argnums=(0, 1)))(x, kernel)
    one = functools.partial(reference, strides=1, padding="SAME")
    expected = jax.jit(jax.grad(functools.partial(total, one), argnums=(0, 1)))(x, kernel)
    for a, e in zip(actual, expected, strict=True):
        close(a, e)


@pytest.mark.parametrize(("x_shape", "kernel_shape"), SHAPES)
def test_second_derivatives_equal_those_of_lax(x_shape, kernel_shape):
    x, kernel, direction = normal(0, x_shape), normal(1, kernel_shape), normal(2, kernel_shape)

    def curvature(convolution):
        def slope(kernel):
            gradient = jax.grad(lambda k: (convolution(x, k) ** 3).sum())(kernel)
            return (gradient * direction).sum()

        return jax.jit(jax.grad(slope))(kernel)

    expected = curvature(lambda x, k: reference(x, k, 1, "SAME"))
    close(curvature(convolve), expected)


@pytest.mark.parametrize(("x_shape", "kernel_shape"), SHAPES)
def test_inside_a_scan_and_a_remat(x_shape, kernel_shape):
    x, kernel = normal(0, x_shape), normal(1, kernel_shape)
    loss = jax.checkpoint(lambda k: (convolve(x, k) ** 2).mean())

    def body(k, _):
        return k - 0.01 * jax.grad(loss)(k), None

    scanned = jax.jit(lambda k: lax.scan(body, k, length=2)[0])(kernel)
    gradient = jax.jit(jax.grad(lambda k: (reference(x, k, 1, "SAME") ** 2).mean()))
    by_hand = kernel - 0.01 * gradient(kernel)
    by_hand = by_hand - 0.01 * gradient(by_hand)
    close(scanned, by_hand)


@pytest.mark.parametrize("x_shape", [(8, 9, 4), (8, 7, 7, 16)])
def test_sharded_over_the_batch(x_shape):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x, kernel = normal(0, x_shape), normal(1, (3,) * (len(x_shape) - 2) + (x_shape[-1], 5))
    gradient = jax.jit(jax.grad(lambda x, k: (convolve(x, k) ** 2).sum(), argnums=(0, 1)))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    for actual, expected in zip(gradient(sharded, kernel), gradient(x, kernel), strict=True):
        close(actual, expected)


@pytest.mark.parametrize(("x_shape", "kernel_shape"), SHAPES)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_keep_the_convolution_of_lax(x_shape, kernel_shape, platform):
    x, kernel = normal(0, x_shape), normal(1, kernel_shape)
    gradient = jax.jit(jax.grad(lambda x, k: (convolve(x, k) ** 2).sum(), argnums=(0, 1)))
    text = gradient.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in text


def test_keeps_half_precision():
    x, kernel = normal(0, (2, 8, 8, 16)), normal(1, (3, 3, 16, 4))
    y, pull = jax.vjp(convolve, x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert all(gradient.dtype == jnp.bfloat16 for gradient in pull(y))
    close(y.astype(jnp.float32), reference(x, kernel, 1, "SAME"), 0.02)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("in_axes", [None, (0, 0), (0, None), (None, 0)])
def test_batches_larger_than_the_cache_equal_lax(dtype, in_axes, monkeypatch):
    monkeypatch.setattr("jdlopt.kernels.algorithms._CACHED", 60_000)  # two examples of six
    x, dy = normal(0, (2, 6, 7, 7, 16)), normal(1, (2, 6, 7, 7, 4))
    kernel = jnp.zeros((3, 3, 16, 4))

    def gradient(convolution, dtype, x, dy):
        return jax.vjp(lambda k: convolution(x.astype(dtype), k), kernel.astype(dtype))[1](
            dy.astype(dtype)
        )[0]

    def both(convolution, dtype):
        one = functools.partial(gradient, convolution, dtype)
        if in_axes is None:
            return jax.jit(one)(x[0], dy[0])
        batched = [a if axis == 0 else a[0] for a, axis in zip((x, dy), in_axes, strict=True)]
        return jax.jit(jax.vmap(one, in_axes))(*batched)

    found = both(convolve, dtype)
    assert found.dtype == dtype
    expected = both(lambda x, k: reference(x, k, 1, "SAME"), jnp.float32)
    close(found.astype(jnp.float32), expected, 1e-5 if dtype == jnp.float32 else 0.01)


def test_a_population_has_no_grouped_convolution():
    x, kernel = normal(0, (3, 2, 7, 7, 16)), normal(1, (3, 3, 3, 16, 4))
    gradient = jax.grad(lambda x, k: (convolve(x, k) ** 2).sum(), argnums=(0, 1))
    text = jax.jit(jax.vmap(gradient)).lower(x, kernel).as_text()
    groups = re.findall(r"(?:batch|feature)_group_count = (\d+)", text)
    assert groups == ["1"] * 4  # of the outputs and the inputs' gradient


def test_lowering_opens_no_file_and_reads_no_clock(monkeypatch):
    model = make_model({"name": "resnet", "stem": "cifar", "stage_sizes": (1, 1)}, 3)
    x = jax.ShapeDtypeStruct((128, 32, 32, 3), jnp.float32)
    params, state = jax.eval_shape(lambda key, x: model.init(key, x, {}), jax.random.key(0), x)

    def loss(params, state, x):
        outputs, _ = model.apply(params, state, x, {}, key=jax.random.key(1), train=True)
        return outputs.sum()

    def refused(*args, **kwargs):
        raise AssertionError("lowering opened a file")

    def guarded(clock):
        def read():
            caller = sys._getframe(1).f_globals["__name__"]
            assert not caller.startswith("jdlopt"), f"{caller} read a clock while lowering"
            return clock()

        return read

    for name in ("time", "monotonic", "perf_counter", "process_time"):
        monkeypatch.setattr(time, name, guarded(getattr(time, name)))
    for module, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "replace")):
        monkeypatch.setattr(module, name, refused)
    text = jax.jit(jax.grad(loss)).lower(params, state, x).as_text()
    monkeypatch.undo()
    assert "stablehlo.convolution" in text


def test_says_which_shapes_do_not_fit(unchecked_types):
    with pytest.raises(ValueError, match="same rank"):
        convolve(jnp.ones((2, 3)), jnp.ones((3, 1)))
    with pytest.raises(ValueError, match="2 channels, the kernel takes 1"):
        convolve(jnp.ones((2, 5, 2)), jnp.ones((3, 1, 4)))
