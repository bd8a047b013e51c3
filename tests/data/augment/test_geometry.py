"""Geometric augmentation against scikit-image, numpy's padding and the draws' distributions."""

from __future__ import annotations

from functools import partial

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from skimage import transform

from jdlopt.data.augment import AUGMENTATIONS
from jdlopt.data.augment.image import affine, products, resample
from jdlopt.data.augment.image.crop import crop
from jdlopt.data.augment.image.flip import alternating_flip, fingerprints
from jdlopt.data.augment.image.resized_crop import resized_crop
from jdlopt.data.augment.image.warp import drawn, warp

GEOMETRY = {name: part for name, part in AUGMENTATIONS.items() if part.stage == "geometry"}

NUMPY_MODE = {"constant": "constant", "reflect": "reflect", "edge": "edge"}
STRONG = {
    "crop": 0.25,
    "resized_crop": 0.5,
    "flip": 0.5,
    "flip_vertical": 0.5,
    "rotate": 40.0,
    "shift": 0.2,
    "zoom": 0.3,
    "shear": 20.0,
}


def moves(strengths):
    """The moves of some strengths, in their order."""
    return [(GEOMETRY[name].move, strength) for name, strength in strengths.items()]


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).random((6, 12, 9, 3), dtype=np.float32))


def ramps(n, height, width):
    """Images of two channels that show where each pixel comes from: its row and its column."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    image = np.stack([rows, columns], -1).astype(np.float32)
    return jnp.asarray(np.broadcast_to(image, (n, *image.shape)))


def centred(matrix, height, width):
    """A 3 × 3 matrix on (x, y, 1) that acts around the image's centre."""
    to = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    return to @ matrix @ np.linalg.inv(to)


def by_skimage(image, forward, mode="constant"):
    """The image moved by a forward matrix on (x, y, 1), resampled by scikit-image."""
    inverse = np.linalg.inv(centred(forward, *image.shape[:2]))
    moved = [
        transform.warp(np.asarray(channel, np.float64), inverse, order=1, mode=mode)
        for channel in np.moveaxis(np.asarray(image), -1, 0)
    ]
    return np.stack(moved, -1)


def forwards(kind, values):
    """What the parts of `affine` say that they do, as forward matrices on (x right, y down, 1)."""
    if kind == "rotation":  # counter-clockwise, with y downwards
        angle = np.deg2rad(values[0])
        return np.array(
            [
                [np.cos(angle), np.sin(angle), 0],
                [-np.sin(angle), np.cos(angle), 0],
                [0, 0, 1],
            ]
        )
    if kind == "translation":
        return np.array([[1, 0, values[1]], [0, 1, values[0]], [0, 0, 1]])
    if kind == "scaling":
        return np.diag([values[1], values[0], 1])
    along_rows = np.array([[1, -values[0], 0], [0, 1, 0], [0, 0, 1]])
    along_columns = np.array([[1, 0, 0], [-values[1], 1, 0], [0, 0, 1]])
    return along_columns @ along_rows


MAPS = [
    ("rotation", (17.0,)),
    ("rotation", (-123.0,)),
    ("translation", (1.25, -2.6)),
    ("scaling", (1.4, 0.7)),
    ("scaling", (1.0, -1.0)),
    ("shearing", (0.4, 0.0)),
    ("shearing", (0.3, -0.5)),
]


def maps_of(kind, values, n=1):
    return getattr(affine, kind)(*(jnp.full(n, value, jnp.float32) for value in values))


@pytest.mark.parametrize("fill", affine.FILLS)
def test_maps_show_what_scikit_image_shows(images, fill):
    image = images[0]
    move = jax.jit(partial(resample.resampled, fill=fill))
    for kind, values in MAPS:
        found = move(image[None], maps_of(kind, values))[0]
        expected = by_skimage(image, forwards(kind, values), mode=NUMPY_MODE[fill])
        np.testing.assert_allclose(found, expected, atol=2e-5, err_msg=f"{kind} {values}")


