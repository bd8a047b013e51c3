"""Low rank: layers whose kernel is the product of two smaller ones, computed as two products."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, PyTree

from jdlopt.config import Count
from jdlopt.errors import ConfigError
from jdlopt.models import lora
from jdlopt.models.bridge import Model
from jdlopt.models.kernel_inputs import FACTOR, SECOND
from jdlopt.models.layers import INITIALIZERS, Conv
from jdlopt.models.quantization import chooser
from jdlopt.models.tabm import SharedDense
from jdlopt.models.tcn import CausalConv

KEY = "model.low_rank"
_INIT = "lecun_normal"


@dataclass(frozen=True)
class LowRankFields:
    """The ``model.low_rank`` section: which layers' kernels are the product of two smaller ones.

    Attributes:
      rank: how many numbers lie between the two products, of each layer that ``patterns`` choose
        and that gets smaller by it; None: of no layer.
      patterns: regular expressions of the paths of the kernels that ``rank`` is for.
      ranks: of layers by their paths, such as ``{"head/dense_0": 16}``, whatever ``rank`` says.
    """

    rank: Count | None = None
    patterns: tuple[str, ...] = lora.KERNELS
    ranks: Mapping[str, int] = field(default_factory=dict)

    @property
    def on(self) -> bool:
        """Whether any layer may be two products."""
        return self.rank is not None or bool(self.ranks)


class Size(NamedTuple):
    """A kernel as a matrix: of a convolution, all taps of all its inputs by its outputs.

    Example:
      >>> size = Size(64, 32)
      >>> size.full, size.weights, size.weights_at(8), size.largest
      (32, 2048, 768, 21)
    """

    inputs: int
    outputs: int

    @property
    def full(self) -> int:
        """The rank that any such matrix has at most."""
        return min(self)

    @property
    def weights(self) -> int:
        """Weights of the whole kernel, and multiplications at each place."""
        return self.inputs * self.outputs

    def weights_at(self, rank: int) -> int:
        """Returns the weights of both factors."""
        return rank * (self.inputs + self.outputs)

    @property
    def largest(self) -> int:
        """The largest rank at which the factors are smaller than the kernel; 0 where none is."""
        return (self.weights - 1) // (self.inputs + self.outputs)


def with_low_rank(model: Model, fields: LowRankFields) -> Model:
    """Returns a model some of whose layers compute two products instead of one.

    ``x·W`` becomes ``(x·A)·B``, and is never computed as ``x·(A·B)``: with a rank of r, a dense
    layer multiplies ``r · (inputs + outputs)`` numbers instead of ``inputs · outputs``. A
    convolution becomes one with r filters, of the same taps, strides and padding, and a 1×1
    convolution of these. A bias is added at the end as before. A is the kernel of a submodule
    ``factor`` of the layer, B the layer's own. Zhang et al., "Accelerating very deep convolutional
    networks for classification and detection", 2015.

    Linen's ``Dense`` and ``Conv`` (without groups), and the dense layers and convolutions of
    `jdlopt.models` can be so. Depthwise convolutions, recurrent kernels, embeddings, and the layers
    of NNX modules stay whole.

    Args:
      model: whose layers they are.
      fields: ``model.low_rank``.

    Raises:
      ConfigError: (from ``init``) a pattern or a path chooses no such layer, or nothing gets
        smaller.

    Example:
      >>> import jax.numpy as jnp
      >>> from jdlopt.models import make_model
      >>> section = {"name": "mlp", "features": (32,), "low_rank": {"ranks": {"head/dense_0": 4}}}
      >>> init = make_model(section, 3).init
      >>> params, _ = jax.eval_shape(init, jax.random.key(0), jnp.ones((2, 16)), {})
      >>> layer = params["head"]["dense_0"]
      >>> layer["factor"]["kernel"].shape, layer["kernel"].shape, layer["bias"].shape
      ((16, 4), (4, 32), (32,))
    """
    split = partial(_split, fields, chooser(fields.patterns, f"{KEY}.patterns"))

    def init(key: Array, inputs: PyTree, hparams: PyTree) -> tuple[PyTree, PyTree]:
        seen: dict[str, Size] = {}
        with nn.intercept_methods(partial(split, seen)):
            made = model.init(key, inputs, hparams)
        _check(fields, seen)
        return made

    def apply(*given: PyTree, **options: Any) -> tuple[Array, PyTree]:
        with nn.intercept_methods(partial(split, {})):
            return model.apply(*given, **options)

    return Model(init, apply)


def layers_of(model: Model, inputs: PyTree, hparams: PyTree) -> dict[str, Size]:
    """Returns the layers of a model that can be two products, by their paths. Traces it once.

    Args:
      model: whose layers they are.
      inputs: shapes and types of a batch, as the model takes it.
      hparams: the traced floats of the ``model`` section.
    """
    seen: dict[str, Size] = {}
    split = partial(_split, LowRankFields(), lambda path: False, seen)
    with nn.intercept_methods(split):
        # a function that was traced before is not traced again
        jax.eval_shape(lambda *given: model.init(*given), jax.random.key(0), inputs, hparams)
    return seen


# --- one layer ------------------------------------------------------------------------------------


def _split(
    fields: LowRankFields,
    chooses: Callable[[str], bool],
    seen: dict[str, Size],
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    """Calls a module; if it is a chosen layer, with the product of its inputs and its factor."""
    module = context.module
    inner = module.name in (FACTOR, SECOND)
    if context.method_name != "__call__" or not args or inner:
        return call(*args, **kwargs)
    size = _size(module, args[0])
    if size is None:
        return call(*args, **kwargs)
    path = "/".join(module.path)
    seen[path] = size
    rank = fields.ranks.get(path, fields.ranks.get(f"model/{path}"))
    if rank is None and fields.rank is not None and chooses(f"{path}/kernel"):
        rank = fields.rank if fields.rank <= size.largest else None
    if rank is None:
        return call(*args, **kwargs)
    return _second(module)(_first(module, rank)(args[0]), *args[1:], **kwargs)


def _size(module: nn.Module, x: object) -> Size | None:
    """The size of a layer's kernel; None of what stays whole."""
    taps: tuple[int, ...]
    if isinstance(module, nn.Dense | SharedDense):
        taps = ()
    elif isinstance(module, Conv):
        taps = module.kernel_size
    elif isinstance(module, CausalConv):
        taps = (module.kernel_size,)
    elif isinstance(module, nn.Conv) and module.feature_group_count == 1 and module.mask is None:
        sizes = module.kernel_size
        taps = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    else:
        return None
    shape = getattr(x, "shape", ())
    return Size(math.prod(taps) * shape[-1], module.features) if shape else None


