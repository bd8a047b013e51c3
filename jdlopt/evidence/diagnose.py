"""`diagnose`: what holds a run back, from its own records and a probe of its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt.evidence.findings import find
from jdlopt.evidence.gather import gather
from jdlopt.train import disk, log

DIAGNOSIS = "diagnosis.json"


def diagnose(
    workdir: str | Path,
    *,
    lr_range: bool = False,
    allow_code: configs.Allowed = False,
    on_progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Diagnoses a run, finished, diverged or not ended yet, and writes ``diagnosis.json``.

    The test split is not opened.

    Args:
      workdir: the run's directory.
      lr_range: run the learning-rate range test however long it takes; otherwise it is run where
        it takes a few seconds.
      allow_code: import the parts that the run's config names by dotted path (all, or these).
      on_progress: called with a line for people before each part that takes time.

    Returns:
      ``findings``, the most important first, each with ``name``, ``level`` (``serious``,
      ``warning``, ``note`` or ``good``), ``text``, ``suggestion``, ``numbers``, ``techniques`` and
      ``score``; ``unseen``, what could not be looked at and why; and ``record``, the numbers.

    Raises:
      WorkdirError: the directory holds no run, or can't be written.
    """
    folder = Path(workdir)
    record = gather(folder, lr_range, allow_code, on_progress)
    found = {
        "workdir": str(folder),
        "findings": [one.as_dict() for one in find(record)],
        "unseen": record["unseen"],
        "record": record,
    }
    made = disk.as_json(found)
    log.write_aside(folder / DIAGNOSIS, json.dumps(made, indent=1) + "\n")
    return made
