"""Plants damage in a table and records whether `data check` finds all of it, and in what time.

    python benchmarks/measure_check.py [--rows=100000] [--columns=30] [--repetitions=3]

A third of the rows is damaged, one way each, by a seed: an empty cell, text where a number belongs,
an infinite value, an outlier of a million, a value too many, a copy of another row; a class named
otherwise than it is comes on top. Each is looked for in what the check tells, cell by cell.
Preprocessing is timed on the same file, with its damaged rows skipped and its gaps filled in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from recording import spread, write

from jdlopt.data.check import Check, check_source

KINDS = ("missing", "text_in_numbers", "infinite", "outliers", "wrong_size", "duplicates")
DAMAGED = {
    "missing": "",
    "text_in_numbers": "12,5x",
    "infinite": "inf",
    "outliers": "1000000.0",
}
FLIPPED = 0.02

Places = dict[str, set[tuple[int, str]]]
"""Kind → (row, column) of each damaged cell; the column is empty where a whole row is meant."""


def plant(path: Path, rows: int, columns: int, seed: int) -> Places:
    """Writes the table and returns what is wrong in it."""
    draw = np.random.default_rng(seed)
    features = columns - 1
    scales = 10.0 ** draw.uniform(-1, 1, features)
    values = draw.normal(size=(rows, features)) * scales
    label = (values[:, :4] / scales[:4]).sum(axis=1) > 0
    flipped = draw.random(rows) < FLIPPED
    classes = np.where(label ^ flipped, "yes", "no")
    cells = [[f"{value:.6g}" for value in row] for row in values]
    lines = [[*row, name] for row, name in zip(cells, classes, strict=True)]
    names = [f"x{index}" for index in range(features)]
    found: Places = {kind: set() for kind in KINDS}
    damaged = 1 + draw.permutation(rows - 1)[: rows // 3]
    sound = np.setdiff1d(np.arange(rows), damaged)
    for place, row in enumerate(damaged):
        kind = KINDS[place % len(KINDS)]
        column = int(draw.integers(features))
        if kind == "wrong_size":
            lines[row] = [*lines[row], "1.0"]
        elif kind == "duplicates":
            earlier = sound[sound < row]
            lines[row] = list(lines[earlier[int(draw.integers(len(earlier)))]])
        else:
            lines[row][column] = DAMAGED[kind]
        named = "" if kind in ("wrong_size", "duplicates") else names[column]
        found[kind].add((int(row) + 1, named))
    with path.open("w") as file:
        file.write(",".join([*names, "label"]) + "\n")
        for line in lines:
            file.write(",".join(f'"{cell}"' if "," in cell else cell for cell in line) + "\n")
    found["label_noise"] = {(int(row) + 1, "") for row in np.flatnonzero(flipped)}
    return found


def told(check: Check) -> Places:
    """Returns what a check says is wrong, in the same form."""
    whole = ("wrong_size", "duplicates", "label_noise")
    return {
        finding.kind: {
            (int(row), "" if finding.kind in whole else part.name)
            for part in finding.parts
            for row in part.rows
        }
        for finding in check.findings
    }


def preprocess(path: Path) -> dict[str, Any]:
    """Opens the damaged table as a run would, fits preprocessing to it and applies it once."""
    import jax

    from jdlopt.data import preprocess as stages
    from jdlopt.train import components
    from jdlopt.train.schema import resolve_data

    section = resolve_data(
        {
            "data": {
                "source": str(path),
                "target": "label",
                "on_bad": "skip",
                "preprocess": {
                    "missing": "median",
                    "outliers": "iqr",
                    "duplicates": "drop",
                    "scale": "standard",
                },
            }
        }
    )
    start = time.perf_counter()
    dataset = components.open_clean(section)
    opened = time.perf_counter()
    recipe = components.recipe_of(section, dataset.spec)
    state = components.learnt(recipe, dataset, {})
    train = dataset.read("train").inputs
    made = np.asarray(jax.jit(lambda inputs: stages.apply(recipe, state, inputs))(train))
    assert np.isfinite(made).all()
    return {
        "open_seconds": opened - start,
        "fit_and_apply_seconds": time.perf_counter() - opened,
        "skipped": dict(dataset.skipped),
        "dropped": {note.what: note.count for note in dataset.notes if note.kind == "left out"},
        "largest": float(np.abs(made).max()),
    }


def one(path: Path) -> dict[str, Any]:
    """Checks and preprocesses the table once; runs in a process of its own."""
    start = time.perf_counter()
    check = check_source({"source": str(path), "target": "label"})
    seconds = time.perf_counter() - start
    places = {kind: sorted(some) for kind, some in told(check).items()}
    return {"check_seconds": seconds, "told": places, **preprocess(path)}


def main() -> None:
    """Measures in fresh processes and writes the result."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--rows", type=int, default=100_000)
    words.add_argument("--columns", type=int, default=30)
    words.add_argument("--repetitions", type=int, default=3)
    words.add_argument("--one", help=argparse.SUPPRESS)
    flags = words.parse_args()
    if flags.one:
        print(json.dumps(one(Path(flags.one))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.csv"
        planted = plant(path, flags.rows, flags.columns, seed=0)
        runs = []
        for _ in range(flags.repetitions):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, __file__, f"--one={path}"],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            runs.append({**json.loads(done.stdout), "seconds": time.perf_counter() - start})
        size = path.stat().st_size
    last = runs[-1]
    kinds = {}
    for kind, places in planted.items():
        said = {(row, column) for row, column in last["told"].get(kind, ())}
        kinds[kind] = {
            "planted": len(places),
            "found": len(places & said),
            "told_beside": len(said - places),
        }
        print(f"{kind}: {kinds[kind]}")
    missed = [kind for kind in KINDS if kinds[kind]["found"] < kinds[kind]["planted"]]
    times = ("seconds", "check_seconds", "open_seconds", "fit_and_apply_seconds")
    print({name: round(last[name], 2) for name in times}, "missed:", missed or "nothing")
    write(
        "check",
        {
            "rows": flags.rows,
            "columns": flags.columns,
            "bytes": size,
            "damaged_share": 1 / 3,
            "kinds": kinds,
            **{name: spread([run[name] for run in runs]) for name in times},
            "skipped": last["skipped"],
            "dropped": last["dropped"],
        },
    )


if __name__ == "__main__":
    main()
