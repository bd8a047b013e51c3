"""The dataset `breast_cancer`: its builder is in `builder.py`."""
