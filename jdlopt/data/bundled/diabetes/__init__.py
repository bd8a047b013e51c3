"""The dataset `diabetes`: its builder is in `builder.py`."""
