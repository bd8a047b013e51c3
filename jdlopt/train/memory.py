"""What a training step costs before it is run: its memory, its arithmetic, the batch that fits."""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from jdlopt import mesh as meshes
from jdlopt.errors import UserError
from jdlopt.models.ensemble import member_names
from jdlopt.models.summary import Layer, flops_of, layers_of
from jdlopt.train.compiling import compile_options
from jdlopt.train.components import model_of, shaped
from jdlopt.train.experiment import Experiment
from jdlopt.train.program import state_sharding, step_options
from jdlopt.train.state import TrainState
from jdlopt.train.steps import many_steps, one_step, stored, streamed_step

UNITS = {"": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
"""What a size is written in."""


class Summary(NamedTuple):
    """A model and its training step in numbers; bytes and FLOPs are those of a whole batch.

    Attributes:
      layers: the model's layers.
      batch_size: examples in the batch.
      trained, frozen: numbers in the parameters.
      forward_flops, step_flops: of the matrix products and convolutions of the forward pass, and of
        a whole step with its backward pass.
      parameter_bytes, optimizer_bytes, activation_bytes: of the parameters, what the optimizer
        remembers, and the layers' outputs.
    """

    layers: list[Layer]
    batch_size: int
    trained: int
    frozen: int
    forward_flops: int
    step_flops: int
    parameter_bytes: int
    optimizer_bytes: int
    activation_bytes: int


def summary(experiment: Experiment) -> Summary:
    """Returns a model layer by layer, and what a step of it costs; no array is made."""
    state = _shapes(experiment)
    size = experiment.config.data.batch_size
    layers = _layers(experiment, state, experiment.seen(size))
    trained, frozen = experiment.components.freezing.split(state.params)
    return Summary(
        layers=layers,
        batch_size=size,
        trained=_numbers(trained),
        frozen=_numbers(frozen),
        forward_flops=sum(layer.flops for layer in layers),
        step_flops=flops_of(experiment.train_step, state, shapes_of_batch(experiment, size)),
        parameter_bytes=_bytes(state.params),
        optimizer_bytes=_bytes(state.opt_state),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
    )


def _layers(experiment: Experiment, state: TrainState, inputs: PyTree) -> list[Layer]:
    """The layers of the model, or of each member of an ensemble."""
    config, hparams = experiment.config, experiment.hparams["model"]
    members = config.model.ensemble
    if members == 1:
        return layers_of(
            experiment.components.model, state.params, state.model_state, inputs, hparams
        )
    model = model_of(config, experiment.spec, experiment.recipe, members=1)
    return [
        layer._replace(path=f"{name}/{layer.path}")
        for name in member_names(members)
        for layer in layers_of(model, state.params[name], state.model_state[name], inputs, hparams)
    ]


class Fit(NamedTuple):
    """The largest batch that fits.

    Attributes:
      batch_size: it.
      limit: the bytes that there are on a device.
      sizes: the bytes that a step takes at each batch size that was compiled.
    """

    batch_size: int
    limit: int
    sizes: dict[int, int]


def largest_batch(experiment: Experiment, limit: int | None = None) -> Fit:
    """Returns the largest ``data.batch_size`` whose training step fits a device's memory.

    Steps are compiled, and never run: the compiler says what each would take.

    Args:
      experiment: at any batch size.
      limit: bytes on a device; by default all that there are.

    Raises:
      UserError: not even the smallest batch fits.
    """
    config, dataset = experiment.config, experiment.data
    mesh = meshes.make_mesh(config.mesh)
    limit = device_bytes(mesh) if limit is None else limit
    parts = config.optim.accumulate * config.model.batch_norm_groups
    unit = math.lcm(meshes.batch_ways(mesh.shape), parts)
    most = dataset.sizes["train"]

    def cost(batch_size: int) -> int:
        changed = replace(config, data=replace(config.data, batch_size=batch_size))
        return step_bytes(Experiment.build(changed, dataset), mesh)

    sizes = search(cost, limit, unit=unit, most=most, first=config.data.batch_size)
    fitting = [size for size, needed in sizes.items() if needed <= limit]
    if not fitting:
        raise UserError(
            f"--find-batch-size: a step with data.batch_size={unit} takes {shown(sizes[unit])}; "
            f"a device has {shown(limit)}. Try model.remat, model.dtype='bfloat16', mesh.fsdp over "
            "more devices, an optimizer that remembers less, or a smaller model."
        )
    return Fit(max(fitting), limit, dict(sorted(sizes.items())))


def search(
    cost: Callable[[int], int], limit: int, *, unit: int, most: int, first: int
) -> dict[int, int]:
    """Looks for the largest size whose cost is within a limit, and asks for few costs.

    A line through the two known costs nearest the limit says where to look next. The search ends
    with a size that fits and the next one, which does not, both asked for.

    Args:
      cost: grows with the size, about linearly.
      limit: the highest cost.
      unit: sizes are its multiples by 1 to 15 times a power of two.
      most: no size is larger.
      first: where to begin.

    Returns:
      The costs that were asked for.

    Example:
      >>> search(lambda size: 100 + 7 * size, 1000, unit=1, most=512, first=32)
      {32: 324, 64: 548, 128: 996, 144: 1108}
    """
    sizes = sorted({unit * (digits << power) for digits in range(1, 16) for power in range(31)})
    sizes = sizes[: bisect.bisect_right(sizes, most)]
    costs: dict[int, int] = {}
    fits, over = -1, len(sizes)  # the largest that is known to fit, and the smallest that doesn't
    guess = first
    while over - fits > 1:
        index = bisect.bisect_right(sizes, guess) - 1
        index = min(max(index, fits + 1), over - 1)
        costs[sizes[index]] = cost(sizes[index])
        fits, over = (index, over) if costs[sizes[index]] <= limit else (fits, index)
        near = sorted(costs, key=lambda size: abs(costs[size] - limit))[:2]
        if len(near) == 1:
            guess = near[0] * 2 if fits >= 0 else near[0] // 2
            continue
        slope = (costs[near[1]] - costs[near[0]]) / (near[1] - near[0])
        guess = int(near[0] + (limit - costs[near[0]]) / slope) if slope > 0 else 2 * max(near)
    return costs


def step_bytes(experiment: Experiment, mesh: Mesh) -> int:
    """Returns the bytes that a training step takes on a device at its peak, as the compiler says.

    They are those of its arguments (the state, and the training split where it is kept in memory),
    and of what it keeps meanwhile. Of a step that the compiler refuses, what it would take.

    Args:
      experiment: its batch size is the config's.
      mesh: the devices.

    Raises:
      UserError: the compiler does not say.
    """
    try:
        return peak_bytes(compiled_step(experiment, mesh))
    except jax.errors.JaxRuntimeError as error:
        found = refused(error)
        if found is None:
            raise
        return found[0]


def peak_bytes(compiled: jax.stages.Compiled) -> int:
    """Returns the bytes that a program takes on a device at its peak, its arguments included.

    For a TPU they are the compiler's own peak. What XLA's CPU compiler calls so leaves out all that
    a program keeps meanwhile; there, and on other devices, they are the sum of arguments, of
    temporaries, and of outputs that are not written over arguments.

    Raises:
      UserError: the compiler does not say.
    """
    found = compiled.memory_analysis()
    if found is None:
        raise UserError(
            "--find-batch-size: the compiler of this device does not say what it needs."
        )
    places = jax.tree.leaves(compiled.input_shardings)
    devices = next(iter(places)).device_set if places else jax.devices()
    if next(iter(devices)).platform == "tpu":
        return found.peak_memory_in_bytes
    return (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )


def refused(error: BaseException, arguments: int = 0) -> tuple[int, int] | None:
    """Returns the bytes that a program would take and those that there are, as a compiler says.

    None where an error is no compiler's that a program takes too much of a device's memory.

    Args:
      error: the compiler's.
      arguments: bytes of the program's arguments, where it speaks of what comes to them alone.

    Example:
      >>> refused(RuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used "
      ...                      "18.5G of 15.75G hbm."))
      (19864223744, 16911433728)
      >>> refused(RuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory "
      ...     "required for HLO temporaries (87.0G) exceeds available HBM (15.75G)."), 2**30)
      (94489280512, 16911433728)
    """
    text = str(error)
    sizes = re.findall(r"\b(\d+(?:\.\d+)?)([KMGT])\b", text)
    if "RESOURCE_EXHAUSTED" not in text or "hbm" not in text.lower() or len(sizes) < 2:
        return None
    factors = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    needed, limit = (int(float(size) * factors[unit]) for size, unit in sizes[:2])
    return needed + (arguments if "HLO temporaries" in text else 0), limit


def step_arguments(experiment: Experiment, mesh: Mesh) -> tuple[TrainState, PyTree]:
    """Returns the shapes of a training's state and of its data, with where they lie.

    The data are a batch where they are streamed, and else the training split.
    """
    state = _shapes(experiment)
    state = jax.tree.map(_placed, state, state_sharding(mesh, state, experiment.config.mesh.rules))
    if experiment.streams:
        data = shapes_of_batch(experiment, experiment.config.data.batch_size)
        place = meshes.batch_sharding(mesh)
    else:
        data = jax.eval_shape(stored, shapes_of_batch(experiment, experiment.data.sizes["train"]))
        place = meshes.replicated(mesh)
    return state, jax.tree.map(lambda leaf: _placed(leaf, place), data)


def lowered_step(experiment: Experiment, mesh: Mesh, steps: int = 1) -> jax.stages.Lowered:
    """Returns the training step of an experiment, lowered; no array is made for it.

    Args:
      experiment: its batch size is the config's.
      mesh: the devices, which need not be here.
      steps: more than 1: most steps in a dispatch, of data that are kept in memory.
    """
    state, data = step_arguments(experiment, mesh)
    options = step_options(mesh, state)
    step = experiment.train_step
    if experiment.streams:
        function = jax.jit(partial(streamed_step, train_step=step, mesh=mesh), **options)
        return function.lower(state, data)
    everywhere = meshes.replicated(mesh)
    size = experiment.config.data.batch_size
    examples = jax.ShapeDtypeStruct((steps, size), jnp.int32, sharding=everywhere)
    if steps == 1:
        function = jax.jit(partial(one_step, train_step=step, mesh=mesh), **options)
        return function.lower(state, data, examples)
    function = jax.jit(partial(many_steps, train_step=step, mesh=mesh), **options)
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    return function.lower(state, data, examples, count)


def compiled_step(experiment: Experiment, mesh: Mesh) -> jax.stages.Compiled:
    """Returns the compiled training step of an experiment; no array is made for it."""
    platform = mesh.devices.flat[0].platform
    return lowered_step(experiment, mesh).compile(compile_options(platform=platform))


def device_bytes(mesh: Mesh) -> int:
    """Returns the memory of a device of a mesh; a CPU's devices share what the machine has left."""
    device = mesh.devices.flat[0]
    try:
        stats = device.memory_stats()
    except jax.errors.JaxRuntimeError:  # a device that programs can only be compiled for
        stats = None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    here = device.platform == "cpu" and Path("/proc/meminfo").exists()
    text = Path("/proc/meminfo").read_text() if here else ""
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    if not found:
        raise UserError(
            f"--find-batch-size: {device.device_kind!r} does not say how much memory it has; "
            "give it with --memory, such as --memory=24GiB."
        )
    local = sum(one.process_index == jax.process_index() for one in mesh.devices.flat)
    return int(found.group(1)) * 2**10 // max(1, local)


def bytes_of(text: str) -> int:
    """Returns the bytes of a size as people write it.

    Raises:
      UserError: it is none.

    Example:
      >>> bytes_of("1.5GiB"), bytes_of("800 MB"), bytes_of("4096")
      (1610612736, 800000000, 4096)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if not found or found.group(2) not in UNITS or not float(found.group(1)):
        raise UserError(
            f"--memory: expected a size such as 24GiB or 800MB, found {text!r}. Units: "
            f"{', '.join(filter(None, UNITS))}."
        )
    return int(float(found.group(1)) * UNITS[found.group(2)])


def shown(size: float) -> str:
    """Returns a size as people read it.

    Example:
      >>> shown(512), shown(3 * 2**20), shown(2.5 * 2**30)
      ('512 B', '3.0 MiB', '2.5 GiB')
    """
    for unit in ("GiB", "MiB", "KiB"):
        if size >= UNITS[unit]:
            return f"{size / UNITS[unit]:.1f} {unit}"
    return f"{size:.0f} B"


def _shapes(experiment: Experiment) -> TrainState:
    return jax.eval_shape(partial(experiment.init, 0))


def shapes_of_batch(experiment: Experiment, size: int) -> dict[str, Any]:
    """Returns the shapes of so many raw examples with their targets."""
    spec = experiment.spec
    return {
        "inputs": shaped(spec.inputs, size),
        "targets": jax.ShapeDtypeStruct((size, *spec.target_shape), spec.target_dtype),
    }


def _placed(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _numbers(tree: object) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _bytes(tree: object) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
