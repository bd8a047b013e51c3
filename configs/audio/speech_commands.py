"""Speech Commands, a second of speech each, ten words to tell from silence and from other words.

Reaches: not measured yet.

Speech Commands is a public TFDS dataset: prepare it once (docs/data.md), then train.

    python -m jdlopt.data.prepare speech_commands
    jdlopt train --config=configs/audio/speech_commands.py --workdir=runs/speech_commands
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "speech_commands",
            "batch_size": 128,
            "sample_rate": 16000,
            "seconds": 1.0,
            "sampling": "balanced",  # two thirds of the recordings are of other words
            # 101 frames of 40 mel bands: 32 ms each, every 10 ms
            "preprocess": {
                "audio": "log_mel",
                "n_fft": 512,
                "hop": 160,
                "num_mels": 40,
                "normalize": "utterance",
            },
            "augment": {
                "audio_shift": 0.1,
                "background_noise": 0.1,
                "spec_time_mask": 0.2,
                "spec_frequency_mask": 0.2,
            },
        }
    )
    config.model = ConfigDict(
        {
            "name": "cnn",
            "features": (128, 128, 256),
            "kernel_size": 5,
            "pool": "max",
            "batch_norm": True,
            "readout": "average",
            "dropout_rate": 0.2,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.1})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 2e-3,
            "weight_decay": 0.05,
            "schedule": {"name": "cosine", "warmup_fraction": 0.05},
        }
    )
    config.train = ConfigDict({"epochs": 20})
    return config


def get_space() -> Space:
    """Which features does the network hear best?"""
    return {
        "data.preprocess.audio": choice("log_mel", "mfcc", role="scientific"),
        "data.augment.spec_time_mask": uniform(0.0, 0.4, role="nuisance"),
        "optim.learning_rate": log_uniform(5e-4, 1e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(5e-3, 0.5, role="nuisance"),
    }
