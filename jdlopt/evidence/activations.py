"""What a model's units do on given examples, watched in its jaxpr: any module, Linen or NNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, Float, PyTree

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that call another jaxpr on their own operands, and the parameter that holds it."""
MOVES = frozenset(
    {"convert_element_type", "reshape", "transpose", "squeeze", "slice", "broadcast_in_dim", "copy"}
)
"""Primitives whose result is still the same parameter."""
NAMED = frozenset({"relu", "relu6", "leaky_relu", "elu", "selu", "silu", "gelu", "softplus"})
"""Functions of `jax.nn` that name themselves in a jaxpr."""
DYING = frozenset({"relu", "relu6"})
"""Activations with a part in which they are 0 and stay 0, since no gradient passes."""
STEEPEST = {"tanh": 1.0, "sigmoid": 0.25}
"""The largest derivative of an activation that saturates."""
FLAT = 0.02
"""A value is saturated where the derivative is below this share of the largest: |tanh| > 0.99."""
WIDEST = 512
"""Of wider layers no covariance is kept."""
STACKED = "[]"
"""After the name of a parameter that a loop takes apart: each step has its own slice of it."""


def watch(
    function: Callable[..., Any], params: PyTree, *rest: PyTree
) -> tuple[list[dict[str, str]], Callable[..., list[dict[str, Array]]]]:
    """Returns what `function` has as activations, and a function that measures them.

    The function's jaxpr is evaluated equation by equation (the interpreter of JAX's own guide), and
    each activation it comes by is measured. In a `lax.scan` a layer of a stack (its parameters are
    scanned over) is one activation for each step, and a recurrent cell one for all steps together.
    What lies in another loop or in a branch is computed and not looked at.

    Args:
      function: called as ``function(params, *rest)``, pure, with the examples along the first axis.
      params: arrays or shapes; an activation is named by the parameter used last before it.
      rest: the other arguments; the measuring function takes the same shapes.

    Returns:
      A ``{"layer", "kind"}`` for each activation, in order, and ``(params, *rest) → measurements``,
      which may be jitted: for each activation sums that `combine` adds up and `finish` reads.
    """
    closed = jax.make_jaxpr(function)(params, *rest)
    paths = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = [*paths, *[""] * (len(closed.jaxpr.invars) - len(paths))]
    kinds: list[dict[str, str]] = []

    def measure(params: PyTree, *rest: PyTree) -> list[dict[str, Array]]:
        kinds.clear()
        found: list[dict[str, Array]] = []
        watcher = _Watcher(kinds, found)
        watcher.evaluate(closed, jax.tree.leaves((params, *rest)), names)
        return found

    jax.eval_shape(measure, params, *rest)
    return list(kinds), measure


def _name(path: tuple[object, ...]) -> str:
    words = [str(getattr(key, "key", getattr(key, "idx", key))) for key in path]
    return "/".join(words[:-1]) or words[-1]


Measures = dict[str, Array]
"""What is measured of one activation."""
Carried = tuple[list[Array], list[Measures]]


