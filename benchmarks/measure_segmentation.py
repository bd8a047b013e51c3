"""Trains configs/image/shapes_unet.py, seed by seed, and records how well shapes are found.

    python benchmarks/measure_segmentation.py [--seeds=3] [--keep=DIR]

Records the test metrics and the seconds of a run, and by how much its mean IoU differs from
scikit-learn's Jaccard index of the predicted masks. The splits are those of the bundled dataset,
whose test split chose nothing. Runs that are finished in --keep are not trained again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from recording import spread, write
from sklearn.metrics import jaccard_score

from jdlopt import config as configs
from jdlopt.data import open_dataset
from jdlopt.train.loop import fit
from jdlopt.train.run import open_run

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs/image/shapes_unet.py"
NAMES = ("mean_iou", "dice", "pixel_accuracy")


def measure(seed: int, folder: Path) -> dict:
    """Returns a run's test metrics, seconds, and scikit-learn's word on its masks."""
    workdir = folder / f"seed-{seed}"
    if (workdir / "result.json").exists():
        run = open_run(workdir)
    else:
        run = fit(configs.override(configs.load(CONFIG), {"seed": seed}), workdir)
    metrics = {name: run.metrics[f"test/{name}"] for name in (*NAMES, "iou_per_class")}
    images, masks = open_dataset(run.config.data).read("test")
    said = run.predict(images)
    peer = jaccard_score(masks.ravel(), said.values.ravel(), average="macro")
    shown = ", ".join(f"{name} {metrics[name]:.4f}" for name in NAMES)
    print(f"seed {seed}: {shown}; {run.record['wall_seconds']:.0f} s", flush=True)
    return {**metrics, "record": run.record, "difference": abs(peer - metrics["mean_iou"])}


def main() -> None:
    """Measures every seed and writes the result."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--keep", type=Path)
    flags = words.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = [measure(seed, flags.keep or Path(scratch)) for seed in range(flags.seeds)]
    records = [one["record"] for one in found]
    write(
        "segmentation",
        {
            "config": str(CONFIG.relative_to(ROOT)),
            "seeds": list(range(flags.seeds)),
            "n_params": records[0]["n_params"],
            "steps": records[0]["total_steps"],
            "test": {name: spread([one[name] for one in found]) for name in NAMES},
            "iou_per_class": [one["iou_per_class"] for one in found],
            "from_scikit_learn": max(one["difference"] for one in found),
            "wall_seconds": spread([one["wall_seconds"] for one in records]),
            "compile_seconds": spread([one["compile_seconds"] for one in records]),
        },
    )


if __name__ == "__main__":
    main()
