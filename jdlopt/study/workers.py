"""The coordinator's end of its worker processes: start, tell, hear, end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from jdlopt import memory

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


def programs_are_kept() -> bool:
    """Says whether a program that one worker has compiled can be loaded by the others."""
    return os.environ.get("JDLOPT_KEEP_PROGRAMS") != "0"


@dataclass
class Worker:
    """One worker process.

    Attributes:
      index: its number among the workers.
      process: what the operating system knows of it.
      task: what it does now, or None.
      groups: the structures whose programs it has compiled, or is compiling.
      compiling: the structure that it compiles now, or None.
      ear: the thread that hears what it says.
    """

    index: int
    process: subprocess.Popen[str]
    task: Any = None
    groups: set[str] | None = None
    compiling: str | None = None
    ear: threading.Thread | None = None

    def tell(self, order: Mapping[str, Any]) -> None:
        """Hands it an order; a dead worker is noticed by its silence, not here."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass


class Workers:
    """All workers of a coordinator, and the one queue that their messages arrive in."""

    def __init__(self, count: int, one_core: bool):
        self.messages: Queue[tuple[int, dict[str, Any]]] = Queue()
        self.one_core = one_core
        self.all: dict[int, Worker] = {}
        self._next = 0
        for _ in range(count):
            self.start()

    def start(self) -> Worker:
        """Starts one more worker."""
        index = self._next
        self._next += 1
        environment = {**os.environ, **memory.settings(os.environ)}
        if self.one_core:
            # several threads for one operation only get in the way of the other workers
            given = environment.get("XLA_FLAGS", "")
            environment["XLA_FLAGS"] = f"{given} --xla_cpu_multi_thread_eigen=false".strip()
            environment["JDLOPT_CORE"] = str(index)
        process = subprocess.Popen(
            [sys.executable, "-m", "jdlopt.study.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # Ctrl-C is the coordinator's, which then tells them
        )
        worker = Worker(index, process, groups=set())
        self.all[index] = worker
        worker.ear = threading.Thread(target=self._listen, args=(worker,), daemon=True)
        worker.ear.start()
        return worker

    def _listen(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                continue  # it was killed within the line
            self.messages.put((worker.index, message))
        worker.process.stdout.close()
        code = worker.process.wait()
        self.messages.put((worker.index, {"event": "ended", "code": code}))

    def hear(self, seconds: float) -> tuple[int, dict[str, Any]] | None:
        """Returns the next message and whose it is, or None if there is none for a while."""
        try:
            return self.messages.get(timeout=seconds)
        except Empty:
            return None

    def stop(self) -> None:
        """Asks all to end what they do at the next evaluation."""
        for worker in self.all.values():
            worker.tell({"do": "stop"})

    def close(self, patience: float = 5.0) -> None:
        """Ends all processes."""
        for worker in self.all.values():
            if worker.process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    worker.process.stdin.close()
        for worker in self.all.values():
            try:
                worker.process.wait(patience)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            if worker.ear:
                worker.ear.join(patience)
        self.all.clear()
