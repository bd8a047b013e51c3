"""StableHLO: what XLA compiles, for CPUs, GPUs and TPUs in one file, for batches of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from jdlopt import writing
from jdlopt.errors import UserError
from jdlopt.export.program import Program

PLATFORMS = ("cpu", "cuda", "tpu")
"""What one file is lowered for; each has the algorithms that are fast on it."""


def write(program: Program, path: Path) -> dict[str, Any]:
    """Writes a program with `jax.export`; ``jax.export.deserialize`` reads it.

    Args:
      program: what it computes.
      path: the file; what is there is replaced.

    Returns:
      The ``platforms``, and ``calling_convention``, the version of the format.

    Raises:
      OSError: the file can't be written.
    """
    made = export.export(jax.jit(program.function), platforms=PLATFORMS)(*program.symbolic())
    with writing.aside(path, binary=True) as file:
        file.write(made.serialize())
    return {
        "platforms": list(made.platforms),
        "calling_convention": made.calling_convention_version,
    }


def load(path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Returns the function of a file, of NumPy arrays.

    Raises:
      UserError: it can't be read.
    """
    try:
        found = export.deserialize(bytearray(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, IndexError, AssertionError) as error:
        raise UserError(f"{path}: can't be read as StableHLO: {str(error)[:200]}") from error
    call = jax.jit(found.call)
    return lambda *inputs: {name: np.asarray(one) for name, one in call(*inputs).items()}
