"""ONNX: a program as a graph that ONNX Runtime and others run, for batches of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jdlopt import writing
from jdlopt.errors import UserError
from jdlopt.export import graph
from jdlopt.export.extras import need, quiet
from jdlopt.export.lowerings import known_operations
from jdlopt.export.plain import operations, plain
from jdlopt.export.program import BATCH, Program

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

OPSET = 20
"""The version of ONNX's operations: all that is used, and read by runtimes of the last years."""


def write(program: Program, path: Path) -> dict[str, Any]:
    """Writes a program as an ONNX file.

    Args:
      program: what it computes.
      path: the file; what is there is replaced.

    Returns:
      ``opset``, and how many ``operations`` of each kind the graph has.

    Raises:
      UserError: jax2onnx is not installed, or knows no way to write an operation.
      OSError: the file can't be written.
    """
    model = convert(program)
    with writing.aside(path, binary=True) as file:
        file.write(model.SerializeToString())
    return {"opset": OPSET, "operations": dict(graph.operations(model.graph).most_common())}


def convert(program: Program) -> ModelProto:
    """Returns a program as an ONNX model, whose size of a batch is called ``B``.

    Raises:
      UserError: jax2onnx is not installed, or knows no way to write an operation.
    """
    need("export", "jax2onnx", "onnx")
    with quiet("jax2onnx", "onnx_ir"):
        from jax2onnx import to_onnx

        function = plain(program.function)
        with known_operations() as known:
            traced = jax.make_jaxpr(function)(*program.symbolic())
            for name, layer in operations(traced.jaxpr):
                if name not in known:
                    raise _unlowered(name, layer)
            shapes = [
                jax.ShapeDtypeStruct((BATCH, *one.shape), np.dtype(one.dtype))
                for one in program.inputs.values()
            ]
            try:
                model = to_onnx(
                    function,
                    shapes,
                    model_name="jdlopt",
                    opset=OPSET,
                    input_names=list(program.inputs),
                    output_names=list(program.outputs),
                )
            except (NotImplementedError, TypeError, ValueError) as error:
                raise _unlowered(*_at_work(error)) from error
    return graph.simplified(model)


def _unlowered(name: str, layer: str, why: str = "") -> UserError:
    where = f" of {layer}" if layer else ""
    return UserError(
        f"--format=onnx: {name}{where} can't be written as ONNX{why and f' ({why})'}. "
        "--format=stablehlo writes every model."
    )


def _at_work(error: BaseException) -> tuple[str, str, str]:
    """Returns the primitive that was being lowered when an error came up, its layer, and why."""
    name, layer, trace = "an operation", "", error.__traceback__
    while trace is not None:
        equation = trace.tb_frame.f_locals.get("eqn")
        if equation is not None and hasattr(equation, "primitive"):
            name, layer = equation.primitive.name, str(equation.source_info.name_stack)
        trace = trace.tb_next
    return name, layer, next(iter(str(error).splitlines()), "")[:120]


def load(path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Returns the function of a file in ONNX Runtime on the CPU, of NumPy arrays.

    Raises:
      UserError: ONNX Runtime is not installed, or can't read the file.
    """
    try:
        found = session(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error}") from error
    given = [one.name for one in found.get_inputs()]
    made = [one.name for one in found.get_outputs()]

    def call(*inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(made, found.run(None, dict(zip(given, inputs, strict=True)))))

    return call


def session(file: bytes, threads: int = 0) -> InferenceSession:
    """Returns a file's content in ONNX Runtime on the CPU.

    Args:
      file: the content.
      threads: that one operation uses; 0: as many as there are cores.

    Raises:
      UserError: ONNX Runtime is not installed, or can't run the file.
    """
    need("export", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base of their own
        raise UserError(f"ONNX Runtime can't run the model: {str(error)[:200]}") from error
