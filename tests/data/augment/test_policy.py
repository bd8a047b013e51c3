"""Policies: each operation against its own kernel or scikit-image, and how they are drawn."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from skimage import transform

from jdlopt.data.augment.image import colors, policies
from jdlopt.data.augment.image.rand_augment import rand_augment
from jdlopt.data.augment.image.trivial_augment import trivial_augment

HEIGHT, WIDTH = 14, 11
LIMITS = policies.Limits(0.3, (5.0, 4.0), 30.0, 0.9, 4.0)
N = len(policies.OPERATIONS)
APPLY = jax.jit(partial(policies.applied, limits=LIMITS))


@pytest.fixture(scope="module")
def images():
    # bytes, one image an operation, and no extremes: autocontrast has something to do
    values = np.random.default_rng(0).integers(20, 230, (N, HEIGHT, WIDTH, 3))
    return jnp.asarray(values.astype(np.float32) / 255)


def forward(name, magnitude):
    """The operations of geometry as matrices on (x right, y down, 1), around the centre."""
    matrix = np.eye(3)
    if name == "rotate":
        angle = np.deg2rad(30 * magnitude)
        matrix[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    elif name == "shear_x":
        matrix[0, 1] = -0.3 * magnitude
    elif name == "shear_y":
        matrix[1, 0] = -0.3 * magnitude
    elif name == "translate_x":
        matrix[0, 2] = 4 * magnitude
    else:
        matrix[1, 2] = 5 * magnitude
    centre = np.array([[1, 0, (WIDTH - 1) / 2], [0, 1, (HEIGHT - 1) / 2], [0, 0, 1]])
    return centre @ matrix @ np.linalg.inv(centre)


def expected(image, name, magnitude):
    """What an operation does to one image."""
    if name == "identity":
        return np.asarray(image)
    if name in policies.OPERATIONS[1:6]:
        inverse = np.linalg.inv(forward(name, magnitude))
        return transform.warp(np.array(image, np.float64), inverse, order=1, clip=False)
    factor, size = jnp.float32(1 + 0.9 * magnitude)[None], jnp.float32(abs(magnitude))[None]
    return np.asarray(KERNELS[name](image[None], factor, size))[0]


KERNELS = {
    name: jax.jit(kernel)
    for name, kernel in {
        "brightness": lambda image, factor, size: colors.brightened(image, factor),
        "saturation": lambda image, factor, size: colors.saturated(image, factor),
        "contrast": lambda image, factor, size: colors.contrasted(image, factor),
        "sharpness": lambda image, factor, size: colors.sharpened(image, factor),
        "posterize": lambda image, factor, size: colors.posterized(image, 4 * size),
        "solarize": lambda image, factor, size: colors.solarized(image, 1 - size),
        "autocontrast": lambda image, factor, size: colors.autocontrasted(image),
        "equalize": lambda image, factor, size: colors.equalized(image),
    }.items()
}


@pytest.mark.parametrize("magnitude", [0.7, -0.5])
def test_each_image_gets_its_own_operation(images, magnitude):
    operations = jnp.stack([jnp.arange(N), jnp.zeros(N, jnp.int32)])
    magnitudes = jnp.full((2, N), magnitude)
    for order in (operations, operations[::-1]):  # the other layer does nothing
        found = APPLY(images, order, magnitudes)
        for image, name, changed in zip(images, policies.OPERATIONS, found, strict=True):
            np.testing.assert_allclose(
                changed, expected(image, name, magnitude), atol=3e-5, err_msg=name
            )


def test_operations_of_colour_come_in_the_order_drawn(images):
    names = [("brightness", "solarize"), ("solarize", "brightness"), ("contrast", "posterize")]
    names += [("autocontrast", "sharpness"), ("saturation", "saturation"), ("equalize", "contrast")]
    count = len(names)
    operations = jnp.asarray(
        [[policies.OPERATIONS.index(pair[layer]) for pair in names] for layer in (0, 1)]
    )
    padded = jnp.pad(operations, ((0, 0), (0, N - count)))
    found = APPLY(images, padded, jnp.full((2, N), 0.4))
    for image, pair, changed in zip(images[:count], names, found[:count], strict=True):
        step = jnp.asarray(expected(image, pair[0], 0.4), jnp.float32)
        np.testing.assert_allclose(
            changed, expected(step, pair[1], 0.4), atol=3e-5, err_msg=str(pair)
        )
    np.testing.assert_array_equal(found[count:], images[count:])


def test_operations_of_geometry_are_composed_and_come_first(images):
    at = policies.OPERATIONS.index
    operations = jnp.zeros((2, N), jnp.int32)
    operations = operations.at[:, 0].set(jnp.asarray([at("translate_x"), at("rotate")]))
    operations = operations.at[:, 1].set(jnp.asarray([at("brightness"), at("shear_y")]))
    found = APPLY(images, operations, jnp.full((2, N), 0.6))
    both = forward("rotate", 0.6) @ forward("translate_x", 0.6)
    turned = transform.warp(
        np.array(images[0], np.float64), np.linalg.inv(both), order=1, clip=False
    )
    np.testing.assert_allclose(found[0], turned, atol=3e-5)
    sheared = jnp.asarray(expected(images[1], "shear_y", 0.6), jnp.float32)
    np.testing.assert_allclose(found[1], expected(sheared, "brightness", 0.6), atol=3e-5)


POLICIES = {"rand_augment": rand_augment, "trivial_augment": trivial_augment}


def test_operations_and_directions_are_drawn_for_each_image():
    n = 800
    image = np.random.default_rng(3).uniform(0.1, 0.9, (1, 9, 9, 3)).astype(np.float32)
    many = jnp.asarray(np.tile(image, (n, 1, 1, 1)))
    draw = jax.jit(partial(rand_augment, operations=1))
    changed = np.asarray(draw(jax.random.key(4), many, 0.5))
    kinds, counts = np.unique(changed, axis=0, return_counts=True)
    same = int(counts[(kinds == image).all((1, 2, 3))][0])
    assert stats.binomtest(same, n, 1 / N).pvalue > 1e-3
    counts = np.sort(counts)
    assert len(counts) == 9 * 2 + 5  # 9 operations have two directions, 5 have none
    directed, plain = counts[:18], counts[18:]
    assert stats.chisquare(directed).pvalue > 1e-4 and stats.chisquare(plain).pvalue > 1e-4
    assert stats.binomtest(int(plain.sum()), n, 5 / N).pvalue > 1e-3


def test_magnitudes_are_drawn_too_where_there_is_one_operation():
    # a plain image tells brightness by its value; other operations leave it, or make bytes
    plain = jnp.full((1000, 5, 5, 3), 0.4)
    changed = np.asarray(jax.jit(trivial_augment)(jax.random.key(2), plain, 0.8))
    values = changed[:, 2, 2, 0].astype(np.float64)
    whole = (np.abs(changed - changed[:, 2:3, 2:3]) < 1e-5).all((1, 2, 3))
    on_bytes = np.abs(values * 255 - np.round(values * 255)) < 1e-4
    magnitudes = (values / 0.4 - 1) / 0.99
    magnitudes = magnitudes[whole & ~on_bytes & (np.abs(magnitudes) > 1e-3)]
    assert 40 < len(np.unique(magnitudes)) < 110
    assert stats.kstest(magnitudes, stats.uniform(-0.8, 1.6).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", list(POLICIES))
def test_no_strength_changes_no_bit_one_program_serves_all_and_a_population(images, name):
    traces = []
    strange = images.at[0, 0, 0].set(jnp.asarray([-0.0, -3.0, 7.0]))

    @jax.jit
    def apply(key, images, strength):
        traces.append(strength)
        return POLICIES[name](key, images, strength)

    key = jax.random.key(5)
    found = apply(key, strange, jnp.float32(0))
    assert np.asarray(found).tobytes() == np.asarray(strange).tobytes()
    strengths = jnp.asarray([0.0, 0.3, 1.0])
    together = jax.jit(jax.vmap(POLICIES[name], (None, None, 0)))(key, images, strengths)
    for strength, changed in zip(strengths, together, strict=True):
        np.testing.assert_allclose(changed, apply(key, images, strength), atol=1e-5)
    assert len(traces) == 1
    assert (together[1] != images).any((1, 2, 3)).sum() > N / 2


def test_images_of_one_channel_have_no_colour_to_change():
    grey = jnp.asarray(np.random.default_rng(6).random((N, HEIGHT, WIDTH, 1), np.float32))
    operations = jnp.stack([jnp.arange(N), jnp.zeros(N, jnp.int32)])
    found = APPLY(grey, operations, jnp.full((2, N), 0.6))
    three = APPLY(jnp.tile(grey, (1, 1, 1, 3)), operations, jnp.full((2, N), 0.6))
    np.testing.assert_allclose(found, three[..., :1], atol=1e-4)
