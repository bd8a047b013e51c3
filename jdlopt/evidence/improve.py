"""``improve``: a loop that makes a config better by itself, and keeps what survives a fair test.

Better is a better metric; or a smaller or faster model, as far as its loss stays within a margin.

Train the config, diagnose it, try the techniques that the findings and the catalogue suggest by
successive halving over paired seeds, confirm the best on seeds that did not choose it, tune what
goes with it, and again; at the end, confirm the whole on fresh seeds and, once, on the test split.

Every training is kept on disk, and after each step and each round what is known is written down.
So a loop that was killed goes on with the next round, or plays the one that it was in again, which
costs no training up to where it stood.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.errors import UserError, WorkdirError
from jdlopt.evidence import search_rounds
from jdlopt.evidence.final_test import finish
from jdlopt.evidence.options import ImprovementOptions
from jdlopt.evidence.pacing import (
    FIRST_SEEDS,
    LEAST_TEST,
    Pacing,
    can_be_shortened,
    pacing_of,
)
from jdlopt.evidence.records import RUNS, claim, is_of_other_data, keep_data, save
from jdlopt.evidence.sides import Side, measuring, metric_of, side_of
from jdlopt.evidence.state import (
    BUDGET_ENDED,
    CONFIRM_SEEDS,
    IMPROVEMENT,
    LAST_PLACE,
    RESERVE,
    Loop,
    retune,
    words_of,
)
from jdlopt.evidence.trainer import Trainer, key_of
from jdlopt.evidence.within import check_within, read_within
from jdlopt.study import schema
from jdlopt.train import start

GOAL_REACHED = "the goal"
"""How it is said that a loop ended which goes on once it is given another goal."""
SMALL_VALIDATION, FOLDS = 1000, 5
"""With fewer validation examples, seeds go through so many folds instead: a choice among many
techniques would otherwise fit the few examples that it is made on."""


def improve(
    config: Mapping[str, object],
    workdir: str | Path,
    options: ImprovementOptions | None = None,
    *,
    file: str | Path | None = None,
    allow_code: bool = False,
    on_progress: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Improves a config until a goal or a budget is reached, or until nothing survives.

    Args:
      config: the baseline, as `jdlopt.config.load` gives it.
      workdir: where everything is kept; the same call goes on there. A loop that ended with its
        budget goes on with a larger one, one that reached its goal with a further one.
      options: how.
      file: the baseline's file, ``FILE[:ARG]``, which the improved one is written after.
      allow_code: go on from steps of an earlier call that name code which neither ``config`` nor
        ``options.techniques`` does.
      on_progress: called with a line for people when something is known anew.
      should_stop: True interrupts, to be gone on with.

    Returns:
      The content of ``improve.json``. ``improved.py`` lies beside it.

    Raises:
      ConfigError, DataError, UserError: the input is wrong; nothing was trained.
      WorkdirError: the directory is another's, or of other data, or can't be written.
      Interrupted: ``should_stop()`` said so.
    """
    options, workdir, started = options or ImprovementOptions(), Path(workdir), time.perf_counter()
    options.check()
    original = side_of(config)
    goal = options.goal()
    asked = options.metric or (goal[0] if goal else None)
    flag = "--metric" if options.metric or not goal else "--until"
    # what only has to stay is what people look at, not what tells checkpoints apart
    watched = _watched(original) if options.within is None else None
    metric = metric_of(original, asked or watched, flag)
    what = {"base": key_of(original.config), "seed": original.config.seed, "metric": metric}
    if options.within is not None:
        check_within(read_within(options.within), metric)
        what |= {"aim": options.aim, "within": options.within}
    base = _with_folds(measuring(original, metric))
    claim(workdir, IMPROVEMENT, what)
    before = _before(workdir)
    known = configs.code_in(original.config)
    known |= configs.code_in({"techniques": options.techniques})
    configs.refuse_code(
        {"steps": before.get("steps"), "tried": before.get("tried")},
        workdir / IMPROVEMENT,
        allow_code or known,
    )
    start.say([base.experiment])
    changed_data = is_of_other_data(workdir, base.dataset, options.changed_data)
    if before.get("status") == "done" and not _goes_on(before, options):
        return before
    earlier = float(before.get("seconds", 0.0))
    same = before.get("budget") == options.budget
    pacing = Pacing.read(before.get("pacing")) if same else None
    with Trainer(
        workdir,
        workers=options.workers,
        workers_on=options.workers_on,
        should_stop=should_stop,
    ) as trainer:
        writing.refuse_links(workdir, RUNS)
        keep_data(workdir, base.dataset, changed_data)
        trainer.deadline = started + options.budget * (1 - RESERVE) - earlier
        loop = Loop(
            base=base,
            current=base,
            trainer=trainer,
            options=options,
            metric=metric,
            workdir=workdir,
            started=started,
            earlier=earlier,
            deadline=trainer.deadline,
            plans={int(number): count for number, count in before.get("plans", {}).items()},
            first_rung=before.get("first_rung"),
            costs=dict(before.get("costs", {})),
            margin=float(before.get("margin") or 0.0),
            pacing=pacing or Pacing(options.confirm, options.test_seeds),
            on_progress=on_progress,
        )
        try:
            why = _climb(loop, loop.restore(before), paced=pacing is not None)
        finally:
            loop.note()
        trainer.deadline = None
        record = finish(loop, original, file, why)
        save(workdir / IMPROVEMENT, record)
    return record


