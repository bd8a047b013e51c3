"""Low rank on MNIST: what it costs LeNet-300-100 to lose singular values, and what it saves.

    python benchmarks/measure_low_rank.py --mnist=DIR [--seeds=5] [--epochs=5] [--within=0.5pp]

`jdlopt compress --methods=low_rank,half_width` of configs/image/mnist_lenet.py:dense. Points lost
are of validation accuracy against each seed's own baseline, with the interval that holds at every
look; a candidate that is decided on three seeds is not tried on more. DIR has the four original
gzip files. The test split chose nothing, and no time is recorded: other programs may run.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from mnist_files import prepared
from recording import write

import jdlopt

ROOT = Path(__file__).parent.parent
CONFIG = "configs/image/mnist_lenet.py:dense"


def main() -> None:
    """Measures everything and records it."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--mnist", type=Path, required=True)
    words.add_argument("--seeds", type=int, default=5)
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--within", default="0.5pp")
    flags = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        changes = {
            "data.source": str(prepared(flags.mnist, Path(folder))),
            "train.epochs": flags.epochs,
            "train.tensorboard": False,
        }
        run = jdlopt.fit(jdlopt.load(str(ROOT / CONFIG), changes), Path(folder) / "run")
        found = jdlopt.compress(
            run,
            flags.within,
            methods=("low_rank", "half_width"),
            metric="validation/accuracy",
            seeds=flags.seeds,
            budget=3600.0,
            on_progress=print,
        )
    baseline = found["baseline"]
    rows = {
        row["name"]: {
            "decision": row["decision"],
            "lost": {key: row["loss"][key] for key in ("mean", "interval", "std", "seeds")},
            "macs": row["macs"] / baseline["macs"],
            "bytes": row["bytes"] / baseline["bytes"],
            "values": row["values"],
        }
        for row in found["candidates"]
        if row["loss"] is not None
    }
    record = {
        "epochs": flags.epochs,
        "within": flags.within,
        "why": found["why"],
        "baseline": {key: baseline[key] for key in ("value", "values", "macs", "bytes")},
        "candidates": rows,
    }
    write("low_rank", record)


if __name__ == "__main__":
    main()
