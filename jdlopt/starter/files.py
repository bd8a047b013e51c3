"""The first config for images and for signals: sounds and other sequences."""

from __future__ import annotations

from jdlopt.starter import training
from jdlopt.starter.facts import Choice, Chosen, Facts, Search
from jdlopt.starter.tables import target_scale

SMALL = 20
"""Images of fewer pixels on a side are not made smaller."""
WINDOW, STEP = 0.032, 0.010
"""Seconds of a frame of a spectrogram, and from one to the next."""
LEAST_FRAMES = 16
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.05


def images(facts: Facts) -> Chosen:
    """Returns what is chosen for images: a convolutional network."""
    side = min(facts.shape[:2])
    features: tuple[int, ...] = (32, 64, 128) if side > SMALL else (32, 64, 64)
    if side >= 96:
        features = (32, 64, 128, 256)
    pooled = side >= 2 ** (len(features) + 1)
    why = "each channel has mean 0 and standard deviation 1"
    made = [
        Choice("data.batch_size", training.batch_size(facts.rows, 128)),
        *training.sampling(facts),
        Choice("data.preprocess.scale", "standard", why),
        *target_scale(facts),
        Choice("data.augment.crop", 0.1, "each image moved by up to a tenth of its side"),
        Choice(
            "data.augment.flip",
            0.5,
            "Where a mirrored image is still right (photos; no digits, letters, signs):",
            on=False,
        ),
        Choice(
            "data.augment.rotate",
            10.0,
            "Where images may be turned a little, by up to so many degrees:",
            on=False,
        ),
        Choice("model.name", "cnn", "others for images: resnet, convnext, vit (docs/models.md)"),
        Choice("model.features", features, "channels"),
        Choice("model.kernel_size", 3),
        *([Choice("model.pool", "max")] if pooled else []),
        Choice("model.batch_norm", True),
        *([Choice("model.readout", "average")] if side >= 32 else []),
        Choice("model.dropout_rate", 0.2),
        *training.loss(facts, 0.05),
        *training.adamw(LEARNING_RATE, WEIGHT_DECAY),
        *training.length(training.epochs(facts.rows, 300_000, 8, 60)),
        *training.monitor(facts),
    ]
    space = (
        Search("data.augment.crop", "choice", (None, 0.1, 0.2), "scientific"),
        Search("model.dropout_rate", "uniform", (0.0, 0.5)),
        *training.around(LEARNING_RATE, WEIGHT_DECAY),
    )
    return Chosen(tuple(made), space, "How far should images be moved?")


def sounds(facts: Facts) -> Chosen:
    """Returns what is chosen for sounds: convolutions over a spectrogram."""
    rate = facts.sample_rate or 16_000
    samples = facts.shape[0]
    n_fft = 2 ** max(5, round(rate * WINDOW).bit_length() - 1)
    while n_fft > 64 and samples < n_fft + LEAST_FRAMES * n_fft // 4:
        n_fft //= 2
    hop = max(1, min(round(rate * STEP), n_fft // 2, max(1, samples // LEAST_FRAMES)))
    mels = min(40, n_fft // 8)
    frames = f"frames of {n_fft / rate * 1000:.0f} ms, every {hop / rate * 1000:.0f} ms"
    made = [
        Choice("data.batch_size", training.batch_size(facts.rows, 128)),
        *training.sampling(facts),
        Choice("data.preprocess.audio", "log_mel", f"loudness of {mels} bands: {frames}"),
        Choice("data.preprocess.n_fft", n_fft),
        Choice("data.preprocess.hop", hop),
        Choice("data.preprocess.num_mels", mels),
        Choice("data.preprocess.normalize", "utterance", "whatever the recording's volume"),
        *target_scale(facts),
        Choice("data.augment.audio_shift", 0.1, "each sound earlier or later by up to a tenth"),
        Choice("data.augment.spec_time_mask", 0.1, "Parts blanked, where that helps:", on=False),
        Choice("data.augment.spec_frequency_mask", 0.1, on=False),
        Choice("model.name", "cnn", "convolutions over time"),
        Choice("model.features", (64, 64, 128)),
        Choice("model.kernel_size", 5),
        Choice("model.batch_norm", True),
        Choice("model.readout", "average"),
        Choice("model.dropout_rate", 0.2),
        *training.loss(facts, 0.05),
        *training.adamw(LEARNING_RATE, WEIGHT_DECAY),
        *training.length(training.epochs(facts.rows, 100_000, 10, 60)),
        *training.monitor(facts),
    ]
    space = (
        Search("data.preprocess.audio", "choice", ("log_mel", "mfcc"), "scientific"),
        Search("model.dropout_rate", "uniform", (0.0, 0.5)),
        *training.around(LEARNING_RATE, WEIGHT_DECAY),
    )
    return Chosen(tuple(made), space, "Which features does the network hear best?")


def sequences(facts: Facts) -> Chosen:
    """Returns what is chosen for series of numbers: convolutions over time."""
    made = [
        Choice("data.batch_size", training.batch_size(facts.rows, 128)),
        *training.sampling(facts),
        Choice("data.preprocess.scale", "standard", "mean 0 and standard deviation 1"),
        *target_scale(facts),
        Choice("model.name", "cnn", "others for sequences: gru, lstm, tcn (docs/models.md)"),
        Choice("model.features", (32, 64, 64)),
        Choice("model.kernel_size", 5),
        Choice("model.batch_norm", True),
        Choice("model.dropout_rate", 0.2),
        *training.loss(facts, 0.05),
        *training.adamw(LEARNING_RATE, WEIGHT_DECAY),
        *training.length(training.epochs(facts.rows, 200_000, 10, 60)),
        *training.monitor(facts),
    ]
    space = (
        Search("model.kernel_size", "choice", (3, 5, 9), "scientific"),
        Search("model.dropout_rate", "uniform", (0.0, 0.5)),
        *training.around(LEARNING_RATE, WEIGHT_DECAY),
    )
    return Chosen(tuple(made), space, "How far need a convolution see?")
