"""Preprocessing of images on the device: size, colour, contrast; nothing of it is fitted.

All functions are pure, their settings static, and take a batch of float images in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jdlopt.errors import ConfigError, DataError, listing, nearest

Images = Float[Array | np.ndarray, "n h w c"]
Rows = Float[Array, "rows pixels"]

BINS = 256
LUMINANCE = (0.2125, 0.7154, 0.0721)
"""The weights of red, green and blue in a grey value: ITU-R BT.709, as scikit-image has them."""


# --- size and colour ------------------------------------------------------------------------------


def resized(images: Images, size: tuple[int, ...]) -> Float[Array | np.ndarray, "n height width c"]:
    """Returns images of another size, interpolated linearly; smaller ones are antialiased.

    A pixel of the result is a mean of the pixels around its place, weighted by a triangle that is
    one pixel wide to each side, of the coarser of the two grids.

    Args:
      images: a batch.
      size: (height, width); one number is a square.

    Example:
      >>> print(resized(jnp.array([0.0, 0.0, 1.0, 1.0]).reshape(1, 1, 4, 1), (1, 2)).ravel())
      [0.142... 0.857...]
    """
    if len(size) not in (1, 2) or min(size) < 1:
        raise ConfigError(
            f"data.preprocess.resize: expected (height, width), both at least 1; found {size}."
        )
    shape = (images.shape[0], size[0], size[-1], images.shape[3])
    if shape == images.shape:
        return images
    return jax.image.resize(images, shape, "linear", antialias=True)


def grayscale(images: Images) -> Float[Array | np.ndarray, "n h w 1"]:
    """Returns the luminance ``0.2125 R + 0.7154 G + 0.0721 B``; grey images stay as they are.

    Example:
      >>> print(grayscale(jnp.array([1.0, 0.0, 1.0]).reshape(1, 1, 1, 3)).ravel())
      [0.284...]
    """
    if images.shape[-1] == 1:
        return images
    red, green, blue = _channels(images, "grayscale")
    weights = LUMINANCE
    return (weights[0] * red + weights[1] * green + weights[2] * blue)[..., None]


def rgb_to_hsv(images: Float[Array | np.ndarray, "*shape 3"]) -> Float[Array, "*shape 3"]:
    """Returns hue (in turns), saturation and value; hue and saturation of grey are 0.

    Smith, "Color gamut transform pairs", SIGGRAPH 1978.

    Example:
      >>> print(rgb_to_hsv(jnp.array([0.0, 0.25, 0.5])))
      [0.583... 1.        0.5      ]
    """
    red, green, blue = _channels(images, "hsv")
    value = images.max(-1)
    spread = value - images.min(-1)
    some = jnp.where(spread > 0, spread, 1.0)
    sector = jnp.where(
        value == blue,
        4.0 + (red - green) / some,
        jnp.where(value == green, 2.0 + (blue - red) / some, (green - blue) / some),
    )
    hue = jnp.where(spread > 0, (sector / 6.0) % 1.0, 0.0)
    saturation = jnp.where(spread > 0, spread / jnp.where(value > 0, value, 1.0), 0.0)
    return jnp.stack([hue, saturation, value], axis=-1)


def hsv_to_rgb(images: Float[Array | np.ndarray, "*shape 3"]) -> Float[Array, "*shape 3"]:
    """Returns red, green and blue of hue (in turns), saturation and value: `rgb_to_hsv` undone.

    Each channel is ``V - V·S·max(0, min(k, 4 - k, 1))`` with ``k = (n + 6 H) mod 6`` and n = 5, 3
    and 1 for red, green and blue.

    Example:
      >>> print(hsv_to_rgb(jnp.array([0.5, 1.0, 0.75])))
      [0.   0.75 0.75]
    """
    hue, saturation, value = _channels(images, "rgb")
    place = (jnp.array([5.0, 3.0, 1.0], images.dtype) + 6.0 * hue[..., None]) % 6.0
    share = jnp.clip(jnp.minimum(place, 4.0 - place), 0.0, 1.0)
    return value[..., None] * (1.0 - saturation[..., None] * share)


def _channels(images: Array | np.ndarray, color: str) -> tuple[Array, Array, Array]:
    if images.shape[-1] != 3:
        raise DataError(
            f"data.preprocess.color={color!r}: expected images with 3 channels, found "
            f"{images.shape[-1]}. Leave data.preprocess.color out."
        )
    red, green, blue = jnp.moveaxis(jnp.asarray(images), -1, 0)
    return red, green, blue


COLORS: dict[str, Callable[[Images], Array | np.ndarray]] = {
    "grayscale": grayscale,
    "hsv": rgb_to_hsv,
    "rgb": hsv_to_rgb,
}
"""What images can be turned into: grey or HSV from RGB, RGB from HSV."""


# --- contrast -------------------------------------------------------------------------------------


def stretched(
    images: Images,
    low: float = 2.0,
    high: float = 98.0,
    *,
    per_channel: bool = False,
    levels: int | None = None,
) -> Images:
    """Stretches contrast: ``clip((x - a) / (b - a), 0, 1)``, a and b percentiles of the image.

    An image whose two percentiles are equal stays as it is.

    Args:
      images: a batch.
      low, high: the percentiles that become 0 and 1.
      per_channel: take each channel's own percentiles; otherwise all channels together, which
        keeps colours.
      levels: the pixels are known to be whole multiples of ``1 / (levels - 1)``, as bytes divided
        by 255 are for 256; the same result, faster.
    """
    rows = _rows(images, per_channel)
    bounds = percentiles(rows, (low, high), levels=levels)
    bottom, top = bounds[:, :1], bounds[:, 1:]
    flat = top <= bottom
    spread = jnp.where(flat, 1.0, top - bottom)
    return _unrows(
        jnp.where(flat, rows, jnp.clip((rows - bottom) / spread, 0.0, 1.0)), images, per_channel
    )


def equalised(images: Images, *, levels: int | None = None) -> Images:
    """Equalises the histogram: a pixel becomes the share of its image's pixels up to its value.

    Grey images and colours other than three are equalised channel by channel. Of three channels
    the brightest of a pixel is (the V of HSV), and all three are scaled by its change, which keeps
    hue and saturation. An image of one value stays as it is.

    Args:
      images: a batch.
      levels: None counts in 256 bins between an image's least and greatest value and interpolates
        between their middles. A number says that pixels are whole multiples of
        ``1 / (levels - 1)``, and counts each of these values, as is exact for bytes.
    """
    if images.shape[-1] != 3:
        rows = _rows(images, per_channel=True)
        return _unrows(_equalised(rows, levels), images, per_channel=True)
    value = images.max(-1, keepdims=True)
    rows = _rows(value, per_channel=True)
    after = _unrows(_equalised(rows, levels), value, per_channel=True)
    return jnp.where(value > 0, images * (after / jnp.where(value > 0, value, 1.0)), after)


def _equalised(rows: Rows, levels: int | None) -> Rows:
    least, most = rows.min(-1, keepdims=True), rows.max(-1, keepdims=True)
    constant = most <= least
    if levels is not None:
        place = _level(rows, levels)
        shares = jnp.cumsum(_histogram(place, levels), axis=-1) / rows.shape[-1]
        return jnp.where(constant, rows, jnp.take_along_axis(shares, place, axis=-1))
    position = (rows - least) / jnp.where(constant, 1.0, most - least) * BINS
    bins = jnp.clip(position.astype(jnp.int32), 0, BINS - 1)
    shares = jnp.cumsum(_histogram(bins, BINS), axis=-1) / rows.shape[-1]
    position = jnp.clip(position - 0.5, 0.0, BINS - 1.0)
    left = jnp.minimum(position.astype(jnp.int32), BINS - 2)
    low = jnp.take_along_axis(shares, left, axis=-1)
    high = jnp.take_along_axis(shares, left + 1, axis=-1)
    return jnp.where(constant, rows, low + (position - left) * (high - low))


def standardised(images: Images) -> Images:
    """Returns images with mean 0 and standard deviation 1 in each channel.

    ``(x - mean) / max(std, 1 / sqrt(h · w))``: the floor, TensorFlow's, keeps the noise of an
    image of one colour small.
    """
    floor = 1.0 / np.sqrt(images.shape[1] * images.shape[2])
    centred = images - images.mean((1, 2), keepdims=True)
    deviation = jnp.sqrt(jnp.mean(centred**2, (1, 2), keepdims=True))
    return centred / jnp.maximum(deviation, floor)


def _rows(images: Images, per_channel: bool) -> Rows:
    n, h, w, c = images.shape
    if per_channel and c > 1:
        return jnp.moveaxis(images, -1, 1).reshape(n * c, h * w)
    return jnp.asarray(images).reshape(n, h * w * c)


def _unrows(rows: Rows, images: Images, per_channel: bool) -> Images:
    n, h, w, c = images.shape
    if per_channel and c > 1:
        return jnp.moveaxis(rows.reshape(n, c, h, w), 1, -1)
    return rows.reshape(images.shape)


# --- order statistics -----------------------------------------------------------------------------


def percentiles(
    rows: Rows, percents: tuple[float, ...], *, levels: int | None = None
) -> Float[Array, "rows percents"]:
    """Returns percentiles of each row, interpolated linearly, as `numpy.percentile` does.

    Without a sort, which takes many times as long on a CPU: the bits of floats are ordered as the
    floats are, so that 32 counts find a value bit by bit. Of values with few levels one histogram
    tells it.

    Args:
      rows: finite float32 values.
      percents: from 0 to 100.
      levels: as in `stretched`.

    Example:
      >>> print(percentiles(jnp.array([[3.0, 1.0, 2.0, -4.0]]), (0, 50, 75)))
      [[-4.    1.5   2.25]]
    """
    places = np.asarray(percents, np.float64) / 100 * (rows.shape[-1] - 1)
    ranks = np.floor(places).astype(np.int32)
    share = jnp.asarray(places - ranks, rows.dtype)
    if levels is not None:
        counts = jnp.cumsum(_histogram(_level(rows, levels), levels), axis=-1)[:, None, :]
        first = jnp.sum(counts <= ranks[:, None], axis=-1)
        second = jnp.minimum(jnp.sum(counts <= ranks[:, None] + 1, axis=-1), levels - 1)
        low, high = (found.astype(rows.dtype) / (levels - 1) for found in (first, second))
    else:
        low, high = _neighbours(rows, ranks)
    return low + (high - low) * share


def _neighbours(
    rows: Rows, ranks: Int[np.ndarray, " some"]
) -> tuple[Float[Array, "rows some"], Float[Array, "rows some"]]:
    """Returns each row's values of given ranks, counted from 0, and those of the ranks after."""
    bits = lax.bitcast_convert_type(rows.astype(jnp.float32), jnp.uint32)
    top = jnp.uint32(1 << 31)
    codes = jnp.where(bits >= top, ~bits, bits | top)  # unsigned order is the floats'

    def count(holds: Any) -> Int[Array, "rows some"]:
        return jnp.stack([jnp.sum(holds(index), -1) for index in range(len(ranks))], axis=-1)

    def set_bit(step: Any, found: Any) -> object:
        tried = found | (top >> step.astype(jnp.uint32))
        below = count(lambda index: codes < tried[:, index, None])
        return jnp.where(below <= ranks, tried, found)

    start = jnp.zeros((rows.shape[0], len(ranks)), jnp.uint32)
    found = lax.fori_loop(0, 32, set_bit, start)
    up_to = count(lambda index: codes <= found[:, index, None])
    largest = jnp.uint32(2**32 - 1)
    above = jnp.stack(
        [
            jnp.min(jnp.where(codes > found[:, index, None], codes, largest), -1)
            for index in range(len(ranks))
        ],
        axis=-1,
    )
    last = ranks + 1 >= rows.shape[-1]
    after = jnp.where((up_to > ranks + 1) | last, found, above)
    low, high = (
        lax.bitcast_convert_type(jnp.where(code >= top, code ^ top, ~code), jnp.float32)
        for code in (found, after)
    )
    return low.astype(rows.dtype), high.astype(rows.dtype)


