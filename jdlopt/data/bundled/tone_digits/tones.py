"""Strings of digits, each two tones at once as on a telephone's keys: a pure function of a seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int16

RATE = 4000
"""Samples a second."""
SAMPLES = 6000
"""Of a waveform; what is longer than its digits ends in zeros."""
MOST_DIGITS = 5
LOW, HIGH = (697.0, 770.0, 852.0, 941.0), (1209.0, 1336.0, 1477.0)
"""The frequencies of the rows and columns of keys, in Hz (ITU-T Q.23)."""
KEYS = ("123", "456", "789", " 0 ")
NOISE = 0.03
"""The standard deviation of the noise behind the tones, which are of sizes up to 1."""


class Spoken(NamedTuple):
    """Waveforms and what is said in each: digits with spaces between them."""

    waveforms: Int16[np.ndarray, "n samples"]
    texts: list[str]


def spoken(seed: int, count: int) -> Spoken:
    """Makes strings of one to five digits: an example is a function of the seed and its number.

    A voice has a pitch and a loudness of its own; digits and the gaps between them last differently
    long, and there is noise until a little after the last digit.

    Example:
      >>> made = spoken(seed=0, count=2)
      >>> made.waveforms.shape, [len(text.split()) <= 5 for text in made.texts]
      ((2, 6000), [True, True])
    """
    made = [_one(np.random.default_rng((seed, number))) for number in range(count)]
    waves = np.stack([wave for wave, _ in made])
    return Spoken((waves * 2**15).astype(np.int16), [text for _, text in made])


def _one(rng: np.random.Generator) -> tuple[Float[np.ndarray, " samples"], str]:
    digits = "".join(str(digit) for digit in rng.integers(0, 10, rng.integers(1, MOST_DIGITS + 1)))
    pitch, loudness = rng.uniform(0.97, 1.03), rng.uniform(0.3, 0.9)
    wave, place = np.zeros(SAMPLES), int(rng.uniform(0, 0.12) * RATE)
    for digit in digits:
        length = int(rng.uniform(0.10, 0.18) * RATE)
        wave[place : place + length] = loudness * _tone(digit, pitch, length)
        place += length + int(rng.uniform(0.03, 0.08) * RATE)
    end = min(SAMPLES, place + int(0.02 * RATE))
    wave[:end] += rng.normal(0, NOISE, end)
    return np.clip(wave, -1, 1 - 2.0**-15), " ".join(digits)


def _tone(digit: str, pitch: float, length: int) -> Float[np.ndarray, " length"]:
    row = next(place for place, keys in enumerate(KEYS) if digit in keys)
    time = 2 * np.pi * pitch * np.arange(length) / RATE
    tone = 0.5 * (np.sin(LOW[row] * time) + np.sin(HIGH[KEYS[row].index(digit)] * time))
    ramp = np.minimum(1, np.arange(length) / (0.01 * RATE))
    return np.asarray(tone * ramp * ramp[::-1])
