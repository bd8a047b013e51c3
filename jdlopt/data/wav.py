"""WAV files by their chunks: the samples' place, also where the header could not know their number.

What writes to a pipe can't go back to the header, so that the length there stays unknown; some
programs forget the byte that fills a chunk of odd size. Multimedia Programming Interface and Data
Specifications 1.0 (IBM and Microsoft, 1991); RF64: EBU Tech 3306.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

IDENTIFIERS = (b"RIFF", b"RIFX", b"RF64")
UNKNOWN = 0x7FFF_0000
"""A length of at least this, or 0, that the file does not have: it was not known."""
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
MOST_BYTES = (1 << 32) - 1024
"""More samples than this do not fit a RIFF file."""


class Wav(NamedTuple):
    """Where a file has its samples, and what they are.

    Attributes:
      order: of bytes: ``<`` little-endian, ``>`` big-endian.
      form: the content of the format chunk.
      start, length: of the samples, in bytes.
      cut: whether the file ends before the samples do.
    """

    order: str
    form: bytes
    start: int
    length: int
    cut: bool

    @property
    def rate(self) -> int:
        """Samples a second."""
        return struct.unpack_from(f"{self.order}I", self.form, 4)[0]

    @property
    def frame(self) -> int:
        """Bytes of one sample of all channels."""
        return struct.unpack_from(f"{self.order}H", self.form, 12)[0]

    @property
    def bits(self) -> int:
        """Bits of one sample."""
        return struct.unpack_from(f"{self.order}H", self.form, 14)[0]

    @property
    def _tag(self) -> int:
        extended = struct.unpack_from(f"{self.order}H", self.form)[0] == EXTENSIBLE
        place = 24 if extended and len(self.form) >= 26 else 0
        return struct.unpack_from(f"{self.order}H", self.form, place)[0]

    @property
    def is_float(self) -> bool:
        """Whether samples are floats."""
        return self._tag == FLOAT

    @property
    def is_plain(self) -> bool:
        """Whether samples are whole numbers or floats, not a code for them."""
        return self._tag in (PCM, FLOAT)


@contextlib.contextmanager
def _open(file: Path | io.BytesIO) -> Iterator[BinaryIO]:
    if isinstance(file, io.BytesIO):
        file.seek(0)
        yield file
    else:
        with file.open("rb") as opened:
            yield opened


def find(file: Path | io.BytesIO) -> Wav:
    """Returns where a WAV file has its samples; none of them is read.

    Raises:
      ValueError: it is no WAV, or lacks a part.
    """
    with _open(file) as opened:
        size = opened.seek(0, io.SEEK_END)
        opened.seek(0)
        head = opened.read(12)
        if len(head) < 12 or head[:4] not in IDENTIFIERS or head[8:] != b"WAVE":
            raise ValueError("it has no WAV header")
        order = ">" if head[:4] == b"RIFX" else "<"
        (whole,) = struct.unpack(f"{order}I", head[4:8])
        form, long, place = b"", 0, 12
        while place + 8 <= size:
            opened.seek(place)
            name, length = struct.unpack(f"{order}4sI", opened.read(8))
            left = size - place - 8
            if name == b"data":
                if not form:
                    raise ValueError("it tells no format before its samples")
                if head[:4] == b"RF64" and length == 0xFFFF_FFFF and long:
                    length = long
                ends = whole + 8 in (8, place + 8) or whole >= UNKNOWN
                if (length > left and length >= UNKNOWN) or (length == 0 and ends):
                    length = left
                return Wav(order, form, place + 8, min(length, left), length > left)
            content = opened.read(min(length, 64)) if name in (b"fmt ", b"ds64") else b""
            if name == b"fmt ":
                form = content
                if len(form) < 16:
                    raise ValueError("its format is cut off")
            elif name == b"ds64" and len(content) >= 16:
                (long,) = struct.unpack_from("<Q", content, 8)
            place += 8 + length
            if length % 2:  # a byte fills it up, where the writer did not forget
                opened.seek(place)
                place += opened.read(4) not in (b"data", b"fmt ")
        raise ValueError("it is cut off before its samples" if form else "it tells no format")


def plain(file: Path | io.BytesIO, found: Wav) -> io.BytesIO:
    """Returns a WAV file of nothing but the format and the whole samples.

    Args:
      file: a file.
      found: what `find` returned of it.

    Raises:
      ValueError: it would be too large.
    """
    length = found.length - found.length % max(found.frame, 1)
    if length > MOST_BYTES:
        raise ValueError("it holds more than 4 GB")
    with _open(file) as opened:
        opened.seek(found.start)
        samples = opened.read(length)
    form = struct.pack(f"{found.order}4sI", b"fmt ", len(found.form)) + found.form
    form += bytes(len(found.form) % 2)
    name = b"RIFX" if found.order == ">" else b"RIFF"
    header = struct.pack(f"{found.order}4sI", name, 4 + len(form) + 8 + length) + b"WAVE" + form
    return io.BytesIO(header + struct.pack(f"{found.order}4sI", b"data", length) + samples)
