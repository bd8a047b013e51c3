"""Compiling a program ahead of time, with account of the seconds, and keeping it on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from jdlopt import writing

KEEP_PROGRAMS = "JDLOPT_KEEP_PROGRAMS"
"""The environment variable that turns the cache of compiled programs off with ``0``."""
CPU_LINES = ("model name", "flags", "Features", "CPU part")
"""The lines of ``/proc/cpuinfo`` that tell processors apart."""


def compile_options(quickly: bool = False, platform: str | None = None) -> dict[str, Any]:
    """Returns what every program is compiled with; ``quickly`` spares optimisation.

    XLA's CPU compiler removes the barriers around what is computed again in the backward pass, and
    then finds that it is known already: rematerialisation would save nothing. Barriers stay here.

    Args:
      quickly: for programs that run once.
      platform: of the program's devices; by default of those which are here.
    """
    options: dict[str, Any] = {"xla_backend_optimization_level": 0} if quickly else {}
    if (platform or jax.default_backend()) == "cpu":
        options["xla_disable_hlo_passes"] = "cse_barrier_expander"
    return options


class Compiler:
    """Compiles ahead of time and keeps account of the seconds that it took.

    Args:
      on_compiled: is given each program.
      told: is told the seconds that were spent, each time.
    """

    def __init__(
        self,
        on_compiled: Callable[[jax.stages.Compiled], None] | None = None,
        told: Callable[[float], None] | None = None,
    ) -> None:
        self._on_compiled, self._told = on_compiled, told
        self.seconds = 0.0
        self.programs = 0

    def __call__(self, lowered: jax.stages.Lowered, quickly: bool = False) -> jax.stages.Compiled:
        """Returns a lowered program compiled; ``quickly`` spares optimisation, for one-off runs."""
        return self.together([lowered], quickly)[0]

    def together(
        self, lowered: Sequence[jax.stages.Lowered], quickly: bool = False
    ) -> list[jax.stages.Compiled]:
        """Returns several programs compiled at the same time, each in a thread of its own."""
        start = time.perf_counter()
        options = compile_options(quickly)
        with ThreadPoolExecutor(len(lowered)) as pool:
            compiled = list(pool.map(lambda program: program.compile(options), lowered))
        spent = time.perf_counter() - start
        self.seconds += spent
        self.programs += len(compiled)
        if self._on_compiled is not None:
            for program in compiled:
                self._on_compiled(program)
        if self._told is not None:
            self._told(spent)
        return compiled


def keep_programs() -> None:
    """Keeps compiled programs in the user's cache, so that a config's next run starts at once.

    Hyperparameters are arguments of a program, so one kept program serves all their values. jax
    checks that a program fits what it is asked for; the folder's name adds the processor, which
    machines that share a home need not have in common. ``JAX_COMPILATION_CACHE_DIR`` names another
    folder; ``JDLOPT_KEEP_PROGRAMS=0`` keeps nothing, and neither does a user without a home.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.environ.get(KEEP_PROGRAMS) == "0":
        return
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = "".join(sorted({line for line in lines if line.startswith(CPU_LINES)}))
    except OSError:
        processor = platform.processor()
    name = hashlib.sha256(f"{platform.machine()} {processor}".encode()).hexdigest()[:12]
    cache = writing.user_cache()
    if cache is None:
        return
    folder = cache / "jdlopt" / "programs" / name
    with contextlib.suppress(OSError):  # no cache is no reason not to train
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
