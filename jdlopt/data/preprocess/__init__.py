"""Preprocessing: fitted once on the training split, saved with the run, applied as a pure function.

The same function serves training, evaluation, prediction and export. What it does is said by a
`Recipe`, which is static; what it learnt is a state, a pytree of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np

from jdlopt.config import Choice, Count, Positive, Range
from jdlopt.data.dataset import Arrays
from jdlopt.data.preprocess import encode, missing, outliers, pca, scale
from jdlopt.errors import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num  # its Array imports jax

COLORS = ("none", "grayscale", "hsv", "rgb")
FEATURES = ("none", "log_mel", "mfcc")
NORMALISATIONS = ("none", "utterance", "feature")
KINDS = ("table", "image", "audio", "text", "sequence")
TABLE_KEYS = (
    "missing", "missing_indicator", "outliers", "duplicates", "constant_columns",
)  # fmt: skip
IMAGE_KEYS = ("resize", "color", "stretch", "equalize", "standardize")

State = dict[str, Any]
"""Stage → what it learnt: arrays. Empty where nothing is fitted."""


@dataclass(frozen=True)
class PreprocessFields:
    """The keys of a config's ``data.preprocess`` section.

    Attributes:
      scale: ``standard`` gives each feature mean 0 and standard deviation 1 over the training
        split, ``minmax`` the range 0 to 1, ``robust`` median 0 and interquartile range 1, ``log``
        takes the logarithm of 1 + the size, keeps the sign, and then is ``standard``; ``none``
        leaves it.
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
    """

    scale: Annotated[str, Choice(scale.METHODS)] = "none"
    missing: Annotated[str, Choice(missing.METHODS)] = "none"
    fill_value: float = 0.0
    neighbours: Count = 5
    missing_indicator: bool = False
    outliers: Annotated[str, Choice(outliers.METHODS)] = "none"
    outlier_action: Annotated[str, Choice(outliers.ACTIONS)] = "clip"
    outlier_threshold: Positive | None = None
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


class Recipe(NamedTuple):
    """What preprocessing does, and to what: static, so that a program can be made of it.

    Attributes:
      fields: the ``data.preprocess`` section.
      kind: one of `KINDS`.
      cardinalities: for each column of a table the number of its categories, 0 for numbers.
      names: the columns' names, for messages.
      sample_rate: of waveforms.
    """

    fields: PreprocessFields
    kind: str
    cardinalities: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    sample_rate: int | None = None

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


def make_recipe(section: PreprocessFields | Mapping[str, Any], meta: Mapping[str, Any]) -> Recipe:
    """Returns the `Recipe` for a dataset.

    Args:
      section: ``data.preprocess``.
      meta: `Dataset.meta` of the dataset.

    Raises:
      ConfigError: the section asks for what this kind of input can't have.
    """
    options, shape = as_fields(section), tuple(meta["input_shape"])
    kind = kind_of(shape, meta["input_dtype"], meta.get("sample_rate"))
    names = tuple(meta.get("feature_names") or ())
    categories = meta.get("categories") or {}
    cardinalities = tuple(
        options.hash_buckets
        if options.encode == "hashed" and name in categories
        else len(categories.get(name, ()))
        for name in names
    )
    recipe = Recipe(options, kind, cardinalities, names, meta.get("sample_rate"))
    found = problems(recipe, shape, str(meta.get("name", "")))
    if found:
        raise ConfigError("\n".join(found))
    return recipe


def kind_of(shape: tuple[int, ...], dtype: str, sample_rate: int | None = None) -> str:
    """Returns one of `KINDS`: what inputs of a shape and type are.

    Example:
      >>> kind_of((28, 28, 1), "uint8"), kind_of((13,), "float32"), kind_of((40, 3), "float32")
      ('image', 'table', 'sequence')
    """
    if np.dtype(dtype) == np.int32:
        return "text"
    if sample_rate is not None:
        return "audio"
    return {3: "image", 1: "table"}.get(len(shape), "sequence")


def problems(recipe: Recipe, shape: tuple[int, ...], name: str) -> list[str]:
    """Says in words what a recipe asks for that inputs of a shape can't have."""
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
    if options.outliers == "isolation_forest" and options.outlier_action == "clip":
        found.append(
            "data.preprocess.outlier_action: an isolation forest tells which rows are outliers, "
            "but no bounds to clip to; use 'drop' or 'mark'."
        )
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
}


# --- fitting --------------------------------------------------------------------------------------


