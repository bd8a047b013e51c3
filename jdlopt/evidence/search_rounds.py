"""The rounds of ``improve``: what is tried on a config, how far, and what is adopted of it."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jdlopt import config as configs
from jdlopt.errors import UserError
from jdlopt.evidence import aims, pacing, techniques
from jdlopt.evidence.compare import effect_record
from jdlopt.evidence.margin import is_within
from jdlopt.evidence.options import SOUGHT
from jdlopt.evidence.records import RUNS
from jdlopt.evidence.sides import Side, check_pair, side_of
from jdlopt.evidence.state import Loop, adopt, confirmed, paired
from jdlopt.evidence.trainer import ENDED_WELL, Trained, key_of
from jdlopt.evidence.trainings import Training

if TYPE_CHECKING:
    from jdlopt.train.schema import Config

RUNGS = 3
"""Rungs of the halving: each has twice the seeds of the one before, and a third goes on to it."""
MOST_SEEDS = 4
"""At the first rung. Where compiling a structure takes longer than training it, more seeds cost
little."""
REDUCTION = 3
FINALISTS = 6
"""Candidates of a round that may be confirmed, one after the other."""
SHARE_OF_ROUND = 0.12
"""Of the time that is left, what the first rung of a round may take."""
AT_A_TIME = 4
"""Candidates for each worker that are trained before the clock is looked at."""
ROUND_SEEDS = 10_000
"""Where the seeds of choosing begin; each round has its own."""
DEAR = 1.6
"""How many times as long a training may take with a technique that is not left for later."""
LATE = 0.4
"""The share of the budget below which nothing is left for later."""
DIAGNOSIS_SHARE = 0.03
"""Of the time that is left, what a diagnosis may take; the findings before it serve otherwise."""
SCREENED = 0.3
"""What an earlier round's gain, or loss, of a technique adds to its score, or takes away."""


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


def candidates_of(loop: Loop) -> list[Candidate]:
    """Returns what may be tried on the current config, best guess first.

    Findings count first, then the catalogue's prior and what earlier rounds saw of it; a
    technique's later variants come after its first one. Where predictions are to cost less, those
    that would save nothing are left out.
    """
    current, wanted = loop.current, set(loop.options.techniques)
    sought = SOUGHT[loop.options.aim]
    facts = techniques.facts_of(current.config, current.dataset)
    bonus = _bonus(loop.findings)
    found = []
    for one in techniques.applicable(current.config, facts, wanted):
        if (wanted and wanted.isdisjoint((one.name, one.group))) or sought.isdisjoint(one.aims):
            continue
        for index, change in enumerate(techniques.change(one.name, current.config, facts)):
            name = one.name if index == 0 else f"{one.name}:{index + 1}"
            try:
                side = side_of(current.raw, change, like=current)
                check_pair(loop.base, side, loop.metric)
                chosen_by(loop, side)
            except UserError:
                continue  # what it needs is not here, or comes after the end of a shorter training
            if name in loop.left_out:
                continue
            seen = loop.screened.get(name, 0.0)
            score = bonus.get(one.name, 0.0) + one.prior - 0.1 * index
            score += SCREENED * ((seen > 0) - (seen < 0))
            found.append(Candidate(name, one, dict(change), side, score))
    unique = {key_of(current.config)}
    kept = []
    for candidate in sorted(found, key=lambda candidate: -candidate.score):
        key = key_of(candidate.side.config)
        if key not in unique:
            unique.add(key)
            kept.append(candidate)
    aims.weigh(loop, [current, *(one.side for one in kept)])
    return [one for one in kept if aims.saves(loop, one.side)]


def left_to_try(loop: Loop) -> list[Candidate]:
    """Returns the candidates that are neither dropped nor too dear for what is left."""
    done = loop.dropped | loop.too_dear
    return [one for one in candidates_of(loop) if one.name not in done]


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
    """Tries techniques on the current config; says whether any was adopted.

    Finalists are confirmed one after the other, best first, each on top of those that were adopted
    before it.
    """
    if loop.options.diagnose and loop.for_accuracy:
        loop.findings = _diagnosed(loop)
    candidates = left_to_try(loop)
    if not candidates:
        return False
    loop.say(f"round {number}: {candidates[0].name} first")
    finalists, record = _halved(loop, number, candidates)
    loop.tried.append(record)
    rows, level = record["candidates"], _level(loop)
    costs = {row["technique"]: row["cost"] or 1.0 for row in rows}
    changed, place, judged = set[str](), 0, True
    for candidate in finalists:
        side = _on_top(loop, candidate, changed)
        if side is None or place == FINALISTS:
            _wait(loop, [row for row in rows if row["technique"] == candidate.name])
            continue
        if loop.confirmation_seconds(costs[candidate.name]) > loop.left:
            loop.too_dear.add(candidate.name)  # a cheaper one may be confirmed in what is left
            judged = False
            continue
        effect, trained = confirmed(loop, number, place, side, level, loop.against)
        place += 1
        if effect is None and loop.late:
            judged = False
            break
        if effect is None:
            continue  # a training of it failed
        adopted = is_within(effect, loop.margin)
        row = effect_record(effect, level, -loop.margin)
        record["confirmed"].append({"technique": candidate.name, "effect": row, "adopted": adopted})
        if adopted:
            record["tuned"] = False  # what was found for another config goes on being used
            share = aims.share_of(loop, side)
            adopt(loop, candidate.name, candidate.change, side, effect, level, trained, share)
            changed |= candidate.change.keys()
    judged = judged and all(row["seeds"] for row in rows)
    loop.screened |= {row["technique"]: row["gain"] for row in rows if row["gain"] is not None}
    if judged:
        tried = {row["technique"] for row in rows if not row["later"]}
        if loop.for_accuracy:
            loop.dropped = set() if changed else loop.dropped | tried
        else:  # what loses too much by itself loses no less beside what was adopted
            adopted_now = {one["technique"] for one in record["confirmed"] if one["adopted"]}
            loop.dropped |= tried - adopted_now
    record["done"] = judged  # what there was no time for is no result: a later call plays it again
    loop.note()
    return bool(changed)


