"""Findings about how a run is trained: its rate, its batches, steps that went wrong."""

from __future__ import annotations

import numpy as np

from jdlopt.evidence.findings.finding import Finding, Record, level, share

TOO_HIGH = (1.0, 10**0.5)
"""The rate by that at which a range test's loss is lowest; beyond it the loss rises again. Serious
from half a power of ten on, or where the whole run came no further than the test's few steps."""
TOO_LOW = (30.0, 100.0)
"""The same the other way round. A usual rule takes a tenth of the rate where the loss is lowest;
serious is a tenth of that."""
SHORT = 0.05
"""Of what a range test takes off the loss, that a whole run must come short of it: two losses of
next to nothing differ by nothing."""
NOISE = (10.0, 30.0)
"""The noise scale by the batch size. A training with batches B times smaller than critical needs
1 + B times the fewest possible steps (McCandlish et al., 2018)."""
LARGE = 10.0
"""The batch size by the noise scale: 1.1 times the fewest steps, and 11 times the examples."""
SKIPPED = (0.01, 0.05)
"""Of the steps. A loss scale that doubles after 2,000 sound steps skips 1 in 2,000."""
FIRST_SKIPS = 20
"""Steps that a loss scale may need to find its place."""
SPIKE = 1.5
"""Times the median of the logged losses before it."""
BEFORE = (5, 20)
"""So many losses before it, at least and at most."""
UNLIKELY = 6.0
"""Robust standard deviations of these losses, from which on a jump is no noise of batches."""


def precision_overflow(record: Record) -> Finding | None:
    """Finds that float16 overflows: steps are skipped, or the run ended with no scale left."""
    found = record.get("precision") or {}
    if found.get("dtype") != "float16":
        return None
    part = found.get("skipped_share") or 0.0
    made = level(part, *SKIPPED) if found["skipped"] > FIRST_SKIPS else None
    if found.get("diverged"):
        made = "serious"
    if made is None:
        return None
    ended = " and the run ended where the loss scale can't get smaller" if found["diverged"] else ""
    return Finding(
        "precision_overflow",
        made,
        f"float16 overflowed: {found['skipped']:.0f} steps ({share(part)}) were skipped{ended}.",
        "float16 ends at 65,504: numbers must be smaller, or of a type with a larger range.",
        ("bfloat16", "standardise", "clip_norm"),
        {"skipped": found["skipped"], "share": part},
    )


def learning_rate_too_high(record: Record) -> Finding | None:
    """Finds a rate beyond that of a range test's lowest loss, so that steps do harm."""
    rates = record.get("rates") or {}
    best = rates.get("best_rate")
    if not best:
        return None
    rate = rates["rate"]
    made = level(rate / best, *TOO_HIGH)
    if made is None:
        return None
    breaks, losses = rates["diverges"], _training_losses(record)
    behind = bool(losses) and _comes_short(losses[-1], rates)
    if behind or (breaks and rate >= breaks):
        made = "serious"
    beyond = f", and from {breaks:.2g} on nothing is learnt" if breaks else ""
    if behind:
        beyond += f". That test came to {rates['lowest']:.3g}, the whole run to {losses[-1]:.3g}"
    return Finding(
        "learning_rate_too_high",
        made,
        f"The learning rate is {rate:.2g}; a range test's loss is lowest at {best:.2g}{beyond}.",
        "Steps beyond it do harm.",
        ("learning_rate_down", "warmup", "clip_norm", "schedule_cosine"),
        {"rate": rate, "best_rate": best, "suggested": rates["suggested"]},
        needs={"rate": -1},
        words={"learning_rate_down": _tenth(rates)},
    )


def learning_rate_too_low(record: Record) -> Finding | None:
    """Finds a rate so far below the best of a range test that the run hardly moved."""
    rates = record.get("rates") or {}
    best = rates.get("best_rate")
    if not best:
        return None
    rate = rates["rate"]
    made = level(best / rate, *TOO_LOW)
    losses = _training_losses(record)
    if made is None or not losses:
        return None
    behind = _comes_short(losses[-1], rates)
    if not behind:
        # it got there all the same
        made = "note" if made == "serious" else None
    if made is None:
        return None
    told = "that test came" if behind else "training got there all the same, that test came"
    return Finding(
        "learning_rate_too_low",
        made,
        f"The learning rate is {rate:.2g}; in a range test the loss falls up to {best:.2g}, and "
        f"{told} to {rates['lowest']:.3g}, the whole run to {losses[-1]:.3g}.",
        "Its steps are small for this loss.",
        ("learning_rate_up", "warmup", "schedule_cosine"),
        {"rate": rate, "best_rate": best, "suggested": rates["suggested"]},
        needs={"rate": 1},
        words={"learning_rate_up": _tenth(rates)},
    )


