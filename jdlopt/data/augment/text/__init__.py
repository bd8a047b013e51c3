"""Augmentations of token ids; padding is never touched and stays where it is."""
