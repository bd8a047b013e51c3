"""Linen and NNX modules as the same pair of pure functions, their floats traced."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax import nnx
from jaxtyping import Array, Float, PyTree

from jdlopt.errors import ConfigError
from jdlopt.models import batch_norm, sown

_LINEN_STREAMS = ("dropout",)


class Model(NamedTuple):
    """A model as two pure functions of pytrees.

    Attributes:
      init: ``(key, inputs, hparams) -> (params, model_state)``.
      apply: ``(params, model_state, inputs, hparams, *, key, train, updates=()) -> (outputs,
        model_state)``. While training, ``key`` feeds dropout and the returned state holds new
        running statistics, and what was sown (`jdlopt.models.sown`); otherwise ``key`` may be None
        and the state comes back as it was, but for the collections that ``updates`` names (of an
        NNX module: all that changes).
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[Float[Array, "n outputs"], PyTree]]


_BUILT: ContextVar[Callable[[nnx.Module], None] | None] = ContextVar("built", default=None)


@contextlib.contextmanager
def building(change: Callable[[nnx.Module], None]) -> Iterator[None]:
    """Has every NNX module changed once it is built, as Linen's modules can be intercepted.

    Args:
      change: adds to a module or changes its parts, the same each time.
    """
    token = _BUILT.set(change)
    try:
        yield
    finally:
        _BUILT.reset(token)


def bridge(
    part: object,
    name: str,
    keys: Mapping[str, object],
    num_outputs: int,
    *,
    positions: int = 0,
    freeze_norm: bool = False,
    norm_groups: int = 1,
) -> Model:
    """Returns the `Model` of a module class; it is built inside each call, from traced floats.

    Args:
      part: a `flax.linen.Module` or `flax.nnx.Module` class, or a function that returns one.
      name: what the config calls it, for messages.
      keys: its keyword arguments from the config; ``hparams`` of a call replace the floats.
      num_outputs: passed on if the part takes it, and what the outputs must be wide.
      positions: axes that the outputs have between the batch and the last.
      freeze_norm: whether batch norm uses its running statistics while training, and keeps them.
      norm_groups: groups of a batch whose statistics batch norm takes while training.

    Raises:
      ConfigError: the part is no module, its outputs have another width, or there is no batch
        norm to freeze, or to take statistics of groups.
    """
    if not callable(part):
        raise ConfigError(f"model.name {name!r} is {part!r}, not a Linen or NNX module class.")
    takes = parameters_of(part)
    fixed = dict(keys)
    if "num_outputs" in takes:
        fixed["num_outputs"] = num_outputs
    if inspect.isclass(part) and issubclass(part, nn.Module):
        model = _linen(part, fixed, freeze_norm, norm_groups)
    elif inspect.isclass(part) and issubclass(part, nnx.Module):
        model = _nnx(part, fixed, "rngs" in takes, freeze_norm)
        _no_groups(name, norm_groups)
    elif not inspect.isclass(part) and "rngs" in takes:
        model = _nnx(part, fixed, True, freeze_norm)
        _no_groups(name, norm_groups)
    elif not inspect.isclass(part):
        model = _linen(part, fixed, freeze_norm, norm_groups)
    else:
        raise ConfigError(
            f"model.name {name!r} is the class {part.__qualname__}, which is neither a "
            "flax.linen.Module nor a flax.nnx.Module."
        )

    def init(key: Array, inputs: PyTree, hparams: PyTree) -> tuple[PyTree, PyTree]:
        params, state = _explained(name, model.init, key, inputs, hparams)
        outputs = jax.eval_shape(
            lambda p, s: _explained(
                name, model.apply, p, s, inputs, hparams, key=None, train=False
            )[0],
            params,
            state,
        )
        _check_outputs(name, outputs, len(jax.tree.leaves(inputs)[0]), num_outputs, positions)
        asked = {"freeze_norm": freeze_norm, "batch_norm_groups": norm_groups > 1}
        for option in (option for option, on in asked.items() if on and not jax.tree.leaves(state)):
            raise ConfigError(
                f"model.{option}: model.name {name!r} has no batch norm, nor any other state. "
                f"Leave {option} out, or give the model batch norm."
            )
        return params, state

    return Model(init, model.apply)


def _check_outputs(name: str, outputs: object, rows: int, width: int, positions: int) -> None:
    """Raises a `ConfigError` if outputs are not one row an example, or at each of its positions."""
    found = getattr(outputs, "shape", None)
    if found is not None and len(found) == 2 + positions and (found[0], found[-1]) == (rows, width):
        return
    found = type(outputs).__name__ if found is None else found
    if not positions:
        need = f"{(rows, width)}: one row an example, {width} wide"
    else:
        places = ", ".join(("steps",) if positions == 1 else ("height", "width"))
        need = f"({rows}, {places}, {width}): a row of {width} at each position"
    raise ConfigError(
        f"model.name {name!r} returned outputs of shape {found}; the data and the loss need "
        f"{need}. Give the module a field 'num_outputs' and use it as the width of its last layer."
    )


