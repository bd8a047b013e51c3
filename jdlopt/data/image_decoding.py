"""The one decoder of images: what files hold, as bytes of grey or colour, and what was changed."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jdlopt.data.damage import Unreadable
from jdlopt.data.notes import Notes
from jdlopt.data.walk import FileKind, check_regular
from jdlopt.errors import DataError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

FORMATS = (
    "PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF",
)  # fmt: skip
"""Pillow's names of the formats that are read: others have readers that start other programs."""
SUFFIXES = frozenset(
    (
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tif",
        ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif",
    )
)  # fmt: skip
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
GREY_MODES = ("1", "L", "LA", "La", *DEEP_MODES)
ODD_MODES = ("CMYK", "YCbCr", "LAB", "HSV")
COLOUR_MODES = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", *ODD_MODES)
LEAST_DEPTH = 1 << 12
"""Of 16-bit images that hold no value above this, 8 bits would keep a few levels only."""
LIGHT = 224
"""What is drawn in colours of at least this, of 255, would not be seen on white."""
ROTATED = "EXIF says how an image is to be turned, and it is"
ON_WHITE = "transparent parts are shown on white; a drawing in white or one grey, bright on black"
DEEP = "16 bits a channel are read as 8"
MODE = "colours of mode {} are read as RGB"
FRAMES = "of several frames or pages the first is read"
AS_COLOUR = "grey images are read in colour, as there are coloured ones to train on"
AS_GREY = "coloured images are read in grey, as all images to train on are"


