"""What ``train`` tells of a config without training it: its model, and the batch that fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdlopt.cli.show import DONE, console, print_json


def print_model(config: Mapping[str, Any], as_json: bool) -> int:
    """Shows a config's model layer by layer, and what a training step costs."""
    from jdlopt.train import memory
    from jdlopt.train.experiment import Experiment

    experiment = Experiment.build(config)
    found, name = memory.summary(experiment), experiment.config.model.name
    if as_json:
        layers = [layer._asdict() for layer in found.layers]
        print_json({**found._asdict(), "layers": layers})
        return DONE
    from rich.table import Table

    table = Table(title=f"model.name {name!r}, a batch of {found.batch_size:,}")
    for column in ("layer", "kind", "output"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "forward", "memory"):
        table.add_column(column, justify="right")
    for layer in found.layers:
        table.add_row(
            layer.path or "(no layer)",
            layer.kind,
            "" if layer.shape is None else "×".join(map(str, layer.shape)),
            f"{layer.parameters:,}" if layer.parameters else "",
            _flops(layer.flops) if layer.flops else "",
            memory.shown(layer.activation_bytes) if layer.activation_bytes else "",
        )
    out = console()
    out.print(table)
    total = found.parameter_bytes + found.optimizer_bytes + found.activation_bytes
    frozen = f", {found.frozen:,} frozen" if found.frozen else ""
    out.print(
        f"parameters: {found.trained:,} trained{frozen}\n"
        f"a step: {_flops(found.step_flops)}, of it {_flops(found.forward_flops)} forward "
        "(matrix products and convolutions)\n"
        f"memory: {memory.shown(total)}: {memory.shown(found.parameter_bytes)} parameters, "
        f"{memory.shown(found.optimizer_bytes)} optimizer, "
        f"{memory.shown(found.activation_bytes)} outputs of layers",
    )
    return DONE


def find_batch_size(config: Mapping[str, object], limit: str | None, as_json: bool) -> int:
    """Shows the largest batch size whose training step fits a device's memory."""
    from jdlopt.train import memory
    from jdlopt.train.experiment import Experiment

    size = None if limit is None else memory.bytes_of(limit)
    found = memory.largest_batch(Experiment.build(config), size)
    if as_json:
        sizes = {str(size): needed for size, needed in found.sizes.items()}
        print_json({"batch_size": found.batch_size, "limit_bytes": found.limit, "bytes": sizes})
        return DONE
    from rich.table import Table

    table = Table(title=f"a training step on a device with {memory.shown(found.limit)}")
    for column in ("batch size", "memory", "share"):
        table.add_column(column, justify="right")
    for size, needed in found.sizes.items():
        style = "bold" if size == found.batch_size else "red" if needed > found.limit else ""
        table.add_row(f"{size:,}", memory.shown(needed), f"{needed / found.limit:.1%}", style=style)
    out = console()
    out.print(table)
    out.print(f"--config.data.batch_size={found.batch_size}")
    return DONE


def _flops(count: float) -> str:
    for unit, size in (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6), ("kFLOP", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f} FLOP"
