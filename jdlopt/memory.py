"""How a process keeps its memory: what must be said to the C library before it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
KEPT = ":".join(
    f"glibc.malloc.{name}"
    for name in ("hugetlb=1", "trim_threshold=1073741824", "mmap_threshold=1073741824")
)
"""Large pages for the heap, and no memory given back to the kernel below a gigabyte."""
FIRST_VERSION = (2, 35)
"""Of glibc, that knows `hugetlb`."""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns what a process that trains on a CPU should have in its environment besides.

    A compiled step takes its buffers anew from the C library each time, and the kernel maps and
    clears them again, page by page; of large pages there are few. Nothing where the user has set
    the C library up, where it is another one, or where the kernel has no large pages.

    Args:
      environment: of the process that starts it.
    """
    if any(name.startswith("MALLOC_") or name == TUNABLES for name in environment):
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


def start_again() -> None:
    """Replaces this process by itself with `settings`, where there are any; at its very start."""
    more = settings(os.environ)
    if more and sys.orig_argv:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **more})
