"""Operations that jax2onnx lacks or gets wrong for batches of any size, as ONNX has them."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jax.extend import core

from jdlopt.export.plain import shape_of

if TYPE_CHECKING:
    import onnx_ir as ir


class _Lowering(NamedTuple):
    """What jax2onnx calls for an equation."""

    lower: Callable[[Any, core.JaxprEqn], None]


@contextlib.contextmanager
def known_operations() -> Iterator[frozenset[str]]:
    """Gives the names of the primitives that can be lowered; jax2onnx knows them all inside it.

    Only what lowers `lax` is imported of it: its hundreds of others replace functions of flax and
    numpy while a model is traced, take seconds to load, and some do not load beside this JAX.
    """
    import jax2onnx.plugins.jax.lax as lowered
    from jax2onnx.plugins import plugin_system

    for module in pkgutil.iter_modules(lowered.__path__):
        importlib.import_module(f"{lowered.__name__}.{module.name}")
    registry: dict[str, Any] = plugin_system.PLUGIN_REGISTRY
    before, loaded = dict(registry), plugin_system._already_imported_plugins
    registry |= {name: _Lowering(lower) for name, lower in OWN.items()}
    plugin_system._already_imported_plugins = True
    try:
        yield frozenset(registry)
    finally:
        plugin_system._already_imported_plugins = loaded
        registry.update(before)


def _given(context: Any, equation: core.JaxprEqn, place: int) -> ir.Value:
    return context.get_value_for_var(equation.invars[place])


def _numbers(context: Any, values: Sequence[int]) -> ir.Value:
    return context.builder.add_initializer_from_array(
        name=context.fresh_name("numbers"), array=np.asarray(values, np.int64)
    )


def _node(
    context: Any, kind: str, inputs: Sequence[ir.Value], like: ir.Value, **attributes: object
) -> ir.Value:
    """Adds a node and returns its output, of the type of a value."""
    import onnx_ir

    name = context.fresh_name(kind.lower())
    made = getattr(context.builder, kind)(*inputs, _outputs=[name], **attributes)
    assert like.dtype is not None
    made.type = onnx_ir.TensorType(like.dtype)
    return made


def _done(context: Any, equation: core.JaxprEqn, value: ir.Value) -> None:
    """Says that a value is an equation's result."""
    import onnx_ir

    variable = equation.outvars[0]
    sizes = [size if isinstance(size, int) else str(size) for size in shape_of(variable)]
    value.shape = onnx_ir.Shape(sizes)
    context.bind_value_for_var(variable, value)


def _pad(context: Any, equation: core.JaxprEqn) -> None:
    """Pads; what a negative number takes off is cut off, as `lax.pad` does."""
    widths = equation.params["padding_config"]
    if any(inside for _, _, inside in widths):
        raise NotImplementedError("pad with values between others")
    values, filler = (_given(context, equation, place) for place in (0, 1))
    ends = _numbers(context, [low for low, _, _ in widths] + [high for _, high, _ in widths])
    _done(context, equation, _node(context, "Pad", [values, ends, filler], values, mode="constant"))


def _max_pool(context: Any, equation: core.JaxprEqn) -> None:
    """Takes maxima of windows over the dimensions between the examples and the channels."""
    params = equation.params
    windows, steps = params["window_dimensions"], params["window_strides"]
    rank = len(windows)
    outside = (0, rank - 1)
    if any(windows[axis] != 1 or steps[axis] != 1 or any(params["padding"][axis])
           for axis in outside) or rank not in (3, 4, 5):  # fmt: skip
        raise NotImplementedError("a maximum of windows over examples or channels")
    inner = range(1, rank - 1)
    given = _given(context, equation, 0)
    first = _node(context, "Transpose", [given], given, perm=[0, rank - 1, *inner])
    pooled = _node(
        context, "MaxPool", [first], given,
        kernel_shape=[windows[axis] for axis in inner],
        strides=[steps[axis] for axis in inner],
        dilations=[params["window_dilation"][axis] for axis in inner],
        pads=[params["padding"][axis][end] for end in (0, 1) for axis in inner],
    )  # fmt: skip
    last = _node(context, "Transpose", [pooled], given, perm=[0, *range(2, rank), 1])
    _done(context, equation, last)


OWN: dict[str, Callable[[Any, core.JaxprEqn], None]] = {
    "pad": _pad,
    "reduce_window_max": _max_pool,
}
"""Primitive → what adds its nodes to a graph."""
