"""The end of ``improve``: the whole confirmed on fresh seeds, tested once, written as a config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt.evidence import costs, rewrite, statistics
from jdlopt.evidence.compare import effect_record, summary_of
from jdlopt.evidence.options import SIZE
from jdlopt.evidence.records import RUNS
from jdlopt.evidence.remaining import unjudged
from jdlopt.evidence.search_rounds import FINALISTS, MOST_SEEDS, candidates_of
from jdlopt.evidence.sides import Side, measuring, side_of
from jdlopt.evidence.state import BUDGET_ENDED, FINAL_SEEDS, Loop, paired
from jdlopt.evidence.trainer import key_of
from jdlopt.metrics import higher_is_better
from jdlopt.train import weights_file
from jdlopt.train.state import Weights

IMPROVED = "improved.py"


def finish(loop: Loop, original: Side, file: str | Path | None, why: str) -> dict[str, Any]:
    """Confirms the whole on fresh seeds, and once on the test split; writes the config.

    Args:
      loop: where it stands at its end.
      original: the baseline as its file gives it.
      file: that file, or None.
      why: it ended.

    Returns:
      The content of ``improve.json``.
    """
    changes = {key: value for step in loop.steps for key, value in step["change"].items()}
    final = side_of(original.raw, changes) if changes else original
    changes = {key: value for key, value in changes.items() if key in configs.flat(final.raw)}
    record: dict[str, Any] = {
        "status": "done",
        "why": why,
        "aim": loop.options.aim,
        "within": loop.options.within,
        "margin": loop.margin,
        "costs": loop.costs,
        "metric": loop.metric,
        "direction": (
            "maximize" if higher_is_better(loop.metric.partition("/")[2]) else "minimize"
        ),
        "folds": loop.base.config.data.folds,
        "steps": loop.steps,
        "tried": loop.tried,
        "findings": loop.findings,
        "remaining": _remaining(loop) if why == BUDGET_ENDED else None,
        "plans": loop.plans,
        "first_rung": loop.first_rung,
        "pacing": loop.pacing._asdict(),
        "value": loop.value,
        "screened": loop.screened,
        "dropped": sorted(loop.dropped),
        "did_not_fit": loop.left_out,
        "budget": loop.options.budget,
        "changes": changes,
        "confirmed": None,
        "cost": None,
        "test": None,
    }
    if changes:
        loop.say("confirming the whole on fresh seeds, and on the test split")
        seeds = loop.seeds(FINAL_SEEDS, loop.pacing.confirm)
        trained = loop.trainer.train(
            [(loop.base.config, seeds), (loop.current.config, seeds)],
            keep_first=not loop.for_accuracy,
        )
        base, other = (trained[key_of(side.config)] for side in (loop.base, loop.current))
        record["baseline"] = summary_of(base, loop.metric)
        record["improved"] = summary_of(other, loop.metric)
        found = paired(loop, base, other, seeds)
        if found is not None:
            effect = statistics.fixed_effect(found, loop.options.level, loop.resolution)
            record["confirmed"] = effect_record(effect, loop.options.level, -loop.margin)
        if not loop.for_accuracy:
            record["cost"] = _costs(loop, seeds[0])
        if original.dataset.sizes.get("test"):
            record["test"] = _tested(loop, original, final)
    written = rewrite.write(
        file,
        loop.workdir / IMPROVED,
        final.raw,
        loop.comments,
        _headline(record, file),
    )
    return record | {
        "file": str(written.place),
        "file_note": written.note,
        "seconds": loop.spent,
        "config": final.config.to_dict(),
    }


def _remaining(loop: Loop) -> dict[str, Any] | None:
    """What is left to test when the budget has ended; None where nothing is.

    ``promising`` are techniques that were better while choosing and that no confirmation has
    judged, each with its ``gain`` over so many ``seeds``; ``untried`` names, best guess first;
    ``seconds`` is about how long testing them takes, at the pace of the newest trainings.
    """
    promising = [
        {name: row[name] for name in ("technique", "gain", "seeds")} for row in _unjudged(loop)
    ]
    seen = {row["technique"] for one in loop.tried for row in one["candidates"] if row["seeds"]}
    untried = [
        one.name
        for one in candidates_of(loop)
        if one.name not in seen and one.name not in loop.dropped
    ]
    if not promising and not untried:
        return None
    confirmed = min(FINALISTS, len(promising) or len(untried))
    trainings = len(untried) * (loop.first_rung or MOST_SEEDS)
    trainings += 2 * (confirmed + 1) * loop.pacing.confirm + 2 * loop.pacing.test_seeds
    return {"promising": promising, "untried": untried, "seconds": trainings * loop.pace}


def _costs(loop: Loop, seed: int) -> dict[str, costs.Row] | None:
    """What predictions cost before and now, with trained weights; None where none were kept."""
    models = {}
    for name, side in (("baseline", loop.base), ("improved", loop.current)):
        file = loop.trainer.weights_of(key_of(side.config), seed)
        if not weights_file.is_whole(file):
            return None
        experiment = side.experiment
        like = Weights({}, {}, experiment.hparams, experiment.learnt)
        models[name] = experiment, weights_file.load(file, like)
    loop.say("timing predictions of the baseline and of what has been reached")
    return costs.measured(models, costs.BATCH_SIZES)


def _unjudged(loop: Loop) -> list[Mapping[str, Any]]:
    """The newest round's candidates that are not confirmed, and earlier ones that were too dear."""
    found = list(unjudged(loop.tried[-1])) if loop.tried else []
    for one in reversed(loop.tried):
        names = {row["technique"] for row in found}
        found += [
            row
            for row in one["candidates"]
            if row["technique"] in loop.too_dear - names and row["promising"]
        ]
    return found


