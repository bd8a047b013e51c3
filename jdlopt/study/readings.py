"""What a study means: readings of its trials and curves, each with its number and a suggestion.

After the deep-learning tuning playbook: a study answers a question only if its space was wide
enough, its good region was sampled, and its differences are larger than its noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from jdlopt.study.differences import Difference, compare, late_noise
from jdlopt.study.records import Record
from jdlopt.study.space import words

if TYPE_CHECKING:
    import pandas as pd

NEAR = 0.1
"""Within this share of a range from its end, a point is near the boundary."""
GOOD = 0.1
"""The share of the trials that counts as the best few (at least `FEW`)."""
FEW = 3
ENOUGH = 8
"""Trials that a reading about a space needs."""


class Reading(TypedDict):
    """One thing that a study says.

    Attributes:
      name: of the reading.
      level: ``warning``, ``note`` or ``good``.
      text: what was found.
      numbers: what it was found from.
      suggestion: what to do about it; may be empty.
    """

    name: str
    level: str
    text: str
    numbers: dict[str, object]
    suggestion: str


class _Found(NamedTuple):
    """A study as the readings look at it: trials with a value, best first."""

    study: Record
    curves: pd.DataFrame
    trials: list[Record]
    sign: float
    metric: str
    space: list[Record]

    @property
    def best(self) -> list[Record]:
        """The best few trials."""
        return self.trials[: max(FEW, round(GOOD * len(self.trials)))]

    def cost(self, trial: Record) -> float:
        """A trial's first objective, lower being better."""
        return self.sign * trial["values"][0]


def readings(study: Record, curves: pd.DataFrame) -> list[Reading]:
    """Returns what a study means, warnings first. Pure.

    Args:
      study: the content of ``study.json``.
      curves: the content of ``curves.parquet`` as a pandas table.

    Returns:
      The readings; one that the study has too little data for is left out.
    """
    objectives = study["objectives"]
    sign = -1.0 if objectives[0]["direction"] == "maximize" else 1.0
    done = [
        trial
        for trial in study["trials"]
        if trial["state"] == "done" and trial.get("values") and _finite(trial["values"][0])
    ]
    done.sort(key=lambda trial: (sign * trial["values"][0], trial["number"]))
    found = _Found(study, curves, done, sign, objectives[0]["name"], list(study["space"]))
    parts = [
        *(_answers, _infeasible, _boundary, _sampling),
        *(_distinguishable, _overfitting, _length, _noise),
    ]
    made = [reading for part in parts for reading in part(found)]
    order = {"warning": 0, "note": 1, "good": 2}
    return sorted(made, key=lambda reading: order[reading["level"]])


def _reading(name: str, level: str, text: str, suggestion: str = "", **numbers: object) -> Reading:
    return {
        "name": name,
        "level": level,
        "text": text,
        "numbers": numbers,
        "suggestion": suggestion,
    }


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


# --- the space ------------------------------------------------------------------------------------


def _scale(row: Mapping[str, object]) -> tuple[Callable[[float], float], Callable[[float], float]]:
    return (math.log, math.exp) if row.get("log") else (float, float)


def _place(row: Record, value: float) -> float:
    """Where in a range a value lies, from 0 to 1, on the scale that it is drawn on."""
    to, _ = _scale(row)
    low, high = to(row["low"]), to(row["high"])
    return (to(value) - low) / (high - low)


def _boundary(found: _Found) -> list[Reading]:
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
        made.append(_reading("boundary", level, text, hint, **numbers))
    if inside and not any(reading["level"] == "warning" for reading in made):
        text = f"The best trials lie inside the ranges of {', '.join(inside)}."
        made.append(_reading("boundary", "good", text, keys=inside))
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


