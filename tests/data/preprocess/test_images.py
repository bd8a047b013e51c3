from __future__ import annotations

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage import color as reference_color
from skimage import exposure

from jdlopt.data.preprocess import images as room
from jdlopt.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
FLOATS = RNG.random((3, 24, 20, 3), dtype=np.float32) ** 2
BYTES = RNG.integers(0, 256, (3, 24, 20, 3), dtype=np.uint8)
BORN = (BYTES / 255.0).astype(np.float32)
CONSTANT = np.stack([np.full((6, 5, 3), value, np.float32) for value in (0.0, 0.4, 1.0)])
TOLERANCE = {"rtol": 0, "atol": 1e-5}

# as one program each: op by op they would be compiled op by op
stretched = jax.jit(room.stretched, static_argnames=("low", "high", "per_channel", "levels"))
equalised = jax.jit(room.equalised, static_argnames="levels")
standardised = jax.jit(room.standardised)
percentiles = jax.jit(room.percentiles, static_argnames=("percents", "levels"))
rgb_to_hsv, hsv_to_rgb = jax.jit(room.rgb_to_hsv), jax.jit(room.hsv_to_rgb)


def each(function, images):
    return np.stack([function(image.astype(np.float64)) for image in images])


# --- contrast -------------------------------------------------------------------------------------


@pytest.mark.parametrize("percents", [(2, 98), (0, 100), (10, 75.5)])
@pytest.mark.parametrize(("images", "levels"), [(FLOATS, None), (BORN, None), (BORN, 256)])
def test_stretching_equals_scikit_image(images, levels, percents):
    def stretch(image):
        return exposure.rescale_intensity(image, in_range=tuple(np.percentile(image, percents)))

    result = stretched(images, low=percents[0], high=percents[1], levels=levels)
    np.testing.assert_allclose(result, each(stretch, images), **TOLERANCE)
    assert result.dtype == jnp.float32


def test_stretching_by_channel():
    result = stretched(FLOATS, per_channel=True)
    for channel in range(3):
        alone = FLOATS[..., channel, None]
        np.testing.assert_array_equal(result[..., channel, None], stretched(alone))


@given(
    arrays(np.float32, (2, 13), elements=st.floats(-8, 8, width=32)),
    st.sampled_from([(0, 2, 98, 100), (33.3, 50)]),
)
@settings(max_examples=40, deadline=None)
def test_percentiles_equal_numpys(rows, percents):
    result = percentiles(rows, percents)
    expected = np.percentile(rows.astype(np.float64), percents, axis=1).T
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@given(
    arrays(np.uint8, (2, 13), elements=st.sampled_from([0, 1, 2, 127, 128, 254, 255])),
    st.sampled_from([2, 50, 100]),
)
@settings(max_examples=40, deadline=None)
def test_the_percentiles_of_levels_are_exact(values, percent):
    rows = jnp.asarray(values / np.float32(255))
    expected = np.percentile(values / 255.0, [percent], axis=1).T
    for levels in (None, 256):
        result = percentiles(rows, (percent,), levels=levels)
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("images", [FLOATS, BORN])
def test_equalising_grey_images_equals_scikit_image(images):
    grey = images[..., :1]
    expected = each(lambda image: exposure.equalize_hist(image[..., 0], nbins=256), grey)
    np.testing.assert_allclose(equalised(grey)[..., 0], expected, **TOLERANCE)