def _tested(loop: Loop, original: Side, final: Side) -> dict[str, Any]:
    """Runs both configs on fresh seeds, whose best checkpoints are evaluated on the test split."""
    name = loop.metric.partition("/")[2]
    seeds = loop.seeds(FINAL_SEEDS, loop.pacing.test_seeds)
    wanted, places = {}, {}
    for label, side in (("baseline", original), ("improved", final)):
        asked = {"train.evaluate_test": True, "train.loggers": ()}
        config = side_of(measuring(side, loop.metric).raw, asked).config
        # a loop that goes on may end with another config
        name_of = label if label == "baseline" else f"{label}-{key_of(config)}"
        for seed in seeds:
            places[label, seed] = place = loop.workdir / RUNS / f"{name_of}-{seed}"
            wanted[place] = replace(config, seed=seed)
    found = loop.trainer.runs(wanted)
    values: dict[str, list[float]] = {"baseline": [], "improved": []}
    for label, one in values.items():
        for seed in seeds:
            metrics = found[places[label, seed]].get("metrics", {})
            one.append(float(metrics.get(f"test/{name}", math.nan)))
    sign = 1.0 if higher_is_better(name) else -1.0
    differences = [sign * (b - a) for a, b in zip(values["baseline"], values["improved"])]
    known = [one for one in differences if math.isfinite(one)]
    effect = None
    if len(known) == len(differences):
        resolution = loop.resolution and 1 / original.dataset.sizes["test"]
        effect = effect_record(
            statistics.fixed_effect(known, loop.options.level, resolution), loop.options.level, 0.0
        )
    return {"metric": f"test/{name}", "seeds": list(seeds), **values, "effect": effect}


def _headline(record: Mapping[str, Any], file: str | Path | None) -> str:
    source = f" of {Path(file).name}" if file is not None else ""
    if not record["changes"] and record["remaining"]:
        return f"The baseline{source}: the time budget ended before anything could be confirmed."
    smaller = "smaller" if record["aim"] == SIZE else "faster"
    if not record["changes"] and record["within"]:
        return (
            f"The baseline{source}: no technique that was tried made it {smaller} within "
            f"{record['within']}."
        )
    if not record["changes"]:
        return f"The baseline{source}: no technique that was tried made it better."
    effect = record["confirmed"]
    what = f"A {smaller}" if record["within"] else "An improved"
    lines = [f"{what} version{source}."]
    if record["cost"]:
        lines.append(f"\n{costs.in_words(record['cost'])}.")
    if effect:
        low, high = effect["interval"]
        lines.append(
            f"\n{record['metric']} {record['baseline']['mean']:.4f} -> "
            f"{record['improved']['mean']:.4f}: {effect['mean']:+.4f} ({low:+.4f} to {high:+.4f}, "
            f"{effect['seeds']} fresh seeds)."
        )
    test = record["test"]
    if test and test["effect"]:
        low, high = test["effect"]["interval"]
        lines.append(
            f"{test['metric']}: {test['effect']['mean']:+.4f} ({low:+.4f} to {high:+.4f}, "
            f"{len(test['seeds'])} seeds)."
        )
    return "\n".join(lines)
