"""Exported files against the model: equality of every family; an int8 ResNet's accuracy and speed.

    python benchmarks/measure_export.py --mnist=DIR [--seeds=5] [--epochs=1] [--keep=DIR]
        [--train] [--part=families|resnet]

Every family of tests/export/families.py, untrained and in evaluation mode, is written as StableHLO
and ONNX and asked for batches of 1, 2 and 5: the largest difference as a share of the largest
output.
configs/image/mnist_resnet.py, trained shortly on MNIST (the four original gzip files, in DIR) from
several seeds, is written as ONNX in float32 and in 8 bits: test accuracy of both in ONNX Runtime,
file sizes, and the time of batches of 1 and 32 of both and of the compiled model in turn, NumPy in,
NumPy out, on one core. --train trains the seeds that --keep
lacks and stops, so that the times can be taken while the machine does nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from mnist_files import prepared
from recording import alternating, spread, write

import jdlopt
from jdlopt.export import int8, onnx, stablehlo
from jdlopt.export.agreement import agreement
from jdlopt.export.formats import export_run
from jdlopt.export.opened import computing_in_float32, open_model
from jdlopt.export.program import make_program
from jdlopt.study.records import interval

ROOT = Path(__file__).parent.parent
CONFIG = "configs/image/mnist_resnet.py"
REPETITIONS, SECONDS = 7, 0.1
"""Of each time, taken in turn."""
BATCHES = (1, 32)

# --- families -------------------------------------------------------------------------------------


def families() -> dict[str, dict[str, float]]:
    """Returns how far the files of each family are from its model."""
    sys.path.insert(0, str(ROOT / "tests" / "export"))
    from families import FAMILIES, experiment_of, weights_of

    found = {}
    for family in FAMILIES:
        experiment = computing_in_float32(experiment_of(family))
        program = make_program(experiment, weights_of(experiment))
        inputs = experiment.data.read("train").inputs
        given = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
        with tempfile.TemporaryDirectory() as folder:
            row: dict[str, float] = {}
            for name, one in (("stablehlo", stablehlo), ("onnx", onnx)):
                one.write(program, Path(folder, name))
                same = agreement(program, one.load(Path(folder, name)), given)
                row |= {name: same.relative_error, f"{name}_same_classes": same.same_classes}
        found[family] = row
        print(f"{family:24} {row['stablehlo']:.1e} {row['onnx']:.1e}", flush=True)
    return found


# --- the ResNet -----------------------------------------------------------------------------------


def run_of(seed: int, epochs: int, source: Path, keep: Path) -> Path:
    """Returns the run of a seed, which is trained where it is not kept."""
    place = keep / f"seed{seed}"
    if not (place / "result.json").exists():
        changes = {"seed": seed, "data.source": str(source), "train.epochs": epochs}
        jdlopt.fit(jdlopt.load(str(ROOT / CONFIG), changes), place)
    return place


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Returns a file's accuracy in ONNX Runtime."""
    call = onnx.load(path)
    parts = [call(images[at : at + 500])["probabilities"] for at in range(0, len(images), 500)]
    return float(np.mean(np.concatenate(parts).argmax(axis=1) == labels))


def milliseconds(call: Callable[[np.ndarray], Any], batch: np.ndarray) -> float:
    """Returns the time of one call."""
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        call(batch)
        count += 1
    return 1000 * passed / count


def times(run: Path, files: dict[str, Path], images: np.ndarray) -> dict[str, Any]:
    """Returns the time of a batch of each size, of the files and of the compiled model."""
    opened = open_model([run])
    program = make_program(opened.experiment, opened.weights)
    jitted = jax.jit(program.function)
    sessions = {name: onnx.session(path.read_bytes(), threads=1) for name, path in files.items()}
    calls: dict[str, Callable[[np.ndarray], Any]] = {
        name: (lambda batch, one=one: one.run(None, {"input": batch}))
        for name, one in sessions.items()
    }
    calls["jit"] = lambda batch: jax.device_get(jitted(batch))
    found: dict[str, Any] = {}
    for size in BATCHES:
        batch = images[:size]
        for call in calls.values():
            call(batch)
        taken = alternating(
            {name: partial(milliseconds, call, batch) for name, call in calls.items()}, REPETITIONS
        )
        row: dict[str, Any] = {name: spread(values) for name, values in taken.items()}
        for name in ("float32", "jit"):
            ratios = np.divide(taken[name], taken["int8"])
            row[f"int8 against {name}"] = spread(ratios.tolist())
        found[str(size)] = row
    return found


def main() -> None:
    """Measures both and writes the result."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("--mnist", type=Path, required=True)
    flags.add_argument("--seeds", type=int, default=5)
    flags.add_argument("--epochs", type=int, default=1)
    flags.add_argument("--keep", type=Path)
    flags.add_argument("--train", action="store_true")
    flags.add_argument("--part", choices=("families", "resnet"))
    chosen = flags.parse_args()
    if chosen.part == "families":
        write("export", {"relative_error": families()}, keep=True)
        return
    if not chosen.train:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before JAX starts its threads
    keep = chosen.keep or Path(tempfile.mkdtemp(prefix="measure-export-"))
    keep.mkdir(parents=True, exist_ok=True)
    source = prepared(chosen.mnist, keep)
    runs = [run_of(seed, chosen.epochs, source, keep) for seed in range(chosen.seeds)]
    if chosen.train:
        return
    with np.load(source) as arrays:
        images, labels = arrays["x_test"], arrays["y_test"]
    rows = []
    for run in runs:
        whole = export_run([run], "onnx")
        small = export_run([run], "onnx", int8=True)
        files = {"float32": Path(whole["file"]), "int8": Path(small["file"])}
        right = {name: accuracy(path, images, labels) for name, path in files.items()}
        rows.append(
            {
                "accuracy": right,
                "points_lost": 100 * (right["float32"] - right["int8"]),
                "bytes": {name: path.stat().st_size for name, path in files.items()},
                "kept": small["int8"]["kept"],
                "calibrated_on": small["int8"]["calibrated_on"],
                "milliseconds": times(run, files, images),
            }
        )
        print(rows[-1]["accuracy"], rows[-1]["kept"], flush=True)
    lost = [row["points_lost"] for row in rows]
    record: dict[str, Any] = {
        "mnist_resnet": {
            "epochs": chosen.epochs,
            "timed_on_cores": 1,
            "seeds": rows,
            "points_lost": spread(lost) | {"interval": interval(lost) if len(lost) > 1 else None},
            "times_smaller": rows[0]["bytes"]["float32"] / rows[0]["bytes"]["int8"],
            "judged_on": int8.JUDGED_ON,
            "times_faster": {
                f"{name}, batch of {size}": spread(
                    [
                        row["milliseconds"][str(size)][f"int8 against {name}"]["median"]
                        for row in rows
                    ]
                )
                for name in ("float32", "jit")
                for size in BATCHES
            },
        }
    }
    for name, one in record["mnist_resnet"]["times_faster"].items():
        print(f"int8 against {name}: {one['median']:.2f} ({one['min']:.2f} to {one['max']:.2f})")
    if chosen.part is None:
        record["relative_error"] = families()
    write("export", record, keep=True)


if __name__ == "__main__":
    main()
