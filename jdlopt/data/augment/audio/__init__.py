"""Augmentations of waveforms and of the spectrograms that are made of them."""
