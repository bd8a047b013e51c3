"""How a coordinator opens a study: the config is checked by its workers, the storage is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt.errors import ConfigError, UserError, WorkdirError
from jdlopt.study import records
from jdlopt.study import space as spaces
from jdlopt.study.options import Options
from jdlopt.study.search import BEST, POPULATIONS, STUDY, TRIALS, Search, StudyProgress
from jdlopt.study.workers import Workers

MOST_POINTS = 10_000
"""Points that a grid may have."""


def claim(workdir: Path, storage: str | None = None) -> None:
    """Makes the directory, or checks that a study may go on in it.

    Raises:
      WorkdirError: it holds a run, or files that are not a study's; or it can't be written.
    """
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"--workdir: {workdir} is a file; name a directory.")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
        there = {path.name for path in workdir.iterdir()}
    except OSError as error:
        raise WorkdirError(
            f"--workdir: {workdir} can't be written: {error.strerror}. Choose another."
        ) from error
    if "config.json" in there and STUDY not in there:
        raise WorkdirError(
            f"--workdir: {workdir} is a run's directory, not a study's; choose another."
        )
    known = {STUDY, "study.db", "study.db-wal", "study.db-shm", "study.db-journal", BEST, TRIALS,
             POPULATIONS, records.CURVES, records.PARTS, "report.html"}  # fmt: skip
    if storage is not None:
        known |= {name for name in there if name.startswith(Path(storage).name)}
    strange = sorted(name for name in there - known if not name.startswith("."))
    if strange and STUDY not in there and "study.db" not in there:
        raise WorkdirError(f"--workdir: {workdir} holds {strange[0]} but no study; choose another.")


def traced_keys(space: spaces.Space) -> set[str]:
    """Returns the keys whose values are traced: they need no program of their own."""
    return {
        key
        for key, one in space.items()
        if key.startswith(("model.", "loss.", "optim.", "data.augment."))
        and (
            one.kind in ("uniform", "log_uniform")
            or (one.kind == "choice" and all(type(v) is float for v in one.choices))
        )
    }


def open_search(
    config: dict[str, Any],
    texts: dict[str, str],
    space: spaces.Space,
    workdir: Path,
    options: Options,
    workers: Workers,
    opened: Any,
    started: float,
    on_progress: Callable[[StudyProgress], None] | None,
) -> Search:
    """Has the workers check everything and opens the study in its storage.

    Args:
      config: the base experiment; ``texts`` are overrides whose types only its schema knows.
      space: what is searched.
      workdir, options, on_progress: as `tune` was given them.
      workers: just started.
      opened: the storage.
      started: when the call began.

    Raises:
      ConfigError, UserError: the input is wrong.
      WorkdirError: the study there is another one.
    """
    import pyarrow.parquet  # noqa: F401  # a second, while the workers start as well

    from jdlopt.study.mirror import Mirror
    from jdlopt.study.storage import Book

    traced = traced_keys(space)
    if options.folds is not None:
        config = configs.to_dict(
            configs.override(config, {"data.folds": options.folds, "data.fold": 0})
        )
    check = {
        "do": "check", "task": None, "config": config, "overrides": texts,
        "space": spaces.to_json(space), "folds": list(range(options.folds or 0)) or None,
        "objectives": list(options.objectives), "traced": sorted(traced),
    }  # fmt: skip
    for worker in workers.all.values():
        worker.tell(check)  # all open the data and build the parts; the first answer counts
    grid = _grid(space, options)
    facts = _answer(workers)
    objectives = [{"name": name, "direction": way} for name, way in facts["directions"].items()]
    if options.halving and len(objectives) > 1:
        raise UserError("--halving: compares by one objective; there are several here.")
    own = configs.to_dict(facts["config"])
    definition = {
        "config": own,
        "space": spaces.to_json(space),
        "objectives": objectives,
        **options.definition(),
    }
    directions = [one["direction"] for one in objectives]
    book = Book(
        opened, options.study_name or "study", directions, json.loads(json.dumps(definition))
    )
    if grid is not None and options.trials is None:
        options = options.replaced(trials=len(grid))
    return Search(
        config=own,
        space=space,
        traced=traced,
        workdir=workdir,
        options=options,
        objectives=objectives,
        facts=facts,
        book=book,
        mirror=Mirror(options.sampler, options.seed, book.slot, directions, space),
        grid=grid,
        workers=workers,
        started=started,
        deadline=None if options.budget is None else started + options.budget,
        on_progress=on_progress,
    )


def _grid(space: spaces.Space, options: Options) -> list[dict[str, Any]] | None:
    if options.sampler != "grid":
        return None
    found = []
    for point in spaces.points(space):
        found.append(point)
        if len(found) > MOST_POINTS:
            raise UserError(
                f"--sampler=grid: the space has more than {MOST_POINTS:,} points; use fewer "
                "values or keys, or another sampler."
            )
    return found


def _answer(workers: Workers) -> dict[str, Any]:
    """Waits for the check's answer."""
    known: dict[str, Any] = {"platform": "cpu", "devices": []}
    while True:
        _, message = workers.messages.get()
        if message["event"] == "ready":
            known = {name: message[name] for name in known}
        elif message["event"] == "ended":
            raise RuntimeError(f"a worker ended with code {message['code']} before it worked")
        elif message["event"] == "failed":
            if message["kind"] == "user":
                raise ConfigError(message["message"])
            raise RuntimeError(message["traceback"])
        else:
            return {**message, **known}
