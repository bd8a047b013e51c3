"""Simulated quantization: kernels and layers' inputs as few bits would hold them, while training.

Numbers stay floats, rounded to what a small integer times a scale can be ("fake" quantization), so
that training learns to do with them and evaluation measures what they cost. Jacob et al.,
"Quantization and training of neural networks for efficient integer-arithmetic-only inference",
2018. Rounding passes gradients on as they are: Bengio, Léonard and Courville, "Estimating or
propagating gradients through stochastic neurons for conditional computation", 2013.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, PyTree

from jdlopt.config import Choice, Range, Rate, Scalar
from jdlopt.errors import ConfigError
from jdlopt.models import lora
from jdlopt.models.bridge import Model
from jdlopt.models.kernel_inputs import Known, Visit, declaring, visiting

Bits = Annotated[Scalar, Range(2, 8)]
Percentile = Annotated[Scalar, Range(50, 100)]
PER = ("channel", "tensor")
CALIBRATIONS = ("minmax", "percentile", "mse")
"""How a kernel's largest number that is no clipped one is found."""
PERCENTILE, MOMENTUM = 99.9, 0.95
KEY = "model.quantize.patterns"
_RATIOS = tuple(step / 32 for step in range(6, 33))
"""What of the largest number is tried as the largest that is not clipped; see `limit_of`."""


@dataclass(frozen=True)
class QuantizeFields:
    """The ``model.quantize`` section: kernels and inputs of layers in few bits, simulated.

    Attributes:
      weights: bits of a number of a kernel, from 2 to 8; None: kernels are not quantized. A search
        may try fractions: of 3.5 bits, as many levels as fit.
      activations: bits of a number that goes into a layer with such a kernel; None: they are not.
      per: whether each output channel of a kernel has a scale, or the kernel one.
      calibration: what a kernel's largest integer stands for: its largest number (``minmax``), a
        ``percentile`` of them, or what makes the squared error least (``mse``).
      percentile: of a kernel's absolute values; None: 99.9.
      momentum: how much of the running ranges of inputs a training step keeps; None: 0.95.
      patterns: regular expressions of the paths of the kernels that are quantized.
    """

    weights: Bits | None = None
    activations: Bits | None = None
    per: Annotated[str, Choice(PER)] = "channel"
    calibration: Annotated[str, Choice(CALIBRATIONS)] = "minmax"
    percentile: Percentile | None = None
    momentum: Rate | None = None
    patterns: tuple[str, ...] = lora.KERNELS

    @property
    def on(self) -> bool:
        """Whether anything is quantized."""
        return self.weights is not None or self.activations is not None


# --- numbers --------------------------------------------------------------------------------------


@jax.custom_jvp
def _straight_through(x: Array, rounded: Array) -> Array:
    """Returns ``rounded``; its gradient is that of ``x``."""
    return rounded


@_straight_through.defjvp
def _straight_through_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    return primals[1], tangents[0]


class Codes(NamedTuple):
    """Numbers as integers: what each stands for is ``(codes - zero) · scale``.

    Attributes:
      codes: whole numbers, as float32.
      scale: what 1 stands for; of each channel where each has one.
      zero: the code of 0.
    """

    codes: Float[Array, "*shape"]
    scale: Float[Array, "*scales"]
    zero: Float[Array, ""] | float = 0.0

    @property
    def values(self) -> Float[Array, "*shape"]:
        """What the codes stand for."""
        return (self.codes - self.zero) * self.scale


def _powers(bits: Scalar) -> Float[Array, ""]:
    # a power of 2 may come out as a little less than it is
    return jnp.floor(jnp.exp2(jnp.asarray(bits, jnp.float32)) + 1e-3)


def weight_codes(
    kernel: Float[Array, "*shape"],
    bits: Scalar,
    *,
    per: str = "channel",
    calibration: str = "minmax",
    percentile: Scalar = PERCENTILE,
    stacked: bool = False,
) -> Codes:
    """Returns a kernel's codes, from ``-(2^(bits-1) - 1)`` to ``2^(bits-1) - 1``: symmetric.

    Args:
      kernel: its last axis is the output channels.
      bits: from 2 to 8; traced or not.
      per, calibration, percentile: as in `QuantizeFields`.
      stacked: whether the first axis is layers, each a kernel of its own.

    Example:
      >>> made = weight_codes(jnp.array([[1.0, 0.2], [-0.5, 0.05]]), 3.0)
      >>> made.codes.tolist(), made.scale.round(3).tolist()
      ([[3.0, 3.0], [-2.0, 1.0]], [[0.333..., 0.067...]])
    """
    axes = tuple(range(int(stacked), kernel.ndim - (per == "channel")))
    most = _powers(bits - 1) - 1
    kernel = jax.lax.stop_gradient(kernel)

    def coded(limit: Array) -> Codes:
        scale = jnp.where(limit > 0, limit, 1.0) / most
        return Codes(jnp.clip(jnp.round(kernel / scale), -most, most), scale)

    return coded(_limit(kernel, axes, calibration, percentile, lambda limit: coded(limit).values))


