"""What goes into each layer that has a kernel: changed or observed on the way, in Linen and NNX.

Linen's modules are intercepted, NNX's get a class whose call does the same. What is kept of a
layer's inputs is model state: of Linen the collection ``ranges``, of NNX a field ``ranges`` of the
layer; so it goes through scans, remat and vmaps as batch norm's statistics do.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from jdlopt.models.bridge import building

RANGES = "ranges"
"""The collection of a Linen model, and the field of an NNX layer."""
STATE = "kernel_state"
"""The method of a Linen recurrence that its state goes through on its way to the kernel."""
FACTOR, SECOND = "factor", "second_factor"
"""What a Linen layer of low rank (`jdlopt.models.low_rank`) computes its first product with, a
submodule, and its second one, a module in the layer's own place."""
_INPUT = "input"

Chosen = Callable[[str], bool]
Known = Mapping[str, Array]
"""What is kept of a layer's inputs, by name: ``low`` and ``high``, where nothing else is asked."""


class Visit(NamedTuple):
    """What is done at each layer whose inputs are kept.

    Attributes:
      inputs: ``(inputs, known) → (what the layer is given, what is known then)``.
      bounded: the same of what always lies in [-1, 1], of which nothing is kept: the state of a
        recurrence on its way into the product with its kernel.
      outputs: ``(outputs, known) → what is known then``; None: they are not looked at.
    """

    inputs: Callable[[Array, Known], tuple[Array, Known]]
    bounded: Callable[[Array], Array] = lambda state: state
    outputs: Callable[[Array, Known], Known] | None = None


_VISITS: ContextVar[tuple[Visit, ...]] = ContextVar("visits", default=())


def nothing_known() -> dict[str, Array]:
    """Returns what is known of a layer's inputs before any were seen: a range of no width."""
    return {"low": jnp.zeros(()), "high": jnp.zeros(())}


@contextlib.contextmanager
def visiting(visit: Visit, chosen: Chosen, extra: Known | None = None) -> Iterator[None]:
    """Has each layer visited whose inputs are kept, of the models that are applied within.

    A Linen layer is one where the collection ``ranges`` has an entry, an NNX layer one that has a
    chosen kernel of its own; its inputs are the first argument of ``__call__``. Within another, the
    outer one comes first.

    Args:
      visit: what is done.
      chosen: whether a kernel is one of those whose inputs are kept, by its path ``a/b/kernel``.
      extra: what is known beside the range, as it starts in NNX layers.
    """
    token = _VISITS.set((*_VISITS.get(), visit))
    try:
        with (
            nn.intercept_methods(functools.partial(_linen, visit)),
            building(_nnx(chosen, extra or {})),
        ):
            yield
    finally:
        _VISITS.reset(token)


@contextlib.contextmanager
def declaring(chosen: Chosen) -> Iterator[None]:
    """Has each layer with a chosen kernel get an entry, of models that are initialised within."""
    with nn.intercept_methods(functools.partial(_declared, chosen)), building(_nnx(chosen, {})):
        yield


def is_range(path: str) -> bool:
    """Returns whether a path of a model's state, ``a/b/c``, is of what this file keeps.

    Example:
      >>> is_range("ranges/head/outputs/input/low"), is_range("layers/0/ranges/low")
      (True, True)
    """
    return RANGES in path.split("/")[:-1]


def layer_of(path: str) -> str:
    """Returns the layer that a path of what is kept belongs to.

    Example:
      >>> layer_of("ranges/head/outputs/input/low"), layer_of("layers/0/ranges/low")
      ('head/outputs', 'layers/0')
    """
    parts = path.split("/")[:-1]
    return "/".join(part for part in parts if part not in (RANGES, _INPUT))


# --- Linen ----------------------------------------------------------------------------------------


