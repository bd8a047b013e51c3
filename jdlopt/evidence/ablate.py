"""``ablate``: each technique alone on the baseline, and each one left out from all together.

Alone says what a technique is worth by itself, left out what it is worth beside the others. Where
the two disagree, it interacts with the others: they do the same work, or need each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt.config import Value
from jdlopt.errors import ConfigError, UserError
from jdlopt.evidence import statistics, techniques, tuning
from jdlopt.evidence.compare import (
    ADOPT,
    DROP,
    UNDECIDED,
    cost,
    effect_record,
    gains,
    summary_of,
)
from jdlopt.evidence.options import AblationOptions
from jdlopt.evidence.records import claim, is_of_other_data, keep_data, save
from jdlopt.evidence.sides import (
    Side,
    check_pair,
    check_space,
    measuring,
    metric_of,
    resolution_of,
    side_of,
)
from jdlopt.evidence.trainer import Trained, Trainer, key_of
from jdlopt.evidence.trainings import Training
from jdlopt.metrics import higher_is_better
from jdlopt.study.records import Record
from jdlopt.train import start

ABLATION = "ablate.json"
BASELINE, ALL = "baseline", "all"


class Chosen(NamedTuple):
    """A technique as it was asked for.

    Attributes:
      name: of the catalogue, with ``:N`` where another than the first variant was asked for.
      technique: its entry.
      variant: which of its changes.
    """

    name: str
    technique: techniques.Technique
    variant: int


def parse(names: Sequence[str]) -> list[Chosen]:
    """Reads technique names, each as `techniques.read` takes it.

    Raises:
      UserError: a name is unknown or given twice.
    """
    found = []
    for text in names:
        technique, variant = techniques.read(text)
        found.append(Chosen(text.strip(), technique, variant))
    twice = [one.name for one in found if [c.name for c in found].count(one.name) > 1]
    if twice:
        raise UserError(f"--techniques: {twice[0]} is given twice.")
    if not found:
        raise UserError("--techniques: is empty; `jdlopt techniques` lists them.")
    return found


def applied(base: Side, chosen: Sequence[Chosen]) -> tuple[Side, dict[str, dict[str, Value]]]:
    """Returns the config with techniques applied one after the other, and what each changed.

    Raises:
      UserError: one can't be used here, or has no such variant, or two change the same key.
    """
    side, changed = base, dict[str, dict[str, Value]]()
    facts = techniques.facts_of(base.config, base.dataset)
    for one in chosen:
        variants = techniques.change(one.technique.name, side.config, facts)
        if one.variant >= len(variants):
            raise UserError(
                f"--techniques: {one.name}: there are {len(variants)} variants of it here."
            )
        change = variants[one.variant]
        for name, other in changed.items():
            both = sorted(set(change) & set(other))
            if both:
                raise UserError(
                    f"--techniques: {name} and {one.name} both change {both[0]}; ablate one of "
                    "them at a time."
                )
        changed[one.name] = change
        side = side_of(side.raw, change)
    return side, changed


def ablate(
    config: Mapping[str, object],
    names: Sequence[str],
    workdir: str | Path,
    options: AblationOptions | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Measures techniques alone and left out, over the same seeds for all.

    Args:
      config: the baseline, as `jdlopt.config.load` gives it.
      names: of techniques, see `parse`.
      workdir: where trainings are kept, and ``ablate.json``; the same call goes on there.
      options: ``seeds``, ``level``, ``metric``, ``least``, and how nuisance keys are tuned; each
        technique's own nuisance keys are added to ``space``. All seeds are trained, so intervals
        are those of a fixed comparison, p values are corrected for their number (Holm).
      on_progress: called with how many trainings are done and how many there are.
      should_stop: True interrupts, to be gone on with.

    Returns:
      The content of ``ablate.json``.

    Raises:
      ConfigError, DataError, UserError: the input is wrong; nothing was trained.
      WorkdirError: the directory holds another ablation, or one of other data, or can't be written.
      Interrupted: ``should_stop()`` said so.
    """
    options, workdir = options or AblationOptions(), Path(workdir)
    chosen = parse(names)
    space = {k: v for one in chosen for k, v in one.technique.nuisance.items()}
    options = replace(options, space={**space, **options.space})
    options.check()  # before a directory is made for it
    base = side_of(config)
    metric = metric_of(base, options.metric)
    base = measuring(base, metric)
    arms, changed = _arms(base, chosen)
    for side in arms.values():
        check_pair(base, side, metric)
    check_space(options.space, metric)
    claim(
        workdir,
        ABLATION,
        {"arms": {name: key_of(side.config) for name, side in arms.items()}, "metric": metric},
    )
    start.say([side.experiment for side in arms.values()])
    changed_data = is_of_other_data(workdir, base.dataset, options.changed_data)
    with Trainer(
        workdir,
        workers=options.workers,
        workers_on=options.workers_on,
        should_stop=should_stop,
        on_progress=on_progress,
    ) as trainer:
        keep_data(workdir, base.dataset, changed_data)
        tuned = None
        if options.tune:
            found = tuning.tune_all(arms, trainer, metric, options)
            arms = {name: one.side for name, one in found.items()}
            tuned = {name: one.record() for name, one in found.items()}
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        trained = trainer.train([(side.config, seeds) for side in arms.values()])
        trainer.check_fits({"the baseline": arms[BASELINE].config})
        short = {
            name: trainer.left_out[key_of(side.config)]
            for name, side in arms.items()
            if key_of(side.config) in trainer.left_out
        }
        record = {
            "metric": metric,
            "direction": "maximize" if higher_is_better(metric.partition("/")[2]) else "minimize",
            "level": options.level,
            "seeds": options.seeds,
            "baseline": base.config.to_dict(),
            **_record(arms, chosen, changed, trained, metric, seeds, options),
            "did_not_fit": short,
            "tuning": tuned,
            "seconds": dict(trainer.seconds),
            "status": "done",
        }
        save(workdir / ABLATION, record)
        alone = {one.name: arms[f"+{one.name}"].config for one in chosen}
        if all(f"+{name}" in short for name in alone):
            trainer.check_fits(alone)
    return record


