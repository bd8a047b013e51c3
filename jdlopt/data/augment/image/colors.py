"""What is done to the colours of images, its parameters given."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdlopt.data.augment.augmentation import Images
from jdlopt.data.augment.image import histogram
from jdlopt.data.augment.image.histogram import BYTE

LUMA = (0.2989, 0.587, 0.114)
"""The weights of red, green and blue in a grey value: ITU-R BT.601, rounded as in torchvision."""

GAUSSIAN_RADIUS = 6
"""Pixels at which a blur's Gaussian is cut off: three times the largest sigma."""


def _each(values: Float[Array, "n"]) -> Float[Array, "n 1 1 1"]:
    return values[:, None, None, None]


def grey(images: Images) -> Float[Array, "n h w 1"]:
    """Returns the luma of images with three channels, the mean over channels of others."""
    if images.shape[-1] != len(LUMA):
        return images.mean(-1, keepdims=True)
    luma = sum(weight * images[..., channel] for channel, weight in enumerate(LUMA))
    return jnp.asarray(luma)[..., None]


def mean_grey(images: Images) -> Float[Array, "n 1 1 1"]:
    """Returns the mean of `grey` over each image."""
    n, h, w, c = images.shape
    weights = jnp.asarray(LUMA if c == len(LUMA) else [1 / c] * c, images.dtype) / (h * w)
    # as a product with the weights of all pixels it costs a twentieth of a mean of grey values
    values = images.reshape(n, -1)
    return _each(jnp.matmul(values, jnp.tile(weights, h * w), precision="highest"))


def blended(images: Images, others: Array, factor: Float[Array, "n"]) -> Images:
    """Returns ``factor · x + (1 - factor) · other``, clipped to [0, 1]; factor 1 keeps ``x``."""
    return jnp.clip(_each(factor) * images + _each(1 - factor) * others, 0, 1)


def brightened(images: Images, factor: Float[Array, "n"]) -> Images:
    """Returns images blended with black."""
    return jnp.clip(_each(factor) * images, 0, 1)


def contrasted(images: Images, factor: Float[Array, "n"]) -> Images:
    """Returns images blended with their own mean grey value."""
    return blended(images, mean_grey(images), factor)


def saturated(images: Images, factor: Float[Array, "n"]) -> Images:
    """Returns images blended with the grey value of each pixel; those of one channel stay."""
    return blended(images, grey(images), factor) if images.shape[-1] == len(LUMA) else images


def hue_shifted(images: Images, turns: Float[Array, "n"]) -> Images:
    """Returns images whose hue is turned around the colour circle; those of one channel stay."""
    import dm_pix

    if images.shape[-1] != len(LUMA):
        return images
    return dm_pix.adjust_hue(images, turns[:, None, None])


def stretched(images: Images, amount: Float[Array, "n"]) -> Images:
    """Returns ``(1 - amount) · x + amount · (x - low) / (high - low)``.

    ``low`` and ``high`` are the image's extremes over all channels, so that colours keep their
    hue. An image of one value stays.
    """
    n = images.shape[0]
    low, scale = _range(images.reshape(n, -1), 1)
    stretch = (images - _each(low)) * _each(scale)
    return images + _each(amount) * (stretch - images)


def autocontrasted(images: Images) -> Images:
    """Returns images with each channel stretched to [0, 1]; a channel of one value stays."""
    low, scale = channel_range(images)
    return (images - low) * scale


def channel_range(images: Images) -> tuple[Float[Array, "n 1 1 c"], Float[Array, "n 1 1 c"]]:
    """Returns what to subtract, and then to multiply by, for each channel to run from 0 to 1.

    Both change nothing in a channel of one value.
    """
    n, h, w, c = images.shape
    # rows first: a loop over the three channels of a pixel is too short to be vectorised
    rows = images.reshape(n, h, w * c)
    low, high = (
        extreme(extreme(rows, 1).reshape(n, w, c), 1)[:, None, None, :]
        for extreme in (jnp.min, jnp.max)
    )
    return _range_between(low, high)


def _range(values: Array, axis: int) -> tuple[Array, Array]:
    return _range_between(values.min(axis), values.max(axis))


def _range_between(low: Array, high: Array) -> tuple[Array, Array]:
    one_value = high <= low
    return jnp.where(one_value, 0, low), 1 / jnp.where(one_value, 1, high - low)


