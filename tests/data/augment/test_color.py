"""Colour augmentation against scikit-image, Pillow and closed forms, and the draws' ranges."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import stats
from skimage import color as skimage_color
from skimage import exposure, filters

from jdlopt.data.augment import AUGMENTATIONS
from jdlopt.data.augment.draws import normals
from jdlopt.data.augment.image import colors, histogram
from jdlopt.data.augment.image.blur import blur
from jdlopt.data.augment.image.posterize import posterize
from jdlopt.data.augment.image.solarize import solarize

COLOR = {
    name: part
    for name, part in AUGMENTATIONS.items()
    if part.fits == ("byte image",) and not name.endswith("_augment")
}

BYTES = np.random.default_rng(0).integers(20, 230, (4, 13, 10, 3)).astype(np.uint8)
IMAGES = BYTES.astype(np.float32) / 255
FACTORS = np.float32([0.0, 0.4, 1.0, 1.7])


@functools.cache
def jitted(name):
    """One of the module's functions, or an augmentation, as a program."""
    return jax.jit(COLOR[name].apply if name in COLOR else getattr(colors, name))


@jax.jit
def augmented(key, images, strengths):
    """What each augmentation makes of the images, by its name."""
    return {name: part.apply(key, images, strengths[name]) for name, part in COLOR.items()}


def by_pillow(operation, images=BYTES):
    return np.stack([np.asarray(operation(Image.fromarray(image))) for image in images]) / 255


def by_factor(enhance):
    """What one of Pillow's enhancers makes of each image with its factor."""
    return np.stack(
        [
            np.asarray(enhance(Image.fromarray(image)).enhance(float(factor)))
            for image, factor in zip(BYTES, FACTORS, strict=True)
        ]
    ) / 255  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "enhance"),
    [
        ("brightened", ImageEnhance.Brightness),
        ("contrasted", ImageEnhance.Contrast),
        ("saturated", ImageEnhance.Color),
        ("sharpened", ImageEnhance.Sharpness),
    ],
)
def test_blends_are_pillows_up_to_its_rounding(ours, enhance):
    # Pillow rounds the blend, and before that the other image
    np.testing.assert_allclose(jitted(ours)(IMAGES, FACTORS), by_factor(enhance), atol=2.6 / 255)


def test_blends_in_closed_form():
    luma = IMAGES @ np.float32([0.2989, 0.587, 0.114])
    factor = FACTORS[:, None, None, None]
    other = {
        "brightened": 0.0,
        "contrasted": luma.mean((1, 2))[:, None, None, None],
        "saturated": luma[..., None],
    }
    for ours, against in other.items():
        expected = np.clip(factor * IMAGES + (1 - factor) * against, 0, 1)
        np.testing.assert_allclose(jitted(ours)(IMAGES, FACTORS), expected, atol=1e-5)
    single = IMAGES[..., :1]
    expected = factor * single + (1 - factor) * single.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(
        jitted("contrasted")(single, FACTORS), np.clip(expected, 0, 1), atol=1e-5
    )
    np.testing.assert_array_equal(jitted("saturated")(single, FACTORS), single)


def test_smoothing_is_pillows():
    found = jitted("smoothed")(jnp.asarray(IMAGES))
    expected = by_pillow(lambda image: image.filter(ImageFilter.SMOOTH))
    np.testing.assert_allclose(found, expected, atol=0.51 / 255)
    tiny = jnp.asarray(IMAGES[:, :2])
    np.testing.assert_array_equal(jitted("smoothed")(tiny), tiny)


def test_hues_turn_as_in_scikit_image():
    turns = np.float32([0.0, 0.13, -0.4, 0.5])
    hsv = skimage_color.rgb2hsv(IMAGES)
    hsv[..., 0] = (hsv[..., 0] + turns[:, None, None]) % 1
    expected = skimage_color.hsv2rgb(hsv)
    np.testing.assert_allclose(jitted("hue_shifted")(IMAGES, turns), expected, atol=2e-5)
    single = IMAGES[..., :1]
    np.testing.assert_array_equal(jitted("hue_shifted")(single, turns), single)


def test_stretching_is_scikit_images():
    whole = np.stack([exposure.rescale_intensity(image, out_range=(0, 1)) for image in IMAGES])
    amount = np.float32([0.0, 0.3, 0.8, 1.0])
    expected = IMAGES + amount[:, None, None, None] * (whole - IMAGES)
    np.testing.assert_allclose(jitted("stretched")(IMAGES, amount), expected, atol=1e-5)
    channels = [
        exposure.rescale_intensity(c, out_range=(0, 1)) for c in IMAGES.transpose(0, 3, 1, 2)[0]
    ]
    found = jitted("autocontrasted")(jnp.asarray(IMAGES))
    np.testing.assert_allclose(found[0], np.stack(channels, -1), atol=1e-5)
    expected = by_pillow(ImageOps.autocontrast)
    np.testing.assert_allclose(found, expected, atol=1.01 / 255)
    plain = jnp.full((2, 3, 4, 3), 0.4)
    np.testing.assert_array_equal(jitted("stretched")(plain, jnp.ones(2)), plain)
    np.testing.assert_array_equal(jitted("autocontrasted")(plain), plain)