def test_a_rotation_is_scikit_images_rotate(images):
    degrees = jnp.asarray([0.0, 10.0, 45.0, 90.0, 180.0, -30.0])
    found = resample.resampled(images, affine.rotation(degrees))
    for image, angle, turned in zip(images, degrees, found, strict=True):
        expected = transform.rotate(np.array(image), float(angle), order=1)
        np.testing.assert_allclose(turned, expected, atol=2e-5)


def test_composed_maps_are_made_one_after_the_other(images):
    first, then = ("rotation", (25.0,)), ("translation", (1.0, -2.5))
    maps = affine.compose(maps_of(*first, n=6), maps_of(*then, n=6))
    maps = affine.compose(maps, maps_of("shearing", (0.2, 0.1), n=6))
    forward = forwards("shearing", (0.2, 0.1)) @ forwards(*then) @ forwards(*first)
    for image, moved in zip(images, resample.resampled(images, maps), strict=True):
        np.testing.assert_allclose(moved, by_skimage(image, forward), atol=2e-5)


def test_nearest_takes_a_pixel_and_its_mean_is_not_taken(images):
    maps = affine.rotation(jnp.full(6, 33.0))
    moved = np.asarray(resample.resampled(images, maps, interpolation="nearest"))
    places = resample.resampled(ramps(6, 12, 9), maps, interpolation="bilinear", fill="edge")
    inside = moved.any(-1)
    rows, columns = np.round(np.moveaxis(np.asarray(places), -1, 0)).astype(int)
    expected = np.stack([image[r, c] for image, r, c in zip(np.asarray(images), rows, columns)])
    np.testing.assert_array_equal(moved[inside], expected[inside])
    assert 0.6 < inside.mean() < 0.95


@hypothesis.given(
    down=st.integers(-40, 40),
    right=st.integers(-40, 40),
    mirrored=st.tuples(st.booleans(), st.booleans()),
    fill=st.sampled_from(affine.FILLS),
)
@hypothesis.settings(max_examples=60)
def test_whole_pixels_are_numpys_padding(down, right, mirrored, fill):
    height, width = 5, 4
    image = np.random.default_rng(1).random((1, height, width, 2), dtype=np.float32)
    mirror = affine.scaling(*(jnp.where(flip, -1.0, 1.0)[None] for flip in mirrored))
    maps = affine.compose(mirror, affine.translation(jnp.float32([down]), jnp.float32([right])))
    copied, nearest, bilinear = EXACTLY[fill](jnp.asarray(image), maps)

    shown = image[0, :: -1 if mirrored[0] else 1, :: -1 if mirrored[1] else 1]
    reach = 40
    padded = np.pad(shown, ((reach, reach), (reach, reach), (0, 0)), mode=NUMPY_MODE[fill])
    top, left = reach - down, reach - right
    expected = padded[top : top + height, left : left + width][None]
    np.testing.assert_array_equal(copied, expected)
    np.testing.assert_array_equal(nearest, expected)
    np.testing.assert_array_equal(bilinear, expected)


def _three_ways(fill, images, maps):
    return (
        resample.copied(images, maps, fill=fill),
        resample.resampled(images, maps, fill=fill, interpolation="nearest"),
        resample.resampled(images, maps, fill=fill),
    )


EXACTLY = {fill: jax.jit(partial(_three_ways, fill)) for fill in affine.FILLS}


def test_an_image_of_one_pixel_a_side_reflects_itself():
    image = jnp.asarray([[[[0.2], [0.6], [1.0]]]])
    maps = affine.translation(jnp.float32([3.0]), jnp.float32([1.0]))
    moved = resample.copied(image, maps, fill="reflect")
    np.testing.assert_array_equal(moved[0, 0, :, 0], jnp.float32([0.6, 0.2, 0.6]))


# --- as products, for TPUs ------------------------------------------------------------------------


def some_maps(upright, n=6):
    """Maps that reach beyond the border; the first is the identity."""
    names = ("flip", "zoom", "shift") if upright else ("rotate", "shear", "zoom", "shift")
    maps = drawn(jax.random.key(11), n, (12, 9), moves({name: STRONG[name] for name in names}))
    still = affine.identity(n)
    return affine.Affine(*(each.at[0].set(one[0]) for each, one in zip(maps, still)))


