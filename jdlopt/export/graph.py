"""An ONNX graph made simpler: known shapes, fewer broadcasts, folded weights, no dead nodes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from jdlopt.export.fusing import (
    fold_bytes,
    fold_into_weights,
    name_means,
    name_products,
    name_softmax,
    transposed_constants,
)
from jdlopt.export.nodes import Nodes, graphs_in, read_in

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

BROADCASTS = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Where", "Equal", "Less", "LessOrEqual",
        "Greater", "GreaterOrEqual", "And", "Or",
    }
)  # fmt: skip
"""Operations whose operands need not have one shape."""

Shapes = dict[str, tuple[int | str, ...]]


def simplified(model: ModelProto) -> ModelProto:
    """Returns a model that computes the same by fewer operations.

    - A reshape to a shape with one unknown size gets a constant shape.
    - What is broadcast to be added to a larger array is left to the addition.
    - Biases and batch norm become part of the weights before them.
    - What softmax, a mean over space and a dense layer over several axes consist of becomes one
      node each, a maximum with 0 a ReLU, and scaled bytes one product and one sum.
    - The shapes of values between inputs and outputs are left out: some that jax2onnx writes are
      wrong, ONNX Runtime then refuses the model, and it finds them by itself.

    Args:
      model: a model as jax2onnx makes it, whose shapes of values are read.
    """
    import onnx

    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    for node, values in list(transposed_constants(graph)):
        Nodes(graph).constant(values, node.output[0])
        graph.node.remove(node)
    _fix_reshapes(graph, _shapes(graph))
    _infer_shapes(found)
    _leave_to_broadcasting(graph, _shapes(graph))
    name_softmax(graph)
    name_products(graph)
    name_means(graph, _shapes(graph))
    fold_bytes(graph)
    fold_into_weights(graph)
    _name_relus(graph)
    _leave_out_dead(graph)
    del graph.value_info[:]
    return found


def _shapes(graph: GraphProto) -> Shapes:
    """Returns the shapes that a graph says of its values."""
    found: Shapes = {}
    for one in (*graph.value_info, *graph.input, *graph.output):
        if one.type.tensor_type.HasField("shape"):
            dims = one.type.tensor_type.shape.dim
            found[one.name] = tuple(dim.dim_param or dim.dim_value for dim in dims)
    return found | {one.name: tuple(one.dims) for one in graph.initializer}


def _infer_shapes(model: ModelProto) -> None:
    """Writes the shapes that follow from those of the inputs in place of those that it says."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    made = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    known = {name for name, shape in _shapes(made).items() if all(shape)}
    better = [one for one in made.value_info if one.name in known]
    others = [one for one in model.graph.value_info if one.name not in known]
    del model.graph.value_info[:]
    model.graph.value_info.extend([*better, *others])


def _fix_reshapes(graph: GraphProto, shapes: Shapes) -> None:
    nodes = Nodes(graph)
    for node in graph.node:
        sizes = shapes.get(node.output[0], ())
        unknown = [size for size in sizes if not isinstance(size, int)]
        if node.op_type != "Reshape" or len(unknown) > 1 or 0 in sizes or not sizes:
            continue
        wanted = [size if isinstance(size, int) else -1 for size in sizes]
        node.input[1] = nodes.constant(np.array(wanted, np.int64), f"{node.output[0]}_shape")


def _leave_to_broadcasting(graph: GraphProto, shapes: Shapes) -> None:
    """Takes out what only repeats values along an axis, where the reader does so itself."""
    nodes = Nodes(graph)
    expanded = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Expand"
        and node.output[0] not in nodes.kept
        and len(shapes.get(node.input[0], ())) == len(shapes.get(node.output[0], (0,)))
    }
    for name, before in expanded.items():
        using = nodes.readers.get(name, [])
        if all(
            one.op_type in BROADCASTS
            and any(
                other not in expanded and shapes.get(other) == shapes[name] for other in one.input
            )
            for one in using
        ):
            for one in using:
                one.input[:] = [before if each == name else each for each in one.input]


def _name_relus(graph: GraphProto) -> None:
    zeros = {
        name
        for name, value in Nodes(graph).constants.items()
        if value.size == 1 and value.dtype.kind == "f" and not value.any()
    }
    for node in graph.node:
        others = [name for name in node.input if name not in zeros]
        if node.op_type == "Max" and len(node.input) == 2 and len(others) == 1:
            node.op_type = "Relu"
            node.input[:] = others


def _leave_out_dead(graph: GraphProto) -> None:
    """Takes out what no output depends on."""
    while True:
        used = read_in(graph.node) | {one.name for one in graph.output}
        live = [node for node in graph.node if used & set(node.output)]
        if len(live) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(live)
    needed = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(needed)


def operations(graph: GraphProto) -> Counter[str]:
    """Returns how many nodes of each kind there are, in loops and branches too."""
    found = Counter(node.op_type for node in graph.node)
    for node in graph.node:
        for inner in graphs_in(node):
            found += operations(inner)
    return found
