"""Images as they are meant to be seen, whatever file holds them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from jdlopt.data import image_decoding as decoding
from jdlopt.data import open_dataset
from jdlopt.data.image_decoding import Changes, decode_image, look_at, opened
from jdlopt.data.inputs import read_inputs
from jdlopt.errors import DataError

RNG = np.random.default_rng(0)
PHOTO = np.kron(RNG.integers(0, 256, (3, 2, 3)), np.ones((16, 16, 1))).astype(np.uint8)


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return io.BytesIO(file.getvalue())


def changed(file, channels=3):
    """An image's pixels, what was changed of it, and whether its header told its size."""
    changes = Changes()
    pixels = decode_image(file, channels, None, "it", changes)
    with opened(file, "it") as image:
        assert look_at(image).size == pixels.shape[:2]
    assert all(note.count == 1 and note.places == ("it",) for note in changes.notes)
    return pixels, [note.what for note in changes.notes]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_photos_are_turned_as_exif_says(form, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    options |= {"lossless": True} if form == "WEBP" else {}
    file = encoded(Image.fromarray(PHOTO), form, exif=exif, **options)
    pixels, changes = changed(file)
    with Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(pixels, expected)
    assert changes == ([] if orientation == 1 else [decoding.ROTATED])
    assert pixels.shape[:2] == ((48, 32) if orientation < 5 else (32, 48))


def test_damaged_exif_is_no_damage_of_the_image():
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(6)
    pixels, changes = changed(encoded(Image.fromarray(PHOTO), "PNG", exif=exif))
    np.testing.assert_array_equal(pixels, PHOTO)
    assert changes == []


def drawing(colour, mode="RGBA"):
    """A cross that stands in the alpha channel alone: all pixels have one colour."""
    values = np.empty((9, 9, 4), np.uint8)
    values[..., :3], values[..., 3] = colour, 0
    values[4, 1:8, 3] = values[1:8, 4, 3] = 255
    return Image.fromarray(values).convert(mode), values[..., 3] > 0


@pytest.mark.parametrize("colour", [0, 128, 255])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "LA"])
def test_shapes_in_the_alpha_channel_alone_are_seen(colour, channels, form):
    image, shape = drawing(colour, "LA" if form == "LA" else "RGBA")
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    pixels, changes = changed(
        encoded(image, "WEBP" if form == "WEBP" else "PNG", **options), channels
    )
    np.testing.assert_array_equal(pixels, np.where(shape[..., None], 255, 0) + 0 * pixels)
    assert changes[0] == decoding.ON_WHITE


@pytest.mark.parametrize("colour", [(250, 20, 20), (255, 255, 230), (255, 250, 255)])
def test_colours_are_kept_on_a_ground_that_shows_them(colour):
    image, shape = drawing(colour)
    pixels, _ = changed(encoded(image))
    ground = 0 if min(colour) >= decoding.LIGHT else 255
    np.testing.assert_array_equal(pixels, np.where(shape[..., None], colour, ground))


def test_a_palette_with_a_transparent_colour():
    image = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
    image.putpalette([0, 0, 0, 10, 20, 30, 40, 50, 60])
    pixels, changes = changed(encoded(image, transparency=0))
    assert pixels.tolist() == [[[255] * 3, [10, 20, 30]], [[10, 20, 30], [40, 50, 60]]]
    assert changes == [decoding.ON_WHITE]
    assert changed(encoded(image))[1] == []


def test_an_opaque_alpha_channel_changes_no_pixel():
    image = Image.fromarray(PHOTO)
    image.putalpha(255)
    np.testing.assert_array_equal(changed(encoded(image))[0], PHOTO)


def deep_png(values):
    """A PNG of 16 bits a channel, which Pillow can't write in colour."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "PGM"])
def test_16_bits_are_read_as_8(channels, form):
    values = RNG.integers(0, 65_536, (5, 4, channels if form == "PNG" else 1))
    if form == "PNG":
        file = deep_png(values)
    elif form == "TIFF":
        file = encoded(Image.fromarray(values[..., 0].astype(np.uint16)), "TIFF")
    else:
        file = io.BytesIO(b"P5 4 5 65535\n" + values.astype(">u2").tobytes())
    pixels, changes = changed(file, channels)
    np.testing.assert_allclose(pixels, values / 257 + np.zeros(channels), atol=1)
    assert changes[0] == decoding.DEEP


def test_cmyk_and_frames_are_told():
    image = Image.new("CMYK", (8, 8), (200, 10, 10, 0))
    pixels, changes = changed(encoded(image, "JPEG"))
    np.testing.assert_allclose(pixels, np.asarray(image.convert("RGB")), atol=3)
    assert changes == [decoding.MODE.format("CMYK")]
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("GIF", "PNG", "WEBP", "TIFF"):
        file = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        pixels, changes = changed(file)
        np.testing.assert_allclose(pixels, np.asarray(frames[0]), atol=3)
        assert changes == [decoding.FRAMES]


@given(st.integers(0, 255), st.integers(0, 255))
def test_grey_saved_as_colour_is_that_grey(value, other):
    values = np.array([[value, other]], np.uint8)
    for mode in ("RGB", "RGBA", "P"):
        image = Image.fromarray(values).convert(mode)
        pixels, changes = changed(encoded(image), channels=1)
        assert pixels[..., 0].tolist() == values.tolist()
        assert decoding.AS_GREY in changes


def test_other_formats_are_refused(tmp_path):
    """Some of Pillow's readers start other programs."""
    Image.fromarray(PHOTO).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="it: can't be read as an image: cannot identify"):
        decode_image(tmp_path / "a.png", 3, None, "it")


def test_prediction_sees_what_training_saw(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name in ("ant", "bee"):
        (tmp_path / "shots" / name).mkdir(parents=True)
        for index in range(8):
            values = np.roll(PHOTO, index, axis=0)
            Image.fromarray(values).save(tmp_path / "shots" / name / f"{index}.jpg", exif=exif)
    dataset = open_dataset({"source": str(tmp_path / "shots")})
    inputs = dataset.read("train").inputs
    assert inputs.shape[1:] == (32, 48, 3)
    pool, rows = dataset.pools["train"], dataset.parts["train"][1]
    found = read_inputs(tmp_path / "shots", dataset.spec.inputs)
    places = [
        found.ids.index(pool.paths[row].relative_to(tmp_path / "shots").as_posix()) for row in rows
    ]
    np.testing.assert_array_equal(found.inputs[places], inputs)
    assert [(note.what, note.count) for note in found.notes] == [(decoding.ROTATED, 16)]