def is_fitted(recipe: Recipe) -> bool:
    """Says whether a recipe learns anything from the training split."""
    options = recipe.fields
    return (
        options.scale != "none"
        or options.pca is not None
        or options.missing_indicator
        or options.missing != "none"
        or (options.outliers != "none" and options.outlier_action != "drop")
    )


def fit(recipe: Recipe, train: Arrays) -> State:
    """Returns what `apply` needs, from the training split.

    Args:
      recipe: what is to be done.
      train: the training split's arrays.

    Example:
      >>> recipe = Recipe(PreprocessFields(scale="minmax"), "table")
      >>> state = fit(recipe, Arrays(np.array([[2.0], [4.0]], "float32"), None))
      >>> state["scale"]["shift"], state["scale"]["scale"]
      (array([2.], dtype=float32), array([2.], dtype=float32))
    """
    rows = max(1, scale.CHUNK_VALUES // max(1, train.inputs[0].size))
    starts = range(0, len(train.inputs), rows)
    return fit_batches(recipe, lambda: (train.inputs[start : start + rows] for start in starts))


def fit_batches(recipe: Recipe, batches: Any) -> State:
    """Like `fit`, over the training inputs in batches, for a split that does not fit in memory.

    A table is put together whole; of other inputs, scaling goes through the batches, and principal
    components are those of a sample.

    Args:
      recipe: what is to be done.
      batches: called without arguments, goes through the training inputs from the start.
    """
    options = recipe.fields
    if not is_fitted(recipe):
        return {}
    if recipe.kind == "table":
        return _fit_table(recipe, np.concatenate(list(batches())))
    state: State = {}
    if options.scale != "none":
        state["scale"] = scale.fit_batches(_prepared(recipe, batches()), method=options.scale)
    if options.pca is not None:
        import jax.numpy as jnp

        sample = np.concatenate(list(_sampled(_prepared(recipe, batches()))))
        scaled = np.asarray(scale.apply(state.get("scale", {}), jnp.asarray(sample)))
        flat = scaled.reshape(len(scaled), -1)
        state["pca"] = pca.fit(flat, components=options.pca, whiten=options.whiten)
    return state


MOST_PCA_VALUES = 1 << 27
"""Principal components are those of the first so many values."""


def _sampled(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    left = MOST_PCA_VALUES
    for batch in batches:
        rows = max(0, left // max(1, batch[0].size))
        if not rows:
            return
        yield batch[:rows]
        left -= batch[:rows].size


def _prepared(recipe: Recipe, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches after the stages that learn nothing."""
    if not _has_free_stages(recipe):
        yield from batches
        return
    import jax

    prepare = jax.jit(lambda inputs: _free_stages(recipe, _as_float(inputs), _levels(inputs)))
    for batch in batches:
        yield np.asarray(prepare(batch))


def _fit_table(recipe: Recipe, values: np.ndarray) -> State:
    options, categorical = recipe.fields, recipe.categorical
    state: State = {}
    current = values.astype(np.float64)

    def after(stage: Any, learnt: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(stage.apply(learnt, current.astype(np.float32)), np.float64)

    if options.missing != "none" or options.missing_indicator:
        state["missing"] = missing.fit(
            current,
            method=options.missing,
            fill_value=options.fill_value,
            neighbours=options.neighbours,
            missing_indicator=options.missing_indicator,
            categorical=categorical,
            names=recipe.names or None,
        )
        current = after(missing, state["missing"])
    categorical = _widened(categorical, current.shape[1])
    if options.outliers != "none" and options.outlier_action != "drop":
        state["outliers"] = outliers.fit(
            current,
            method=options.outliers,
            action=options.outlier_action,
            threshold=options.outlier_threshold,
            contamination=options.contamination,
            categorical=categorical,
        )
        current = after(outliers, state["outliers"])
        categorical = _widened(categorical, current.shape[1])
    if options.scale != "none":
        state["scale"] = scale.fit(current, method=options.scale, categorical=categorical)
        current = after(scale, state["scale"])
    if options.pca is not None:
        coded = np.asarray(_encoded(recipe, current.astype(np.float32)))
        state["pca"] = pca.fit(coded, components=options.pca, whiten=options.whiten)
    return {name: learnt for name, learnt in state.items() if learnt}


def _widened(categorical: np.ndarray | None, columns: int) -> np.ndarray | None:
    """Stages append columns of numbers; they come last."""
    if categorical is None:
        return None
    return np.concatenate([categorical, np.zeros(columns - len(categorical), bool)])


# --- applying -------------------------------------------------------------------------------------


def apply(recipe: Recipe, state: Mapping[str, Any], inputs: Num[Array, "n *shape"]) -> Array:
    """Returns raw inputs as a model takes them. Pure.

    uint8 becomes float32 divided by 255; token ids stay whole numbers. A table goes through
    missing values, outliers, scaling, encoding and principal components, in this order; images
    through resizing, colour, contrast, standardising; waveforms become features; then these are
    scaled and projected, too.

    Args:
      recipe: what is done.
      state: what `fit` returned.
      inputs: a batch.
    """
    if recipe.kind == "text":
        return inputs
    values = _as_float(inputs)
    if recipe.kind == "table":
        values = missing.apply(state.get("missing", {}), values)
        values = outliers.apply(state.get("outliers", {}), values)
        values = scale.apply(state.get("scale", {}), values)
        values = _encoded(recipe, values)
    else:
        values = _free_stages(recipe, values, _levels(inputs))
        values = scale.apply(state.get("scale", {}), values)
    if "pca" in state:
        values = pca.apply(state["pca"], values.reshape(len(values), -1))
    return values


def _as_float(inputs: Num[Array, "n *shape"]) -> Float[Array, "n *shape"]:
    import jax.numpy as jnp

    values = jnp.asarray(inputs).astype(jnp.float32)
    return values / 255.0 if inputs.dtype == jnp.uint8 else values


def _levels(inputs: Any) -> int | None:
    return 256 if inputs.dtype == np.uint8 else None


def _encoded(recipe: Recipe, values: Any) -> Any:
    if not any(recipe.cardinalities):
        return values
    appended = values.shape[1] - len(recipe.cardinalities)
    return encode.apply(
        values,
        method=recipe.fields.encode,
        cardinalities=(*recipe.cardinalities, *[0] * appended),
    )


def _has_free_stages(recipe: Recipe) -> bool:
    options, default = recipe.fields, PreprocessFields()
    keys = {"image": IMAGE_KEYS, "audio": ("audio",)}.get(recipe.kind, ())
    return any(getattr(options, key) != getattr(default, key) for key in keys)


def _free_stages(recipe: Recipe, values: Any, levels: int | None) -> Any:
    """The stages that learn nothing: of images, and of waveforms.

    ``levels`` is 256 where pixels were bytes.
    """
    options = recipe.fields
    if not _has_free_stages(recipe):
        return values
    if recipe.kind == "image":
        from jdlopt.data.preprocess import images

        settings = {key: getattr(options, key) for key in IMAGE_KEYS}
        return images.apply(values, **settings, levels=levels)
    from jdlopt.data.preprocess import audio

    assert recipe.sample_rate is not None
    shared: dict[str, Any] = {
        "sample_rate": recipe.sample_rate,
        "n_fft": options.n_fft,
        "hop": options.hop,
        "num_mels": options.num_mels,
    }
    if options.audio == "mfcc":
        features = audio.mfcc(values, **shared, num_coefficients=options.num_coefficients)
    else:
        features = audio.log_mel(values, **shared)
    if options.normalize != "none":
        features = audio.normalised(features, per_feature=options.normalize == "feature")
    import jax.numpy as jnp

    derivatives = [audio.deltas(features, order=order + 1) for order in range(options.deltas)]
    return jnp.concatenate([features, *derivatives], axis=-1)


def output_shape(
    recipe: Recipe, state: Mapping[str, Any], input_shape: tuple[int, ...], input_dtype: str
) -> tuple[tuple[int, ...], str]:
    """Returns the shape and type of one input after `apply`.

    Example:
      >>> output_shape(Recipe(PreprocessFields(), "image"), {}, (8, 8, 1), "uint8")
      ((8, 8, 1), 'float32')
    """
    import jax

    raw = jax.ShapeDtypeStruct((1, *input_shape), np.dtype(input_dtype))
    made = jax.eval_shape(lambda inputs: apply(recipe, state, inputs), raw)
    return tuple(made.shape[1:]), str(made.dtype)


def to_dict(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state as nested JSON-able lists; `from_dict` gives back the same numbers."""
    return {
        name: to_dict(value) if isinstance(value, Mapping) else np.asarray(value).tolist()
        for name, value in state.items()
    }


def from_dict(saved: Mapping[str, Any]) -> State:
    """Returns the state that `to_dict` was given, as float32.

    Example:
      >>> from_dict(to_dict({"scale": {"shift": np.float32([0.1])}}))["scale"]["shift"]
      array([0.1], dtype=float32)
    """
    return {
        name: from_dict(value)
        if isinstance(value, Mapping)
        else np.asarray(value, dtype=np.float32)
        for name, value in saved.items()
    }
