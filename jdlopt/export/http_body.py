"""The body of an HTTP request as JSON, within bounds of its size and of the time that it takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from jdlopt.export.standalone.opening import InputError

if TYPE_CHECKING:
    from starlette.requests import Request

LARGEST = 1 << 25
"""Bytes of a request."""
SLOWEST = 30.0
"""Seconds in which a request's body must be there."""


class Refused(Exception):
    """A request is answered with an error.

    Attributes:
      status: of HTTP.
      reason: what is wrong, in words.
      headers: of the answer.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None):
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


def said_length(request: Request) -> int:
    """Returns the length of a body, as its header says; of one in chunks, the most that it may be.

    Raises:
      Refused: it is too large, or compressed.
    """
    for header in ("content-encoding", "inference-header-content-length"):
        if request.headers.get(header, "identity") != "identity":
            raise Refused(415, f"{header}: is not taken here; send plain JSON.")
    said = request.headers.get("content-length", str(LARGEST))
    if not said.isdecimal() or int(said) > LARGEST:
        raise Refused(413, f"the body is of {said:.20} bytes; at most {LARGEST:,} are taken.")
    return int(said)


async def body_of(request: Request) -> bytes:
    """Returns a request's body.

    Raises:
      Refused: it is too large, or too slow.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(SLOWEST):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST:
                    raise Refused(413, f"the body has more than {LARGEST:,} bytes.")
    except TimeoutError as error:
        raise Refused(408, f"the body was not there within {SLOWEST:.0f} s.") from error
    return bytes(body)


def parsed(body: bytes) -> object:
    """Returns what a body holds as JSON.

    Raises:
      InputError: it is no JSON, or says NaN or Infinity, which JSON does not have.
    """

    def refuse(name: str) -> NoReturn:
        raise InputError(f"{name} is no JSON, and no finite number; a missing value is null.")

    try:
        return json.loads(body, parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise InputError("the body is no JSON: it is not in UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is no JSON: {str(error)[:200]}.") from error
