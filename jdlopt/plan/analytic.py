"""An estimate of a training step on devices that are not here, from shapes alone.

A step is traced once; at every mesh, batch size and chip it is then a sum. Nothing is compiled, so
it covers GPUs, too, and takes under a millisecond for each mesh; what the compiler would do is
guessed (`jdlopt.plan.traced`), and `jdlopt.plan` compiles where it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import optax
from jaxtyping import PyTree

from jdlopt.errors import ConfigError
from jdlopt.mesh.axes import AXES, BATCH_AXES, FSDP, batch_ways
from jdlopt.plan.chips import Chip
from jdlopt.plan.held import Held, held_on, whole_model
from jdlopt.plan.links import Carried, Network, carried
from jdlopt.plan.traced import CATEGORIES, Traced, trace
from jdlopt.plan.walked import AGAIN, BACKWARD, FORWARD, POWERS

EFFICIENCY = 0.88
"""The share of what a chip and its links are specified to do that large products reach: where
published trainings of transformers lie on average (docs/scale.md says how far each is off)."""


NOT_ESTIMATED = ("pipeline", "expert")
"""Axes of a mesh that only compiling tells anything of."""


@dataclass(frozen=True)
class Workload:
    """A step, and what a state keeps for it, whatever the machine.

    Attributes:
      traced: the step of one (micro-)batch.
      params: shapes of the trained parameters.
      beside: shapes of all else that a state keeps, by what it is: ``optimizer``, ``average``, ….
      rules: ``mesh.rules``.
      data_bytes: of the training split, where every device keeps all of it.
    """

    traced: Traced = field(repr=False)
    params: PyTree = field(repr=False)
    beside: Mapping[str, PyTree] = field(default_factory=dict, repr=False)
    rules: tuple[tuple[str | None, ...], ...] = ()
    data_bytes: int = 0
    _held: dict[tuple[tuple[str, int], ...], Held] = field(default_factory=dict, repr=False)

    def held(self, sizes: Mapping[str, int]) -> Held:
        """Returns what a chip of a mesh holds of the state.

        Raises:
          ConfigError: the parameters can't be split so.
        """
        key = tuple(sizes.items())
        if key not in self._held:
            self._held[key] = held_on(
                self.traced.parameters, self.params, self.beside, sizes, self.rules
            )
        return self._held[key]


@dataclass(frozen=True)
class Memory:
    """Bytes on a chip at a step's peak.

    Attributes:
      parameters, optimizer: of the state; ``others``: averages, running statistics.
      gradients: and parameters cast to another type.
      activations: that wait for the backward pass, and what is being computed.
      gathered: parameters put together where FSDP splits them, of two layers.
      data: the training split.
      total: all of these.
    """

    parameters: float
    optimizer: float
    others: float
    gradients: float
    activations: float
    gathered: float
    data: float
    total: float


@dataclass(frozen=True)
class Times:
    """Seconds of a step on a chip.

    Attributes:
      compute: of matrix products and kernels at the chip's peak.
      hbm: of all bytes to and from its memory.
      operations: one after the other, each bound by one of these.
      ici, dcn: of what is sent to other chips, and over the network.
      low: all at once, each at its peak.
      expected: at the efficiency, collectives of activations waited for, those of parameters and
        gradients meanwhile.
      high: at the efficiency, one after the other.
    """

    compute: float
    hbm: float
    operations: float
    ici: float
    dcn: float
    low: float
    expected: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """What a training step takes on a mesh of chips.

    Attributes:
      chip, chips, slices, mesh, batch_size, accumulate: what was asked for.
      memory: of a chip. ``limit``: what it has. ``fits``: whether that is enough.
      flops: over all chips, by `FORWARD`, `BACKWARD` and `AGAIN`.
      hbm_bytes: of a chip.
      collectives: what a chip sends.
      seconds: of a step.
      bound: what most of them are due to: ``compute``, ``HBM``, ``ICI`` or ``DCN``.
      mfu: FLOPs that are not computed again, as a share of what the chips could do.
      examples_per_second: over all chips.
    """

    chip: str
    chips: int
    slices: int
    mesh: Mapping[str, int]
    batch_size: int
    accumulate: int
    memory: Memory
    limit: float
    fits: bool
    flops: Mapping[str, float]
    hbm_bytes: float
    collectives: tuple[Carried, ...]
    seconds: Times
    bound: str
    mfu: float
    examples_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return asdict(self)


def workload(
    function: Callable[..., PyTree],
    params: PyTree,
    batch: PyTree,
    *rest: PyTree,
    optimizer: optax.GradientTransformation | None = None,
    rules: tuple[tuple[str | None, ...], ...] = (),
    kernels: Mapping[str, float] | None = None,
) -> Workload:
    """Traces a loss and its gradient, for estimates on any number of meshes.

    Args:
      function, params, batch, rest, kernels: as `jdlopt.plan.traced.trace` takes them.
      optimizer: what keeps moments beside the parameters.
      rules: ``mesh.rules``, before the default ones.
    """
    traced = trace(function, params, batch, *rest, placing=whole_model(rules), kernels=kernels)
    beside = {} if optimizer is None else {"optimizer": _initial(optimizer, params)}
    return Workload(traced, params, beside, rules)


def _initial(optimizer: optax.GradientTransformation, params: PyTree) -> PyTree:
    import jax

    return jax.eval_shape(optimizer.init, params)


def estimate(
    function: Callable[..., PyTree],
    params: PyTree,
    batch: PyTree,
    *rest: PyTree,
    chip: Chip,
    mesh: Mapping[str, int],
    batch_size: int,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    slices: int = 1,
    rules: tuple[tuple[str | None, ...], ...] = (),
    kernels: Mapping[str, float] | None = None,
) -> Estimate:
    """Returns what a training step of any loss takes on a mesh; no array is made.

    Args:
      function, params, batch, rest, kernels: as `jdlopt.plan.traced.trace` takes them.
      chip: the kind of device.
      mesh: devices along each axis; one that is not named has 1.
      batch_size: examples in a step, over all devices.
      optimizer, rules: as in `workload`.
      accumulate: micro-batches in a step.
      slices: slices or machines, which a network joins.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jdlopt.plan.chips import find_chip
      >>> found = estimate(
      ...     lambda params, x: jnp.square(x @ params["kernel"]),
      ...     {"kernel": jax.ShapeDtypeStruct((256, 512), jnp.float32)},
      ...     jax.ShapeDtypeStruct((1, 256), jnp.float32),
      ...     chip=find_chip("v5e"), mesh={"data": 2, "fsdp": 2}, batch_size=64)
      >>> found.flops["forward"] == 2 * 64 * 256 * 512, found.memory.parameters == 4 * 256 * 512 / 2
      (True, True)
    """
    work = workload(
        function, params, batch, *rest, optimizer=optimizer, rules=rules, kernels=kernels
    )
    return estimated(work, chip, mesh, batch_size, accumulate=accumulate, slices=slices)


def estimated(
    work: Workload,
    chip: Chip,
    mesh: Mapping[str, int],
    batch_size: int,
    *,
    accumulate: int = 1,
    slices: int = 1,
    efficiency: float = EFFICIENCY,
) -> Estimate:
    """Returns what a traced step takes on a mesh. Pure arithmetic.

    Args:
      work: the step.
      chip, mesh, batch_size, accumulate, slices: as in `estimate`.
      efficiency: the share of what is specified that is reached.

    Raises:
      ConfigError: the parameters, or the slices, can't be split so.
    """
    sizes = {**dict.fromkeys(AXES, 1), **mesh}
    for axis in NOT_ESTIMATED:
        if sizes.get(axis, 1) > 1:
            raise ConfigError(
                f"mesh.{axis}: {sizes[axis]} is more than the estimate knows of this axis, which "
                "is 1. Compile the plan, for a TPU, or use another axis."
            )
    chips = math.prod(sizes.values())
    held = work.held(sizes)
    local = batch_size / (batch_ways(sizes) * accumulate)
    traced, share = work.traced, held.share
    positions = sizes.get("sequence", 1)
    powers = np.array([1.0, *(local**power / positions for power in range(1, POWERS))])
    ops = _operations(traced, chip, sizes, powers, share)
    turns = traced.columns.times * accumulate
    update = held.update_bytes / chip.hbm_bandwidth
    each = np.maximum(ops.products, ops.memory)
    seconds = float(turns @ each) + update
    compute = float(turns @ ops.products)
    memory_bound = float(turns @ np.where(ops.memory > ops.products, each, 0.0)) + update
    network = Network(chip, sizes, slices)
    sent = carried(traced, held, network, local, accumulate)
    ici, dcn = sum(one.ici for one in sent), sum(one.dcn for one in sent)
    waited = sum(one.ici + one.dcn for one in sent if one.waited)
    expected = max(seconds + waited, ici, dcn) / efficiency
    parts = {"compute": seconds - memory_bound, "HBM": memory_bound, "ICI": ici, "DCN": dcn}
    flops = {
        phase: float(traced.flops(phase) @ _powers(batch_size / accumulate)) * accumulate
        for phase in (FORWARD, BACKWARD, AGAIN)
    }
    memory = _memory(work, held, sizes, powers, accumulate)
    return Estimate(
        chip=chip.name,
        chips=chips,
        slices=slices,
        mesh=sizes,
        batch_size=batch_size,
        accumulate=accumulate,
        memory=memory,
        limit=chip.hbm_bytes,
        fits=memory.total <= chip.hbm_bytes,
        flops=flops,
        hbm_bytes=float(turns @ ops.memory) * chip.hbm_bandwidth + held.update_bytes,
        collectives=tuple(sent),
        seconds=Times(
            compute,
            float(turns @ ops.memory) + update,
            seconds,
            ici,
            dcn,
            max(seconds, ici, dcn),
            expected,
            (seconds + ici + dcn) / efficiency,
        ),
        bound=max(parts, key=lambda name: parts[name]),
        mfu=(flops[FORWARD] + flops[BACKWARD]) / (expected * chips * chip.peak(_dtype(traced))),
        examples_per_second=batch_size / expected,
    )


@dataclass(frozen=True)
class _Operations:
    """Seconds of each operation at the chip's peak, were it bound by one thing."""

    products: np.ndarray
    memory: np.ndarray


