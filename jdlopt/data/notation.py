"""Numbers as people write them: a decimal comma, thousands apart, percent, money, clock times."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

CURRENCIES = frozenset(
    (
        "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "INR", "JPY",
        "KRW", "MXN", "NOK", "NZD", "PLN", "RUB", "SEK", "SGD", "TRY", "UAH", "USD", "ZAR", "Kč",
        "kr", "Ft", "zł", "Fr.", "Rs", "Rs.", "R$", "US$", "A$", "C$",
    )
)  # fmt: skip
SPACES = " \u00a0\u2009\u202f"
"""Between thousands: also the spaces that do not break, and thin ones."""
UNIT = re.compile(r"[^\W\d_]{1,4}(/[^\W\d_]{1,4})?|°[CFK]?")
"""What may follow a number: ``kg``, ``km/h``, ``°C``."""
SHARE = 0.9
"""A notation is a column's if it reads so many of its texts."""
FEW = 20
"""Texts with a unit that are at most so many different ones are categories, such as ``16GB``."""
_AFFIX = re.compile(
    r"(?P<sign>[-+−]?)(?P<prefix>[^\d+\-−.,()]*)(?P<core>\(?[-+−]?[\d.,].*?)(?P<suffix>[^\d.,()]*)",
    re.DOTALL,
)
_CLOCK = re.compile(r"(\d{1,3}):(\d{2})(?::(\d{2}(?:\.\d+)?))?")


@dataclass(frozen=True)
class Notation:
    """How a column writes its numbers.

    Attributes:
      decimal: the decimal sign, ``.`` or ``,``; ``:`` for clock times, which are read as seconds;
        empty for durations, which are no texts.
      affix: what stands before or after each: a currency, ``%`` or a unit; empty if nothing does.
    """

    decimal: str = "."
    affix: str = ""

    @property
    def words(self) -> str:
        """What a column of this notation holds."""
        if self.decimal == ":":
            return "clock times, read as seconds"
        if not self.decimal:
            return "durations, read as seconds"
        if self.decimal == ".":
            return f"numbers with {self.affix!r}" if self.affix else "numbers with thousands apart"
        comma = "numbers with a decimal comma"
        return f"{comma} and {self.affix!r}" if self.affix else comma


@dataclass(frozen=True)
class Found:
    """What was found of a column's texts.

    Attributes:
      notation: that of most of them; None if they are no numbers.
      ambiguous: a comma in them may be decimal, or stand between thousands.
    """

    notation: Notation | None
    ambiguous: bool = False


def find(texts: Sequence[str], decimal: str | None = None) -> Found:
    """Returns the notation that most of some different texts are numbers in.

    Args:
      texts: without spaces around them.
      decimal: the decimal sign, where it is known.

    Example:
      >>> find(["1.234,56", "7,5"]).notation
      Notation(decimal=',', affix='')
      >>> find(["$1,200", "$950.50"]).notation, find(["1,234"]).ambiguous
      (Notation(decimal='.', affix='$'), True)
      >>> find(["red", "P01"]).notation is None
      True
    """
    texts = list(texts)
    if not texts:
        return Found(None)
    needed = SHARE * len(texts)
    if sum(_CLOCK.fullmatch(text) is not None for text in texts) >= needed:
        return Found(Notation(":"))
    affixes = [_affix(text) for text in texts]
    counts: dict[str, int] = {}
    for affix in filter(None, affixes):
        counts[affix] = counts.get(affix, 0) + 1
    affix = max(counts, key=lambda one: counts[one]) if counts else ""
    # of a unit or a percent sign, not one text may lack it: 12 % is not 12
    if affix and counts[affix] < (needed if affix in _money(affix) else len(texts)):
        affix = ""
    if affix and not _money(affix) and affix != "%" and len(texts) <= FEW:
        return Found(None)
    signs = [decimal] if decimal else [".", ","]
    reads = {one: _count(texts, Notation(one, affix)) for one in signs}
    best = max(signs, key=lambda one: reads[one])
    if reads[best] < needed:
        return Found(None)
    chosen = Notation(best, affix)
    undecided = decimal is None and reads["."] == reads[","]
    if undecided and any("," in text or (affix and "." in text) for text in texts):
        other = Notation("," if best == "." else ".", affix)
        if any(_number(text, chosen) != _number(text, other) for text in texts):
            return Found(chosen, ambiguous=True)
    return Found(chosen)


