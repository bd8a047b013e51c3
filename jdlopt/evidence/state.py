"""The state of ``improve``: what has been reached, and how a change becomes its next step.

A change is adopted if its gain over what has been reached is above chance on seeds that have chosen
nothing. Where a smaller or a faster model is wanted, it is adopted if that loses less than the
margin, by its interval on such seeds: against the baseline, so that losses do not add up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from jdlopt.errors import UserError
from jdlopt.evidence import statistics, techniques, tuning
from jdlopt.evidence.compare import effect_record, gains, summary_of
from jdlopt.evidence.costs import Row
from jdlopt.evidence.margin import is_within
from jdlopt.evidence.options import ACCURACY, ImprovementOptions
from jdlopt.evidence.pacing import Pacing
from jdlopt.evidence.records import save
from jdlopt.evidence.sides import Side, check_pair, resolution_of, side_of
from jdlopt.evidence.trainer import Trained, Trainer, key_of
from jdlopt.evidence.trainings import Training
from jdlopt.train.schema import Config

IMPROVEMENT = "improve.json"
TUNING = "tuning"
"""The name of a step that is no technique's: other values of what goes with them."""
BUDGET_ENDED = "the time budget ended"
"""Why a loop may end that goes on once it is given more time."""
RESERVE = 0.15
"""Of the budget, what is kept for the end."""
TUNED = ((32, 2), (8, 6), (3, 12))
"""Points that are tuned over, and the seeds of each; as many points go on as the next has."""
LEAST_POINTS, SHARE_OF_TUNING = 8, 0.15
"""Fewer points are not worth it; of the time that is left, what their first seeds may take."""
CONFIRM_SEEDS, FINAL_SEEDS = 500_000, 900_000
"""Where the seeds of confirming and of the end begin; each confirmation has its own."""
SEEDS_OF_A_LOOP, LOOPS = 2_000_000, 2_000
"""Seeds between those of a config's ``seed`` and of the next; and how many can be told apart."""
TUNED_PLACE, LAST_PLACE = 8, 9
"""Which of a round's confirmations is that of tuning, and of tuning when nothing else is left."""
DEFAULT_NUISANCE: dict[str, Any] = {
    "optim.learning_rate": ("around", 4.0),
    "optim.weight_decay": ("around", 10.0),
    "model.dropout_rate": ("around", 2.0),
    "loss.label_smoothing": ("around", 2.0),
}
"""What is tuned beside the nuisance keys of the techniques that were adopted."""


