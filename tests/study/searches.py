"""Studies that train nothing: a search whose one worker is no process."""

from __future__ import annotations

import time

from fake import FakeProcesses

from jdlopt import config as configs
from jdlopt.executor.executor import Executor
from jdlopt.study import space as spaces
from jdlopt.study.options import Options
from jdlopt.study.search import Search
from jdlopt.study.setup import Setup, traced_keys

SPACE = spaces.check(
    {
        "optim.learning_rate": spaces.log_uniform(1e-3, 1.0),
        "model.dropout_rate": spaces.uniform(0.0, 0.5),
    }
)

DATA = {"splits": {"train": {"count": 9, "rows": None, "content": "a"}}}


def search(opened, workdir, space=SPACE, first=(), grid=None, data=DATA, **options):
    """Opens a study as `tune` does, with one worker that is no process."""
    asked = Options(width=4, **options)
    executor = Executor(FakeProcesses(), 1)
    executor.wait_ready()
    setup = Setup(
        references=configs.References(),
        config={"seed": 0}, resolved={"data": {"source": "x"}, "model": {"name": "mlp"}},
        space=space, traced=frozenset(traced_keys(space)),
        workdir=workdir, options=asked,
        objectives=[{"name": "validation/loss", "direction": "minimize"}],
        monitor="validation/loss", seed=0, first=tuple(first),
        grid=(grid or list(spaces.points(space))) if asked.sampler == "grid" else None,
        platform="cpu", devices=[], versions={}, data=data,
    )  # fmt: skip
    return Search(setup, opened, executor, time.perf_counter())
