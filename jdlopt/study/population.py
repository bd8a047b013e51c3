"""A population: trials of one structure, trained together by programs made from `train_step`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jdlopt.errors import DivergedError
from jdlopt.executor.messages import EXECUTION_MODES, RUNNING
from jdlopt.study import programs as made
from jdlopt.study.batches import Batches
from jdlopt.study.halving import RULES, History
from jdlopt.study.layout import TRIALS, WHOLE, Layout, default_devices
from jdlopt.study.structure import Structure, stacked
from jdlopt.study.trial import DIVERGED, DONE, EARLY, PRUNED, Trial
from jdlopt.train import checkpoint, weights_file
from jdlopt.train.compiling import Compiler
from jdlopt.train.facts import count_of
from jdlopt.train.program import CAPACITY
from jdlopt.train.state import TrainState
from jdlopt.train.steps import stored

DISPATCH_SECONDS = 1.0
"""About how long one dispatch may take: signals and progress wait for its end."""


@dataclass
class Cache:
    """Compiled programs of a worker, by structure, execution mode, width and devices.

    ``data`` are the examples of a structure on each of several devices.
    """

    compile: Compiler = field(default_factory=Compiler)
    programs: dict[object, made.Programs] = field(default_factory=dict)
    inits: dict[object, Callable[..., TrainState]] = field(default_factory=dict)
    data: dict[object, PyTree] = field(default_factory=dict)

    def forget(self) -> None:
        """Drops all programs, whose structures are dropped as well: keys are their identities."""
        self.programs.clear()
        self.inits.clear()
        self.data.clear()


class Population:
    """Trains trials of one structure to their end; the host's side of it.

    Args:
      structure: what they share.
      trials: those to train; at most ``width``.
      width: how many the programs are compiled for; more where the devices could not share so many
        evenly.
      execution_mode: see `jdlopt.study.programs`.
      cache: programs compiled before.
      halving: ``asha``, ``median`` or None, with what earlier trials reached: ``history``.
      rungs: the steps at which trials are compared.
      reduction: one in so many goes on at a rung, with ``asha``.
      directory: where checkpoints of the population go, or None.
      checkpoint_seconds: least time between two.
      devices: share the trials; all local accelerators by default, or one CPU device.
    """

    def __init__(
        self,
        structure: Structure,
        trials: Sequence[Trial],
        *,
        width: int,
        execution_mode: str,
        cache: Cache,
        halving: str | None = None,
        history: History | None = None,
        rungs: Sequence[int] = (),
        reduction: int = 3,
        directory: Path | None = None,
        checkpoint_seconds: float = 30.0,
        devices: Sequence[jax.Device] | None = None,
    ):
        assert structure.data is not None and len(trials) <= width
        self.layout = Layout(tuple(devices or default_devices()))
        self.structure, self.trials = structure, list(trials)
        self.width = self.layout.width(width)
        self.execution_mode, self.cache = execution_mode, cache
        self.halving, self.history, self.rungs = halving, dict(history or {}), set(rungs)
        self.reduction, self.directory = reduction, directory
        self.checkpoint_seconds = checkpoint_seconds
        self.reached: History = {}
        self.step_seconds: dict[str, float] = {}
        self.train_seconds, self.trained_steps = 0.0, 0
        self._prepare()

    # --- before the first step -------------------------------------------------------------------

    def _prepare(self) -> None:
        experiment, structure = self.structure.experiment, self.structure
        self.total, self.every = experiment.total_steps, experiment.eval_every
        self.capacity = min(CAPACITY, self.every, self.total)
        self.batches = Batches(structure, self.capacity)
        for trial in self.trials:
            trial.begin(structure.tracker(trial.fold, trial.params))
        # padding repeats the last trial: its results are not looked at
        self.rows = self.layout.deal(range(len(self.trials)), self.width)
        everyone = [self.trials[-1 if index is None else index] for index in self.rows]
        folds = [structure.folds[trial.fold] for trial in everyone]
        self.validation = np.stack([fold.validation for fold in folds])
        self.weights = np.stack([fold.weights for fold in folds])
        learnt = jax.tree.map(
            lambda *values: jnp.asarray(np.stack(values)),
            *[dict(fold.preprocess) for fold in folds],
        )
        known: dict[int, PyTree] = {}
        for trial in everyone:
            if trial.number not in known:
                known[trial.number] = structure.hyperparameters(trial.params)
        hparams = stacked([known[trial.number] for trial in everyone])
        seeds = np.array([trial.seed for trial in everyone], np.uint32)
        states = self._initial(seeds, hparams, self._starts(everyone)).replace(preprocess=learnt)
        self.states = self.layout.split(states)
        self.n_params = count_of(self.states.params) // self.width
        self.step = 0
        if self.directory is not None:
            self._resume()

    def _starts(self, everyone: Sequence[Trial]) -> PyTree:
        """The weights that each trial starts from, stacked; () where none has its own."""
        places = [trial.start for trial in everyone]
        if None in places:
            return ()
        known = {
            place: self.structure.experiment.loaded_from(place) for place in set(places) if place
        }
        trees = [(known[place].params, known[place].state) for place in places if place]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

    def _initial(self, seeds: np.ndarray, hparams: PyTree, starts: PyTree) -> TrainState:
        """Initialises every trial as `fit` does, one after the other in one program."""
        key = (id(self.structure), self.width, self.layout, bool(starts))
        experiment = self.structure.experiment
        found = None if starts else experiment.pretrained()
        loaded = None if found is None else (found.params, found.state)
        seeds, hparams, starts = self.layout.split((seeds, hparams, starts))
        loaded = self.layout.replicate(loaded)
        if key not in self.cache.inits:

            def init(seeds: Array, hparams: PyTree, starts: PyTree, loaded: PyTree) -> TrainState:
                def one(given: tuple[Array, PyTree, PyTree]) -> TrainState:
                    return experiment.init(given[0], given[1], given[2] or loaded)

                return jax.lax.map(one, (seeds, hparams, starts))

            program = jax.jit(self.layout.spread(init, TRIALS, TRIALS, TRIALS, WHOLE))
            lowered = program.lower(seeds, hparams, starts, loaded)
            self.cache.inits[key] = self.cache.compile(lowered, quickly=True)
        return self.cache.inits[key](seeds, hparams, starts, loaded)

    def _programs(self, execution_mode: str) -> made.Programs:
        key = (id(self.structure), execution_mode, self.width, self.layout)
        if key not in self.cache.programs:
            examples = self.batches.draw({}, self.width, 0, 0)
            self.cache.programs[key] = made.compile_programs(
                self.structure.experiment,
                execution_mode,
                self.layout,
                self.states,
                self._data(),
                examples,
                self.validation,
                self.weights,
                self.cache.compile,
            )
        return self.cache.programs[key]

    def _data(self) -> PyTree:
        """The examples of the structure, on every device."""
        key = (id(self.structure), self.layout)
        if key not in self.cache.data:
            assert self.structure.data is not None
            self.cache.data[key] = self.layout.replicate(stored(self.structure.data))
        return self.cache.data[key]

    def compile(self) -> None:
        """Compiles the programs of the chosen execution mode, if they were not compiled before."""
        self._programs(self.execution_mode)

    # --- training --------------------------------------------------------------------------------

    @property
    def active(self) -> list[int]:
        """The rows of the stacked states whose trials still train."""
        return [
            row
            for row, index in enumerate(self.rows)
            if index is not None and self.trials[index].status == RUNNING
        ]

    def _at(self, row: int) -> Trial:
        index = self.rows[row]
        assert index is not None  # nobody asks for padding
        return self.trials[index]

    def _compact(self) -> None:
        """Moves the survivors into a program of half the width, or a quarter, once they fit.

        Side by side, a row that nobody trains costs as much as one that somebody does; in turn it
        costs nothing, and the program stays. The devices share what is left evenly.
        """
        active, width, devices = self.active, self.width, len(self.layout.devices)
        if not active:
            return
        if self.execution_mode == "vmap":
            halved = self.layout.width(width // 2)
            while halved < width and halved >= len(active):
                width, halved = halved, self.layout.width(halved // 2)
        most = int(self.layout.turns(active, self.width)[1].max())
        if width == self.width and most <= -(-len(active) // devices):
            return
        taken = self.layout.deal(active, width)
        places = np.array([active[-1] if row is None else row for row in taken])
        self.states = self.layout.split(jax.tree.map(lambda leaf: leaf[places], self.states))
        self.validation, self.weights = self.validation[places], self.weights[places]
        self.rows = [None if row is None else self.rows[row] for row in taken]
        self.width = width

    def advance(self) -> None:
        """Trains all active trials to their next evaluation and looks at what came back."""
        programs = self._programs(self.execution_mode)
        end = self._end(self.step)
        started, evaluated = time.perf_counter(), False
        taken, active = 0, np.array(self.active, np.int32)
        while self.step < end and len(active):
            count = self._count(self.step, len(active))
            runs = self._runs(active)
            examples = self.batches.draw(runs, self.width, self.step, count)
            self.states, values = programs.advance(self.states, examples, count, active)
            following = self.step + count
            ahead = self._count(following, len(active))
            self.batches.draw_ahead(runs, self.width, following, ahead)  # while devices compute
            collected = None
            if following == end:
                collected = programs.evaluate(self.states, self.validation, self.weights, active)
            self._look(active, values, count, collected)
            self.step += count
            taken += count * len(active)
            evaluated = collected is not None
            active = np.array(self.active, np.int32)
        spent = time.perf_counter() - started
        self.train_seconds += spent
        self.trained_steps += taken
        if evaluated:
            self._stop_the_worse()
        for index in self.active:
            if self.step >= self.total:
                self._at(index).status = DONE

    def _end(self, step: int) -> int:
        """The next evaluation after a step."""
        return min((step // self.every + 1) * self.every, self.total)

    def _count(self, step: int, active: int) -> int:
        """How many steps a dispatch after a step makes: it never runs over an evaluation."""
        left, known = self._end(step) - step, self.step_seconds.get(self.execution_mode)
        if known is None:
            return min(left, self.capacity)
        return min(left, int(np.clip(DISPATCH_SECONDS / (known * active), 1, self.capacity)))

    def _runs(self, active: np.ndarray) -> dict[int, tuple[int, int | None]]:
        """The seed and fold of each active row."""
        return {row: (self._at(row).seed, self._at(row).fold) for row in active.tolist()}

    def _look(
        self, active: np.ndarray, values: Mapping[str, object], count: int, collected: object
    ) -> None:
        measured = {name: np.asarray(value) for name, value in values.items()}
        host = None if collected is None else jax.tree.map(np.asarray, collected)
        for index in active:
            trial = self._at(index)
            own = {name: value[index, :count] for name, value in measured.items()}
            try:
                trial.tracker.add_steps(self.step, own)
                trial.steps = self.step + count
            except DivergedError as error:
                trial.status, trial.steps = DIVERGED, error.step
                trial.reason = f"diverged at step {error.step}: {error.quantity} is {error.value}"
            if host is not None and trial.status == RUNNING:
                mine = jax.tree.map(lambda leaf, index=index: leaf[index], host)
                found = self.structure.experiment.collector.finish([mine])
                named = {f"validation/{name}": value for name, value in found.items()}
                trial.tracker.add_evaluation(trial.steps, named)
                if trial.keep is not None and trial.tracker.best.step == trial.steps:
                    self._keep(index, trial.keep)
                if trial.tracker.has_ended():
                    trial.status = EARLY
            lines = trial.tracker.take_lines()
            trial.rows += [{"step": step, **line} for step, line in lines]

    def _keep(self, row: int, place: Path) -> None:
        """Writes what a trial predicts with now.

        One that goes on from an earlier checkpoint computes the same weights, and writes them anew.
        """
        state = jax.tree.map(lambda leaf: leaf[row], self.states)
        weights_file.save(place, jax.device_get(self.structure.experiment.weights(state)))

    def _stop_the_worse(self) -> None:
        """At a rung, drops the trials that the halving's rule would not train further."""
        if self.step not in self.rungs or self.halving is None:
            return
        values: dict[int, float] = {}
        for number in sorted({self._at(index).number for index in self.active}):
            own = [trial for trial in self.trials if trial.number == number]
            sign = 1.0 if own[0].tracker.best.higher else -1.0
            values[number] = sign * float(np.mean([trial.tracker.best.value for trial in own]))
        self.reached[self.step] = [value for value in values.values() if not math.isnan(value)]
        stopped = RULES[self.halving](values, self.history.get(self.step, []), self.reduction)
        for index in self.active:
            trial = self._at(index)
            if trial.number in stopped:
                trial.status = PRUNED
                trial.reason = f"stopped at step {self.step} by {self.halving}"
        self._compact()

    def choose(self, modes: Sequence[str] = EXECUTION_MODES) -> dict[str, float]:
        """Times a few steps in each execution mode on copies and keeps the fastest.

        The seconds are those of one step of one trial, compilation not counted.
        """
        active = np.array(self.active, np.int32)
        count = min(self.capacity, 8)
        examples = self.batches.draw(self._runs(active), self.width, self.step, count)
        for execution_mode in modes:
            programs = self._programs(execution_mode)
            best = float("inf")
            for _ in range(3):
                states = jax.tree.map(jnp.copy, self.states)
                jax.block_until_ready(states.params)
                started = time.perf_counter()
                _, values = programs.advance(states, examples, count, active)
                jax.block_until_ready(values)
                best = min(best, time.perf_counter() - started)
            self.step_seconds[execution_mode] = best / (count * len(active))
        self.execution_mode = min(self.step_seconds, key=lambda name: self.step_seconds[name])
        return self.step_seconds

    def train_all(
        self,
        stop: Callable[[], bool] = lambda: False,
        on_evaluation: Callable[[Population], None] | None = None,
    ) -> list[Trial]:
        """Trains every trial to its end, or until ``stop()``; returns the trials."""
        saved = time.perf_counter()
        while self.active:
            if stop():
                break
            self.advance()
            if on_evaluation:
                on_evaluation(self)
            due = time.perf_counter() - saved >= self.checkpoint_seconds
            if self.directory is not None and due and self.active:
                self.save()
                saved = time.perf_counter()
        return self.trials

    # --- checkpoints -----------------------------------------------------------------------------

    def save(self) -> None:
        """Saves states and trials, so that a later population of the same trials goes on."""
        assert self.directory is not None
        meta = {
            "step": self.step,
            "reached": {str(step): values for step, values in self.reached.items()},
            "trials": [trial.to_dict() for trial in self.trials],
        }
        checkpoint.save(self.directory, self.step, checkpoint.saved(self._by_trial()), meta)

    def _by_trial(self) -> TrainState:
        """The states in the order of the trials, whatever the devices; of one that ended, any."""
        row_of = {index: row for row, index in enumerate(self.rows) if index is not None}
        places = np.array([row_of.get(index, 0) for index in range(len(self.trials))])
        return jax.tree.map(lambda leaf: leaf[places], self.states)

    def _is_saved(self, folder: Path) -> bool:
        """Says whether a checkpoint is one of the same trials, so far as it can be read."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            there = checkpoint.read_meta(folder)["trials"]
            own = [(trial.number, trial.seed, trial.fold) for trial in self.trials]
            return [(one["number"], one["seed"], one["fold"]) for one in there] == own
        return True

    def _resume(self) -> None:
        assert self.directory is not None
        saved = [checkpoint.place(self.directory, at) for at in checkpoint.steps(self.directory)]
        if not saved or not all(self._is_saved(folder) for folder in saved):
            return  # none, or another population's: this one starts anew
        like = self._by_trial()
        try:
            found = checkpoint.restore_newest(self.directory, checkpoint.saved(like))
        except checkpoint.AllDamagedError as error:
            checkpoint.begin_anew(self.directory, error)  # costs no more than training once more
            return
        if found is None:
            return
        tree, meta = found
        try:
            reached = {int(step): values for step, values in meta["reached"].items()}
            for trial, record in zip(self.trials, meta["trials"]):
                trial.restore(record)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            told = f"{checkpoint.META} is not as it was written\n{error!r}"
            checkpoint.begin_anew(self.directory, checkpoint.AllDamagedError(told))
            for trial in self.trials:
                trial.begin(self.structure.tracker(trial.fold, trial.params))
            return
        self.reached = reached
        restored = checkpoint.unsaved(like, tree)
        places = np.array([-1 if index is None else index for index in self.rows])
        self.states = self.layout.split(jax.tree.map(lambda leaf: leaf[places], restored))
        self.step = meta["step"]
