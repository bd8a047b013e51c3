"""Findings about where a run's time goes."""

from __future__ import annotations

from collections.abc import Mapping

from jdlopt.evidence.findings.finding import Finding, Record, level, setting, share

WAITING = (0.2, 0.5)
"""Of the time, spent waiting for data."""
OVERHEAD = (3.0, 10.0)
"""The time of a step in the run by that of the step alone: two thirds of the time go elsewhere, and
nine tenths."""
WORTH_IT = 5.0
"""Seconds that a run must have lost, for its overhead to matter."""
PADDING = (0.3, 0.5)
"""Of token positions."""


def input_bound(record: Record) -> Finding | None:
    """Finds a device that waits for data."""
    waiting = (record.get("speed") or {}).get("waiting")
    made = level(waiting, *WAITING) if waiting is not None else None
    if waiting is None or made is None:
        return None
    memory = "Read with more processes (data.workers)"
    if setting(record, "data.in_memory") is not True:
        memory += ", keep the data in memory (data.in_memory)"
    return Finding(
        "input_bound",
        made,
        f"{share(waiting)} of the training time is spent waiting for data."
        + _profiled(record, {"data": "waits for a batch", "transfer": "copies to the device"}),
        f"{memory}, or prepare it once in the size that is used.",
        (),
        {"waiting": waiting},
    )


def dispatch_bound(record: Record) -> Finding | None:
    """Finds steps that take far longer in the run than alone: what lies between costs the time."""
    speed = record.get("speed") or {}
    mine, bare = speed.get("seconds_a_step"), speed.get("bare_step")
    steps = record["run"].get("steps") or 0
    if not mine or not bare or (speed.get("waiting") or 0.0) >= WAITING[0]:
        return None
    lost = (mine - bare) * steps
    made = level(mine / bare, *OVERHEAD)
    if made is None or lost < WORTH_IT:
        return None
    ways = ["Evaluate less often (train.eval_every)"]
    if setting(record, "train.steps_per_dispatch") is not None:
        ways.insert(0, "Leave train.steps_per_dispatch to be measured")
        ways[1] = ways[1].lower()
    return Finding(
        "dispatch_bound",
        made,
        f"A step takes {1e3 * mine:.2g} ms in the run and {1e3 * bare:.2g} ms alone: {lost:.0f} s "
        "went to handing steps to the device, evaluating and saving."
        + _profiled(record, {"device": "computes", "dispatch": "is Python's dispatch"}),
        f"{', or '.join(ways)}; or train several trials together (`jdlopt tune`).",
        ("larger_batch",),
        {"seconds_a_step": mine, "bare_step": bare, "lost_seconds": lost},
    )


def padding(record: Record) -> Finding | None:
    """Finds texts most of whose token positions hold nothing."""
    shares = [one["padding"] for one in (record.get("inputs") or {}).values() if "padding" in one]
    part = max(shares, default=None)
    made = level(part, *PADDING) if part is not None else None
    if part is None or made is None:
        return None
    return Finding(
        "padding",
        "warning" if made == "serious" else "note",
        f"{share(part)} of the token positions are padding, and cost as much as tokens.",
        "Shorter sequences: a smaller data.text.max_tokens.",
        (),
        {"share": part},
    )


def _profiled(record: Record, kinds: Mapping[str, str]) -> str:
    """What a run's profile adds to that, where there is one."""
    shares = (record.get("speed") or {}).get("profile")
    if not shares:
        return ""
    told = " and ".join(f"{share(shares[kind])} {words}" for kind, words in kinds.items())
    return f" Of a profiled step {told}."


FINDINGS = (input_bound, dispatch_bound, padding)
