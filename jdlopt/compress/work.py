"""Candidates, tried on more and more seeds until their losses are known well enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jdlopt.compress import choice
from jdlopt.compress.entry import Candidate, Method, Train, chained
from jdlopt.compress.options import CompressionOptions
from jdlopt.compress.stages import BASELINE, Bench, Failure, Reached
from jdlopt.compress.timing import runtime_name
from jdlopt.config import LARGEST_SEED
from jdlopt.evidence import margin
from jdlopt.evidence.compare import effect_record
from jdlopt.evidence.costs import Row
from jdlopt.evidence.records import save
from jdlopt.evidence.sides import resolution_of
from jdlopt.evidence.within import Within
from jdlopt.metrics import higher_is_better

COMPRESSION = "compress.json"
BUDGET_ENDED, ALL_TRIED = "the time budget ended", "every candidate was tried"


@dataclass
class Work:
    """What is known while candidates are tried.

    Attributes:
      bench, options, within: what they share.
      started, earlier: when this call began; seconds of the calls before.
      refused: methods that can't be used, and why.
      starts: the baseline of each seed; ``values``: its metric.
      failed: seeds whose baseline came to nothing, and why.
      candidates, rows: what was tried, by name.
      baseline: the run as it is, as a row.
    """

    bench: Bench
    options: CompressionOptions
    within: Within
    started: float
    earlier: float
    refused: dict[str, str]
    on_progress: Callable[[str], None] | None
    starts: dict[int, Reached] = field(default_factory=dict)
    values: dict[int, float] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    baseline: Row = field(default_factory=dict)

    @property
    def own(self) -> int:
        """The run's own seed."""
        return int(self.bench.side.config.seed)

    @property
    def late(self) -> bool:
        """Whether nothing more is trained."""
        deadline = self.bench.trainer.deadline
        return deadline is not None and time.perf_counter() > deadline

    @property
    def margin(self) -> float | None:
        """What may be lost, in units of the metric."""
        if not self.values:
            return None
        return self.within.margin(sum(self.values.values()) / len(self.values))

    def say(self, text: str) -> None:
        """Reports a line of progress."""
        if self.on_progress:
            self.on_progress(text)

    def record(self, status: str, why: str | None, best: Row | None) -> dict[str, Any]:
        """Returns the content of ``compress.json``."""
        bench, options = self.bench, self.options
        higher = higher_is_better(bench.metric.partition("/")[2])
        rows = list(self.rows.values())
        choice.mark_front([self.baseline, *rows] if self.baseline else rows)
        return {
            "status": status, "why": why, "run": str(bench.given.run), "metric": bench.metric,
            "direction": "maximize" if higher else "minimize", "within": options.within,
            "margin": self.margin, "level": options.level, "prefer": options.prefer,
            "batch_sizes": list(options.batch_sizes), "seeds": sorted(self.values),
            "failed_seeds": {str(seed): reason for seed, reason in self.failed.items()},
            "baseline": self.baseline or None, "candidates": rows,
            "not_applicable": self.refused, "runtime": runtime_name(options.runtime),
            "chosen": None if best is None else best["name"], "directory": None, "test": None,
            "config": bench.side.config.to_dict(),
            "seconds": self.earlier + time.perf_counter() - self.started,
        }  # fmt: skip

    def note(self) -> None:
        """Writes down what is known, so that a reader, or a later call, finds it."""
        place = self.bench.trainer.workdir / COMPRESSION
        save(place, self.record("running", None, None))


def _seeds(own: int, count: int) -> list[int]:
    """The run's own seed and those after it."""
    return [(own + index) % (LARGEST_SEED + 1) for index in range(count)]


