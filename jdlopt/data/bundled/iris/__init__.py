"""The dataset `iris`: its builder is in `builder.py`."""
