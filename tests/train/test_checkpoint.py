"""Checkpoints: a save that fails leaves no trace, on disk or in the process."""

from __future__ import annotations

import gc
import logging
import resource
import sys

import numpy as np
import pytest
from absl import logging as absl_logging

from jdlopt.errors import WorkdirError
from jdlopt.train import checkpoint, checksums


def global_state():
    log = logging.getLogger("asyncio")
    return list(log.filters), log.level, absl_logging.get_verbosity(), sys.unraisablehook


@pytest.mark.slow
def test_a_save_that_fails_changes_no_logging_and_reports_nothing_later(tmp_path, caplog):
    tree = {"weights": np.arange(200_000, dtype=np.float32)}
    checkpoint.save(tmp_path, 1, tree, {"step": 1})
    before = global_state()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(WorkdirError, match="step-1, is intact"):
            checkpoint.save(tmp_path, 2, tree, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert global_state() == before
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
    assert checkpoint.steps(tmp_path) == [1]
    assert checksums.damage(checkpoint.place(tmp_path, 1)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