def test_equalizing_is_pillows():
    rng = np.random.default_rng(1)
    skewed = (rng.random((3, 40, 30, 3)) ** 3 * 255).astype(np.uint8)
    skewed[1] //= 64  # few levels, most pixels in the lowest
    skewed[2, ..., 0] = 77  # a channel of one value
    found = jitted("equalized")(jnp.asarray(skewed / np.float32(255)))
    np.testing.assert_allclose(found, by_pillow(ImageOps.equalize, skewed), atol=1e-6)
    few = BYTES[:, :5, :5]  # too few pixels for a step
    found = jitted("equalized")(jnp.asarray(few / np.float32(255)))
    np.testing.assert_allclose(found, by_pillow(ImageOps.equalize, few), atol=1e-6)


def test_comparing_counts_and_looks_up_alike():
    rng = np.random.default_rng(2)
    values = jnp.asarray((rng.random((3, 50, 2)) ** 2 * 256).astype(np.int32))
    counts = histogram.counted(values)
    np.testing.assert_array_equal(histogram.counted_by_comparing(values), counts)
    wanted = [np.bincount(np.asarray(values)[1, :, 0], minlength=256)]
    np.testing.assert_array_equal(counts[1, :1], wanted)
    found = histogram.looked_up_by_comparing(counts, values)
    np.testing.assert_array_equal(found, histogram.looked_up(counts, values))
    traced = jax.jit(colors.equalized).trace(jnp.asarray(IMAGES))
    lowered = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.gather" not in lowered and "stablehlo.scatter" not in lowered


def test_posterizing_and_solarizing_are_pillows():
    for bits in range(1, 8):
        found = jitted("posterized")(jnp.asarray(IMAGES), jnp.full(4, bits - 0.3))
        expected = by_pillow(lambda image, bits=bits: ImageOps.posterize(image, 8 - bits))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    between = jnp.asarray(IMAGES + np.float32(0.001))
    np.testing.assert_array_equal(jitted("posterized")(between, jnp.full(4, 0.4)), between)
    for threshold in (30, 128, 200):
        found = jitted("solarized")(jnp.asarray(IMAGES), jnp.full(4, (threshold - 0.5) / 255))
        expected = by_pillow(lambda image, at=threshold: ImageOps.solarize(image, at))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_blurring_is_scikit_images():
    sigma = np.float32([0.0, 0.3, 1.0, 2.0])
    found = jitted("blurred")(jnp.asarray(IMAGES), sigma)
    np.testing.assert_array_equal(found[0], IMAGES[0])
    for image, width, blurred in zip(IMAGES[1:], sigma[1:], found[1:], strict=True):
        expected = filters.gaussian(
            image, float(width), mode="nearest", truncate=6 / float(width), channel_axis=-1
        )
        np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_noise_is_normal_and_of_its_strength():
    images = jnp.full((2, 80, 100, 3), 0.5)
    noise = np.asarray(jitted("noise")(jax.random.key(0), images, 0.05) - 0.5) / 0.05
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(noise.std((1, 2)).ravel(), stats.norm(1, 0.02).cdf).pvalue > 1e-4
    flat = noise.reshape(2, -1)
    for other in (flat[1], np.roll(flat[0], 1), np.roll(flat[0], 3), np.roll(flat[0], 300)):
        assert abs(np.corrcoef(flat[0], other)[0, 1]) < 5 / np.sqrt(flat.shape[1])
    strong = np.asarray(jitted("noise")(jax.random.key(1), images, 1.0))
    assert strong.min() == 0 and strong.max() == 1
    tails = normals(jax.random.key(2), (1000, 1000))
    assert np.isfinite(tails).all()
    assert abs(float((tails**4).mean()) - 3) < 0.05