@dataclass
class Loop:
    """What a loop knows.

    Attributes:
      base: the baseline, as it is compared; ``current``: what has been reached.
      trainer, options, metric, workdir: as they were given.
      started: when this call began; ``earlier``: seconds of the calls before.
      deadline: when what is kept for the end begins.
      plans: how many candidates each round tried, so that a later call tries the same ones.
      first_rung: seeds that every candidate is tried with; None until the baseline is trained.
      pacing: how far each technique is taken; as it was asked for until the baseline is trained.
      on_progress: called with a line for people.
      steps: what was adopted, one after the other, each with its effect.
      tried: by round, what was tried and how far it came.
      findings: of the newest diagnosis.
      dropped: techniques that did not survive since the last one that did.
      screened: by technique, its newest mean gain while choosing.
      value: of the metric, of what has been reached.
      pace: seconds of the newest trainings, each, with what compiling took.
      training_seconds: of one of many trainings of what has been reached, over all workers; 0
        before it is known.
      diagnosis_seconds: that the newest diagnosis took.
      left_out: techniques that did not fit in memory in this call, and why.
      margin: of the metric that may be lost against the baseline; 0 where it is to get better.
      costs: by config, what its predictions cost, where they are to cost less.
      too_dear: techniques that were better while choosing, and whose confirmation would take longer
        than what was left.
      short: by key of a config, that of its training while choosing.
    """

    base: Side
    current: Side
    trainer: Trainer
    options: ImprovementOptions
    metric: str
    workdir: Path
    started: float
    earlier: float
    deadline: float
    plans: dict[int, int]
    first_rung: int | None
    pacing: Pacing
    on_progress: Callable[[str], None] | None
    steps: list[dict[str, Any]] = field(default_factory=list)
    tried: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    screened: dict[str, float] = field(default_factory=dict)
    value: float | None = None
    pace: float = 1.0
    training_seconds: float = 0.0
    diagnosis_seconds: float = 0.0
    left_out: dict[str, str] = field(default_factory=dict)
    too_dear: set[str] = field(default_factory=set)
    short: dict[str, Config] = field(default_factory=dict)
    margin: float = 0.0
    costs: dict[str, Row] = field(default_factory=dict)

    @property
    def for_accuracy(self) -> bool:
        """Whether it is the metric that is to get better."""
        return self.options.aim == ACCURACY

    @property
    def against(self) -> Side:
        """What a change is compared with: what has been reached, or the baseline."""
        return self.current if self.for_accuracy else self.base

    def cost(self, side: Side) -> Row:
        """Returns what the predictions of a config cost, as `jdlopt.evidence.aims.weigh` found."""
        return self.costs[key_of(side.config)]

    @property
    def spent(self) -> float:
        """Seconds of this call and of those before."""
        return self.earlier + time.perf_counter() - self.started

    @property
    def left(self) -> float:
        """Seconds until what is kept for the end begins, or until the end must begin.

        It trains what has been reached on the seeds of a confirmation and of the test.
        """
        needed = self.training_seconds * (self.pacing.confirm + self.pacing.test_seeds)
        beyond = max(0.0, needed - RESERVE * self.options.budget)
        return self.deadline - beyond - time.perf_counter()

    @property
    def late(self) -> bool:
        """Whether nothing more is trained before the end."""
        return self.left <= 0

    def seeds(self, first: int, count: int) -> range:
        """Returns seeds that no loop of another ``seed`` uses."""
        first += SEEDS_OF_A_LOOP * (int(self.base.config.seed) % LOOPS)
        return range(first, first + count)

    def say(self, text: str) -> None:
        """Reports a line of progress."""
        if self.on_progress:
            self.on_progress(text)

    def train(self, wanted: Sequence[tuple[Config, range]]) -> Trained:
        """Trains configs over seeds, and notes how long one took.

        Raises:
          UserError: what has been reached does not fit in memory.
        """
        started, before = time.perf_counter(), self.trainer.trained
        self.trainer.deadline = started + self.left
        found = self.trainer.train(wanted)
        self.trainer.check_fits({"what has been reached": self.current.config})
        self.take_pace(found.get(key_of(self.current.config), {}))
        new = self.trainer.trained - before
        if new:
            self.pace = (time.perf_counter() - started) / new
        return found

    def take_pace(self, trainings: Mapping[int, Training]) -> None:
        """Notes how long a training of what has been reached takes, if these tell."""
        known = [one.steps * one.step_seconds for one in trainings.values() if one.step_seconds]
        if known:
            self.training_seconds = median(known) / self.trainer.count

    @property
    def presses(self) -> bool:
        """Whether what is left is no more than two confirmations."""
        return self.left < 2 * self.confirmation_seconds(1.0)

    def confirmation_seconds(self, cost: float) -> float:
        """Returns about how long it takes to confirm a change.

        Args:
          cost: how many times as long as now a training takes with it.
        """
        return (1 + cost) * self.pacing.confirm * self.training_seconds

    def mean(self, trainings: Mapping[int, Training]) -> float | None:
        """Returns the mean of the metric over trainings."""
        return summary_of(trainings, self.metric)["mean"]

    @property
    def nuisance(self) -> dict[str, Any]:
        """What is tuned: the keys that go with everything, and those of what was adopted."""
        found = dict(DEFAULT_NUISANCE)
        for step in self.steps:
            if step["technique"] != TUNING:
                found |= techniques.read(step["technique"])[0].nuisance
        return found

    @property
    def comments(self) -> dict[str, str]:
        """What the changes of a key gained, in turn, for the config's file."""
        found: dict[str, list[str]] = {}
        for step in self.steps:
            for key in step["change"]:
                found.setdefault(key, []).append(words_of(step))
        return {key: "\n".join(words) for key, words in found.items()}

    @property
    def resolution(self) -> float:
        """The step in which the metric moves."""
        return resolution_of(self.metric, self.base.dataset)

    def note(self) -> None:
        """Writes down what is known, so that a reader, or a later call, finds it."""
        names = ("metric", "steps", "tried", "findings", "value", "plans", "first_rung", "screened",
                 "margin", "costs")  # fmt: skip
        known = {name: getattr(self, name) for name in names} | {"dropped": sorted(self.dropped)}
        known |= {"aim": self.options.aim, "within": self.options.within}
        known |= {"pacing": self.pacing._asdict(), "budget": self.options.budget}
        save(self.workdir / IMPROVEMENT, {"status": "running", "seconds": self.spent, **known})

    def restore(self, record: Mapping[str, Any]) -> int:
        """Goes on from what an earlier call wrote down; returns the number of its last round.

        A round that was left before anything of it was adopted is played again: its trainings are
        kept. What a damaged record says is found again from the trainings, too.
        """
        try:
            rounds = [
                one
                for one in record["tried"]
                if one["done"] or any(row["adopted"] for row in one["confirmed"])
            ]
            steps, current = list(record["steps"]), self.base
            for step in steps:
                current = side_of(current.raw, step["change"], like=current)
                words_of(step)
            screened = {str(name): float(gain) for name, gain in record["screened"].items()}
            number = max((int(one["round"]) for one in rounds), default=0)
            dropped = set(map(str, record["dropped"]))
        except (KeyError, TypeError, ValueError, AttributeError, UserError):
            return 0
        self.steps, self.current, self.tried = steps, current, rounds
        self.screened, self.dropped, self.value = screened, dropped, record.get("value")
        return number


