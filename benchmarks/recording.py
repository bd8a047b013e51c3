"""What every benchmark records beside its numbers: the machine, the versions, the spread."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Returns what the numbers hold for."""
    import jax

    from jdlopt.train.log import versions

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "versions": versions(),
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns mean, standard deviation, median and range of repeated measurements."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def alternating(runs: dict[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Returns each run's measurements, taken in turn so that drift meets all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repetitions):
        for name, run in runs.items():
            found[name].append(run())
    return found


def write(name: str, record: dict[str, Any], keep: bool = False) -> None:
    """Writes ``results/NAME.json`` and says where.

    Args:
      name: of the file.
      record: what was measured.
      keep: whether parts of an earlier record that this one lacks stay.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    here = machine()
    if keep and path.exists():
        old = json.loads(path.read_text())
        record = {**{k: v for k, v in old.items() if k != "date" and k not in here}, **record}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    path.write_text(json.dumps({"date": today, **here, **record}, indent=2) + "\n")
    print(f"written: {path.relative_to(Path(__file__).parent.parent)}")
