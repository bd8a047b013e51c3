"""What trials came to: one record a trial, the best of them, the front, and the curves on disk."""

from __future__ import annotations

import contextlib
import math
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CURVES, PARTS = "curves.parquet", "curves"
TOLD = ("done", "pruned", "infeasible")


def infeasible(reason: str) -> dict[str, Any]:
    """Returns the record of a trial that was not trained, and why it has no value."""
    return {
        "state": "infeasible", "values": None, "interval": None, "members": [], "metrics": {},
        "steps": 0, "reason": reason,
    }  # fmt: skip


def of_trial(
    members: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    objectives: Sequence[Mapping[str, str]],
    monitor: str,
) -> dict[str, Any]:
    """Returns a trial's record from how its members ended.

    A trial is infeasible if one of its members diverged. Its values are means over the members; of
    the metrics, at each member's best evaluation.

    Args:
      members: as a worker tells of them.
      facts: of its population.
      objectives: name and direction of each.
      monitor: the metric that ``value`` of a member is.
    """
    bad = [member for member in members if member["status"] in ("diverged", "failed")]
    pruned = [member for member in members if member["status"] in ("pruned", "running")]
    state = "infeasible" if bad else "pruned" if pruned else "done"
    reason = next((m["reason"] for m in [*bad, *pruned] if m["reason"]), None)
    at_best: dict[str, list[float]] = {}
    for member in members:
        rows = [row for row in member["rows"] if row["step"] == member["best_step"]]
        for name, value in (rows[0] if rows else {}).items():
            if "/" in name and isinstance(value, int | float):
                at_best.setdefault(name, []).append(value)
    metrics = {name: float(np.mean(some)) for name, some in at_best.items()}
    values: list[float] | None = []
    intervals: list[list[float]] = []
    for objective in objectives:
        each = _each(objective["name"], members, facts, monitor)
        if any(value is None or not math.isfinite(value) for value in each):
            values = None
            break
        values.append(float(np.mean(each)))  # type: ignore[union-attr,arg-type]
        intervals.append(interval(each))  # type: ignore[arg-type]
    if values is None and state == "done":
        state, reason = "infeasible", "its objective is not a finite number"
    return {
        "state": state,
        "values": values if state != "infeasible" else None,
        "interval": intervals if values and len(members) > 1 else None,
        "members": [
            {
                "seed": member["seed"],
                "fold": member["fold"],
                "value": member["value"],
                "best_step": member["best_step"],
                "last_step": member["steps"],
            }
            for member in members
        ],
        "metrics": metrics,
        "steps": max(member["steps"] for member in members),
        "total_steps": facts.get("total_steps"),
        "n_params": facts.get("n_params"),
        "step_seconds": facts.get("step_seconds"),
        "seconds": (facts.get("step_seconds") or 0.0) * sum(m["steps"] for m in members),
        "structure": facts.get("fingerprint"),
        "reason": reason,
    }


def _each(
    name: str, members: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], monitor: str
) -> list[float | None]:
    if name in ("n_params", "step_seconds"):
        return [facts.get(name)] * len(members)
    found: list[float | None] = []
    for member in members:
        if name == monitor:
            found.append(member["value"])
            continue
        rows = [row for row in member["rows"] if row["step"] == member["best_step"]]
        found.append(rows[0].get(name) if rows else None)
    return found


def interval(values: Sequence[float], level: float = 0.95) -> list[float]:
    """Returns Student's t interval of a mean: ``mean ± t · s / √n``; of one value, that twice."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return [mean, mean]
    from scipy import stats  # takes a second to import

    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * error
    return [mean - half, mean + half]


def best(trials: Sequence[Mapping[str, Any]], objectives: Sequence[Mapping[str, str]]) -> list[int]:
    """Returns the finished trials' numbers, best first; of several objectives, by the first."""
    sign = -1.0 if objectives[0]["direction"] == "maximize" else 1.0
    done = [trial for trial in trials if trial["state"] == "done" and trial["values"]]
    return [t["number"] for t in sorted(done, key=lambda t: (sign * t["values"][0], t["number"]))]


