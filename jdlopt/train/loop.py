"""``fit``: the only training loop. It hands steps to the device and never waits for a value."""

from __future__ import annotations

import itertools
import json
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jdlopt import config as configs
from jdlopt import memory
from jdlopt import mesh as meshes
from jdlopt.data import feed
from jdlopt.errors import DivergedError, Interrupted, WorkdirError
from jdlopt.train import checkpoint, disk, experiment, features, log, processes, serve
from jdlopt.train import evaluate as evaluation
from jdlopt.train.compiling import Compiler
from jdlopt.train.evaluate import Evaluator
from jdlopt.train.program import (
    Dispatch,
    copy,
    state_sharding,
    streaming_program,
    training_programs,
)
from jdlopt.train.signals import StopRequest, signals
from jdlopt.train.state import TrainState, as_arrays
from jdlopt.train.tracker import UndefinedMetricWarning, make_tracker

IN_FLIGHT = 3
"""Dispatches that may be in flight: enough that the host logs one epoch while the next one trains,
few enough that a signal, which waits for them, is answered soon."""


class Progress(NamedTuple):
    """What a progress bar shows.

    Attributes:
      step: updates made.
      total_steps: updates in the whole run.
      values: the newest logged values.
      examples_per_second: since training started, compilation not counted.
      waiting: share of the time spent waiting for data.
    """

    step: int
    total_steps: int
    values: Mapping[str, float]
    examples_per_second: float
    waiting: float


class Result(NamedTuple):
    """What a run came to: the content of ``result.json``, and where it lies.

    Attributes:
      record: as in ``result.json``.
      workdir: the run's directory.
    """

    record: dict[str, Any]
    workdir: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """The final metrics: ``train/…``, ``validation/…``, ``test/…``, of the best checkpoint."""
        return self.record["metrics"]

    @property
    def status(self) -> str:
        """``done``, ``stopped early``, ``diverged`` or ``interrupted``."""
        return self.record["status"]


