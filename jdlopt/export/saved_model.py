"""TensorFlow's SavedModel: a program for TensorFlow Serving and whatever else loads one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jdlopt import writing
from jdlopt.errors import UserError
from jdlopt.export.extras import need, quiet
from jdlopt.export.plain import erf, plain
from jdlopt.export.program import Program
from jdlopt.export.stablehlo import PLATFORMS

SIGNATURE = "serving_default"
"""What TensorFlow Serving asks for by default."""


def write(program: Program, path: Path) -> dict[str, Any]:
    """Writes a program as a SavedModel, whose one operation is StableHLO for CPUs, GPUs and TPUs.

    TensorFlow's own StableHLO may be older than JAX's: it has plain operations alone.

    Args:
      program: what it computes.
      path: the folder; what is there is replaced once the new one is whole.

    Returns:
      ``signature``, its name, and ``tensorflow``, the version that wrote it.

    Raises:
      UserError: TensorFlow is not installed.
      OSError: the folder can't be written.
    """
    need("tf", "tensorflow")
    import tensorflow as tf
    from jax.experimental import jax2tf

    kinds = program.inputs.items()
    converted = jax2tf.convert(
        plain(program.function, instead={"erf": erf}),
        polymorphic_shapes=[f"(b, {', '.join(map(str, one.shape))})" for _, one in kinds],
        native_serialization_platforms=PLATFORMS,
        with_gradient=False,
    )
    module = tf.Module()
    module.function = tf.function(
        lambda *inputs: converted(*inputs),
        autograph=False,
        input_signature=[
            tf.TensorSpec([None, *one.shape], one.dtype, name=name) for name, one in kinds
        ],
    )
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with quiet("tensorflow", "absl"):
            tf.saved_model.save(module, str(beside), signatures={SIGNATURE: module.function})
        os.chmod(beside, 0o755)
        writing.settle_all(beside)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        beside.replace(path)
        writing.settle(path.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return {"signature": SIGNATURE, "tensorflow": tf.__version__}


def load(path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Returns the function of a SavedModel in TensorFlow, of NumPy arrays in the inputs' order.

    Raises:
      UserError: TensorFlow is not installed, or can't read the folder.
    """
    need("tf", "tensorflow")
    import tensorflow as tf

    try:
        with quiet("tensorflow", "absl"):
            loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"{path}: TensorFlow can't read it: {str(error)[:200]}") from error

    def call(*inputs: np.ndarray) -> dict[str, np.ndarray]:
        found = loaded.function(*map(tf.constant, inputs))
        return {name: one.numpy() for name, one in found.items()}

    return call
