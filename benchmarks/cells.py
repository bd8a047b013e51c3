"""What the cells of a table of results say: numbers with their spread, machines and peers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Row = tuple[str, str, str, str]


def load(name: str) -> dict[str, Any] | None:
    """Returns a recorded result, or None if it was never measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def where(record: dict[str, Any]) -> str:
    """Returns the machine in words."""
    return f"{record['cores']} cores of an {record['cpu']}"


def percent(found: dict[str, float]) -> str:
    """Returns mean ± standard deviation of an accuracy."""
    return f"{100 * found['mean']:.1f} ± {100 * found['std']:.1f} %"


def closely(found: dict[str, float]) -> str:
    """Returns mean ± standard deviation of an accuracy near its ceiling."""
    return f"{100 * found['mean']:.2f} ± {100 * found['std']:.2f} %"


def times(ratio: dict[str, float], digits: int) -> str:
    """Returns a ratio's median and its range."""
    median, low, high = (f"{ratio[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} × ({low} to {high})"


def points(gain: dict[str, Any], digits: int = 1) -> str:
    """Returns a gain in accuracy and its interval, in percentage points."""
    mean, low, high = (f"{100 * one:+.{digits}f}" for one in (gain["mean"], *gain["interval"]))
    return f"{mean} points ({low} to {high})"


def pytorch(measured: dict[str, Any], record: dict[str, Any]) -> str:
    """Returns PyTorch's version and threads, as the peer of one of a script's records."""
    version, threads = measured["torch"].partition("+")[0], record["peer"].partition(", ")[2]
    return f"PyTorch {version} eager, {threads}"


def quality(record: dict[str, Any]) -> str:
    """Returns a config's test metric in words."""
    metrics = record["metrics"]
    if "test/accuracy" in metrics:
        return f"{percent(metrics['test/accuracy'])} test accuracy"
    rmse, r2 = metrics["test/rmse"], metrics["test/r2"]
    return f"{rmse['mean']:.1f} ± {rmse['std']:.1f} test RMSE (R² {r2['mean']:.2f})"
