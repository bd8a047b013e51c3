"""How a run's steps are carried out: on a split in device memory, or on batches read one by one."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Protocol

import jax
from jax.profiler import TraceAnnotation
from jax.sharding import Mesh

from jdlopt import mesh as meshes
from jdlopt.data import feed
from jdlopt.train import processes
from jdlopt.train.compiling import Compiler
from jdlopt.train.experiment import Experiment
from jdlopt.train.predict import taught
from jdlopt.train.program import Dispatch, streaming_program, training_programs
from jdlopt.train.state import TrainState
from jdlopt.train.step import TEACHER
from jdlopt.train.steps import stored

Values = dict[str, jax.Array]
"""Per-step values by name, each [steps or more]."""
FEED, DISPATCH = "jdlopt: next batch", "jdlopt: dispatch"
"""What a profiler's trace calls waiting for a batch, or for its examples' numbers, and handing
steps to the device. Without a profiler an annotation costs nothing that could be measured."""


class Execution(Protocol):
    """Compiled training of one experiment.

    Attributes:
      dispatch: how steps are dispatched to the device, chosen when it was compiled.
      waited: seconds that the device had nothing to do because no batch had been read.
    """

    dispatch: Dispatch
    waited: float

    def __call__(self, state: TrainState, step: int, most: int) -> tuple[TrainState, Values, int]:
        """Dispatches up to ``most`` steps after ``step``; returns at once.

        Returns:
          The next state, the steps' values, and how many steps they are. The state given is used
          up.
        """
        ...


def make_execution(
    experiment: Experiment,
    state: TrainState,
    step: int,
    mesh: Mesh,
    compile: Compiler,
    asked: Dispatch | int | None,
    opened: ExitStack,
) -> Execution:
    """Compiles training in the way that the data allow and that is measured to be the fastest.

    Args:
      experiment: what is trained.
      state: its state, which is not changed.
      step: updates made so far.
      mesh, compile, asked: as `jdlopt.train.program.training_programs` takes them.
      opened: closes what reads batches.
    """
    if experiment.streams:
        return _Streamed(experiment, state, step, mesh, compile, asked, opened)
    return _InMemory(experiment, state, mesh, compile, asked)


class _InMemory:
    """Trains on a split that lies in device memory, several steps a dispatch."""

    waited = 0.0

    def __init__(
        self,
        experiment: Experiment,
        state: TrainState,
        mesh: Mesh,
        compile: Compiler,
        asked: Dispatch | int | None,
    ):
        config = experiment.config
        self.seed, self.batch_size = config.seed, config.data.batch_size
        self.order = experiment.order
        arrays = experiment.data.read("train")
        self.size = len(arrays.targets)
        data = {"inputs": arrays.inputs, "targets": arrays.targets}
        said = taught(experiment, arrays.inputs)
        if said is not None:
            data[TEACHER] = said
        data = meshes.put(stored(data), meshes.replicated(mesh))
        every = config.train.checkpoint_every
        self.dispatch, self._program = training_programs(
            state,
            data,
            self.batch_size,
            train_step=experiment.train_step,
            mesh=mesh,
            compile=compile,
            longest=min(experiment.eval_every, every) if every else experiment.eval_every,
            asked=asked,
            configured=config.train.steps_per_dispatch,
            agree=processes.agree,
        )

    def __call__(self, state: TrainState, step: int, most: int) -> tuple[TrainState, Values, int]:
        """Dispatches steps, as `Execution` says."""
        count = min(self.dispatch.steps, most)
        with TraceAnnotation(FEED):
            examples = feed.batch_examples(
                self.seed, step, self.batch_size, self.size, count, order=self.order
            )
        with TraceAnnotation(DISPATCH):
            return *self._program(state, examples), count


class _Streamed:
    """Trains on batches that are read beside it, one step a dispatch."""

    def __init__(
        self,
        experiment: Experiment,
        state: TrainState,
        step: int,
        mesh: Mesh,
        compile: Compiler,
        asked: Dispatch | int | None,
        opened: ExitStack,
    ):
        config, sharding = experiment.config, meshes.batch_sharding(mesh)
        batch_size = config.data.batch_size
        read = feed.stream(
            experiment.data.records("train"),
            seed=config.seed,
            batch_size=batch_size,
            first_step=step,
            rows=meshes.local_rows(sharding, batch_size),
            order=experiment.order,
            workers=config.data.workers,
        )
        self._watching = opened.enter_context(ThreadPoolExecutor(1))
        batches = opened.enter_context(closing(feed.prefetched(read, sharding, batch_size)))
        first = next(batches)
        self.dispatch, self._program = streaming_program(
            state, first, train_step=experiment.train_step, mesh=mesh, compile=compile, asked=asked
        )
        self._batches = itertools.chain([first], batches)
        self._busy: Future[float] | None = None
        self.waited = 0.0

    def __call__(self, state: TrainState, step: int, most: int) -> tuple[TrainState, Values, int]:
        """Dispatches a step, as `Execution` says."""
        asked = time.perf_counter()
        with TraceAnnotation(FEED):
            batch = next(self._batches)
        got = time.perf_counter()
        if self._busy is None or self._busy.done():  # otherwise the device had work all the while
            free_since = self._busy.result() if self._busy else asked
            self.waited += max(0.0, got - max(asked, free_since))
        with TraceAnnotation(DISPATCH):
            state, values = self._program(state, batch)
        self._busy = self._watching.submit(_when_ready, values["loss"])
        return state, values, 1


def _when_ready(value: object) -> float:
    """The time when the device has computed a value."""
    jax.block_until_ready(value)
    return time.perf_counter()