def _limit(
    kernel: Array,
    axes: tuple[int, ...],
    calibration: str,
    percentile: Scalar,
    quantized: Callable[[Array], Array],
) -> Array:
    """The largest absolute value that is not clipped, of each channel."""
    sizes = jnp.abs(kernel)
    largest = sizes.max(axis=axes, keepdims=True)
    if calibration == "minmax":
        return largest
    if calibration == "percentile":
        found = jnp.quantile(sizes, jnp.asarray(percentile) / 100, axis=axes, keepdims=True)
        return jnp.where(found > 0, found, largest)  # most of it may be 0

    def better(best: tuple[Array, Array], ratio: Array) -> tuple[tuple[Array, Array], None]:
        limit = ratio * largest
        error = jnp.square(quantized(limit) - kernel).sum(axis=axes, keepdims=True)
        less = error <= best[0]
        return (jnp.where(less, error, best[0]), jnp.where(less, limit, best[1])), None

    first = (jnp.full_like(largest, jnp.inf), largest)
    return jax.lax.scan(better, first, jnp.asarray(_RATIOS))[0][1]


def activation_codes(x: Float[Array, "*shape"], bits: Scalar, low: Scalar, high: Scalar) -> Codes:
    """Returns the codes of a layer's inputs, from 0 to ``2^bits - 1``, which cover a range: affine.

    The range is widened to hold 0, which has a code of its own; what lies outside is clipped. A
    range of no width, which none was seen for, is [0, 1].

    Args:
      x: inputs.
      bits: from 2 to 8; traced or not.
      low, high: the range.

    Example:
      >>> made = activation_codes(jnp.array([-1.0, 0.0, 0.4, 9.0]), 2.0, -1.0, 2.0)
      >>> made.codes.tolist(), made.values.tolist()
      ([0.0, 1.0, 1.0, 3.0], [-1.0, 0.0, 0.0, 2.0])
    """
    rounded, most, scale, zero = _rounded(x, bits, low, high)
    return Codes(jnp.clip(rounded, 0.0, most), scale, zero)


def _rounded(
    x: Array, bits: Scalar, low: Scalar, high: Scalar
) -> tuple[Array, Array, Array, Array]:
    """The codes of inputs before they are clipped, the largest code, the scale, and 0's code."""
    low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
    most = _powers(bits) - 1
    scale = jnp.where(high > low, high - low, 1.0) / most
    zero = jnp.round(-low / scale)
    return jnp.round(x / scale) + zero, most, scale, zero


def quantized_activations(
    x: Float[Array, "*shape"], bits: Scalar, low: Scalar, high: Scalar
) -> Float[Array, "*shape"]:
    """Returns a layer's inputs as their codes say them, in the type that they had.

    Gradients pass through as they are where nothing is clipped, and are 0 elsewhere. Before a range
    was seen, the inputs stay as they are.

    Args:
      x, bits, low, high: as in `activation_codes`.
    """
    wide = x.astype(jnp.float32)
    fixed = jax.lax.stop_gradient(wide)
    rounded, most, scale, zero = _rounded(fixed, bits, low, high)
    values = Codes(jnp.clip(rounded, 0.0, most), scale, zero).values
    inside = jnp.where((rounded >= 0.0) & (rounded <= most), wide, fixed)
    return jnp.where(high > low, _straight_through(inside, values), wide).astype(x.dtype)


def quantized_state(state: Float[Array, "*shape"], bits: Scalar) -> Float[Array, "*shape"]:
    """Returns what lies in [-1, 1] as the symmetric codes of that range say it.

    Args:
      state: of a recurrence; gradients pass through.
      bits: from 2 to 8; traced or not.
    """
    wide, most = state.astype(jnp.float32), _powers(bits - 1) - 1
    codes = jnp.clip(jnp.round(jax.lax.stop_gradient(wide) * most), -most, most)
    return _straight_through(wide, codes / most).astype(state.dtype)


# --- models ---------------------------------------------------------------------------------------


