"""``compare``: two configs, the same seeds and data on both sides, and what can be decided.

Both sides of a pair draw their batches in the same order, from the same splits; the test split is
not looked at. The differences of the pairs are what counts: what a seed does to both sides alike
falls out of them.
"""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt.evidence import statistics, tuning
from jdlopt.evidence.options import ComparisonOptions
from jdlopt.evidence.records import claim, is_of_other_data, keep_data, save
from jdlopt.evidence.sides import (
    Side,
    check_pair,
    check_space,
    measuring,
    metric_of,
    resolution_of,
    side_of,
    step_memory,
)
from jdlopt.evidence.trainer import ENDED_WELL, Trained, Trainer, key_of
from jdlopt.evidence.trainings import Training
from jdlopt.metrics import higher_is_better
from jdlopt.train import start
from jdlopt.train.inference import expected_bytes

COMPARISON = "compare.json"
ADOPT, DROP, UNDECIDED = "adopt", "drop", "undecided"


def gains(
    a: Mapping[int, Training], b: Mapping[int, Training], metric: str, seeds: Sequence[int]
) -> list[float] | None:
    """Returns what B is better by, seed by seed; None where a training has no such value."""
    sign = 1.0 if higher_is_better(metric.partition("/")[2]) else -1.0
    found = []
    for seed in seeds:
        values = [side[seed].metrics.get(metric, math.nan) for side in (a, b)]
        ended = all(side[seed].status in ENDED_WELL for side in (a, b))
        if not ended or not all(map(math.isfinite, values)):
            return None
        found.append(sign * (values[1] - values[0]))
    return found


def decide(effect: statistics.Effect, least: float = 0.0) -> str:
    """Returns ``adopt``, ``drop`` or ``undecided``.

    B is adopted if the whole interval lies above ``least``, and dropped if it lies below: below
    zero, where ``least`` is zero. What can't differ (no spread and no difference) is dropped.

    Example:
      >>> decide(statistics.Effect(0.02, 0.01, 0.03, 0.001, 0.01, 10, True))
      'adopt'
    """
    if effect.low > least:
        return ADOPT
    if effect.high < least or effect.low == effect.high == 0:
        return DROP
    return UNDECIDED


