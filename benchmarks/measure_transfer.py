"""Measures what pretrained weights are worth: MiniLM fine-tuned, and the same model from scratch.

    python benchmarks/measure_transfer.py [--seeds=5] [--texts=5000] [--keep=DIR]

The task is real text that a Debian machine has: the section of a package (admin, games, science, …)
by its one-line description, of `apt-cache dumpavail`. One package of each source is taken, and of
those the first by the SHA-256 of the source's name. Both sides choose their rate from three
by the validation split, with a seed that is not used again, and then train for equal steps with the
same seeds and order of the data. The figure is the accuracy on the test split.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from recording import spread, write

from jdlopt import config as configs
from jdlopt.study.records import interval
from jdlopt.train.loop import fit

CONFIG = Path(__file__).resolve().parent.parent / "configs/text/minilm.py"
SECTIONS = (
    "admin", "devel", "editors", "games", "graphics", "mail", "math", "net", "science", "sound",
    "text", "utils", "video", "web",
)  # fmt: skip
RATES = (1e-4, 3e-4, 1e-3)
CHOOSING_SEED = 1000
STEPS = 150
SIDES = {"pretrained": "", "scratch": ",scratch"}


def packages(count: int) -> list[tuple[str, str]]:
    """Returns descriptions and sections of packages, one of each source."""
    text = subprocess.run(
        ["apt-cache", "dumpavail"], check=True, capture_output=True, text=True
    ).stdout
    found: dict[str, tuple[str, str]] = {}
    for block in text.split("\n\n"):
        keys = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line[:40])
        section = keys.get("Section", "").rpartition("/")[2]
        source = keys.get("Source", keys.get("Package", "")).partition(" ")[0]
        if section in SECTIONS and keys.get("Description") and source not in found:
            found[source] = (keys["Description"], section)
    order = sorted(found, key=lambda source: hashlib.sha256(source.encode()).hexdigest())
    return [found[source] for source in order[:count]]


def train(
    file: Path, side: str, rate: float, seed: int, folder: Path, test: bool
) -> dict[str, Any]:
    """Trains one run and returns its metrics."""
    config = configs.override(
        configs.load(f"{CONFIG}:{file}{SIDES[side]}"),
        {
            "optim.learning_rate": rate, "seed": seed, "train.evaluate_test": test,
            "train.tensorboard": False, "train.epochs": None, "train.steps": STEPS,
        },
    )  # fmt: skip
    record = fit(config, folder / f"{side}-{rate}-{seed}").record
    metrics = record["metrics"]
    shown = metrics.get("test/accuracy", metrics["validation/accuracy"])
    print(f"{side} {rate} seed {seed}: {shown:.4f} {record['wall_seconds']:.0f} s", flush=True)
    return metrics


def main() -> None:
    """Chooses each side's rate, trains the pairs, and writes the gain."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seeds", type=int, default=5)
    words.add_argument("--texts", type=int, default=5000)
    words.add_argument(
        "--keep", help="a folder of runs; those that are there are not trained again"
    )
    flags = words.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(flags.keep or name)
        folder.mkdir(parents=True, exist_ok=True)
        file, rows = folder / "texts.csv", packages(flags.texts)
        with file.open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows([("text", "label"), *rows])
        rates, chosen = {}, {}
        for side in SIDES:
            found = {
                rate: train(file, side, rate, CHOOSING_SEED, folder, False)["validation/accuracy"]
                for rate in RATES
            }
            rates[side], chosen[side] = max(found, key=lambda rate: found[rate]), found
        values: dict[str, list[float]] = {side: [] for side in SIDES}
        for seed in range(flags.seeds):
            for side in SIDES:
                metrics = train(file, side, rates[side], seed, folder, True)
                values[side].append(metrics["test/accuracy"])
    gains = [a - b for a, b in zip(values["pretrained"], values["scratch"], strict=True)]
    write(
        "transfer",
        {
            "task": "the section of a Debian package by its one-line description",
            "texts": len(rows),
            "classes": len(SECTIONS),
            "steps": STEPS,
            "batch_size": 32,
            "learning_rates": rates,
            "validation_while_choosing": {
                side: {str(rate): value for rate, value in some.items()}
                for side, some in chosen.items()
            },
            **{side: spread(some) for side, some in values.items()},
            "gain": {**spread(gains), "interval": interval(gains)},
        },
    )


if __name__ == "__main__":
    main()
