"""The dataset `digits`: its builder is in `builder.py`."""