def _tenth(rates: Record) -> str:
    suggested = f"optim.learning_rate={rates['suggested']:.2g}"
    return f"{suggested} (a tenth of the rate with the lowest loss)"


def _comes_short(loss: float, rates: Record) -> bool:
    won = rates["start"] - rates["lowest"]
    return bool(loss - rates["lowest"] > SHORT * won)


def _training_losses(record: Record) -> list[float]:
    return ((record.get("curves") or {}).get("train/loss") or {}).get("values") or []


def divergence(record: Record) -> Finding | None:
    """Finds that the run ended because a value was not finite."""
    found = record["run"].get("diverged")
    if record["run"].get("status") != "diverged":
        return None
    found = found or {"step": record["run"].get("steps"), "quantity": "a value"}
    return Finding(
        "divergence",
        "serious",
        f"Training diverged: {found['quantity']} was not finite at step {found['step']:,} of "
        f"{record['run'].get('total_steps') or 0:,}.",
        "See what else is said here of scales.",
        ("learning_rate_down", "warmup", "clip_norm"),
        dict(found),
        needs={"rate": -1},
    )


def noisy_gradients(record: Record) -> Finding | None:
    """Batches far smaller than the critical one: steps are mostly noise."""
    scales = _noise(record)
    batch = record["run"].get("batch_size")
    if "start" not in scales or not batch:
        return None
    # noise grows while training: the scale of the first step is the smallest
    least = min(scales.values())
    made = level(least / batch, *NOISE)
    if made is None:
        return None
    return Finding(
        "noisy_gradients",
        made,
        f"Batches of {batch:,} are far below the gradient noise scale, {least:,.0f} examples: a "
        f"step's gradient is {least / batch:,.0f} parts noise to one part signal.",
        "Most of a step is chance.",
        ("larger_batch", "average_ema", "learning_rate_down"),
        {"batch_size": batch, "noise_scale": least, **scales},
        needs={"batch": 1},
        words={"larger_batch": f"data.batch_size={_power(least)}"},
    )


def batch_too_large(record: Record) -> Finding | None:
    """Batches far larger than the critical one: their examples are mostly wasted."""
    scales = _noise(record)
    batch = record["run"].get("batch_size")
    if len(scales) < 2 or not batch:
        return None
    most = max(scales.values())
    if batch < LARGE * most:
        return None
    return Finding(
        "batch_too_large",
        "note",
        f"Batches of {batch:,} are far above the gradient noise scale, {most:,.0f} examples: "
        "smaller ones would learn as much in a step.",
        "The examples of a batch are mostly wasted.",
        ("smaller_batch",),
        {"batch_size": batch, "noise_scale": most, **scales},
        needs={"batch": -1},
        words={"smaller_batch": f"data.batch_size={_power(most)} with as many epochs"},
    )


def _noise(record: Record) -> dict[str, float]:
    found = record.get("gradients") or {}
    return {
        place: looked["noise"]["scale"]
        for place, looked in found.items()
        if looked["noise"]["scale"] is not None
    }


def _power(value: float) -> int:
    return 2 ** max(0, round(np.log2(max(1.0, value))))


def loss_spikes(record: Record) -> Finding | None:
    """Finds logged training losses that jump up from those before them, and come back."""
    curve = (record.get("curves") or {}).get("train/loss")
    if not curve:
        return None
    values = np.asarray(curve["values"])
    places = [place for place in range(BEFORE[0], len(values)) if _jumps(values, place)]
    start = record["run"].get("trivial_loss") or float(values[0])
    # where almost nothing is left, half as much again is nothing
    places = [place for place in places if values[place] > 0.05 * start]
    if not places:
        return None
    steps = [curve["steps"][place] for place in places]
    worst = max(places, key=lambda place: values[place])
    return Finding(
        "loss_spikes",
        "warning" if len(places) > 1 else "note",
        f"The training loss jumped {len(places)} times, at worst to {values[worst]:.3g} at step "
        f"{curve['steps'][worst]:,} (before: {np.median(_before(values, worst)):.3g}).",
        "One step must not undo many.",
        ("clip_norm", "warmup", "learning_rate_down"),
        {"steps": steps, "worst": float(values[worst]), "worst_step": curve["steps"][worst]},
    )


def _before(values: np.ndarray, place: int) -> np.ndarray:
    return values[max(0, place - BEFORE[1]) : place]


def _jumps(values: np.ndarray, place: int) -> bool:
    before = _before(values, place)
    middle = float(np.median(before))
    spread = 1.4826 * float(np.median(np.abs(before - middle)))
    rise = float(values[place]) - middle
    return rise > max((SPIKE - 1) * middle, UNLIKELY * spread) and values[place] > values[place - 1]


FINDINGS = (
    precision_overflow,
    learning_rate_too_high,
    learning_rate_too_low,
    divergence,
    noisy_gradients,
    batch_too_large,
    loss_spikes,
)
