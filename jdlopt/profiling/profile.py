"""`profile`: a few steps of a run, traced as they are trained, and what their time went to."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.profiler import ProfileData, ProfileOptions, TraceAnnotation

from jdlopt import config as configs
from jdlopt import memory, writing
from jdlopt import mesh as meshes
from jdlopt.data import given, notes
from jdlopt.errors import UserError, WorkdirError
from jdlopt.profiling import reading, sources, trace
from jdlopt.profiling.record import PROFILE, TRACE, Profile
from jdlopt.train import disk, features, log, processes, serve
from jdlopt.train.compiling import Compiler
from jdlopt.train.components import clean_given
from jdlopt.train.execution import Execution, Values, make_execution
from jdlopt.train.experiment import Experiment
from jdlopt.train.pending import IN_FLIGHT
from jdlopt.train.program import Dispatch, state_sharding
from jdlopt.train.result import read_result
from jdlopt.train.schema import resolve_data
from jdlopt.train.state import TrainState

WINDOW = "jdlopt: profile"
SECONDS = 2.0
"""About how long is traced where nobody says how many steps."""
LEAST, MOST = 5, 200
"""Steps that are traced then, at least and at most."""
WARM_UP = 3
"""Dispatches before the trace: the first ones allocate."""


def profile(
    what: configs.AnyConfig | str | Path,
    workdir: str | Path | None = None,
    *,
    steps: int | None = None,
    data: object = None,
    allow_code: configs.Allowed = False,
) -> Profile:
    """Profiles some training steps of a config, or of a run, and says where their time goes.

    The steps are dispatched as `jdlopt.fit` does, with the same feed, from fresh parameters: their
    values are not kept. Programs are compiled anew, past any cache. Of several processes, all of
    which call it, each keeps a trace, and the numbers are those of the first.

    Args:
      what: a config, or the directory of a run, whose data are opened again.
      workdir: where ``profile.json`` and the trace are written; by default the run's directory. Of
        a config without it nothing is written.
      steps: how many are traced; by default what takes about two seconds.
      data: of a config, what it is trained on instead of ``data.source``, as `jdlopt.fit` takes it.
      allow_code: import the parts that a run's config names by dotted path.

    Raises:
      UserError: there is no run, its data are gone, the config is wrong, or ``steps`` is below 1.
    """
    if steps is not None and (isinstance(steps, bool) or steps < 1):
        raise UserError(f"--steps: {steps!r} steps can't be traced; at least 1 is needed.")
    started = time.perf_counter()
    memory.keep()
    run = Path(what) if isinstance(what, str | Path) else None
    if run is not None and data is not None:
        raise UserError("profile: data are given with a config; a run has its own.")
    place = run if workdir is None else Path(workdir)
    if place is not None:
        _check_place(place, run)
    with _compiled_anew():
        if isinstance(what, str | Path):
            experiment = serve.experiment_with_data(what, allow_code, trains=True)
        else:
            experiment = _built(what, data)
        if run is None and jax.process_index() == 0:
            notes.say(experiment.data.notes)
        asked = None if run is None else _dispatched(run)
        return _profiled(experiment, place, steps, asked, started)


def _built(config: configs.AnyConfig, data: object) -> Experiment:
    if data is None:
        return Experiment.build(config)
    config = given.named(configs.to_dict(config), data)
    return Experiment.build(config, clean_given(resolve_data(config), data), check=True)


def _check_place(place: Path, run: Path | None) -> None:
    """Raises a `WorkdirError` where a profile would lie in another run's directory."""
    if run is not None and place.resolve() == run.resolve():
        return
    if (place / log.CONFIG).exists():
        raise WorkdirError(
            f"--workdir: {place} holds a run, and this would be another's profile. Profile the run "
            f"itself, `jdlopt profile {place}`, or choose another directory."
        )


@contextlib.contextmanager
def _compiled_anew() -> Iterator[None]:
    """Takes no program from jax's cache meanwhile.

    It keeps programs by what they compute: one found there may have another file's lines.
    """
    name = "jax_enable_compilation_cache"
    before = getattr(jax.config, name)
    jax.config.update(name, False)
    compilation_cache.reset_cache()  # else jax goes by what it found when it first compiled
    try:
        yield
    finally:
        jax.config.update(name, before)
        compilation_cache.reset_cache()


def _dispatched(run: Path) -> Dispatch | None:
    """How a run's steps were dispatched, as its result says; None where it does not."""
    found = (read_result(run) or {}).get("dispatch")
    if not isinstance(found, dict):
        return None
    mode, steps = found.get("mode"), found.get("steps")
    if mode not in ("step", "loop") or not isinstance(steps, int) or steps < 1:
        return None
    return Dispatch(mode, steps, "resumed", {})


# --- the run --------------------------------------------------------------------------------------


