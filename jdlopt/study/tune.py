"""``tune``: draws points of a space, has workers train them as populations, keeps what came."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from jdlopt import config as configs
from jdlopt.errors import Interrupted
from jdlopt.study import space as spaces
from jdlopt.study.opening import claim, open_search
from jdlopt.study.options import Options
from jdlopt.study.search import Search, StudyProgress, StudyResult, is_late
from jdlopt.study.workers import Workers, default_workers

__all__ = ["StudyProgress", "StudyResult", "tune"]

LOOK_SECONDS, IDLE_SECONDS = 15.0, 1.0
"""How often the storage is read for what others did: with work of one's own, and without."""
PATIENCE_SECONDS = 60.0
"""How long an interrupted study waits for its workers to save."""


def tune(
    config: Mapping[str, Any],
    space: spaces.Space,
    workdir: str | Path,
    options: Options | None = None,
    on_progress: Callable[[StudyProgress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StudyResult:
    """Searches a space around a config; goes on where an earlier call in the directory stopped.

    Args:
      config: the base experiment, as `jdlopt.config.load` gives it.
      space: from dotted keys to distributions, as `jdlopt.study.space.check` returns it.
      workdir: the study's directory.
      options: how to search.
      on_progress: called when something is known anew.
      should_stop: asked about ten times a second; True interrupts the study, to be gone on with.

    Returns:
      The result, also written to ``study.json``.

    Raises:
      ConfigError, DataError, UserError: the input is wrong; nothing was trained.
      WorkdirError: the directory holds something else, or another study.
      Interrupted: ``should_stop()`` said so; what was finished is kept.
    """
    options = options or Options()
    started = time.perf_counter()
    workdir = Path(workdir)
    options.check()
    space = spaces.check(space)
    claim(workdir, options.storage)
    texts = {
        key: value.text
        for key, value in configs.flat(config).items()
        if isinstance(value, configs.Override)
    }
    plain = configs.to_dict(configs.override(config, dict.fromkeys(texts)))
    count = options.workers or default_workers()
    workers, opened = Workers(count, one_core=count > 1), None  # they import while this one does
    try:
        from jdlopt.study import storage

        storage.quiet()
        opened = storage.open_storage(options.storage, workdir)
        with storage.told_as_user_error(options.storage):
            search = open_search(
                plain, texts, space, workdir, options, workers, opened, started, on_progress
            )
            return _run(search, should_stop)
    finally:
        workers.close()
        if opened is not None:
            storage.close_storage(opened)


def _run(search: Search, should_stop: Callable[[], bool]) -> StudyResult:
    """Draws, hands out and takes in until the budget is spent."""
    from jdlopt.study import dispatch, drawing, telling

    drawing.take_over(search)
    search.found = len(search.finished)
    telling.write_study(search, "running")
    dispatch.check_goal(search)
    looked = time.perf_counter()
    while True:
        drawing.advance(search)
        dispatch.hand_out(search)
        busy = any(worker.task for worker in search.workers.all.values())
        idle = not busy and not search.queue and not drawing.more(search)
        since = time.perf_counter() - looked
        if since > (IDLE_SECONDS if idle else LOOK_SECONDS):
            looked = time.perf_counter()
            drawing.adopt(search)
            dispatch.check_goal(search)
            telling.write_study(search, "running")
        elif idle and not drawing.others_work(search):
            return telling.finish(search, should_stop) or _leave(search)
        heard = search.workers.hear(0.1)
        if heard is not None:
            dispatch.hear(search, *heard)
        search.book.beat()
        if should_stop():
            _interrupt(search)
        if is_late(search) and not search.ended:
            dispatch.end(search, "the time budget ended")


def _interrupt(search: Search) -> None:
    """Has the workers save what they train, and leaves it to the next call."""
    from jdlopt.study import dispatch

    dispatch.interrupt(search)
    until = time.perf_counter() + PATIENCE_SECONDS
    while any(worker.task for worker in search.workers.all.values()):
        heard = search.workers.hear(0.5)
        if heard is not None:
            dispatch.hear(search, *heard)
        if time.perf_counter() > until:
            break
    _leave(search)


def _leave(search: Search) -> NoReturn:
    from jdlopt.study import telling

    telling.write_study(search, "interrupted")
    search.book.leave()
    raise Interrupted(
        f"interrupted after {len(search.finished)} trials; kept in {search.workdir}. The same "
        "command goes on from there."
    )
