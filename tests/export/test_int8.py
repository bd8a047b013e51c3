"""ONNX in 8 bits: which way is kept, on what it is calibrated, what it says."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import onnx as onnx_library
import pytest
from families import CLASSES, IMAGES, built, experiment_of, weights_of

from jdlopt.data.pools import ArrayPool, Arrays
from jdlopt.errors import UserError
from jdlopt.export import int8, onnx
from jdlopt.export.formats import export_run
from jdlopt.export.int8 import MOST_LOST, Way, kept
from jdlopt.export.nodes import Nodes
from jdlopt.export.patches import with_patches
from jdlopt.export.program import make_program


def way(name, score, milliseconds):
    return Way(name, onnx_library.ModelProto(), score, milliseconds, 1)


def test_the_fastest_way_that_loses_little_is_kept_or_the_best():
    whole = way("float", 0.99, 3.0)
    slow, fast = way("slow", 0.99, 2.0), way("fast", 0.99 - MOST_LOST / 2, 1.0)
    wrong = way("wrong", 0.9, 0.5)
    assert kept(whole, [slow, fast, wrong]).name == "fast"
    assert kept(whole, [wrong, way("worse", 0.8, 0.1)]).name == "wrong"


def test_other_formats_have_no_8_bits(tmp_path):
    with pytest.raises(UserError, match=r"--int8: is for --format=onnx; stablehlo has no 8 bits"):
        export_run([tmp_path], "stablehlo", int8=True)


def test_training_examples_must_be_numbers(tmp_path):
    experiment = experiment_of("linear")

    def unknown(pool):
        found = pool.read(None)
        return Arrays(found.inputs * np.float32("nan"), found.targets)

    pools = {
        name: ArrayPool(len(pool), partial(unknown, pool))
        for name, pool in experiment.data.pools.items()
    }
    broken = experiment.on(dataclasses.replace(experiment.data, pools=pools))
    program = make_program(experiment, weights_of(experiment))
    with pytest.raises(UserError, match="the train examples have no finite number in 'input'"):
        int8.write(program, tmp_path / "model.onnx", broken)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "ways"),
    [
        (
            "resnet",
            [
                "static",
                "static, first convolution in float",
                "static, convolutions alone",
                "dynamic",
            ],
        ),
        ("vit", ["static", "dynamic"]),
        ("regression", ["static", "dynamic"]),
    ],
)
def test_a_file_in_8_bits_is_one_of_the_ways(family, ways, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "SECONDS", 0.001)
    experiment = experiment_of(family)
    program = make_program(experiment, weights_of(experiment))
    path = tmp_path / "model.int8.onnx"
    record = int8.write(program, path, experiment)
    assert [one["name"] for one in record["ways"]] == ways and record["kept"] in ways
    assert record["judged_split"] == "validation"
    graph = onnx_library.load(path).graph
    assert any(values.dtype == np.int8 for values in Nodes(graph).constants.values())
    inputs = experiment.data.read("train").inputs[:5]
    found, own = onnx.load(path)(inputs)["outputs"], program.function(inputs)["outputs"]
    assert np.abs(found - own).max() < max(1.0, float(np.std(own)))


@pytest.mark.slow
def test_a_convolution_of_patches_of_bytes_says_the_same():
    model = {"name": "resnet", "stem": "cifar", "stage_sizes": (1, 1), "features": (4, 8)}
    images = IMAGES[..., :1]
    experiment = built(model, {"preprocess": {"scale": "standard"}}, (images, CLASSES))
    program = make_program(experiment, weights_of(experiment))
    plain = int8.optimized(onnx.convert(program))
    patches = with_patches(plain)
    assert patches is not None
    asked = {"input": images[:6]}
    said, other = (
        onnx.session(one.SerializeToString()).run(["outputs"], asked)[0] for one in (plain, patches)
    )
    # the edge is padded with the byte nearest to what is 0 after scaling
    np.testing.assert_allclose(said, other, atol=0.02 * np.abs(said).max())
    name = "static, first convolution over patches of bytes"
    made = int8.ways_of(plain)[name](plain, [{"input": images}])
    assert not any(node.op_type == "Cast" for node in made.graph.node)
    found = onnx.session(made.SerializeToString()).run(["outputs"], asked)[0]
    assert np.abs(found - said).max() < max(1.0, float(np.std(said)))