def begins_as_image(head: bytes) -> bool:
    r"""Returns whether a file that begins so is an image of a format that is read here.

    Example:
      >>> begins_as_image(b"GIF89a"), begins_as_image(b"PK"), begins_as_image(b"P5\n# made by")
      (True, False, True)
    """
    return (
        head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"))
        or head.startswith((b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  \r\n\x87\n"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and head[6:10] == bytes(4))
        or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"))
        or re.match(rb"P[1-6]\s+[\d#]", head) is not None
    )


KIND = FileKind("image", SUFFIXES, begins_as_image)


class Look(NamedTuple):
    """What an image's header tells.

    Attributes:
      size: (height, width), as it is meant to be looked at.
      grey: whether its pixels have no colour.
      deep: whether they are of 16 bits, which Pillow keeps of grey ones alone.
      changes: what decoding changes of it, in words.
    """

    size: tuple[int, int]
    grey: bool
    deep: bool
    changes: tuple[str, ...]


@dataclass
class Changes:
    """What reading images changed, each image counted once.

    Attributes:
      notes: where it is counted.
    """

    notes: Notes = field(default_factory=Notes)
    _seen: set[str] = field(default_factory=set)

    def add(self, name: str, look: Look, channels: int) -> None:
        """Counts an image that is read as grey (1 channel) or in colour (3)."""
        if name in self._seen:
            return
        self._seen.add(name)
        turned = () if look.grey == (channels == 1) else (AS_COLOUR if look.grey else AS_GREY,)
        for change in (*look.changes, *turned):
            self.notes.add("changed", change, name, 1, "files")

    def __contains__(self, name: str) -> bool:
        return name in self._seen

    def __reduce__(self) -> tuple[type[Changes], tuple[()]]:
        return Changes, ()  # another process has its own


@contextlib.contextmanager
def opened(file: Path | io.BytesIO, name: str) -> Iterator[ImageFile.ImageFile]:
    """Opens an image; whatever Pillow says against it becomes an `Unreadable` that names it.

    Raises:
      DataError: it is none of `FORMATS`, damaged, or has pixels of a kind that is not read.
    """
    from PIL import Image

    if isinstance(file, Path):
        check_regular(file, name)
    try:
        with Image.open(file, formats=_formats()) as image:
            if image.mode not in GREY_MODES + COLOUR_MODES and not _is_deep(image):
                raise DataError(
                    f"{name}: has pixels of mode {image.mode}; expected 8 or 16 bits a channel. "
                    "Convert it, or store the images in an NPZ file."
                )
            yield image
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders let all kinds through on damaged bytes
        raise Unreadable(
            f"{name}: can't be read as an image: {error}. Replace or remove it, or leave such "
            "images out with data.on_bad='skip'.",
            "unreadable image",
        ) from error


@functools.cache
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def look_at(image: ImageFile.ImageFile) -> Look:
    """Returns what the header of an image tells that `opened` gave and nobody has decoded."""
    turned = _orientation(image)
    size = (image.height, image.width)
    if turned >= 5 and image.format != "TIFF":  # of a TIFF, Pillow has turned the size already
        size = (image.width, image.height)
    deep = _is_deep(image)
    told = {
        ROTATED: turned != 1,
        ON_WHITE: image.has_transparency_data,
        DEEP: deep or _stores_16_bits(image),
        MODE.format(image.mode): image.mode in ODD_MODES,
        # what a phone's camera adds to a JPEG is its small preview
        FRAMES: image.format != "MPO" and getattr(image, "is_animated", False),
    }
    changes = tuple(words for words, holds in told.items() if holds)
    return Look(size, deep or image.mode in GREY_MODES, deep, changes)


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image is grey of 16 bits; that of a PGM comes in 32."""
    if image.mode == "I":
        return image.format == "PPM" or _stores_16_bits(image)
    return image.mode in DEEP_MODES


def _stores_16_bits(image: ImageFile.ImageFile) -> bool:
    """Whether the file has 16 bits a channel, whatever Pillow makes of them."""
    return any(";16" in str(tile.args) for tile in image.tile)


def _orientation(image: Image.Image) -> int:
    """Returns how EXIF says that an image is to be turned, from 1 (not at all) to 8."""
    from PIL import ExifTags, Image

    try:  # a PNG's own `getexif` would decode it, to look for what may come behind the pixels
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damage there is none of the pixels
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    from PIL import Image

    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _opaque(image: Image.Image) -> Image.Image:
    """Returns an image without its alpha channel: on white, or on black if its colours are white.

    A shape in one tone of grey stands in the alpha channel alone, which is taken for it then.
    """
    from PIL import Image

    if not image.has_transparency_data:
        return image
    drawn = image.convert("RGBA")
    if drawn.getchannel("A").getextrema()[0] == 255:
        return drawn.convert("RGB")
    values = np.asarray(drawn)
    visible = values[values[..., 3] > 0][:, :3]
    if visible.size and visible.min() == visible.max():
        return drawn.getchannel("A")
    ground = (0, 0, 0, 255) if visible.size and visible.min() >= LIGHT else (255,) * 4
    made = Image.new("RGBA", drawn.size, ground)
    made.alpha_composite(drawn)
    return made.convert("RGB")


def pixels_of(image: Image.Image) -> np.ndarray:
    """Returns an opened image's pixels as they are stored: of 16 bits where they have them."""
    image.load()
    return np.asarray(image)


def decode_image(
    file: Path | io.BytesIO,
    channels: int,
    size: tuple[int, int] | None,
    name: str,
    changes: Changes | None = None,
) -> UInt8[np.ndarray, "height width channels"]:
    """Decodes an image as grey (1 channel) or RGB (3), resized where a size is given.

    It is turned as its EXIF data say. Transparent parts are put on white, or on black where all
    that is drawn is white; of a drawing in one tone of grey the alpha channel is taken. 16 bits
    become 8 by a division by 257. Of several frames the first is taken. Colours become luminance
    (ITU-R BT.601) where grey is wanted.

    Args:
      file: a path, or the encoded image.
      channels: 1 or 3.
      size: (height, width) to resize to, with antialiasing; None keeps the image's own.
      name: names the image, for messages.
      changes: where what was changed of it is counted.

    Raises:
      DataError: the image can't be decoded.
    """
    from PIL import Image

    with opened(file, name) as image:
        orientation, deep = _orientation(image), _is_deep(image)
        if changes is not None and name not in changes:
            changes.add(name, look_at(image), channels)
        if deep:
            made = Image.fromarray(((pixels_of(image).astype(np.uint32) + 128) // 257).astype("u1"))
        else:
            image.load()
            made = _opaque(image)
        if image.format != "TIFF":  # which Pillow turns
            made = _turned(made, orientation)
        mode = "L" if channels == 1 else "RGB"
        made = made if made.mode == mode else made.convert(mode)
        if size is not None and (made.height, made.width) != size:
            made = made.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        values = np.asarray(made)
    return values.reshape(*values.shape[:2], channels)