def _level(loop: Loop) -> float:
    """The level of a confirmation's interval: of so many finalists, none is adopted by chance."""
    return 1 - (1 - loop.options.level) / FINALISTS


def _wait(loop: Loop, rows: Sequence[dict[str, Any]]) -> None:
    """Leaves candidates for the next round that others went before because they save more."""
    if not loop.for_accuracy:
        for row in rows:
            row["later"] = True


def _on_top(loop: Loop, candidate: Candidate, changed: set[str]) -> Side | None:
    """A candidate on what has been reached by now; None where the two can't be had together."""
    if not changed:
        return candidate.side
    if not changed.isdisjoint(candidate.change):
        return None
    try:
        side = side_of(loop.current.raw, candidate.change, like=loop.current)
        check_pair(loop.base, side, loop.metric)
    except UserError:
        return None
    facts = techniques.facts_of(loop.current.config, loop.current.dataset)
    fits = candidate.technique.applies(loop.current.config, facts) is None
    same = key_of(side.config) == key_of(loop.current.config)
    return side if fits and not same and aims.saves(loop, side) else None


def _tried(
    loop: Loop, number: int, candidates: Sequence[Candidate], seeds: range
) -> tuple[list[Candidate], Trained]:
    """Trains as many candidates on the first seeds as a round's share of the time allows.

    They come a few at a time, best guess first: what compiling each will take is not known before.
    A later call tries as many as the call before it did.
    """
    until = time.perf_counter() + SHARE_OF_ROUND * max(loop.left, 0.0)
    planned, taken = loop.plans.get(number), list[Candidate]()
    trained = loop.train([(chosen_by(loop, loop.against), seeds)])
    while len(taken) < len(candidates):
        enough = time.perf_counter() > until if planned is None else len(taken) >= planned
        if enough and len(taken) >= FINALISTS:
            break
        some = candidates[len(taken) : len(taken) + AT_A_TIME * loop.trainer.count]
        trained |= loop.train([(chosen_by(loop, one.side), seeds) for one in some])
        taken += some
    if planned is None:
        loop.plans[number] = len(taken)
        loop.note()
    return taken, trained


