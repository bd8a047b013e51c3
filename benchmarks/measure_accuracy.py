"""Trains shipped configs with several seeds each and records their test metrics and times.

    python benchmarks/measure_accuracy.py [--seeds=5] [NAME …]

A name is a config's (`mnist1d_cnn`); without one all are trained whose data can be had. Each seed
changes initialisation, data order and dropout; the splits stay. Nothing of the test split was used
to choose a config: that was done on the validation split.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from recording import spread, write

from jdlopt import config as configs
from jdlopt.errors import DataError
from jdlopt.train.loop import fit

ROOT = Path(__file__).parent.parent
CONFIGS = {path.stem: path for path in sorted((ROOT / "configs").glob("*/*.py"))}
TEMPLATES = {"minilm", "own_csv", "own_mixed", "own_wide_and_deep"}


def measure(path: Path, seeds: range) -> dict:
    """Returns the spread of a config's final metrics over the seeds."""
    records = []
    for seed in seeds:
        config = configs.override(configs.load(path), {"seed": seed})
        with tempfile.TemporaryDirectory() as workdir:
            records.append(fit(config, Path(workdir) / "run").record)
        metrics = records[-1]["metrics"]
        shown = {
            name: round(metrics[name], 4)
            for name in ("validation/accuracy", "test/accuracy", "test/rmse", "test/r2")
            if name in metrics
        }
        print(f"{path.stem} seed {seed}: {shown} {records[-1]['wall_seconds']:.1f} s", flush=True)
    names = [
        name
        for name, value in records[0]["metrics"].items()
        if isinstance(value, float) and name.partition("/")[0] in ("validation", "test")
    ]
    return {
        "config": str(path.relative_to(ROOT)),
        "seeds": list(seeds),
        "n_params": records[0]["n_params"],
        "steps": records[0]["total_steps"],
        "metrics": {
            name: spread([record["metrics"][name] for record in records]) for name in names
        },
        "wall_seconds": spread([record["wall_seconds"] for record in records]),
        "compile_seconds": spread([record["compile_seconds"] for record in records]),
        "examples_per_second": spread([record["examples_per_second"] for record in records]),
    }


def main() -> None:
    """Measures the named configs and writes one file each."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seeds", type=int, default=5)
    words.add_argument("names", nargs="*")
    flags = words.parse_args()
    names = flags.names or sorted(set(CONFIGS) - TEMPLATES)
    for name in names:
        try:
            record = measure(CONFIGS[name], range(flags.seeds))
        except DataError as error:
            print(f"{name}: left out: {error}")
            continue
        write(f"accuracy_{name}", record)


if __name__ == "__main__":
    main()
