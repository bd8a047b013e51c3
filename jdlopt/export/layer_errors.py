"""What rounding a model changes, layer by layer: where an 8-bit file loses what it loses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jdlopt.export.int8 import WITH_WEIGHTS

if TYPE_CHECKING:
    from onnx import ModelProto


def layer_errors(
    whole: ModelProto, rounded: ModelProto, given: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Returns how far each layer's output is from that of the float model.

    Args:
      whole: the float model that the other was made of, so that tensors have the same names.
      rounded: in 8 bits.
      given: some examples by input's name.

    Returns:
      By the name of a tensor that a layer with weights gives, in the order of the graph: the root
      mean square of the difference, as a share of the root mean square of the output.
    """
    there = {name for node in rounded.graph.node for name in node.output}
    names = [
        name
        for node in whole.graph.node
        if node.op_type in WITH_WEIGHTS
        for name in node.output
        if name in there
    ]
    if not names:
        return {}
    expected, found = (_values(model, names, given) for model in (whole, rounded))
    return {
        name: _share(one, other)
        for name, one, other in zip(names, expected, found, strict=True)
        if one.shape == other.shape
    }


def _values(
    model: ModelProto, names: list[str], given: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Returns tensors inside a model that it computes for some examples."""
    import onnxruntime
    from onnx import ModelProto, ValueInfoProto

    open_one = ModelProto()
    open_one.CopyFrom(model)
    own = {one.name for one in open_one.graph.output}
    open_one.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in own)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        open_one.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(one) for one in session.run(names, dict(given))]


def _share(expected: np.ndarray, found: np.ndarray) -> float:
    size = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    wrong = float(np.sqrt(np.mean(np.square(expected - found, dtype=np.float64))))
    return wrong / size if size else wrong
