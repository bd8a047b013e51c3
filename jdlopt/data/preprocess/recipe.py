"""What preprocessing is to do, and to what: a config's keys, checked against a kind of input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, NamedTuple

import numpy as np

from jdlopt.config import Choice, Count, Range
from jdlopt.data.precision import Offset
from jdlopt.data.preprocess import encode, missing, outliers, scale, target
from jdlopt.data.spec import InputSpec
from jdlopt.errors import ConfigError

COLORS = ("none", "grayscale", "hsv", "rgb")
FEATURES = ("none", "log_mel", "mfcc")
NORMALISATIONS = ("none", "utterance", "feature")
KINDS = ("table", "image", "audio", "text", "sequence", "presence")
TABLE_KEYS = (
    "missing", "missing_indicator", "outliers", "duplicates", "constant_columns", "bins",
)  # fmt: skip
IMAGE_KEYS = ("resize", "color", "stretch", "equalize", "standardize")


@dataclass(frozen=True)
class PreprocessFields:
    """The keys of a config's ``data.preprocess`` section.

    Attributes:
      scale: ``standard`` gives each feature mean 0 and standard deviation 1 over the training
        split, ``minmax`` the range 0 to 1, ``robust`` median 0 and interquartile range 1;
        ``robust_clipped`` then draws what is far away in, to within ±3; ``quantile`` gives it a
        normal distribution; ``log`` takes the logarithm of 1 + the size, keeps the sign, and then
        is ``standard``; ``none`` leaves it.
      bins: of tables; append the piecewise-linear encoding of each number: how far it has come
        through each of so many bins between quantiles of the training split. None: no bins.
      missing: of tables; what a missing value becomes: the training rows' ``mean``, ``median``,
        ``most_frequent`` value or ``maximum``, a ``constant``, the mean of the nearest rows
        (``knn``); ``drop`` leaves such rows out of training, and fills in the mean elsewhere.
      fill_value: what ``missing='constant'`` fills in.
      neighbours: how many rows ``missing='knn'`` takes the mean of.
      missing_indicator: append a column of 0 and 1 for each column that lacks values in training.
      outliers: of tables; what is one: further than ``outlier_threshold`` standard deviations from
        the mean (``zscore``) or interquartile ranges beyond the quartiles (``iqr``), or isolated by
        few random cuts (``isolation_forest``).
      outlier_action: ``clip`` to the bounds, ``drop`` the row from training, or ``mark`` rows in a
        column of their own.
      outlier_threshold: 3 for ``zscore``, 1.5 for ``iqr``, an anomaly score of 0.6 for the forest,
        if None.
      contamination: the share of training rows that the forest takes for outliers, instead.
      duplicates: ``drop`` keeps the first of equal training rows.
      constant_columns: ``drop`` leaves columns out that have one value in the training split.
      encode: what categories become: ``one_hot`` columns (one for what training did not have),
        their number (``ordinal``), one-hot columns of hashes (``hashed``), or a model's
        ``embedding``.
      hash_buckets: how many hashes ``encode='hashed'`` has.
      pca: keep so many principal components, or as many as keep this share of the variance.
      whiten: give the principal components a standard deviation of 1.
      resize: (height, width) of images.
      color: what becomes of images: ``grayscale``, ``hsv`` (from RGB) or ``rgb`` (from HSV).
      stretch: stretch the contrast of each image between these percentiles, such as (2, 98).
      equalize: equalise the histogram of each image.
      standardize: give each channel of each image mean 0 and standard deviation 1.
      audio: features of waveforms: the ``log_mel`` spectrogram in dB, or ``mfcc``.
      n_fft: samples in a frame.
      hop: samples from one frame to the next.
      num_mels: mel bands.
      num_coefficients: coefficients of ``mfcc``.
      deltas: append the features' first (1), or first and second (2), derivatives in time.
      normalize: mean 0 and standard deviation 1 within each ``utterance``, or within each
        ``feature`` of each utterance.
      target_scale: of a regression; what the loss is measured on: ``standard`` gives each output
        mean 0 and standard deviation 1 over the training split, ``robust`` median 0 and
        interquartile range 1, ``log`` takes the logarithm of 1 + the size, keeps the sign, and then
        is ``standard``; None leaves the target as it is. Predictions and all metrics but the loss
        are in the target's own unit. A config that does not say has ``standard`` for a regression
        with a bundled loss.
    """

    scale: Annotated[str, Choice(scale.METHODS)] = "none"
    bins: Count | None = None
    missing: Annotated[str, Choice(missing.METHODS)] = "none"
    fill_value: float = 0.0
    neighbours: Count = 5
    missing_indicator: bool = False
    outliers: Annotated[str, Choice(outliers.METHODS)] = "none"
    outlier_action: Annotated[str, Choice(outliers.ACTIONS)] = "clip"
    outlier_threshold: Annotated[float, Range(0, low_open=True)] | None = None
    contamination: Annotated[float, Range(0, 0.5, low_open=True)] | None = None
    duplicates: Annotated[str, Choice(("keep", "drop"))] = "keep"
    constant_columns: Annotated[str, Choice(("keep", "drop"))] = "keep"
    encode: Annotated[str, Choice(encode.ENCODINGS)] = "one_hot"
    hash_buckets: Count = 64
    pca: Annotated[int | float, Range(0, low_open=True)] | None = None
    whiten: bool = False
    resize: tuple[int, ...] | None = None
    color: Annotated[str, Choice(COLORS)] = "none"
    stretch: Annotated[tuple[float, ...], Range(0, 100)] | None = None
    equalize: bool = False
    standardize: bool = False
    audio: Annotated[str, Choice(FEATURES)] = "none"
    n_fft: Count = 512
    hop: Count = 128
    num_mels: Count = 40
    num_coefficients: Count = 20
    deltas: Annotated[int, Range(0, 2)] = 0
    normalize: Annotated[str, Choice(NORMALISATIONS)] = "none"
    target_scale: Annotated[str, Choice(target.METHODS)] | None = None


class Recipe(NamedTuple):
    """What preprocessing does, and to what: static, so that a program can be made of it.

    Attributes:
      fields: the ``data.preprocess`` section.
      kind: one of `KINDS`.
      cardinalities: for each column of a table the number of its categories, 0 for numbers.
      names: the columns' names, for messages.
      sample_rate: of waveforms.
      offsets: what was taken off each column of a table before; empty for nothing.
    """

    fields: PreprocessFields
    kind: str
    cardinalities: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    sample_rate: int | None = None
    offsets: tuple[Offset, ...] = ()

    @property
    def categorical(self) -> np.ndarray | None:
        """Which columns hold codes of categories; None if none does."""
        return np.array(self.cardinalities) > 0 if any(self.cardinalities) else None


def as_fields(section: PreprocessFields | Mapping[str, Any]) -> PreprocessFields:
    """Returns a ``data.preprocess`` section as `PreprocessFields`, with defaults for other keys."""
    if isinstance(section, PreprocessFields):
        return section
    known = {field.name for field in fields(PreprocessFields)}
    return PreprocessFields(**{key: value for key, value in section.items() if key in known})


def make_recipe(
    section: PreprocessFields | Mapping[str, object], spec: InputSpec, name: str = ""
) -> Recipe:
    """Returns the `Recipe` for an input of a dataset.

    Args:
      section: ``data.preprocess``.
      spec: the input's.
      name: the dataset's, for messages.

    Raises:
      ConfigError: the section asks for what this kind of input can't have.
    """
    options = as_fields(section)
    kind = kind_of(spec.shape, spec.dtype, spec.sample_rate)
    names = spec.feature_names or ()
    cardinalities = tuple(
        options.hash_buckets
        if options.encode == "hashed" and column in spec.categories
        else len(spec.categories.get(column, ()))
        for column in names
    )
    recipe = Recipe(options, kind, cardinalities, names, spec.sample_rate, spec.offsets)
    found = problems(recipe, spec.shape, name)
    if found:
        raise ConfigError("\n".join(found))
    return recipe


SEVERAL = {"table": (*TABLE_KEYS, "pca", "whiten"), "image": IMAGE_KEYS, "audio": ("audio",)}
"""Of several inputs, what is for one kind alone."""

Recipes = Recipe | Mapping[str, Recipe]
"""Of the only input, or of named ones."""


def make_recipes(
    section: PreprocessFields | Mapping[str, object],
    inputs: InputSpec | Mapping[str, InputSpec],
    name: str = "",
) -> Recipe | dict[str, Recipe]:
    """Returns the `Recipe` of the only input, or of each of named ones.

    Of several inputs, each has what fits its kind: ``pca`` is for the table, ``scale`` for all but
    texts.

    Args:
      section: ``data.preprocess``.
      inputs: what is known of them.
      name: the dataset's, for messages.

    Raises:
      ConfigError: the section asks for what none of the inputs can have.
    """
    if isinstance(inputs, InputSpec):
        return make_recipe(section, inputs, name)
    options, default = as_fields(section), PreprocessFields()
    kinds = {key: kind_of(one.shape, one.dtype, one.sample_rate) for key, one in inputs.items()}
    for kind, keys in SEVERAL.items():
        strange = [key for key in keys if getattr(options, key) != getattr(default, key)]
        if strange and kind not in kinds.values():
            raise ConfigError(
                f"data.preprocess.{strange[0]}: is for {_PLURALS[kind]}; none of the inputs of "
                f"{name!r} is one. Leave it out."
            )

    def fitting(kind: str) -> PreprocessFields:
        unfit = [key for other, keys in SEVERAL.items() if other != kind for key in keys]
        unfit += ["scale"] if kind in ("text", "presence") else []
        unfit += [] if kind == "audio" else ["deltas", "normalize"]
        return replace(options, **{key: getattr(default, key) for key in unfit})

    return {key: make_recipe(fitting(kinds[key]), one, name) for key, one in inputs.items()}


def kind_of(shape: tuple[int, ...], dtype: str, sample_rate: int | None = None) -> str:
    """Returns one of `KINDS`: what inputs of a shape and type are.

    Example:
      >>> kind_of((28, 28, 1), "uint8"), kind_of((13,), "float32"), kind_of((40, 3), "float32")
      ('image', 'table', 'sequence')
    """
    if np.dtype(dtype) == np.int32:
        return "text"
    if np.dtype(dtype) == np.bool_:
        return "presence"
    if sample_rate is not None:
        return "audio"
    return {3: "image", 1: "table"}.get(len(shape), "sequence")


def problems(recipe: Recipe, shape: tuple[int, ...], name: str) -> list[str]:
    """Returns in words what a recipe asks for that inputs of a shape can't have."""
    options, kind, default = recipe.fields, recipe.kind, PreprocessFields()
    found = []
    for keys, fitting in ((TABLE_KEYS, "table"), (IMAGE_KEYS, "image"), (("audio",), "audio")):
        for key in keys:
            if getattr(options, key) != getattr(default, key) and kind != fitting:
                found.append(
                    f"data.preprocess.{key}: is for {_PLURALS[fitting]}; {name!r} holds "
                    f"{_PLURALS[kind]} of shape {shape}. Leave it out."
                )
    if kind == "text" and (options.scale != "none" or options.pca is not None):
        found.append("data.preprocess: token ids can't be scaled or projected; leave it out.")
    if options.audio == "none" and (options.deltas or options.normalize != "none"):
        found.append("data.preprocess: deltas and normalize need audio='log_mel' or 'mfcc'.")
    if options.stretch is not None and (
        len(options.stretch) != 2 or options.stretch[0] >= options.stretch[1]
    ):
        found.append(
            "data.preprocess.stretch: expected two percentiles, the lower first, such as (2, 98); "
            f"found {options.stretch}."
        )
    if options.resize is not None and (len(options.resize) != 2 or min(options.resize) < 1):
        found.append(f"data.preprocess.resize: expected (height, width), found {options.resize}.")
    if isinstance(options.pca, float) and options.pca >= 1:
        found.append(
            f"data.preprocess.pca: {options.pca} is neither a whole number of components nor a "
            "share of the variance below 1."
        )
    try:
        outliers.check(options.outliers, options.outlier_action)
    except ConfigError as error:
        found.append(str(error))
    if options.color == "hsv" and (options.stretch is not None or options.equalize):
        found.append(
            "data.preprocess: contrast (stretch, equalize) has no meaning for hue and saturation "
            "(color='hsv'). Leave one of them out."
        )
    if options.color in ("hsv", "rgb") and kind == "image" and shape[-1] != 3:
        found.append(
            f"data.preprocess.color: {options.color!r} needs 3 channels; found {shape[-1]}."
        )
    return found


_PLURALS = {
    "table": "tables",
    "image": "images",
    "audio": "sound",
    "text": "texts",
    "sequence": "sequences",
    "presence": "which inputs there are",
}
