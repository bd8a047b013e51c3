"""Trains a recogniser on digit strings that espeak-ng speaks, and tests it on voices held out.

    python benchmarks/measure_speech.py [--seeds=5] [--train=1500]

Needs the program espeak-ng (Debian's package of this name). Each string has one to seven digits,
said as words in English; rate, pitch and voice are drawn for each. Voices (espeak-ng's variants) of
training, validation and test are different ones. A seed changes the training alone. Nothing is
downloaded, and the sounds are kept in a folder of their own, outside the project.

Each seed is recorded as soon as it is measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from recording import spread, write

import jdlopt

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST_DIGITS = 7
VOICES = {
    "train": ("en-us", "en-us+m1", "en-us+m3", "en-us+m7", "en-us+f1", "en-us+f3", "en-gb+m2",
              "en-gb+f4", "en-gb", "en-us+f5"),
    "validation": ("en-us+m4", "en-gb+f1"),
    "test": ("en-us+m2", "en-us+f2", "en-gb+m5"),
}  # fmt: skip
COUNTS = {"validation": 150, "test": 300}
RATE = 16000


def speak(folder: Path, train: int) -> Path:
    """Writes the sounds of all splits and a manifest of them; what is there is kept."""
    manifest = folder / "manifest.jsonl"
    if manifest.exists():
        return manifest
    program = shutil.which("espeak-ng")
    if program is None:
        raise SystemExit("espeak-ng is missing: install Debian's package espeak-ng.")
    lines = []
    for seed, (split, voices) in enumerate(VOICES.items()):
        rng = np.random.default_rng(seed)
        for number in range(COUNTS.get(split, train)):
            text = " ".join(
                WORDS[one] for one in rng.integers(0, 10, rng.integers(1, MOST_DIGITS + 1))
            )
            path = folder / split / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            voice = str(rng.choice(voices))
            command = [program, "-v", voice, "-s", str(rng.integers(140, 201)),
                       "-p", str(rng.integers(30, 71)), "-w", str(path), text]  # fmt: skip
            subprocess.run(command, check=True)
            lines.append({"path": f"{split}/{number}.wav", "text": text, "split": split,
                          "voice": voice})  # fmt: skip
    manifest.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return manifest


def config(manifest: Path, seed: int, epochs: int) -> dict[str, Any]:
    """Returns the config that is trained."""
    return {
        "seed": seed,
        "data": {
            "source": str(manifest),
            "task": "transcription",
            "sample_rate": 8000,
            "batch_size": 32,
            "preprocess": {
                "audio": "log_mel", "n_fft": 256, "hop": 128, "num_mels": 40,
                "normalize": "utterance",
            },
            "augment": {"speed": 0.1, "spec_time_mask": 0.05, "spec_frequency_mask": 0.15},
        },
        "model": {
            "name": "speech_rnn", "features": 96, "num_layers": 2, "strides": (2, 1),
            "dropout_rate": 0.1,
        },
        "optim": {
            "name": "adamw", "learning_rate": 3e-3, "weight_decay": 0.01, "clip_norm": 5.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
        },
        "train": {"epochs": epochs, "tensorboard": False},
    }  # fmt: skip


def main() -> None:
    """Trains each seed and records the error rates on the voices held out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--sounds", type=Path, default=Path.home() / "jdlopt_spoken_digits")
    chosen = parser.parse_args()
    manifest = speak(chosen.sounds, chosen.train)
    found: list[dict[str, float]] = []
    for seed in range(chosen.seeds):
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            run = jdlopt.fit(config(manifest, seed, chosen.epochs), Path(folder) / "run")
            metrics = {key: run.metrics[f"test/{key}"] for key in ("wer", "cer")}
        found.append({"seed": seed, **metrics, "seconds": time.perf_counter() - began})
        print(found[-1], flush=True)
        record = {
            "voices": {split: list(voices) for split, voices in VOICES.items()},
            "train": chosen.train, "epochs": chosen.epochs, "seeds": found,
            **{key: spread([one[key] for one in found]) for key in ("wer", "cer", "seconds")},
        }  # fmt: skip
        write("speech", record)


if __name__ == "__main__":
    main()
