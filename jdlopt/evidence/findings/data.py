"""Findings about the data: what leaks, what differs between splits, what is labelled wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jdlopt.evidence.findings.finding import Finding, Record, level, setting, share, some

LEAKED = (0.01, 0.1)
"""Of a split that is in another one. From 1 % on the check of data warns; at 10 % an accuracy may
be 10 points too high."""
AREA = (0.6, 0.75)
"""Of the ROC of what tells train from validation; 1/2 is alike. At 3/4 it is right in three of four
pairs."""
CERTAIN = 3.0
"""Standard errors."""
DISTANCE = (0.1, 0.3)
"""Total variation between the shares of the classes: the share of labels that would have to be
others."""
WRONG_LABELS = (0.03, 0.1)
"""Northcutt, Athalye and Mueller (2021) found 3.3 % wrong labels in the mean of ten test sets, and
10.1 % in the worst of them."""
WEAKER = 0.05
"""Points of accuracy by which a run's model is better than the models that judge labels."""
UNEQUAL = 10.0
"""Times that the largest class is larger than the smallest."""
FEW = 30
"""Training examples of a class that can hardly be learnt from."""
LOW_RECALL = 0.5
"""Of the recall of the other classes."""
FAIR = ("balanced_accuracy", "_macro")
"""How metrics end that count all classes alike."""
SCALE = ((0.1, 10.0), (0.01, 100.0))
"""The root mean square that inputs should have, and beyond which the first layer's gradients are
100 times off: initialisations count on variance 1 (LeCun et al., 1998; He et al., 2015)."""
LEARNT = 0.9
"""R² of the training split, from which on the target's size has held nothing back."""


def target_leak(record: Record) -> Finding | None:
    """Finds a column that gives the target away: alone, it predicts almost without a mistake."""
    data = record.get("data") or {}
    columns = {row["name"]: row["score"] for row in data.get("giveaways", [])}
    for part in (data.get("leaks") or {}).get("parts", []):
        columns.setdefault(part["name"], 1.0)
    groups = [part["name"] for part in (data.get("group_leak") or {}).get("parts", [])]
    if not columns:
        return _grouped(groups) if groups else None
    names = sorted(columns, key=lambda name: -columns[name])
    best = names[0]
    return Finding(
        "target_leak",
        "serious",
        f"{some(names)}: alone gives the target away ({best} scores {columns[best]:.3f} out of "
        "fold, where 0 is chance and 1 certain).",
        f"Unless it is known when one predicts, leave it out: data.ignore={tuple(names)!r}.",
        (),
        {"columns": columns},
    )


def _grouped(names: Sequence[str]) -> Finding:
    return Finding(
        "target_leak",
        "serious",
        f"{some(names)}: names groups whose rows (almost) always have one target, and a random "
        "split tests rows of groups that were trained on.",
        f"Keep each group in one split, and out of the features: data.group={names[0]!r}.",
        (),
        {"groups": list(names)},
    )


def split_leak(record: Record) -> Finding | None:
    """Finds validation examples that are (almost) training examples."""
    found = (record.get("data") or {}).get("near_duplicates")
    size = record["run"].get("validation_size")
    if not found or not size or found["severity"] != "warning":
        return None
    count = sum(p["count"] for p in found["parts"] if p["name"].startswith("validation"))
    made = level(count / size, *LEAKED)
    if made is None:
        return None
    ways = []
    if found["numbers"]["equal"] and setting(record, "data.preprocess.duplicates") != "drop":
        ways.append("leave out what is equal (data.preprocess.duplicates='drop')")
    if not setting(record, "data.group"):
        ways.append(
            "keep what belongs together in one split (data.group='COLUMN'; a folder has columns in "
            "a labels.csv)"
        )
    ways.append("leave what is almost equal out of one of them (`jdlopt data check` lists it)")
    told = ", or ".join(ways)
    return Finding(
        "split_leak",
        made,
        f"{count:,} of {size:,} validation examples ({share(count / size)}) are (almost) in the "
        "training split too: validation looks better than it is.",
        f"{told[0].upper()}{told[1:]}.",
        (),
        {"near_duplicates": count, "share": count / size},
    )


def shift(record: Record) -> Finding | None:
    """Finds inputs or classes of validation of another distribution than in training."""
    splits = record.get("splits") or {}
    inputs, labels = splits.get("inputs"), splits.get("labels")
    by_inputs = by_labels = None
    if inputs and inputs["z"] > CERTAIN:
        by_inputs = level(inputs["area"], *AREA)
    if labels and labels["p"] < 1e-3:
        by_labels = level(labels["distance"], *DISTANCE)
    levels = [one for one in (by_inputs, by_labels) if one]
    if not levels:
        return None
    words = []
    if inputs and by_inputs:
        words.append(
            "a random forest tells training from validation examples with an area under the ROC of "
            f"{inputs['area']:.2f} (alike would be 0.50 ± {inputs['error']:.2f})"
        )
    if labels and by_labels:
        words.append(
            f"{share(labels['distance'])} of the labels would have to be others for the classes to "
            f"have the same shares (p = {labels['p']:.1g})"
        )
    stratified = setting(record, "data.stratify") is True
    split = "If" if stratified else "Split by class (data.stratify), or, if"
    columns = [row["name"] for row in splits.get("columns") or []]
    where = f" The columns that differ most: {some(columns)}." if columns and by_inputs else ""
    return Finding(
        "shift",
        "serious" if "serious" in levels else "warning",
        f"Validation is from another distribution: {'; and '.join(words)}.{where}",
        f"{split} the difference is real (another time or place), choose a validation split that "
        "is like what the model will meet.",
        (),
        {
            "area": inputs["area"] if inputs else None,
            "distance": labels["distance"] if labels else None,
            "columns": columns,
        },
    )


