"""Which trials are trained next: drawn anew, taken over, cut into populations, told the sampler."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from jdlopt import config as configs
from jdlopt.study import records
from jdlopt.study import space as spaces
from jdlopt.study.samplers import HISTORY_FREE
from jdlopt.study.search import POPULATIONS, Generation, Search, Task, is_late, limit
from jdlopt.study.storage import GENERATION, RECORD

AHEAD = 2
"""Generations that may be in the workers' hands: while one ends, the next already trains."""
LEAST_DRAWN = 64
"""Points drawn together where results don't matter: their structures can be sorted."""
FOREIGN = "another program ended it"
"""Why a trial that is not jdlopt's own has no value."""


def more(search: Search) -> int:
    """Returns how many trials may be drawn now."""
    if search.ended or is_late(search):
        return 0
    most = limit(search)
    return 10**9 if most is None else max(0, most - len(search.points))


def advance(search: Search) -> None:
    """Draws ahead, and tells the sampler of whole generations, in order: so seeds reproduce."""
    while True:
        if search.drawn < search.told + AHEAD and more(search):
            _draw(search)
            continue
        whole = search.generations.get(search.told)
        if whole is None or len(whole.records) < len(whole.trials):
            return
        for number in sorted(whole.records):
            _tell(search, number, whole.records[number])
        search.told += 1


def _tell(search: Search, number: int, record: Mapping[str, Any]) -> None:
    if search.options.sampler not in HISTORY_FREE:
        search.mirror.tell(number, record)


def _draw(search: Search) -> None:
    """Draws a generation and queues its populations."""
    if not search.book.alone():
        see_others(search)
    count = min(more(search), _generation_size(search))
    most, generation = limit(search), search.drawn
    numbers = []
    for _ in range(count):
        if search.grid is None:
            params, drawn = search.mirror.draw()
            number = search.book.add(drawn, generation)
            search.mirror.name(number)
        else:
            number = search.book.reserve(generation)
        if most is not None and number >= most:
            search.book.release(number)  # others drew the last ones at the same moment
            break
        if search.grid is not None:
            params = search.grid[number]
        search.points[number] = params
        numbers.append(number)
    search.drawn += 1
    search.generations[generation] = Generation(set(numbers))
    enqueue(search, numbers, generation)


def _generation_size(search: Search) -> int:
    size = _trials_per_task(search) * len(search.workers.all)
    structural = any(key not in search.traced for key in search.space)
    if structural and search.options.sampler in HISTORY_FREE:
        return max(LEAST_DRAWN, 4 * size)
    return max(1, size)


