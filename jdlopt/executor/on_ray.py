"""Workers on the machines of a Ray cluster: an actor each, wherever Ray has room for one.

Ray is asked for actors and passes text: messages are the JSON that they are everywhere. An actor
that finds no room waits for some, and so takes up a machine that joins. One whose machine is lost
has its trials trained elsewhere.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from queue import Empty, Queue
from types import ModuleType
from typing import NamedTuple, Protocol

from jdlopt.config import folders_for_workers
from jdlopt.errors import UserError
from jdlopt.executor.messages import (
    ANSWERS,
    ENVIRONMENT,
    STARTING,
    Answer,
    Failed,
    MessageError,
    Request,
    decode,
    encode,
)
from jdlopt.executor.place import Place
from jdlopt.executor.processes import ONE_CORE, Ended
from jdlopt.executor.relay import Relay, Said

INSTALL = "pip install 'jdlopt[ray]'"
LOOK_SECONDS = 2.0
"""How often the machines of the cluster are counted."""
AUTO = "auto"
"""What Ray calls the cluster that this machine is part of."""
ANSWER_SECONDS = 10.0
"""How long a cluster may take to be reached."""
CLOSING_SECONDS = 10.0
"""How long actors may take to end."""
GIVEN = ("JAX_", "XLA_", "JDLOPT_", "TFDS_", "LIBTPU_")
"""How the environment variables begin that workers have from their coordinator."""
SENDING, RECEIVING = "send", "receive"
"""Groups of calls that do not wait for each other: one is always waiting for what a worker says."""
SHORT_OF_MEMORY = "low on memory"
"""What Ray says of an actor that it has killed for its machine's memory."""


class _Call(Protocol):
    """A method of an actor, to be called."""

    def options(self, *, concurrency_group: str) -> _Call: ...

    def remote(self, *words: str) -> object: ...


class _Handle(Protocol):
    """An actor of `Relay`, as Ray hands it out."""

    send: _Call
    receive: _Call
    end: _Call


class _Actor(NamedTuple):
    handle: _Handle
    listener: threading.Thread


