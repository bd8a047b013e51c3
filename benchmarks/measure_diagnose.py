"""Plants known faults in runs, and records whether `diagnose` names the right one first.

    python benchmarks/measure_diagnose.py [--seeds=2] [--anew] [--keep=DIR] [NAME …]

Runs that are recorded already count: what is missing is added to them, unless ``--anew`` says no.
Beside faults stand sound runs, in which nothing serious should be found. Thresholds come from
literature and principle, not from these runs: docs/diagnose.md names the source of each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planted_faults import FAULTS, HEALTHY, ONCE
from recording import RESULTS, spread, write

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
        diagnose(folder / "run", allow_code=True)  # the faults bring models of their own
        times = {
            "training_seconds": trained - start,
            "seconds": time.perf_counter() - trained,
        }
        told.write_text(json.dumps({"seed": seed, "status": status, **times}))
    record = json.loads((folder / "run" / DIAGNOSIS).read_text())["record"]
    found = [[one.name, one.level] for one in find(record)]
    return {**json.loads(told.read_text()), "findings": found}


def measure(name: str, seeds: int, root: Path, before: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Measures one fault or sound run, seeds not recorded yet; returns all that is recorded."""
    faults = {one["fault"]: one["runs"] for one in before.get("by_fault", [])}
    sound = {one["run"]: one["runs"] for one in before.get("by_sound_run", [])}
    made = {name: fault.make for name, fault in FAULTS.items()}
    for recorded, makers in ((faults, made), (sound, HEALTHY)):
        if name not in makers:
            continue
        runs = recorded.setdefault(name, [])
        for seed in range(1 if name in ONCE else seeds):
            if any(run["seed"] == seed for run in runs):
                continue
            folder = root / name.replace(" ", "_").replace("/", "_") / str(seed)
            runs.append(diagnosed(makers[name], folder, seed))
            print(f"{name}: {runs[-1]['findings']} {runs[-1]['seconds']:.1f} s", flush=True)
    return {
        "by_fault": [fault_record(one, faults[one]) for one in FAULTS if one in faults],
        "by_sound_run": [sound_record(one, sound[one]) for one in HEALTHY if one in sound],
    }


def fault_record(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the runs of one fault, and whether the right finding came first."""
    fault = FAULTS[name]
    first = [run["findings"][0] if run["findings"] else None for run in runs]
    return {
        "fault": name,
        "what": fault.what,
        "expected": list(fault.expected),
        "right_first": [one is not None and one[0] in fault.expected for one in first],
        "runs": runs,
    }


def sound_record(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the runs of a sound config, and their serious findings."""
    serious = [[found for found, level in run["findings"] if level == "serious"] for run in runs]
    return {"run": name, "serious": serious, "runs": runs}


def main() -> None:
    """Measures the faults and sound runs that are asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="faults or sound runs; all by default")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--anew", action="store_true", help="measure what is recorded again")
    parser.add_argument(
        "--keep", type=Path, help="a folder that the runs are left in: the same call goes on there"
    )
    flags = parser.parse_args()
    unknown = sorted(set(flags.names) - {*FAULTS, *HEALTHY})
    if unknown:
        parser.error(f"{unknown[0]} is none of {', '.join((*FAULTS, *HEALTHY))}.")
    names = flags.names or [*FAULTS, *HEALTHY]
    path = RESULTS / "diagnose.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    if flags.anew:
        for key, label in (("by_fault", "fault"), ("by_sound_run", "run")):
            before[key] = [one for one in before.get(key, []) if one[label] not in names]
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            before = measure(name, flags.seeds, flags.keep or Path(scratch), before)
            record(before, flags.seeds)


def record(found: Mapping[str, list[Any]], seeds: int) -> None:
    """Writes all that is measured so far."""
    faults, sound = found["by_fault"], found["by_sound_run"]
    seconds = [run["seconds"] for one in (*faults, *sound) for run in one["runs"]]
    write(
        "diagnose",
        {
            "seeds_at_most": seeds,
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
