"""Augmentations that mix examples, and their targets with them."""