def _trials_per_task(search: Search) -> int:
    members = search.options.repeats * (search.options.folds or 1)
    return max(1, _width(search) // members)


def _width(search: Search) -> int:
    if search.options.width:
        return search.options.width
    if search.facts["platform"] != "cpu":
        return 32
    return 18 if search.options.halving else 8


# --- populations ----------------------------------------------------------------------------------


def enqueue(search: Search, numbers: Sequence[int], generation: int) -> None:
    """Cuts trials of a generation into populations and queues them.

    Those that trained together when a coordinator was interrupted train together again, so that
    they go on from their checkpoint.
    """
    left = sorted(numbers)
    if search.grid is not None:
        for number in left:
            search.book.set_params(number, search.space, search.points[number])
    for together in _interrupted(search.workdir):
        if together and set(together) <= set(left):
            groups = {_group(search, number) for number in together}
            if len(groups) == 1:
                search.queue.append(_task(search, groups.pop(), generation, together))
                left = [number for number in left if number not in together]
    groups_: dict[str, list[int]] = {}
    for number in left:
        groups_.setdefault(_group(search, number), []).append(number)
    per_task, workers = _trials_per_task(search), max(1, len(search.workers.all))
    for group, some in groups_.items():
        # the last of a study are shared evenly, so that no worker waits for another
        size = min(per_task, max(1, -(-len(some) // workers)))
        for first in range(0, len(some), size):
            search.queue.append(_task(search, group, generation, some[first : first + size]))


def _group(search: Search, number: int) -> str:
    return json.dumps(_structural(search, number), sort_keys=True)


def _structural(search: Search, number: int) -> dict[str, Any]:
    return {k: v for k, v in search.points[number].items() if k not in search.traced}


def _interrupted(workdir: Path) -> list[list[int]]:
    """Returns the trials of every population that left a checkpoint."""
    found = []
    for folder in sorted((workdir / POPULATIONS).glob("*")):
        trials: dict[int, None] = {}
        for meta in folder.glob("*/step-*/meta.json"):
            try:
                members = json.loads(meta.read_text(encoding="utf-8"))["members"]
                trials |= dict.fromkeys(int(member["trial"]) for member in members)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # what can't be read is trained anew
        if trials and folder.name == _folder(list(trials)):
            found.append(list(trials))
    return found


def _folder(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:06d}"


def _task(search: Search, group: str, generation: int, numbers: list[int]) -> Task:
    options, seed = search.options, search.facts["seed"]
    folds = list(range(options.folds)) if options.folds else None
    members = [
        {
            "trial": number,
            "seed": seed + repeat,
            "fold": fold,
            "params": {k: v for k, v in search.points[number].items() if k in search.traced},
        }
        for number in numbers
        for repeat in range(options.repeats)
        for fold in (folds or (None,))
    ]
    config = configs.to_dict(configs.override(search.config, _structural(search, numbers[0])))
    search.tasks += 1
    order = {
        "do": "train", "task": search.tasks, "config": config, "folds": folds, "members": members,
        "width": max(_width(search), len(members)),
        "halving": options.halving, "reduction": options.reduction,
        "directory": str((search.workdir / POPULATIONS / _folder(numbers)).absolute()),
    }  # fmt: skip
    return Task(search.tasks, group, generation, order, numbers)


# --- the trials of earlier calls and of other coordinators ----------------------------------------


def take_over(search: Search) -> None:
    """Goes on with what the storage holds when the coordinator starts."""
    alone = search.book.alone()
    search.book.claim(limit(search))
    trials = search.book.trials()
    drawn: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        generation = trial.user_attrs.get(GENERATION)
        if alone and isinstance(generation, int):
            drawn.setdefault(generation, []).append(trial)
    # generations follow each other; where several coordinators drew, their numbers say nothing
    if sum(map(len, drawn.values())) < len(trials) or search.book.slot:
        drawn = {}
    search.told = next(
        (g for g, some in sorted(drawn.items()) if not all(t.state.is_finished() for t in some)),
        max(drawn, default=-1) + 1,
    )
    search.drawn = max(drawn, default=-1) + 1
    for trial in trials:
        _copy(search, trial, known=trial.user_attrs.get(GENERATION, 0) < search.told or not drawn)
    for generation, some in sorted(drawn.items()):
        if generation >= search.told:
            mine = [trial.number for trial in some if trial.number in search.points]
            records = {n: search.finished[n] for n in mine if n in search.finished}
            search.generations[generation] = Generation(set(mine), records)
            enqueue(search, [n for n in mine if n not in records], generation)
    if not drawn:
        _enqueue_own(search)


def _copy(search: Search, trial: FrozenTrial, known: bool = True) -> None:
    """Takes a trial of the storage in; the sampler is told what it came to if that is ``known``."""
    number, record, most = trial.number, None, limit(search)
    if trial.state.is_finished():
        record = search.finished[number] = _record(trial)
    if search.grid is None:
        search.mirror.add(trial, record if known else None)
    within = search.book.is_ours(trial) and (most is None or number < most)
    if record is not None or within:
        search.points[number] = _params(search, trial)


def _record(trial: FrozenTrial) -> dict[str, Any]:
    return trial.user_attrs.get(RECORD) or records.infeasible(FOREIGN)


def _params(search: Search, trial: FrozenTrial) -> dict[str, Any]:
    """Returns the values that a storage's labels stand for."""
    if search.grid is not None and trial.number < len(search.grid):
        return search.grid[trial.number]
    return {
        key: spaces.value_of(search.space[key], held)
        for key, held in trial.params.items()
        if key in search.space
    }


def see_others(search: Search) -> None:
    """Takes in what other coordinators have drawn and finished since."""
    for trial in search.book.trials():
        number, ended = trial.number, trial.state.is_finished()
        if search.book.is_mine(trial) or number in search.finished:
            continue
        if ended or number not in search.points:
            if number not in search.mirror.numbers:
                _copy(search, trial)
            elif ended:
                search.points[number] = _params(search, trial)
                search.finished[number] = _record(trial)
                _tell(search, number, search.finished[number])


def adopt(search: Search) -> None:
    """Takes over the trials that nobody works on any more."""
    see_others(search)
    if search.ended or is_late(search):
        return
    if search.book.claim(limit(search)):
        see_others(search)
        _enqueue_own(search)


def _enqueue_own(search: Search) -> None:
    """Queues the trials that this coordinator has claimed, as a generation of their own."""
    known = {number for one in search.generations.values() for number in one.trials}
    numbers = []
    for trial in search.book.trials():
        if search.book.is_mine(trial) and trial.number not in {*known, *search.finished}:
            if trial.number not in search.mirror.numbers:
                _copy(search, trial)
            search.points[trial.number] = _params(search, trial)
            numbers.append(trial.number)
    if numbers:
        search.generations[search.drawn] = Generation(set(numbers))
        enqueue(search, numbers, search.drawn)
        search.drawn += 1


def others_work(search: Search) -> bool:
    """Says whether trials of the study are unfinished that this coordinator does not hold."""
    if search.ended:
        return False
    see_others(search)
    most = limit(search)
    return any(
        search.book.is_ours(trial) and (most is None or trial.number < most)
        for trial in search.book.trials()
        if not trial.state.is_finished()
    )
