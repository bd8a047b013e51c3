"""Preprocessing: fitted once on the training split, saved with the run, applied as a pure function.

The same function serves training, evaluation, prediction and export. What it does is said by a
`Recipe`, which is static; what it learnt is a state, a pytree of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdlopt.data.named import each
from jdlopt.data.pools import Arrays
from jdlopt.data.preprocess import encode, missing, outliers, pca, piecewise, scale
from jdlopt.data.preprocess.recipe import (
    IMAGE_KEYS,
    PreprocessFields,
    Recipe,
    Recipes,
    as_fields,
    kind_of,
    make_recipe,
    make_recipes,
)
from jdlopt.data.spec import InputSpec

__all__ = [
    "InputSpec",
    "PreprocessFields",
    "Recipe",
    "Recipes",
    "Shaped",
    "State",
    "apply",
    "as_fields",
    "before_scaling",
    "fit",
    "fit_batches",
    "from_dict",
    "is_fitted",
    "kind_of",
    "make_recipe",
    "make_recipes",
    "output_shape",
    "to_dict",
]

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num  # its Array imports jax

State = dict[str, Any]
"""Stage → what it learnt: arrays. Empty where nothing is fitted. Of named inputs, one by name."""
RANKS = {"table": 2, "image": 4, "audio": {2, 3}, "text": 2, "presence": 2}
"""How many axes a batch of a kind has; a sequence may have any."""


class Shaped(NamedTuple):
    """The shape and type of one input as a model takes it."""

    shape: tuple[int, ...]
    dtype: str


# --- fitting --------------------------------------------------------------------------------------


def is_fitted(recipe: Recipe) -> bool:
    """Returns whether a recipe learns anything from the training split."""
    options = recipe.fields
    return (
        options.scale != "none"
        or options.pca is not None
        or options.bins is not None
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
    """Fits as `fit` does, over batches of a training split that does not fit in memory.

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


def before_scaling(recipe: Recipe, inputs: Num[np.ndarray, "n *shape"]) -> np.ndarray:
    """Returns examples as scaling takes them; a table's as they are: earlier stages learn theirs.

    Args:
      recipe: what is to be done.
      inputs: a batch.
    """
    if recipe.kind == "table":
        return inputs
    [made] = _prepared(recipe, [inputs])
    return made / 255.0 if made.dtype == np.uint8 else made


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
            fill_value=options.fill_value - np.asarray(recipe.offsets or 0.0, np.float64),
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
        kept = categorical
        if options.scale == "quantile":  # far apart is not what 0 and 1 of a mark should be
            marks = np.arange(current.shape[1]) >= values.shape[1]
            kept = marks if categorical is None else marks | categorical
        state["scale"] = scale.fit(current, method=options.scale, categorical=kept)
        current = after(scale, state["scale"])
    if options.bins is not None:
        numeric = np.arange(current.shape[1]) < values.shape[1]  # what stages appended is binary
        numeric &= True if categorical is None else ~categorical
        state["bins"] = piecewise.fit(current, bins=options.bins, numeric=numeric)
        current = after(piecewise, state["bins"])
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


def apply(recipe: Recipes, state: Mapping[str, Any], inputs: Any) -> Any:
    """Returns raw inputs as a model takes them. Pure.

    uint8 becomes float32 divided by 255; token ids stay whole numbers. A table goes through
    missing values, outliers, scaling, bins, encoding, principal components, in this order; images
    through resizing, colour, contrast, standardising; waveforms become features; then these are
    scaled and projected, too.

    Args:
      recipe: what is done to the only input, or to each of named ones.
      state: what `fit` returned; of named inputs, for each.
      inputs: a batch: an array [n, …], or named ones.
    """
    if not isinstance(recipe, Recipe):
        return each(apply, recipe, state, inputs)
    import chex

    if recipe.kind in RANKS:
        takes = f"inputs of the kind {recipe.kind!r} are a batch"
        chex.assert_rank(inputs, RANKS[recipe.kind], custom_message=takes)
    if recipe.kind in ("text", "presence"):
        return inputs
    values = _as_float(inputs)
    if recipe.kind == "table":
        values = missing.apply(state.get("missing", {}), values)
        values = outliers.apply(state.get("outliers", {}), values)
        values = scale.apply(state.get("scale", {}), values)
        values = piecewise.apply(state.get("bins", {}), values)
        values = _encoded(recipe, values)
    else:
        values = _free_stages(recipe, values, _levels(inputs))
        values = scale.apply(state.get("scale", {}), values)
    if "pca" in state:
        values = pca.apply(state["pca"], values.reshape(values.shape[0], -1))
    return values


def _as_float(inputs: Num[Array | np.ndarray, "n *shape"]) -> Float[Array, "n *shape"]:
    import jax.numpy as jnp

    values = jnp.asarray(inputs).astype(jnp.float32)
    return values / 255.0 if inputs.dtype == jnp.uint8 else values


def _levels(inputs: Any) -> int | None:
    return 256 if inputs.dtype == np.uint8 else None


def _encoded(recipe: Recipe, values: Any) -> Any:
    if not any(recipe.cardinalities):
        return values
    own, method = len(recipe.cardinalities), recipe.fields.encode
    if method == "embedding":  # models find the codes behind the table's own numbers
        import jax.numpy as jnp

        coded = encode.apply(values[:, :own], method=method, cardinalities=recipe.cardinalities)
        return jnp.concatenate([coded, values[:, own:]], axis=1)
    cardinalities = (*recipe.cardinalities, *[0] * (values.shape[1] - own))
    return encode.apply(values, method=method, cardinalities=cardinalities)


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
    recipe: Recipes, state: Mapping[str, object], spec: InputSpec | Mapping[str, InputSpec]
) -> Any:
    """Returns the `Shaped` of one example after `apply`; of named inputs, of each.

    Example:
      >>> output_shape(Recipe(PreprocessFields(), "image"), {}, InputSpec((8, 8, 1), "uint8"))
      Shaped(shape=(8, 8, 1), dtype='float32')
    """
    import jax

    if not isinstance(spec, InputSpec):
        return each(output_shape, recipe, state, spec)

    raw = jax.ShapeDtypeStruct((1, *spec.shape), np.dtype(spec.dtype))
    made = jax.eval_shape(lambda inputs: apply(recipe, state, inputs), raw)
    return Shaped(tuple(made.shape[1:]), str(made.dtype))


def to_dict(state: Mapping[str, object]) -> dict[str, Any]:
    """Returns a state as nested JSON-able lists; `from_dict` gives back the same numbers."""
    return {
        name: to_dict(value) if isinstance(value, Mapping) else np.asarray(value).tolist()
        for name, value in state.items()
    }


def from_dict(saved: Mapping[str, object]) -> State:
    """Returns the state that `to_dict` was given, as float32.

    What scaling learnt before it kept the ``rest`` of a shift has none: 0.

    Example:
      >>> from_dict(to_dict({"scale": {"shift": np.float32([0.1])}}))["scale"]["shift"]
      array([0.1], dtype=float32)
    """
    state = {
        name: from_dict(value)
        if isinstance(value, Mapping)
        else np.asarray(value, dtype=np.float32)
        for name, value in saved.items()
    }
    if {"shift", "scale"} <= state.keys():
        state.setdefault("rest", np.zeros_like(state["shift"]))
    return state
