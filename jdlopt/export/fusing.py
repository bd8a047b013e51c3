"""Nodes of an ONNX graph put together: what is added and multiplied into weights, and softmax."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jdlopt.export.nodes import Nodes, attribute

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

TO_THE_END = ([0, 2, 1], [0, 2, 3, 1], [0, 2, 3, 4, 1])
"""Permutations that bring the channels of a convolution's result to the last axis."""


class _Chain(NamedTuple):
    """Channel-wise sums and products behind a product with weights.

    Attributes:
      nodes: one after the other, each read by the next alone.
      scale, shift: what they come to, [channels].
    """

    nodes: list[NodeProto]
    scale: np.ndarray
    shift: np.ndarray


def fold_into_weights(graph: GraphProto) -> None:
    """Puts what follows a convolution or a dense layer channel by channel into its weights.

    Biases and batch norm, in which all is constant, become part of kernel and bias: ``(x·W)·s + t``
    is ``x·(W·s) + t``. Computed in float64, so that the result is rounded once.

    Args:
      graph: is changed.
    """
    nodes = Nodes(graph)
    for node in list(graph.node):
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in nodes.constants:
            continue
        convolves = node.op_type == "Conv"
        if not convolves and not _is_plain(node):
            continue
        weights = nodes.constants[node.input[1]].astype(np.float64)
        channels = weights.shape[0 if convolves else 1]
        last, turned = node, None
        after = nodes.only_reader(node.output[0])
        if convolves and after is not None and after.op_type == "Transpose":
            if list(attribute(after, "perm", [])) not in TO_THE_END:
                continue
            last = turned = after
        elif convolves:
            continue
        chain = _behind(nodes, last.output[0], channels)
        if not chain.nodes:
            continue
        bias = np.zeros(channels)
        if len(node.input) > 2 and _counts_bias(node):
            bias = np.broadcast_to(nodes.constants[node.input[2]], (channels,)).astype(np.float64)
        shape = [channels, *[1] * (weights.ndim - 1)] if convolves else [1, channels]
        made = [
            nodes.constant(value.astype(np.float32), f"{node.output[0]}_{name}")
            for name, value in (
                ("weights", weights * chain.scale.reshape(shape)),
                ("bias", bias * chain.scale + chain.shift),
            )
        ]
        node.input[1:] = made
        if not convolves:
            _set(node, "beta", 1.0)
        (turned or node).output[0] = chain.nodes[-1].output[0]
        for one in chain.nodes:
            graph.node.remove(one)
        nodes = Nodes(graph)


def _is_plain(node: NodeProto) -> bool:
    """Returns whether a Gemm is ``x·W``, maybe with a bias."""
    return (
        not attribute(node, "transA", 0)
        and not attribute(node, "transB", 0)
        and attribute(node, "alpha", 1.0) == 1.0
        and attribute(node, "beta", 1.0) in (0.0, 1.0)
    )


def _counts_bias(node: NodeProto) -> bool:
    return node.op_type == "Conv" or attribute(node, "beta", 1.0) != 0.0


