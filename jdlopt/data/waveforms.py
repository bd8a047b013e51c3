"""Waveforms on the host: one channel, one sample rate, one length."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int, Num


def as_waveform(
    values: Num[np.ndarray, "samples *channels"],
    from_rate: int,
    to_rate: int,
    samples: int | None = None,
) -> Float32[np.ndarray, " length"]:
    """Returns sound as one channel of float32 in [-1, 1], at a sample rate and of a length.

    Channels are averaged. Whole numbers are divided by the largest that their type holds, but those
    of 64 bits by 32768: that is how 16-bit sound is kept in a wider type.

    Args:
      values: the samples, and channels beside one another if there are several.
      from_rate: samples a second.
      to_rate: samples a second wanted; `scipy.signal.resample_poly` makes them.
      samples: the length wanted: more are cut off at the end, and zeros are put there for fewer.

    Example:
      >>> as_waveform(np.array([[16384, 0], [0, -32768]], "int16"), 8000, 8000, samples=3)
      array([ 0.25, -0.5 ,  0.  ], dtype=float32)
    """
    waveform = values.astype(np.float32)
    if values.dtype.kind in "iu":
        bits = 16 if values.dtype.itemsize == 8 else 8 * values.dtype.itemsize
        middle = float(1 << (bits - 1))
        waveform = (waveform - (middle if values.dtype.kind == "u" else 0.0)) / middle
    waveform = waveform if waveform.ndim == 1 else waveform.mean(axis=1)
    if from_rate != to_rate:
        from scipy.signal import resample_poly

        common = math.gcd(from_rate, to_rate)
        waveform = resample_poly(waveform, to_rate // common, from_rate // common)
    if samples is not None:
        waveform = np.pad(waveform[:samples], (0, max(0, samples - len(waveform))))
    return waveform.astype(np.float32)


def read_each(
    waveform: Callable[[int], Float32[np.ndarray, " samples"]],
    indices: Int[np.ndarray, " n"],
    samples: int,
) -> Float32[np.ndarray, "n samples"]:
    """Returns the waveforms at some indices, read one by one.

    Args:
      waveform: reads that at an index.
      indices: which.
      samples: of each.

    Example:
      >>> read_each(lambda index: np.full(2, index, "float32"), np.array([3, 1]), 2).tolist()
      [[3.0, 3.0], [1.0, 1.0]]
    """
    made = np.empty((len(indices), samples), dtype=np.float32)
    for row, index in enumerate(indices):
        made[row] = waveform(int(index))
    return made
