"""A function as one flat list of plain `lax` operations, which every converter can read.

Converters know single operations. What a traced model has beside them is taken out here: calls of
other functions are inlined, what depends on no input is computed, and where code chooses by
platform, the choice for any platform stands (`lax.platform_dependent`'s default).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, Float, PyTree

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that call another jaxpr on their own operands, and the parameter that holds it."""
PASSED_ON = frozenset({"name", "optimization_barrier", "stop_gradient", "copy"})
"""Primitives that give what they are given."""
MOST_FOLDED = 1 << 20
"""A constant of more values than this is computed only where its operands have as many."""


class _How(NamedTuple):
    """What a format asks for, see `plain`."""

    unrolled: int
    instead: Mapping[str, Callable[..., Array]]


def plain(
    function: Callable[..., PyTree],
    unrolled: int = 0,
    instead: Mapping[str, Callable[..., Array]] | None = None,
) -> Callable[..., PyTree]:
    """Returns a function that computes the same by flat, plain operations.

    Args:
      function: pure, of arrays; traced anew for the shapes of each call, which may be symbolic.
      unrolled: loops of at most so many steps are written out, for formats without loops.
      instead: functions that stand for primitives by name, for formats that lack these.
    """
    how = _How(unrolled, instead or {})

    def flat(*inputs: PyTree) -> PyTree:
        shapes = jax.tree.map(_shape_of, inputs)
        closed, made = jax.make_jaxpr(function, return_shape=True)(*shapes)
        values = _evaluated(closed, jax.tree.leaves(inputs), "", how)
        return jax.tree.unflatten(jax.tree.structure(made), values)

    return flat


def operations(jaxpr: core.Jaxpr) -> Iterator[tuple[str, str]]:
    """Yields the name of each primitive of a flat jaxpr, in loops too, and the layer it is of."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, str(equation.source_info.name_stack)
        inner = equation.params.get("jaxpr")
        if isinstance(inner, core.ClosedJaxpr):
            yield from operations(inner.jaxpr)


def _shape_of(value: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(value), jax.dtypes.result_type(value))


def _evaluated(closed: core.ClosedJaxpr, values: Sequence[Any], layer: str, how: _How) -> list[Any]:
    """Returns a jaxpr's results on values, which may be traced; the others are constants."""
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= dict(zip(jaxpr.invars, values, strict=True))

    def read(atom: core.Var | core.Literal) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        own = str(equation.source_info.name_stack)
        place = "/".join(part for part in (layer, own) if part)
        results = _results(equation, operands, place, how)
        known |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _results(equation: core.JaxprEqn, operands: list[Any], layer: str, how: _How) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    if name in PASSED_ON:
        return operands
    if name in CALLS:
        inner = params[CALLS[name]]
        if not isinstance(inner, core.ClosedJaxpr):
            inner = core.ClosedJaxpr(inner, ())
        return _evaluated(inner, operands, layer, how)
    if name == "platform_index":
        return [None]  # only the choice that it makes reads it
    platforms = params.get("branches_platforms")
    if name == "cond" and platforms is not None and None in platforms:
        chosen = params["branches"][platforms.index(None)]
        return _evaluated(chosen, operands[1:], layer, how)
    if name == "fft" and params["fft_type"] == jax.lax.FftType.RFFT:
        return [_real_transform(operands[0], params["fft_lengths"])]
    if name in ("real", "imag") and isinstance(operands[0], _Complex):
        return [getattr(operands[0], name)]
    if name in how.instead:
        with jax.named_scope(layer):
            return [how.instead[name](*operands)]
    if name == "scan":
        return _looped(params, operands, layer, how)
    if name == "stack":
        axis = params["axis"]
        return [jax.lax.concatenate([jnp.expand_dims(one, axis) for one in operands], axis)]
    if _is_constant(equation, operands):
        with jax.ensure_compile_time_eval():
            return _bound(equation, operands)
    with jax.named_scope(layer):
        return _bound(equation, operands)


def erf(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes the error function by exponentials, to 1.5e-7.

    Abramowitz and Stegun, "Handbook of mathematical functions", 1964, formula 7.1.26.
    """
    t = 1 / (1 + 0.3275911 * jnp.abs(x))
    terms = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    total = jnp.zeros_like(t)
    for term in terms:
        total = (total + term) * t
    return jnp.sign(x) * (1 - total * jnp.exp(-x * x))


class _Complex(NamedTuple):
    """Complex numbers as two arrays: files have no others."""

    real: Array
    imag: Array


def _real_transform(values: Array, lengths: tuple[int, ...]) -> _Complex:
    """Returns the Fourier transform of the last axis as products with cosines and sines."""
    if len(lengths) != 1:
        raise NotImplementedError("a Fourier transform over several axes")
    size = lengths[0]
    angles = 2 * np.pi / size * (np.outer(np.arange(size), np.arange(size // 2 + 1)) % size)
    parts = (np.cos(angles), -np.sin(angles))
    return _Complex(*(values @ jnp.asarray(part, values.dtype) for part in parts))


def _bound(equation: core.JaxprEqn, operands: list[Any]) -> Sequence[Any]:
    params = equation.primitive.get_bind_params(equation.params)
    found = equation.primitive.bind(*operands, **params)
    return found if equation.primitive.multiple_results else [found]


def _is_constant(equation: core.JaxprEqn, operands: Sequence[Any]) -> bool:
    """Returns whether a result depends on no input, and is not large where little made it."""
    if any(isinstance(operand, jax.core.Tracer) for operand in operands):
        return False
    shapes = [shape_of(variable) for variable in equation.outvars]
    if not all(isinstance(size, int) for shape in shapes for size in shape):
        return False
    made = sum(int(np.prod(shape)) for shape in shapes)
    return made <= max(MOST_FOLDED, sum(np.size(operand) for operand in operands))


def _written_out(
    body: Callable[..., tuple[list[Array], list[Array]]],
    carry: list[Array],
    scanned: list[Array],
    length: int,
) -> tuple[list[Array], list[Array]]:
    rows: list[list[Array]] = []
    for step in range(length):
        xs = [jax.lax.index_in_dim(one, step, keepdims=False) for one in scanned]
        carry, made = body(carry, xs)
        rows.append([jnp.expand_dims(one, 0) for one in made])
    return carry, [jnp.concatenate(parts) for parts in zip(*rows)] if length else []


def shape_of(variable: core.Var) -> tuple[Any, ...]:
    """Returns the shape of a variable of a jaxpr, whose sizes may be symbolic."""
    return tuple(getattr(variable.aval, "shape", ()))


def _looped(params: dict[str, Any], operands: list[Any], layer: str, how: _How) -> list[Any]:
    """Returns a loop's results; its body is plain, too, and it runs forwards."""
    constants, carries = params["num_consts"], params["num_carry"]
    first = constants + carries
    fixed, scanned = operands[:constants], list(operands[first:])

    def body(carry: list[Array], xs: list[Array]) -> tuple[list[Array], list[Array]]:
        found = _evaluated(params["jaxpr"], [*fixed, *carry, *xs], "", how)
        return found[:carries], found[carries:]

    def turned(values: list[Any]) -> list[Any]:
        return [jnp.flip(value, 0) for value in values] if params["reverse"] else values

    with jax.named_scope(layer):
        start, length = list(operands[constants:first]), params["length"]
        if length <= how.unrolled:
            carry, outputs = _written_out(body, start, turned(scanned), length)
        else:
            carry, outputs = jax.lax.scan(body, start, turned(scanned), length=length)
        return [*carry, *turned(outputs)]