class _Watcher:
    """Evaluates a jaxpr and measures the activations in it."""

    def __init__(
        self, kinds: list[dict[str, str]], found: list[dict[str, Array]], layer: str = "inputs"
    ):
        self.kinds, self.found, self.layer = kinds, found, layer

    def evaluate(
        self, closed: core.ClosedJaxpr, values: Sequence[Array], names: Sequence[str]
    ) -> tuple[list[Array], list[str]]:
        """Returns the results, and which parameter each is, if it is one."""
        jaxpr = closed.jaxpr
        known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        known |= dict(zip(jaxpr.invars, values, strict=True))
        names_of = dict(zip(jaxpr.invars, names, strict=True))

        def read(atom: core.Var | core.Literal) -> Array:
            return atom.val if isinstance(atom, core.Literal) else known[atom]

        def name(atom: core.Var | core.Literal) -> str:
            return "" if isinstance(atom, core.Literal) else names_of.get(atom, "")

        for equation in jaxpr.eqns:
            inputs = [read(atom) for atom in equation.invars]
            operands = [name(atom) for atom in equation.invars]
            primitive = equation.primitive.name
            kind = _kind(equation, jaxpr)
            inner = equation.params.get(CALLS.get(primitive, ""))
            results_names = [""] * len(equation.outvars)
            if inner is not None and kind is None:
                if not isinstance(inner, core.ClosedJaxpr):
                    inner = core.ClosedJaxpr(inner, ())
                results, results_names = self.evaluate(inner, inputs, operands)
            elif primitive == "scan":
                results = self.scan(equation, inputs, operands)
            else:
                parameters = equation.primitive.get_bind_params(equation.params)
                results = equation.primitive.bind(*inputs, **parameters)
                results = results if equation.primitive.multiple_results else [results]
            if primitive in MOVES:
                results_names = operands[:1]
            elif inner is None and primitive != "scan":
                weights = [
                    w for w, v in zip(operands, inputs, strict=True) if w and jnp.ndim(v) > 1
                ]
                self.layer = weights[0] if weights else self.layer
            if kind is not None and jnp.ndim(results[0]) > 1 and jnp.shape(results[0])[-1] > 1:
                self.kinds.append({"layer": self.layer, "kind": kind})
                self.found.append(_measured(kind, inputs[0], results[0]))
            known |= dict(zip(equation.outvars, results, strict=True))
            names_of |= dict(zip(equation.outvars, results_names, strict=True))
        return [read(atom) for atom in jaxpr.outvars], [name(atom) for atom in jaxpr.outvars]

    def scan(
        self, equation: core.JaxprEqn, inputs: Sequence[Array], operands: Sequence[str]
    ) -> list[Array]:
        """Returns the results of a loop, and measures the activations of its steps."""
        closed, constants, carries, length, reverse, unroll = (
            equation.params[key]
            for key in ("jaxpr", "num_consts", "num_carry", "length", "reverse", "unroll")
        )
        fixed, first = list(inputs[:constants]), constants + carries
        names = [*operands[:first], *(name and name + STACKED for name in operands[first:])]
        kinds: list[dict[str, str]] = []
        layer = self.layer

        def step(carry: list[Array], xs: list[Array]) -> tuple[list[Array], list[dict[str, Array]]]:
            nonlocal layer
            kinds.clear()
            found: list[dict[str, Array]] = []
            watcher = _Watcher(kinds, found, self.layer)
            results, _ = watcher.evaluate(closed, [*fixed, *carry, *xs], names)
            layer = watcher.layer
            return results, found

        def body(
            state: tuple[list[Array], list[Measures]], xs: list[Array]
        ) -> tuple[Carried, Carried]:
            carry, total = state
            results, found = step(carry, xs)
            added = [_added(*pair, jnp.maximum) for pair in zip(total, shared(found), strict=True)]
            return (results[:carries], added), (results[carries:], stacked(found))

        def shared(found: list[Measures]) -> list[Measures]:
            return [one for one, k in zip(found, kinds, strict=True) if STACKED not in k["layer"]]

        def stacked(found: list[Measures]) -> list[Measures]:
            return [one for one, k in zip(found, kinds, strict=True) if STACKED in k["layer"]]

        start, scanned = list(inputs[constants:first]), list(inputs[first:])
        slices = [jax.ShapeDtypeStruct(jnp.shape(x)[1:], jnp.result_type(x)) for x in scanned]
        _, shapes = jax.eval_shape(step, start, slices)
        if not kinds:
            parameters = equation.primitive.get_bind_params(equation.params)
            return list(equation.primitive.bind(*inputs, **parameters))
        nothing = [jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), one) for one in shapes]
        (carry, total), (outputs, apart) = jax.lax.scan(
            body, (start, shared(nothing)), scanned, length, reverse=reverse, unroll=unroll
        )
        for index in range(length):
            together, each = iter(total), iter(apart)
            for kind in kinds:
                if STACKED in kind["layer"]:
                    sums = {key: value[index] for key, value in next(each).items()}
                    self.kinds.append({**kind, "layer": _numbered(kind["layer"], index)})
                    self.found.append(sums)
                elif index == 0:
                    self.kinds.append(kind)
                    self.found.append(next(together))
        self.layer = _numbered(layer, length - 1)
        return [*carry, *outputs]


def _numbered(layer: str, index: int) -> str:
    """Returns the name of one layer of a stack, as the innermost loop around it counts."""
    before, marker, after = layer.rpartition(STACKED)
    return f"{before}[{index}]{after}" if marker else layer