def _operations(
    traced: Traced, chip: Chip, sizes: Mapping[str, int], powers: np.ndarray, share: float
) -> _Operations:
    columns = traced.columns
    over = np.ones(len(columns.times))
    for axis, is_split in columns.split.items():
        over = np.where(is_split, over * _ways(axis, sizes), over)
    peaks = np.array([chip.peak(dtype) for dtype in columns.dtypes])
    products = columns.flops @ powers / over / peaks
    vector = columns.vector @ powers / over / chip.vector
    moved = (columns.moved @ powers + columns.weights) / over + columns.kept * share
    return _Operations(np.maximum(products, vector), moved / chip.hbm_bandwidth)


def _ways(axis: str, sizes: Mapping[str, int]) -> int:
    """Into how many parts an axis splits activations that are split over it, beside the batch."""
    return 1 if axis in BATCH_AXES else sizes.get(axis, 1)


def _memory(
    work: Workload, held: Held, sizes: Mapping[str, int], powers: np.ndarray, accumulate: int
) -> Memory:
    traced = work.traced
    ways = [math.prod(_ways(axis, sizes) for axis in category) for category in CATEGORIES]
    active = (traced.live @ powers) @ (1 / np.array(ways))
    weights = traced.live_weights * held.share
    at = int(np.argmax(active + weights)) if len(active) else 0
    gathered = 2 * traced.largest_layer / held.tensor_ways if sizes[FSDP] > 1 else 0.0
    gradients = float(weights[at]) + (held.trained_bytes if accumulate > 1 else 0.0)
    others = sum(size for name, size in held.beside.items() if name != "optimizer")
    parts = (
        held.parameter_bytes,
        held.beside.get("optimizer", 0.0),
        others,
        gradients,
        float(active[at]),
        gathered,
        float(work.data_bytes),
    )
    return Memory(*parts, sum(parts))


def _powers(batch: float) -> np.ndarray:
    return np.array([batch**power for power in range(POWERS)])


def _dtype(traced: Traced) -> str:
    """The type that most of the arithmetic is done in."""
    sums: dict[str, float] = {}
    for one in traced.operations:
        sums[one.dtype] = sums.get(one.dtype, 0.0) + one.times * one.flops.each
    return max(sums, key=lambda name: sums[name], default="float32")


def weak_scaling(
    work: Workload,
    chip: Chip,
    chips: Sequence[int],
    each: int,
    mesh: Callable[[int], Mapping[str, int]],
) -> list[Estimate]:
    """Returns estimates on more and more chips, the batch growing with them.

    Args:
      work: the step.
      chip: the kind of device.
      chips: how many, in turn.
      each: examples in a step for each chip.
      mesh: the mesh of so many chips.
    """
    return [
        estimated(work, chip, mesh(count), each * count, slices=max(1, -(-count // chip.most)))
        for count in chips
    ]
