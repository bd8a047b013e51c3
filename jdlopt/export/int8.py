"""ONNX in 8 bits: calibrated on training examples, several ways measured, the best one kept."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdlopt import writing
from jdlopt.data import feed
from jdlopt.data.named import by_name
from jdlopt.data.pools import Arrays
from jdlopt.errors import UserError
from jdlopt.export.extras import need, quiet
from jdlopt.export.nodes import Nodes, attribute
from jdlopt.export.onnx import convert, session
from jdlopt.export.patches import CAST, with_patches, without_cast
from jdlopt.export.program import Program
from jdlopt.tasks import find_task
from jdlopt.train.experiment import Experiment

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

BATCH = 64
CALIBRATED_ON = 2048
"""Training examples that the ranges of activations are found on."""
JUDGED_ON = 5000
"""Validation examples that the ways are measured on, at most."""
BATCH = 32
"""Examples in a batch that is timed."""
REPETITIONS, SECONDS = 5, 0.1
"""How often each way is timed, in turn, and for how long each time."""
WITHIN = 99.99
"""Per cent of an activation's values that its range holds; what lies outside becomes its end."""
MOST_LOST = 0.003
"""Of ways that lose no more of the score than this, the fastest is kept."""

WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")
BETWEEN = ("Add", "Relu", "MaxPool", "GlobalAveragePool", "Clip")
"""Operations between those with weights that have 8-bit kernels of their own."""

FEW_CHANNELS = 4
"""A convolution over fewer is no faster in 8 bits."""

Feed = dict[str, np.ndarray]


