"""``plan``: what a config takes on machines that are not here, found in a process of its own."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jdlopt import memory, writing
from jdlopt.config import AnyConfig, folders_for_workers
from jdlopt.errors import ConfigError, DataError, UserError, WorkdirError, listing
from jdlopt.no_tpus import NO_TPUS
from jdlopt.plan.record import PLAN, Plan
from jdlopt.plan.request import encoded
from jdlopt.plan.topology import MISSING, STANDARD, Topology, parse

ERRORS: Mapping[str, type[UserError]] = {
    kind.__name__: kind for kind in (UserError, ConfigError, DataError, WorkdirError)
}
"""What a planning process says is wrong with what it was given, by its name."""


def plan(
    config: AnyConfig,
    topology: str,
    *,
    slices: int = 1,
    price: float | None = None,
    workdir: str | Path | None = None,
) -> Plan:
    """Returns what training a config takes on a machine that need not be here.

    The training step and the evaluation step, sharded as `jdlopt.fit` would, are compiled for the
    machine by a process of its own, so that nothing of this one's jax changes.

    Args:
      config: an experiment, as `jdlopt.load` or a plain dict gives it. Its data are opened.
      topology: a TPU and the size of a slice in chips, such as ``v5e:4x4``.
      slices: how many such slices.
      price: dollars for a chip-hour, for the cost of the whole training.
      workdir: where ``plan.json`` is written; None writes nothing.

    Raises:
      ConfigError, DataError: as for `jdlopt.fit`, with the mesh checked for the machine's devices.
      UserError: the machine is unknown, or can't be compiled for here.
    """
    if price is not None and not (math.isfinite(price) and price > 0):
        raise UserError(f"--price: must be dollars above 0 for a chip-hour, found {price}.")
    machine = parse(topology, slices)
    found = next(iter(plans([config], machine, price)))
    if isinstance(found, UserError):
        raise found
    if workdir is not None:
        save(found, Path(workdir))
    return found


def plans(
    configs: Sequence[AnyConfig], topology: Topology, price: float | None = None
) -> Iterator[Plan | UserError]:
    """Yields the plan of each config, or what is wrong with it; one process compiles all.

    Args:
      configs: experiments.
      topology: the machine.
      price: dollars for a chip-hour.

    Raises:
      UserError: the machine can't be compiled for here, or the process was killed, as it is where
        memory is short.
      RuntimeError: the process ended otherwise; what it said is on stderr.
    """
    if topology.chip.name not in STANDARD:
        raise UserError(
            f"--topology: there is no compiler for {topology.chip.name} here; it can only be "
            f"estimated. Compiled for: {listing(STANDARD)}."
        )
    if find_spec("libtpu") is None:
        raise UserError(MISSING)
    request = {
        "topology": topology.name,
        "slices": topology.slices,
        "price": price,
        "configs": [encoded(config) for config in configs],
    }
    with _process() as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        for _ in configs:
            line = process.stdout.readline()
            if not line.endswith("\n"):
                raise _ended(process.wait())
            yield _read(json.loads(line))


def _ended(code: int) -> Exception:
    """What is said of a planning process that ended without an answer."""
    if code == -signal.SIGKILL:
        return UserError(
            "--topology: the process that compiles was killed; most likely this machine has too "
            "little memory for it. Plan on a larger one, or scan the model's layers "
            "(model.scan_layers), which makes a smaller program."
        )
    return RuntimeError(f"the planning process ended with code {code}")


def save(found: Plan, workdir: Path) -> Path:
    """Writes ``plan.json`` into a directory, and returns its path."""
    writing.make_folder(workdir)
    writing.write_aside(workdir / PLAN, json.dumps(found.to_dict(), indent=1) + "\n")
    return workdir / PLAN


def _read(answer: Mapping[str, Any]) -> Plan | UserError:
    if "plan" in answer:
        return Plan.from_dict(answer["plan"])
    return ERRORS[answer["error"]](answer["message"])


def environment() -> dict[str, str]:
    """Returns the environment of a planning process: jax on the CPU, and the TPUs' compiler.

    ``XLA_FLAGS`` are this machine's; what is for the TPU's compiler is in ``LIBTPU_INIT_ARGS``.
    """
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return {
        **kept,
        **memory.settings(os.environ),
        **folders_for_workers(),
        "PYTHONSAFEPATH": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "0",  # what is kept there says nothing of memory
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two plans at the same time
        **NO_TPUS,
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


@contextmanager
def _process() -> Iterator[subprocess.Popen[str]]:
    """A process that compiles, ended with the block; it ends by itself without this one."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jdlopt.plan"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