def pareto(
    trials: Sequence[Mapping[str, Any]], objectives: Sequence[Mapping[str, str]]
) -> list[int]:
    """Returns the trials that no other is at least as good as in all objectives and better in one.

    Example:
      >>> found = [{"number": i, "state": "done", "values": v} for i, v in
      ...          enumerate([[0.9, 5.0], [0.8, 3.0], [0.7, 4.0]])]
      >>> pareto(found, [{"direction": "maximize"}, {"direction": "minimize"}])
      [0, 1]
    """
    signs = np.array([-1.0 if one["direction"] == "maximize" else 1.0 for one in objectives])
    done = [trial for trial in trials if trial["state"] == "done" and trial["values"]]
    if not done:
        return []
    costs = np.array([trial["values"] for trial in done]) * signs
    front = []
    for index, cost in enumerate(costs):
        beaten = (costs <= cost).all(axis=1) & (costs < cost).any(axis=1)
        if not beaten.any():
            front.append(done[index]["number"])
    return front


# --- curves ---------------------------------------------------------------------------------------


def rows_of(members: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the logged lines of members as rows of ``curves.parquet``."""
    return [
        {
            "trial": member["trial"],
            "seed": member["seed"],
            "fold": -1 if member["fold"] is None else member["fold"],
            **row,
        }
        for member in members
        for row in member["rows"]
    ]


def add_curves(workdir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows to a file of their own, aside and renamed: what is there is whole."""
    if not rows:
        return
    folder = workdir / PARTS
    folder.mkdir(exist_ok=True)
    _write(folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.parquet", _table(rows))


def curves(workdir: Path) -> Any:
    """Returns all rows written so far as a pandas table, a trial's newest training alone."""
    import pandas as pd

    paths = [workdir / CURVES, *sorted((workdir / PARTS).glob("*.parquet"))]
    tables = [pd.read_parquet(path) for path in paths if path.exists()]
    if not tables:
        return pd.DataFrame(columns=["trial", "seed", "fold", "step", "epoch"])
    joined = pd.concat(tables, keys=range(len(tables)), names=["written"]).reset_index("written")
    member = ["trial", "seed", "fold"]
    newest = joined["written"] == joined.groupby(member)["written"].transform("max")
    found = joined[newest].drop(columns="written").drop_duplicates([*member, "step"], keep="last")
    return found.sort_values([*member, "step"], ignore_index=True)


def gather_curves(workdir: Path) -> Any:
    """Joins the parts into ``curves.parquet`` and removes them; returns the table."""
    import pyarrow as pa

    parts = sorted((workdir / PARTS).glob("*.parquet"))
    table = curves(workdir)
    if parts:
        _write(workdir / CURVES, pa.Table.from_pandas(table, preserve_index=False))
        for part in parts:
            part.unlink(missing_ok=True)
    for folder in (workdir, workdir / PARTS):
        for aside in folder.glob(".*.parquet.*"):
            if not _lives(aside.suffix[1:]):
                aside.unlink(missing_ok=True)  # its process was killed
    with contextlib.suppress(OSError):  # another coordinator may write there still
        (workdir / PARTS).rmdir()
    return table


def _lives(pid: str) -> bool:
    return not pid.isdigit() or not Path("/proc/self").exists() or Path("/proc", pid).exists()


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    import pyarrow as pa

    whole = {"trial": pa.int32(), "seed": pa.int64(), "fold": pa.int32(), "step": pa.int32()}
    names = dict.fromkeys([*whole, "epoch", *(name for row in rows for name in row)])
    columns = {}
    for name in names:
        kind = whole.get(name, pa.float32())
        values = [row.get(name) for row in rows]
        columns[name] = pa.array(values, kind)
    return pa.table(columns)


def _write(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    aside = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, aside)
    aside.replace(path)
