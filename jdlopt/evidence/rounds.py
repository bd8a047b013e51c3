"""The rounds of ``improve``: what is tried on a config, how far, and what is adopted of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt.errors import UserError
from jdlopt.evidence import statistics, techniques, tuning
from jdlopt.evidence.compare import (
    Side,
    check_pair,
    effect_record,
    gains,
    resolution_of,
    side_of,
    summary_of,
)
from jdlopt.evidence.records import save
from jdlopt.evidence.trainer import ENDED_WELL, Trained, Trainer, Training, key_of

IMPROVEMENT, RUNS = "improve.json", "runs"
RUNGS = (2, 4, 8)
"""Seeds at each rung of the halving; a third goes on."""
MOST_CONFIRM = 90
"""Seeds that a confirmation may have, so that no two share one."""
REDUCTION = 3
FINALISTS = 3
"""Candidates of a round that may be confirmed, one after the other."""
TUNED_POINTS, TUNED_SEEDS = 16, 2
SHARE_OF_ROUND = 0.3
"""Of the time that is left, what the first rung of a round may take."""
AT_A_TIME = 4
"""Candidates for each worker that are trained before the clock is looked at."""
RESERVE = 0.15
"""Of the budget, what is kept for the end."""
ROUND_SEEDS, CONFIRM_SEEDS, FINAL_SEEDS = 10_000, 500_000, 900_000
"""Where the seeds of choosing, of confirming and of the end begin; each round has its own."""
LIKED = frozenset(("accuracy", "generalisation", "robustness"))
"""What a technique must aim at, one of these, to be tried for a better metric."""
DEFAULT_NUISANCE: dict[str, Any] = {
    "optim.learning_rate": ("around", 4.0),
    "optim.weight_decay": ("around", 10.0),
    "model.dropout_rate": ("around", 2.0),
    "loss.label_smoothing": ("around", 2.0),
}
"""What is tuned beside a technique's own nuisance keys."""


class Candidate(NamedTuple):
    """A technique's variant, applied to the config of a round.

    Attributes:
      name: of the technique, with ``:N`` for another than its first variant.
      technique: its entry in the catalogue.
      change: what it changes.
      side: the changed config.
      score: what it is tried by: findings first, then the catalogue's prior.
    """

    name: str
    technique: techniques.Technique
    change: dict[str, Any]
    side: Side
    score: float


@dataclass
class Loop:
    """What a loop knows.

    Attributes:
      base: the baseline, as it is compared; ``current``: what has been reached.
      trainer, options, metric, workdir: as they were given.
      started: when this call began; ``earlier``: seconds of the calls before.
      deadline: when what is kept for the end begins.
      plans: how many candidates each round tried, so that a later call tries the same ones.
      on_progress: called with a line for people.
      steps: the ladder: what was adopted, with its effect.
      tried: by round, what was tried and how far it came.
      findings: of the newest diagnosis.
      dropped: techniques that did not survive since the last one that did.
      comments: what a changed key gained, for the config's file.
      value: of the metric, of what has been reached.
      pace: seconds of the newest trainings, each.
    """

    base: Side
    current: Side
    trainer: Trainer
    options: Any
    metric: str
    workdir: Path
    started: float
    earlier: float
    deadline: float
    plans: dict[int, int]
    on_progress: Callable[[str], None] | None
    steps: list[dict[str, Any]] = field(default_factory=list)
    tried: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    comments: dict[str, str] = field(default_factory=dict)
    value: float | None = None
    pace: float = 1.0

    @property
    def spent(self) -> float:
        """Seconds of this call and of those before."""
        return self.earlier + time.perf_counter() - self.started

    @property
    def left(self) -> float:
        """Seconds until what is kept for the end begins."""
        return self.deadline - time.perf_counter()

    def say(self, text: str) -> None:
        """Tells whoever looks on."""
        if self.on_progress:
            self.on_progress(text)

    def train(self, wanted: Sequence[tuple[Mapping[str, Any], range]]) -> Trained:
        """Trains configs over seeds, and notes how long one took."""
        started, before = time.perf_counter(), self.trainer.trained
        found = self.trainer.train(wanted)
        new = self.trainer.trained - before
        if new:
            self.pace = (time.perf_counter() - started) / new
        return found

    @property
    def presses(self) -> bool:
        """Whether what is left is no more than two confirmations."""
        return self.left < 4 * self.options.confirm * self.pace

    def mean(self, trainings: Mapping[int, Training]) -> float | None:
        """Returns the mean of the metric over trainings."""
        return summary_of(trainings, self.metric)["mean"]

    @property
    def resolution(self) -> float:
        """The step in which the metric moves."""
        return resolution_of(self.metric, self.base.dataset)

    def note(self) -> None:
        """Writes down what is known, so that a reader, or a later call, finds it."""
        names = ("metric", "steps", "tried", "findings", "value", "plans")
        known = {name: getattr(self, name) for name in names}
        save(self.workdir / IMPROVEMENT, {"status": "running", "seconds": self.spent, **known})


