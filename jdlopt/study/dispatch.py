"""Populations to workers and back: which worker trains what, and what came of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from jdlopt.errors import UserError
from jdlopt.study import records
from jdlopt.study.samplers import HISTORY_FREE
from jdlopt.study.search import Search, Task, keep, release
from jdlopt.study.telling import report
from jdlopt.study.workers import Worker, programs_are_kept

ATTEMPTS = 3
"""How often a task is tried, if its worker dies."""
DEATHS = 6
"""How many workers may die in a row, none of them having done anything."""
WORTH_TIMING = 20.0
"""Formulations are timed where a structure's work is so many times what compiling one took."""


def hand_out(search: Search) -> None:
    """Gives every idle worker a population, if there is one for it."""
    before = len(search.queue)
    for worker in search.workers.all.values():
        if worker.task is not None or not search.queue or search.ended:
            continue
        any_order = search.options.sampler in HISTORY_FREE
        task = pick(search.queue, search.workers.all, worker, any_order)
        if task is None:
            continue
        search.queue.remove(task)
        task.attempts += 1
        waiting = sum(len(t.trials) for t in search.queue if t.group == task.group)
        known = search.options.formulation or search.formulations.get(task.group)
        worker.task = task
        assert worker.groups is not None
        if task.group not in worker.groups:
            worker.compiling = task.group
            worker.groups.add(task.group)
        worker.tell({
            **task.order,
            "formulation": known,
            "calibrate": known is None and _worth_timing(search, task.group, waiting),
            "history": search.reached.get(task.group, {}),
        })  # fmt: skip
    if len(search.queue) < before:
        report(search)


def pick(
    queue: Sequence[Task], workers: Mapping[int, Worker], worker: Worker, any_order: bool
) -> Task | None:
    """Returns the next task: in order, but of a structure that the worker has compiled if it can.

    While another worker compiles a structure, with all cores, this one waits to load what that
    keeps; or takes up another structure.

    Args:
      queue: what waits; at least one.
      workers: all of them, by their number.
      worker: the one that is idle.
      any_order: whether a task may be taken before one of an earlier generation.
    """
    others = [one for one in workers.values() if one is not worker]
    own = worker.groups or set()
    compiling = {one.compiling for one in others} if programs_are_kept() else set()
    oldest = min(task.generation for task in queue)
    open_ = [
        task
        for task in queue
        if (task.generation == oldest or any_order)
        and (task.group in own or task.group not in compiling)
    ]
    known = [task for task in open_ if task.group in own]
    taken = set().union(*(one.groups or set() for one in others))
    fresh = [task for task in open_ if task.group not in taken]
    return next(iter(known or fresh or open_), None)


def _worth_timing(search: Search, group: str, waiting: int) -> bool:
    known = next((one for one in search.structures.values() if one["group"] == group), None)
    if known is None or not known["compile_seconds"]:
        return False
    return waiting * known["trial_seconds"] > WORTH_TIMING * known["compile_seconds"]


# --- hearing --------------------------------------------------------------------------------------


def hear(search: Search, index: int, message: Mapping[str, Any]) -> None:
    """Takes in one message of a worker."""
    worker = search.workers.all.get(index)
    if worker is None:
        return
    event = message["event"]
    if event == "ended":
        _lost(search, worker, message["code"])
    elif event == "ready" or message.get("task") is None:
        return  # or another worker's answer to the check
    elif event == "progress":
        worker.compiling = None  # other workers can load its programs now
        search.deaths = 0
    elif event in ("failed", "done"):
        task, worker.task, worker.compiling = worker.task, None, None
        search.deaths = 0
        if search.options.halving is None and search.options.until is None:
            # writing down what came takes a while: the worker trains on meanwhile. Where what came
            # may decide what is trained next, it waits.
            hand_out(search)
        if event == "done":
            _took(search, task, message)
        elif message["kind"] == "user":
            _infeasible(search, task, message["message"])
        else:
            raise RuntimeError(message["traceback"])


