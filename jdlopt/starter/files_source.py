"""Folders of images and of sounds: to which size they are brought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jdlopt.data import text, text_files
from jdlopt.data.damage import Unreadable
from jdlopt.data.image_decoding import look_at, opened
from jdlopt.data.sound import read_header
from jdlopt.errors import DataError
from jdlopt.starter.facts import Choice

MOST = 2000
"""So many files, or texts, are looked at, evenly over all."""
MOST_SIDE = 128
"""Images are not made larger than this, which a CPU can train on."""
STEP = 8
MOST_SECONDS = 10.0

Item = TypeVar("Item")
Sized = tuple[list[Choice], dict[str, Any]]
"""Choices of keys of ``data``, and their values by name."""


def chosen(every: Sequence[Item]) -> list[Item]:
    """Returns at most `MOST` of some files or texts."""
    return list(every[:: -(-len(every) // MOST) or 1])


def image_size(paths: Sequence[Path]) -> Sized:
    """Returns ``data.image_size`` for images, if they have several sizes or are large."""
    sizes = []
    for path in chosen(paths):
        try:
            with opened(path, str(path)) as image:
                sizes.append(look_at(image).size)
        except Unreadable:
            continue
    if not sizes:
        return [], {}
    sides = np.array(sizes)
    low, high = sides.min(axis=0), sides.max(axis=0)
    alike = bool((low == high).all())
    if alike and high.max() <= 2 * MOST_SIDE:
        return [], {}
    middle = np.median(sides, axis=0)
    middle = middle * min(1.0, MOST_SIDE / float(middle.max()))
    size = tuple(max(STEP, STEP * round(float(side) / STEP)) for side in middle)
    found = (
        f"They are {high[0]}×{high[1]} pixels"
        if alike
        else f"Their sizes are {low[0]} to {high[0]} × {low[1]} to {high[1]} pixels"
    )
    why = f"(height, width). {found}; more pixels cost time in proportion, and may show more."
    return [Choice("data.image_size", size, why)], {"image_size": size}


def sound_size(paths: Sequence[Path]) -> Sized:
    """Returns ``data.sample_rate`` and ``data.seconds`` for sounds that differ in these."""
    headers = []
    for path in chosen(paths):
        try:
            headers.append(read_header(path))
        except Unreadable:
            continue
    if not headers:
        return [], {}
    choices: list[Choice] = []
    keys: dict[str, Any] = {}
    rates = Counter(header.rate for header in headers)
    rate = rates.most_common(1)[0][0]
    if len(rates) > 1:
        keys["sample_rate"] = rate
        why = f"samples a second; they have {', '.join(f'{one:,}' for one in sorted(rates))}"
        choices.append(Choice("data.sample_rate", rate, why))
    lengths = np.array([header.samples / header.rate for header in headers])
    alike = len({header.samples for header in headers}) == 1 and len(rates) == 1
    if not alike or lengths[0] > MOST_SECONDS:
        wanted = min(float(np.percentile(lengths, 90)), MOST_SECONDS)
        digits = 1 if wanted >= 1 else 3
        keys["seconds"] = max(round(wanted, digits), 10.0**-digits)
        why = (
            f"They last {lengths.min():.2f} to {lengths.max():.2f} s: longer ones are cut, shorter "
            "ones padded with silence."
        )
        choices.append(Choice("data.seconds", keys["seconds"], why))
    return choices, keys


LONGEST = 2048
"""Tokens of a text that are counted."""


def tokens_of(texts: Sequence[str]) -> int:
    """Returns how many tokens 19 of 20 texts have at most."""
    some = chosen(texts)
    state = text.fit(text.TextFields(max_tokens=LONGEST), some)
    return int(np.percentile((text.encode(state, some) != 0).sum(axis=1), 95))


def tokens(paths: Sequence[Path]) -> int:
    """Returns what `tokens_of` says of the texts that files hold."""
    texts = []
    for path in chosen(paths):
        try:
            texts.append(text_files.read_file(path))
        except Unreadable:
            continue
    return tokens_of(texts)


def damaged(paths: Sequence[Path], read: Any) -> str:
    """Returns what the first file that can't be read says, of those that are looked at."""
    for path in chosen(paths):
        try:
            read(path)
        except Unreadable as error:
            return str(error)
        except DataError:
            continue
    return ""