def words_of(step: Mapping[str, Any]) -> str:
    """Returns an adopted change in words: its technique, gain, interval and seeds, what it saves.

    Example:
      >>> effect = {"mean": -0.002, "interval": [-0.004, 0.0], "seeds": 10}
      >>> step = {"technique": "narrower", "effect": effect, "share": 0.25}
      >>> words_of(step)
      'narrower: -0.0020 (-0.0040 to +0.0000, 10 seeds), 0.25 times what the baseline costs'
    """
    effect = step["effect"]
    low, high = effect["interval"]
    gain = f"{effect['mean']:+.4f} ({low:+.4f} to {high:+.4f}, {effect['seeds']} seeds)"
    share = step.get("share")
    saved = "" if share is None else f", {share:.3g} times what the baseline costs"
    return f"{step['technique']}: {gain}{saved}"


def paired(
    loop: Loop, base: Mapping[int, Training], other: Mapping[int, Training], seeds: range
) -> list[float] | None:
    """Returns the gains of one config over another, seed by seed; None if time was up before."""
    if not all(seed in base and seed in other for seed in seeds):
        return None
    return gains(base, other, loop.metric, seeds)


def confirmed(
    loop: Loop, number: int, place: int, side: Side, level: float, against: Side
) -> tuple[statistics.Effect | None, Mapping[int, Training]]:
    """Measures a change on seeds that have chosen nothing.

    Args:
      loop: where it stands.
      number: of the round.
      place: which confirmation of the round, 0 to 9.
      side: what has been reached, changed.
      level: of the interval.
      against: what it is compared with.

    Returns:
      The effect, None if time was up before; and the trainings of ``side``.
    """
    first = CONFIRM_SEEDS + 1000 * number + 100 * place
    seeds = loop.seeds(first, loop.pacing.confirm)
    trained = loop.train([(against.config, seeds), (side.config, seeds)])
    base, other = trained[key_of(against.config)], trained[key_of(side.config)]
    found = paired(loop, base, other, seeds)
    if found is None:
        return None, other
    return statistics.fixed_effect(found, level, loop.resolution), other


def adopt(
    loop: Loop,
    name: str,
    change: Mapping[str, object],
    side: Side,
    effect: statistics.Effect,
    level: float,
    trained: Mapping[int, Training],
    share: float | None = None,
) -> None:
    """Adds a confirmed change to those that were adopted.

    Args:
      loop: where it stands.
      name: of the technique.
      change: what it changes.
      side: the changed config.
      effect: of it.
      level: of its interval.
      trained: the trainings of ``side``.
      share: of what the baseline's predictions cost, what they cost now; None where that is not the
        aim.
    """
    before, loop.current = loop.current, side
    summary = summary_of(trained, loop.metric)
    loop.value = summary["mean"]
    earlier = loop.trainer.known(before.config)
    loop.steps.append({
        "technique": name,
        "change": dict(change),
        "effect": effect_record(effect, level, 0.0 if share is None else -loop.margin),
        "share": share,
        "value": loop.value,
        "step_seconds": summary["step_seconds"],
        "before_step_seconds": summary_of(earlier, loop.metric)["step_seconds"],
        "n_params": summary["n_params"],
        "seconds": loop.spent,
    })  # fmt: skip
    loop.take_pace(trained)
    loop.say(f"adopted {words_of(loop.steps[-1])}; {loop.metric} {loop.value:.4f}")
    loop.note()


def retune(loop: Loop, number: int, place: int = TUNED_PLACE) -> bool:
    """Tunes what goes with the current config; says whether a confirmed point was adopted.

    Args:
      loop: where it stands.
      number: of the round.
      place: which confirmation of the round is its own.
    """
    if loop.left <= 0:
        return False
    space = tuning.resolved_space(loop.nuisance, loop.current.config)
    first = tuning.TUNING_SEED + 1000 * number + 100 * (place - TUNED_PLACE)
    each = TUNED[0][1] * max(loop.training_seconds, 1e-3)
    affordable = int(SHARE_OF_TUNING * loop.left / each)
    if affordable < LEAST_POINTS:
        return False
    best: list[tuple[dict[str, Any], Side]] = []
    drawn = min(affordable, TUNED[0][0])
    for point in tuning.points(space, drawn, seed=10 * number + place):
        try:
            side = side_of(loop.current.raw, point, like=loop.current)
            check_pair(loop.base, side, loop.metric)
        except UserError:
            continue  # a value that another key rules out
        best.append((point, side))
    for count, seed_count in TUNED:
        best, seeds = best[:count], loop.seeds(first, seed_count)
        if not best or loop.left <= 0:
            return False
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
        best = [(point, side) for _, point, side in scored]
    if not best or loop.left <= 0:
        return False
    point, side = best[0]
    effect, own = confirmed(loop, number, place, side, loop.options.level, loop.current)
    for record in loop.tried[-1:]:
        record["tuned"] = True
    if effect is None or not is_within(effect, 0.0):
        return False
    adopt(loop, TUNING, point, side, effect, loop.options.level, own)
    return True
