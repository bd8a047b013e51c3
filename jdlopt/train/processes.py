"""Runs of several processes: joining them, and making them agree on what only one can know."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from jdlopt.errors import UserError
from jdlopt.train.watch import Peers

COORDINATOR = "JDLOPT_COORDINATOR"
NUM_PROCESSES = "JDLOPT_NUM_PROCESSES"
PROCESS_ID = "JDLOPT_PROCESS_ID"
HEARTBEAT_SECONDS = 60
"""How long jax lets a process be silent before it ends all others, whatever they do: it compiles,
reads data and waits for others before a run trains, and then `jdlopt.train.watch` looks closer."""
LOST = (
    "gloo", "nccl", "connection closed by peer", "connection reset", "broken pipe",
    "socket closed", "heartbeat", "coordination service", "unavailable:",
)  # fmt: skip
"""What errors of a computation say, in lower case, where another process is gone."""
_trainings = itertools.count()


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
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
        return
    try:
        count, index = (int(os.environ[name]) for name in (NUM_PROCESSES, PROCESS_ID))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{COORDINATOR} is set, so {NUM_PROCESSES} and {PROCESS_ID} must be numbers: {error}"
        ) from error
    jax.distributed.initialize(address, count, index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)


def peers() -> Peers | None:
    """Returns what tells, in one training, whether the other processes live; None without any."""
    if jax.process_count() == 1:
        return None
    from jax._src import distributed  # there is no public way to the coordinator's store

    client = distributed.global_state.client
    assert client is not None
    return Peers(client, jax.process_index(), f"jdlopt/alive/{next(_trainings)}")


def is_lost(error: BaseException) -> bool:
    """Says whether a computation has failed since another process of the run is gone."""
    text = str(error).lower()
    return jax.process_count() > 1 and any(words in text for words in LOST)


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
