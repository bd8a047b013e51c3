"""The dataset `tone_digits`: its builder is in `builder.py`, what it sounds like in `tones.py`."""
