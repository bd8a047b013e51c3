"""Findings by layer: gradients, units that are dead or saturated, scales, unused capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from jdlopt.evidence.findings.finding import Finding, Record, level, setting, share, some

EXPLODING = (10.0, 100.0)
"""The gradient of a layer by the size of its weights, before the first step, of a loss that is 1
for who knows nothing (so the target's units don't matter). At 100, one plain step with a rate of
0.01 replaces the weights; of sound initialisations it is about 1 or less."""
VANISHING = (1e-3, 1e-4)
"""A layer's relative gradient by the largest layer's. A sigmoid passes at most 1/4 of a gradient
(Bengio, Simard and Frasconi, 1994): 1/1000 are five such layers, one after the other."""
STALLED = 0.25
"""Of the steps, in which nothing was learnt: a plateau, and a good part of the training."""
LEARNT = 0.05
"""Of the loss of knowing nothing, that must be gone to have learnt something."""
SCALE = (10.0, 30.0)
"""A layer's gain by the median layer's; those of Glorot and He lie between 1 and √2."""
DEAD = (0.25, 0.5)
"""Of a layer's units. Karpathy's course notes (CS231n, 2016) tell of 40 % where the rate is too
high."""
SATURATED = (0.25, 0.5)
"""Of a layer's values; there the derivative is below 2 % of its largest (Glorot and Bengio,
2010)."""
SOUND = ("gelu", "silu", "elu", "leaky_relu", "selu")
"""Activations that pass a gradient below 0 as well, and have no upper limit."""
PRUNED = 0.9
"""Of the weights, that can be set to 0 without a difference."""


def exploding_gradients(record: Record) -> Finding | None:
    """Gradients that are many times as large as the weights, before the first step."""
    start = (record.get("gradients") or {}).get("start") or {}
    rows = _relative(start)
    if not rows:
        return None
    worst = max(rows, key=lambda row: row["relative"])
    trivial = record["run"].get("trivial_loss") or 1.0
    relative = worst["relative"] / trivial
    made = level(relative, *EXPLODING)
    if made is None:
        return None
    return Finding(
        "exploding_gradients",
        made,
        f"Before the first step the gradient of {worst['name']} is {relative:,.3g} times as "
        f"large as its weights, in units of the loss that is left to who knows nothing, "
        f"{trivial:,.3g}; the loss is {start['loss']:,.3g}.",
        "The first steps must not be larger than the weights.",
        ("initializer", "batch_norm", "clip_norm", "residual_connections", "warmup"),
        {"layer": worst["name"], "relative": relative, "loss": start["loss"]},
    )


def vanishing_gradients(record: Record) -> Finding | None:
    """Layers that hardly get a gradient, before the first step and at the checkpoint.

    Before the first step alone where it then took the run long to learn anything: it came out of
    what held it, and lost these steps.
    """
    found = record.get("gradients") or {}
    stalled = _stalled(record)
    escaped = stalled >= STALLED
    ratios: dict[str, float] = {}
    for place in ("start",) if escaped else ("start", "checkpoint"):
        rows = _relative(found.get(place) or {})
        if len(rows) < 3:
            continue
        largest = max(row["relative"] for row in rows)
        for row in rows if largest > 0 else ():
            if escaped and not row["relative"]:
                continue  # a scale that starts at 0 lets nothing through in the first step alone
            ratios[row["name"]] = max(ratios.get(row["name"], 0.0), row["relative"] / largest)
    if not ratios:
        return None
    name = min(ratios, key=lambda layer: ratios[layer])
    ratio = ratios[name]
    warning, serious = VANISHING
    if ratio > warning:
        return None
    few = [layer for layer in ratios if ratios[layer] <= warning]
    passing = _activation(record, ("relu", "gelu"))
    escaped_late = f" It took {share(stalled)} of the steps to learn anything." if escaped else ""
    return Finding(
        "vanishing_gradients",
        "serious" if ratio <= serious else "warning",
        f"The gradient of {name}, by the size of its weights, is {ratio:.2g} of the largest "
        f"layer's: it hardly learns. So with {some(few)}.{escaped_late}",
        "Every layer must get a gradient.",
        (*passing, "residual_connections", "batch_norm", "shallower"),
        {"layer": name, "ratio": ratio, "layers": few, "stalled": stalled},
        words=passing,
    )


def _stalled(record: Record) -> float:
    """The share of the steps before the training loss first fell below that of knowing nothing."""
    curve, trivial = (
        (record.get("curves") or {}).get("train/loss"),
        record["run"].get("trivial_loss"),
    )
    if not curve or not curve["values"] or not trivial:
        return 0.0
    total = record["run"].get("total_steps") or curve["steps"][-1]
    for step, value in zip(curve["steps"], curve["values"], strict=True):
        if value is not None and value < (1 - LEARNT) * trivial:
            return float(step / total)
    return 1.0


def layer_scale(record: Record) -> Finding | None:
    """Finds a layer whose weights or activations are of another scale than the others'."""
    rows = ((record.get("gradients") or {}).get("start") or {}).get("layers") or []
    kernels = [row for row in rows if row["name"].endswith("kernel")] or rows
    gains = [row["gain"] for row in kernels if row["gain"]]
    off: dict[str, float] = {}
    if len(gains) >= 3:
        middle = median(gains)
        off = {row["name"]: row["gain"] / middle for row in kernels if row["gain"]}
    inputs = list((record.get("inputs") or {}).values())
    # of several inputs it is not known which a layer follows
    before = inputs[0].get("rms") if len(inputs) == 1 else None
    steps: dict[str, float] = {}
    for row in (record.get("layers") or {}).get("start") or []:
        if before:
            steps.setdefault(row["layer"], row["rms_before"] / before)
        before = row["rms_after"]
    if len(steps) >= 3:
        middle = median(steps.values())
        steps = {name: step / middle for name, step in steps.items()} if middle > 0 else {}
    else:
        steps = {}
    worst = max(off, key=lambda name: off[name], default=None)
    jump = max(steps, key=lambda name: steps[name], default=None)
    by_weights = level(off[worst], *SCALE) if worst else None
    by_values = level(steps[jump], *SCALE) if jump else None
    if by_weights is None and by_values is None:
        return None
    words = []
    if worst and by_weights:
        words.append(f"the weights of {worst} are {off[worst]:,.0f} times the median layer's")
    if jump and by_values:
        words.append(f"{jump} makes values larger by {steps[jump]:,.0f} times the median step")
    scales = " and ".join(words)
    return Finding(
        "layer_scale",
        "serious" if "serious" in (by_weights, by_values) else "warning",
        f"One layer has another scale before the first step: {scales} (an initialisation that "
        "keeps the variance has a gain between 1 and 1.4).",
        "Start it from weights of the others' scale.",
        ("initializer", "batch_norm", "clip_norm"),
        {
            "layer": worst if by_weights else jump,
            "weights": off[worst] if worst else None,
            "values": steps[jump] if jump else None,
        },
    )


