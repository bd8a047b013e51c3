"""The dataset `wine`: its builder is in `builder.py`."""
