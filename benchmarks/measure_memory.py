"""What a training step keeps in memory with rematerialisation and without, as the compiler says.

python benchmarks/measure_memory.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from recording import write

from jdlopt.mesh import make_mesh
from jdlopt.models.layers import REMAT
from jdlopt.train import memory
from jdlopt.train.experiment import Experiment

BATCH = 128
ENCODER = {"name": "transformer_encoder", "features": 64, "num_heads": 4}
MODELS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "2-D CNN 32-64 on 28×28": ({"name": "cnn", "features": (32, 64), "pool": "max"}, (28, 28, 1)),
    "transformer of 4 layers": ({**ENCODER, "num_layers": 4}, (49, 16)),
    "transformer of 16 layers": ({**ENCODER, "num_layers": 16}, (49, 16)),
    "transformer of 16 layers, scanned": (
        {**ENCODER, "num_layers": 16, "scan_layers": True},
        (49, 16),
    ),
}
"""Models and what they take; the transformers are 64 wide and see 49 positions."""


def step(model: dict[str, Any], shape: tuple[int, ...], folder: Path) -> dict[str, int]:
    """Returns the bytes of a step's temporaries and of all that it takes."""
    path = folder / "data.npz"
    inputs = np.zeros((2 * BATCH, *shape), np.float32)
    targets = np.arange(2 * BATCH) % 10
    np.savez(path, x_train=inputs, y_train=targets, x_test=inputs[:10], y_test=targets[:10])
    config = {
        "data": {
            "source": str(path),
            "batch_size": BATCH,
            "validation_fraction": 0.1,
            "in_memory": False,
        },
        "model": model,
        "optim": {"name": "adamw"},
        "mesh": {"data": 1},
    }
    parts = Experiment.build(config)
    mesh = make_mesh(parts.config.mesh)
    found = memory.compiled_step(parts, mesh).memory_analysis()
    return {
        "temporary_bytes": found.temp_size_in_bytes,
        "argument_bytes": found.argument_size_in_bytes,
        "output_bytes": found.output_size_in_bytes,
        "aliased_bytes": found.alias_size_in_bytes,
    }


def main() -> None:
    """Measures every model under every policy, and writes the ratios to none."""
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, shape) in MODELS.items():
            found = {
                policy: step({**model, "remat": policy}, shape, Path(folder)) for policy in REMAT
            }
            without = found["none"]["temporary_bytes"]
            for policy, sizes in found.items():
                sizes["ratio"] = round(sizes["temporary_bytes"] / without, 3)
                print(f"{name}, {policy}: {sizes['temporary_bytes']:,} bytes, {sizes['ratio']}")
            record[name] = found
    write("memory", {"batch_size": BATCH, "steps": record})


if __name__ == "__main__":
    main()
