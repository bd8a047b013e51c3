"""Techniques of data: preprocessing, augmentation, and how examples are drawn."""

from __future__ import annotations

from jdlopt.data import augment
from jdlopt.evidence.techniques.entry import (
    Applies,
    Change,
    Config,
    Facts,
    Technique,
    needs_kind,
    needs_task,
    needs_unset,
    unless,
    value_of,
    values,
)

STRENGTHS: dict[str, tuple[float, ...]] = {
    "crop": (0.1,), "resized_crop": (0.3,), "flip": (0.5,), "flip_vertical": (0.5,),
    "rotate": (10.0, 20.0), "shift": (0.1,), "zoom": (0.1,), "shear": (10.0,),
    "brightness": (0.2,), "contrast": (0.2,), "saturation": (0.2,), "hue": (0.05,),
    "stretch": (0.5,), "solarize": (0.3,), "posterize": (3.0,), "blur": (0.7,), "noise": (0.05,),
    "rand_augment": (0.3,), "trivial_augment": (0.5,), "cutout": (0.3,),
    "audio_shift": (0.1,), "speed": (0.1,), "background_noise": (0.05,), "gain": (6.0,),
    "token_dropout": (0.1,), "token_swap": (0.1,), "synonyms": (0.1,),
    "spec_time_mask": (0.15,), "spec_frequency_mask": (0.15,),
    "jitter": (0.05, 0.2), "scaling": (0.1, 0.3), "time_shift": (0.05, 0.15),
    "time_warp": (0.1, 0.25), "time_mask": (0.1, 0.2), "feature_mask": (0.1,),
    "mixup": (0.2, 0.4), "cutmix": (1.0,),
}  # fmt: skip
"""What is tried first of each augmentation, in the unit of its key."""

PRIORS = {
    "shift": 0.5, "crop": 0.5, "flip": 0.4, "rotate": 0.4, "rand_augment": 0.5,
    "trivial_augment": 0.5, "zoom": 0.35, "cutout": 0.35, "mixup": 0.45, "cutmix": 0.4,
    "time_shift": 0.5, "scaling": 0.35, "jitter": 0.35, "time_warp": 0.4, "time_mask": 0.35,
    "spec_time_mask": 0.5, "spec_frequency_mask": 0.5, "token_dropout": 0.35,
    "audio_shift": 0.45, "background_noise": 0.4, "speed": 0.4,
}  # fmt: skip
"""Those that are expected to help more often than one time in four."""

SOURCES = {
    "rand_augment": "Cubuk et al., RandAugment, 2020",
    "trivial_augment": "Müller and Hutter, TrivialAugment, 2021",
    "cutout": "DeVries and Taylor, Improved regularization of CNNs with cutout, 2017",
    "mixup": "Zhang et al., mixup: beyond empirical risk minimization, 2018",
    "cutmix": "Yun et al., CutMix, 2019",
    "spec_time_mask": "Park et al., SpecAugment, 2019",
    "spec_frequency_mask": "Park et al., SpecAugment, 2019",
    "synonyms": "Wei and Zou, EDA, 2019",
    "token_swap": "Wei and Zou, EDA, 2019",
    "resized_crop": "Szegedy et al., Going deeper with convolutions, 2015",
    "speed": "Ko et al., Audio augmentation for speech recognition, 2015",
}
COMMON = "Shorten and Khoshgoftaar, A survey on image data augmentation, 2019"
SERIES = "Um et al., Data augmentation of wearable sensor data, 2017"


def _fits(name: str) -> Applies:
    def applies(config: Config, facts: Facts) -> str | None:
        possible = augment.fitting(
            facts.input_shape,
            facts.input_dtype,
            is_sound=facts.kind == "audio",
            features=config["data"]["preprocess"]["audio"],
        )
        if name not in possible:
            return f"It does not fit {facts.input_dtype} inputs of shape {facts.input_shape}."
        if name in ("saturation", "hue") and facts.input_shape[-1] == 1:
            return "Grey images have no colours."
        if name in augment.mix.MIX and facts.task != "classification":
            return "It is for classification."
        if name in ("time_shift", "time_warp", "time_mask") and facts.kind == "table":
            return "A table's columns have no order."
        if name == "synonyms" and config["data"]["augment"]["synonyms_file"] is None:
            return "It needs data.augment.synonyms_file."
        return None

    return applies


def _augmentation(name: str) -> Technique:
    part = augment.AUGMENTATIONS[name]
    key = f"data.augment.{name}"
    mixing = name in augment.mix.MIX
    series = name in augment.sequence.SEQUENCE
    return Technique(
        name=name,
        group="data",
        aims=("generalisation", "robustness"),
        summary=f"Changes training examples at random; strength: {part.strength}.",
        changes=values(key, *STRENGTHS[name]),
        applies=unless(_fits(name), needs_unset(key)),
        nuisance={key: ("around", 3.0)},
        cost="a little of each step, in the same compiled program; longer training may pay",
        source=SOURCES.get(name, SERIES if series and not mixing else COMMON),
        prior=PRIORS.get(name, 0.2),
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
        needs_kind("table", "sequence"),
    ),
    Technique(
        "log_scale", "data", ("accuracy",),
        "Takes logarithms of features that span orders of magnitude.",
        values("data.preprocess.scale", "log"), "nothing",
        "Box and Cox, An analysis of transformations, 1964", 0.15, needs_kind("table"),
    ),
    Technique(
        "pca", "data", ("accuracy", "size"),
        "Keeps the principal components that hold most of the variance.",
        _pca, "one fit on the training split", "Hotelling, 1933", 0.15,
        unless(needs_kind("table", "sequence"), needs_unset("data.preprocess.pca")),
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
        "balanced_sampling", "data", ("accuracy", "robustness"),
        "Draws each class equally often.",
        values("data.sampling", "balanced"), "nothing",
        "Buda et al., A systematic study of the class imbalance problem in CNNs, 2018", 0.3,
        unless(needs_task("classification"), _imbalanced),
    ),
)  # fmt: skip
DATA = (*PREPROCESS, *map(_augmentation, augment.AUGMENTATIONS))
"""The techniques of data."""