class Way(NamedTuple):
    """One way to 8 bits, measured.

    Attributes:
      name: for people.
      model: the graph.
      score: of the validation examples; see `score_of`.
      milliseconds: of a batch of `BATCH` in ONNX Runtime on one thread.
      bytes: of the file.
    """

    name: str
    model: ModelProto
    score: float
    milliseconds: float
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Returns what is told of it."""
        return {
            "name": self.name,
            "score": self.score,
            "milliseconds": self.milliseconds,
            "bytes": self.bytes,
        }


def write(program: Program, path: Path, experiment: Experiment) -> dict[str, Any]:
    """Writes a program as an ONNX file in 8 bits.

    Ways that are tried: weights int8 by channel and activations uint8 between quantized operations
    (for convolutions also of all that lies between them), with ranges from training examples; and
    weights alone, activations by each batch's own range. Of those that lose at most `MOST_LOST` of
    the float model's score on validation examples the fastest is kept, else the one with the best
    score. Test examples are not looked at.

    Args:
      program: what it computes.
      path: the file; what is there is replaced.
      experiment: with its data.

    Returns:
      ``kept``, its name; ``calibrated_on`` and ``judged_on``, how many examples; ``float`` and
      ``ways``, each with its ``score``, ``milliseconds`` and ``bytes``.

    Raises:
      UserError: a library is missing, there is nothing to quantize, or training examples are too
        few or hold no finite number.
      OSError: the file can't be written.
    """
    need("export", "jax2onnx", "onnx", "onnxruntime")
    count = min(experiment.data.sizes.get("train", 0), CALIBRATED_ON)
    if count > BATCH:
        count -= count % BATCH  # percentiles are taken over batches of one size
    calibration = _examples(experiment, "train", count)
    judged = "validation" if experiment.data.sizes.get("validation") else "train"
    examples = _examples(experiment, judged, JUDGED_ON)
    plain = optimized(convert(program))
    feeds = list(_feeds(program, calibration, BATCH))
    models = {name: make(plain, feeds) for name, make in ways_of(plain).items()}
    if not models:
        raise UserError("--int8: the model has no convolution or matrix product to quantize.")
    whole, *ways = measured({"float": plain, **models}, program, experiment, examples)
    best = kept(whole, ways)
    with writing.aside(path, binary=True) as file:
        file.write(best.model.SerializeToString())
    return {
        "kept": best.name,
        "calibrated_on": len(calibration.targets),
        "judged_on": len(examples.targets),
        "judged_split": judged,
        "float": whole.to_dict(),
        "ways": [one.to_dict() for one in ways],
    }


def kept(whole: Way, ways: Sequence[Way]) -> Way:
    """Returns the fastest way that loses little, or the one that loses least."""
    close = [one for one in ways if whole.score - one.score <= MOST_LOST]
    if close:
        return min(close, key=lambda one: one.milliseconds)
    return max(ways, key=lambda one: one.score)


# --- examples -------------------------------------------------------------------------------------


def _examples(experiment: Experiment, split: str, most: int) -> Arrays:
    """Returns so many examples of a split, drawn once for all.

    Raises:
      UserError: there are none, or none of their numbers is finite.
    """
    size = experiment.data.sizes.get(split, 0)
    rows = np.sort(np.random.default_rng(0).permutation(size)[:most])
    if not len(rows):
        raise UserError(f"--int8: the data have no {split} examples to calibrate on.")
    found = feed.read_examples(experiment.data.records(split), rows)
    for name, values in by_name(found.inputs).items():
        if values.dtype.kind == "f" and not np.isfinite(values).any():
            raise UserError(f"--int8: the {split} examples have no finite number in {name!r}.")
    return found


def _feeds(program: Program, examples: Arrays, size: int) -> Iterator[Feed]:
    named = by_name(examples.inputs)
    for first in range(0, len(examples.targets), size):
        yield {name: named[name][first : first + size] for name in program.inputs}


# --- ways -----------------------------------------------------------------------------------------


def ways_of(model: ModelProto) -> dict[str, Callable[[ModelProto, Sequence[Feed]], ModelProto]]:
    """Returns the ways to 8 bits that a graph has operations for."""
    kinds = {node.op_type for node in model.graph.node}
    weighted = [kind for kind in WITH_WEIGHTS if kind in kinds]
    if not weighted:
        return {}
    found: dict[str, Callable[[ModelProto, Sequence[Feed]], ModelProto]] = {
        "static": lambda model, feeds: static(model, feeds, (*weighted, *BETWEEN))
    }
    first = first_convolutions(model)
    if first and len(first) < len(model.graph.node):
        found["static, first convolution in float"] = lambda model, feeds: static(
            model, feeds, (*weighted, *BETWEEN), first
        )
    patches = with_patches(model)
    if patches is not None:
        found["static, first convolution over patches of bytes"] = lambda _, feeds: without_cast(
            static(patches, feeds, (*weighted, *BETWEEN), known={CAST: (0.0, 255.0)})
        )
    if "Conv" in kinds:
        found["static, convolutions alone"] = lambda model, feeds: static(model, feeds, ("Conv",))
    if set(weighted) - {"Conv"}:
        found["dynamic"] = lambda model, feeds: dynamic(model)
    return found


def first_convolutions(model: ModelProto) -> list[str]:
    """Returns the convolutions over few channels, and all that comes before them, by name.

    In 8 bits one over a single channel took 446 of the 1,142 µs of a small ResNet (batch 32), in
    float 77: its dot products are too short.

    Args:
      model: a graph whose nodes have names.
    """
    nodes = Nodes(model.graph)
    pending = [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.input[1] in nodes.constants
        and nodes.constants[node.input[1]].shape[1] < FEW_CHANNELS
        and attribute(node, "group", 1) == 1
    ]
    found: dict[str, None] = {}
    while pending:
        node = pending.pop()
        if node.name not in found:
            found[node.name] = None
            pending += [nodes.makers[name] for name in node.input if name in nodes.makers]
    return list(found)


def optimized(model: ModelProto) -> ModelProto:
    """Returns a graph after ONNX Runtime's basic optimisations, which need no kernel of its own.

    In place of `onnxruntime.quantization.quant_pre_process`, whose shape inference fails on
    attention.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.onnx"))
        options.optimized_model_filepath = path
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return onnx.load(path)


