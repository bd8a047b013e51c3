"""A plan of one config: its programs compiled for a machine, and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata

import jax

from jdlopt import mesh as meshes
from jdlopt.config import AnyConfig
from jdlopt.models.summary import flops_of
from jdlopt.plan.compiled import TEMPORARIES, program_of
from jdlopt.plan.lowering import DATA, lower_evaluation, lower_training
from jdlopt.plan.record import Plan, Program, Range
from jdlopt.plan.topology import Topology, devices_of
from jdlopt.train import memory
from jdlopt.train.experiment import Experiment
from jdlopt.train.schema import Config


def make_plan(config: AnyConfig, topology: Topology, price: float | None = None) -> Plan:
    """Compiles a config's training and evaluation for a machine, in this process.

    Args:
      config: the experiment.
      topology: the machine.
      price: dollars for a chip-hour.

    Raises:
      ConfigError, DataError: as `Experiment.build`.
      UserError: the machine can't be compiled for.
    """
    experiment = Experiment.build(config, num_devices=topology.chips)
    mesh = meshes.make_mesh(experiment.config.mesh, devices_of(topology))
    return plan_of(experiment, mesh, topology, price)


def plan_of(
    experiment: Experiment, mesh: jax.sharding.Mesh, topology: Topology, price: float | None = None
) -> Plan:
    """Compiles an experiment's programs for a mesh, and returns the plan of them.

    Args:
      experiment: what is trained.
      mesh: the devices, of a topology or here.
      topology: the machine that they are, or are taken for.
      price: dollars for a chip-hour.
    """
    devices = list(mesh.devices.flat)
    axes = {str(name): int(size) for name, size in mesh.shape.items()}
    training = program_of(lower_training(experiment, mesh), devices, axes, topology)
    evaluation = None
    if experiment.data.sizes.get("validation"):
        evaluation = program_of(lower_evaluation(experiment, mesh), devices, axes, topology)
    config, chip, chips = experiment.config, topology.chip, len(devices)
    state, _ = memory.step_arguments(experiment, mesh)
    flops = model_flops(experiment, chips)
    size, total = config.data.batch_size, experiment.total_steps
    seconds, hours, chip_hours, rate, mfu, cost = (None,) * 6
    if training.seconds is not None:
        low, high = training.seconds.low, training.seconds.high
        seconds = Range(low, high)
        hours = Range(low * total / 3600, high * total / 3600)
        chip_hours = Range(hours.low * chips, hours.high * chips)
        rate = Range(size / high, size / low)
        peak = chips * chip.peak("bfloat16")
        mfu = Range(flops / high / peak, flops / low / peak)
        if price is not None:
            cost = Range(chip_hours.low * price, chip_hours.high * price)
    fits = training.fits and (evaluation is None or evaluation.fits)
    return Plan(
        topology=topology.name,
        slices=topology.slices,
        chip=chip.name,
        chips=chips,
        mesh=axes,
        batch_size=size,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        limit=chip.hbm_bytes,
        fits=fits,
        training=training,
        evaluation=evaluation,
        total_steps=total,
        model_flops=flops,
        step_seconds=seconds,
        examples_per_second=rate,
        mfu=mfu,
        hours=hours,
        chip_hours=chip_hours,
        price=price,
        cost=cost,
        message="" if fits else refusal(config, training, evaluation, axes, topology),
        versions={"jax": jax.__version__, "libtpu": _version("libtpu")},
    )


def model_flops(experiment: Experiment, num_devices: int) -> float:
    """Returns the FLOPs of a training step's products over the whole batch, each counted once.

    What rematerialisation computes again is left out: the same step is counted without it.

    Args:
      experiment: what is trained.
      num_devices: that its mesh is of.
    """
    options = experiment.config.model.options
    if options.get("remat", "none") != "none":
        section = replace(experiment.config.model, options={**options, "remat": "none"})
        plain = replace(experiment.config, model=section)
        experiment = Experiment.build(
            plain,
            experiment.data,
            learnt_before=experiment.learnt,
            begins=False,
            num_devices=num_devices,
        )
    size = experiment.config.data.batch_size
    state = jax.eval_shape(experiment.init, 0)
    return float(flops_of(experiment.train_step, state, memory.shapes_of_batch(experiment, size)))


def refusal(
    config: Config,
    training: Program,
    evaluation: Program | None,
    axes: dict[str, int],
    topology: Topology,
) -> str:
    """Returns what is said of a training that doesn't fit: both sizes, and what to try."""
    worst = training
    if evaluation is not None and training.fits:
        worst = evaluation
    beside = f" and {memory.shown(worst.beside)} lie there beside it" if worst.beside else ""
    tries = "; ".join(advice(config, training, evaluation, axes, topology.chips))
    return (
        f"{worst.name} doesn't fit: the program takes {memory.shown(worst.peak)} on a chip{beside}"
        f"; {topology.chip.name} has {memory.shown(topology.chip.hbm_bytes)} for programs. "
        f"Try: {tries}."
    )


def advice(
    config: Config,
    training: Program,
    evaluation: Program | None,
    axes: dict[str, int],
    chips: int,
) -> tuple[str, ...]:
    """Returns what to try where a training doesn't fit, what takes the most first."""
    tried: list[tuple[int, str]] = []
    if not training.fits:
        kinds = training.memory
        held = sum(size for name, size in kinds.items() if name not in (DATA, TEMPORARIES))
        batched = axes.get("data", 1) * axes.get("fsdp", 1)
        if axes.get("fsdp", 1) < batched == chips and config.data.batch_size % chips == 0:
            text = f"mesh.data=1 mesh.fsdp={chips} splits parameters and optimizer over all chips"
            tried.append((held, text))
        if config.model.options.get("remat", "none") == "none" and "remat" in config.model.options:
            tried.append((kinds.get(TEMPORARIES, 0), "model.remat='full' keeps fewer activations"))
        more = 2 * config.optim.accumulate
        if config.data.batch_size % (more * chips) == 0:
            text = f"optim.accumulate={more} keeps those of a smaller part of the batch at a time"
            tried.append((kinds.get(TEMPORARIES, 0) - 1, text))
        if config.data.batch_size >= 2 * chips:
            text = f"data.batch_size={config.data.batch_size // 2} keeps those of fewer examples"
            tried.append((kinds.get(TEMPORARIES, 0) - 2, text))
        if config.data.in_memory is not False and kinds.get(DATA, 0) > training.peak / 20:
            tried.append((kinds[DATA], "data.in_memory=False streams the training split"))
    if evaluation is not None and not evaluation.fits:
        text = f"train.eval_batch_size={max(1, evaluation.examples // 2)} evaluates fewer at a time"
        tried.append((evaluation.peak, text))
    tried.append((0, "a larger topology, or --search"))
    return tuple(text for _, text in sorted(tried, key=lambda one: -one[0]))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
