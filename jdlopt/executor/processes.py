"""The coordinator's end of its worker processes: starting, sending, receiving, ending."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import NamedTuple, Protocol

from jdlopt import memory
from jdlopt.config import folders_for_workers
from jdlopt.executor.messages import ANSWERS, Answer, MessageError, Request, decode, encode

ACCELERATORS = ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0", "/dev/kfd")
"""What an accelerator's driver leaves to be seen, without importing jax to ask it."""


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
    """

    code: int
    said: str | None = None

    def __str__(self) -> str:
        """Says how it ended."""
        if self.said is not None:
            return f"was ended, since it said what can't be read ({self.said})"
        if self.code >= 0:
            return f"ended with code {self.code}"
        try:
            return f"was killed by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"was killed by signal {-self.code}"


class Processes(Protocol):
    """Where workers live: `Workers`."""

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
    core: int
    listener: threading.Thread | None = None

    @property
    def lives(self) -> bool:
        return self.process.poll() is None


class Workers:
    """Worker processes by their index, and the one queue that their answers arrive in.

    Args:
      program: the module that answers requests, see `jdlopt.executor.worker.serve`.
      one_core: whether each takes a core of its own.

    Raises:
      UserError: a limit on memory is so low that no worker can start.
    """

    def __init__(self, program: str, one_core: bool):
        memory.check_limit()
        self.program, self.one_core = program, one_core
        self._answers: Queue[tuple[int, Answer | Ended]] = Queue()
        self._processes: dict[int, _Process] = {}
        self._next = 0

    def start(self) -> int:
        """Starts one more worker; returns its index."""
        index, living = self._next, [one for one in self._processes.values() if one.lives]
        self._next += 1
        core = min(set(range(len(living) + 1)) - {one.core for one in living})
        # a file in the working directory must not stand in for a library's
        safe = {"PYTHONSAFEPATH": "1", **folders_for_workers()}
        environment = {**os.environ, **memory.settings(os.environ), **safe}
        if self.one_core:
            # several threads for one operation only get in the way of the other workers
            given = environment.get("XLA_FLAGS", "")
            environment["XLA_FLAGS"] = f"{given} --xla_cpu_multi_thread_eigen=false".strip()
            environment["JDLOPT_CORE"] = str(core)
        process = subprocess.Popen(
            [sys.executable, "-m", "jdlopt.executor", self.program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # Ctrl-C is the coordinator's, which then stops them
        )
        listener = threading.Thread(target=self._listen, args=(index, process), daemon=True)
        self._processes[index] = _Process(process, core, listener)
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
                process.kill()  # what it was asked for would never be answered
                break
        process.stdout.close()
        self._answers.put((index, Ended(process.wait(), said)))

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
        process = self._processes[index].process
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
                one.process.kill()
                one.process.wait()
            if one.listener:
                one.listener.join(patience)
        self._processes.clear()
