"""The dataset `mnist1d`: its builder is in `builder.py`."""
