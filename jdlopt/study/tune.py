"""``tune``: draws points of a space, has workers train them as populations, keeps the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jdlopt import config as configs
from jdlopt.data import notes
from jdlopt.executor.executor import Executor
from jdlopt.study import WORKER
from jdlopt.study import space as spaces
from jdlopt.study.enqueue import checked
from jdlopt.study.options import Options
from jdlopt.study.setup import StudyProgress, StudyResult, claim, set_up

__all__ = ["StudyProgress", "StudyResult", "tune"]


def tune(
    config: Mapping[str, object],
    space: spaces.Space,
    workdir: str | Path,
    options: Options | None = None,
    on_progress: Callable[[StudyProgress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    enqueue: Sequence[Mapping[str, object]] = (),
) -> StudyResult:
    """Searches a space around a config; goes on where an earlier call in the directory stopped.

    Args:
      config: the base experiment, as `jdlopt.config.load` gives it. Keys that refer to one that is
        searched follow it in every trial.
      space: from dotted keys to distributions, as `jdlopt.study.space.check` returns it.
      workdir: the study's directory.
      options: how to search.
      on_progress: called when something is known anew.
      should_stop: asked about ten times a second; True interrupts the study, to be gone on with.
      enqueue: points to train first, beside those of the options: from some keys of the space to
        values. A point that the study has had already is not trained again.

    Returns:
      The result, also written to ``study.json``.

    Raises:
      ConfigError, DataError, UserError: the input is wrong; nothing was trained. Or the environment
        failed (a full disk, too little memory); what was finished is kept.
      WorkdirError: the directory holds something else, or another study.
      Interrupted: ``should_stop()`` said so; what was finished is kept.
    """
    options = options or Options()
    options = options.replaced(enqueue=(*options.enqueue, *enqueue))
    started = time.perf_counter()
    workdir = Path(workdir)
    options.check()
    space = spaces.check(space)
    checked(space, options.enqueue)
    claim(workdir, options.storage)
    asked = {
        key: value
        for key, value in configs.flat(config).items()
        if isinstance(value, configs.Override | configs.PartName)
    }
    texts = {key: str(configs.text_of(value)) for key, value in asked.items()}
    same = {key for key, value in asked.items() if key.endswith(".name") and not value.inherited}
    unknown = {key: text if key in same else None for key, text in texts.items()}
    plain = configs.to_dict(configs.override(config, unknown))
    deadline = None if options.budget is None else started + options.budget
    # workers import while this process does
    executor = Executor.start(WORKER, options.workers, deadline, options.workers_on, workdir)
    try:
        from jdlopt.study import database
        from jdlopt.study.search import Search

        database.quiet()
        references = configs.References(config)
        setup = set_up(plain, texts, references, space, workdir, options, executor)
        with database.opened(options.storage, workdir) as storage:
            search = Search(setup, storage, executor, started, on_progress)
            notes.say(setup.notes)
            if setup.weights:
                notes.say_line(setup.weights)
            return search.run(should_stop)
    finally:
        executor.close()
