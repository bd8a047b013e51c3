"""The end of a compression: what predictions cost, and the chosen model as a run."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from jdlopt import writing
from jdlopt.compress import timing
from jdlopt.compress.made import save_made
from jdlopt.compress.stages import BASELINE, Reached
from jdlopt.compress.work import Work
from jdlopt.evidence import costs
from jdlopt.evidence.costs import Row
from jdlopt.evidence.trainer import key_of
from jdlopt.train import data_record, serve, weights_file
from jdlopt.train.result import read_result
from jdlopt.train.run import Run, open_run

CHOSEN = "chosen"


def measure_costs(work: Work) -> None:
    """Writes into the rows what the run's own seed came to: bytes, multiplications, times."""
    options, start = work.options, work.starts.get(work.own)
    if start is None:
        return
    tried = [one for name, one in work.candidates.items() if work.rows[name]["loss"] is not None]
    reached = work.bench.reach(tried, {work.own: start})
    every: dict[str, Reached] = {BASELINE: start}
    for one in tried:
        found = reached[one.name].get(work.own)
        if isinstance(found, Reached):
            every[one.name] = found
    models = {
        name: (work.bench.experiment_of(model.config), model.weights)
        for name, model in every.items()
    }
    programs = partial(timing.programs, options.runtime)
    for name, cost in costs.measured(models, options.batch_sizes, programs).items():
        row = work.baseline if name == BASELINE else work.rows[name]
        why_not = cost.pop("not_timed", None)
        row |= cost
        row["reason"] = row["reason"] or why_not
        stored = None if name == BASELINE else work.candidates[name].stored
        if stored is not None:
            row["bytes"] = stored(every[name].config, every[name].weights)


def save_chosen(work: Work, source: Run, place: Path, best: Row) -> Run:
    """Writes the chosen model as a run, unless it is there; another that was there is put aside."""
    name = best["name"]
    candidate = work.candidates[name]
    reached = work.bench.reach([candidate], {work.own: work.starts[work.own]})[name][work.own]
    assert isinstance(reached, Reached)
    how = {"method": "compress", "candidate": name, "history": reached.history,
           "config": key_of(reached.config),
           "weights": weights_file.digest(reached.weights)}  # fmt: skip
    there = read_result(place) if place.exists() else None
    dataset = work.bench.given.experiment.data
    if there is not None and (there.get("made") or {}).get("how") == how:
        before = data_record.read(place / data_record.DATA)
        if before and not data_record.differences(before, data_record.fingerprint(dataset)):
            return open_run(place, allow_code=bool(source.allow_code))
    writing.refuse_links(place.parent, place.name)
    if there is not None:
        taken = {path.name for path in place.parent.iterdir()}
        number = next(n for n in range(1, len(taken) + 2) if f"{CHOSEN}-{n}" not in taken)
        place.rename(place.with_name(f"{CHOSEN}-{number}"))
    elif place.exists():
        shutil.rmtree(place)  # what a killed call had begun
    work.say(f"{name} is chosen; writing it to {place}")
    return save_made(source, reached.config, reached.weights, place, how, dataset)


def of_test(work: Work, source: Run, made: Run) -> dict[str, Any] | None:
    """The metric on the test split, of the run and of what was made of it."""
    name, given = f"test/{work.bench.metric.partition('/')[2]}", work.bench.given
    if name not in made.metrics:
        return None
    known = source.metrics
    if work.options.changed_data == "ok":  # the run's own are perhaps of other examples
        known = serve.measure(given.experiment, given.weights, "test")
    return {"metric": name, "baseline": known.get(name), "chosen": made.metrics[name]}