def _no_groups(name: str, norm_groups: int) -> None:
    if norm_groups > 1:
        raise ConfigError(
            f"model.batch_norm_groups: model.name {name!r} is an NNX module; Linen's batch norm "
            "alone takes statistics of groups. Leave batch_norm_groups out."
        )


def parameters_of(part: Callable[..., Any]) -> set[str]:
    """Returns the names of what a class or function is called with."""
    # An NNX class's own signature is its metaclass's, (*args, **kwargs).
    target = part.__init__ if inspect.isclass(part) else part
    return set(inspect.signature(target).parameters)


def _explained(name: str, call: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    try:
        return call(*args, **kwargs)
    except jax.errors.ConcretizationTypeError as error:
        raise ConfigError(
            f"model.name {name!r} uses a float of the config as a Python number (an `if`, or "
            "a library's Dropout). Floats of a config are traced, so that one program serves "
            "every value: use jdlopt.models.layers.Dropout (Linen) or dropout, or jnp.where."
        ) from error


def _mode(call: Callable[..., Any], train: bool) -> dict[str, Any]:
    """Tells a module's call whether it trains, by whichever of the usual names it takes."""
    takes = parameters_of(call)
    if "train" in takes:
        return {"train": train}
    if "training" in takes:
        return {"training": train}
    return {"deterministic": not train} if "deterministic" in takes else {}


def _linen(
    part: Callable[..., nn.Module],
    fixed: Mapping[str, object],
    freeze_norm: bool,
    norm_groups: int,
) -> Model:
    def init(key: Array, inputs: PyTree, hparams: PyTree) -> tuple[PyTree, PyTree]:
        module = part(**{**fixed, **hparams})
        params_key, other = jax.random.split(key)
        rngs = {"params": params_key} | dict.fromkeys(_LINEN_STREAMS, other)
        variables = dict(nn.unbox(module.init(rngs, inputs, **_mode(module.__call__, False))))
        return variables.pop("params", {}), sown.without(variables)

    def apply(
        params: PyTree,
        model_state: PyTree,
        inputs: PyTree,
        hparams: PyTree,
        *,
        key: Array | None,
        train: bool,
        updates: Collection[str] = (),
    ) -> tuple[Array, PyTree]:
        module = part(**{**fixed, **hparams})
        variables = {"params": params, **model_state}
        mode = _mode(module.__call__, train)
        rngs = dict.fromkeys(_LINEN_STREAMS, key) if train and key is not None else {}
        mutable = [*model_state, *sown.SOWN] if train else list(updates)
        with batch_norm.intercepted(freeze_norm, norm_groups) if train else nullcontext():
            outputs, state = module.apply(variables, inputs, rngs=rngs, mutable=mutable, **mode)
        return outputs, ({**model_state, **sown.settled(state)} if mutable else model_state)

    return Model(init, apply)


def _is_state(path: object, value: object) -> bool:
    return isinstance(value, nnx.Variable) and not isinstance(value, nnx.Param | nnx.RngState)


def _nnx(
    part: Callable[..., nnx.Module],
    fixed: Mapping[str, object],
    takes_rngs: bool,
    freeze_norm: bool,
) -> Model:
    def build(key: Array, hparams: PyTree) -> nnx.Module:
        rngs = {"rngs": nnx.Rngs(key)} if takes_rngs else {}
        module = part(**{**fixed, **hparams, **rngs})
        change = _BUILT.get()
        if change is not None:
            change(module)
        return module

    def parts(module: nnx.Module) -> tuple[PyTree, PyTree]:
        return (
            nnx.to_pure_dict(nnx.state(module, nnx.Param)),
            nnx.to_pure_dict(nnx.state(module, _is_state)),
        )

    def init(key: Array, inputs: PyTree, hparams: PyTree) -> tuple[PyTree, PyTree]:
        return parts(build(key, hparams))

    def apply(
        params: PyTree,
        model_state: PyTree,
        inputs: PyTree,
        hparams: PyTree,
        *,
        key: Array | None,
        train: bool,
        updates: Collection[str] = (),
    ) -> tuple[Array, PyTree]:
        # The fresh initial values are overwritten, so a compiler drops them.
        module = build(jax.random.key(0) if key is None else key, hparams)
        for filters, values in ((nnx.Param, params), (_is_state, model_state)):
            state = nnx.state(module, filters)
            nnx.replace_by_pure_dict(state, values)
            nnx.update(module, state)
        module.train() if train else module.eval()
        for _, layer in nnx.iter_modules(module) if train and freeze_norm else ():
            if isinstance(layer, nnx.BatchNorm):
                layer.use_running_average = True
        outputs = module(inputs, **_mode(module.__call__, train))
        return outputs, (parts(module)[1] if train or updates else model_state)

    return Model(init, apply)
