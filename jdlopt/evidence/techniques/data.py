"""Techniques of data: preprocessing, augmentation, and how examples are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdlopt.data.augment import AUGMENTATIONS, Augmentation
from jdlopt.data.augment.augmentation import unmixable
from jdlopt.errors import listing
from jdlopt.evidence.techniques.entry import (
    Change,
    Facts,
    Technique,
    needs_kind,
    needs_only,
    needs_task,
    needs_unset,
    unless,
    value_of,
    values,
)

if TYPE_CHECKING:
    from jdlopt.train.schema import Config


def _augmentation(part: Augmentation) -> Technique:
    """Returns the technique of an augmentation, which is what its entry says."""
    key = f"data.augment.{part.name}"

    def applies(config: Config, facts: Facts) -> str | None:
        every = list(facts.inputs.values())
        fitting = [one for one in every if part.misfit(one) is None]
        if not fitting:
            shapes = " or ".join(f"{one.dtype} inputs of shape {one.shape}" for one in every)
            return f"It does not fit {shapes}."
        if unmixable(part, every):
            return f"It can't mix all {len(every)} inputs alike: {listing(facts.inputs)}."
        if part.hindrance is not None:
            reasons = [part.hindrance(one) for one in fitting]
            if None not in reasons:
                return reasons[0]
        lacking = [one for one in part.requires if config.data.augment[one] is None]
        return f"It needs data.augment.{lacking[0]}." if lacking else None

    return Technique(
        name=part.name,
        group="data",
        aims=("generalisation", "robustness"),
        summary=f"Changes training examples at random; strength: {part.strength}.",
        changes=values(key, *part.first),
        applies=unless(applies, needs_unset(key)),
        nuisance={key: ("around", 3.0)},
        cost="a little of each step, in the same compiled program; longer training may pay",
        source=part.source,
        prior=part.prior,
    )


def _scales(config: Config, facts: Facts) -> tuple[Change, ...]:
    return values("data.preprocess.scale", "standard")(config, facts)


def _imbalanced(config: Config, facts: Facts) -> str | None:
    if facts.imbalance < 1.5:
        return f"The largest class is only {facts.imbalance:.1f} times the smallest."
    return None


def _no_missing(config: Config, facts: Facts) -> str | None:
    missing = value_of(config, "data.preprocess.missing")
    return "Nothing is missing." if missing == "none" else None


def _pca(config: Config, facts: Facts) -> tuple[Change, ...]:
    return tuple(
        {"data.preprocess.scale": "standard", "data.preprocess.pca": share}
        for share in (0.95, 0.99)
        if value_of(config, "data.preprocess.pca") is None
    )


def _projected(config: Config, facts: Facts) -> str | None:
    if len(facts.inputs) > 1:  # then it is the table alone that is projected
        return needs_kind("table")(config, facts)
    return needs_kind("table", "sequence")(config, facts)


SCALED = needs_kind("table", "sequence", "image")
PREPROCESS = (
    Technique(
        "standardise", "data", ("accuracy", "speed"),
        "Gives each feature mean 0 and standard deviation 1 over the training split.",
        _scales, "nothing", "LeCun et al., Efficient BackProp, 1998", 0.7, SCALED,
    ),
    Technique(
        "min_max", "data", ("accuracy", "speed"),
        "Brings each feature to the range 0 to 1 of the training split.",
        values("data.preprocess.scale", "minmax"), "nothing",
        "LeCun et al., Efficient BackProp, 1998", 0.3, SCALED,
    ),
    Technique(
        "robust_scale", "data", ("accuracy", "robustness"),
        "Gives each feature median 0 and interquartile range 1: outliers don't move it.",
        values("data.preprocess.scale", "robust"), "nothing",
        "Rousseeuw and Croux, Alternatives to the median absolute deviation, 1993", 0.25,
        needs_only("table", "sequence", beside=("text",)),
    ),
    Technique(
        "log_scale", "data", ("accuracy",),
        "Takes logarithms of features that span orders of magnitude.",
        values("data.preprocess.scale", "log"), "nothing",
        "Box and Cox, An analysis of transformations, 1964", 0.15,
        needs_only("table", beside=("text",)),
    ),
    Technique(
        "pca", "data", ("accuracy", "size"),
        "Keeps the principal components that hold most of the variance.",
        _pca, "one fit on the training split", "Hotelling, 1933", 0.15,
        unless(_projected, needs_unset("data.preprocess.pca")),
    ),
    Technique(
        "contrast_stretch", "data", ("accuracy", "robustness"),
        "Stretches the contrast of each image between its 2nd and 98th percentile.",
        values("data.preprocess.stretch", (2.0, 98.0)), "a little of each step",
        "Gonzalez and Woods, Digital image processing", 0.15,
        unless(needs_kind("image"), needs_unset("data.preprocess.stretch")),
    ),
    Technique(
        "equalize", "data", ("accuracy", "robustness"),
        "Equalises the histogram of each image.",
        values("data.preprocess.equalize", True), "a little of each step",
        "Gonzalez and Woods, Digital image processing", 0.1, needs_kind("image"),
    ),
    Technique(
        "standardise_each_image", "data", ("accuracy", "robustness"),
        "Gives each channel of each image mean 0 and standard deviation 1.",
        values("data.preprocess.standardize", True), "a little of each step",
        "Krizhevsky, Learning multiple layers of features from tiny images, 2009", 0.2,
        needs_kind("image"),
    ),
    Technique(
        "clip_outliers", "data", ("robustness", "accuracy"),
        "Clips values beyond three standard deviations to that bound.",
        values("data.preprocess.outliers", "zscore", "iqr"), "nothing",
        "Hodge and Austin, A survey of outlier detection methodologies, 2004", 0.15,
        unless(needs_kind("table"), needs_unset("data.preprocess.outliers", "none")),
    ),
    Technique(
        "impute_by_neighbours", "data", ("accuracy",),
        "Fills a missing value by the mean of the nearest rows instead.",
        values("data.preprocess.missing", "knn", "median"), "one fit on the training split",
        "Troyanskaya et al., Missing value estimation methods for DNA microarrays, 2001", 0.2,
        unless(needs_kind("table"), _no_missing),
    ),
    Technique(
        "embed_categories", "data", ("accuracy",),
        "Learns a vector for each category instead of a column of 0 and 1.",
        values("data.preprocess.encode", "embedding"), "a few parameters",
        "Guo and Berkhahn, Entity embeddings of categorical variables, 2016", 0.3,
        lambda config, facts: None if facts.categorical else "There are no categories.",
    ),
    Technique(
        "scale_target", "data", ("accuracy", "speed"),
        "Measures the loss on scaled targets; predictions and metrics stay in their own unit.",
        values("data.preprocess.target_scale", "standard", "robust", "log"), "nothing",
        "LeCun et al., Efficient BackProp, 1998; Box and Cox, 1964, for the logarithm", 0.5,
        needs_task("regression"),
    ),
    Technique(
        "balanced_sampling", "data", ("accuracy", "robustness"),
        "Draws each class equally often.",
        values("data.sampling", "balanced"), "nothing",
        "Buda et al., A systematic study of the class imbalance problem in CNNs, 2018", 0.3,
        unless(needs_task("classification"), _imbalanced),
    ),
)  # fmt: skip
DATA = (*PREPROCESS, *map(_augmentation, AUGMENTATIONS.values()))
"""The techniques of data."""
