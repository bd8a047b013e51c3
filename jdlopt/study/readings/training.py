"""Readings of the trainings: their noise, their length, and whether they overfit."""

from __future__ import annotations

import numpy as np

from jdlopt.study.differences import late_noise
from jdlopt.study.readings.reading import ENOUGH, FEW, Found, Reading, curve, make


def noise(found: Found) -> list[Reading]:
    """Step-to-step noise late in training, against how much the best trials differ."""
    noises = [late_noise(curve(found, t["number"], found.metric)) for t in found.best]
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
        return [make("noise", "warning", text, hint, noise=noise, spread=spread)]
    return [make("noise", "good", text, noise=noise, spread=spread)]


def overfitting(found: Found) -> list[Reading]:
    """Validation loss that rises after its minimum, while training loss falls."""
    rises = []
    for trial in found.best:
        values = curve(found, trial["number"], "validation/loss")
        if len(values) >= 4 and np.isfinite(values).all():
            start, least, end = values[0], values.min(), values[-1]
            rises.append((end - least) / max(start - least, 1e-12) if start > least else 0.0)
    if not rises:
        return []
    share = float(np.mean([rise > 0.1 for rise in rises]))
    numbers: dict[str, object] = {"share": share, "rise": float(np.median(rises))}
    if share >= 0.5:
        return [
            make(
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
    return [make("overfitting", "good", text, "", **numbers)]


def length(found: Found) -> list[Reading]:
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
            make(
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
            make(
                "length",
                "warning",
                f"The best trainings are best after {middle:.0%} of their steps (median).",
                f"About {round(1.3 * middle * steps):,} steps would do.",
                steps=round(1.3 * middle * steps),
                **numbers,
            )
        ]
    text = f"The best trainings are best after {middle:.0%} of their steps (median)."
    return [make("length", "good", text, "", **numbers)]


def _gain(found: Found) -> float | None:
    """The share of what a training gains that its last tenth brings, smoothed; the median."""
    gains: list[float] = []
    for trial in found.best:
        values = found.sign * curve(found, trial["number"], found.metric)
        if len(values) < 10 or not np.isfinite(values).all():
            continue
        tenth = max(2, len(values) // 10)
        first, before, last = values[0], values[-2 * tenth : -tenth].mean(), values[-tenth:].mean()
        gains.append(float((before - last) / max(first - last, 1e-12)) if first > last else 0.0)
    return float(np.median(gains)) if gains else None
