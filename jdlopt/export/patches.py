"""A first convolution over bytes as a product with patches of them, which 8-bit kernels do fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jdlopt.export.nodes import Nodes, attribute

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

PATCHES, CAST = "byte_patches", "byte_patches_cast"
"""The value that has a pixel's neighbourhood as channels, and the node that makes it floats."""
MOST_TAPS = 9
"""Of a kernel: each is a copy of the image."""
MULTIPLE = 4
"""Of channels, that the fast 8-bit kernel multiplies at once."""
CHAIN = ("Cast", "Mul", "Add", "Transpose", "Conv")


def with_patches(model: ModelProto) -> ModelProto | None:
    """Returns a graph whose convolution of a grey image is one of 1×1 over patches of raw bytes.

    In 8 bits a 3×3 convolution over one channel took 392 of the 3,022 µs of a small ResNet (batch
    32), as a product with patches 53, and their copies about 100: nine shifted images beside each
    other are nine channels, with zero weights for those that fill a multiple of `MULTIPLE`. What
    scales the bytes becomes part of weights and bias; the edge is padded with the byte that is
    nearest to what is 0 after scaling.

    Args:
      model: with folded weights, before it is quantized.

    Returns:
      The graph; None where it has no such convolution of scaled bytes.
    """
    import onnx
    from onnx import helper, numpy_helper

    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    nodes = Nodes(graph)
    chain = _chain(nodes)
    if chain is None:
        return None
    _, product, total, _, conv = chain
    scale, shift = (nodes.constants[one.input[1]] for one in (product, total))
    weights = nodes.constants[conv.input[1]].astype(np.float64)
    bias = nodes.constants[conv.input[2]].astype(np.float64)
    if scale.size != 1 or shift.size != 1 or not scale.item():
        return None
    rate, start = float(scale.item()), float(shift.item())
    zero = round(-start / rate)
    if not 0 <= zero <= 255:
        return None
    outputs, _, height, width = weights.shape
    sizes = [one.dim_value for one in graph.input[0].type.tensor_type.shape.dim[1:3]]
    pads = list(attribute(conv, "pads", [0] * 4))
    strides = list(attribute(conv, "strides", [1, 1]))
    ends = [
        strides[axis] * ((sizes[axis] + pads[axis] + pads[axis + 2] - taps) // strides[axis]) + 1
        for axis, taps in enumerate((height, width))
    ]

    def constant(values: object, name: str) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), f"{PATCHES}_{name}"))
        return f"{PATCHES}_{name}"

    def whole(values: list[int], name: str) -> str:
        return constant(np.array(values, np.int64), name)

    edges = [0, 0, *pads[:2], 0, 0, *pads[2:]]
    made = [
        # a transpose would be moved behind what joins the shifted images, which is slow there
        helper.make_node(
            "Reshape",
            [graph.input[0].name, whole([-1, 1, *sizes], "shape")],
            [f"{PATCHES}_first"],
        ),
        helper.make_node(
            "Pad",
            [f"{PATCHES}_first", whole(edges, "edges"), constant(np.uint8(zero), "zero")],
            [f"{PATCHES}_padded"],
        ),
    ]
    axes, steps, shifted = whole([2, 3], "axes"), whole(strides, "steps"), []
    for row in range(height):
        for column in range(width):
            name = f"{PATCHES}_{row}_{column}"
            first = whole([row, column], f"first_{row}_{column}")
            last = whole([row + ends[0], column + ends[1]], f"last_{row}_{column}")
            given = [f"{PATCHES}_padded", first, last, axes, steps]
            made.append(helper.make_node("Slice", given, [name]))
            shifted.append(name)
    more = -len(shifted) % MULTIPLE
    flat = np.pad(weights.reshape(outputs, -1), ((0, 0), (0, more)))
    shifted += shifted[:1] * more
    kernel = constant((rate * flat)[:, :, None, None].astype(np.float32), "kernel")
    shifts = constant((bias + start * weights.sum(axis=(1, 2, 3))).astype(np.float32), "bias")
    made += [
        helper.make_node("Concat", shifted, [PATCHES], axis=1),
        helper.make_node("Cast", [PATCHES], [CAST], CAST, to=onnx.TensorProto.FLOAT),
        helper.make_node("Conv", [CAST, kernel, shifts], list(conv.output), conv.name),
    ]
    for number, one in enumerate(made):
        one.name = one.name or f"{PATCHES}_{number}"
    rest = [node for node in graph.node if node not in chain]
    del graph.node[:]
    graph.node.extend([*made, *rest])
    used = {name for node in graph.node for name in node.input}
    needed = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(needed)
    return found


def _chain(nodes: Nodes) -> list[NodeProto] | None:
    """The nodes from an image of bytes to its convolution, each read by the next alone."""
    graph, found = nodes.graph, list["NodeProto"]()
    if len(graph.input) != 1 or len(graph.input[0].type.tensor_type.shape.dim) != 4:
        return None
    name = graph.input[0].name
    for kind in CHAIN:
        node = nodes.only_reader(name)
        if node is None or node.op_type != kind or node.input[0] != name:
            return None
        if kind in ("Mul", "Add") and node.input[1] not in nodes.constants:
            return None
        found.append(node)
        name = node.output[0]
    turn, conv = found[-2:]
    kernel = nodes.constants.get(conv.input[1])
    if (
        list(attribute(turn, "perm", [])) != [0, 3, 1, 2]
        or len(conv.input) != 3 or conv.input[2] not in nodes.constants
        or kernel is None or kernel.ndim != 4 or kernel.shape[1] != 1
        or np.prod(kernel.shape[2:]) > MOST_TAPS
        or attribute(conv, "group", 1) != 1
        or attribute(conv, "auto_pad", b"NOTSET") != b"NOTSET"
        or set(attribute(conv, "dilations", [1])) != {1}
    ):  # fmt: skip
        return None
    return found


def without_cast(model: ModelProto) -> ModelProto:
    """Returns a quantized graph that takes the patches' bytes for the codes that they are.

    Args:
      model: of `with_patches`, quantized; it is changed. Where calibration saw no byte of 0 or 255,
        their codes are others, and it stays as it is.
    """
    graph = model.graph
    nodes = Nodes(graph)
    rounding = nodes.readers.get(CAST, [])
    plain = all(
        one.op_type == "QuantizeLinear"
        and nodes.constants[one.input[1]] == 1.0
        and nodes.constants[one.input[2]] == 0
        for one in rounding
    )
    if not rounding or not plain:
        return model
    codes = {one.output[0] for one in rounding}
    for node in graph.node:
        node.input[:] = [PATCHES if name in codes else name for name in node.input]
    for node in [one for one in graph.node if one in rounding or CAST in one.output]:
        graph.node.remove(node)
    return model
