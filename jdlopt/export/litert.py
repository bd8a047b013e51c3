"""LiteRT (TensorFlow Lite): a program for phones and small devices, made without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import export

from jdlopt import writing
from jdlopt.errors import UserError
from jdlopt.export.extras import need
from jdlopt.export.plain import plain
from jdlopt.export.program import Program

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_STEPS = 512
"""Steps of a loop that are written out: LiteRT's loops can't hold all that a step needs."""
SIGNATURE = "serving_default"
"""What the one signature of a file is called."""


def write(program: Program, path: Path) -> dict[str, Any]:
    """Writes a program as a ``.tflite`` file, for batches of any size where LiteRT can.

    Args:
      program: what it computes.
      path: the file; what is there is replaced.

    Returns:
      ``batch``: the only size of a batch that it takes, or None for any.

    Raises:
      UserError: litert-converter is not installed, or can't write the model.
      OSError: the file can't be written.
    """
    need("litert", "litert_converter", "ai_edge_litert")
    batch: int | None = None
    try:
        made = _converted(program, program.symbolic())
    except ValueError:  # some operations have no form for sizes that are not known
        batch = 1
        try:
            made = _converted(program, program.shapes(batch))
        except ValueError as error:
            raise UserError(
                "--format=litert: the model can't be written: litert-converter says "
                f"{' '.join(str(error).split())[:200]}. --format=onnx and --format=stablehlo may."
            ) from error
    with writing.aside(path, binary=True) as file:
        file.write(made)
    return {"batch": batch}


def _converted(program: Program, shapes: Sequence[jax.ShapeDtypeStruct]) -> bytes:
    from litert_converter import converter_api_ext as converter
    from litert_converter.mlir import ir, passmanager

    traced = export.export(
        jax.jit(plain(program.function, unrolled=MOST_STEPS)), platforms=("cpu",)
    )(*shapes)
    with ir.Context() as context:
        converter.prepare_mlir_context(context)
        module = ir.Module.parse(str(traced.mlir_module()))
        # results are a dict's values, in the order of its sorted keys
        names = list(program.inputs), sorted(program.outputs)
        converter.set_signature(module.operation, SIGNATURE, *names)
        converter.run_convert_to_tfl_passes(
            module, passmanager.PassManager(), converter.ConvertToTFLConfig()
        )
        found: bytes = converter.export_flatbuffer_to_bytes(module.operation)
    return found


def load(path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Returns the function of a file in LiteRT's interpreter, of NumPy arrays.

    A file for batches of one is asked for one example after the other.

    Raises:
      UserError: LiteRT is not installed, or can't read the file.
    """
    need("litert", "ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=path.read_bytes())
        run = interpreter.get_signature_runner(SIGNATURE)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: LiteRT can't read it: {str(error)[:200]}") from error
    details = run.get_input_details()
    names = list(details)
    fixed = all(one["shape_signature"][0] == 1 for one in details.values())

    def call(*inputs: np.ndarray) -> dict[str, np.ndarray]:
        given = dict(zip(names, inputs, strict=True))
        if not fixed:
            return dict(run(**given))
        parts = [
            run(**{name: values[row : row + 1] for name, values in given.items()})
            for row in range(len(inputs[0]))
        ]
        return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}

    return call
