"""What a suggested technique raises or lowers, and which suggestions of a report agree.

Findings name techniques that may help. Before they are shown, every one passes through one filter:
it applies to the data and the model by the catalogue's own rule, it is not in the config already,
and it works against no other finding of the same report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from jdlopt.evidence import techniques
from jdlopt.evidence.findings.finding import Finding, Record, setting
from jdlopt.evidence.techniques.entry import value_of
from jdlopt.evidence.techniques.removal import (
    AUGMENTED,
    DROPOUT,
    PENALTIES,
    SMOOTHING,
    numbers_of,
)

if TYPE_CHECKING:
    from jdlopt.evidence.techniques.entry import Facts
    from jdlopt.train.schema import Config

KNOBS = (
    "width", "depth", "rate", "batch", "steps", "dropout", "decay", "smoothing", "augmentation",
    "robustness",
)  # fmt: skip
"""What a cure sets: two cures of one report never turn one of these in different directions."""
OUTCOMES = ("fit", "confidence")
"""What a cure acts upon: how closely the training split is fitted, how sure predictions are."""


class Cure(NamedTuple):
    """How a technique is suggested.

    Attributes:
      words: what is suggested, as people read it.
      turns: of `KNOBS` and `OUTCOMES`, what it raises (1) and what it lowers (-1).
      key: a number of the config that it makes larger, told with what it is now; None where there
        is no such number.
      lowers: the keys whose numbers it makes smaller; they are told with what they are now.
    """

    words: str
    turns: Mapping[str, int] = {}
    key: str | None = None
    lowers: tuple[str, ...] = ()


AUGMENTS = {"augmentation": 1, "fit": -1}

CURES: dict[str, Cure] = {
    # size and structure
    "wider": Cure("wider layers", {"width": 1, "fit": 1}),
    "narrower": Cure("narrower layers", {"width": -1, "fit": -1}),
    "deeper": Cure("more layers", {"depth": 1, "fit": 1}),
    "shallower": Cure("fewer layers", {"depth": -1, "fit": -1}),
    "activation": Cure("another activation"),
    "initializer": Cure(
        "an initialisation that keeps the variance (model.initializer='he_normal')"
    ),
    "batch_norm": Cure("batch normalisation (model.batch_norm=True)"),
    "residual_connections": Cure("residual connections"),
    "convolutional": Cure("convolutions, which see neighbours together"),
    "finer_steps": Cure("smaller steps (model.strides, data.preprocess.hop)"),
    # regularisation
    "dropout": Cure("dropout", {"dropout": 1, "fit": -1}, "model.dropout_rate"),
    "less_dropout": Cure("less dropout", {"dropout": -1, "fit": 1}, lowers=DROPOUT),
    "weight_decay": Cure(
        "weight decay", {"decay": 1, "fit": -1, "confidence": -1}, "optim.weight_decay"
    ),
    "less_weight_decay": Cure(
        "less weight decay", {"decay": -1, "fit": 1, "confidence": 1}, lowers=PENALTIES
    ),
    "label_smoothing": Cure(
        "label smoothing", {"smoothing": 1, "confidence": -1}, "loss.label_smoothing"
    ),
    "less_label_smoothing": Cure(
        "less label smoothing", {"smoothing": -1, "confidence": 1}, lowers=SMOOTHING
    ),
    "less_augmentation": Cure(
        "less augmentation", {"augmentation": -1, "fit": 1, "confidence": 1}, lowers=AUGMENTED
    ),
    "mixup": Cure("mixup", AUGMENTS | {"confidence": -1}, "data.augment.mixup"),
    "cutmix": Cure("CutMix", AUGMENTS | {"confidence": -1}, "data.augment.cutmix"),
    "rand_augment": Cure("RandAugment (data.augment.rand_augment)", AUGMENTS),
    "time_shift": Cure("random shifts in time (data.augment.time_shift)", AUGMENTS),
    "jitter": Cure("noise on the inputs (data.augment.jitter)", AUGMENTS),
    "token_dropout": Cure("token dropout (data.augment.token_dropout)", AUGMENTS),
    "early_stopping": Cure(
        "stopping at the best step (train.patience)", {"steps": -1, "confidence": -1}
    ),
    "average_ema": Cure("a moving average of the parameters (optim.average.name='ema')"),
    "ensemble": Cure("an ensemble (model.ensemble)", {"confidence": -1}),
    # classes
    "balanced_sampling": Cure("drawing each class as often (data.sampling='balanced')"),
    "class_weights": Cure("weighing rare classes more (loss.class_weights='balanced')"),
    "focal_loss": Cure("the focal loss (loss.name='focal')", {"confidence": -1}),
    # numbers to predict
    "huber_loss": Cure("the Huber loss (loss.name='huber')", {"robustness": 1}),
    "absolute_loss": Cure("the absolute error (loss.name='mae')", {"robustness": 1}),
    # optimisation
    "learning_rate_up": Cure("a larger learning rate", {"rate": 1}),
    "learning_rate_down": Cure("a smaller learning rate", {"rate": -1}),
    "warmup": Cure("warm-up"),
    "clip_norm": Cure("clipping the gradient (optim.clip_norm)"),
    "schedule_cosine": Cure("a rate that falls to 0 (optim.schedule.name='cosine')"),
    "longer_training": Cure("more epochs", {"steps": 1}),
    "larger_batch": Cure("larger batches", {"batch": 1}),
    "smaller_batch": Cure("smaller batches", {"batch": -1}),
    # numbers
    "standardise": Cure("features of mean 0 and variance 1 (data.preprocess.scale='standard')"),
    "scale_target": Cure(
        "data.preprocess.target_scale='standard' ('log' where it spans orders of magnitude)"
    ),
    "min_max": Cure("features from 0 to 1 (data.preprocess.scale='minmax')"),
    "robust_clip": Cure("far-off values drawn in (data.preprocess.scale='robust_clipped')"),
    "piecewise_linear": Cure("bins of each number (data.preprocess.bins)", {"fit": 1}),
    "bfloat16": Cure("model.dtype='bfloat16', which has float32's range"),
}
"""Every technique that a finding may suggest."""

EITHER = {
    "class_weights": ("data.sampling", "balanced"),
    "balanced_sampling": ("loss.class_weights", "balanced"),
}
"""What makes classes count alike already, so that another way to do so is too much."""


def opposite(one: str, other: str) -> bool:
    """Says whether two cures turn one knob in different directions.

    Example:
      >>> opposite("wider", "narrower"), opposite("wider", "dropout")
      (True, False)
    """
    a, b = CURES[one].turns, CURES[other].turns
    return any(a.get(knob, 0) * b.get(knob, 0) < 0 for knob in KNOBS)


def ruled_out(config: Config, facts: Facts) -> dict[str, str]:
    """Returns the cures that make no sense on a config, each with the reason.

    Those that the catalogue rules out for the data and the model or that the config has already,
    and those whose number the catalogue could only make smaller.
    """
    found: dict[str, str] = {}
    for name, cure in CURES.items():
        reason = techniques.why_not(techniques.TECHNIQUES[name], config, facts)
        other, balanced = EITHER.get(name, ("", None))
        if reason is None and other and value_of(config, other) == balanced:
            reason = f"{other} is {balanced!r} already: the classes count alike."
        if name == "initializer" and str(value_of(config, "model.initializer")).startswith("he_"):
            reason = "The model's initialisation keeps the variance already."
        if reason is None and cure.key is not None:
            now = value_of(config, cure.key) or 0.0
            tried = techniques.change(name, config, facts)
            if not any(one.get(cure.key, now) > now for one in tried):
                reason = f"{cure.key} is {now:g} already."
        if reason is not None:
            found[name] = reason
    return found


def agreed(findings: Sequence[Finding], record: Record) -> list[Finding]:
    """Returns findings with the cures that apply and agree, and with what to do in words. Pure.

    What a finding needs (more steps, less confidence) is decided by the first of them that needs
    it; of two opposite cures the first one stays.

    Args:
      findings: the most important first.
      record: ``ruled_out`` names the cures that don't apply; ``config`` has what is set.
    """
    excluded = record.get("ruled_out") or {}
    needs: dict[str, int] = {}
    for finding in findings:
        for quantity, sign in finding.needs.items():
            needs.setdefault(quantity, sign)
    kept: list[str] = []
    made = []
    for finding in findings:
        here: list[str] = []
        for name in finding.techniques:
            wrong = any(needs.get(q, 0) * sign < 0 for q, sign in CURES[name].turns.items())
            if name in excluded or wrong or any(opposite(name, other) for other in kept):
                continue
            kept.append(name)
            here.append(name)
        made.append(replace(finding, techniques=tuple(here)))
    return [replace(one, suggestion=_in_words(one, record)) for one in made]


def _in_words(finding: Finding, record: Record) -> str:
    words = [_words(name, finding, record) for name in finding.techniques]
    sentences = [finding.suggestion]
    if words:
        sentences.append(f"Try {_listed(words, 'or')}.")
    return " ".join(one for one in sentences if one)


def _words(name: str, finding: Finding, record: Record) -> str:
    cure = CURES[name]
    if name in finding.words:
        return finding.words[name]
    if cure.lowers:
        held = numbers_of(record.get("config") or {}, cure.lowers)
        told = [f"{key}, now {now:g}" for key, now in held.items()]
        return f"{cure.words} ({'; '.join(told)})" if told else cure.words
    if cure.key is None:
        return cure.words
    now = setting(record, cure.key)
    return f"more {cure.words} ({cure.key}, now {now:g})" if now else f"{cure.words} ({cure.key})"


def _listed(words: Sequence[str], joint: str) -> str:
    *first, last = words
    return f"{', '.join(first)} {joint} {last}" if first else last