def label_errors(record: Record) -> Finding | None:
    """Labels that models which have not seen them confidently take for others.

    Overlapping classes are doubted as well as wrong labels are. Where models are surest no classes
    overlap, and what is wrong there is the labels' share of all doubts.
    """
    found = (record.get("data") or {}).get("label_noise")
    if not found:
        return None
    said = (record.get("predictions") or {}).get("validation") or {}
    agreement = found["numbers"]["agreement"]
    if (said.get("accuracy") or 0.0) > agreement + WEAKER:
        return None  # what the model of the run knows better is no error of the labels
    part = found["count"] / found["of"]
    made = level(min(part, 1 - found["numbers"]["surest"]), *WRONG_LABELS)
    if made is None:
        return None
    pairs = [one["name"] for one in found["parts"]]
    first = [f"{one['name']} ({one['pair']})" for one in found.get("examples") or ()]
    named = f" Such as {some(first)}." if first else ""
    return Finding(
        "label_errors",
        made,
        f"{found['count']:,} of {found['of']:,} training labels ({share(part)}) look wrong to "
        f"models that have not seen them; most often {some(pairs)}.{named}",
        "Look at the first of each (`jdlopt data check`) and correct them.",
        ("label_smoothing", "early_stopping", "mixup"),
        {"share": part, "count": found["count"]},
    )


def class_imbalance(record: Record) -> Finding | None:
    """Finds a class so rare that it is not learnt."""
    counts, names = record["run"].get("counts"), record["run"].get("classes")
    if not counts or len(counts) < 2:
        return None
    rarest = min(range(len(counts)), key=counts.__getitem__)
    ratio = max(counts) / max(1, counts[rarest])
    said = (record.get("predictions") or {}).get("validation") or {}
    recall = (said.get("recall") or [None] * len(counts))[rarest]
    others = [r for c, r in enumerate(said.get("recall") or []) if c != rarest and r is not None]
    unlearnt = recall is not None and bool(others)
    unlearnt = unlearnt and recall < LOW_RECALL * sum(others) / len(others)
    few = counts[rarest] < FEW and ratio >= UNEQUAL
    if ratio < UNEQUAL and not (unlearnt and ratio >= UNEQUAL / 3):
        return None
    labels = record["run"].get("unit") == "label"
    kind, ones = ("label", "labels") if labels else ("class", "classes")
    told = "" if recall is None else f" Of its validation examples {share(recall)} are recognised"
    if others and recall is not None:
        told += f", of the other {ones}' {share(sum(others) / len(others))}"
    fair = str(setting(record, "train.monitor")).endswith(FAIR)
    better = "f1_macro" if labels else "balanced_accuracy"
    watched = (
        f"The metric that is watched counts {ones} alike; look at each {kind}'s."
        if fair
        else f"Watch a metric that counts {ones} alike (train.monitor='validation/{better}')."
    )
    return Finding(
        "class_imbalance",
        "serious" if unlearnt or few else "warning",
        f"The largest {kind} has {max(counts):,} training examples, {names[rarest]} has "
        f"{counts[rarest]:,}: {ratio:.0f} times as many.{told + '.' if told else ''}",
        watched,
        ("class_weights",) if labels else ("balanced_sampling", "class_weights", "focal_loss"),
        {"ratio": ratio, "rarest": names[rarest], "recall": recall, "count": counts[rarest]},
    )


def input_scale(record: Record) -> Finding | None:
    """Finds inputs far larger or smaller than what the model's initialisation counts on."""
    every = record.get("inputs") or {}
    sizes = {name: one["rms"] for name, one in every.items() if one.get("rms")}
    if not sizes:
        return None
    name = max(sizes, key=lambda name: abs(math.log(sizes[name])))
    inputs, rms = every[name], sizes[name]
    (low, high), (very_low, very_high) = SCALE
    if low <= rms <= high:
        return None
    which = "The model's inputs have" if len(every) == 1 else f"The model's input {name!r} has"
    made = "warning" if very_low <= rms <= very_high else "serious"
    return Finding(
        "input_scale",
        made,
        f"{which} a root mean square of {rms:.3g} (features from "
        f"{inputs['smallest']:.3g} to {inputs['largest']:.3g}), where initialisations count on "
        "about 1.",
        "Bring what the model is given to a scale of about 1.",
        ("standardise", "robust_clip", "min_max", "batch_norm"),
        inputs,
    )


def target_scale(record: Record) -> Finding | None:
    """Finds numbers to predict that are far larger or smaller than outputs are at the start."""
    target = record["run"].get("target") or {}
    size = target.get("rms")
    if not size or target["scale"] is not None:
        return None
    (low, high), (very_low, very_high) = SCALE
    if low <= size <= high:
        return None
    learnt = ((record.get("predictions") or {}).get("train") or {}).get("r2")
    if learnt is not None and learnt >= LEARNT:
        return None
    near = very_low <= size <= very_high or (learnt is not None and learnt > 0)  # it does get there
    made = "warning" if near else "serious"
    reached = "" if learnt is None else f"; of the training split R² is {learnt:.3g}"
    return Finding(
        "target_scale",
        made,
        f"The target has a root mean square of {size:,.4g} (mean {target['mean']:,.4g}, standard "
        f"deviation {target['spread']:,.4g}), where a model's outputs begin near 0 with a size of "
        f"about 1: steps of a usual learning rate get there late, if at all{reached}.",
        "Scaled, it is learnt in steps of a usual size; predictions and metrics stay in its unit.",
        ("scale_target",),
        target,
    )


FINDINGS = (
    target_leak, split_leak, shift, label_errors, class_imbalance, input_scale, target_scale,
)  # fmt: skip