def _arms(
    base: Side, chosen: Sequence[Chosen]
) -> tuple[dict[str, Side], dict[str, dict[str, Value]]]:
    """All configs to train: the baseline, each alone, all, and all without each."""
    arms = {BASELINE: base}
    everything, changed = applied(base, chosen)
    for one in chosen:
        arms[f"+{one.name}"], _ = applied(base, [one])
    if len(chosen) > 1:
        arms[ALL] = everything
        for one in chosen:
            rest = [other for other in chosen if other is not one]
            try:
                arms[f"-{one.name}"], _ = applied(base, rest)
            except ConfigError as error:
                raise UserError(
                    f"--techniques: without {one.name} the others can't be used: {error}"
                ) from error
    return arms, changed


def _record(
    arms: Mapping[str, Side],
    chosen: Sequence[Chosen],
    changed: Mapping[str, object],
    trained: Trained,
    metric: str,
    seeds: range,
    options: AblationOptions,
) -> dict[str, Any]:
    of = {name: trained[key_of(side.config)] for name, side in arms.items()}
    summaries = {name: summary_of(found, metric) for name, found in of.items()}
    resolution = resolution_of(metric, arms[BASELINE].dataset)

    def effect(a: str, b: str) -> tuple[list[float] | None, statistics.Effect | None]:
        if a not in of or b not in of:
            return None, None
        if any(seed not in of[name] for name in (a, b) for seed in seeds):
            return None, None  # it did not fit in memory
        found = gains(of[a], of[b], metric, seeds)
        if found is None:
            return None, None
        return found, statistics.fixed_effect(found, options.level, resolution)

    pairs = {f"+{one.name}": effect(BASELINE, f"+{one.name}") for one in chosen}
    pairs |= {f"-{one.name}": effect(f"-{one.name}", ALL) for one in chosen}
    pairs[ALL] = effect(BASELINE, ALL)
    known = {name: one.p_value for name, (_, one) in pairs.items() if one is not None}
    adjusted = statistics.holm(known)
    bound = 1 - options.level

    def row(name: str) -> dict[str, Any] | None:
        one = pairs[name][1]
        if one is None:
            return None
        found = effect_record(one, options.level, options.least)
        return {**found, "adjusted_p_value": adjusted[name]}

    rows = []
    for one in chosen:
        alone, left_out = row(f"+{one.name}"), row(f"-{one.name}")
        rows.append({
            "technique": one.name,
            "group": one.technique.group,
            "change": changed[one.name],
            "alone": alone,
            "left_out": left_out,
            "interaction": _interaction(
                pairs[f"+{one.name}"][0], pairs[f"-{one.name}"][0], options.level, resolution
            ),
            "cost": cost(summaries[BASELINE], summaries[f"+{one.name}"]),
            "decision": _decision(alone, bound, options.least)
            if of[f"+{one.name}"]
            else UNDECIDED,
            "bad": summaries[f"+{one.name}"]["bad"],
        })  # fmt: skip
    return {
        "arms": {
            name: {**summary, "key": key_of(arms[name].config), "values": _values(of[name], metric)}
            for name, summary in summaries.items()
        },
        "techniques": rows,
        "all": row(ALL),
        "interactions": [row["technique"] for row in rows if _named(row["interaction"])],
    }


def _values(trainings: Mapping[int, Training], metric: str) -> dict[str, float | None]:
    return {str(seed): one.metrics.get(metric) for seed, one in trainings.items()}


def _interaction(
    alone: list[float] | None, left_out: list[float] | None, level: float, resolution: float
) -> dict[str, object] | None:
    """What a technique is worth beside the others, less what it is worth alone, over the seeds."""
    if alone is None or left_out is None:
        return None
    found = [beside - single for single, beside in zip(alone, left_out)]
    one = statistics.fixed_effect(found, level, resolution * 2**0.5)
    return {"mean": one.mean, "interval": [one.low, one.high], "p_value": one.p_value}


def _named(interaction: Record | None) -> bool:
    return interaction is not None and not (
        interaction["interval"][0] <= 0 <= interaction["interval"][1]
    )


def _decision(effect: Record | None, bound: float, least: float) -> str:
    """As `jdlopt.evidence.compare.decide`, but with the p value that is corrected for them all."""
    if effect is None:
        return DROP
    low, high = effect["interval"]
    if low == high == 0 or high < least:
        return DROP
    if low > least and effect["adjusted_p_value"] < bound:
        return ADOPT
    return UNDECIDED
