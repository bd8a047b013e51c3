"""Scale inputs: fitted once on the training split, then applied as a pure function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jdlopt.data.preprocess import quantile
from jdlopt.errors import ConfigError, listing, nearest

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Num  # its Array imports jax

METHODS = ("none", "standard", "minmax", "robust", "robust_clipped", "quantile", "log")

CHANGED = {"log": "log", "robust_clipped": "clipped", "quantile": "normal"}
"""What marks, in a state, the features that a method changes by more than shift and scale."""

CHUNK_VALUES = 1 << 22
"""So many values are turned into float64 at a time."""

SAMPLE_VALUES = 1 << 22
"""Medians and other quantiles are taken from so many values at most."""

SOFT_LIMIT = 3.0
"""``robust_clipped`` keeps what it scales within ± so much."""

State = dict[str, Any]
"""Empty, or ``shift``, its ``rest`` (what a float32 can't hold of it) and ``scale``; by ``log``
also ``log`` (1 where the logarithm is taken), by ``robust_clipped`` ``clipped`` (1 where values
are), by ``quantile`` what `jdlopt.data.preprocess.quantile` learns: float32, one number a feature
or channel."""


def fit(
    values: Num[np.ndarray, "n *shape"],
    *,
    method: str,
    categorical: Bool[np.ndarray, " features"] | None = None,
    seed: int = 0,
) -> State:
    """Returns what `apply` needs to scale each feature or channel, from the training split alone.

    One-dimensional examples are scaled feature by feature; others channel by channel, over all
    positions, the channel being the last axis. uint8 values are divided by 255 first. NaN is
    left out of account. A feature that is constant, or has no value, is scaled by 1.

    ``standard``: ``(x - mean) / standard deviation``. ``minmax``: ``(x - min) / (max - min)``.
    ``robust``: ``(x - median) / (upper quartile - lower quartile)``. ``log``: ``standard`` of
    ``sign(x) · log(1 + |x|)``, which needs no positive values and nothing fitted, and so draws in
    the long tails that a power transform would have to find an exponent for.

    ``robust_clipped``: ``robust``, where the quartiles are equal half the range in place of their
    distance, and then ``z / √(1 + (z / 3)²)``, which is near z where z is small and stays within
    ±3. Holzmüller, Grinsztajn and Steinwart, "Better by default: strong pre-tuned MLPs and boosted
    trees on tabular data", 2024. ``quantile``: a normal distribution in place of the feature's own
    (`jdlopt.data.preprocess.quantile`).

    Args:
      values: the training split's inputs.
      method: one of `METHODS`.
      categorical: the features that hold codes of categories and stay as they are; None for none.
      seed: chooses what quantiles are of, in a split of more than `SAMPLE_VALUES` values.

    Raises:
      ConfigError: the method is unknown.

    Example:
      >>> state = fit(np.array([[2.0], [4.0]], "float32"), method="minmax")
      >>> state["shift"], state["scale"]
      (array([2.], dtype=float32), array([2.], dtype=float32))
    """
    rows = max(1, CHUNK_VALUES // max(1, values[0].size))
    starts = range(0, len(values), rows)
    batches = (values[start : start + rows] for start in starts)
    return fit_batches(batches, method=method, categorical=categorical, seed=seed)


def fit_batches(
    batches: Iterable[Num[np.ndarray, "_ *shape"]],
    *,
    method: str,
    categorical: Bool[np.ndarray, " features"] | None = None,
    seed: int = 0,
) -> State:
    """Fits as `fit` does, over batches of a training split that does not fit in memory.

    Beyond `SAMPLE_VALUES` values quantiles are those of a uniform sample of rows (or positions). It
    depends on the seed and on the rows' order, not on how they are cut into batches.
    """
    if method not in METHODS:
        raise ConfigError(
            f"data.preprocess.scale: {method!r} is unknown.{nearest(method, METHODS)} "
            f"Known: {listing(METHODS)}."
        )
    if method == "none":
        return {}
    chunks = _rows(batches)
    learnt: State = {}
    if method == "robust":
        shift, scale = _robust(_sampled(chunks, seed))
    elif method == "robust_clipped":
        shift, scale = _by_quartiles_or_range(_sampled(chunks, seed))
    elif method == "quantile":
        shift, scale, learnt = quantile.fit(_sampled(chunks, seed))
    else:
        found = _moments(map(_log, chunks) if method == "log" else chunks)
        varies = found["low"] < found["high"]  # a standard deviation of 0 may be rounded to more
        if method == "minmax":
            shift, scale = found["low"], found["high"] - found["low"]
        else:
            shift, scale = found["mean"], found["deviation"]
        # a feature without values has no least one
        shift, scale = np.where(np.isfinite(shift), shift, 0.0), np.where(varies, scale, 1.0)
        shift = np.where(varies, shift, found["low"].astype(np.float32))  # to the digit
        shift = np.where(np.isfinite(shift), shift, 0.0)
    rest = (shift - shift.astype(np.float32)).astype(np.float32)
    shift, scale = shift.astype(np.float32), scale.astype(np.float32)
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)  # can't be divided by
    is_code = np.zeros(len(shift), bool) if categorical is None else np.asarray(categorical)
    state = {
        "shift": np.where(is_code, np.float32(0), shift),
        "rest": np.where(is_code, np.float32(0), rest),
        "scale": np.where(is_code, np.float32(1), scale),
    }
    if method in CHANGED:
        learnt = {**learnt, CHANGED[method]: (~is_code).astype(np.float32)}
    return state | learnt


def _rows(batches: Iterable[np.ndarray]) -> Iterator[Float[np.ndarray, "rows features"]]:
    for inputs in batches:
        values = np.asarray(inputs).reshape(-1, inputs.shape[-1]).astype(np.float64)
        yield values / 255.0 if inputs.dtype == np.uint8 else values


def _log(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))


def _moments(chunks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Each feature's mean, standard deviation, least and greatest value, NaN left out.

    The moments of two parts are merged by the formula of Chan, Golub and LeVeque (1979).
    Scikit-learn's scalers do the same, but a batch that lacks all values of a feature turns their
    moments into NaN for good.
    """
    count, mean, squares = np.zeros(1), np.zeros(1), np.zeros(1)
    low, high = np.full(1, np.inf), np.full(1, -np.inf)
    for values in chunks:
        known = ~np.isnan(values)
        more = known.sum(axis=0)
        part = np.where(known, values, 0.0).sum(axis=0) / np.maximum(more, 1)
        deviations = np.where(known, values - part, 0.0)
        total = np.maximum(count + more, 1)
        between = (part - mean) ** 2 * count * more / total
        squares = squares + (deviations * deviations).sum(axis=0) + between
        mean = mean + (part - mean) * more / total
        count = count + more
        low = np.fmin(low, np.fmin.reduce(values, axis=0))
        high = np.fmax(high, np.fmax.reduce(values, axis=0))
    deviation = np.sqrt(squares / np.maximum(count, 1))
    return {"mean": mean, "deviation": deviation, "low": low, "high": high}


def _robust(sample: Float[np.ndarray, "rows features"]) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.preprocessing import RobustScaler  # takes a second to import

    scaler = RobustScaler().fit(sample)
    return scaler.center_, scaler.scale_


def _by_quartiles_or_range(
    sample: Float[np.ndarray, "rows features"],
) -> tuple[np.ndarray, np.ndarray]:
    """Medians, and the quartiles' distances; half the range where the quartiles are equal."""
    low, lower, median, upper, high = np.nanpercentile(sample, (0, 25, 50, 75, 100), axis=0)
    distance = np.where(upper > lower, upper - lower, (high - low) / 2)
    return median, np.where(distance > 0, distance, 1.0)


def _sampled(chunks: Iterable[np.ndarray], seed: int) -> Float[np.ndarray, "rows features"]:
    """A uniform sample of at most `SAMPLE_VALUES` values: the rows that drew the smallest words.

    Where all of a feature is missing there, it is 0.

    The words are Philox's raw ones, a stream that numpy promises to keep.
    """
    stream = np.random.Philox(key=[seed, 0])
    kept: list[np.ndarray] = []
    words: list[np.ndarray] = []
    for values in chunks:
        kept.append(values)
        words.append(stream.random_raw(len(values)))
        most = max(1, SAMPLE_VALUES // values.shape[1])
        if sum(map(len, words)) > most:
            drawn = np.concatenate(words)
            chosen = np.argpartition(drawn, most - 1)[:most]
            kept, words = [np.concatenate(kept)[chosen]], [drawn[chosen]]
    sample = np.concatenate(kept)
    return np.where(np.isnan(sample).all(axis=0), 0.0, sample)


def apply(
    state: Mapping[str, Any], values: Num[Array | np.ndarray, "*shape"]
) -> Float[Array, "*shape"]:
    """Returns values as float32: uint8 divided by 255, then ``(values - shift) / scale``. Pure.

    NaN stays NaN. By ``log``, values become ``sign(x) · log(1 + |x|)`` before; ``robust_clipped``
    and ``quantile`` change what comes out, as `fit` says.

    Args:
      state: what `fit` returned.
      values: a batch or one example.
    """
    import jax.numpy as jnp

    scaled = jnp.asarray(values).astype(jnp.float32)
    if values.dtype == jnp.uint8:
        scaled = scaled / 255.0
    if not state:
        return scaled
    if "log" in state:
        taken = jnp.asarray(state["log"]) > 0
        scaled = jnp.where(taken, jnp.sign(scaled) * jnp.log1p(jnp.abs(scaled)), scaled)
    # a large mean is no float32; values near it are taken apart from its first part without loss
    scaled = ((scaled - state["shift"]) - state["rest"]) / state["scale"]
    if "clipped" in state:
        drawn_in = scaled / jnp.hypot(1.0, scaled / SOFT_LIMIT)
        scaled = jnp.where(jnp.asarray(state["clipped"]) > 0, drawn_in, scaled)
    if "quantiles" in state:
        scaled = quantile.apply(state, scaled)
    return scaled
