"""The ranges of layers' inputs: observed in evaluation mode, and narrowed by what codes lose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, PyTree

from jdlopt.errors import DataError, listing
from jdlopt.models.kernel_inputs import RANGES, Known, Visit, is_range, layer_of, visiting
from jdlopt.models.quantization import PERCENTILE, QuantizeFields, chooser, range_of
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights
from jdlopt.train.step import Batch, Inputs

BINS = 2048
"""Of the histogram of a layer's inputs, from which percentiles and squared errors come."""
_SHARES = np.linspace(0.1, 1.0, 37)
"""What of a range is tried at each end, where the squared error chooses."""


def with_ranges(observed: Experiment, weights: Weights) -> Weights:
    """Returns weights with a range of no width for each layer whose inputs are to be observed.

    Args:
      observed: of the model with quantized activations.
      weights: without its ranges, or with some.
    """
    shapes = jax.eval_shape(partial(observed.init, 0)).model_state
    known = flatten_dict(weights.model_state)
    state = {
        path: jnp.zeros(leaf.shape, leaf.dtype) if is_range(_name(path)) else known[path]
        for path, leaf in flatten_dict(shapes).items()
    }
    return weights.replace(model_state=unflatten_dict(state), hparams=unquantized(weights.hparams))


def unquantized(hparams: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Returns hyperparameters without those of quantization."""
    model = {name: value for name, value in hparams["model"].items() if name != "quantize"}
    return {**hparams, "model": model}


def without_ranges(state: PyTree) -> PyTree:
    """Returns a model's state without what is known of layers' inputs."""
    flat = flatten_dict(state)
    return unflatten_dict({path: leaf for path, leaf in flat.items() if not is_range(_name(path))})


def known_of(state: PyTree, name: str) -> dict[str, Array]:
    """Returns what a model's state has under a name of layers' inputs, by layer."""
    return {
        layer_of(_name(path)): leaf
        for path, leaf in flatten_dict(state).items()
        if is_range(_name(path)) and path[-1] == name
    }


def _name(path: tuple[object, ...]) -> str:
    return "/".join(map(str, path))


def _replaced(state: PyTree, values: Mapping[str, Mapping[str, Array]]) -> PyTree:
    """A state with what is known of its layers' inputs replaced: name → layer → value."""
    flat = {path: leaf for path, leaf in flatten_dict(state).items() if not is_range(_name(path))}
    for path in flatten_dict(state):
        if is_range(_name(path)) and path[-1] == "low":
            layer = layer_of(_name(path))
            for name, of_layers in values.items():
                flat[(*path[:-1], name)] = of_layers[layer]
    return unflatten_dict(flat)


# --- ranges ---------------------------------------------------------------------------------------


def observed_ranges(
    plain: Experiment,
    weights: Weights,
    fields: QuantizeFields,
    batches: Callable[[], Iterable[Batch]],
) -> PyTree:
    """Returns the model's state with the range of each layer's inputs, by the float model. Pure.

    It runs in evaluation mode: with the statistics of a batch, inputs are others.

    Args:
      plain: of the float model.
      weights: its own, `with_ranges`.
      fields: the bits of inputs, and how ranges are chosen.
      batches: gives the same batches at each call.

    Raises:
      DataError: there is no example, or a layer's inputs are not finite.
    """
    chooses = chooser(fields.patterns)

    def run(weights: Weights, inputs: Inputs, visit: Visit, extra: Known) -> PyTree:
        seen = plain.components.preprocess(weights.preprocess, inputs)
        with visiting(visit, chooses, extra):
            _, state = plain.components.model.apply(
                weights.params, weights.model_state, seen, weights.hparams["model"],
                key=None, train=False, updates=(RANGES,),
            )  # fmt: skip
        return state

    def passed(weights: Weights, visit: Visit, extra: Known) -> tuple[Weights, int]:
        program = jax.jit(partial(run, visit=visit, extra=extra))
        count = 0
        for batch in batches():
            count += len(jax.tree.leaves(batch["inputs"])[0])
            if len(jax.tree.leaves(batch["inputs"])[0]):
                weights = weights.replace(model_state=program(weights, batch["inputs"]))
        return weights, count

    found, count = passed(weights, Visit(_widened), {})
    if not count:
        raise DataError("calibration: there is no example. Give at least one training example.")
    low, high = known_of(found.model_state, "low"), known_of(found.model_state, "high")
    wrong = [
        layer for layer in low if not bool(jnp.isfinite(jnp.stack((low[layer], high[layer]))).all())
    ]
    if wrong:
        raise DataError(
            f"calibration: what layer {wrong[0]!r} is given is not finite on these examples (of "
            f"{len(low)} layers, {len(wrong)}: {listing(wrong, 3)}). Look for NaN in the data "
            "(`jdlopt data check`), and for a diverged run."
        )
    if fields.calibration == "minmax":
        return found.model_state
    counts = {layer: jnp.zeros((*leaf.shape, BINS), jnp.int32) for layer, leaf in low.items()}
    state = _replaced(found.model_state, {"low": low, "high": high, "counts": counts})
    counted, _ = passed(
        found.replace(model_state=state), Visit(_counted), {"counts": jnp.zeros(BINS, jnp.int32)}
    )
    bits = fields.activations
    assert bits is not None
    percentile = PERCENTILE if fields.percentile is None else float(fields.percentile)
    narrowed = {
        layer: _narrowed(np.asarray(low[layer]), np.asarray(high[layer]), np.asarray(of_layer),
                         fields.calibration, percentile, float(bits))
        for layer, of_layer in known_of(counted.model_state, "counts").items()
    }  # fmt: skip
    ends = {
        name: {layer: jnp.asarray(pair[index], jnp.float32) for layer, pair in narrowed.items()}
        for index, name in enumerate(("low", "high"))
    }
    return _replaced(found.model_state, ends)


def _widened(x: Array, known: Known) -> tuple[Array, Known]:
    found = range_of(x)
    low, high = jnp.minimum(known["low"], found["low"]), jnp.maximum(known["high"], found["high"])
    return x, {**known, "low": low, "high": high}


def _counted(x: Array, known: Known) -> tuple[Array, Known]:
    width = jnp.where(known["high"] > known["low"], known["high"] - known["low"], 1.0)
    place = (x.astype(jnp.float32) - known["low"]) / width * BINS
    index = jnp.clip(place.astype(jnp.int32), 0, BINS - 1)
    return x, {**known, "counts": known["counts"].at[index.ravel()].add(1)}


def _narrowed(
    low: Float[np.ndarray, "*layers"],
    high: Float[np.ndarray, "*layers"],
    counts: Int[np.ndarray, "*layers bins"],
    calibration: str,
    percentile: float,
    bits: float,
) -> tuple[Float[np.ndarray, "*layers"], Float[np.ndarray, "*layers"]]:
    """The ends of ranges by percentiles or the squared error; a stack of layers has one each."""
    pairs = [
        _percentiles(*one, percentile) if calibration == "percentile" else _least_error(*one, bits)
        for one in zip(low.ravel(), high.ravel(), counts.reshape(-1, BINS), strict=True)
    ]
    ends = np.asarray(pairs, np.float32).reshape(*low.shape, 2)
    return ends[..., 0], ends[..., 1]


def _centers(low: float, high: float) -> Float[np.ndarray, " bins"]:
    return low + (np.arange(BINS) + 0.5) * (high - low) / BINS


def _percentiles(
    low: float, high: float, counts: Int[np.ndarray, " bins"], percentile: float
) -> tuple[float, float]:
    """The range that leaves out so much at each end; 0 stays in it."""
    shares = np.cumsum(counts) / max(1, counts.sum())
    edges = np.linspace(low, high, BINS + 1)
    top = edges[min(int(np.searchsorted(shares, percentile / 100)), BINS - 1) + 1]
    bottom = edges[int(np.searchsorted(shares, 1 - percentile / 100, side="right"))]
    return min(float(bottom), 0.0), max(float(top), 0.0)


def _least_error(
    low: float, high: float, counts: Int[np.ndarray, " bins"], bits: float
) -> tuple[float, float]:
    """The range, narrowed at each end, whose codes have the least squared error."""
    levels, values = math.floor(2**bits + 1e-3) - 1, _centers(low, high)
    best, found = math.inf, (low, high)
    for bottom in _SHARES * low if low < 0 else (0.0,):
        tops = (_SHARES * high)[:, None] if high > 0 else np.zeros((1, 1))
        scale = np.maximum(tops - bottom, 1e-30) / levels
        zero = np.round(-bottom / scale)
        codes = np.clip(np.round(values / scale) + zero, 0, levels)
        errors = (counts * ((codes - zero) * scale - values) ** 2).sum(axis=1)
        index = int(errors.argmin())
        if errors[index] < best:
            best, found = float(errors[index]), (float(bottom), float(tops[index, 0]))
    return found