def test_equalising_bytes_equals_scikit_image_on_uint8():
    expected = np.stack([exposure.equalize_hist(image) for image in BYTES[..., 1]])
    result = equalised(BORN[..., 1:2], levels=256)
    np.testing.assert_allclose(result[..., 0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("images", "levels"), [(FLOATS, None), (BORN, 256)])
def test_equalising_colours_keeps_hue_and_saturation(images, levels):
    def equalise(image):
        hsv = reference_color.rgb2hsv(image)
        value = np.round(hsv[..., 2] * 255).astype(np.uint8) if levels else hsv[..., 2]
        hsv[..., 2] = exposure.equalize_hist(value)
        return reference_color.hsv2rgb(hsv)

    black = np.array(images)
    black[:, 3, 4] = 0.0
    result = equalised(black, levels=levels)
    np.testing.assert_allclose(result, each(equalise, black), **TOLERANCE)


def test_other_channels_are_equalised_on_their_own():
    result = equalised(FLOATS[..., :2])
    for channel in range(2):
        alone = equalised(FLOATS[..., channel, None])
        np.testing.assert_array_equal(result[..., channel, None], alone)


def test_standardising():
    result = np.asarray(standardised(FLOATS))
    values = FLOATS.astype(np.float64)
    mean, deviation = values.mean((1, 2), keepdims=True), values.std((1, 2), keepdims=True)
    np.testing.assert_allclose(result, (values - mean) / deviation, rtol=0, atol=2e-5)
    faint = np.zeros((1, 4, 4, 1), np.float32)
    faint[0, 0, 0] = 0.16  # deviates less than 1 / sqrt(16)
    expected = (faint - 0.01) * 4
    np.testing.assert_allclose(standardised(faint), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("levels", [None, 256])
def test_constant_images_stay_as_they_are(levels):
    np.testing.assert_array_equal(stretched(CONSTANT, levels=levels), CONSTANT)
    np.testing.assert_allclose(equalised(CONSTANT, levels=levels), CONSTANT, rtol=1e-6)
    np.testing.assert_allclose(standardised(CONSTANT), 0 * CONSTANT, atol=1e-6)
    np.testing.assert_allclose(room.grayscale(CONSTANT), CONSTANT[..., :1], rtol=1e-6)
    np.testing.assert_array_equal(hsv_to_rgb(rgb_to_hsv(CONSTANT)), CONSTANT)
    mostly = np.zeros((1, 10, 10, 1), np.float32)
    mostly[0, 0, 0] = 0.5  # both percentiles are 0
    np.testing.assert_array_equal(stretched(mostly, levels=levels), mostly)


# --- colour and size ------------------------------------------------------------------------------


@given(arrays(np.float32, (2, 2, 3), elements=st.floats(0, 1, width=16)))
@settings(max_examples=60, deadline=None)
def test_hsv_equals_python_and_comes_back(pixels):
    hsv = np.asarray(rgb_to_hsv(jnp.asarray(pixels)))
    for pixel, found in zip(pixels.reshape(-1, 3), hsv.reshape(-1, 3)):
        expected = colorsys.rgb_to_hsv(*map(float, pixel))
        turn = abs(found[0] - expected[0])
        assert min(turn, 1 - turn) < 1e-5
        np.testing.assert_allclose(found[1:], expected[1:], **TOLERANCE)
    np.testing.assert_allclose(hsv_to_rgb(jnp.asarray(hsv)), pixels, **TOLERANCE)


def test_colours_equal_scikit_image():
    for images in (FLOATS, BORN):
        hsv = each(reference_color.rgb2hsv, images)
        np.testing.assert_allclose(rgb_to_hsv(images), hsv, **TOLERANCE)
        rgb = each(reference_color.hsv2rgb, images)  # any three numbers are a hue and so on
        np.testing.assert_allclose(hsv_to_rgb(images), rgb, **TOLERANCE)
        grey = each(reference_color.rgb2gray, images)
        np.testing.assert_allclose(room.grayscale(images)[..., 0], grey, **TOLERANCE)
    np.testing.assert_array_equal(room.grayscale(FLOATS[..., :1]), FLOATS[..., :1])


@pytest.mark.parametrize("size", [(12, 10), (7, 31), (48, 60), (24, 5), (9,)])
def test_resizing_equals_pillow(size):
    height, width = size[0], size[-1]
    result = room.resized(FLOATS, size)
    assert result.shape == (3, height, width, 3)
    for image, found in zip(FLOATS, result):
        for channel in range(3):
            pixels = Image.fromarray(image[..., channel])
            expected = pixels.resize((width, height), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(found[..., channel], np.asarray(expected), **TOLERANCE)


def test_images_of_the_right_size_are_not_touched():
    np.testing.assert_array_equal(room.resized(FLOATS, (24, 20)), FLOATS)


# --- all of it ------------------------------------------------------------------------------------

ALL = {"resize": (12, 12), "color": "grayscale", "stretch": (2, 98), "equalize": True}


def test_stages_run_in_their_order():
    assert list(room.IMAGE_STAGES) == ["resize", "color", "stretch", "equalize", "standardize"]
    result = jax.jit(lambda images: room.apply(images, standardize=True, **ALL))(FLOATS)
    by_hand = room.grayscale(room.resized(FLOATS, (12, 12)))
    by_hand = standardised(equalised(stretched(by_hand)))
    np.testing.assert_allclose(result, by_hand, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(room.apply(FLOATS), FLOATS)
    np.testing.assert_array_equal(room.apply(FLOATS, color="rgb"), room.hsv_to_rgb(FLOATS))


def test_levels_hold_until_the_pixels_change():
    exact = room.apply(BORN, resize=(24, 20), equalize=True, levels=256)
    np.testing.assert_allclose(exact, equalised(BORN, levels=256), rtol=0, atol=1e-6)
    result = room.apply(BORN, resize=(12, 12), equalize=True, levels=256)
    expected = equalised(room.resized(BORN, (12, 12)))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [None, 256])
def test_jit_and_vmap_give_the_same(levels):
    def whole(images):
        return room.apply(images, stretch=(1, 99), equalize=True, standardize=True, levels=levels)

    both = jnp.stack([FLOATS, BORN] if levels is None else [BORN, BORN[::-1]])
    together = jax.jit(jax.vmap(whole))(both)
    for images, found in zip(both, together):
        np.testing.assert_allclose(found, jax.jit(whole)(images), rtol=0, atol=2e-5)
    first = jax.jit(whole)(both[0, :1])  # nothing of an image depends on the others
    np.testing.assert_allclose(together[0, :1], first, rtol=0, atol=2e-5)


@pytest.mark.usefixtures("unchecked_types")
def test_wrong_settings():
    with pytest.raises(DataError, match=r"color='hsv'.*3 channels, found 1"):
        room.apply(FLOATS[..., :1], color="hsv")
    with pytest.raises(ConfigError, match=r"'greyscale' is unknown.*Did you mean 'grayscale'"):
        room.apply(FLOATS, color="greyscale")
    with pytest.raises(ConfigError, match="stretch: has no meaning for hue"):
        room.apply(FLOATS, color="hsv", stretch=(2, 98))
    with pytest.raises(ConfigError, match="resize: expected"):
        room.resized(FLOATS, (3, 0))