def _level(rows: Rows, levels: int) -> Int[Array, "rows pixels"]:
    return jnp.clip(jnp.round(rows * (levels - 1)).astype(jnp.int32), 0, levels - 1)


def _histogram(places: Int[Array, "rows pixels"], bins: int) -> Float[Array, "rows bins"]:
    # float32 counts are exact for images up to 16 megapixels
    rows = jnp.arange(places.shape[0])[:, None]
    return jnp.zeros((places.shape[0], bins), jnp.float32).at[rows, places].add(1.0)


# --- all of it ------------------------------------------------------------------------------------


def _recolored(images: Images, color: str) -> Float[Array | np.ndarray, "n h w channels"]:
    if color not in COLORS:
        raise ConfigError(
            f"data.preprocess.color: {color!r} is unknown.{nearest(color, COLORS)} Known: "
            f"{listing(COLORS)}."
        )
    return COLORS[color](images)


IMAGE_STAGES: dict[str, Callable[[Images, Any, int | None], Images]] = {
    "resize": lambda images, size, levels: resized(images, tuple(size)),
    "color": lambda images, color, levels: _recolored(images, color),
    "stretch": lambda images, bounds, levels: stretched(images, *bounds, levels=levels),
    "equalize": lambda images, on, levels: equalised(images, levels=levels),
    "standardize": lambda images, on, levels: standardised(images),
}
"""Key of ``data.preprocess`` → ``(images, its value, levels) → images``, in the order applied."""