def _profiled(
    experiment: Experiment,
    place: Path | None,
    steps: int | None,
    asked: Dispatch | None,
    started: float,
) -> Profile:
    compiled: list[jax.stages.Compiled] = []
    experiment = dataclasses.replace(experiment, traced_once=False)  # for the lines of source
    config, compile = experiment.config, Compiler(compiled.append)
    if place is not None and jax.process_index() == 0:
        _remove_others(place)
    mesh = meshes.make_mesh(config.mesh)
    with ExitStack() as opened:
        state = _initial(experiment, mesh)
        if config.train.cache_features:
            weights = experiment.weights(state)
            experiment = features.cached(experiment, weights, mesh, compile)
        held = reading.held(state)
        choice = asked or config.train.steps_per_dispatch
        execution = make_execution(experiment, state, 0, mesh, compile, choice, opened)
        build_seconds = time.perf_counter() - started - compile.seconds
        state, step, each = _warmed_up(execution, state)
        each = processes.agree(each)
        steps = steps or int(np.clip(SECONDS / each, LEAST, MOST))
        folder = opened.enter_context(_traced_into(place, trace_of(jax.process_index())))
        _traced(execution, state, step, steps, folder)
        (file,) = folder.rglob("*.xplane.pb")
        read = [sources.read_program(one.as_text() or "") for one in compiled]
        programs = {one.name: one for one in read}
        raw = ProfileData.from_file(str(file))
        found = trace.read(raw, WINDOW, partial(reading.holds_others, programs))
    operations = reading.operations(found, programs)
    # the step was compiled in two ways, of which one ran
    ran = {one.program for one in operations}
    mains = [pair for pair in zip(compiled, read, strict=True) if pair[1].name in ran]
    record = Profile(
        model=config.model.name,
        source=config.data.source,
        device=mesh.devices.flat[0].device_kind,
        devices=mesh.size,
        processes=jax.process_count(),
        mode=execution.dispatch.mode,
        steps_per_dispatch=execution.dispatch.steps,
        batch_size=config.data.batch_size,
        steps=steps,
        seconds=1e-9 * (found.last - found.first),
        shares=trace.shares(found),
        host=trace.host_seconds(found),
        compile_seconds=compile.seconds,
        build_seconds=build_seconds,
        operations=reading.shown(operations),
        lines=reading.lines(operations),
        memory=reading.memory(*mains[-1], held, mesh) if mains else None,
        trace="" if place is None else TRACE,
        versions=log.versions(),
    )
    if place is not None and jax.process_index() == 0:
        made = disk.as_json(record.to_dict())
        log.write_aside(place / PROFILE, json.dumps(made, indent=1) + "\n")
    return record


def _initial(experiment: Experiment, mesh: jax.sharding.Mesh) -> TrainState:
    """A state before the first step, of random parameters, on the devices."""
    init, hparams = partial(experiment.init, experiment.config.seed), experiment.hparams
    shapes = jax.eval_shape(init, hparams)
    shardings = state_sharding(mesh, shapes, experiment.config.mesh.rules)
    placed = meshes.put(hparams, meshes.replicated(mesh))
    return jax.jit(init, out_shardings=shardings)(placed)


def _warmed_up(execution: Execution, state: TrainState) -> tuple[TrainState, int, float]:
    """Makes the first dispatches; returns the state, the step, and about how long a step takes."""
    step, each = 0, 0.0
    for _ in range(WARM_UP):
        began = time.perf_counter()
        state, values, count = execution(state, step, MOST)
        jax.block_until_ready(values)
        step, each = step + count, (time.perf_counter() - began) / count
    return state, step, each


def _traced(execution: Execution, state: TrainState, first: int, steps: int, folder: Path) -> None:
    """Traces steps as `fit` makes them: dispatched ahead, their values read late."""
    options = ProfileOptions()
    options.python_tracer_level = 0  # it would slow what is measured
    step, last = first, first + steps
    waiting: deque[Values] = deque()
    try:
        jax.profiler.start_trace(str(folder), create_perfetto_trace=True, profiler_options=options)
    except RuntimeError as error:
        raise UserError(
            f"profile: {str(error).rstrip('.')}. Stop the other trace first."
        ) from error
    processes.all_say("ready")  # else the first step would wait for who is late
    try:
        with TraceAnnotation(WINDOW):
            while step < last:
                with jax.profiler.StepTraceAnnotation("train", step_num=step):
                    state, values, count = execution(state, step, last - step)
                waiting.append(values)
                step += count
                if len(waiting) > IN_FLIGHT:
                    jax.device_get(waiting.popleft())
            jax.device_get(list(waiting))
            jax.block_until_ready(state)  # which may take longer than the values
    finally:
        jax.profiler.stop_trace()


def trace_of(process: int) -> str:
    """Returns the folder of a process's trace: the first one's is that of the record."""
    return f"{TRACE}-{process}" if process else TRACE


def _remove_others(place: Path) -> None:
    """Removes the traces of other processes, of which there may be fewer now."""
    for folder in place.glob(f"{TRACE}-*"):
        if re.fullmatch(rf"{TRACE}-\d+", folder.name) and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _traced_into(place: Path | None, name: str) -> Iterator[Path]:
    """Makes an empty folder for a trace; at the end it is that of a directory, in another's place.

    Args:
      place: the directory; None keeps nothing.
      name: of the folder in it.
    """
    if place is None:
        with tempfile.TemporaryDirectory(prefix="jdlopt-profile-") as made:
            yield Path(made)
        return
    beside, folder = place / f".{name}.writing", place / name
    try:
        writing.make_folder(place)
        writing.refuse_links(place, name, beside.name)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
    except OSError as error:
        raise WorkdirError(
            f"--workdir: {place} can't be written: {error.strerror}. Choose another directory."
        ) from error
    try:
        yield beside
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
