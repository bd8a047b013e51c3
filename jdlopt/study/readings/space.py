"""Readings of the space: its bounds, its good region, and where training fails in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jdlopt.study.readings.reading import ENOUGH, FEW, Found, Reading, make
from jdlopt.study.records import Record

NEAR = 0.1
"""Within this share of a range from its end, a point is near the boundary."""


def _scale(
    row: Mapping[str, object],
) -> tuple[Callable[[float], float], Callable[[float], float]]:
    return (math.log, math.exp) if row.get("log") else (float, float)


def _place(row: Record, value: float) -> float:
    """Where in a range a value lies, from 0 to 1, on the scale that it is drawn on."""
    to, _ = _scale(row)
    low, high = to(row["low"]), to(row["high"])
    return (to(value) - low) / (high - low)


def boundary(found: Found) -> list[Reading]:
    """Best points near an end of a range: the best may lie beyond it."""
    if len(found.trials) < ENOUGH:
        return []
    made: list[Reading] = []
    inside = []
    for row in found.space:
        key = row["key"]
        values = [t["params"][key] for t in found.best if key in t["params"]]
        if row["kind"] == "choice" or len(values) < FEW:
            continue
        places = [_place(row, value) for value in values]
        lower = float(np.mean([place < NEAR for place in places]))
        upper = float(np.mean([place > 1 - NEAR for place in places]))
        if max(lower, upper) < 0.5:
            inside.append(key)
            continue
        end, share = ("lower", lower) if lower >= upper else ("upper", upper)
        bound = row["low"] if end == "lower" else row["high"]
        wider = _beyond(row, end)
        text = f"{round(share * len(places))} of the best {len(places)} trials have {key} near "
        text += f"its {end} bound, {bound:g}."
        hint = f"Widen it, for example to {wider:.3g}: the best may lie beyond."
        if wider == bound:
            hint = f"There may be nothing beyond: fix {key} at {bound:g}"
            hint += ", or search it on a log scale." if end == "lower" else "."
        level = "note" if wider == bound else "warning"
        numbers = {"key": key, "share": share, "bound": bound, "proposed": wider}
        made.append(make("boundary", level, text, hint, **numbers))
    if inside and not any(reading["level"] == "warning" for reading in made):
        text = f"The best trials lie inside the ranges of {', '.join(inside)}."
        made.append(make("boundary", "good", text, keys=inside))
    return made


def _beyond(row: Record, end: str) -> float:
    """A wider bound: by half the range, but no further than 0, or than 1 for what lies below 1."""
    to, back = _scale(row)
    low, high = to(row["low"]), to(row["high"])
    half = (high - low) / 2
    if row.get("log"):
        wider = back(low - half if end == "lower" else high + half)
    elif end == "lower":
        wider = row["low"] / 2 if 0 <= row["low"] < half else low - half
    else:
        wider = (row["high"] + 1) / 2 if row["high"] <= 1 < high + half else high + half
    if row["kind"] == "int":
        return float(max(1, round(wider)) if row["low"] >= 1 else round(wider))
    return wider


def sampling(found: Found) -> list[Reading]:
    """Few trials as good as the best: the good region was hardly sampled."""
    count = len(found.trials)
    if not count:
        return []
    if count < ENOUGH:
        some = "1 trial" if count == 1 else f"{count} trials"
        return [
            make(
                "sampling",
                "note",
                f"Only {some} finished: too few to judge the space by.",
                f"Search on with --trials={max(32, 2 * ENOUGH)}.",
                done=count,
            )
        ]
    costs = np.array([found.cost(trial) for trial in found.trials])
    best, middle = costs[0], float(np.median(costs))
    close = int((costs <= best + 0.1 * (middle - best)).sum())
    if middle > best and close < FEW:
        return [
            make(
                "sampling",
                "warning",
                f"{close} of {len(costs)} trials come within a tenth of the way from the best to "
                "the median: the good region was hardly sampled.",
                "Narrow the space around the best trials, or draw more of them.",
                close=close,
                trials=len(costs),
            )
        ]
    text = f"{close} of {len(costs)} trials come close to the best one."
    return [make("sampling", "good", text, close=close, trials=len(costs))]


def infeasible(found: Found) -> list[Reading]:
    """Trials that diverged, and the value of one key that parts them from the others best."""
    everyone = [t for t in found.study["trials"] if t["state"] in ("done", "pruned", "infeasible")]
    bad = [trial for trial in everyone if trial["state"] == "infeasible"]
    if not everyone:
        return []
    share = len(bad) / len(everyone)
    if not bad:
        return [make("infeasible", "good", "No trial diverged.", share=0.0)]
    numbers: dict[str, object] = {"share": share}
    if len(bad) == len(everyone):
        return [_all_infeasible(bad)]
    text = f"{len(bad)} of {len(everyone)} trials are infeasible."
    suggestion = "Look at their reasons in the table of infeasible trials."
    best: tuple[float, str, float, str] | None = None
    for row in found.space:
        key = row["key"]
        points = [t for t in everyone if key in t["params"]]
        if row["kind"] == "choice" or len(points) < ENOUGH:
            continue
        values = np.array([trial["params"][key] for trial in points], float)
        is_bad = np.array([trial["state"] == "infeasible" for trial in points])
        for threshold in np.unique(values[is_bad]):
            for side, chosen in (("above", values >= threshold), ("below", values <= threshold)):
                hits = (chosen & is_bad).sum() / is_bad.sum()
                false = (chosen & ~is_bad).sum() / max(1, (~is_bad).sum())
                if best is None or hits - false > best[0]:
                    best = (float(hits - false), key, float(threshold), side)
    if best is not None and best[0] > 0.5:
        _, key, threshold, side = best
        word = "at least" if side == "above" else "at most"
        text += f" Most have {key} of {word} {threshold:.3g}."
        way = "below" if side == "above" else "above"
        suggestion = f"Keep {key} {way} {threshold:.3g} in the next space."
        numbers |= {"key": key, "threshold": threshold, "side": side}
    return [make("infeasible", "warning" if share > 0.1 else "note", text, suggestion, **numbers)]


def _all_infeasible(bad: Sequence[Record]) -> Reading:
    """Says that no trial has a value, and why most have none."""
    reasons = Counter(str(trial.get("reason") or "no reason is known") for trial in bad)
    reason, times = reasons.most_common(1)[0]
    text = "The only trial is infeasible, so there is no best one: "
    if len(bad) > 1:
        often = "all of them" if times == len(bad) else f"{times} of them"
        text = f"All {len(bad)} trials are infeasible, so there is no best one; {often}: "
    hint = (
        "What is wrong is the base config's, or the whole space's: train the base config with "
        "jdlopt train, then search around one that trains."
    )
    return make("infeasible", "warning", f"{text}{reason.rstrip('.')}.", hint, share=1.0)
