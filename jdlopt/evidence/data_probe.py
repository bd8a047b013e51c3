"""Looks at a run's data: their scale, how alike the splits are, what simple models make of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jdlopt.data import feed
from jdlopt.data.check import Check, Finding, check_source
from jdlopt.data.check.arrays import kind_of, shrunk
from jdlopt.data.named import by_name, contents
from jdlopt.data.origin import names_at
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.evidence import examples
from jdlopt.evidence.subject import Subject
from jdlopt.tasks import find_task

LEAST_GIVEAWAY = 0.98
"""How well one column must tell the target alone, on a scale from chance (0) to certainty (1)."""
KINDS_OF_CHECK = (
    "leaks", "group_leak", "near_duplicates", "label_noise", "imbalance", "duplicates", "conflicts",
)  # fmt: skip
NUMBERS = ("equal", "agreement", "surest")
"""Of a check's finding, what a finding of diagnosis looks at."""
UNKNOWN = "label_noise_unknown"
"""The kind of finding that says that models are too weak to judge labels."""
DOUBTFUL = 12
"""Examples with doubtful labels that are named."""


def look_at_data(record: dict[str, Any], subject: Subject) -> None:
    """Adds to a record how large inputs are, how alike the splits are, and what a forest makes.

    Args:
      record: ``splits``, ``inputs``, ``reference`` and, of ``data``, ``giveaways`` are added.
      subject: the run.
    """
    dataset, shows = subject.experiment.data, find_task(subject.experiment.spec.task).shows
    of_classes, classes = "classes" in shows, dataset.spec.num_classes
    splits: dict[str, object] = {}
    record["splits"] = splits
    if of_classes:
        splits["labels"] = examples.label_shift(
            dataset.targets("train"), dataset.targets("validation"), classes
        )
    train, validation = (
        contents(by_name(split.inputs)) for split in (subject.train, subject.validation)
    )
    texts = [name for name, one in dataset.spec.named.items() if one.text is not None]
    seen: Mapping[str, Any] = {}
    if len(texts) < len(train):
        preprocess = jax.jit(subject.experiment.components.preprocess)
        seen = by_name(preprocess(subject.start.preprocess, subject.train.inputs))
    record["inputs"] = {
        name: {"padding": float(np.mean(np.asarray(raw) == 0))}
        if name in texts
        else input_scale(np.asarray(seen[name], np.float32))
        for name, raw in train.items()
    }
    small = [_small(inputs, dataset.spec) for inputs in (train, validation)]
    parts = {
        name: tuple(
            examples.vectors(split[name], small[0][name], _codes(dataset.spec.named[name]))
            for split in small
        )
        for name in train
        if name not in texts  # token ids are no quantities
    }
    if not parts:
        return
    # each by itself, so that wide ones don't drown the others
    pairs = [examples.reduced(*pair) for pair in parts.values()]
    ours, theirs = (np.concatenate([pair[side] for pair in pairs], axis=1) for side in (0, 1))
    splits["inputs"] = examples.two_sample(ours, theirs)
    for name, one in dataset.spec.named.items():
        if name not in parts or kind_of(one) != "table":
            continue
        mine, others = parts[name]
        columns = one.feature_names or [f"feature {i}" for i in range(mine.shape[1])]
        splits["columns"] = examples.shifted_columns(mine, others, columns)[:20]
        if "simple models" in shows:
            record["data"]["giveaways"] = examples.giveaways(
                mine, subject.train.targets, columns, of_classes, LEAST_GIVEAWAY
            )
    if texts and "simple models" in shows:
        return  # a forest that can't read would say too little of what can be reached
    if len(subject.validation.targets) and "simple models" in shows:
        targets = subject.train.targets, subject.validation.targets
        score = examples.forest_score(ours, targets[0], theirs, targets[1], of_classes)
        record["reference"] = {"name": "random forest", "score": score}


def _small(inputs: Mapping[str, Any], spec: DataSpec) -> dict[str, np.ndarray]:
    """Images and sounds with as many places as a closer look takes; others as they are."""
    return {
        name: shrunk(values)
        if kind_of(spec.named[name]) in ("image", "audio", "sequence")
        else np.asarray(values)
        for name, values in inputs.items()
    }


def _codes(spec: InputSpec) -> list[int]:
    """The columns of category codes in which 0 stands for all that the training split lacks."""
    names = spec.feature_names or ()
    hashed = spec.hash_buckets is not None
    return [] if hashed else [place for place, one in enumerate(names) if one in spec.categories]


def checked(record: dict[str, Any], subject: Subject) -> dict[str, object]:
    """Returns what `jdlopt data check` finds, without a look at the test split.

    Args:
      record: what can't be looked at is added to its ``unseen``.
      subject: the run.
    """
    if not feed.fits(subject.experiment.data.nbytes("train")):
        record["unseen"].append(
            "The training split doesn't fit memory: near-duplicates, leaks and doubtful labels "
            "were not looked for. `jdlopt data check` does."
        )
        return {}
    check = check_source(subject.config.data, with_test=False)
    found = check.findings
    record["unseen"] += [one.text for one in found if one.kind == UNKNOWN]
    return {
        one.kind: {
            "count": one.count,
            "of": one.of,
            "severity": one.severity,
            "text": one.text,
            "config": one.config,
            "numbers": {key: one.numbers[key] for key in NUMBERS if key in one.numbers},
            "parts": [
                {"name": part.name, "count": part.count, "detail": part.detail}
                for part in one.parts[:10]
            ],
            "examples": _doubtful(check, one) if one.kind == "label_noise" else [],
        }
        for one in found
        if one.kind in KINDS_OF_CHECK
    }


def _doubtful(check: Check, finding: Finding) -> list[dict[str, object]]:
    """Returns the most doubtful examples of each pair of classes: where, its name, the pair."""
    dataset, found = check.dataset, check.firsts(finding, DOUBTFUL)
    if dataset is None or not found:
        return []
    pairs, _, places = zip(*found, strict=True)
    names = names_at(dataset, dataset.parts["train"][0], np.array(places))
    return [
        {"place": place, "name": name, "pair": pair}
        for place, name, pair in zip(places, names, pairs, strict=True)
    ]


def input_scale(inputs: Any) -> dict[str, float | None]:
    """Returns the size of what a model is given: ``rms``, and that of its extreme features.

    Args:
      inputs: preprocessed examples; the features lie along the last axis.
    """
    flat = np.asarray(inputs, np.float64).reshape(-1, inputs.shape[-1])
    sizes = np.sqrt(np.nanmean(flat**2, axis=0))
    some = sizes[sizes > 0]
    return {
        "rms": float(np.sqrt(np.nanmean(flat**2))),
        "largest": float(some.max()) if len(some) else None,
        "smallest": float(some.min()) if len(some) else None,
    }
