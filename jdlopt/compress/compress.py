"""``compress``: a run made smaller or faster by stages, each candidate tested against a margin.

The baseline is the run's config on paired seeds, its own seed among them with its own weights. Each
candidate starts from each seed's own baseline weights. Its loss is a paired difference on the
validation split, its interval holds at every look, and it is accepted if that lies within the
margin. The test split is looked at once, with what was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt.compress import choice, timing
from jdlopt.compress.ending import CHOSEN, measure_costs, of_test, save_chosen
from jdlopt.compress.entry import Candidate, Given, Method
from jdlopt.compress.methods import METHODS
from jdlopt.compress.options import CompressionOptions
from jdlopt.compress.stages import Bench
from jdlopt.compress.work import COMPRESSION, Work, play
from jdlopt.errors import UserError, WorkdirError
from jdlopt.evidence.records import claim, is_of_other_data, keep_data, save
from jdlopt.evidence.sides import Side, default_metric, metric_of
from jdlopt.evidence.techniques import facts_of
from jdlopt.evidence.trainer import ENDED_WELL, Trainer
from jdlopt.evidence.within import check_within, read_within
from jdlopt.study import schema
from jdlopt.train import checkpoint, checksums, log, serve
from jdlopt.train.run import Run, open_run

COMPRESSED = "compressed"
RESERVE = 0.1
"""Of the budget, what is kept for timing predictions and for the end."""


def compress(
    run: Run | str | Path,
    within: str | float,
    workdir: str | Path | None = None,
    *,
    allow_code: configs.Allowed = False,
    on_progress: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> dict[str, Any]:
    """Makes a finished run smaller or faster, as far as its loss stays within a margin.

    Args:
      run: a finished run, or its directory.
      within: what may be lost, see `CompressionOptions`.
      workdir: where all is kept; ``compressed`` in the run's directory by default. The same call
        goes on there.
      allow_code: which dotted paths in the run's records may be imported.
      on_progress: called with a line for people when something is known anew.
      should_stop: True interrupts, to be gone on with.
      options: the other fields of `CompressionOptions`.

    Returns:
      The content of ``compress.json``. The chosen model is the run in ``chosen``, if any is.

    Raises:
      UserError: the input is wrong: nothing was trained.
      WorkdirError: the directory is another's, or of other data, or can't be written.
      Interrupted: ``should_stop()`` said so.
    """
    asked = CompressionOptions(within=str(within), **options)
    place = run.workdir if isinstance(run, Run) else Path(run)
    allow_code = run.allow_code if isinstance(run, Run) else allow_code
    if place is None:
        raise UserError("compress: the run is in memory alone; fit it in a directory.")
    return compress_run(place, workdir, asked, allow_code, on_progress, should_stop)


def compress_run(
    place: Path,
    workdir: str | Path | None,
    options: CompressionOptions,
    allow_code: configs.Allowed = False,
    on_progress: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Does what `compress` does, with its options as one."""
    started = time.perf_counter()
    options.check()
    workdir = place / COMPRESSED if workdir is None else Path(workdir)
    source = _finished(place, allow_code)
    experiment = serve.experiment_with_data(place, allow_code, options.changed_data)
    weights = serve.load_weights(experiment, place, "best")[0]
    side = Side(experiment, source.config)
    metric = metric_of(side, options.metric or default_metric(experiment.spec.task))
    within = read_within(options.within)
    check_within(within, metric)
    given = Given(place, experiment, weights, facts_of(experiment.config, experiment.data))
    methods, refused = _applicable(given, options.methods)
    timing.check(options.runtime, given)
    claim(workdir, COMPRESSION, {"run": _digest(place), "metric": metric})
    changed = is_of_other_data(workdir, experiment.data, options.changed_data)
    earlier = _earlier(workdir)
    with Trainer(
        workdir,
        workers=options.workers,
        workers_on=options.workers_on,
        should_stop=should_stop,
    ) as trainer:
        keep_data(workdir, experiment.data, changed)
        trainer.deadline = started + options.budget * (1 - RESERVE) - earlier
        bench = Bench(given, side, trainer, metric)
        work = Work(
            bench=bench,
            options=options,
            within=within,
            started=started,
            earlier=earlier,
            refused=refused,
            on_progress=on_progress,
        )
        why = play(work, methods)
        trainer.deadline = None
        work.say("timing predictions")
        measure_costs(work)
        best = choice.chosen(list(work.rows.values()), work.baseline, options.prefer)
        record = work.record("done", why, best)
        if best is not None:
            made = save_chosen(work, source, workdir / CHOSEN, best)
            record |= {"directory": str(workdir / CHOSEN), "test": of_test(work, source, made)}
        save(workdir / COMPRESSION, record)
    return record


# --- before anything is trained -------------------------------------------------------------------


def _finished(place: Path, allow_code: configs.Allowed) -> Run:
    """The run, opened.

    Raises:
      UserError: it has not finished, or trained in a way that can't be repeated over seeds.
    """
    source = open_run(place, allow_code=bool(allow_code))
    source.allow_code = allow_code
    if source.status not in ENDED_WELL:
        raise WorkdirError(
            f"compress: the run in {place} has not finished (its status is {source.status!r}): "
            f"go on with `jdlopt train {place}` first."
        )
    if source.config.train.cache_features:
        raise UserError(
            "compress: the run was trained with train.cache_features, which is for a single run; "
            "train one without it."
        )
    return source


def _applicable(
    given: Given, names: Sequence[str]
) -> tuple[list[tuple[Method, tuple[Candidate, ...]]], dict[str, str]]:
    """The methods that can be used, with their candidates; and why the others can't.

    Raises:
      UserError: none can.
    """
    found, refused = list[tuple[Method, tuple[Candidate, ...]]](), dict[str, str]()
    for name in dict.fromkeys(names or METHODS):
        one = METHODS[name]
        reason, candidates = one.why_not(given), tuple[Candidate, ...]()
        if reason is None:
            try:
                candidates = one.candidates(given)
            except UserError as error:
                reason = str(error)
        if candidates:
            found.append((one, candidates))
        else:
            refused[name] = reason or "There is nothing to try on this run."
    if not found:
        told = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise UserError(f"--methods: none of them can be used on this run. {told}")
    return found, refused


def _digest(place: Path) -> str:
    """What tells a run's best weights from others."""
    kept = checkpoint.steps(place / log.CHECKPOINTS, "best")
    return checksums.fingerprint(checkpoint.place(place / log.CHECKPOINTS, kept[-1], "best"))


def _earlier(workdir: Path) -> float:
    """Seconds of the calls before; a damaged record is none, since trainings are kept apart."""
    try:
        return float(schema.read_object(workdir / COMPRESSION).get("seconds", 0.0))
    except (WorkdirError, ValueError, TypeError, AttributeError):
        return 0.0