def equalized(images: Images) -> Images:
    """Returns images whose channels have flat histograms, as Pillow's ``equalize`` makes them.

    A byte becomes the number of smaller pixels, plus half a step, divided by the step: 1/255 of all
    pixels but those of the largest byte. Where that step is 0 a channel stays.
    """
    n, h, w, c = images.shape
    values = jnp.clip(jnp.round(images * BYTE), 0, BYTE)
    bytes_of_channels = values.astype(jnp.int32).reshape(n, h * w, c)
    counts = histogram.counted(bytes_of_channels)
    # a running sum as a product: XLA's CPU backend would sum anew for every pixel that asks
    before = jnp.triu(jnp.ones((BYTE + 1, BYTE + 1)), 1)
    smaller = jnp.matmul(counts, before, precision="highest")
    # the count below the largest byte: bytes above that one have all pixels below them
    step = jnp.floor(jnp.where(smaller < h * w, smaller, 0).max(-1) / BYTE)[:, None, None]
    rank = histogram.looked_up(smaller, bytes_of_channels).reshape(images.shape)
    level = jnp.floor((rank + jnp.floor(step / 2)) / jnp.maximum(step, 1))
    level = jnp.where(step == 0, values, jnp.clip(level, 0, BYTE))
    return (level / BYTE).astype(images.dtype)


def solarized(images: Images, threshold: Float[Array, "n"]) -> Images:
    """Returns ``1 - x`` where ``x`` is at least the threshold, else ``x``."""
    import dm_pix

    return dm_pix.solarize(images, _each(threshold))


def posterized(images: Images, bits: Float[Array, "n"]) -> Images:
    """Returns images whose bytes have their lowest bits cleared, ``bits`` of them, rounded.

    With no bit to clear an image stays what it is, also between two bytes.
    """
    step = _each(jnp.exp2(jnp.round(bits)))
    cleared = jnp.floor(jnp.round(images * BYTE) / step) * (step / BYTE)
    return jnp.where(step <= 1, images, cleared.astype(images.dtype))


def smoothed(images: Images) -> Images:
    """Returns the mean of each pixel's 3 × 3 neighbours, itself counted five times.

    The border's pixels stay. It is Pillow's filter SMOOTH.
    """
    n, h, w, c = images.shape
    rows = images.reshape(n, h, w * c)
    padded = jnp.pad(rows, ((0, 0), (1, 1), (c, c)))
    columns = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    box = columns[:, :, : -2 * c] + columns[:, :, c:-c] + columns[:, :, 2 * c :]
    y, x = jnp.arange(h)[:, None], jnp.arange(w * c) // c
    inner = (y > 0) & (y < h - 1) & (x > 0) & (x < w - 1)
    smooth = ((box + 4 * rows) / 13).astype(images.dtype)
    return jnp.where(inner, smooth, rows).reshape(images.shape)


def sharpened(images: Images, factor: Float[Array, "n"]) -> Images:
    """Returns images blended with themselves smoothed; a factor above 1 sharpens."""
    return blended(images, smoothed(images), factor)


def blurred(images: Images, sigma: Float[Array, "n"], radius: int = GAUSSIAN_RADIUS) -> Images:
    """Returns images convolved with a Gaussian, the border's pixels repeated outwards.

    Args:
      images: the images.
      sigma: the Gaussian's standard deviation, in pixels; 0 keeps an image.
      radius: pixels at which the Gaussian is cut off; three sigma hold 99.7% of it.
    """
    n, h, w, c = images.shape
    distance = jnp.arange(radius + 1, dtype=jnp.float32)[:, None]
    # a sigma of 0 becomes one whose neighbours weigh exp(-∞)
    weights = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 1e-6)) ** 2)
    weights = (weights / (weights[0] + 2 * weights[1:].sum(0)))[:, :, None, None].astype(
        images.dtype
    )

    def along(padded: Array, axis: int, stride: int) -> Array:
        size = padded.shape[axis] - 2 * radius * stride

        def at(offset: int) -> Array:
            start = (radius + offset) * stride
            return jax.lax.slice_in_dim(padded, start, start + size, axis=axis)

        return weights[0] * at(0) + sum(
            weights[offset] * (at(-offset) + at(offset)) for offset in range(1, radius + 1)
        )

    edges = ((radius, radius), (0, 0))
    columns = jnp.pad(images, ((0, 0), *edges, (0, 0)), mode="edge").reshape(n, -1, w * c)
    blurred_columns = along(columns, 1, 1).reshape(images.shape)
    rows = jnp.pad(blurred_columns, ((0, 0), (0, 0), *edges), mode="edge").reshape(n, h, -1)
    return along(rows, 2, c).reshape(images.shape)
