"""The dataset `shapes`: its builder is in `builder.py`, what it draws in `drawing.py`."""