def play(work: Work, methods: Sequence[tuple[Method, tuple[Candidate, ...]]]) -> str:
    """Tries the candidates of every method, then those that follow what was accepted."""
    seeds = _seeds(work.own, work.options.seeds)
    work.say(f"the baseline, over {len(seeds)} seeds")
    for seed, found in work.bench.baselines(seeds).items():
        if isinstance(found, Failure):
            work.failed[seed] = found.reason
        else:
            work.starts[seed] = found
            work.values[seed] = work.bench.measure(found)
    work.baseline = _baseline(work)
    work.note()
    if len(work.starts) + len(work.failed) < len(seeds):
        return BUDGET_ENDED
    for _, candidates in methods:
        if not _tried(work, candidates):
            return BUDGET_ENDED
    accepted = [one for one, row in work.rows.items() if row["decision"] == margin.ACCEPTED]
    followers = [one for method, some in methods if method.follows for one in some]
    chains = [
        chained(work.candidates[name], one)
        for name in accepted
        for one in followers
        if not any(stage in work.candidates[name].stages for stage in one.stages)
        and any(isinstance(stage, Train) for stage in work.candidates[name].stages)
    ]
    if chains and not _tried(work, chains):
        return BUDGET_ENDED
    return ALL_TRIED


def _tried(work: Work, candidates: Sequence[Candidate]) -> bool:
    """Tries candidates on more and more seeds; says whether there was time for all of them."""
    losses: dict[str, list[float]] = {one.name: [] for one in candidates}
    for one in candidates:
        work.candidates[one.name], work.rows[one.name] = one, _row(one.name)
    left, seeds, done = list(candidates), list(work.starts), 0
    for count in margin.looks(len(seeds)):
        fresh = {seed: work.starts[seed] for seed in seeds[done:count]}
        reached, done = work.bench.reach(left, fresh), count
        for one in list(left):
            row, found = work.rows[one.name], reached[one.name]
            bad = [each for each in found.values() if isinstance(each, Failure)]
            if bad:
                decided = margin.REJECTED if bad[0].decides else margin.UNDECIDED
                row |= {"decision": decided, "reason": bad[0].reason}
                left.remove(one)
                continue
            if len(found) < len(fresh):
                row["reason"] = BUDGET_ENDED
                continue
            for seed, each in found.items():
                assert isinstance(each, Reached)
                row["values"][str(seed)] = value = work.bench.measure(each)
                losses[one.name].append(_loss(work, seed, value))
            _judge(work, row, losses[one.name])
            if row["decision"] != margin.UNDECIDED or row["reason"]:
                left.remove(one)
        work.note()
        if any(work.rows[one.name]["reason"] == BUDGET_ENDED for one in left):
            return False
        if not left:
            break
    return True


def _loss(work: Work, seed: int, value: float) -> float:
    higher = higher_is_better(work.bench.metric.partition("/")[2])
    return (work.values[seed] - value) * (1.0 if higher else -1.0)


def _judge(work: Work, row: Row, losses: Sequence[float]) -> None:
    """Writes into a row what its losses say by now."""
    limit = work.margin
    assert limit is not None
    resolution = resolution_of(work.bench.metric, work.bench.given.experiment.data)
    decided = margin.decide(losses, limit, work.options.level, resolution)
    row["decision"] = decided.decision
    if decided.effect is not None:
        row["loss"] = effect_record(decided.effect, work.options.level, limit)
        row["value"] = _mean(row["values"])
    if decided.hopeless and decided.decision == margin.UNDECIDED:
        row["reason"] = f"its losses lie above the margin after {len(losses)} seeds"
    if decided.effect is not None:
        work.say(f"{row['name']}: {decided.decision}, loss {decided.effect.mean:+.4f}")


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _row(name: str) -> Row:
    return {
        "name": name, "decision": margin.UNDECIDED, "reason": None, "values": {}, "value": None,
        "loss": None, "bytes": None, "macs": None, "n_params": None, "ms": {}, "timed_as": None,
        "on_front": False,
    }  # fmt: skip


def _baseline(work: Work) -> Row:
    values = {str(seed): value for seed, value in work.values.items()}
    nothing = {"mean": 0.0, "interval": [0.0, 0.0]}
    return {**_row(BASELINE), "decision": BASELINE, "values": values, "loss": nothing,
            "value": _mean(values) if values else None}  # fmt: skip
