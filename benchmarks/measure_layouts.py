"""The layouts that `jdlopt plan --search` finds, as the TPUs' compiler has them.

    python benchmarks/measure_layouts.py [PART …]     # results/layouts.json

Parts: ``v5p:4x4x4`` and ``v5p:16x20x28``, a transformer of 2.5 billion parameters on data alone and
as it is found; ``fsdp``, the same split over all of v5p:4x4x4; ``batch``, the batch that is found
against all layouts, in a memory that is made up. Nothing is run. libtpu has
to be there (the extra ``plan``).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from recording import write

import jdlopt
from jdlopt.config import override, to_dict
from jdlopt.errors import UserError
from jdlopt.plan.finding import compiled, find, verdict_of
from jdlopt.plan.plan import plans
from jdlopt.plan.record import Plan
from jdlopt.plan.search import Ranked, Verdict, candidates, search
from jdlopt.plan.topology import parse
from jdlopt.train.experiment import Experiment

POSITIONS = 1024
TRANSFORMER = {
    "name": "transformer_encoder",
    "features": 2560,
    "num_layers": 32,
    "num_heads": 20,
    "max_positions": POSITIONS,
    "scan_layers": True,
    "dtype": "bfloat16",
}
EACH = 8
"""Sequences a chip of the transformer's batch."""
SMALL = "v5e:2x2"
BATCH = 8192
"""Of the small model, whose activations are too much for the memory on the chip itself."""


def sequences(folder: Path, count: int, length: int) -> str:
    """Makes sequences of bytes with two labels, and returns their file."""
    x = np.random.default_rng(0).integers(0, 256, (count, length), dtype=np.uint8)
    y = np.arange(count) % 2
    np.savez(folder / "made.npz", x_train=x, y_train=y, x_test=x[:64], y_test=y[:64],
             x_validation=x[:64], y_validation=y[:64])  # fmt: skip
    return str(folder / "made.npz")


def sent_by(found: Plan) -> dict[str, dict[str, float]]:
    """Returns the collectives of a plan's step."""
    return {
        f"{one.kind} over {' × '.join(one.axes)}": {"count": one.count, "bytes": one.nbytes}
        for one in found.training.collectives
    }


def said_of(found: Plan) -> dict[str, Any]:
    """Returns what is recorded of a plan."""
    seconds, rate, mfu = found.step_seconds, found.examples_per_second, found.mfu
    return {
        "mesh": {axis: size for axis, size in found.mesh.items() if size > 1},
        "parameters": found.parameters,
        "batch": found.batch_size,
        "fits": found.fits,
        "peak": found.training.peak + found.training.beside,
        "limit": found.limit,
        "memory": dict(found.training.memory),
        "message": found.message,
        "said": found.training.said,
        "step_seconds": seconds and [seconds.low, seconds.high],
        "examples_per_second": rate and [rate.low, rate.high],
        "mfu": mfu and [mfu.low, mfu.high],
        "bound": found.training.seconds and found.training.seconds.bound,
        "collectives": sent_by(found),
        "compile_seconds": found.training.compile_seconds,
    }


def tried(one: Ranked) -> dict[str, Any]:
    """Returns what is recorded of a layout that was compiled."""
    verdict = one.verdict
    assert verdict is not None
    return {
        "layout": one.candidate.assignments(),
        "estimated": one.estimate.memory.total,
        "fits": verdict.fits,
        "peak": verdict.peak,
        "seconds": verdict.seconds if verdict.fits else None,
        "estimated_seconds": one.estimate.seconds.expected,
        "said": verdict.said,
        "collectives": sent_by(verdict.plan) if isinstance(verdict.plan, Plan) else {},
    }


def trained(folder: Path, chips: int) -> dict[str, Any]:
    """Returns the config of the transformer's training on so many chips."""
    return {
        "data": {"source": sequences(folder, chips * EACH, POSITIONS),
                 "batch_size": chips * EACH, "in_memory": False},
        "model": TRANSFORMER,
        "optim": {"name": "adamw", "learning_rate": 1e-4},
        "train": {"evaluate_test": False},
    }  # fmt: skip


