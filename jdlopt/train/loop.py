"""``fit``: the only training loop. It dispatches steps ahead and never waits for a value."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jdlopt import config as configs
from jdlopt import memory
from jdlopt import mesh as meshes
from jdlopt.data import given, notes
from jdlopt.errors import DivergedError, Interrupted, UserError, listing
from jdlopt.train import (
    data_record,
    features,
    going_on,
    goodput,
    log,
    loggers,
    longer,
    processes,
    remote,
    serve,
    split_record,
    start,
    watch,
)
from jdlopt.train.compiling import Compiler
from jdlopt.train.components import clean_given
from jdlopt.train.evaluate import Evaluator
from jdlopt.train.execution import make_execution
from jdlopt.train.experiment import Experiment
from jdlopt.train.facts import count_of, evaluated, facts_of, reasons_of, tell_faults
from jdlopt.train.goodput import Stopwatch
from jdlopt.train.loggers.logger import LoggerWarning
from jdlopt.train.pending import Pending, Snapshot
from jdlopt.train.program import copy, state_sharding
from jdlopt.train.progress import Progress, notebook_bar
from jdlopt.train.result import read_result, write_result
from jdlopt.train.run import Run, Trained
from jdlopt.train.saving import Saving
from jdlopt.train.schema import resolve_data
from jdlopt.train.signals import StopRequest, signals
from jdlopt.train.state import TrainState, Weights
from jdlopt.train.tracker import UndefinedMetricWarning, make_tracker


def fit(
    config: Mapping[str, Any],
    workdir: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    data: object = None,
) -> Run:
    """Trains one config in one directory, from where an earlier call stopped if there was one.

    Args:
      config: an experiment, as `jdlopt.config.load` or a plain dict gives it.
      workdir: the run's directory; made if it does not exist. None writes nothing: the run is in
        memory alone, and one that is stopped is lost.
      on_progress: called about as often as something is known anew; in a notebook a bar, if None.
      data: what to train on instead of ``data.source``: inputs and targets, a DataFrame (its target
        is ``data.target``), a dict of such by split, or any object with a length whose items are
        ``(input, target)``; as `jdlopt.data.source.open_given` says.

    Returns:
      The run, whose record is also written to ``result.json``. A finished one is not trained again.
      A split whose examples can't be used at the end, when it is first read, has no metrics; the
      record's ``not_evaluated`` says why, and so does a warning.

    Raises:
      ConfigError, DataError, WorkdirError: the input is wrong; nothing was trained or overwritten.
      DivergedError: a value was not finite; the last good checkpoint is kept.
      Interrupted: SIGTERM or SIGINT came; the state is saved, and the same call goes on.
    """
    clock = _Clock()
    memory.keep()
    _fetch(config, workdir)
    if data is not None:
        config = given.named(config, data)
    begun = going_on.begun(config, workdir)
    if begun is not None:
        config = begun.config
    dataset = None if data is None else clean_given(resolve_data(config), data)
    experiment = Experiment.build(
        config, dataset, check=False, begins=begun is None or begun.looks_again, learns=True
    )
    if begun is not None:
        experiment = begun.as_saved(experiment)
    known = going_on.is_known(experiment, workdir)  # then a step was traced on shapes before
    if not known:
        experiment.check()
    said = experiment.data.notes
    if jax.process_index() == 0:
        start.say([experiment], weights=begun is None)
    bar = notebook_bar() if on_progress is None else None
    with nullcontext() if bar is None else bar:
        try:
            run = fit_experiment(experiment, workdir, on_progress if bar is None else bar, clock)
        except (UserError, DivergedError, Interrupted):
            raise
        except Exception:
            if known:
                experiment.check()  # jdlopt or a library may be another one now
            raise
    if jax.process_index() == 0:  # what only the test split held
        notes.say(notes.since(said, experiment.data.notes))
    return run


def _fetch(config: Mapping[str, Any], workdir: str | Path | None) -> None:
    """Takes the run from its copy elsewhere, if it has one and the directory no checkpoint."""
    url = remote.url_of(configs.to_dict(config))
    if url is None or workdir is None:
        return
    with processes.first_claims(lambda: remote.fetched(url, Path(workdir))):
        pass


def fit_experiment(
    experiment: Experiment,
    workdir: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    clock: _Clock | None = None,
) -> Run:
    """Trains an experiment that is built, as `fit` does a config.

    Args:
      experiment: what to train.
      workdir, on_progress: as for `fit`.
      clock: since when the time is counted; from now on by default.
    """
    clock = clock or _Clock()
    train = experiment.config.train
    if workdir is None:
        if train.loggers:
            text = (
                f"train.loggers: {listing(train.loggers)}: logs nothing of a run without workdir."
            )
            warnings.warn(text, LoggerWarning, stacklevel=2)
        with signals() as stop, ExitStack() as opened:
            return _Run(experiment, None, clock, on_progress, opened).train(stop)
    place = Path(workdir)
    if not (place / log.RESULT).exists():
        loggers.check(train.used_loggers)  # before there is a directory
    with signals() as stop, processes.first_claims(lambda: _claimed(place, experiment)):
        finished = read_result(place)
        known = configs.code_in(experiment.config)
        goes_on = longer.is_longer(experiment, place, finished)
        if finished is not None and Run(finished, place).is_final and not goes_on:
            return Run(finished, place, allow_code=known)
        with ExitStack() as opened:
            return _Run(experiment, place, clock, on_progress, opened).train(stop)


@contextlib.contextmanager
def _claimed(place: Path, experiment: Experiment) -> Iterator[None]:
    """Holds a directory that is this config's, and of these data."""
    with log.claim(place, experiment.config):
        data_record.keep(place, experiment.data)
        if jax.process_index() == 0:
            split_record.save(place, experiment.data)
        yield