def fit(
    config: Mapping[str, Any],
    workdir: str | Path,
    on_progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Trains one config in one directory, from where an earlier call stopped if there was one.

    Args:
      config: an experiment, as `jdlopt.config.load` or a plain dict gives it.
      workdir: the run's directory; made if it does not exist.
      on_progress: called about as often as something is known anew.

    Returns:
      The result, also written to ``result.json``. A finished run is not trained again.

    Raises:
      ConfigError, DataError, WorkdirError: the input is wrong; nothing was trained or overwritten.
      DivergedError: a value was not finite; the last good checkpoint is kept.
      Interrupted: SIGTERM or SIGINT came; the state is saved, and the same call goes on.
    """
    start = time.perf_counter()
    memory.keep()
    workdir = Path(workdir)
    resolved, dataset = experiment.prepare(config)
    with signals() as stop, processes.first_claims(lambda: log.claim(workdir, resolved)):
        finished = read_result(workdir)
        if finished is not None and finished["status"] in ("done", "stopped early"):
            return Result(finished, workdir)
        run = _Run(experiment.build(resolved, dataset), workdir, stop, on_progress, start)
        try:
            return run.train()
        finally:
            run.close()


def read_result(workdir: Path) -> dict[str, Any] | None:
    """Returns a run's ``result.json``, or None if there is none.

    Raises:
      WorkdirError: it is there and can't be read.
    """
    path = workdir / log.RESULT
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path}: can't be read: {error}") from error
    if not isinstance(record, dict) or "status" not in record:
        raise WorkdirError(f"{path}: is no result of a run; move it away to train here.")
    return record


@dataclass
class _Snapshot:
    """The parameters at an evaluation, kept in case that it turns out the best."""

    step: int
    params: Any
    model_state: Any


class _Run:
    """One training as the host sees it: files, clocks, and what is in flight on the device."""

    def __init__(
        self,
        parts: experiment.Experiment,
        workdir: Path,
        stop: StopRequest,
        on_progress: Callable[[Progress], None] | None,
        start: float,
    ):
        self.parts, self.workdir, self.stop, self.on_progress = parts, workdir, stop, on_progress
        self.config, self.options = parts.config, parts.config["train"]
        self.seed, self.batch_size = self.config["seed"], self.config["data"]["batch_size"]
        self.checkpoints = workdir / log.CHECKPOINTS
        self.start, self.compile = start, Compiler()
        self.mesh = meshes.make_mesh(self.config["mesh"])
        self.beside = ThreadPoolExecutor(1) if _may_overlap(self.mesh) else None
        self.pending: deque[tuple[str, int, Any, Any]] = deque()
        self.best_snapshot: _Snapshot | None = None
        self.waited = self.looped = 0.0
        self.reading: Any = None
        self.watching = ThreadPoolExecutor(1)
        self.log: log.RunLog | None = None
        self._init_state()
        self._resume()
        # what the steps and the evaluations between them run on
        self.working = self._with_features() if self.options["cache_features"] else parts
        self.evaluator = Evaluator(self.working, self.mesh, self.compile)

    # --- before the first step -------------------------------------------------------------------

    def _init_state(self) -> None:
        hparams = as_arrays(configs.hyperparameters(self.config))

        def init(hparams: Any, loaded: Any) -> TrainState:
            return experiment.init_state(self.parts, self.seed, hparams, loaded)

        found = experiment.pretrained_of(self.parts)
        loaded = None if found is None else (found.params, found.state)
        if found is not None and jax.process_index() == 0:
            log.save_pretrained(self.workdir, found.record)
        shapes = jax.eval_shape(init, hparams, loaded)
        self.shardings = state_sharding(self.mesh, shapes)
        given = meshes.put((hparams, loaded), meshes.replicated(self.mesh))
        program = jax.jit(init, out_shardings=self.shardings).lower(*given)
        self.state = self.compile(program, quickly=True)(*given)
        self.n_params = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))

    def _resume(self) -> None:
        """Goes on from the newest whole checkpoint, if there is one."""
        self.tracker = make_tracker(self.parts, self.parts.dataset.sizes["train"])
        self.dispatch: Dispatch | int | None = self.options["steps_per_dispatch"]
        self.step, self.best_saved, self.earlier_seconds = 0, -1, 0.0
        template = checkpoint.saved(self.state)
        found = checkpoint.restore_newest(self.checkpoints, template, with_best=True)
        if found is not None:
            tree, meta = found
            self.state = checkpoint.unsaved(self.state, tree)
            self.step, self.best_saved = meta["step"], meta["best_saved"]
            self.tracker.restore(meta["tracker"])
            self.earlier_seconds = meta["wall_seconds"]
            if meta["dispatch"] is not None and meta["platform"] == _platform(self.mesh):
                self.dispatch = Dispatch(**meta["dispatch"])
        self.first_step = self.step
        checkpoint.drop_after(self.checkpoints, self.step)
        if jax.process_index() == 0:
            log.save_config(self.workdir, self.config)  # the mesh may be another one now
            serve.save_inputs_record(self.parts, self.workdir)
            self.log = log.RunLog(self.workdir, self.step, self.options["tensorboard"])

    def _with_features(self) -> experiment.Experiment:
        """Computes what the frozen body makes of each example; the head is trained on that."""
        state = self.state
        return features.cached(self.parts, state.params, state.model_state, self.mesh, self.compile)

    def _compile_snapshot(self) -> Any:
        """Compiles taking what is evaluated out of a state, copied: the next step overwrites it."""

        def snapshot(state: TrainState) -> tuple[Any, Any]:
            return copy(experiment.evaluated(self.parts, state))

        return self.compile(jax.jit(snapshot).lower(self.state), quickly=True)

    # --- training --------------------------------------------------------------------------------

    def train(self) -> Result:
        """Trains to the end, or to what stops it."""
        run = self._streamed() if self.working.streams else self._in_memory()
        self.snapshot = self._compile_snapshot()
        self.evaluator("validation", *self.snapshot(self.state))  # compiles
        self.loop_started = self.saved_at = time.perf_counter()
        ended = self.tracker.has_ended()
        while self.step < self.parts.total_steps and not ended:
            self.state, values, count = run(self._until_evaluation())
            self.pending.append(("steps", self.step, values, count))
            self.step += count
            if self.tracker.is_evaluated(self.step):
                self._dispatch_evaluation()
            self._look(wait=self._patience_may_end())
            ended = self.tracker.has_ended()
            self._stop_or_save()
        self._look(wait=True)
        self.looped = time.perf_counter() - self.loop_started
        return self._finish("stopped early" if ended else "done")

    def _until_evaluation(self) -> int:
        """Steps to the next evaluation, checkpoint or end: a dispatch never runs over one."""
        ends = [self.parts.total_steps]
        for every in (self.parts.eval_every, self.options["checkpoint_every"]):
            if every:
                ends.append((self.step // every + 1) * every)
        return min(ends) - self.step

    def _in_memory(self) -> Callable[[int], tuple[TrainState, Any, int]]:
        """Compiles training on a split that lies in device memory; returns how to run steps."""
        arrays = self.working.dataset.read("train")
        data = meshes.put(
            {"inputs": arrays.inputs, "targets": arrays.targets}, meshes.replicated(self.mesh)
        )
        every = self.options["checkpoint_every"]
        longest = min(self.parts.eval_every, every) if every else self.parts.eval_every
        self.dispatch, program = training_programs(
            self.state,
            data,
            self.batch_size,
            parts=self.working.step_parts,
            mesh=self.mesh,
            shardings=self.shardings,
            compile=self.compile,
            longest=longest,
            asked=self.dispatch,
            agree=processes.agree,
        )
        most, size = self.dispatch.steps, len(arrays.targets)

        def run(steps: int) -> tuple[TrainState, Any, int]:
            count = min(most, steps)
            examples = feed.batch_examples(
                self.seed, self.step, self.batch_size, size, count, order=self.parts.order
            )
            return *program(self.state, examples), count

        return run

    def _streamed(self) -> Callable[[int], tuple[TrainState, Any, int]]:
        """Compiles training on batches that come one by one; returns how to run a step of it."""
        sharding = meshes.batch_sharding(self.mesh)
        read = feed.stream(
            self.working.dataset.records("train"),
            seed=self.seed,
            batch_size=self.batch_size,
            first_step=self.step,
            rows=meshes.local_rows(sharding, self.batch_size),
            order=self.parts.order,
            workers=self.config["data"]["workers"],
        )
        self.reading = batches = feed.prefetched(read, sharding, self.batch_size)
        first = next(batches)
        self.dispatch, program = streaming_program(
            self.state,
            first,
            parts=self.working.step_parts,
            mesh=self.mesh,
            shardings=self.shardings,
            compile=self.compile,
            asked=self.dispatch,
        )
        following = itertools.chain([first], batches)
        busy: Future[float] | None = None

        def run(steps: int) -> tuple[TrainState, Any, int]:
            nonlocal busy
            asked = time.perf_counter()
            batch = next(following)
            got = time.perf_counter()
            if busy is None or busy.done():  # otherwise the device had work all the while
                self.waited += max(0.0, got - max(asked, busy.result() if busy else asked))
            state, values = program(self.state, batch)
            busy = self.watching.submit(_when_ready, values["loss"])
            return state, values, 1

        return run

    # --- looking at what came back ---------------------------------------------------------------

    def _dispatch_evaluation(self) -> None:
        params, model_state = self.snapshot(self.state)
        work = partial(self.evaluator.dispatch, "validation", params, model_state)
        collected = self.beside.submit(work) if self.beside else work()
        snapshot = _Snapshot(self.step, params, model_state)
        self.pending.append(("evaluation", self.step, collected, snapshot))

    def _look(self, wait: bool) -> None:
        """Reads values that have come back: all of them, or those beyond what may be in flight."""
        while self.pending and (wait or len(self.pending) > IN_FLIGHT):
            kind, step, values, rest = self.pending.popleft()
            if kind == "steps":
                measured = {name: np.asarray(value)[:rest] for name, value in values.items()}
                try:
                    self.tracker.add_steps(step, measured)
                except DivergedError as error:
                    self._report()
                    raise self._diverged(error) from None
            else:
                collected = values.result() if isinstance(values, Future) else values
                found = self.evaluator.finish("validation", collected)
                if self.tracker.add_evaluation(step, found):
                    self.best_snapshot = rest
        self._report()

    def _report(self) -> None:
        elapsed = max(time.perf_counter() - self.loop_started, 1e-9)
        speed = (self.step - self.first_step) * self.batch_size / elapsed
        for step, line in self.tracker.take_lines():
            if self.log:
                self.log.write(step, line, {"examples_per_second": speed})
        if self.on_progress and self.log:
            total, waiting = self.parts.total_steps, self.waited / elapsed
            self.on_progress(Progress(self.step, total, self.tracker.newest, speed, waiting))

    def _patience_may_end(self) -> bool:
        """Whether an evaluation in flight could end the run: then it is waited for.

        So a run stops at the same step however fast its values come back.
        """
        flying = sum(kind == "evaluation" for kind, *_ in self.pending)
        return flying > 0 and self.tracker.may_end(flying)

    # --- stopping, saving, ending ----------------------------------------------------------------

    def _stop_or_save(self) -> None:
        every = self.options["checkpoint_every"]
        overdue = time.perf_counter() - self.saved_at >= self.options["checkpoint_seconds"]
        due = overdue if every is None else self.step % every == 0
        stop, due = processes.any_of(self.stop.signal is not None, due)
        if stop or due:
            self._save()
        if stop:
            self._write_result("interrupted", self._newest_metrics())
            raise Interrupted(
                f"interrupted at step {self.step} of {self.parts.total_steps}; saved in "
                f"{self.workdir}. The same command goes on from there."
            )

    def _save(self) -> None:
        """Saves a state that is known to be finite, after the log lines that lead to it."""
        self._look(wait=True)
        if self.log:
            self.log.flush()
        if self.step in checkpoint.steps(self.checkpoints):
            return
        snapshot = self.best_snapshot
        if snapshot is not None and snapshot.step != self.best_saved:
            # the best before it stays until the newest checkpoint names this one
            tree = {"params": snapshot.params, "model_state": snapshot.model_state}
            named = {"step": snapshot.step}
            checkpoint.save(self.checkpoints, snapshot.step, tree, named, "best")
            self.best_saved = snapshot.step
        meta = {
            "step": self.step,
            "best_saved": self.best_saved,
            "tracker": self.tracker.to_dict(),
            "wall_seconds": self._wall_seconds(),
            "dispatch": self.dispatch.to_dict() if isinstance(self.dispatch, Dispatch) else None,
            "platform": _platform(self.mesh),
        }
        checkpoint.save(self.checkpoints, self.step, checkpoint.saved(self.state), meta)
        self.saved_at = time.perf_counter()

    def _diverged(self, error: DivergedError) -> DivergedError:
        """Records what blew up, and names the checkpoint that is left."""
        kept = checkpoint.steps(self.checkpoints)
        where = "No checkpoint had been saved before."
        if kept:
            last = checkpoint.place(self.checkpoints, kept[-1])
            where = f"The last good checkpoint is {last}."
        self.step = error.step
        found = {"step": error.step, "quantity": error.quantity, "value": str(error.value)}
        self._write_result("diverged", self._newest_metrics(), {"diverged": found})
        return DivergedError(error.step, error.quantity, error.value, f"{error.detail} {where}")

    def _newest_metrics(self) -> dict[str, Any]:
        return {name: value for name, value in self.tracker.newest.items() if "/" in name}

    def _wall_seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.start

    def _finish(self, status: str) -> Result:
        """Saves the end, evaluates the best checkpoint once on all splits, writes the result."""
        self._save()
        params, model_state = self._best_parameters()
        measure = evaluation.full(self.parts, self.mesh, self.compile)
        found = {
            name: value
            for name, value in self._newest_metrics().items()
            if name.startswith("train/")
        }
        splits = ["validation", *(["test"] if self.options["evaluate_test"] else [])]
        for split in splits:
            if self.parts.dataset.sizes.get(split):
                found.update(measure(split, params, model_state))
        if self.log:
            self.log.hyperparameters(self.config, found)
        note = self.tracker.best.note()
        if note:
            warnings.warn(note, UndefinedMetricWarning, stacklevel=2)
        record = self._write_result(status, found)
        return Result(record, self.workdir)

    def _best_parameters(self) -> tuple[Any, Any]:
        """The parameters of the best evaluation, from memory or from its checkpoint."""
        snapshot = self.best_snapshot
        if snapshot is None:
            params, model_state = experiment.evaluated(self.parts, self.state)
            template = {"params": params, "model_state": model_state}
            place = checkpoint.place(self.checkpoints, self.best_saved, "best")
            tree = checkpoint.restore(place, template)
            return tree["params"], tree["model_state"]
        return snapshot.params, snapshot.model_state

    def _write_result(
        self, status: str, found: Mapping[str, Any], beside: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        best = self.tracker.best
        note = best.note()
        looped = self.looped or time.perf_counter() - self.loop_started
        steps = self.step - self.first_step
        record = disk.as_json(
            {
                "status": status,
                "metrics": dict(found),
                "best": {
                    "step": best.step,
                    "metric": best.metric,
                    "value": best.value,
                    **({"note": note} if note else {}),
                },
                "steps": self.step,
                "total_steps": self.parts.total_steps,
                "examples_per_second": steps * self.batch_size / looped if steps else None,
                "wall_seconds": self._wall_seconds(),
                "compile_seconds": self.compile.seconds,
                "data_wait_share": self.waited / looped if looped else 0.0,
                "dispatch": self.dispatch.to_dict()
                if isinstance(self.dispatch, Dispatch)
                else None,
                "n_params": self.n_params,
                "seed": self.seed,
                "versions": log.versions(),
                "devices": [str(device) for device in self.mesh.devices.flat],
                "mesh": dict(self.mesh.shape),
                "data_skipped": dict(self.parts.dataset.skipped),
                "data_left_out": dict(self.parts.dataset.dropped),
                "config_fingerprint": configs.fingerprint(self.config),
                **(beside or {}),
            }
        )
        if jax.process_index() == 0:
            log.write_aside(self.workdir / log.RESULT, json.dumps(record, indent=2) + "\n")
        return record

    def close(self) -> None:
        """Stops what runs beside, and closes the log files."""
        if self.reading:
            self.reading.close()
        self.watching.shutdown()
        if self.beside:
            self.beside.shutdown()
        if self.log:
            self.log.close()


def _may_overlap(mesh: Any) -> bool:
    """Whether evaluations may be dispatched from a thread of their own.

    XLA's CPU client runs what one thread dispatches in turn, so that an evaluation would hold up
    the next steps while other cores are idle. An accelerator runs all in turn anyway; with several
    devices, programs that communicate have to be dispatched everywhere in the same order.
    """
    return mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"


def _when_ready(value: jax.Array) -> float:
    """The time when the device has computed a value."""
    value.block_until_ready()
    return time.perf_counter()


def _platform(mesh: Any) -> str:
    """What a measured choice holds for: the kind and number of devices."""
    return f"{mesh.devices.flat[0].device_kind} x {mesh.size}"