@pytest.mark.slow
def test_draws_are_uniform_over_their_range():
    n = 2000
    plain = np.full((n, 2, 2, 3), 0.5, np.float32)
    plain[:, 0, 0] = 0.25
    plain[:, 0, 1] = [0.5, 0.25, 0.25]  # red
    images, key = jnp.asarray(plain), jax.random.key(3)
    found = augmented(key, images, dict.fromkeys(COLOR, 0.4))
    found = jax.tree.map(np.asarray, found)
    luma = plain @ np.float32([0.2989, 0.587, 0.114])
    mean, red = luma.mean((1, 2)), luma[0, 0, 1]
    draws = {
        "brightness": (found["brightness"][:, 1, 1, 0] / 0.5 - 1) / 0.4,
        "contrast": ((found["contrast"][:, 1, 1, 0] - mean) / (0.5 - mean) - 1) / 0.4,
        "saturation": ((found["saturation"][:, 0, 1, 0] - red) / (0.5 - red) - 1) / 0.4,
        "hue": (skimage_color.rgb2hsv(found["hue"][:, 0, 1][None])[0, :, 0] + 0.5) % 1 / 0.4 - 1.25,
        "stretch": (0.25 - found["stretch"][:, 0, 0, 0]) / 0.25 / 0.4 * 2 - 1,
    }
    for name, draw in draws.items():
        assert stats.kstest(draw, stats.uniform(-1, 2).cdf).pvalue > 1e-3, name
        assert abs(np.corrcoef(draw[1:], draw[:-1])[0, 1]) < 5 / np.sqrt(n), name
    bright = np.linspace(0.5, 1, 1001, dtype=np.float32)[1:]
    many = jnp.asarray(np.tile(bright[None, None, :, None], (n, 1, 1, 1)))
    inverted = np.asarray(solarize(key, many, 0.4) != many)[:, 0, :, 0]
    thresholds = bright[inverted.argmax(1)]
    assert stats.kstest((1 - thresholds) / 0.4, "uniform").pvalue > 1e-3
    ramp = jnp.asarray(np.tile(np.arange(16, dtype=np.float32)[:, None] / 255, (n, 1, 1, 1)))
    levels = [len(np.unique(image)) for image in np.asarray(posterize(key, ramp, 2.5))]
    counts = [levels.count(kept) for kept in (16, 8, 4)]  # 0, 1 and 2 bits, the last up to 2.5
    assert stats.chisquare(counts, np.array([0.2, 0.4, 0.4]) * n).pvalue > 1e-3
    dot = np.zeros((n, 1, 13, 1), np.float32)
    dot[:, :, 6] = 1
    peaks = np.asarray(blur(key, jnp.asarray(dot), 2.0))[:, 0, 6, 0]
    grid = np.linspace(0.4, 2, 1001)  # below it hardly anything is blurred
    kernel = np.exp(-0.5 * (np.arange(-6, 7)[:, None] / grid) ** 2).sum(0)
    sigmas = np.interp(1 / peaks, kernel, grid)
    assert sigmas.max() < 2
    assert stats.kstest(sigmas[sigmas > 0.5], stats.uniform(0.5, 1.5).cdf).pvalue > 1e-3
    assert stats.binomtest(int((sigmas > 0.5).sum()), n, 0.75).pvalue > 1e-3


def test_values_stay_in_their_range():
    images = jnp.asarray(np.random.default_rng(4).random((4, 7, 6, 3), np.float32))
    strongest = {name: part.high for name, part in COLOR.items()}
    for name, changed in augmented(jax.random.key(5), images, strongest).items():
        assert changed.min() >= 0 and changed.max() <= 1 + 1e-6, name
        assert (changed != images).any((1, 2, 3)).sum() >= 3, name


def test_no_strength_changes_no_bit_one_program_serves_all_and_a_population():
    rng = np.random.default_rng(6)
    strange = rng.normal(size=(4, 7, 6, 3)).astype(np.float32)
    strange[0, 0, 0] = [np.nan, -0.0, np.inf]
    images = jnp.asarray(rng.random((4, 7, 6, 3), np.float32))
    traces = []

    def apply(key, images, strength):
        return augmented(key, images, dict.fromkeys(COLOR, strength))

    @jax.jit
    def alone(key, images, strength):
        traces.append(strength)
        return apply(key, images, strength)

    key = jax.random.key(7)
    for name, changed in alone(key, jnp.asarray(strange), jnp.float32(0)).items():
        assert np.asarray(changed).tobytes() == strange.tobytes(), name
    strengths = jnp.asarray([0.0, 0.2, 0.5])
    together = jax.jit(jax.vmap(apply, (None, None, 0)))(key, images, strengths)
    for member, strength in enumerate(strengths):
        for name, changed in alone(key, images, strength).items():
            np.testing.assert_allclose(together[name][member], changed, atol=1e-5, err_msg=name)
    assert len(traces) == 1


def test_precision_stays():
    images = jnp.asarray(IMAGES, jnp.bfloat16)
    found = jax.eval_shape(augmented, jax.random.key(8), images, dict.fromkeys(COLOR, 0.3))
    assert {name: (changed.dtype, changed.shape) for name, changed in found.items()} == (
        dict.fromkeys(COLOR, (images.dtype, images.shape))
    )