def _halved(
    loop: Loop, number: int, candidates: Sequence[Candidate]
) -> tuple[list[Candidate], dict[str, Any]]:
    """Trains candidates on more and more seeds, a third of them further each time.

    What counts is the gain over the root of what a training costs, beside that of what has been
    reached. Where predictions are to cost less, it is what they cost, of those that lose little
    enough: first of those that a confirmation will probably adopt. A technique that makes trainings
    much longer makes whatever is tried after it longer as well: it is left for later, unless it is
    worth most of all, nothing cheaper helps, or time is short.

    Returns:
      Those that were better than what has been reached as far as they came, the best of those that
      came furthest first; and the round's record.
    """
    rows, first = dict[str, dict[str, Any]](), ROUND_SEEDS * number
    counts = [first_rung(loop) << rung for rung in range(RUNGS)]
    left, trained = _tried(loop, number, candidates, loop.seeds(first, counts[0]))
    for count in counts:
        seeds = loop.seeds(first, count)
        if count > counts[0]:
            sides = [loop.against, *(one.side for one in left)]
            trained = loop.train([(chosen_by(loop, side), seeds) for side in sides])
        base = trained[key_of(chosen_by(loop, loop.against))]
        short = loop.trainer.left_out
        loop.left_out |= {
            one.name: short[key]
            for one in left
            if (key := key_of(chosen_by(loop, one.side))) in short
        }
        left = [one for one in left if one.name not in loop.left_out]
        for one in left:
            other = trained[key_of(chosen_by(loop, one.side))]
            found = paired(loop, base, other, seeds)
            trained_all = all(seed in base and seed in other for seed in seeds)
            if not trained_all and one.name in rows:
                continue  # time was up: what fewer seeds said stands
            rows[one.name] = {
                "technique": one.name, "seeds": count if trained_all else 0, "change": one.change,
                "score": one.score, "gain": sum(found) / len(found) if found else None,
                "cost": _cost(base, other) if trained_all else None, "later": False,
                "share": aims.share_of(loop, one.side),
                "promising": bool(found) and aims.is_promising(loop, found or ()),
                "foreseen": bool(found) and aims.is_foreseen(loop, found or (), _level(loop)),
            }  # fmt: skip
        left = [one for one in left if rows[one.name]["promising"]]
        left.sort(key=lambda one: _order(loop, rows[one.name]))
        if not left or loop.presses:
            break
        if count == counts[0] and loop.left > LATE * loop.options.budget:
            later = left_for_later({one.name: rows[one.name]["cost"] for one in left})
            for name in later:
                rows[name]["later"] = True
            left = [one for one in left if one.name not in later]
        if count < counts[-1]:
            further = max(FINALISTS, -(-len(left) // REDUCTION))
            _wait(loop, [rows[one.name] for one in left[further:]])
            left = left[:further]
    ordered = sorted(
        rows.values(),
        key=lambda row: (-row["seeds"], row["gain"] is None, -(row["gain"] or 0.0)),
    )
    findings = [dict(one) for one in loop.findings]
    return left, {"round": number, "shorter": loop.pacing.shorter, "candidates": ordered,
                  "confirmed": [], "findings": findings, "done": False, "tuned": True}  # fmt: skip


def chosen_by(loop: Loop, side: Side) -> Config:
    """Returns the config of a training that chooses: shorter than a whole one where time is."""
    if loop.pacing.shorter == 1:
        return side.config
    key = key_of(side.config)
    if key not in loop.short:
        loop.short[key] = pacing.shortened(side, loop.pacing.shorter)
    return loop.short[key]


def _cost(base: Mapping[int, Training], other: Mapping[int, Training]) -> float:
    """How many times as long a training takes as one of what has been reached."""

    def seconds(trainings: Mapping[int, Training]) -> float:
        known = [t.steps * t.step_seconds for t in trainings.values() if t.step_seconds]
        return statistics.median(known) if known else 0.0

    return seconds(other) / seconds(base) if seconds(base) and seconds(other) else 1.0


def _order(loop: Loop, row: Mapping[str, Any]) -> tuple[bool, float]:
    """What candidates are sorted by, the best first."""
    if loop.for_accuracy:
        return False, -float(row["gain"]) / max(1.0, row["cost"]) ** 0.5
    return not row["foreseen"], row["share"]


def left_for_later(costs: Mapping[str, float]) -> set[str]:
    """Returns the techniques that wait until cheaper ones are adopted or dropped.

    Args:
      costs: by technique, the most worthwhile first: how many times as long a training takes.

    Example:
      >>> left_for_later({"batch_norm": 1.1, "wider": 3.0})
      {'wider'}
      >>> left_for_later({"convolutional": 5.0, "batch_norm": 1.1})
      set()
      >>> left_for_later({"wider": 3.0, "deeper": 2.0})
      set()
    """
    names = list(costs)
    first = next((place for place, name in enumerate(names) if costs[name] <= DEAR), len(names))
    return {name for name in names[first:] if costs[name] > DEAR}


def first_rung(loop: Loop) -> int:
    """Returns the seeds that every candidate is tried with, decided once and written down."""
    if loop.first_rung is None:
        trainer = loop.trainer
        each = trainer.seconds["training"] / max(1, trainer.trained)
        cheap = MOST_SEEDS * each < trainer.seconds["compiling"]
        loop.first_rung = MOST_SEEDS if cheap else loop.pacing.first
        loop.note()
    return loop.first_rung


def _diagnosed(loop: Loop) -> list[dict[str, Any]]:
    """The findings on a run of the current config, or the ones before if time is short."""
    from jdlopt.evidence.diagnose import diagnose

    place = loop.workdir / RUNS / key_of(loop.current.config)
    try:
        there = json.loads((place / "diagnosis.json").read_text(encoding="utf-8"))
        return list(there["findings"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if loop.diagnosis_seconds > DIAGNOSIS_SHARE * loop.left:
        return loop.findings
    started = time.perf_counter()
    quiet = {"train.evaluate_test": False, "train.loggers": ()}
    config = side_of(loop.current.raw, quiet).config
    ended = loop.trainer.runs({place: config})[place]
    if ended["status"] not in (*ENDED_WELL, "diverged"):
        return []
    try:
        known = configs.code_in(config)
        return list(diagnose(place, allow_code=known)["findings"])
    except UserError:
        return []  # a run that can't be looked at has no findings; the catalogue's order is left
    finally:
        loop.diagnosis_seconds = time.perf_counter() - started
