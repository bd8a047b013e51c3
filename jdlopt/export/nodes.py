"""Looking around in an ONNX graph: constants, who makes a value and who reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

SHAPES = ("Reshape", "Expand", "Unsqueeze", "Squeeze", "Identity")
"""Operations that give the same values in another shape."""


class Nodes:
    """The nodes of a graph as it stands; look anew where it was changed.

    Attributes:
      graph: the graph.
    """

    def __init__(self, graph: GraphProto):
        self.graph = graph

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """The constants by name."""
        from onnx import numpy_helper

        return {one.name: numpy_helper.to_array(one) for one in self.graph.initializer}

    @cached_property
    def makers(self) -> dict[str, NodeProto]:
        """Which node makes a value."""
        return {name: node for node in self.graph.node for name in node.output}

    @cached_property
    def readers(self) -> dict[str, list[NodeProto]]:
        """Which nodes read a value, beside those in loops and branches."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def kept(self) -> set[str]:
        """The values that outputs, loops or branches need by their names."""
        inside = (read_in(inner.node) | {one.name for one in inner.output}
                  for node in self.graph.node for inner in graphs_in(node))  # fmt: skip
        return {one.name for one in self.graph.output}.union(*inside)

    def only_reader(self, name: str) -> NodeProto | None:
        """Returns the one node that needs a value, or None where there are none or others."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.kept else None

    def made_by(self, name: str, *kinds: str) -> NodeProto | None:
        """Returns the node that makes a value, if it is of one of these kinds."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in kinds else None

    def before_shapes(self, name: str) -> str:
        """Returns the value that another is, before its shape was changed."""
        node = self.made_by(name, *SHAPES)
        return name if node is None else self.before_shapes(node.input[0])

    def is_over_last(self, node: NodeProto) -> bool:
        """Returns whether a reduction is over the last axis alone."""
        axes = attribute(node, "axes", None)
        if axes is None and len(node.input) > 1:
            axes = self.constants.get(node.input[1])
        return axes is not None and len(axes) == 1 and self._is_last(node, int(axes[0]))

    def _is_last(self, node: NodeProto, axis: int) -> bool:
        rank = self.ranks.get(node.input[0])
        return axis == -1 or (rank is not None and axis == rank - 1)

    @cached_property
    def ranks(self) -> dict[str, int]:
        """How many axes the values have whose shapes the graph says."""
        graph = self.graph
        named = (*graph.value_info, *graph.input, *graph.output)
        return {
            one.name: len(one.type.tensor_type.shape.dim)
            for one in named
            if one.type.tensor_type.HasField("shape")
        }

    def constant(self, values: np.ndarray, name: str) -> str:
        """Adds a constant to the graph; returns its name."""
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Returns the value of a node's attribute."""
    from onnx import helper

    for one in node.attribute:
        if one.name == name:
            return helper.get_attribute_value(one)
    return default


def graphs_in(node: NodeProto) -> Iterator[GraphProto]:
    """Yields the graphs of a node that is a loop or a branch."""
    for one in node.attribute:
        if one.HasField("g"):
            yield one.g


def read_in(nodes: Iterable[NodeProto]) -> set[str]:
    """Returns the names that nodes read, in their loops and branches too."""
    found: set[str] = set()
    for node in nodes:
        found |= set(node.input)
        for graph in graphs_in(node):
            found |= read_in(graph.node) | {one.name for one in graph.output}
    return found
