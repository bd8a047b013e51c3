"""jdlopt makes deep-learning models better and proves it: the tuning playbook, executable.

The front door: what a person types is here, and is loaded when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jdlopt.compress.compress import compress
    from jdlopt.config import load
    from jdlopt.evidence.ablate import ablate
    from jdlopt.evidence.compare import compare
    from jdlopt.evidence.diagnose import diagnose
    from jdlopt.evidence.improve import improve
    from jdlopt.plan.plan import plan
    from jdlopt.profiling.profile import profile
    from jdlopt.report import write_report
    from jdlopt.starter.make import init
    from jdlopt.study.tune import tune
    from jdlopt.train.experiment import Experiment
    from jdlopt.train.loop import fit
    from jdlopt.train.run import Run, open_run

__version__ = "0.1.0"

__all__ = [
    "Experiment",
    "Run",
    "ablate",
    "compare",
    "compress",
    "diagnose",
    "fit",
    "improve",
    "init",
    "load",
    "open_run",
    "plan",
    "profile",
    "tune",
    "write_report",
]

_PLACES = {
    "Experiment": "jdlopt.train.experiment",
    "Run": "jdlopt.train.run",
    "ablate": "jdlopt.evidence.ablate",
    "compare": "jdlopt.evidence.compare",
    "compress": "jdlopt.compress.compress",
    "diagnose": "jdlopt.evidence.diagnose",
    "fit": "jdlopt.train.loop",
    "improve": "jdlopt.evidence.improve",
    "init": "jdlopt.starter.make",
    "load": "jdlopt.config",
    "open_run": "jdlopt.train.run",
    "plan": "jdlopt.plan.plan",
    "profile": "jdlopt.profiling.profile",
    "tune": "jdlopt.study.tune",
    "write_report": "jdlopt.report",
}


def __getattr__(name: str) -> object:
    """Loads what the front door names."""
    if name not in _PLACES:
        raise AttributeError(f"module 'jdlopt' has no attribute {name!r}")
    found = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Returns what the front door has, loaded or not."""
    return sorted({*globals(), *__all__})
