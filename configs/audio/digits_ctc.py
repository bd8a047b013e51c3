"""Strings of one to five digits in made sound, heard with CTC: speech recognition in small.

Reaches: not measured yet.

    jdlopt train --config=configs/audio/digits_ctc.py --workdir=runs/digits_ctc

For sounds of your own name a manifest or a folder with transcripts (docs/tasks.md):

    jdlopt train --config=configs/audio/digits_ctc.py --workdir=runs/own \
        --config.data.source=manifest.jsonl --config.data.preprocess.n_fft=512 \
        --config.data.preprocess.hop=160
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "tone_digits",
            "task": "transcription",
            "batch_size": 30,
            # of sound at 4 kHz, 94 frames of 32 mel bands: 64 ms each, every 16 ms
            "preprocess": {
                "audio": "log_mel",
                "n_fft": 256,
                "hop": 64,
                "num_mels": 32,
                "normalize": "utterance",
            },
            # no change of speed or of bands: a digit is its pitch here
            "augment": {"spec_time_mask": 0.03},
        }
    )
    config.model = ConfigDict(
        {
            "name": "speech_rnn",
            "features": 64,
            "num_layers": 1,
            "strides": (2,),
            "dropout_rate": 0.1,
        }
    )
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 5e-3,
            "weight_decay": 0.01,
            "clip_norm": 5.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
        }
    )
    config.train = ConfigDict({"epochs": 40})
    return config


def get_space() -> Space:
    """Which of the two recognisers hears better?"""
    return {
        "model.name": choice("speech_rnn", "conformer", role="scientific"),
        "data.augment.spec_time_mask": uniform(0.0, 0.2, role="nuisance"),
        "optim.learning_rate": log_uniform(1e-3, 2e-2, role="nuisance"),
    }