def apply(
    images: Images,
    *,
    resize: tuple[int, ...] | None = None,
    color: str = "none",
    stretch: tuple[float, ...] | None = None,
    equalize: bool = False,
    standardize: bool = False,
    levels: int | None = None,
) -> Float[Array, "n height width channels"]:
    """Returns images after all stages that are asked for, in the order of `IMAGE_STAGES`.

    Args:
      images: a batch.
      resize: (height, width).
      color: a key of `COLORS`.
      stretch: the two percentiles that become 0 and 1.
      equalize, standardize: whether histograms are equalised, and channels standardised.
      levels: 256 for images that were uint8 before: contrast is then exact to the byte, and faster.
        None for others.

    Raises:
      ConfigError: contrast is asked for of hue, saturation and value.
      DataError: colours are asked for of images that have none.

    Example:
      >>> images = jnp.zeros((2, 8, 8, 3))
      >>> apply(images, resize=(4, 4), color="grayscale", standardize=True).shape
      (2, 4, 4, 1)
    """
    settings = {
        "resize": resize,
        "color": None if color == "none" else color,
        "stretch": stretch,
        "equalize": equalize or None,
        "standardize": standardize or None,
    }
    for key in ("stretch", "equalize"):
        if color == "hsv" and settings[key] is not None:
            raise ConfigError(
                f"data.preprocess.{key}: has no meaning for hue and saturation "
                "(data.preprocess.color='hsv'). Leave one of them out."
            )
    for name, stage in IMAGE_STAGES.items():
        if settings[name] is not None:
            before = images
            images = stage(images, settings[name], levels)
            levels = levels if images is before else None
    return jnp.asarray(images)
