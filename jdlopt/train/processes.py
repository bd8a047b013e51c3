"""Runs of several processes: joining them, and making them agree on what only one can know."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from jdlopt.errors import UserError

COORDINATOR = "JDLOPT_COORDINATOR"
NUM_PROCESSES = "JDLOPT_NUM_PROCESSES"
PROCESS_ID = "JDLOPT_PROCESS_ID"


def join() -> None:
    """Joins the other processes of this run if the environment names a coordinator.

    Reads ``JDLOPT_COORDINATOR`` (host:port), ``JDLOPT_NUM_PROCESSES`` and ``JDLOPT_PROCESS_ID``,
    as the scripts of ``launch/`` set them. ``JDLOPT_COORDINATOR=auto`` leaves it to jax, which
    knows Cloud TPU and SLURM.

    Raises:
      UserError: a variable is missing or no number.
    """
    address = os.environ.get(COORDINATOR)
    if not address or jax.distributed.is_initialized():
        return
    # jax's own handler would swallow a SIGTERM that comes before training installs the run's
    jax.config.update("jax_enable_preemption_service", False)
    if address == "auto":
        jax.distributed.initialize()
        return
    try:
        count, index = (int(os.environ[name]) for name in (NUM_PROCESSES, PROCESS_ID))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{COORDINATOR} is set, so {NUM_PROCESSES} and {PROCESS_ID} must be numbers: {error}"
        ) from error
    jax.distributed.initialize(address, count, index)


def agree(value: float) -> float:
    """Returns the first process's value, on every process."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.broadcast_one_to_all(np.float32(value)))


def any_of(stop: bool, save: bool) -> tuple[bool, bool]:
    """Says whether any process was asked to stop, and whether the first one finds saving due."""
    if jax.process_count() == 1:
        return stop, save
    flags = np.asarray(multihost_utils.process_allgather(np.array([stop, save], np.int32)))
    return bool(flags[:, 0].any()), bool(flags[0, 1])


@contextlib.contextmanager
def first_claims(claim: Callable[[], contextlib.AbstractContextManager[None]]) -> Iterator[None]:
    """Lets the first process hold a directory for all of them."""
    with claim() if jax.process_index() == 0 else contextlib.nullcontext():
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("claimed")
        yield