def split_over_all(topology: str) -> dict[str, Any]:
    """Returns what the transformer takes on a machine, its parameters split over all chips."""
    chips = parse(topology).chips
    with tempfile.TemporaryDirectory() as folder:
        config = {**trained(Path(folder), chips), "mesh": {"data": 1, "fsdp": chips}}
        return said_of(jdlopt.plan(config, topology))


def large(topology: str) -> dict[str, Any]:
    """Returns what the transformer takes on a machine, split by data alone and as it is found."""
    chips = parse(topology).chips
    with tempfile.TemporaryDirectory() as folder:
        config = trained(Path(folder), chips)
        own = said_of(jdlopt.plan(config, topology))
        print(topology, "data alone:", own["message"] or "fits", flush=True)
        began = time.perf_counter()
        found: dict[str, Any] = {"own": own, "chips": chips}
        try:
            best = find(config, topology, same_batch=True)
        except UserError as error:
            return {**found, "message": str(error), "seconds": time.perf_counter() - began}
    assert best.best.verdict is not None and isinstance(best.best.verdict.plan, Plan)
    print(topology, "found:", " ".join(best.lines), flush=True)
    return {
        **found,
        "lines": best.lines,
        "found": said_of(best.best.verdict.plan),
        "compiled": [tried(one) for one in best.compiled],
        "estimated": len(best.ranked),
        "seconds": time.perf_counter() - began,
    }


def batch() -> dict[str, Any]:
    """Returns the batch that is found beside the best of all layouts, each of them compiled.

    The memory is made up: between what the config takes with its own batch and with twice as much.
    """
    machine = parse(SMALL)
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "data": {"source": sequences(Path(folder), 16 * BATCH, 256),
                     "batch_size": BATCH, "in_memory": False},
            "model": {"name": "mlp", "features": (8192, 8192)},
            "optim": {"name": "adam"},
        }  # fmt: skip
        twice = to_dict(override(config, {"data.batch_size": 2 * BATCH}))
        once, more = (verdict_of(one).peak for one in plans([config, twice], machine))
        assert once < more, "a larger batch takes no more memory"
        limit = int((once + more) / 2)
        chip = replace(machine.chip, hbm_bytes=limit)

        def judged(verdict: Verdict) -> Verdict:
            return verdict._replace(fits=verdict.fits and verdict.peak <= limit)

        def compile(configs: Sequence[Mapping[str, Any]]) -> Iterator[Verdict]:
            return map(judged, compiled(machine, configs))

        experiment = Experiment.build(config, num_devices=machine.chips)
        found = search(experiment, chip, machine.chips, compile=compile)
        layouts = [one.assignments() for one in candidates(experiment, machine.chips)]
        configs = [to_dict(override(config, one)) for one in layouts]
        verdicts = [judged(one) for one in map(verdict_of, plans(configs, machine))]
    paces = [one.seconds / layout["data.batch_size"] for layout, one in zip(layouts, verdicts)]
    rows = [
        {"layout": layout, "fits": one.fits, "peak": one.peak, "pace": pace if one.fits else None}
        for layout, one, pace in zip(layouts, verdicts, paces)
    ]
    fitting = [row for row in rows if row["fits"]]
    best = min(fitting, key=lambda row: row["pace"])
    assert found.best.verdict is not None
    size = found.best.candidate.batch_size
    return {
        "limit": limit,
        "peaks": {str(BATCH): once, str(2 * BATCH): more},
        "layouts": len(rows),
        "fit": len(fitting),
        "by_force": best,
        "found": {
            "layout": found.best.candidate.assignments(),
            "pace": found.best.verdict.seconds / size,
            "compiled": len(found.compiled),
        },
        "same_batch": best["layout"]["data.batch_size"] == size,
        "by_batch": {
            str(batch): min(row["pace"] for row in fitting
                            if row["layout"]["data.batch_size"] == batch)
            for batch in sorted({row["layout"]["data.batch_size"] for row in fitting})
        },
    }  # fmt: skip


def main() -> None:
    """Compiles the parts that are asked for, and writes what was found."""
    parts = {
        "batch": batch,
        "fsdp": partial(split_over_all, "v5p:4x4x4"),
        **{name: partial(large, name) for name in ("v5p:4x4x4", "v5p:16x20x28")},
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(parts), help=", ".join(parts))
    for part in parser.parse_args().parts:
        write("layouts", {part: parts[part]()}, keep=True)


if __name__ == "__main__":
    main()