def dead_units(record: Record) -> Finding | None:
    """Units that are 0 for every example before the first step already."""
    return _units(record, "dead", "dead_units", DEAD, from_start=True)


def dying_units(record: Record) -> Finding | None:
    """Units that training has left at 0 for every example."""
    return _units(record, "dead", "dying_units", DEAD, from_start=False)


def saturated_units(record: Record) -> Finding | None:
    """Finds tanh or sigmoid units at their limits before the first step already."""
    return _units(record, "saturated", "saturated_units", SATURATED, from_start=True)


def saturating_units(record: Record) -> Finding | None:
    """Finds tanh or sigmoid units that training has driven to their limits."""
    return _units(record, "saturated", "saturating_units", SATURATED, from_start=False)


def _units(
    record: Record, what: str, name: str, limits: tuple[float, float], from_start: bool
) -> Finding | None:
    layers = record.get("layers") or {}
    start, now = layers.get("start") or [], layers.get("checkpoint") or []
    if not now:
        now = start
    worst, made = None, None
    rows = []
    for first, row in zip(start, now, strict=True):
        value = row[what]
        if value is None:
            continue
        rows.append((row["layer"], value))
        at_once = first[what] >= limits[0]
        reached = level(min(value, first[what]) if from_start else value, *limits)
        if reached is None or at_once != from_start:
            continue
        if worst is None or value > worst[1]:
            worst, made = (row["layer"], value, row["units"], row["kind"]), reached
    if worst is None or made is None:
        return None
    layer, value, units, kind = worst
    when = "before the first step already" if from_start else "by the end of training"
    if what == "dead":
        text = (
            f"{share(value)} of the {units:,} units after {layer} are 0 for every example that was "
            f"looked at, {when}: no gradient passes them."
        )
        suggestion = (
            "Look at its initialisation: its bias may lie far below 0."
            if from_start
            else "No unit should be driven below 0 for every example."
        )
        others = _activation(record, ("leaky_relu", "gelu"))
        techniques: Sequence[str] = (*others, "batch_norm", "learning_rate_down", "warmup")
    else:
        text = (
            f"{share(value)} of the values after {layer} lie where {kind} is flat, {when}: hardly "
            "a gradient passes them."
        )
        suggestion = "What goes into it must be smaller: inputs, or initial weights."
        others = _activation(record, ("relu", "gelu"))
        techniques = ("standardise", "batch_norm", *others, "initializer")
    numbers = {"layer": layer, "share": value, "layers": [list(pair) for pair in rows]}
    return Finding(name, made, text, suggestion, techniques, numbers, words=others)


def _activation(record: Record, better: Sequence[str]) -> dict[str, str]:
    """Suggests one of some activations in words; nothing where the model has one of them."""
    now = setting(record, "model.activation")
    if now in SOUND or now in better:
        return {}
    return {"activation": f"model.activation={better[-1]!r} or {better[0]!r}"}


def _relative(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = found.get("layers") or []
    return [row for row in rows if row["relative"] is not None]


def unused_capacity(record: Record) -> Finding | None:
    """Finds a model most of whose weights can be set to 0 and nothing changes."""
    rows = record.get("pruned") or []
    trivial = record["run"].get("trivial_loss")
    if not rows or trivial is None:
        return None
    whole = rows[0]
    gained = trivial - whole["loss"]
    if not gained > 0:
        return None
    fine = [
        row["share"]
        for row in rows
        if row["loss"] - whole["loss"] < 0.01 * gained
        and row.get("accuracy", 0.0) >= whole.get("accuracy", 0.0)
    ]
    if max(fine) < PRUNED:
        return None
    return Finding(
        "unused_capacity",
        "note",
        f"{share(max(fine))} of the weights can be set to 0 without a difference on the validation "
        "split: the model is larger than it has to be.",
        "What is larger than it has to be costs time.",
        ("narrower", "shallower"),
        {"share": max(fine), "loss": whole["loss"]},
    )


FINDINGS = (
    exploding_gradients,
    vanishing_gradients,
    layer_scale,
    dead_units,
    dying_units,
    saturated_units,
    saturating_units,
    unused_capacity,
)
