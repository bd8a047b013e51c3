"""Plants known faults in runs, and records whether `diagnose` names the right one first.

    python benchmarks/measure_diagnose.py [--seeds=2] [--keep=DIR] [NAME …]

Beside them sound runs, in which nothing serious should be found. Thresholds come from literature
and principle, not from these runs: docs/diagnose.md names the source of each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from planted_faults import FAULTS, HEALTHY, ONCE
from recording import spread, write

from jdlopt.errors import DivergedError
from jdlopt.evidence.diagnose import DIAGNOSIS, diagnose
from jdlopt.evidence.findings import find
from jdlopt.train.loop import fit


def diagnosed(make: Any, folder: Path, seed: int) -> dict[str, Any]:
    """Trains one run and returns what is found in it; goes on where an earlier call stopped.

    What was measured of a run is kept; what it means is found anew.
    """
    told = folder / "told.json"
    if not told.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        status = "done"
        start = time.perf_counter()
        try:
            fit({**make(folder, seed), "mesh": {"data": 1}}, folder / "run")
        except DivergedError:
            status = "diverged"
        trained = time.perf_counter()
        diagnose(folder / "run")
        times = {
            "training_seconds": trained - start,
            "seconds": time.perf_counter() - trained,
        }
        told.write_text(json.dumps({"seed": seed, "status": status, **times}))
    record = json.loads((folder / "run" / DIAGNOSIS).read_text())["record"]
    found = [[one.name, one.level] for one in find(record)]
    return {**json.loads(told.read_text()), "findings": found}


def some_seeds(folder: Path, count: int, kept: bool) -> list[int]:
    """Returns the seeds that are measured: all, or those whose runs are there already."""
    return [s for s in range(count) if not kept or (folder / str(s) / "told.json").exists()]


def main() -> None:
    """Measures the faults and sound runs that are asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="faults or sound runs")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--keep", type=Path, help="a folder that the runs are left in: the same call goes on there"
    )
    parser.add_argument("--kept", action="store_true", help="record the runs in --keep, train none")
    flags = parser.parse_args()
    faults: list[dict[str, Any]] = []
    sound: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        root = flags.keep or Path(scratch)
        for name, fault in FAULTS.items():
            if flags.names and name not in flags.names:
                continue
            folder = root / name.replace(" ", "_")
            seeds = some_seeds(folder, flags.seeds, flags.kept)
            if not seeds:
                continue
            runs = [diagnosed(fault.make, folder / str(seed), seed) for seed in seeds]
            first = [run["findings"][0] if run["findings"] else None for run in runs]
            right = [one is not None and one[0] in fault.expected for one in first]
            expected = list(fault.expected)
            faults.append(
                {
                    "fault": name,
                    "what": fault.what,
                    "expected": expected,
                    "right_first": right,
                    "runs": runs,
                }
            )
            print(f"{name}: {'right' if all(right) else 'WRONG'}", flush=True)
            for run in runs:
                print(f"    {run['findings']} {run['seconds']:.1f} s", flush=True)
        for name, make in HEALTHY.items():
            if flags.names and name not in flags.names:
                continue
            folder = root / name.replace(" ", "_").replace("/", "_")
            seeds = some_seeds(folder, 1 if name in ONCE else flags.seeds, flags.kept)
            if not seeds:
                continue
            runs = [diagnosed(make, folder / str(seed), seed) for seed in seeds]
            serious = [
                [found for found, level in run["findings"] if level == "serious"] for run in runs
            ]
            sound.append({"run": name, "serious": serious, "runs": runs})
            print(f"{name}: serious {serious}", flush=True)
            for run in runs:
                print(f"    {run['findings']} {run['seconds']:.1f} s", flush=True)
    if flags.names:
        print("not written: only some were measured", file=sys.stderr)
        return
    seconds = [run["seconds"] for one in (*faults, *sound) for run in one["runs"]]
    write(
        "diagnose",
        {
            "seeds_at_most": flags.seeds,
            "faults_right_with_every_seed": sum(all(one["right_first"]) for one in faults),
            "faults": len(faults),
            "fault_runs_right": sum(sum(one["right_first"]) for one in faults),
            "fault_runs": sum(len(one["right_first"]) for one in faults),
            "sound_without_serious": sum(not any(one["serious"]) for one in sound),
            "sound": len(sound),
            "sound_runs_without_serious": sum(not s for one in sound for s in one["serious"]),
            "sound_runs": sum(len(one["serious"]) for one in sound),
            "seconds_to_diagnose": spread(seconds),
            "by_fault": faults,
            "by_sound_run": sound,
        },
    )


if __name__ == "__main__":
    main()