def _first(module: nn.Module, rank: int) -> nn.Module:
    """What makes ``rank`` numbers of a layer's inputs, at each place where the layer has outputs.

    Nothing bends between it and the layer: it starts so that variances stay, whatever comes after.
    """
    if isinstance(module, SharedDense):
        init = INITIALIZERS[_INIT]
        return nn.Dense(rank, use_bias=False, kernel_init=init, parent=module, name=FACTOR)
    start: dict[str, Any] = {"kernel_init": INITIALIZERS[_INIT]}
    if isinstance(module, CausalConv):
        start = {"initializer": _INIT}
    return module.clone(features=rank, use_bias=False, parent=module, name=FACTOR, **start)


def _second(module: nn.Module) -> nn.Module:
    """A layer that is given what its factor makes, and so looks at one place; with its parameters.

    It is in the layer's own place, and not the layer itself: what intercepts layers meets it.
    """
    fields: dict[str, Any] = {}
    if isinstance(module, CausalConv):
        fields = {"kernel_size": 1, "dilation": 1}
    elif isinstance(module, Conv | nn.Conv):
        taps = 1 if isinstance(module.kernel_size, int) else (1,) * len(module.kernel_size)
        fields = {"kernel_size": taps, "strides": 1, "padding": "VALID"}
        if isinstance(module, nn.Conv):
            fields |= {"input_dilation": 1, "kernel_dilation": 1}
    return module.clone(parent=module.scope, name=SECOND, **fields)


# --- what can't be --------------------------------------------------------------------------------


def _check(fields: LowRankFields, seen: Mapping[str, Size]) -> None:
    """Raises a `ConfigError` where a section does not fit a model's layers."""
    for path, rank in fields.ranks.items():
        size = seen.get(path, seen.get(path.removeprefix("model/")))
        if size is None:
            raise ConfigError(
                f"{KEY}.ranks: there is no layer {path!r} that can be two products. "
                f"{known(seen, path)}"
            )
        if rank > size.full:
            raise ConfigError(
                f"{KEY}.ranks.{path}: {rank} is more than {size.full}, the rank of any kernel of "
                f"{size.inputs} inputs and {size.outputs} outputs."
            )
    if fields.rank is None:
        return
    chosen = chosen_layers(seen, fields.patterns)
    largest = max(size.largest for size in chosen.values())
    if fields.rank > largest:
        raise ConfigError(
            f"{KEY}.rank: at {fields.rank} no layer gets smaller; at most {largest} is of use here."
        )


def chosen_layers(
    seen: Mapping[str, Size], patterns: tuple[str, ...], key: str = f"{KEY}.patterns"
) -> dict[str, Size]:
    """Returns the layers whose kernels patterns choose.

    Args:
      seen: `layers_of` a model.
      patterns: regular expressions of the paths of kernels.
      key: of the patterns, for messages.

    Raises:
      ConfigError: a pattern chooses none, or is not a regular expression.
    """
    for pattern in patterns:
        chooses = chooser((pattern,), key)
        if not any(chooses(f"{path}/kernel") for path in seen):
            raise ConfigError(
                f"{key}: {pattern!r} matches no kernel that can be two products. "
                f"{known(seen, pattern, '/kernel')}"
            )
    chooses = chooser(patterns, key)
    return {path: size for path, size in seen.items() if chooses(f"{path}/kernel")}


def known(seen: Mapping[str, Size], wanted: str, end: str = "") -> str:
    """Returns a sentence on which layers can be two products, those first that may be meant."""
    if not seen:
        return "This model has none: they are dense layers and convolutions of Linen modules."
    return lora.nearest_paths(wanted, [f"{path}{end}" for path in seen])
