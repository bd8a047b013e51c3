"""Runs of several processes: joining them, and making them agree on what only one can know."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int32

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
SAYING_SECONDS = 3600
"""How long processes wait for what another one has to say: it may read a large checkpoint first."""
MEETING_SECONDS = 1.0
"""About how often processes tell each other what only one of them knows, while they train."""
_trainings, _sayings = itertools.count(), itertools.count()

Row = Int32[np.ndarray, " numbers"]
Rows = Int32[np.ndarray, "processes numbers"]
Agree = Callable[[int, bool, bool], tuple[bool, bool]]
"""What `Agreement` is called as."""


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
    return Peers(_coordinator(), jax.process_index(), f"jdlopt/alive/{next(_trainings)}")


class _Coordinator(Protocol):
    """The part of jax's client of the process that coordinates a run which is used here."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = ...) -> None: ...

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]: ...

    def wait_at_barrier(self, name: str, timeout_in_ms: int) -> None: ...


def _coordinator() -> _Coordinator:
    from jax._src import distributed  # there is no public way to the coordinator's store

    client = distributed.global_state.client
    assert client is not None
    return client


def is_lost(error: BaseException) -> bool:
    """Says whether a computation has failed since another process of the run is gone."""
    text = str(error).lower()
    return jax.process_count() > 1 and any(words in text for words in LOST)


def agree(value: float) -> float:
    """Returns the first process's value, on every process."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.broadcast_one_to_all(np.float32(value)))


def all_say(what: object) -> list[object]:
    """Returns what each process says, in their order, on all of them; each has to call it.

    It goes through the process that coordinates them: no device takes part.

    Args:
      what: this process's word; what JSON can hold.
    """
    if jax.process_count() == 1:
        return [what]
    coordinator, key = _coordinator(), f"jdlopt/said/{next(_sayings)}"
    coordinator.key_value_set(f"{key}/{jax.process_index()}", json.dumps(what))
    coordinator.wait_at_barrier(key, 1000 * SAYING_SECONDS)
    said = {name.rpartition("/")[2]: text for name, text in coordinator.key_value_dir_get(key)}
    return [json.loads(said[str(index)]) for index in range(jax.process_count())]


class Agreement:
    """What only some process of a training knows, made known to all of them at the same step.

    Dispatches are the same in all processes. At the end of some, about one a second, each sends
    what it knows; that is read at the next of these moments, when it has long arrived, so that
    the devices wait for nothing. How many steps lie between two moments is the first process's to
    say: no two have the same clock.

    Args:
      send: sends a row of each process to all; what it returns gives all rows.
      now: the clock, in seconds.
    """

    def __init__(
        self, send: Callable[[Row], Callable[[], Rows]], now: Callable[[], float] = time.monotonic
    ):
        self._send, self._now = send, now
        self._read: Callable[[], Rows] | None = None
        self._next, self._apart = 0, 1
        self._last: tuple[int, float] | None = None

    def __call__(self, step: int, stop: bool, save: bool) -> tuple[bool, bool]:
        """Says whether any process was asked to stop, and whether the first one asked for a save.

        Args:
          step: updates dispatched so far.
          stop, save: whether this process knows of such a request now.
        """
        if step < self._next:
            return False, False
        stops = saves = False
        apart = 1
        if self._read is not None:
            rows = self._read()
            stops, saves, apart = bool(rows[:, 0].any()), bool(rows[0, 1]), int(rows[0, 2])
        if stops:
            return stops, saves
        row = np.array([stop, save and not saves, self._steps_apart(step)], np.int32)
        self._read, self._next = self._send(row), step + apart
        return stops, saves

    def _steps_apart(self, step: int) -> int:
        """How many steps take about as long as two moments shall be apart.

        At most twice as many as it was before: the first steps are only handed over.
        """
        now = self._now()
        if self._last is not None:
            steps, seconds = step - self._last[0], now - self._last[1]
            asked = steps * MEETING_SECONDS / max(seconds, 1e-9)
            self._apart = int(np.clip(asked, 1, 2 * self._apart))
        self._last = step, now
        return self._apart


def agreement() -> Agree:
    """Returns what makes the processes of one training act on requests at the same step."""
    if jax.process_count() == 1:
        return lambda step, stop, save: (stop, save)
    firsts = [jax.local_devices(process_index=index)[0] for index in range(jax.process_count())]
    mesh = Mesh(np.array(firsts), ("processes",))
    gather = jax.jit(lambda rows: rows, out_shardings=NamedSharding(mesh, P()))

    def send(row: Row) -> Callable[[], Rows]:
        split = NamedSharding(mesh, P("processes"))
        rows = gather(jax.make_array_from_process_local_data(split, row[None]))
        return lambda: np.asarray(rows.addressable_data(0))

    return Agreement(send)


@contextlib.contextmanager
def first_claims(claim: Callable[[], contextlib.AbstractContextManager[None]]) -> Iterator[None]:
    """Lets the first process hold a directory for all of them."""
    with claim() if jax.process_index() == 0 else contextlib.nullcontext():
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("claimed")
        yield