def candidates_of(loop: Loop) -> list[Candidate]:
    """Returns what may be tried on the current config, best guess first.

    Findings count first, then the catalogue's prior; a technique's later variants come after its
    first one.
    """
    current, wanted = loop.current, set(loop.options.techniques)
    facts = techniques.facts_of(current.config, current.dataset)
    bonus = _bonus(loop.findings)
    found = []
    for one in techniques.applicable(current.config, facts):
        if (wanted and wanted.isdisjoint((one.name, one.group))) or LIKED.isdisjoint(one.aims):
            continue
        for index, change in enumerate(techniques.change(one.name, current.config, facts)):
            name = one.name if index == 0 else f"{one.name}:{index + 1}"
            try:
                side = side_of(current.raw, change, like=current)
                check_pair(loop.base, side)
            except UserError:
                continue  # what it needs is not here
            score = bonus.get(one.name, 0.0) + one.prior - 0.1 * index
            found.append(Candidate(name, one, dict(change), side, score))
    unique = {key_of(current.config)}
    kept = []
    for candidate in sorted(found, key=lambda candidate: -candidate.score):
        key = key_of(candidate.side.config)
        if key not in unique:
            unique.add(key)
            kept.append(candidate)
    return kept


def _bonus(findings: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What a finding adds to the techniques that it suggests: the first finding most."""
    found: dict[str, float] = {}
    levels = {"serious": 1.0, "warning": 0.6, "note": 0.3}
    for place, finding in enumerate(findings):
        weight = levels.get(str(finding.get("level")), 0.0) / (1 + 0.25 * place)
        for name in finding.get("techniques", ()):
            found[name] = max(found.get(name, 0.0), weight)
    return found


def play(loop: Loop, number: int) -> bool:
    """Tries techniques on the current config; says whether one was adopted."""
    if loop.options.diagnose:
        loop.findings = _diagnosed(loop)
    candidates = [one for one in candidates_of(loop) if one.name not in loop.dropped]
    if not candidates:
        return False
    loop.say(f"round {number}: {candidates[0].name} first")
    finalists, record = _halved(loop, number, candidates)
    candidates = [one for one in candidates if one.name in record["names"]]
    del record["names"]
    loop.tried.append(record)
    level = 1 - (1 - loop.options.level) / FINALISTS  # of so many, none is adopted by chance
    for place, candidate in enumerate(finalists[:FINALISTS]):
        effect, trained = _confirmed(loop, number, place, candidate.side, level)
        if effect is None:
            break  # time is up
        row = effect_record(effect, level, 0.0)
        record["confirmed"].append({"technique": candidate.name, "effect": row})
        if effect.low > 0:
            _adopt(loop, candidate.name, candidate.change, candidate.side, effect, level, trained)
            loop.dropped.clear()
            retune(loop, number, candidate.technique.nuisance)
            return True
    loop.dropped |= {one.name for one in candidates}
    return False


def _tried(
    loop: Loop, number: int, candidates: Sequence[Candidate], seeds: range
) -> tuple[list[Candidate], Trained]:
    """Trains as many candidates on the first seeds as a round's share of the time allows.

    They come a few at a time, best guess first: what compiling each will take is not known before.
    A later call tries as many as the call before it did.
    """
    until = time.perf_counter() + SHARE_OF_ROUND * max(loop.left, 0.0)
    planned, taken = loop.plans.get(number), list[Candidate]()
    trained = loop.train([(loop.current.config, seeds)])
    while len(taken) < len(candidates):
        enough = time.perf_counter() > until if planned is None else len(taken) >= planned
        if enough and len(taken) >= FINALISTS:
            break
        some = candidates[len(taken) : len(taken) + AT_A_TIME * loop.trainer.count]
        trained |= loop.train([(one.side.config, seeds) for one in some])
        taken += some
    if planned is None:
        loop.plans[number] = len(taken)
        loop.note()
    return taken, trained


def _halved(
    loop: Loop, number: int, candidates: Sequence[Candidate]
) -> tuple[list[Candidate], dict[str, Any]]:
    """Trains candidates on more and more seeds, a third of them further each time."""
    scores, first = dict[str, dict[str, Any]](), ROUND_SEEDS * number
    left, trained = _tried(loop, number, candidates, range(first, first + RUNGS[0]))
    for count in RUNGS:
        seeds = range(first, first + count)
        if count > RUNGS[0]:
            own = [(loop.current.config, seeds), *((one.side.config, seeds) for one in left)]
            trained = loop.train(own)
        base = trained[key_of(loop.current.config)]
        for one in left:
            found = paired(loop, base, trained[key_of(one.side.config)], seeds)
            mean = sum(found) / len(found) if found else None
            scores[one.name] = {"technique": one.name, "seeds": count, "gain": mean,
                                "change": one.change, "score": one.score}  # fmt: skip
        left = [one for one in left if (scores[one.name]["gain"] or 0.0) > 0]
        left.sort(key=lambda one: -scores[one.name]["gain"])
        left = left[: max(FINALISTS, -(-len(left) // REDUCTION))]
        if not left or loop.presses:
            break
    rows = sorted(
        scores.values(),
        key=lambda row: (-row["seeds"], row["gain"] is None, -(row["gain"] or 0.0)),
    )
    findings = [dict(one) for one in loop.findings]
    record = {"round": number, "candidates": rows, "confirmed": [], "findings": findings}
    return left, {**record, "names": list(scores)}


def paired(
    loop: Loop, base: Mapping[int, Training], other: Mapping[int, Training], seeds: range
) -> list[float] | None:
    """Returns the gains of one config over another, seed by seed; None if time was up before."""
    if not all(seed in base and seed in other for seed in seeds):
        return None
    return gains(base, other, loop.metric, seeds)


def _confirmed(
    loop: Loop, number: int, place: int, side: Side, level: float
) -> tuple[statistics.Effect | None, Mapping[int, Training]]:
    """Measures a change on seeds that have chosen nothing."""
    first = CONFIRM_SEEDS + 1000 * number + 100 * place
    seeds = range(first, first + loop.options.confirm)
    trained = loop.train([(loop.current.config, seeds), (side.config, seeds)])
    base, other = trained[key_of(loop.current.config)], trained[key_of(side.config)]
    found = paired(loop, base, other, seeds)
    if found is None:
        return None, other
    return statistics.fixed_effect(found, level, loop.resolution), other


def _adopt(
    loop: Loop,
    name: str,
    change: Mapping[str, Any],
    side: Side,
    effect: statistics.Effect,
    level: float,
    trained: Mapping[int, Training],
) -> None:
    before, loop.current = loop.current, side
    summary = summary_of(trained, loop.metric)
    loop.value = summary["mean"]
    words = f"{effect.mean:+.4f} ({effect.low:+.4f} to {effect.high:+.4f}, {effect.pairs} seeds)"
    comment = f"{name}: {words}"
    loop.comments |= dict.fromkeys(change, comment)
    earlier = loop.trainer.known(before.config)
    loop.steps.append({
        "technique": name,
        "change": dict(change),
        "effect": effect_record(effect, level, 0.0),
        "value": loop.value,
        "step_seconds": summary["step_seconds"],
        "before_step_seconds": summary_of(earlier, loop.metric)["step_seconds"],
        "n_params": summary["n_params"],
        "seconds": loop.spent,
    })  # fmt: skip
    loop.say(f"adopted {comment}; {loop.metric} {loop.value:.4f}")
    loop.note()


def retune(loop: Loop, number: int, nuisance: Mapping[str, Any]) -> bool:
    """Tunes what goes with the current config; says whether a confirmed point was adopted."""
    if loop.left <= 0:
        return False
    space = tuning.resolved_space({**DEFAULT_NUISANCE, **nuisance}, loop.current.config)
    drawn = tuning.points(space, TUNED_POINTS, seed=number)
    sides: list[tuple[dict[str, Any], Side]] = []
    for point in drawn:
        try:
            sides.append((point, side_of(loop.current.raw, point, like=loop.current)))
        except UserError:
            continue  # a value that another key rules out
    first = tuning.TUNING_SEED + 1000 * number + (500 if not nuisance else 0)
    best = sides
    for count in (TUNED_SEEDS, 3 * TUNED_SEEDS):
        seeds = range(first, first + count)
        trained = loop.train(
            [(loop.current.config, seeds), *((side.config, seeds) for _, side in best)]
        )
        base = trained[key_of(loop.current.config)]
        scored = []
        for point, side in best:
            found = paired(loop, base, trained[key_of(side.config)], seeds)
            if found and sum(found) > 0:
                scored.append((sum(found) / len(found), point, side))
        scored.sort(key=lambda one: -one[0])
        best = [(point, side) for _, point, side in scored[:FINALISTS]]
        if not best or loop.left <= 0:
            return False
    place = 8 if nuisance else 9
    point, side = best[0]
    effect, own = _confirmed(loop, number, place, side, loop.options.level)
    if effect is None or not effect.low > 0:
        return False
    _adopt(loop, "tuning", point, side, effect, loop.options.level, own)
    return True


def _diagnosed(loop: Loop) -> list[dict[str, Any]]:
    """The findings on a run of the current config."""
    from jdlopt.evidence.diagnose import diagnose

    place = loop.workdir / RUNS / key_of(loop.current.config)
    try:
        there = json.loads((place / "diagnosis.json").read_text(encoding="utf-8"))
        return list(there["findings"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    quiet = {"train.evaluate_test": False, "train.tensorboard": False}
    config = side_of(loop.current.raw, quiet).config
    ended = loop.trainer.runs({place: config})[place]
    if ended["status"] not in (*ENDED_WELL, "diverged"):
        return []
    try:
        return list(diagnose(place)["findings"])
    except UserError:
        return []  # a run that can't be looked at has no findings; the catalogue's order is left
