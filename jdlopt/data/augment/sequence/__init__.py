"""Augmentations of sequences and tables, scaled so that 0 is a feature's mean."""