def _goes_on(before: Mapping[str, Any], options: ImprovementOptions) -> bool:
    """Says whether a loop that ended goes on: with more time, another goal, what was left out."""
    why, goal = before.get("why"), options.goal()
    if before.get("did_not_fit"):
        return True
    if why == BUDGET_ENDED:
        return options.budget > float(before.get("budget") or before.get("seconds", 0.0))
    if not str(why).startswith(GOAL_REACHED):
        return False
    value = before.get("value")
    return goal is None or (value is not None and not goal[1](value))


def _watched(side: Side) -> str | None:
    """What the config says that a run is judged by; None leaves it to the task."""
    monitor = side.config.train.monitor
    return monitor if monitor and monitor.startswith("validation/") else None


def _before(workdir: Path) -> dict[str, Any]:
    """What an earlier call wrote down; a damaged record is none, since trainings are kept apart."""
    try:
        found = schema.read_object(workdir / IMPROVEMENT)
        for name in ("seconds", "budget", "value", "first_rung", "margin"):
            float(found.get(name) or 0.0)
        for number, count in found.get("plans", {}).items():
            int(number), int(count)
        for row in found.get("costs", {}).values():
            int(row["bytes"]), [float(one["against"]) for one in row["ms"].values()]
        if found.get("status") == "done":  # it may be all that is asked for
            for step in found["steps"]:
                words_of(step)
            _ = found["why"], found["metric"], found["file"], found["tried"], found["test"]
            _ = found["aim"], found["within"], found["margin"], found["cost"]
    except (WorkdirError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
        return {}
    return found


def _with_folds(side: Side) -> Side:
    """The config as it is trained for choosing: with folds where the validation split is small."""
    data = side.config.data
    small = side.dataset.sizes["validation"] < SMALL_VALIDATION
    if not small or data.folds or data.time:
        return side
    try:
        return side_of(side.raw, {"data.folds": FOLDS, "data.fold": 0})
    except UserError:
        return side  # its source has a validation split of its own, or too few examples


def _climb(loop: Loop, number: int, paced: bool) -> str:
    """Plays rounds, from the one after ``number``; returns why it ended."""
    _measure(loop, paced)
    retuned = False
    while True:
        if loop.tried and not loop.tried[-1]["tuned"]:
            retune(loop, number)
            loop.tried[-1]["tuned"] = True
        goal = loop.options.goal()
        if goal is not None and loop.value is not None and goal[1](loop.value):
            return f"{GOAL_REACHED} {loop.options.until} was reached"
        if loop.left <= 0:
            return BUDGET_ENDED
        number += 1
        loop.note()
        if search_rounds.play(loop, number):
            retuned = False
        elif loop.left <= 0:
            return BUDGET_ENDED
        elif search_rounds.left_to_try(loop):
            continue  # there was no time to try them all at once
        elif not retuned and retune(loop, number, LAST_PLACE):
            retuned = True  # what was dropped may help at the new values
            loop.dropped.clear()
        elif loop.too_dear:
            return BUDGET_ENDED
        else:
            return "no technique that is left survives a fair test"


def _measure(loop: Loop, paced: bool) -> None:
    """Trains what has been reached on the confirmation's first seeds: what the goal is asked of.

    A training of it says how far techniques can be taken, if that is not known from an earlier
    call, and, beside what compiling takes, how many seeds a candidate is tried with. What it comes
    to says how much may be lost. A loop that has adopted something knows all but that.
    """
    loop.take_pace(loop.trainer.known(loop.current.config))
    if not loop.training_seconds:
        loop.train([(loop.current.config, loop.seeds(CONFIRM_SEEDS, LEAST_TEST))])
    if not paced:
        loop.pacing = _paced(loop)
    if not loop.steps or not loop.for_accuracy:
        seeds = loop.seeds(CONFIRM_SEEDS, loop.pacing.confirm)
        found = loop.train([(loop.against.config, seeds)])[key_of(loop.against.config)]
        mean = loop.mean(found)
        if loop.options.within is not None and mean is not None:
            loop.margin = read_within(loop.options.within).margin(mean)
        if not loop.steps:
            loop.value = mean
            if mean is not None:
                loop.say(f"the baseline: {loop.metric} {mean:.4f}")
    search_rounds.first_rung(loop)
    loop.note()


def _paced(loop: Loop) -> Pacing:
    train = loop.base.config.train
    examples = loop.base.dataset.sizes["train"]
    whole = train.steps and train.steps * loop.base.config.data.batch_size / examples
    most = loop.pacing
    # what a whole training loses can't be read off a shorter one
    shorter = loop.for_accuracy and can_be_shortened(loop.base)
    found = pacing_of(
        loop.training_seconds,
        loop.left,
        most,
        candidates=1 + search_rounds.FINALISTS,
        epochs=float(whole or train.epochs or 0) if shorter else 0.0,
        first=1 if loop.for_accuracy else FIRST_SEEDS,
    )
    told = []
    if (found.confirm, found.test_seeds) != (most.confirm, most.test_seeds):
        told.append(f"{found.confirm} seeds a confirmation and {found.test_seeds} of the test")
    if found.first < FIRST_SEEDS:
        told.append(f"{found.first} seed for a first look at a technique")
    if found.shorter > 1:
        told.append(f"trainings that choose are {found.shorter} times shorter")
    if told:
        loop.say(
            f"a training takes {loop.training_seconds:.1f} s, long for this --budget: "
            + "; ".join(told)
        )
    return found