def _declared(
    chosen: Chosen,
    call: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> object:
    """Calls a module, and declares what is to be known of its inputs if it has a kernel."""
    outputs, module = call(*args, **kwargs), context.module
    if context.method_name != "__call__" or module.scope is None:
        return outputs
    own = module.variables.get("params", {})
    kernels = [_path((*module.path, name)) for name, value in own.items() if _is_kernel(value)]
    if any(map(chosen, kernels)) and module.is_mutable_collection(RANGES):
        module.put_variable(RANGES, _INPUT, nothing_known())
    return outputs


def _is_kernel(value: object) -> bool:
    return getattr(nn.meta.unbox(value), "ndim", 0) >= 2


def _path(parts: tuple[object, ...]) -> str:
    return "/".join(map(str, parts))


def _linen(
    visit: Visit,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    module, method = context.module, context.method_name
    if method not in ("__call__", STATE) or module.scope is None:
        return call(*args, **kwargs)
    if module.name != SECOND and module.has_variable("params", FACTOR):
        return call(*args, **kwargs)  # its two products are visited, each with its own inputs
    if not module.has_variable(RANGES, _INPUT):
        return call(*args, **kwargs)
    if method == STATE:
        return visit.bounded(call(*args, **kwargs))
    known: Known = module.get_variable(RANGES, _INPUT)
    args, kwargs, after = _given(visit, args, kwargs, known)
    outputs = call(*args, **kwargs)
    if visit.outputs is not None:
        after = visit.outputs(jax.tree.leaves(outputs)[0], after)
    if after is not known and module.is_mutable_collection(RANGES):
        module.put_variable(RANGES, _INPUT, dict(after))
    return outputs


def _given(
    visit: Visit, args: tuple[Any, ...], kwargs: dict[str, Any], known: Known
) -> tuple[tuple[Any, ...], dict[str, Any], Known]:
    """The arguments of a layer's call with its inputs changed: the first of them."""
    name = next(iter(kwargs), None)
    first = args[0] if args else kwargs.get(name or "")
    if first is None or not jnp.issubdtype(jnp.result_type(first), jnp.floating):
        return args, kwargs, known
    changed, after = visit.inputs(first, known)
    if args:
        return (changed, *args[1:]), kwargs, after
    return args, {**kwargs, str(name): changed}, after


# --- NNX ------------------------------------------------------------------------------------------


class Range(nnx.Variable[Array]):
    """What is known of an NNX layer's inputs."""


def _nnx(chosen: Chosen, extra: Known) -> Callable[[nnx.Module], None]:
    """What has each layer of an NNX module visited that has a chosen kernel of its own."""
    first = {**nothing_known(), **extra}

    def change(module: nnx.Module) -> None:
        for path, layer in list(nnx.iter_modules(module)):
            kernels = [
                _path((*path, name))
                for name, value in vars(layer).items()
                if isinstance(value, nnx.Param) and value.get_value().ndim >= 2
            ]
            if any(map(chosen, kernels)):
                setattr(layer, RANGES, nnx.Dict({name: Range(x) for name, x in first.items()}))
                object.__setattr__(layer, "__class__", _visited(type(layer)))

    return change


@functools.cache
def _visited(kind: type[nnx.Module]) -> type[nnx.Module]:
    """The subclass of a layer's class whose call is a visit."""

    def call(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        own = getattr(self, RANGES)
        after: Known = {name: own[name].get_value() for name in own}
        for visit in _VISITS.get():
            args, kwargs, after = _given(visit, args, kwargs, after)
        outputs = kind.__call__(self, *args, **kwargs)
        for visit in _VISITS.get():
            if visit.outputs is not None:
                after = visit.outputs(jax.tree.leaves(outputs)[0], after)
        for name, value in after.items():
            if name in own:
                own[name].set_value(value)
            else:
                own[name] = Range(value)
        return outputs

    return types.new_class(
        kind.__name__, (kind,), exec_body=lambda body: body.update(__call__=call)
    )