class RayWorkers:
    """Workers by their index, and the one queue that their answers arrive in.

    Args:
      program: the module that answers requests, see `jdlopt.executor.worker.serve`.
      place: the cluster, and what a worker takes of it.
      grows: whether there is one wherever there is room.
      own: what workers have in their environment.

    Raises:
      UserError: Ray is not installed, there is no such cluster, or none of its machines has room.
    """

    elsewhere = True

    def __init__(self, program: str, place: Place, grows: bool, own: Mapping[str, str]):
        self.program, self.place, self.grows, self.own = program, place, grows, own
        self._ray, self._connected = connect(place.address)
        self._answers: Queue[tuple[int, Answer | Ended]] = Queue()
        self._actors: dict[int, _Actor] = {}
        self._next = self._slots = 0
        self._counted = float("-inf")
        self._needs = self._need()
        if self.grows and not self.slots():
            self.close()
            needs = ", ".join(f"{name}={count:g}" for name, count in self._needs.items())
            raise UserError(
                f"--workers-on: no machine of the Ray cluster has {needs}, which a worker takes. "
                "Ask for less (ray,cpus=N), or for --workers=N where the cluster grows by itself."
            )

    def _need(self) -> dict[str, float]:
        """What a worker takes, as Ray names it; an accelerator each where there are some."""
        place = self.place
        machines = [one["Resources"] for one in self._ray.nodes() if one["Alive"]]
        gpus, tpus = place.gpus, place.tpus
        if gpus is None and tpus is None and os.environ.get("JAX_PLATFORMS") != "cpu":
            gpus = int(any(one.get("GPU", 0) for one in machines))
        found = {"CPU": place.cpus or 1, "GPU": gpus or 0, "TPU": tpus or 0}
        return {name: float(count) for name, count in found.items() if count}

    def slots(self) -> int:
        """Returns for how many workers there is room now, if more of it is to be used; else 0."""
        if self.grows and time.monotonic() - self._counted > LOOK_SECONDS:
            self._counted = time.monotonic()
            machines = [one["Resources"] for one in self._ray.nodes() if one["Alive"]]
            self._slots = sum(
                int(min(one.get(name, 0) // count for name, count in self._needs.items()))
                for one in machines
            )
        return self._slots

    def start(self) -> int:
        """Asks for one more worker; returns its index."""
        index = self._next
        self._next += 1
        own = {name: text for name, text in os.environ.items() if name.startswith(GIVEN)}
        own.pop(ONE_CORE, None)
        if self.place.one_core and "GPU" not in self._needs:
            own[ONE_CORE] = "1"
        actor = self._ray.remote(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs.get("GPU", 0),
            resources={"TPU": self._needs["TPU"]} if "TPU" in self._needs else None,
            max_restarts=0,
            concurrency_groups={SENDING: 1, RECEIVING: 1},
            scheduling_strategy="SPREAD",
        )(Relay)
        own |= {**self.own, **folders_for_workers()}
        handle = actor.remote(self.program, own, os.getcwd())
        listener = threading.Thread(target=self._listen, args=(index, handle), daemon=True)
        self._actors[index] = _Actor(handle, listener)
        listener.start()
        return index

    def _listen(self, index: int, handle: _Handle) -> None:
        try:
            ended = self._pass_on(index, handle)
        except Exception as error:  # Ray has many
            ended = self._ended(index, error)
        self._answers.put((index, ended))
        self._kill(handle)  # and its place is free

    def _pass_on(self, index: int, handle: _Handle) -> Ended:
        """Passes on what a worker says until its process ends."""
        while True:
            said = Said(
                *self._ray.get(handle.receive.options(concurrency_group=RECEIVING).remote())
            )
            if said.noise:
                sys.stderr.write(said.noise)
            for line in said.lines:
                try:
                    self._answers.put((index, decode(line, ANSWERS)))
                except MessageError as error:
                    return Ended(-signal.SIGKILL, str(error))
            if said.code is not None:
                return Ended(said.code)

    def _ended(self, index: int, error: Exception) -> Ended:
        """Returns how a worker ended that can't be asked any more."""
        text = " ".join(str(error).split())
        if getattr(error, "actor_init_failed", False):
            reason = f"a worker could not be started: {text[-300:]}"
            self._answers.put((index, Failed(STARTING, ENVIRONMENT, reason)))
        if SHORT_OF_MEMORY in text:
            return Ended(-signal.SIGKILL)
        return Ended(1, lost=text[-200:])

    def send(self, index: int, message: Request) -> None:
        """Sends a worker a request; a dead one is noticed by its end, not here."""
        self._actors[index].handle.send.options(concurrency_group=SENDING).remote(encode(message))

    def receive(self, seconds: float) -> tuple[int, Answer | Ended] | None:
        """Returns the next answer and whose it is, or None if there is none for a while."""
        try:
            return self._answers.get(timeout=seconds)
        except Empty:
            return None

    def end(self, index: int) -> None:
        """Ends a worker, whatever it does, and waits until its memory is free."""
        handle = self._actors[index].handle
        with contextlib.suppress(Exception):  # it has ended, or its machine is lost
            self._ray.get(
                handle.end.options(concurrency_group=SENDING).remote(), timeout=CLOSING_SECONDS
            )
        self._kill(handle)

    def _kill(self, handle: _Handle) -> None:
        with contextlib.suppress(Exception):  # it has ended
            self._ray.kill(handle)

    def close(self) -> None:
        """Ends all workers, and the connection to the cluster if it was made here."""
        for actor in self._actors.values():
            self._kill(actor.handle)
        until = time.monotonic() + CLOSING_SECONDS
        for actor in self._actors.values():  # none may ask once the connection is gone
            actor.listener.join(max(0.1, until - time.monotonic()))
        self._actors.clear()
        if self._connected:
            self._ray.shutdown()


def connect(address: str | None) -> tuple[ModuleType, bool]:
    """Returns the library, connected to a cluster, and whether that was done here.

    A program that is connected already stays so.

    Raises:
      UserError: it is not installed, or there is no such cluster.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError(f"--workers-on=ray: needs ray, which is not installed: {INSTALL}.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own parts
        ray = importlib.import_module("ray")
        if ray.is_initialized():
            return ray, False
        main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        where = address or os.environ.get("RAY_ADDRESS") or AUTO
        try:
            if where != AUTO:  # Ray itself would try for many minutes
                host, _, port = where.rpartition(":")
                socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
            ray.init(where, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            where = "this machine" if where == AUTO else where
            raise UserError(
                f"--workers-on=ray: no Ray cluster can be joined at {where}: "
                f"{' '.join(str(error).split()):.300}. Start one with `ray start --head` on a "
                "machine and `ray start --address=HOST:PORT` on the others, and run jdlopt on one "
                "of them."
            ) from error
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)  # a request to stop is the caller's
        vars(importlib.import_module("ray._private.worker"))["print_to_stdstream"] = _say
    return ray, True


def _say(said: Mapping[str, list[str]], **_: object) -> None:
    """Writes what Ray says of its machines on stderr; by itself it would write on stdout.

    Of a machine that is lost it shows the log as well, which lies on that machine anyway.
    """
    for text in said["lines"]:
        sys.stderr.write(f"ray: {text.strip().partition(chr(10))[0]:.300}\n")