def _sampling(found: _Found) -> list[Reading]:
    """Few trials as good as the best: the good region was hardly sampled."""
    if len(found.trials) < ENOUGH:
        return [
            _reading(
                "sampling",
                "note",
                f"Only {len(found.trials)} trials finished: too few to judge the space by.",
                f"Search on with --trials={max(32, 2 * ENOUGH)}.",
                done=len(found.trials),
            )
        ]
    costs = np.array([found.cost(trial) for trial in found.trials])
    best, middle = costs[0], float(np.median(costs))
    close = int((costs <= best + 0.1 * (middle - best)).sum())
    if middle > best and close < FEW:
        return [
            _reading(
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
    return [_reading("sampling", "good", text, close=close, trials=len(costs))]


def _infeasible(found: _Found) -> list[Reading]:
    """Trials that diverged, and the value of one key that parts them from the others best."""
    everyone = [t for t in found.study["trials"] if t["state"] in ("done", "pruned", "infeasible")]
    bad = [trial for trial in everyone if trial["state"] == "infeasible"]
    if not everyone:
        return []
    share = len(bad) / len(everyone)
    if not bad:
        return [_reading("infeasible", "good", "No trial diverged.", share=0.0)]
    text = f"{len(bad)} of {len(everyone)} trials are infeasible."
    numbers: dict[str, object] = {"share": share}
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
    return [
        _reading("infeasible", "warning" if share > 0.1 else "note", text, suggestion, **numbers)
    ]


# --- differences and noise ------------------------------------------------------------------------


def _distinguishable(found: _Found) -> list[Reading]:
    """Whether the winner is better than the runner-up, or only luckier."""
    if len(found.trials) < 2:
        return []
    first, second = found.trials[:2]
    one = _compare(found, first, second)
    names = f"Trial {first['number']} and the runner-up, trial {second['number']},"
    again = "Search once more near them with --repeats=5, in another directory, and compare means."
    if one.verdict == "unknown":
        return []
    if one.verdict == "apart":
        return [_reading("winner", "good", f"{names} differ by {one.words}.", **one.numbers)]
    if one.verdict == "unmeasured":
        text = f"{names} differ by {one.words}; how much seeds differ was not measured."
        return [_reading("winner", "note", text, again, **one.numbers)]
    text = f"{names} can't be told apart. Their difference is {one.words}."
    hint = f"Take the cheaper of them. {again}"
    return [_reading("winner", "warning", text, hint, **one.numbers)]


def _compare(found: _Found, first: Record, second: Record) -> Difference:
    noise = late_noise(_curve(found, first["number"], found.metric))
    return compare(first, second, found.sign, noise)


def _answers(found: _Found) -> list[Reading]:
    """What each scientific key's values reach, everything else tuned away."""
    made = []
    for row in found.space:
        if row.get("role") != "scientific":
            continue
        key = row["key"]
        if row["kind"] != "choice":
            places = [t["params"][key] for t in found.best if key in t["params"]]
            if len(places) >= FEW:
                text = f"{key}: the best {len(places)} trials lie from {min(places):.3g} to "
                text += f"{max(places):.3g}, of {row['low']:g} to {row['high']:g}."
                low, high = min(places), max(places)
                made.append(_reading("answer", "note", text, key=key, low=low, high=high))
            continue
        groups: dict[str, list[Record]] = {}
        for trial in found.trials:  # best first
            if key in trial["params"]:
                groups.setdefault(words(trial["params"][key]), []).append(trial)
        if len(groups) < 2:
            continue
        reached = ", ".join(f"{name} {some[0]['values'][0]:.4g}" for name, some in groups.items())
        text = f"{key}, the best {found.metric} over everything else: {reached}."
        thin = [name for name, some in groups.items() if len(some) < ENOUGH // 2]
        one = _compare(found, *(some[0] for some in list(groups.values())[:2]))
        text += f" The first two differ by {one.words}."
        level, hint = "good" if one.verdict == "apart" else "note", ""
        if one.verdict in ("same", "unknown"):
            hint = "The question is open: take the cheaper one, or search further."
        if thin:
            level, hint = (
                "warning",
                f"Few trials have {', '.join(thin)}: search further first.",
            )
        made.append(_reading("answer", level, text, hint, key=key, **one.numbers))
    return made


def _curve(found: _Found, trial: int, metric: str) -> np.ndarray:
    """A metric's values of a trial by evaluation, the mean over its seeds and folds."""
    curves = found.curves
    if curves is None or len(curves) == 0 or metric not in curves:
        return np.array([])
    rows = curves[curves["trial"] == trial][["step", metric]].dropna()
    return rows.groupby("step")[metric].mean().sort_index().to_numpy(float)


def _noise(found: _Found) -> list[Reading]:
    """Step-to-step noise late in training, against how much the best trials differ."""
    noises = [late_noise(_curve(found, t["number"], found.metric)) for t in found.best]
    known = [noise for noise in noises if noise is not None]
    if not known or len(found.trials) < ENOUGH:
        return []
    noise = float(np.median(known))
    costs = [found.cost(trial) for trial in found.best]
    spread = float(np.ptp(costs))
    text = (
        f"Late in training {found.metric} moves by {noise:.2g} from one evaluation to the next; "
        f"the best {len(costs)} trials lie within {spread:.2g}."
    )
    if noise > spread and noise > 0:
        hint = "Decay the learning rate, average the weights (optim.average), or evaluate on more."
        return [_reading("noise", "warning", text, hint, noise=noise, spread=spread)]
    return [_reading("noise", "good", text, noise=noise, spread=spread)]


def _overfitting(found: _Found) -> list[Reading]:
    """Validation loss that rises after its minimum, while training loss falls."""
    rises = []
    for trial in found.best:
        values = _curve(found, trial["number"], "validation/loss")
        if len(values) >= 4 and np.isfinite(values).all():
            start, least, end = values[0], values.min(), values[-1]
            rises.append((end - least) / max(start - least, 1e-12) if start > least else 0.0)
    if not rises:
        return []
    share = float(np.mean([rise > 0.1 for rise in rises]))
    numbers: dict[str, object] = {"share": share, "rise": float(np.median(rises))}
    if share >= 0.5:
        return [
            _reading(
                "overfitting",
                "warning",
                f"In {round(share * len(rises))} of the best {len(rises)} trials the validation "
                f"loss rises again, by {np.median(rises):.0%} of what it had fallen (median).",
                "Regularise (dropout, weight decay, label smoothing, augmentation) or train for "
                "fewer steps.",
                **numbers,
            )
        ]
    text = "The best trials end near the minimum of their validation loss."
    return [_reading("overfitting", "good", text, "", **numbers)]


def _length(found: _Found) -> list[Reading]:
    """Whether training was too short, too long, or about right."""
    shares = []
    for trial in found.best:
        for training in trial.get("trainings") or []:
            total = trial.get("total_steps") or trial.get("steps") or 0
            if total and training.get("best_step", -1) > 0:
                shares.append(training["best_step"] / total)
    if len(shares) < FEW:
        return []
    middle = float(np.median(shares))
    late, early = float(np.mean([s > 0.9 for s in shares])), middle < 0.4
    gain = _gain(found)
    numbers: dict[str, object] = {"best_at": middle, "late_share": late, "late_gain": gain}
    if late >= 0.5 and gain is not None and gain > 0.02:
        return [
            _reading(
                "length",
                "warning",
                f"{late:.0%} of the best trainings are best in their last tenth, and the last "
                f"tenth brings {gain:.0%} of all that they gain: they still improve.",
                "Train for longer, such as 1.5 times the steps.",
                **numbers,
            )
        ]
    if early:
        steps = found.best[0].get("total_steps") or 0
        return [
            _reading(
                "length",
                "warning",
                f"The best trainings are best after {middle:.0%} of their steps (median).",
                f"About {round(1.3 * middle * steps):,} steps would do.",
                steps=round(1.3 * middle * steps),
                **numbers,
            )
        ]
    text = f"The best trainings are best after {middle:.0%} of their steps (median)."
    return [_reading("length", "good", text, "", **numbers)]


def _gain(found: _Found) -> float | None:
    """The share of what a training gains that its last tenth brings, smoothed; the median."""
    gains: list[float] = []
    for trial in found.best:
        values = found.sign * _curve(found, trial["number"], found.metric)
        if len(values) < 10 or not np.isfinite(values).all():
            continue
        tenth = max(2, len(values) // 10)
        first, before, last = values[0], values[-2 * tenth : -tenth].mean(), values[-tenth:].mean()
        gains.append(float((before - last) / max(first - last, 1e-12)) if first > last else 0.0)
    return float(np.median(gains)) if gains else None