def _lost(search: Search, worker: Worker, code: int) -> None:
    """A worker died: its task is given to another, a few times."""
    task = worker.task
    del search.workers.all[worker.index]
    search.deaths += 1
    if search.deaths > DEATHS:
        raise UserError(
            f"{search.deaths} workers in a row ended with code {code} before they had trained "
            "anything. Is memory short? Try fewer --workers. What was finished is kept."
        )
    if not search.ended:
        search.workers.start()
    if task is None:
        return
    if search.ended:
        if not search.interrupted:
            release(search, task.trials)
    elif task.attempts < ATTEMPTS:
        search.queue.insert(0, task)
    else:
        _infeasible(search, task, f"its worker died {ATTEMPTS} times (out of memory?)")


def _infeasible(search: Search, task: Task, reason: str) -> None:
    for number in task.trials:
        keep(search, task, number, records.infeasible(reason))
    shutil.rmtree(task.order["directory"], ignore_errors=True)
    report(search)


def _took(search: Search, task: Task, message: Mapping[str, Any]) -> None:
    """Keeps what a population came to."""
    search.spent.training += message["train_seconds"]
    search.spent.compiling += message["compile_seconds"]
    _note_structure(search, task, message)
    unfinished = {m["trial"] for m in message["members"] if m["status"] == "running"}
    if search.interrupted:
        kept = [number for number in task.trials if number not in unfinished]
    else:
        begun = {member["trial"] for member in message["members"] if member["steps"]}
        kept = [n for n in task.trials if n not in unfinished or n in begun]
        release(search, [number for number in task.trials if number not in kept])
    members = [member for member in message["members"] if member["trial"] in kept]
    records.add_curves(search.workdir, records.rows_of(members))
    for number in kept:
        own = [one for one in members if one["trial"] == number]
        record = records.of_trial(own, message, search.objectives, search.facts["monitor"])
        if number in unfinished:
            record["reason"] = search.end_reason
        keep(search, task, number, record)
    for step, values in message.get("reached", {}).items():
        search.reached.setdefault(task.group, {}).setdefault(step, []).extend(values)
    if not search.interrupted:
        shutil.rmtree(task.order["directory"], ignore_errors=True)
    check_goal(search)
    report(search)


def _note_structure(search: Search, task: Task, message: Mapping[str, Any]) -> None:
    if "formulation" not in message:
        return
    known = search.structures.setdefault(
        message["fingerprint"],
        {
            "group": task.group,
            "formulation": message["formulation"],
            "chosen": message["chosen"],
            "seconds": {},
            "width": task.order["width"],
            "compile_seconds": 0.0,
            "n_params": message["n_params"],
            "trial_seconds": 0.0,
        },
    )
    known["compile_seconds"] = max(known["compile_seconds"], message["compile_seconds"])
    known["trial_seconds"] = message["train_seconds"] / max(1, len(task.trials))
    if message["chosen"] == "measured":
        known |= {
            "formulation": message["formulation"],
            "chosen": "measured",
            "seconds": message["step_seconds_measured"],
        }
        search.formulations[task.group] = message["formulation"]


# --- the end --------------------------------------------------------------------------------------


def check_goal(search: Search) -> None:
    """Ends the search if a trial has reached its goal."""
    goal = search.options.goal()
    if goal is None or search.ended:
        return
    name, reached = goal
    for record in search.finished.values():
        value = record.get("metrics", {}).get(name)
        if record.get("state") == "done" and value is not None and reached(value):
            end(search, f"the goal {search.options.until} was reached")
            return


def end(search: Search, reason: str) -> None:
    """Ends the search: what trains stops at its next evaluation, what waits is given back."""
    search.ended, search.end_reason = True, reason
    _give_back(search, search.queue)
    search.workers.stop()


def _give_back(search: Search, tasks: Sequence[Task]) -> None:
    for task in tasks:
        release(search, task.trials)
    search.queue.clear()


def interrupt(search: Search) -> None:
    """Ends the search as `end` does, but what trains is saved, to be gone on with."""
    search.interrupted = True
    end(search, "interrupted")