def static(
    model: ModelProto,
    feeds: Sequence[Feed],
    kinds: Sequence[str],
    left: Sequence[str] = (),
    known: Mapping[str, tuple[float, float]] = MappingProxyType({}),
) -> ModelProto:
    """Returns a graph whose activations have fixed ranges, which hold `WITHIN` of the examples'.

    Few values lie far out in a ResNet: over patches, ranges from the least to the most lost 0.07
    points of accuracy on MNIST, these 0.02 (five seeds).

    Args:
      model: the graph.
      feeds: batches of training examples, of one size.
      kinds: the operations that are quantized.
      left: the names of nodes that stay as they are.
      known: the ranges of tensors that need no examples to be known.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """Gives the batches one by one, as ONNX Runtime asks for them."""

        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self.left, None)

    return _through_files(
        model,
        lambda source, made: quantization.quantize_static(
            source,
            made,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            calibrate_method=quantization.CalibrationMethod.Percentile,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=list(kinds),
            nodes_to_exclude=list(left),
            extra_options={
                "CalibPercentile": WITHIN,
                "TensorQuantOverrides": {
                    name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
                    for name, (low, high) in known.items()
                },
            },
        ),
    )


def dynamic(model: ModelProto) -> ModelProto:
    """Returns a graph with int8 weights whose activations are rounded by each batch's own range."""
    from onnxruntime import quantization

    return _through_files(
        model,
        lambda source, made: quantization.quantize_dynamic(
            source,
            made,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
        ),
    )


def _through_files(model: ModelProto, make: Callable[[str, str], None]) -> ModelProto:
    """Returns what is made of a model by way of files; given the model itself, it would change."""
    import onnx

    with tempfile.TemporaryDirectory() as folder, quiet("root", "onnxruntime"):
        source, made = (str(Path(folder, name)) for name in ("float.onnx", "int8.onnx"))
        onnx.save(model, source)
        make(source, made)
        return onnx.load(made)


# --- measuring ------------------------------------------------------------------------------------


def measured(
    models: Mapping[str, ModelProto], program: Program, experiment: Experiment, examples: Arrays
) -> list[Way]:
    """Returns what each model scores and takes; they are timed in turn."""
    files = {name: model.SerializeToString() for name, model in models.items()}
    sessions = {name: session(file, threads=1) for name, file in files.items()}
    small = next(_feeds(program, examples, BATCH))
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(REPETITIONS):
        for name, one in sessions.items():
            times[name].append(_milliseconds(one, small))
    return [
        Way(
            name,
            models[name],
            score_of(experiment, one, list(_feeds(program, examples, 256)), examples.targets),
            statistics.median(times[name]),
            len(files[name]),
        )
        for name, one in sessions.items()
    ]


def _milliseconds(one: InferenceSession, given: Feed) -> float:
    one.run(None, given)
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        one.run(None, given)
        count += 1
    return 1000 * passed / count


def score_of(
    experiment: Experiment, one: InferenceSession, feeds: Sequence[Feed], targets: np.ndarray
) -> float:
    """Returns the share of examples, or of labels, that are predicted right; of numbers R².

    Args:
      experiment: whose task and decision say what is predicted.
      one: the file in its runtime.
      feeds: the examples in batches.
      targets: of them.
    """
    names = [output.name for output in one.get_outputs()]
    said = [one.run(None, given) for given in feeds]
    found = {name: np.concatenate(parts) for name, parts in zip(names, zip(*said, strict=True))}
    spec = experiment.spec
    shares = found.get("probabilities")
    values = find_task(spec.task).decode(found["outputs"], shares, spec).values
    if shares is not None:
        return float(np.mean(np.asarray(values) == targets))
    true = targets.reshape(len(targets), -1).astype(np.float64)
    errors = np.square(np.asarray(values).reshape(true.shape) - true).sum(axis=0)
    return float(np.mean(1 - errors / np.square(true - true.mean(axis=0)).sum(axis=0)))