def with_quantization(model: Model, fields: QuantizeFields, stacked: str = "$^") -> Model:
    """Returns a model whose kernels, and the inputs of the layers that have them, are quantized.

    Its parameters are the model's own floats. Its state has, beside the model's own, the range of
    each such layer's inputs (`jdlopt.models.kernel_inputs`): a running mean of the smallest and
    largest of each batch while training, fixed in evaluation. The state of a recurrence, which lies
    in [-1, 1], is quantized symmetrically in that range.

    Args:
      model: what is quantized.
      fields: ``model.quantize``; floats that ``hparams["quantize"]`` has replace its own.
      stacked: a regular expression of the paths whose kernels are stacked along a leading axis, one
        for each layer.

    Raises:
      ConfigError: a pattern is not a regular expression, or (from ``init``) chooses nothing.

    Example:
      >>> from jdlopt.models import make_model
      >>> section = {"name": "linear", "quantize": {"weights": 2.0}}
      >>> model, x = make_model(section, 3), jnp.eye(4)
      >>> params, state = model.init(jax.random.key(0), x, {})
      >>> outputs, _ = model.apply(params, state, x, {}, key=None, train=False)
      >>> max(len(set(channel)) for channel in outputs.T.tolist()) <= 4
      True
    """
    chooses, inputs_too = chooser(fields.patterns), fields.activations is not None

    def init(key: Array, inputs: PyTree, hparams: PyTree) -> tuple[PyTree, PyTree]:
        own = _own(hparams)
        if not inputs_too:
            params, state = model.init(key, inputs, own)
        else:
            with declaring(chooses):
                params, state = model.init(key, inputs, own)
        check_patterns(params, fields.patterns)
        return params, state

    def apply(
        params: PyTree,
        state: PyTree,
        inputs: PyTree[Array],
        hparams: PyTree,
        *,
        train: bool,
        **options: object,
    ) -> tuple[Array, PyTree]:
        asked = replace(fields, **hparams.get("quantize", {}))
        params = quantized(params, asked, stacked)
        run = partial(model.apply, params, state, inputs, _own(hparams), train=train, **options)
        bits, momentum = asked.activations, asked.momentum
        if bits is None:
            return run()
        visit = Visit(
            inputs=partial(_quantize_inputs, bits, MOMENTUM if momentum is None else momentum)
            if train
            else lambda x, known: (
                quantized_activations(x, bits, known["low"], known["high"]), known
            ),
            bounded=lambda state: quantized_state(state, bits),
        )  # fmt: skip
        with visiting(visit, chooses):
            return run()

    return Model(init, apply)


def range_of(x: Float[Array, "*shape"]) -> dict[str, Float[Array, ""]]:
    """Returns the smallest and the largest of a layer's inputs, 0 among them."""
    wide = jax.lax.stop_gradient(x).astype(jnp.float32)
    return {"low": jnp.minimum(wide.min(), 0.0), "high": jnp.maximum(wide.max(), 0.0)}


def _quantize_inputs(bits: Scalar, momentum: Scalar, x: Array, known: Known) -> tuple[Array, Known]:
    """Quantizes a training batch's inputs of a layer, in the running range with theirs in it."""
    found, any_seen = range_of(x), known["high"] > known["low"]
    after = {
        name: jnp.where(any_seen, momentum * known[name] + (1 - momentum) * one, one)
        for name, one in found.items()
    }
    return quantized_activations(x, bits, after["low"], after["high"]), {**known, **after}


def quantized(params: PyTree, fields: QuantizeFields, stacked: str = "$^") -> PyTree:
    """Returns parameters whose chosen kernels are quantized; gradients pass through. Pure.

    Args:
      params: a model's.
      fields: ``model.quantize``; its floats may be traced.
      stacked: as in `with_quantization`.
    """
    if fields.weights is None:
        return params
    flat = flatten_dict(params)
    percentile = PERCENTILE if fields.percentile is None else fields.percentile
    for path, kernel in chosen_kernels(params, fields.patterns).items():
        made = weight_codes(
            kernel,
            fields.weights,
            per=fields.per,
            calibration=fields.calibration,
            percentile=percentile,
            stacked=bool(re.search(stacked, _name(path))),
        )
        flat[path] = _straight_through(kernel, made.values)
    return unflatten_dict(flat)


def chosen_kernels(
    params: PyTree, patterns: Sequence[str]
) -> dict[tuple[object, ...], Float[Array, "*shape"]]:
    """Returns the parameters of at least two dimensions that a pattern chooses, by their paths."""
    chooses = chooser(patterns)
    return {
        path: leaf
        for path, leaf in flatten_dict(params).items()
        if leaf.ndim >= 2 and chooses(_name(path))
    }


def chooser(patterns: Sequence[str], key: str = KEY) -> Callable[[str], bool]:
    """Returns what says of a kernel's path, ``a/b/kernel``, whether a pattern is found in it.

    A model behind an embedding has its parameters under ``model/``, and doesn't know it: a pattern
    may say it or not.

    Args:
      patterns: regular expressions.
      key: of the config that has them, for the message.

    Raises:
      ConfigError: a pattern is not a regular expression.
    """
    compiled = [lora.compiled(pattern, key) for pattern in patterns]

    def chooses(path: str) -> bool:
        own = path.removeprefix("model/")
        return any(one.search(own) or one.search(f"model/{own}") for one in compiled)

    return chooses


def check_patterns(params: PyTree, patterns: Sequence[str]) -> None:
    """Raises a `ConfigError` where a pattern chooses no kernel, with the nearest ones."""
    flat = {_name(path): leaf for path, leaf in flatten_dict(params).items()}
    for pattern in patterns:
        if chosen_kernels(params, (pattern,)):
            continue
        only = any(map(chooser((pattern,)), flat))
        able = [name for name, leaf in flat.items() if leaf.ndim >= 2]
        raise ConfigError(
            f"{KEY}: {pattern!r} matches {'only vectors' if only else 'no parameter'}. "
            f"{lora.nearest_paths(pattern, able)}"
        )


def _own(hparams: PyTree) -> dict[str, object]:
    return {name: value for name, value in hparams.items() if name != "quantize"}


def _name(path: tuple[object, ...]) -> str:
    return "/".join(map(str, path))