def _set(node: NodeProto, name: str, value: float) -> None:
    from onnx import helper

    kept = [one for one in node.attribute if one.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _behind(nodes: Nodes, name: str, channels: int) -> _Chain:
    """Returns the longest chain behind a value whose channels are last."""
    found: list[NodeProto] = []
    scale, shift = np.ones(channels), np.zeros(channels)
    while True:
        node = nodes.only_reader(name)
        if node is None or node.op_type not in ("Add", "Sub", "Mul", "Div"):
            break
        place = list(node.input).index(name)
        other = nodes.constants.get(node.input[1 - place])
        swapped = place == 1 and node.op_type in ("Sub", "Div")
        if other is None or swapped or not _is_channelwise(other, channels):
            break
        values = np.broadcast_to(other.reshape(-1), (channels,)).astype(np.float64)
        if node.op_type in ("Add", "Sub"):
            shift = shift + values if node.op_type == "Add" else shift - values
        else:
            factor = values if node.op_type == "Mul" else 1 / values
            scale, shift = scale * factor, shift * factor
        found.append(node)
        name = node.output[0]
    return _Chain(found, scale, shift)


def _is_channelwise(values: np.ndarray, channels: int) -> bool:
    return values.size == 1 or (values.size == channels and values.shape[-1] == channels)


def fold_bytes(graph: GraphProto) -> None:
    """Makes one product and one sum of what scales bytes: ``(x / 255 - a - b) / c``.

    Args:
      graph: is changed; what is read no more stays.
    """
    bytes_in = {one.name for one in graph.input if one.type.tensor_type.elem_type == _UINT8}
    for node in [one for one in graph.node if one.op_type == "Cast" and one.input[0] in bytes_in]:
        nodes = Nodes(graph)
        found: list[NodeProto] = []
        scale, shift = np.ones(()), np.zeros(())
        name = node.output[0]
        while True:
            after = nodes.only_reader(name)
            other = None if after is None else nodes.constants.get(after.input[-1])
            if after is None or other is None or after.input[0] != name:
                break
            values = other.astype(np.float64)
            if after.op_type in ("Add", "Sub"):
                shift = shift + values if after.op_type == "Add" else shift - values
            elif after.op_type in ("Mul", "Div"):
                factor = values if after.op_type == "Mul" else 1 / values
                scale, shift = scale * factor, shift * factor
            else:
                break
            found.append(after)
            name = after.output[0]
        if len(found) < 3 or not np.isfinite(scale).all():
            continue
        product, total = found[-2:]
        for one, kind, read, values in (
            (product, "Mul", node.output[0], scale),
            (total, "Add", product.output[0], shift),
        ):
            one.op_type = kind
            constant = nodes.constant(values.astype(np.float32), f"{one.output[0]}_{kind.lower()}")
            one.input[:] = [read, constant]


_UINT8 = 2
"""`onnx.TensorProto.UINT8`."""


# --- one node for several -------------------------------------------------------------------------


def name_products(graph: GraphProto) -> None:
    """Makes matrix products of sums over the last axis times a matrix, written as ``abc,cd->abd``.

    A bias that counts nothing is left out.

    Args:
      graph: is changed.
    """
    for node in graph.node:
        if node.op_type == "Gemm" and len(node.input) == 3 and not _counts_bias(node):
            del node.input[2]
        if node.op_type != "Einsum" or len(node.input) != 2:
            continue
        given, _, made = attribute(node, "equation", b"").decode().partition("->")
        one, _, other = given.partition(",")
        if len(other) == 2 and one[-1:] == other[0] and made == one[:-1] + other[1]:
            node.op_type = "MatMul"
            del node.attribute[:]


def name_means(graph: GraphProto, shapes: Mapping[str, tuple[int | str, ...]]) -> None:
    """Makes one node of a sum over all space, channels last, divided by the number of places.

    Args:
      graph: is changed; what is read no more stays.
      shapes: of its values.
    """
    from onnx import helper

    nodes = Nodes(graph)
    for node in list(graph.node):
        total = nodes.made_by(node.input[0], "ReduceSum") if node.op_type == "Div" else None
        count = nodes.constants.get(node.input[1]) if total is not None else None
        if total is None or count is None or count.size != 1:
            continue
        shape, axes = shapes.get(total.input[0], ()), nodes.constants.get(total.input[1])
        space = shape[1:-1]
        if (
            axes is None or attribute(total, "keepdims", 1) or not space
            or list(axes) != list(range(1, len(shape) - 1))
            or any(isinstance(size, str) for size in space) or count != math.prod(space)
        ):  # fmt: skip
            continue
        name, rank = node.output[0], len(shape)
        turned = helper.make_node(
            "Transpose",
            [total.input[0]],
            [f"{name}_turned"],
            perm=[0, rank - 1, *range(1, rank - 1)],
        )
        mean = helper.make_node("GlobalAveragePool", [f"{name}_turned"], [f"{name}_mean"])
        flat = helper.make_node("Flatten", [f"{name}_mean"], [name], axis=1)
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for offset, one in enumerate((turned, mean, flat)):
            graph.node.insert(place + offset, one)


def name_softmax(graph: GraphProto) -> None:
    """Replaces the nodes that `jax.nn.softmax` over the last axis is traced to by one.

    Args:
      graph: is changed; what is read no more stays.
    """
    nodes = Nodes(graph)
    for node in list(graph.node):
        source = _softmax_of(nodes, node)
        if source is not None:
            node.op_type = "Softmax"
            node.input[:] = [source]
            _set(node, "axis", -1)


def _softmax_of(nodes: Nodes, node: NodeProto) -> str | None:
    """Returns what a node is the softmax of, if it is one.

    ``e / sum(e)`` with ``e = exp(x - max(x))``.
    """
    if node.op_type != "Div":
        return None
    exponentials = nodes.made_by(node.input[0], "Exp")
    total = nodes.made_by(nodes.before_shapes(node.input[1]), "ReduceSum")
    if exponentials is None or total is None or total.input[0] != node.input[0]:
        return None
    difference = nodes.made_by(exponentials.input[0], "Sub")
    if difference is None or not nodes.is_over_last(total):
        return None
    largest = nodes.made_by(nodes.before_shapes(difference.input[1]), "ReduceMax", "Max")
    if largest is not None and largest.op_type == "Max":  # of minus infinity and the largest
        below = [one for one in largest.input if one not in nodes.constants]
        largest = nodes.made_by(below[0], "ReduceMax") if len(below) == 1 else None
    if largest is None or not nodes.is_over_last(largest):
        return None
    return difference.input[0] if largest.input[0] == difference.input[0] else None


def transposed_constants(graph: GraphProto) -> Iterator[tuple[NodeProto, np.ndarray]]:
    """Yields the nodes that only turn a constant's axes, and what they give."""
    nodes = Nodes(graph)
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in nodes.constants:
            values = nodes.constants[node.input[0]]
            perm = list(attribute(node, "perm", range(values.ndim)[::-1]))
            yield node, values.transpose(perm)
