"""Shifting waveforms in time."""

from __future__ import annotations

from jdlopt.data.augment.augmentation import SURVEY, Augmentation
from jdlopt.data.augment.sequence.time_shift import time_shift

AUDIO_SHIFT = Augmentation(
    name="audio_shift",
    apply=time_shift,
    stage="raw",
    strength="largest shift, as a share of the length",
    high=1.0,
    first=(0.1,),
    fits=("waveform",),
    source=SURVEY,
    prior=0.45,
    stays=False,
)
