"""The coordinator's end of its worker processes: starting, sending, receiving, ending.

What a worker process is started with is a command, so that a launcher may come before it: with
`srun` the same process runs on another machine, and its pipes are passed on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import NamedTuple, Protocol

from jdlopt import memory
from jdlopt.config import folders_for_workers
from jdlopt.executor.messages import ANSWERS, Answer, MessageError, Request, decode, encode

ACCELERATORS = ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0", "/dev/kfd")
"""What an accelerator's driver leaves to be seen, without importing jax to ask it."""
ONE_CORE = "JDLOPT_ONE_CORE"
"""The environment variable that tells a worker to take a core that no other on its machine has."""
SIGNALLED = 128
"""A launcher whose process was killed ends with more than this, by the signal's number."""
LAUNCHER_SECONDS = 10.0
"""How long a launcher may take to end what it has started."""


def default_workers() -> int:
    """Returns one a core on a CPU; one in all where there is an accelerator, which it fills.

    ``JAX_PLATFORMS=cpu`` says that an accelerator is not to be used.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms != "cpu" and any(Path(path).exists() for path in ACCELERATORS):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


class Ended(NamedTuple):
    """A worker process has ended.

    Attributes:
      code: what it exited with; negative: the signal that killed it.
      said: a line that was no message, for which it was ended; else None.
      lost: how its machine was lost, where that is what ended it; it is not the worker's fault.
    """

    code: int
    said: str | None = None
    lost: str | None = None

    def __str__(self) -> str:
        """Says how it ended."""
        if self.lost is not None:
            return f"was lost with its machine ({self.lost})"
        if self.said is not None:
            return f"was ended, since it said what can't be read ({self.said})"
        if self.code >= 0:
            return f"ended with code {self.code}"
        try:
            return f"was killed by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"was killed by signal {-self.code}"


class Processes(Protocol):
    """Where workers live: `Workers` on this machine, others on several.

    Attributes:
      elsewhere: whether workers run on other machines: one may wait for a place, and is sent tasks
        once it has said that it is ready; and what one machine lacks another may have.
    """

    elsewhere: bool

    def slots(self) -> int:
        """Returns for how many workers there is room, where that may grow; else 0."""

    def start(self) -> int:
        """Starts a worker; returns its index."""

    def send(self, index: int, message: Request) -> None:
        """Sends a worker a request."""

    def receive(self, seconds: float) -> tuple[int, Answer | Ended] | None:
        """Returns the next answer and whose it is."""

    def end(self, index: int) -> None:
        """Ends a worker, whatever it does."""

    def close(self) -> None:
        """Ends all workers."""


@dataclass
class _Process:
    process: subprocess.Popen[str]
    listener: threading.Thread


class Workers:
    """Worker processes by their index, and the one queue that their answers arrive in.

    Args:
      program: the module that answers requests, see `jdlopt.executor.worker.serve`.
      one_core: whether each takes a core of its own.
      launcher: words before the command, which start it on another machine, pass its pipes and a
        SIGTERM on, and end as it ends.
      own: what workers have in their environment besides.

    Raises:
      UserError: a limit on memory is so low that no worker can start.
    """

    def __init__(
        self,
        program: str,
        one_core: bool,
        launcher: Sequence[str] = (),
        own: Mapping[str, str] | None = None,
    ):
        memory.check_limit()
        self.program, self.one_core = program, one_core
        self.launcher, self.own = launcher, own or {}
        self.elsewhere = bool(launcher)
        self._answers: Queue[tuple[int, Answer | Ended]] = Queue()
        self._processes: dict[int, _Process] = {}
        self._next = 0

    def slots(self) -> int:
        """Returns 0: there is room for as many as were asked for."""
        return 0

    def start(self) -> int:
        """Starts one more worker; returns its index."""
        index = self._next
        self._next += 1
        own = {**self.own, **folders_for_workers()}
        if self.one_core:
            own[ONE_CORE] = "1"
        process = subprocess.Popen(
            [*self.launcher, *command(self.program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment(own),
            start_new_session=True,  # Ctrl-C is the coordinator's, which then stops them
        )
        listener = threading.Thread(target=self._listen, args=(index, process), daemon=True)
        self._processes[index] = _Process(process, listener)
        listener.start()
        return index

    def _listen(self, index: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        said = None
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # it was killed within the line
            try:
                self._answers.put((index, decode(line, ANSWERS)))
            except MessageError as error:
                said = str(error)
                self._kill(process)  # what it was asked for would never be answered
                break
        process.stdout.close()
        code = process.wait()
        if self.launcher and code > SIGNALLED:
            code = SIGNALLED - code  # as a shell says it
        self._answers.put((index, Ended(code, said)))

    def send(self, index: int, message: Request) -> None:
        """Sends a worker a request; a dead one is noticed by its end, not here."""
        stdin = self._processes[index].process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            stdin.write(encode(message) + "\n")
            stdin.flush()

    def receive(self, seconds: float) -> tuple[int, Answer | Ended] | None:
        """Returns the next answer and whose it is, or None if there is none for a while."""
        try:
            return self._answers.get(timeout=seconds)
        except Empty:
            return None

    def end(self, index: int) -> None:
        """Ends a worker, whatever it does, and waits until its memory is free."""
        self._kill(self._processes[index].process)

    def _kill(self, process: subprocess.Popen[str]) -> None:
        if self.launcher:  # killed, it could pass nothing on
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LAUNCHER_SECONDS)
        process.kill()
        process.wait()

    def close(self, patience: float = 5.0) -> None:
        """Ends all processes."""
        for one in self._processes.values():
            if one.process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    one.process.stdin.close()
        for one in self._processes.values():
            try:
                one.process.wait(patience)
            except subprocess.TimeoutExpired:
                self._kill(one.process)
            one.listener.join(patience)
        self._processes.clear()


def command(program: str) -> list[str]:
    """Returns what starts a worker process of a program."""
    return [sys.executable, "-m", "jdlopt.executor", program]


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """Returns what a worker process has in its environment, on the machine that it starts on.

    Args:
      own: what it has besides what this process has.
    """
    # a file in the working directory must not stand in for a library's
    found = {**os.environ, **own, "PYTHONSAFEPATH": "1"}
    found |= memory.settings(found)
    if ONE_CORE in own:
        # several threads for one operation only get in the way of the other workers
        given = found.get("XLA_FLAGS", "")
        found["XLA_FLAGS"] = f"{given} --xla_cpu_multi_thread_eigen=false".strip()
    return found
