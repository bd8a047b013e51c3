"""The end of a compression: what predictions cost, and the chosen model as a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.compress import choice
from jdlopt.compress.made import save_made
from jdlopt.compress.stages import BASELINE, Reached
from jdlopt.compress.work import Work
from jdlopt.evidence.trainer import key_of
from jdlopt.train import inference, weights_file
from jdlopt.train.result import read_result
from jdlopt.train.run import Run, open_run

CHOSEN = "chosen"


def measure_costs(work: Work) -> None:
    """Writes into the rows what the run's own seed came to: bytes, multiplications, times."""
    start = work.starts.get(work.own)
    if start is None:
        return
    tried = [one for name, one in work.candidates.items() if work.rows[name]["loss"] is not None]
    reached = work.bench.reach(tried, {work.own: start})
    every: dict[str, Reached] = {BASELINE: start}
    for one in tried:
        found = reached[one.name].get(work.own)
        if isinstance(found, Reached):
            every[one.name] = found
    programs: dict[str, dict[int, inference.Program]] = {}
    same: dict[str, str] = {}
    for name, found in every.items():
        row = work.baseline if name == BASELINE else work.rows[name]
        experiment, weights = work.bench.experiment_of(found.config), found.weights
        stored = None if name == BASELINE else work.candidates[name].stored
        row["bytes"] = (
            inference.stored_bytes(weights) if stored is None else stored(found.config, weights)
        )
        row["macs"] = inference.multiplications(experiment, weights)
        row["n_params"] = sum(leaf.size for leaf in jax.tree.leaves(weights.params))
        # what differs in values alone is the same program, and takes as long
        same[name] = key = configs.fingerprint(experiment.config)
        if key not in programs:
            programs[key] = {
                size: inference.program(experiment, weights, size)
                for size in work.options.batch_sizes
            }
    for size in work.options.batch_sizes:
        times = inference.timed({key: some[size] for key, some in programs.items()})
        for name, key in same.items():
            row = work.baseline if name == BASELINE else work.rows[name]
            row["ms"][str(size)] = times[key]._asdict()


def save_chosen(work: Work, source: Run, place: Path, best: choice.Row) -> Run:
    """Writes the chosen model as a run, unless it is there; another that was there is put aside."""
    name = best["name"]
    candidate = work.candidates[name]
    reached = work.bench.reach([candidate], {work.own: work.starts[work.own]})[name][work.own]
    assert isinstance(reached, Reached)
    how = {"method": "compress", "candidate": name, "history": reached.history,
           "config": key_of(reached.config),
           "weights": weights_file.digest(reached.weights)}  # fmt: skip
    there = read_result(place) if place.exists() else None
    if there is not None and (there.get("made") or {}).get("how") == how:
        return open_run(place, allow_code=bool(source.allow_code))
    writing.refuse_links(place.parent, place.name)
    if there is not None:
        taken = {path.name for path in place.parent.iterdir()}
        number = next(n for n in range(1, len(taken) + 2) if f"{CHOSEN}-{n}" not in taken)
        place.rename(place.with_name(f"{CHOSEN}-{number}"))
    elif place.exists():
        shutil.rmtree(place)  # what a killed call had begun
    work.say(f"{name} is chosen; writing it to {place}")
    dataset = work.bench.given.experiment.data
    return save_made(source, reached.config, reached.weights, place, how, dataset)


def of_test(source: Run, made: Run, metric: str) -> dict[str, Any] | None:
    """The metric on the test split, of the run and of what was made of it."""
    name = f"test/{metric.partition('/')[2]}"
    values = {"baseline": source.metrics.get(name), "chosen": made.metrics.get(name)}
    return None if values["chosen"] is None else {"metric": name, **values}
