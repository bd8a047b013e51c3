"""What operations of a traced program do to shapes and parameters. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from jdlopt.mesh.rules import Split
from jdlopt.plan.walked import AGAIN, BACKWARD, NOTHING, Amount, Array, amount

Summed = tuple[frozenset[int], frozenset[int]]
"""The dimensions of two operands that a product sums over."""
ACTIVATION_AXES = ("tensor", "expert")
"""Axes of a mesh that split parameters so that activations are split, too."""
CALLS = {
    "jit", "pjit", "closed_call", "core_call", "remat2", "remat", "checkpoint", "custom_jvp_call",
    "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin", "shard_map", "linear_call",
}  # fmt: skip
"""Operations that are a program of their own, run once."""
REMAT = {"remat2", "remat", "checkpoint"}
WRITTEN = {
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax",
    "argmin", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "reduce_window_sum",
    "reduce_window_max", "reduce_window", "select_and_scatter_add", "select_and_gather_add",
    "sort", "top_k", "random_bits", "threefry2x32", "fft", "cholesky", "triangular_solve", "lu",
    "qr", "eigh", "svd", "ragged_dot_general",
}  # fmt: skip
"""What reads arrays and writes its result to memory."""
MOVES = {"gather", "dynamic_slice"}
SCATTERS = {
    "scatter", "scatter-add", "scatter_add", "scatter-mul", "scatter-min", "scatter-max",
    "dynamic_update_slice",
}  # fmt: skip
LINEAR = {
    "convert_element_type", "reshape", "transpose", "neg", "add", "add_any", "sub", "squeeze",
    "broadcast_in_dim", "reduce_precision", "copy", "copy_p", "sharding_constraint", "mul", "div",
    "name", "optimization_barrier",
}  # fmt: skip
"""What may be done to terms before they are added up over devices."""
SAME_SHAPE = {
    "convert_element_type", "copy", "copy_p", "name", "reduce_precision", "sharding_constraint",
    "optimization_barrier", "rev", "slice", "dynamic_slice",
}  # fmt: skip
COSTLY = {"exp", "exp2", "log", "log1p", "tanh", "logistic", "erf", "pow", "sin", "cos", "sqrt",
          "rsqrt", "div", "erfc", "expm1"}  # fmt: skip
COSTLY_AS = 4
"""Operations that a transcendental function counts as, in a kernel."""


def phase_of(equation: JaxprEqn, around: str) -> str:
    """Returns when an operation runs, where what is around it runs at a phase."""
    stack = str(equation.source_info.name_stack)
    if around == AGAIN or "rematted_computation" in stack:
        return AGAIN
    return BACKWARD if "transpose(" in stack else around


def program_of(equation: JaxprEqn) -> ClosedJaxpr | None:
    """Returns the program within an operation, or None; of several branches the last one."""
    keys = equation.params
    if "branches" in keys:
        return closed(keys["branches"][-1])
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr", "body_jaxpr", "jvp_jaxpr", "callee")
    found = (keys[name] for name in names if isinstance(keys.get(name), Jaxpr | ClosedJaxpr))
    return closed(next(found, None))


def closed(program: Jaxpr | ClosedJaxpr | None) -> ClosedJaxpr | None:
    """Returns a program with its constants, where it is one."""
    return ClosedJaxpr(program, ()) if isinstance(program, Jaxpr) else program


def shape_of(atom: Var | Literal) -> tuple[int, ...]:
    """Returns the shape of what an operation takes or makes."""
    return tuple(getattr(atom.aval, "shape", ()))


def dimensions_of(equation: JaxprEqn, array: Array) -> tuple[int | None, ...] | None:
    """Returns which dimensions of a parameter an array's own are, after an operation on it."""
    name, dims = equation.primitive.name, array.dims
    if dims is None:
        return None
    if name in SAME_SHAPE or name in ("neg", "mul", "div", "add", "sub"):
        return dims
    if name == "transpose":
        return tuple(dims[place] for place in equation.params["permutation"])
    if name == "squeeze":
        gone = equation.params["dimensions"]
        return tuple(dim for place, dim in enumerate(dims) if place not in gone)
    return None


def dot(equation: JaxprEqn) -> tuple[int, Summed]:
    """Returns the FLOPs of a matrix product, and which dimensions it sums over."""
    (left, right), _ = equation.params["dimension_numbers"]
    shape = shape_of(equation.invars[0])
    flops = 2 * math.prod(shape_of(equation.outvars[0])) * math.prod(shape[axis] for axis in left)
    return flops, (frozenset(left), frozenset(right))


def convolution(equation: JaxprEqn) -> tuple[int, Summed]:
    """Returns the same of a convolution; zeros between inputs, as of strides, are free."""
    keys, kernel = equation.params, shape_of(equation.invars[1])
    lhs, rhs, _ = keys["dimension_numbers"]
    each = math.prod(kernel) // kernel[rhs[0]]
    size = math.prod(shape_of(equation.outvars[0]))
    flops = 2 * size * each // math.prod(keys["lhs_dilation"])
    return flops, (frozenset(lhs[1:]), frozenset(rhs[1:]))


def axes_of(array: Array, split: Split, summed: frozenset[int]) -> tuple[set[str], set[str]]:
    """Returns which axes split a parameter's dimensions that are summed over, and its others."""
    here: set[str] = set()
    elsewhere: set[str] = set()
    dims = array.dims or (None,) * len(split)
    for place, dimension in enumerate(dims):
        axis = split[dimension] if dimension is not None and dimension < len(split) else None
        if isinstance(axis, str) and axis in ACTIVATION_AXES:
            (here if place in summed else elsewhere).add(axis)
    if None in dims:
        unknown = set(range(len(split))) - {d for d in dims if d is not None}
        elsewhere |= {str(split[d]) for d in unknown if split[d] in ACTIVATION_AXES}
    return here, elsewhere - here


def arithmetic(jaxpr: Jaxpr, prime: int, times: int = 1) -> tuple[list[Amount], list[Amount]]:
    """Returns the FLOPs and the other operations on numbers of a program."""
    flops, vector = [NOTHING], [NOTHING]
    for equation in jaxpr.eqns:
        name, program = equation.primitive.name, program_of(equation)
        if name in ("dot_general", "conv_general_dilated"):
            dims = dot if name == "dot_general" else convolution
            flops.append(amount(times * dims(equation)[0], prime))
        elif program is not None:
            turns = equation.params.get("length", 1)
            inside = arithmetic(program.jaxpr, prime, times * turns)
            flops += inside[0]
            vector += inside[1]
        elif name not in ("broadcast_in_dim", "reshape", "transpose", "iota", "squeeze"):
            atoms = (*equation.invars, *equation.outvars)
            size = max((math.prod(shape_of(atom)) for atom in atoms), default=0)
            count = COSTLY_AS if name in COSTLY else 1
            vector.append(amount(times * count * size, prime))
    return flops, vector


def share_of(amounts: Sequence[Amount], share: float) -> Amount:
    """Returns a share of the sum of amounts, of which those of the highest power count."""
    power = max((one.power for one in amounts if one.each), default=0)
    return Amount(share * sum(one.each for one in amounts if one.power == power), power)
