"""What predictions are timed in: compiled by XLA, or as files in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jdlopt.compress.entry import Given
from jdlopt.compress.options import ONNX
from jdlopt.data.named import by_name
from jdlopt.errors import UserError
from jdlopt.evidence.costs import COMPILED, Programs, compiled
from jdlopt.export import int8, onnx
from jdlopt.export.extras import need
from jdlopt.export.opened import computing_in_float32
from jdlopt.export.program import make_program
from jdlopt.export.rounded import rounded
from jdlopt.train import inference
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights


def runtime_name(runtime: str) -> str:
    """Returns what a runtime is called, with its version."""
    if runtime != ONNX:
        return COMPILED
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def check(runtime: str, given: Given) -> None:
    """Checks that predictions of a run can be timed in a runtime.

    Raises:
      UserError: a library is missing, or the model can't be written for it.
    """
    if runtime != ONNX:
        return
    try:
        need("export", "jax2onnx", "onnx", "onnxruntime")
        programs(runtime, given.experiment, given.weights, (1,))
    except UserError as error:
        raise UserError(f"--runtime={ONNX}: {error}") from error


def programs(
    runtime: str, experiment: Experiment, weights: Weights, sizes: Sequence[int]
) -> Programs:
    """Returns what predicts for batches of several sizes.

    Args:
      runtime: ``jit`` or ``onnx``.
      experiment: with its data.
      weights: its own.
      sizes: of the batches.

    Raises:
      UserError: the model can't be written as ONNX.
    """
    if runtime != ONNX:
        return compiled(experiment, weights, sizes)
    content, form = _file(experiment, weights)
    session = onnx.session(content)
    feeds = {size: dict(by_name(inference.examples(experiment, size))) for size in sizes}
    return Programs({size: partial(session.run, None, feed) for size, feed in feeds.items()}, form)


def _file(experiment: Experiment, weights: Weights) -> tuple[bytes, str]:
    """A model as ONNX, as `jdlopt.export.formats` writes it; in 8 bits if it is quantized."""
    plain, made = rounded(computing_in_float32(experiment), weights)
    program = make_program(plain, made)
    if not experiment.config.model.quantize.on:
        return onnx.convert(program).SerializeToString(), "float32 ONNX"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        told = int8.write(program, path, plain)
        return path.read_bytes(), f"int8 ONNX, {told['kept']}"
