"""Texts in one form: Unicode's NFKC, without control characters, tags and entities."""

from __future__ import annotations

import functools
import html as html_entities
import re
import sys
import unicodedata

MOST_MARKS = 30
"""Combining marks after one character that are kept, as in Unicode's Stream-Safe Text Format:
sorting a longer run takes quadratic time."""
_TAG = re.compile(r"<(?:/?[A-Za-z]|!)[^<>]*>")
_LONG_NUMBER = re.compile(r"&#\d{8,};?")


def clean(text: str, *, lowercase: bool = False, html: bool = False) -> str:
    r"""Returns a text in Unicode's NFKC form, without control characters, its spaces single ones.

    Control, format and surrogate characters (Cc, Cf, Cs) go, but for the joiners that emoji and
    several scripts are written with. Any whitespace becomes one space, none at the ends.

    Args:
      text: any text.
      lowercase: make all letters small.
      html: take tags out and replace entities by what they stand for, first.

    Example:
      >>> clean("  Ｆｕｌｌ\twidth\u200b ﬁne\n", lowercase=True)
      'full width fine'
      >>> clean("<p>Salt &amp; pepper<br/>3 < 4</p>", html=True)
      'Salt & pepper 3 < 4'
    """
    if html:
        text = _TAG.sub(" ", text)
        # Python refuses to read a number of thousands of digits; no character has eight
        text = html_entities.unescape(_LONG_NUMBER.sub("\ufffd", text))
    if text.isascii():
        text = text.translate(_removed()[0])
        return " ".join((text.lower() if lowercase else text).split())
    removed, marks = _removed()
    text = unicodedata.normalize("NFKC", marks.sub(r"\1", text.translate(removed)))
    if lowercase:
        text = unicodedata.normalize("NFKC", text.lower())
    return " ".join(text.split())


@functools.cache
def _removed() -> tuple[dict[int, None], re.Pattern[str]]:
    """Returns the table of characters that go, and the pattern of too many combining marks."""
    removed: dict[int, None] = {}
    marks: list[str] = []
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and not character.isspace():
            removed[code] = None
        elif unicodedata.combining(character):
            marks.append(character)
    for joiner in (0x200C, 0x200D):
        del removed[joiner]
    some = "[" + "".join(marks) + "]"
    return removed, re.compile(f"({some}{{{MOST_MARKS}}}){some}+")