def compare(
    a: configs.AnyConfig,
    b: configs.AnyConfig,
    workdir: str | Path,
    options: ComparisonOptions | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains two configs on the same seeds and says whether B is to be adopted in place of A.

    Args:
      a, b: experiments, as `jdlopt.config.load` gives them.
      workdir: where trainings are kept, and ``compare.json``; the same call goes on there.
      options: how to compare.
      on_progress: called after every look with what is known.
      should_stop: True interrupts, to be gone on with.

    Returns:
      The content of ``compare.json``: the ``decision``, the ``effect`` with its interval, the
      ``cost``, and every pair.

    Raises:
      ConfigError, DataError, UserError: the input is wrong; nothing was trained.
      WorkdirError: the directory holds another comparison, or one of other data, or can't be
        written.
      Interrupted: ``should_stop()`` said so.
    """
    options, workdir = options or ComparisonOptions(), Path(workdir)
    options.check()
    sides = [side_of(a), side_of(b)]
    metric = metric_of(sides[0], options.metric)
    check_pair(sides[0], sides[1], metric)
    check_space(options.space, metric)
    sides = [measuring(side, metric) for side in sides]
    claim(workdir, COMPARISON, {"a": key_of(sides[0].config), "b": key_of(sides[1].config)})
    start.say([side.experiment for side in sides])
    changed = is_of_other_data(workdir, sides[0].dataset, options.changed_data)
    for name, side in zip("ab", sides):  # to be trained, or compared with more seeds
        save(workdir / f"{name}.json", side.config.to_dict())
    with Trainer(
        workdir,
        workers=options.workers,
        workers_on=options.workers_on,
        should_stop=should_stop,
    ) as trainer:
        keep_data(workdir, sides[0].dataset, changed)
        tuned = None
        if options.tune:
            found = tuning.tune_all(dict(zip("ab", sides)), trainer, metric, options)
            sides = [found[name].side for name in "ab"]
            tuned = {name: one.record() for name, one in found.items()}
        memory = [step_memory(side) for side in sides]
        stored = [expected_bytes(side.experiment) for side in sides]
        record: dict[str, Any] = {}
        for count in options.looks():
            seeds = range(options.first_seed, options.first_seed + count)
            trained = trainer.train([(side.config, seeds) for side in sides])
            trainer.check_fits({"A": sides[0].config, "B": sides[1].config})
            record = _record(sides, trained, metric, seeds, options)
            record |= {"tuning": tuned, "seconds": dict(trainer.seconds)}
            record["cost"] |= {"memory": memory[1] / memory[0], "bytes": stored[1] / stored[0]}
            record["memory"] = {"a": memory[0], "b": memory[1]}
            record["bytes"] = {"a": stored[0], "b": stored[1]}
            last = count == options.seeds
            record["status"] = "done" if record["decision"] != UNDECIDED or last else "running"
            save(workdir / COMPARISON, record)
            if on_progress:
                on_progress(record)
            if record["status"] == "done":
                break
    return record


def changes_of(a: configs.AnyConfig, b: configs.AnyConfig) -> dict[str, list[object]]:
    """Returns the keys in which two resolved configs differ, with both values."""
    flat = [configs.flat(one) for one in (a, b)]
    return {
        key: [flat[0].get(key), flat[1].get(key)]
        for key in sorted({*flat[0], *flat[1]})
        if flat[0].get(key) != flat[1].get(key) and key != "seed"
    }


def effect_record(effect: statistics.Effect, level: float, least: float) -> dict[str, Any]:
    """Returns an effect as JSON holds it, with the seeds that it would take to be clear."""
    return {
        "mean": effect.mean,
        "interval": [effect.low, effect.high],
        "level": level,
        "p_value": effect.p_value,
        "std": effect.std,
        "kind": "sequential" if effect.sequential else "fixed",
        "seeds": effect.pairs,
        "seeds_needed": statistics.seeds_needed(effect, level, least),
    }


def summary_of(trainings: Mapping[int, Training], metric: str) -> dict[str, Any]:
    """Returns what one config came to over its seeds: the metric, and what it costs."""
    values = [t.metrics[metric] for t in trainings.values() if metric in t.metrics]
    steps = [t.step_seconds for t in trainings.values() if t.step_seconds]
    return {
        "mean": plain.fmean(values) if values else None,
        "std": plain.stdev(values) if len(values) > 1 else 0.0,
        "seeds": len(values),
        "n_params": next((t.n_params for t in trainings.values() if t.n_params), None),
        "step_seconds": plain.median(steps) if steps else None,
        "steps": max((t.steps for t in trainings.values()), default=0),
        "bad": {str(seed): t.reason for seed, t in trainings.items() if t.status not in ENDED_WELL},
    }


def _record(
    sides: Sequence[Side], trained: Trained, metric: str, seeds: range, options: ComparisonOptions
) -> dict[str, Any]:
    a, b = (trained[key_of(side.config)] for side in sides)
    a, b = ({seed: side[seed] for seed in seeds if seed in side} for side in (a, b))
    summaries = {"a": summary_of(a, metric), "b": summary_of(b, metric)}
    found = gains(a, b, metric, seeds)
    record: dict[str, Any] = {
        "metric": metric,
        "direction": "maximize" if higher_is_better(metric.partition("/")[2]) else "minimize",
        "least": options.least,
        "seeds": len(seeds),
        "changes": changes_of(sides[0].config, sides[1].config),
        **summaries,
        "configs": {"a": sides[0].config.to_dict(), "b": sides[1].config.to_dict()},
        "cost": cost(summaries["a"], summaries["b"]),
    }
    if found is None:
        bad = summaries["a"]["bad"], summaries["b"]["bad"]
        decision = DROP if bad[1] and not bad[0] else ADOPT if bad[0] and not bad[1] else UNDECIDED
        side, count = ("B", len(bad[1])) if bad[1] else ("A", len(bad[0]))
        return {
            **record, "decision": decision, "effect": None, "pairs": [],
            "reason": f"{side} failed or diverged with {count} of {len(seeds)} seeds.",
        }  # fmt: skip
    resolution = resolution_of(metric, sides[0].dataset)
    effect = statistics.effect_of(found, not options.fixed, options.level, resolution)
    return {
        **record,
        "decision": decide(effect, options.least),
        "effect": effect_record(effect, options.level, options.least),
        "detectable": statistics.detectable(
            statistics.spread(found),
            options.looks(),
            sequential=not options.fixed,
            resolution=resolution,
        ),
        "pairs": [
            {
                "seed": seed, "a": a[seed].metrics[metric], "b": b[seed].metrics[metric],
                "gain": gain,
            }
            for seed, gain in zip(seeds, found)
        ],
        "reason": None,
    }  # fmt: skip


def cost(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns what B costs as a multiple of A: a step's and a training's time, and parameters.

    Args:
      a, b: as `summary_of` returns them.
    """

    def ratio(name: str) -> float | None:
        return b[name] / a[name] if a.get(name) and b.get(name) else None

    step, steps = ratio("step_seconds"), ratio("steps")
    return {
        "step_seconds": step,
        "training_seconds": step * steps if step and steps else None,
        "n_params": ratio("n_params"),
    }
