"""A model layer by layer, from shapes alone: outputs, parameters, and the arithmetic of each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import PyTree

from jdlopt.models.bridge import Model

_MARK = "output of "


class Layer(NamedTuple):
    """One layer: a module with parameters or arithmetic of its own, beside its submodules'.

    Attributes:
      path: where its parameters are, as patterns of parameter paths see it.
      kind: its class, empty where it is not known.
      shape: of its output for a whole batch, None where it is not known.
      parameters: numbers in its parameters.
      flops: of its matrix products and convolutions in a forward pass.
      activation_bytes: of its output.
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    flops: int
    activation_bytes: int


def layers_of(
    model: Model, params: PyTree, model_state: PyTree, inputs: PyTree, hparams: PyTree
) -> list[Layer]:
    """Returns a model's layers in the order in which a training step's forward pass calls them.

    Of an NNX module only the parameters are known; its arithmetic stands in one line without a
    path, as does what a Linen module computes outside its layers.

    Args:
      model: the model.
      params, model_state, inputs, hparams: what it is applied to, or their shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jdlopt.models import make_model
      >>> model, x = make_model({"name": "linear"}, 3), jnp.ones((8, 4))
      >>> layer = layers_of(model, *model.init(jax.random.key(0), x, {}), x, {})[0]
      >>> layer.path, layer.shape, layer.parameters, layer.flops, layer.activation_bytes
      ('outputs', (8, 3), 15, 192, 96)
    """
    called: dict[tuple[str, ...], tuple[str, list[Any]]] = {}

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> object:
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            path = context.module.path
            arrays = [leaf.aval for leaf in jax.tree.leaves(output)]
            called[path] = type(context.module).__name__, arrays
            # in the traced program the mark tells how often the layer runs
            output = jax.tree.map(partial(checkpoint_name, name=_MARK + "/".join(path)), output)
        return output

    def forward(params: PyTree, model_state: PyTree, inputs: object, key: object) -> PyTree:
        return model.apply(params, model_state, inputs, hparams, key=key, train=True)[0]

    with nn.intercept_methods(note):
        key = jax.eval_shape(lambda: jax.random.key(0))
        traced = jax.make_jaxpr(forward)(params, model_state, inputs, key)
    sizes: Counter[tuple[str, ...]] = Counter()
    for path, leaf in flatten_dict(params).items():
        sizes[path[:-1]] += leaf.size
    flops: Counter[tuple[str, ...]] = Counter()
    turns: dict[str, int] = {}
    for equation, names, times in operations_of(traced.jaxpr):
        if equation.primitive.name == "name":
            turns[equation.params["name"]] = times
        count = _flops(equation)
        if count:
            flops[_owner(names, called)] += count * times
    prefix = _prefix(params) if called else ()
    outside = [
        path for path in sizes if path[: len(prefix)] != prefix or path[len(prefix) :] not in called
    ]
    rows = [Layer("/".join(map(str, path)), "", None, sizes[path], 0, 0) for path in outside]
    for path, (kind, arrays) in called.items() if called else [((), ("", []))]:
        parameters = sizes[(*prefix, *path)] if (*prefix, *path) not in outside else 0
        if parameters or flops[path]:
            shape = tuple(arrays[0].shape) if arrays else None
            # a scanned layer's output is kept once for each of its repetitions
            size = sum(array.size * array.dtype.itemsize for array in arrays)
            size *= turns.get(_MARK + "/".join(path), 1)
            name = "/".join(map(str, (*prefix, *path)))
            rows.append(Layer(name, kind, shape, parameters, flops[path], size))
    return rows


def flops_of(function: Callable[..., object], *shapes: PyTree) -> int:
    """Returns the arithmetic of a function's matrix products and convolutions.

    A multiplication and its addition are two. What is computed again in a backward pass counts
    again; a branch counts as its last one does, a loop of unknown length as one turn.

    Args:
      function: of arrays.
      shapes: its arguments, or their shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> flops_of(jnp.dot, jnp.ones((2, 3)), jnp.ones((3, 5)))
      60
    """
    traced = jax.make_jaxpr(function)(*shapes)
    return sum(_flops(equation) * times for equation, _, times in operations_of(traced.jaxpr))


def operations_of(
    jaxpr: Any, scope: tuple[str, ...] = (), times: int = 1
) -> Iterator[tuple[Any, tuple[str, ...], int]]:
    """Yields a traced program's operations, the names around each, and how often it runs."""
    for equation in jaxpr.eqns:
        stack = str(equation.source_info.name_stack)
        names = (*scope, *stack.split("/")) if stack else scope
        yield equation, names, times
        parts = equation.params
        branches = parts["branches"][-1:] if equation.primitive.name == "cond" else parts.values()
        for found in branches:
            body = getattr(found, "jaxpr", found)
            if hasattr(body, "eqns"):
                yield from operations_of(body, names, times * parts.get("length", 1))


def _flops(equation: Any) -> int:
    """Two for each multiplication of a matrix product or convolution, 0 of anything else."""
    kind, parts = equation.primitive.name, equation.params
    if kind == "dot_general":
        (contracted, _), _ = parts["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    if kind == "conv_general_dilated":
        kernel = equation.invars[1].aval
        features = kernel.shape[parts["dimension_numbers"].rhs_spec[0]]
        return 2 * equation.outvars[0].aval.size * (kernel.size // features)
    return 0


def _prefix(params: PyTree) -> tuple[str, ...]:
    """Where the module's own parameters are, below those that jdlopt has put around it."""
    prefix: tuple[str, ...] = ()
    for around, inside in (({"base", "adapters"}, "base"), ({"embedding", "model"}, "model")):
        if set(params) == around:
            prefix, params = (*prefix, inside), params[inside]
    return prefix


def _owner(names: tuple[str, ...], called: Mapping[tuple[str, ...], object]) -> tuple[str, ...]:
    """The innermost module whose path is in the scope of an operation, in this order."""

    def within(path: tuple[str, ...]) -> bool:
        rest = iter(names)
        return all(part in rest for part in path)

    return max(filter(within, called), key=len, default=())
