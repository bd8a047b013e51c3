"""The progress of a study: what a display shows, and ``study.json`` while it runs."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.errors import WorkdirError
from jdlopt.executor.messages import PopulationTrained, TrainPopulation
from jdlopt.executor.task import Task
from jdlopt.study import database, records, schema
from jdlopt.study import space as spaces
from jdlopt.study.enqueue import SAMPLER
from jdlopt.study.resuming import BASE_CONFIG, LIMIT, STORED
from jdlopt.study.scheduling import Scheduler
from jdlopt.study.setup import BEST, STUDY, Setup, StudyProgress
from jdlopt.train import disk


class Progress:
    """What is known of a study so far, shown and written down.

    Args:
      scheduler: whose trials these are.
      started: when the call began, a moment of `time.perf_counter`.
      on_progress: called when something is known anew.
      data: what the trials were trained on, as `jdlopt.study.known_data.keep` returned it.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        started: float,
        on_progress: Callable[[StudyProgress], None] | None = None,
        data: Sequence[Mapping[str, object]] = (),
    ):
        self.data = data
        self.setup, self.trials = scheduler.setup, scheduler.trials
        self.executor, self.started, self.on_progress = scheduler.executor, started, on_progress
        self.structures: dict[str, dict[str, Any]] = {}
        self.found = len(self.trials.finished)
        self.best_shown: float | None = None

    @property
    def running(self) -> set[int]:
        """The trials that are in the workers' hands."""
        return {number for task in self.executor.running for number in trials_of(task)}

    def report(self) -> None:
        """Calls ``on_progress`` with what is known now."""
        if self.on_progress is None:
            return
        finished = self.trials.finished
        states = [record.get("state") for record in finished.values()]
        rows = [{"number": n, **record} for n, record in finished.items() if record.get("values")]
        order = records.best(rows, self.setup.objectives)
        best = (order[0], finished[order[0]]["values"][0]) if order else None
        improved = best is not None and best[1] != self.best_shown  # a tie is no improvement
        self.best_shown = best[1] if best else None
        counts = {state: states.count(state) for state in records.STATES}
        self.on_progress(
            StudyProgress(
                counts["done"],
                len(self.running),
                counts["pruned"],
                counts["infeasible"],
                len(self.trials.left_out),
                self.setup.options.trials,
                best,
                improved,
                self._seconds_left(),
            )
        )

    def _seconds_left(self) -> float | None:
        now, left, asked = time.perf_counter(), None, self.setup.options.trials
        done = len(self.trials.finished) - self.found
        if asked and done > 0:
            left = (now - self.started) / done * max(0, asked - len(self.trials.finished))
        if self.executor.deadline is not None:
            until = max(0.0, self.executor.deadline - now)
            left = until if left is None else min(left, until)
        return left

    def note_structure(self, task: Task, result: PopulationTrained) -> None:
        """Notes how trials of a structure were computed, and what that cost."""
        if result.execution_mode is None:
            return
        assert isinstance(task.request, TrainPopulation)
        known = self.structures.setdefault(
            result.fingerprint,
            {
                "execution_mode": result.execution_mode,
                "chosen": result.chosen,
                "seconds": {},
                "devices": result.devices,
                "width": task.request.width,
                "compile_seconds": 0.0,
                "n_params": result.n_params,
                "trial_seconds": 0.0,
            },
        )
        known["compile_seconds"] = max(known["compile_seconds"], result.compile_seconds)
        known["trial_seconds"] = result.train_seconds / max(1, len(trials_of(task)))
        if result.chosen == "measured":
            known |= {
                "execution_mode": result.execution_mode,
                "chosen": "measured",
                "seconds": result.mode_seconds,
            }

    # --- study.json -------------------------------------------------------------------------------

    def write(self, status: str, why: str | None = None) -> dict[str, Any]:
        """Writes ``study.json`` and ``best_config.json``; returns what the first one holds.

        Args:
          status: ``running``, ``interrupted`` or ``done``.
          why: it ended before all trials were trained.
        """
        self.trials.see_others()
        setup, running = self.setup, self.running
        rows: list[dict[str, Any]] = []
        queue = self.trials.queue
        origins = queue.origins()
        left_out = self.trials.left_out
        for number in sorted(self.trials.points):
            known = self.trials.finished.get(number)
            if known is None and number in left_out:
                known = records.left_out(left_out[number])
            if known is None and (status != "running" or number not in running):
                continue  # it waits, or trains elsewhere
            known = known or {"state": "running", "values": None}
            origin = origins.get(number, SAMPLER)
            params = self.trials.points[number]
            rows.append({"number": number, "origin": origin, "params": params, **known})
        order = records.best(rows, setup.objectives)
        record = {
            "status": status,
            **setup.options.definition(),
            "objectives": setup.objectives,
            "config": setup.resolved,
            BASE_CONFIG: None if setup.references else setup.config,
            LIMIT: setup.limit,
            STORED: _place_of(setup),
            "space": spaces.to_json(setup.space),
            "data": setup.data,
            "data_changes": list(self.data[1:]),
            "trials": rows,
            "enqueued": queue.record({row["number"] for row in rows}),
            "best": order[0] if order else None,
            "pareto": records.pareto(rows, setup.objectives),
            "structures": {**self.before().get("structures", {}), **self.structures},
            "time": self.times(),
            "ended": why,
            "readings": [],
            "versions": setup.versions,
            "devices": setup.devices,
        }
        if order:
            best = setup.config_of(self.trials.points[order[0]])
            _write(setup.workdir / BEST, configs.dumps(best))
        self.save(record)
        return record

    def before(self) -> dict[str, Any]:
        """Returns what ``study.json`` holds: of a structure, an earlier call may know more.

        What is not as it was written counts as nothing: the storage has all that matters.
        """
        try:
            return schema.read_study(self.setup.workdir)
        except WorkdirError:
            return {}

    def times(self) -> dict[str, Any]:
        """Returns where the call's time went."""
        wall, spent = time.perf_counter() - self.started, self.executor.spent
        count = self.executor.count
        return {
            "wall_seconds": wall,
            "training_seconds": spent.training,
            "compile_seconds": spent.compiling,
            "outside_share": max(0.0, 1.0 - (spent.training + spent.compiling) / (wall * count)),
            "workers": count,
        }

    def save(self, record: Mapping[str, object]) -> None:
        """Writes ``study.json``."""
        text = json.dumps(disk.as_json(record), indent=1) + "\n"
        _write(self.setup.workdir / STUDY, text)


def _place_of(setup: Setup) -> list[str | None] | None:
    """Where the storage is, if not in the directory: without a password, and the study's name."""
    options = setup.options
    if options.storage is None:
        return None
    journal, _, file = options.storage.partition("journal:")
    place = f"journal:{Path(file).absolute()}" if file and not journal else options.storage
    return [database.shown(place, place), options.study_name]


def trials_of(task: Task) -> list[int]:
    """Returns the numbers of a population's trials."""
    if not isinstance(task.request, TrainPopulation):
        return []
    return list(dict.fromkeys(trial.number for trial in task.request.trials))


def _write(path: Path, text: str) -> None:
    """Writes a file of the study's directory; several coordinators may do so at once."""
    try:
        writing.write_aside(path, text, f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {disk.reason(path, error)}.") from error