WAYS = [
    {"fill": fill, "interpolation": interpolation}
    for fill in affine.FILLS
    for interpolation in affine.INTERPOLATIONS
]


@pytest.mark.parametrize(
    ("upright", "most"), [(True, 0), (False, 12 * 9), (False, 0)], ids=["upright", "small", "large"]
)
def test_products_show_what_reading_pixels_shows(images, upright, most, monkeypatch):
    monkeypatch.setattr(products, "MOST_PIXELS", most)
    made = jax.jit(
        lambda *given: [products.resampled(*given, **way, upright=upright) for way in WAYS]
    )
    read = jax.jit(lambda *given: [resample.resampled(*given, **way) for way in WAYS])
    maps = some_maps(upright)
    for way, found, wanted in zip(WAYS, made(images, maps), read(images, maps), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6, err_msg=str(way))
        np.testing.assert_array_equal(found[0], images[0])
    if upright:
        whole = affine.scaling(jnp.asarray([1.0, -1.0] * 3), jnp.asarray([-1.0] * 6))
        whole = affine.compose(whole, affine.translation(jnp.arange(6.0), -jnp.arange(6.0)))
        np.testing.assert_array_equal(made(images, whole)[1], resample.copied(images, whole))


def test_a_tpu_reads_no_single_pixels():
    def read_in(strengths, side, platform):
        images = jax.ShapeDtypeStruct((4, side, side, 3), jnp.float32)
        traced = jax.jit(lambda key, images: warp(key, images, moves(strengths))).trace(
            jax.random.key(0), images
        )
        return traced.lower(lowering_platforms=(platform,)).as_text().count('"stablehlo.gather"(')

    upright = {"crop": 0.1, "resized_crop": 0.5, "flip": 0.5, "shift": 0.1, "zoom": 0.1}
    assert read_in(upright, 224, "tpu") == 0 < read_in(upright, 224, "cuda")
    assert read_in({"crop": 0.1, "flip": 0.5}, 224, "tpu") == 0
    assert read_in(STRONG, 28, "tpu") == 0
    assert read_in(STRONG, 224, "tpu") == 1 and read_in(STRONG, 224, "cpu") == 4


# --- draws ----------------------------------------------------------------------------------------


