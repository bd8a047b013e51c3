"""An ONNX graph made simpler: shapes that are known, no broadcasts in full, no dead nodes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

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

    Of a reshape to a shape with one unknown size, the shape becomes a constant; what is broadcast
    to be added to a larger array is left to the addition; a maximum with 0 becomes a ReLU. The
    shapes of values between inputs and outputs are left out: some that jax2onnx writes are wrong,
    and ONNX Runtime finds them by itself.

    Args:
      model: a model as jax2onnx makes it, whose shapes of values are read.
    """
    import onnx

    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    shapes = {one.name: _sizes(one) for one in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {one.name: tuple(one.dims) for one in graph.initializer}
    _fix_reshapes(graph, shapes)
    _leave_to_broadcasting(graph, shapes)
    _name_relus(graph)
    _leave_out_dead(graph)
    del graph.value_info[:]
    return found


def _sizes(value: ValueInfoProto) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(one.dim_param if one.dim_param else one.dim_value for one in dims)


def constants(graph: GraphProto) -> dict[str, np.ndarray]:
    """Returns the constants of a graph by name."""
    from onnx import numpy_helper

    return {one.name: numpy_helper.to_array(one) for one in graph.initializer}


def _fix_reshapes(graph: GraphProto, shapes: Shapes) -> None:
    from onnx import numpy_helper

    for node in graph.node:
        sizes = shapes.get(node.output[0], ())
        unknown = [size for size in sizes if not isinstance(size, int)]
        if node.op_type != "Reshape" or len(unknown) > 1 or 0 in sizes or not sizes:
            continue
        wanted = [size if isinstance(size, int) else -1 for size in sizes]
        name = f"{node.output[0]}_shape"
        graph.initializer.append(numpy_helper.from_array(np.array(wanted, np.int64), name))
        node.input[1] = name


def _leave_to_broadcasting(graph: GraphProto, shapes: Shapes) -> None:
    """Takes out what only repeats values along an axis, where the reader does so itself."""
    kept = _read_inside(graph) | {one.name for one in graph.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    expanded = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Expand"
        and node.output[0] not in kept
        and len(shapes.get(node.input[0], ())) == len(shapes.get(node.output[0], (0,)))
    }
    for name, before in expanded.items():
        using = readers.get(name, [])
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
        for name, value in constants(graph).items()
        if value.size == 1 and value.dtype.kind == "f" and not value.any()
    }
    for node in graph.node:
        others = [name for name in node.input if name not in zeros]
        if node.op_type == "Max" and len(node.input) == 2 and len(others) == 1:
            node.op_type = "Relu"
            node.input[:] = others


def _graphs_in(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g


def _read_in(nodes: Iterable[NodeProto]) -> set[str]:
    """Returns the names that nodes read, in their loops and branches too."""
    found: set[str] = set()
    for node in nodes:
        found |= set(node.input)
        for graph in _graphs_in(node):
            found |= _read_in(graph.node) | {one.name for one in graph.output}
    return found


def _read_inside(graph: GraphProto) -> set[str]:
    return {
        name
        for node in graph.node
        for inner in _graphs_in(node)
        for name in _read_in(inner.node) | {one.name for one in inner.output}
    }


def _leave_out_dead(graph: GraphProto) -> None:
    """Takes out what no output depends on."""
    while True:
        used = _read_in(graph.node) | {one.name for one in graph.output}
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
        for inner in _graphs_in(node):
            found += operations(inner)
    return found
