"""How a process keeps its memory, and what is said where there is too little of it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from jdlopt.errors import UserError

TUNABLES = "GLIBC_TUNABLES"
KEPT = ":".join(
    f"glibc.malloc.{name}"
    for name in ("hugetlb=1", "trim_threshold=1073741824", "mmap_threshold=1073741824")
)
"""Large pages for the heap, and no memory given back to the kernel below a gigabyte."""
FIRST_VERSION = (2, 35)
"""Of glibc, that knows `hugetlb`."""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_THRESHOLD = -1, -3
"""What glibc's ``mallopt`` calls the sizes from which freed memory goes back to the kernel, and the
number of its heaps."""


LEAST_ADDRESSES = 5 * 2**29
"""Bytes of addresses, most of them never used, below which a training does not start."""
EXHAUSTED = (
    "out of memory", "failed to allocate", "cannot allocate memory", "bad_alloc", "memoryerror",
    "unable to allocate", "failed to map segment", "can't start new thread",
)  # fmt: skip
"""What XLA, NumPy, the C++ library and the operating system call it, in lower case."""
LESS_MEMORY = (
    "There is too little memory. What a step takes falls with data.batch_size (`jdlopt train "
    "--find-batch-size` finds the largest that fits), with model.remat='full' and with "
    "optim.accumulate; that of a study with a smaller --width or fewer --workers."
)


def is_exhausted(error: BaseException | str | None) -> bool:
    """Says whether an error, or one that it was raised from, means that memory is short.

    Example:
      >>> is_exhausted(RuntimeError("INTERNAL: Out of memory allocating 8 bytes"))
      True
      >>> is_exhausted(KeyError("x"))
      False
    """
    if isinstance(error, str):
        text = error.lower()
        of_memory = "memory" in text or "alloc" in text  # or a disk's room is
        return ("resource_exhausted" in text and of_memory) or any(w in text for w in EXHAUSTED)
    while error is not None:
        no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
        if isinstance(error, MemoryError) or no_memory or is_exhausted(str(error)):
            return True
        error = error.__cause__
    return False


def check_limit() -> None:
    """Checks that a limit on this process's address space leaves jax's libraries room to start.

    With less they abort, or wait for a thread that can't be started.

    Raises:
      UserError: there is such a limit, and it is lower.
    """
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESSES:
        raise UserError(
            f"There is too little memory: a limit of this process (`ulimit -v`) is "
            f"{limit / 2**30:.1f} GiB of addresses, and jax alone takes more than "
            f"{LEAST_ADDRESSES / 2**30:.1f} GiB. Raise it."
        )


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns what a process that trains on a CPU should have in its environment besides.

    A compiled step takes its buffers anew from the C library each time, and the kernel maps and
    clears them again, page by page; of large pages there are few. Nothing where the user has set
    the C library up, where it is another one, or where the kernel has no large pages.

    Args:
      environment: of the process that starts it.
    """
    if _set_up(environment):
        return {}
    if not sys.platform.startswith("linux"):
        return {}
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        known = tuple(int(part) for part in version.split(".")[:2]) >= FIRST_VERSION
        if name != "glibc" or not known or "[never]" in HUGE_PAGES.read_text():
            return {}
    except (OSError, ValueError):
        return {}
    return {TUNABLES: KEPT}


def _set_up(environment: Mapping[str, str]) -> bool:
    """Whether the user has told the C library how to keep memory."""
    return any(name.startswith("MALLOC_") or name == TUNABLES for name in environment)


def start_again() -> None:
    """Replaces this process by itself with `settings`, where there are any; at its very start."""
    more = settings(os.environ)
    if more and sys.orig_argv:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **more})


def keep() -> bool:
    """Has the process keep the memory that it frees; returns whether it could be told to.

    A compiled step takes its buffers from malloc and gives them back, every time. By default glibc
    returns large ones to the kernel, which maps and clears each page again for the next step: for
    a small 2-D CNN on a CPU that was a third of the processor's time. Threads keep heaps of their
    own: with one for all, small steps wait for each other and take twice as long. Other C libraries
    are left as they are, and so is one that the user has set up (``MALLOC_…`` or
    ``GLIBC_TUNABLES``).
    """
    import ctypes

    if _set_up(os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # no glibc
        return False
    most = 2**30
    return all(mallopt(name, most) == 1 for name in (MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_THRESHOLD))