def parse(texts: Sequence[str | None], notation: Notation) -> Float64[np.ndarray, " texts"]:
    """Returns texts as numbers; NaN for those that are none in this notation.

    Example:
      >>> parse(["1.234,5", "(3)", "−2", "x", None], Notation(",")).tolist()
      [1234.5, -3.0, -2.0, nan, nan]
      >>> parse(["12:30", "0:00:01.5"], Notation(":")).tolist()
      [45000.0, 1.5]
    """
    known: dict[str | None, float] = {None: math.nan}
    for text in texts:
        if text not in known:
            value = _number(text, notation) if text is not None else None
            known[text] = math.nan if value is None else value
    return np.array([known[text] for text in texts], np.float64)


def _money(affix: str) -> str:
    """Returns the affix if it is a currency, else nothing."""
    signs = any(unicodedata.category(one) == "Sc" for one in affix)
    return affix if affix in CURRENCIES or (signs and len(affix) <= 3) else ""


def _affix(text: str) -> str:
    found = _AFFIX.fullmatch(text)
    if found is None:
        return ""
    before, after = found["prefix"].strip(), found["suffix"].strip()
    if before:
        return _money(before) if not after else ""
    return after if after == "%" or _money(after) or UNIT.fullmatch(after) else ""


def _count(texts: Sequence[str], notation: Notation) -> int:
    return sum(_number(text, notation) is not None for text in texts)


def is_plain(text: str) -> bool:
    """Returns whether a text is a finite number as Python writes it."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(text: str, notation: Notation) -> float | None:
    if notation.decimal == ":":
        clock = _CLOCK.fullmatch(text)
        if clock is None:
            return None
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3] or 0)
    found = _AFFIX.fullmatch(text)
    if found is None:
        return None
    before, after = found["prefix"].strip(), found["suffix"].strip()
    if (before and after) or (before or after) not in ("", notation.affix):
        return None
    core = found["core"].strip().replace("−", "-")
    negative = found["sign"] in "-−" and bool(found["sign"])
    if core.startswith("(") != core.endswith(")"):
        return None
    if core.startswith("("):
        core, negative = core[1:-1].strip(), not negative
    match = _CORE[notation.decimal].fullmatch(core)
    if match is None:
        return None
    digits = re.sub(rf"[{SPACES}'’{'.' if notation.decimal == ',' else ','}]", "", core)
    value = float(digits.replace(",", "."))
    return -value if negative else value


def _core(decimal: str) -> re.Pattern[str]:
    between = rf"[{SPACES}'’{re.escape('.' if decimal == ',' else ',')}]"
    whole = rf"(?:[1-9]\d{{0,2}}(?P<by>{between})\d{{3}}(?:(?P=by)\d{{3}})*|\d+)"
    point = re.escape(decimal)
    return re.compile(rf"[-+]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][-+]?\d+)?")


_CORE = {decimal: _core(decimal) for decimal in ".,"}


# --- texts ----------------------------------------------------------------------------------------


def stripped(text: str) -> str:
    r"""Returns a text without spaces around it, those among them that have no width.

    Example:
      >>> stripped("\u200bcat\u00a0 ")
      'cat'
    """
    text = text.strip()
    if text.isascii():
        return text
    while text and (text[0].isspace() or unicodedata.category(text[0]) == "Cf"):
        text = text[1:]
    while text and (text[-1].isspace() or unicodedata.category(text[-1]) == "Cf"):
        text = text[:-1]
    return text


def alike(names: Sequence[str]) -> list[tuple[str, ...]]:
    r"""Returns the groups of names that differ only in case, spaces or signs that are not seen.

    Example:
      >>> alike(["cat", "Cat", "dog", "New  York", "New York"])
      [('cat', 'Cat'), ('New  York', 'New York')]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        folded = unicodedata.normalize("NFKC", name).casefold()
        seen = "".join(one for one in folded if unicodedata.category(one) != "Cf")
        groups.setdefault(" ".join(seen.split()), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]