def _kind(equation: core.JaxprEqn, jaxpr: core.Jaxpr) -> str | None:
    """Returns which activation an equation is, if it is one."""
    primitive = equation.primitive.name
    named = equation.params.get("name")
    if primitive in CALLS and named in NAMED:
        return named
    if primitive == "max":
        zero = [atom for atom in equation.invars if isinstance(atom, core.Literal)]
        return "relu" if zero and np.ndim(zero[0].val) == 0 and zero[0].val == 0 else None
    if primitive == "erf":
        return "gelu"
    if primitive not in ("tanh", "logistic"):
        return None
    for use in jaxpr.eqns:
        if equation.outvars[0] not in [a for a in use.invars if not isinstance(a, core.Literal)]:
            continue
        literals = [a.val for a in use.invars if isinstance(a, core.Literal)]
        if use.primitive.name == "add" and any(np.ndim(v) == 0 and v == 1 for v in literals):
            return "gelu"  # x · ½ (1 + tanh …)
        if use.primitive.name == "mul" and not literals:
            return None  # a gate
    return "tanh" if primitive == "tanh" else "sigmoid"


def _measured(kind: str, before: Array, after: Array) -> dict[str, Array]:
    """The sums of one activation over some examples; the units lie along the last axis."""
    flat = after.reshape(-1, after.shape[-1]).astype(jnp.float32)
    slope = {"tanh": lambda y: 1 - y * y, "sigmoid": lambda y: y * (1 - y)}.get(kind)
    measured = {
        "count": jnp.float32(flat.shape[0]),
        "square_before": jnp.mean(jnp.square(before.astype(jnp.float32))) * flat.shape[0],
        "square_after": jnp.mean(jnp.square(flat)) * flat.shape[0],
        "active": jnp.max(jnp.abs(flat), axis=0),
        "saturated": jnp.sum(slope(flat) < FLAT * STEEPEST[kind], axis=0, dtype=jnp.float32)
        if slope
        else jnp.zeros(flat.shape[1]),
    }
    if flat.shape[1] <= WIDEST:
        measured |= {"sum": flat.sum(axis=0), "gram": flat.T @ flat}
    return measured


def combine(
    one: list[dict[str, object]], other: list[dict[str, object]]
) -> list[dict[str, object]]:
    """Returns the measurements of both: the same model on more examples."""
    return [_added(first, more, np.maximum) for first, more in zip(one, other, strict=True)]


def _added(
    one: dict[str, Any], other: dict[str, Any], maximum: Callable[..., Any]
) -> dict[str, Any]:
    return {
        key: maximum(value, other[key]) if key == "active" else value + other[key]
        for key, value in one.items()
    }


def finish(
    kinds: Sequence[Mapping[str, str]], measured: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns for each activation what `jdlopt.evidence.findings` look at, as plain numbers.

    Returns:
      ``layer``, ``kind``, ``units``; ``dead``, the share of units that were 0 for every example
      (None where the activation can't die); ``saturated``, the share of values where the derivative
      is below `FLAT` of its largest (None where it never is); ``rms_before`` and ``rms_after``;
      ``rank``, the effective rank of what it puts out (None where it is too wide).
    """
    rows = []
    for kind, sums in zip(kinds, measured, strict=True):
        count, units = float(sums["count"]), len(sums["active"])
        rank = None
        if "gram" in sums:
            mean = np.asarray(sums["sum"], np.float64) / count
            covariance = np.asarray(sums["gram"], np.float64) / count - np.outer(mean, mean)
            rank = effective_rank(np.linalg.eigvalsh(covariance))
        rows.append(
            {
                **kind,
                "units": units,
                "dead": float(np.mean(np.asarray(sums["active"]) == 0))
                if kind["kind"] in DYING
                else None,
                "saturated": float(np.sum(sums["saturated"]) / count / units)
                if kind["kind"] in STEEPEST
                else None,
                "rms_before": float(np.sqrt(sums["square_before"] / count)),
                "rms_after": float(np.sqrt(sums["square_after"] / count)),
                "rank": rank,
            }
        )
    return rows


def effective_rank(variances: Float[np.ndarray, " units"]) -> float:
    """Returns ``exp(H(p))`` of variances' shares ``p``: how many directions are really used.

    Roy and Vetterli, "The effective rank", 2007.

    Args:
      variances: the eigenvalues of a covariance; rounding may leave some below 0.

    Example:
      >>> round(effective_rank(np.array([1.0, 1.0, 1.0, 0.0])), 6)
      3.0
    """
    kept = np.maximum(variances, 0.0)
    if not kept.sum() or not np.isfinite(kept).all():
        return 0.0
    shares = kept[kept > 0] / kept.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