@dataclass
class _Clock:
    """How long a run has taken, in seconds.

    Attributes:
      stopwatch: where the time goes, from the call of `fit` on.
      first_step: updates made before this call.
      looping_since: when the first step was made; ``looped``: how long all took, once at the end.
    """

    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    first_step: int = 0
    looping_since: float = 0.0
    looped: float | None = None

    def loop(self) -> float:
        """Returns the time since this call's first step, compilation not counted."""
        now = time.perf_counter() - self.looping_since
        return max(now if self.looped is None else self.looped, 1e-9)


class _Run:
    """One training as the host sees it: its state, and what tracks, dispatches and saves it.

    Whatever is opened or started is put into ``opened``, at once: the caller closes it, whether or
    not this goes well.
    """

    def __init__(
        self,
        experiment: Experiment,
        workdir: Path | None,
        clock: _Clock,
        on_progress: Callable[[Progress], None] | None,
        opened: ExitStack,
    ):
        self.experiment, self.workdir, self.clock, self.on_progress = (
            experiment,
            workdir,
            clock,
            on_progress,
        )
        self.config, self.options = experiment.config, experiment.config.train
        self.stopwatch = clock.stopwatch
        self.mesh = meshes.make_mesh(self.config.mesh)
        self.compile = Compiler(told=partial(self.stopwatch.move, goodput.COMPILE))
        self.tracker = make_tracker(experiment, experiment.data.sizes["train"])
        self.sender = self._open_remote(opened)
        self.saving = Saving(workdir, experiment, self.mesh, self.sender)
        opened.callback(self.saving.close)
        self.rows: list[dict[str, Any]] = []  # logged lines, where there is no file for them
        state = self._initial()
        self.n_params = count_of(state.params)
        self.state, self.step, dispatch, account = self.saving.resume(state, self.tracker)
        clock.first_step = self.step
        self._count_time(account, opened)
        self.log = self._open_log(opened)
        # what the steps and the evaluations between them run on
        working = self._with_features() if self.options.cache_features else experiment
        evaluator = Evaluator(working, self.mesh, self.compile)
        self.pending = Pending(self.tracker, evaluator, self.mesh, opened, self.stopwatch)
        asked = dispatch or self.options.steps_per_dispatch
        self.execution = make_execution(
            working, self.state, self.step, self.mesh, self.compile, asked, opened
        )
        self.agree = processes.agreement()
        self.weights = self._compile_weights()
        evaluator("validation", self.weights(self.state))  # compiles

    # --- before the first step -------------------------------------------------------------------

    def _initial(self) -> TrainState:
        """The state before the first step, on the devices."""
        init, hparams = partial(self.experiment.init, self.config.seed), self.experiment.hparams
        found = self.experiment.pretrained()
        loaded = None if found is None else (found.params, found.state)
        self.began = log.began_with(self.workdir) if found is None else found.record
        if found is not None and self.workdir is not None and jax.process_index() == 0:
            log.save_pretrained(self.workdir, found.record)
        teacher = self.experiment.components.teacher
        self.teachers = () if teacher is None else teacher.record
        if self.teachers and self.workdir is not None and jax.process_index() == 0:
            log.save_teachers(self.workdir, self.teachers)
        shapes = jax.eval_shape(init, hparams, loaded)
        shardings = state_sharding(self.mesh, shapes, self.config.mesh.rules)
        placed = meshes.put((hparams, loaded), meshes.replicated(self.mesh))
        program = jax.jit(init, out_shardings=shardings).lower(*placed)
        return self.compile(program, quickly=True)(*placed)

    def _count_time(self, saved: goodput.Account | None, opened: ExitStack) -> None:
        """Goes on with the account of the run's time, and keeps it beside the checkpoints."""
        newest, away = None, 0.0
        if self.workdir is not None:
            newest, away = goodput.read(self.workdir, self.stopwatch.began_at)
        self.stopwatch.go_on(goodput.resumed(newest, saved, self.step, away))
        if self.workdir is not None and jax.process_index() == 0:
            opened.enter_context(goodput.kept(self.workdir, self.stopwatch))

    def _open_remote(self, opened: ExitStack) -> remote.Sender | None:
        """Begins to send what is saved to the run's copy elsewhere, in the first process."""
        if self.workdir is None or self.options.remote is None or jax.process_index():
            return None
        sender = remote.Sender(self.workdir, self.options.remote)
        opened.callback(sender.close)
        return sender

    def _open_log(self, opened: ExitStack) -> log.RunLog | None:
        """Writes what the directory tells of the run and opens its log, in the first process."""
        if self.workdir is None or jax.process_index():
            return None
        log.save_config(self.workdir, self.config)  # the mesh may be another one now
        serve.save_inputs_record(self.experiment, self.workdir)
        made = log.RunLog(self.workdir, self.step, self.options.used_loggers, self.config)
        opened.callback(made.close)
        return made

    def _with_features(self) -> Experiment:
        """Computes what the frozen body makes of each example; the head is trained on that."""
        weights = self.experiment.weights(self.state)
        return features.cached(self.experiment, weights, self.mesh, self.compile)

    def _compile_weights(self) -> Any:
        """Compiles taking what is evaluated out of a state, copied: the next step overwrites it."""

        def weights(state: TrainState) -> Weights:
            return copy(self.experiment.weights(state))

        return self.compile(jax.jit(weights).lower(self.state), quickly=True)

    # --- training --------------------------------------------------------------------------------

    def train(self, stop: StopRequest) -> Run:
        """Trains to the end, or to what stops it."""
        self.clock.looping_since = time.perf_counter()
        self.saving.start_clock()
        with self._watched():
            try:
                self._loop(stop)
            except jax.errors.JaxRuntimeError as error:
                if not processes.is_lost(error):
                    raise
                reason = " ".join(str(error).split())[:300]
                watch.end_process(self.workdir, f"another process of the run is gone ({reason})")
        self.clock.looped = self.clock.loop()
        return self._finish("stopped early" if self.tracker.has_ended() else "done")

    def _watched(self) -> contextlib.AbstractContextManager[None]:
        """Ends the process where nothing moves any more, if the config asks for that."""
        seconds = self.options.hangs_after(jax.process_count())
        if seconds is None:
            return nullcontext()
        look = watch.Watch(self.stopwatch, seconds, processes.peers())
        return watch.watching(look, partial(watch.end_process, self.workdir))

    def _loop(self, stop: StopRequest) -> None:
        """Makes the steps and reads their values."""
        while self.step < self.experiment.total_steps and not self.tracker.has_ended():
            most, waited = self._until_evaluation(), self.execution.waited
            self.stopwatch.switch(goodput.STEPS, "steps")
            self.state, values, count = self.execution(self.state, self.step, most)
            self.stopwatch.move(goodput.DATA_WAIT, self.execution.waited - waited)
            self.pending.add_steps(self.step, values, count)
            self.step += count
            self.stopwatch.step = self.step
            if self.tracker.is_evaluated(self.step):
                self.pending.add_evaluation(Snapshot(self.step, self.weights(self.state)))
            self._read(wait=self.pending.may_end_training())
            self._save_or_stop(stop)
        self._read(wait=True)

    def _until_evaluation(self) -> int:
        """Steps to the next evaluation, checkpoint or end: a dispatch never runs over one."""
        ends = [self.experiment.total_steps]
        for every in (self.experiment.eval_every, self.options.checkpoint_every):
            if every:
                ends.append((self.step // every + 1) * every)
        return min(ends) - self.step

    def _read(self, wait: bool) -> None:
        """Reads values that have come back, logs them and reports progress."""
        try:
            self.pending.read(wait)
        except DivergedError as error:
            self._report()
            raise self._diverged(error) from None
        self._report()

    def _report(self) -> None:
        elapsed = self.clock.loop()
        trained = (self.step - self.clock.first_step) * self.config.data.batch_size
        speed = trained / elapsed
        for step, line in self.tracker.take_lines():
            if self.log:
                self.log.write(step, line, {"examples_per_second": speed})
            if self.workdir is None:
                self.rows.append({"step": step, **line})
        if self.on_progress and jax.process_index() == 0:
            waiting = self.execution.waited / elapsed
            newest, total = self.tracker.newest, self.experiment.total_steps
            self.on_progress(Progress(self.step, total, newest, speed, waiting))

    # --- stopping, saving, ending ----------------------------------------------------------------

    def _save_or_stop(self, stop: StopRequest) -> None:
        asked, late = self.agree(self.step, stop.signal is not None, self.saving.is_late())
        self.saving.check()
        if self.sender:
            self.sender.tell()
        if asked or late or self.saving.is_due(self.step):
            self._save()
        if asked:
            self._wait_for_checkpoint()
            self.stopwatch.switch(goodput.END)
            self._write_result("interrupted", self._newest_metrics())
            kept = (
                "nothing is kept, as the run has no workdir."
                if self.workdir is None
                else f"saved in {self.workdir}. The same command goes on from there."
            )
            raise Interrupted(
                f"interrupted at step {self.step} of {self.experiment.total_steps}; {kept}"
            )

    def _save(self) -> None:
        """Saves a state that is known to be finite, after the log lines that lead to it."""
        self._read(wait=True)
        with self.stopwatch.during(goodput.CHECKPOINT):
            if self.log:
                self.log.flush()
            best, dispatch = self.pending.best, self.execution.dispatch
            account = self.stopwatch.account()
            self.saving.save(self.state, self.step, best, self.tracker, dispatch, account)

    def _wait_for_checkpoint(self) -> None:
        with self.stopwatch.during(goodput.CHECKPOINT):
            self.saving.wait()

    def _diverged(self, error: DivergedError) -> DivergedError:
        """Records what blew up, and names the checkpoint that is left."""
        self.step = error.step
        found = {"step": error.step, "quantity": error.quantity, "value": str(error.value)}
        self._write_result("diverged", self._newest_metrics(), {"diverged": found})
        detail = f"{error.detail} {self.saving.last_good()}"
        return DivergedError(error.step, error.quantity, error.value, detail)

    def _newest_metrics(self) -> dict[str, Any]:
        return {name: value for name, value in self.tracker.newest.items() if "/" in name}

    def _finish(self, status: str) -> Run:
        """Saves the end, evaluates the best checkpoint once on all splits, writes the result."""
        self._save()
        self._wait_for_checkpoint()
        self.stopwatch.switch(goodput.EVALUATION)
        best = self.saving.best(self.pending.best, self.state)
        measured = self.experiment.measuring(self.experiment.all_metrics())
        measure = Evaluator(measured, self.mesh, self.compile)
        found = {
            name: value
            for name, value in self._newest_metrics().items()
            if name.startswith("train/")
        }
        more, faults = evaluated(self.experiment, partial(measure, weights=best.weights))
        self.stopwatch.switch(goodput.END)
        note = self.tracker.best.note()
        if note:
            warnings.warn(note, UndefinedMetricWarning, stacklevel=2)
        trained = Trained(self.experiment, self.state, best.weights, self.rows)
        record = self._write_result(status, found | more, reasons_of(faults), best.weights)
        tell_faults(faults, self.workdir)
        return Run(record, self.workdir, trained if self.workdir is None else None)

    def _write_result(
        self,
        status: str,
        found: Mapping[str, Any],
        beside: Mapping[str, Any] | None = None,
        weights: Weights | None = None,
    ) -> dict[str, Any]:
        best, looped, account = self.tracker.best, self.clock.loop(), self.stopwatch.account()
        trained = (self.step - self.clock.first_step) * self.config.data.batch_size
        record = {
            "status": status,
            "metrics": dict(found),
            "steps": self.step,
            "examples_per_second": trained / looped if trained else None,
            "wall_seconds": account.wall(),
            "goodput": account.to_dict(),
            "compile_seconds": self.compile.seconds,
            "data_wait_share": self.execution.waited / looped,
            "dispatch": self.execution.dispatch.to_dict(),
            **facts_of(
                self.experiment, best, self.n_params, self.mesh, self.began, self.teachers, weights
            ),
            **(beside or {}),
        }
        if self.log is None:
            return write_result(self.workdir, record)
        write_result(self.workdir, record)  # before loggers are waited for
        record["loggers"] = self.log.loggers.end(status, found)
        written = write_result(self.workdir, record)
        if self.sender is None:
            return written
        return write_result(self.workdir, {**record, "remote": self.sender.end()})