def test_crops_are_whole_and_uniform():
    n, size, reach = 4000, 8, 2
    images = ramps(n, size, size) + 1
    moved = np.asarray(jax.jit(crop)(jax.random.key(1), images, reach / size))
    middle = moved[:, size // 2, size // 2] - 1 - size // 2
    offsets = middle.astype(int)
    np.testing.assert_array_equal(offsets, middle)
    assert set(np.unique(offsets)) == set(range(-reach, reach + 1))
    pairs = (offsets + reach) @ [2 * reach + 1, 1]
    counts = np.bincount(pairs, minlength=(2 * reach + 1) ** 2)
    assert stats.chisquare(counts).pvalue > 1e-3
    for index in range(5):
        row, column = offsets[index] + reach
        padded = np.pad(np.asarray(images[index]), ((reach, reach), (reach, reach), (0, 0)))
        expected = padded[row : row + size, column : column + size]
        np.testing.assert_array_equal(moved[index], expected)


def test_flips_come_as_often_as_asked(images):
    many = jnp.tile(images[:1, :4, :3], (3000, 1, 1, 1))
    for name, axis in (("flip", 2), ("flip_vertical", 1)):
        apply = jax.jit(GEOMETRY[name].apply)
        moved = apply(jax.random.key(2), many, 0.3)
        mirrored = jnp.flip(many, axis)
        same, flipped = (np.asarray((moved == kind).all((1, 2, 3))) for kind in (many, mirrored))
        assert (same ^ flipped).all()
        assert stats.binomtest(int(flipped.sum()), 3000, 0.3).pvalue > 1e-3
        np.testing.assert_array_equal(apply(jax.random.key(2), many[:5], 1.0), mirrored[:5])


def _windows(moved):
    """The first and the last row and column that resized crops show."""
    moved = np.asarray(moved)
    return moved[:, 0, 0, 0], moved[:, -1, 0, 0], moved[:, 0, 0, 1], moved[:, 0, -1, 1]


def test_resized_crops_show_a_part_within_the_image():
    n, height, width, strength = 3000, 21, 31, 0.6
    moved = jax.jit(resized_crop)(jax.random.key(3), ramps(n, height, width), strength)
    top, bottom, left, right = _windows(moved)
    assert top.min() > -1e-3 and left.min() > -1e-3
    assert bottom.max() < height - 1 + 1e-3 and right.max() < width - 1 + 1e-3
    shares = (bottom - top) / (height - 1), (right - left) / (width - 1)
    free = (shares[0] < 0.999) & (shares[1] < 0.999)  # no side was cut to the image's
    area, aspect = shares[0] * shares[1], np.log(shares[1] / shares[0])
    assert area.min() > 1 - strength - 1e-3 and area.max() <= 1 + 1e-4
    limit = strength * np.log(4 / 3)
    assert np.abs(aspect).max() < limit + 1e-3
    small = free & (area < 0.7)  # where no aspect is cut off, it is uniform
    assert stats.kstest(aspect[small], stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3
    low = area[area < 0.7]
    assert stats.kstest(low, stats.uniform(1 - strength, 0.7 - (1 - strength)).cdf).pvalue > 1e-3
    assert stats.binomtest(len(low), n, 0.5).pvalue > 1e-3
    place = top[free] / ((height - 1) * (1 - shares[0][free]))
    assert stats.kstest(place, "uniform").pvalue > 1e-3


def test_draws_are_uniform_over_their_range_and_independent():
    n, size = 2000, 15
    images, middle = ramps(n, size, size), size // 2
    found = {}
    for name, strength in (("rotate", 30.0), ("shift", 0.2), ("zoom", 0.4), ("shear", 25.0)):
        moved = np.asarray(jax.jit(GEOMETRY[name].apply)(jax.random.key(4), images, strength))
        here = moved[:, middle, middle]
        down, right = moved[:, middle + 1, middle] - here, moved[:, middle, middle + 1] - here
        found[name] = {
            "rotate": [np.rad2deg(np.arctan2(right[:, 0], down[:, 0])) / 30],
            "shift": list((middle - here).T / (0.2 * size)),
            "zoom": [(1 / down[:, 0] - 1) / 0.4],
            "shear": [np.rad2deg(np.arctan(down[:, 1])) / 25],
        }[name]
    draws = [draw for each in found.values() for draw in each]
    for draw in draws:
        assert stats.kstest(draw, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 5 / np.sqrt(n)
    lagged = [np.corrcoef(draw[1:], draw[:-1])[0, 1] for draw in draws]
    assert np.abs(lagged).max() < 5 / np.sqrt(n)


def test_a_move_draws_the_same_whichever_others_are_there():
    key, size = jax.random.key(5), (8, 8)
    alone = drawn(key, 4, size, moves({"shear": 10.0}))
    beside = drawn(key, 4, size, moves({"crop": 0.0, "rotate": 0.0, "shear": 10.0}))
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one, other)


def test_moves_are_made_one_after_the_other():
    key, size = jax.random.key(6), (12, 9)
    expected = affine.identity(5)
    for name in GEOMETRY:
        one = drawn(key, 5, size, moves({name: STRONG[name]}))
        expected = affine.compose(expected, one)
    for one, other in zip(drawn(key, 5, size, moves(STRONG)), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert list(GEOMETRY) == list(STRONG)


# --- strengths ------------------------------------------------------------------------------------


def test_no_strength_changes_no_bit_and_one_program_serves_all(images):
    traces = []
    strange = images.at[0, 0, 0].set(jnp.asarray([jnp.nan, -0.0, jnp.inf]))

    @jax.jit
    def move(key, images, strengths):
        traces.append(strengths)
        together = warp(key, images, moves(strengths))
        alone = [part.apply(key, images, strengths[n]) for n, part in GEOMETRY.items()]
        nearest = warp(key, images, moves(strengths), interpolation="nearest", fill="reflect")
        return [together, nearest, *alone]

    for strengths in (dict.fromkeys(STRONG, 0.0), STRONG, {**STRONG, "rotate": 0.0}):
        for moved in move(jax.random.key(7), strange, strengths):
            assert moved.shape == images.shape and moved.dtype == images.dtype
            same = np.asarray(moved).tobytes() == np.asarray(strange).tobytes()
            assert same == (strengths["crop"] == 0) or strengths["rotate"] == 0
    assert len(traces) == 1


def test_a_move_of_no_strength_leaves_the_others_to_the_bit(images):
    whole = {"crop": 0.25, "flip": 0.5}
    expected = warp(jax.random.key(8), images, moves(whole))
    still = {**whole, **dict.fromkeys(("rotate", "shear", "zoom", "resized_crop"), 0.0)}
    np.testing.assert_array_equal(warp(jax.random.key(8), images, moves(still)), expected)


def test_a_population_is_its_members_one_by_one(images):
    names = ("crop", "flip", "rotate", "zoom")
    strengths = {name: STRONG[name] * jnp.asarray([0.0, 0.5, 1.0]) for name in names}
    keys = jax.random.split(jax.random.key(9), 3)

    def move(key, images, strengths):
        return warp(key, images, moves(strengths))

    together = jax.jit(jax.vmap(move, (0, None, 0)))(keys, images, strengths)
    move = jax.jit(move)
    for member in range(3):
        own = jax.tree.map(lambda values, member=member: values[member], strengths)
        np.testing.assert_allclose(together[member], move(keys[member], images, own), atol=1e-6)
    np.testing.assert_array_equal(together[0], images)


def test_precision_stays(images):
    half = images.astype(jnp.bfloat16)
    moved = warp(jax.random.key(10), half, moves({"rotate": 20.0}))
    assert moved.dtype == jnp.bfloat16
    expected = warp(jax.random.key(10), images, moves({"rotate": 20.0}))
    np.testing.assert_allclose(moved.astype(jnp.float32), expected, atol=0.03)


# --- flips that alternate -------------------------------------------------------------------------


def test_flips_alternate_and_start_with_half():
    images = jnp.asarray(np.random.default_rng(2).random((2000, 4, 3, 1), dtype=np.float32))
    marks = fingerprints(images)
    shown = []
    for epoch in range(3):
        moved = alternating_flip(images, marks, jnp.full(2000, epoch))
        flipped = np.asarray((moved == images[:, :, ::-1]).all((1, 2, 3)))
        assert (flipped ^ np.asarray((moved == images).all((1, 2, 3)))).all()
        shown.append(flipped)
    assert (shown[0] ^ shown[1]).all() and (shown[0] == shown[2]).all()
    assert stats.binomtest(int(shown[0].sum()), 2000, 0.5).pvalue > 1e-3


def test_a_batch_may_span_two_epochs(images):
    marks = jnp.zeros(6, jnp.uint32)
    moved = alternating_flip(images, marks, jnp.asarray([0, 1, 0, 1, 2, 3]))
    np.testing.assert_array_equal(moved[::2], images[::2])
    np.testing.assert_array_equal(moved[1::2], images[1::2, :, ::-1])


def test_fingerprints_are_of_pixels_alone(images):
    marks = fingerprints(images)
    assert marks.dtype == jnp.uint32
    np.testing.assert_array_equal(fingerprints(images[::-1]), marks[::-1])
    np.testing.assert_array_equal(jax.jit(fingerprints)(images), marks)
    # images that differ by a byte, in one place or another, as dark ones may
    dark = np.zeros((300, 20, 20, 1), np.float32)
    for index in range(300):
        dark[index].flat[index] = 1 / 255
    marks = np.asarray(fingerprints(jnp.asarray(dark)))
    assert len(set(marks.tolist())) == 300
    assert stats.binomtest(int((marks & 1).sum()), 300, 0.5).pvalue > 1e-3
