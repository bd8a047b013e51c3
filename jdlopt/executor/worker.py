"""A worker process: it does what its coordinator asks for, one request after the other.

Requests come as lines of stdin, answers go as lines to what was stdout; everything that libraries
print goes to stderr. Without its coordinator it ends.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import os
import platform
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import IO, NoReturn

from jdlopt import memory
from jdlopt.config import make_importable_again
from jdlopt.errors import DivergedError, UserError, show_warning
from jdlopt.executor.messages import (
    DEFECT,
    DIVERGED,
    ENVIRONMENT,
    NO_MEMORY,
    REQUESTS,
    STARTING,
    WRONG_INPUT,
    Answer,
    Failed,
    MessageError,
    Ready,
    Request,
    Stop,
    decode,
    encode,
)
from jdlopt.executor.processes import ONE_CORE
from jdlopt.executor.shared import SEES, check_seen
from jdlopt.train import disk

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
"""The cores that this process may use."""
MOST_SHARING = 64
"""Workers on one core at most."""
_HELD: list[socket.socket] = []


class Link:
    """A worker's end of the pipes to its coordinator.

    Args:
      out: where answers go.
    """

    def __init__(self, out: IO[str]):
        self._out, self._stopped = out, -1

    def send(self, message: Answer) -> None:
        """Sends an answer; without a coordinator the process ends."""
        try:
            self._out.write(encode(message) + "\n")
        except BrokenPipeError:
            os._exit(1)  # nobody will receive the rest

    def stop(self, task: int) -> None:
        """Notes that all tasks up to a number are to end."""
        self._stopped = max(self._stopped, task)

    def stopped(self, task: int) -> bool:
        """Says whether a task is to end at its next evaluation."""
        return task <= self._stopped


Handler = Callable[[Request], Answer]
"""What answers requests. A worker's module has a function ``start(link)`` that returns one."""


def serve(module: str) -> NoReturn:
    """Serves one coordinator until its end of the pipe closes.

    Args:
      module: where `Handler` comes from; it is imported once the process has its core.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    link, requests = Link(out), SimpleQueue[Request]()

    def listen() -> None:
        for line in sys.stdin:
            try:
                request = decode(line, REQUESTS)
            except MessageError:
                break  # the coordinator was killed within the line
            if isinstance(request, Stop):
                link.stop(request.task)
            else:
                requests.put(request)
        os._exit(0)  # the coordinator is gone; another may start where its checkpoints are

    threading.Thread(target=listen, daemon=True).start()
    warnings.showwarning = show_warning
    if ONE_CORE in os.environ:
        pin(_own_core())  # before jax counts the cores for its threads
    try:
        handle, ready = _start(module, link)
    except Exception as error:
        failure = _failed(STARTING, error)
        link.send(failure)
        if SEES in os.environ and failure.kind != NO_MEMORY:
            threading.Event().wait()  # else another is put here, which fails as well
        os._exit(1)
    link.send(ready)
    while True:
        link.send(answer(handle, requests.get()))


def _start(module: str, link: Link) -> tuple[Handler, Ready]:
    """Imports what answers requests, and jax with its devices."""
    check_seen(os.environ)
    import jax

    from jdlopt.train.compiling import keep_programs

    keep_programs()
    memory.keep()
    make_importable_again(os.environ)
    handle: Handler = importlib.import_module(module).start(link)
    devices = jax.local_devices()
    names = [str(device) for device in devices]
    return handle, Ready(devices[0].platform, names, platform.node())


def answer(handle: Handler, request: Request) -> Answer:
    """Returns what a request comes to, a failure included."""
    try:
        return handle(request)
    except Exception as error:
        return _failed(request.task, error)


def _failed(task: int, error: BaseException) -> Failed:
    kind = failure_kind(error)
    if kind == NO_MEMORY:  # not what somebody made of it
        error = [one for one in _causes(error) if memory.is_exhausted(one)][-1]
    plain = isinstance(error, UserError | DivergedError)
    text = str(error) if plain else f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error)) if kind == DEFECT else None
    return Failed(task, kind, text.strip(), trace, platform.node())


def failure_kind(error: BaseException) -> str:
    """Returns whose fault an error is.

    Example:
      >>> failure_kind(OSError(28, "No space left on device")), failure_kind(MemoryError())
      ('environment', 'out of memory')
    """
    if isinstance(error, DivergedError):
        return DIVERGED
    if memory.is_exhausted(error):
        return NO_MEMORY
    if any(isinstance(one, OSError) or disk.is_full(one) for one in _causes(error)):
        return ENVIRONMENT  # also a disk in a library's words
    return WRONG_INPUT if isinstance(error, UserError) else DEFECT


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


# --- cores ----------------------------------------------------------------------------------------


@functools.cache
def _own_core() -> int:
    """Takes a core of this machine that no other worker has, as long as this process lives.

    Where each has one, the fewest share it. A name in Linux's abstract namespace is bound by one
    process at a time, and free again however that ends.
    """
    for sharing, core in itertools.product(range(MOST_SHARING), range(len(CORES))):
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            own.bind(f"\0jdlopt-core-{CORES[core]}-{sharing}")
        except OSError:
            own.close()
        else:
            _HELD.append(own)
            return core
    return 0


def pin(core: int | None) -> None:
    """Keeps all threads of this process on one core; None lets all but the caller go anywhere.

    Workers that train take a core each; one that compiles takes what it can get. The caller stays,
    since XLA cuts a program's operations into as many parts as the compiling thread may use cores:
    on one core, parts only get in each other's way.
    """
    threads = Path("/proc/self/task")
    if not threads.is_dir():
        return
    cores = set(CORES) if core is None else {CORES[core % len(CORES)]}
    for thread in threads.iterdir():
        if core is None and int(thread.name) == threading.get_native_id():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile, or the core is not ours
            os.sched_setaffinity(int(thread.name), cores)


@contextlib.contextmanager
def all_cores() -> Iterator[None]:
    """Lets a worker use every core for a while: to compile."""
    if ONE_CORE not in os.environ:
        yield
        return
    pin(None)
    try:
        yield
    finally:
        pin(_own_core())
