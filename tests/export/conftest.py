"""A trained run of a small table, and its model as an ONNX file put together by hand."""

from __future__ import annotations

import jax
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jdlopt.export.bundle import Model, write_bundle
from jdlopt.train import serve
from jdlopt.train.loop import fit

CONFIG = {
    "seed": 1,
    "data": {"batch_size": 32, "preprocess": {"encode": "ordinal", "scale": "none"}},
    "model": {"name": "linear"},
    "loss": {"name": "cross_entropy"},
    "optim": {"name": "adam", "learning_rate": 0.05},
    "train": {"epochs": 5, "tensorboard": False},
    "mesh": {"data": 1},
}


def linear_onnx(kernel, bias):
    """Returns an ONNX model: softmax of a linear layer."""
    width, classes = kernel.shape
    nodes = [
        helper.make_node("Gemm", ["input", "kernel", "bias"], ["outputs"]),
        helper.make_node("Softmax", ["outputs"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["B", width])],
        [
            helper.make_tensor_value_info(one, TensorProto.FLOAT, ["B", classes])
            for one in ("probabilities", "outputs")
        ],
        [
            numpy_helper.from_array(np.asarray(kernel, np.float32), "kernel"),
            numpy_helper.from_array(np.asarray(bias, np.float32), "bias"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """A CSV of 90 rows: two numbers, one of them with a unit, a category, and the class."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("table") / "plants.csv"
    lines = ["length,weight,colour,kind"]
    for row in range(90):
        kind = row % 3
        length, weight = rng.normal(kind, 0.3), rng.normal(10 + kind, 0.5)
        lines.append(f"{length:.3f},{weight:.1f} kg,{('red', 'blue', 'NA')[kind]},kind{kind}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def run(table, tmp_path_factory):
    """The directory of a run trained on the table."""
    place = tmp_path_factory.mktemp("run") / "run"
    config = {**CONFIG, "data": {**CONFIG["data"], "source": str(table), "target": "kind"}}
    fit(config, place)
    return place


@pytest.fixture(scope="session")
def model(run):
    """The run's model as ONNX."""
    experiment = serve.run_experiment(run)
    weights, _ = serve.load_weights(experiment, run, "best")
    kernel, bias = sorted(jax.tree.leaves(weights.params), key=lambda leaf: -leaf.ndim)
    return Model(linear_onnx(kernel, bias))


@pytest.fixture(scope="session")
def folder(run, model, tmp_path_factory):
    """A bundle of the run, measured on its data."""
    experiment = serve.experiment_with_data(run)
    weights, _ = serve.load_weights(experiment, run, "best")
    place = tmp_path_factory.mktemp("bundle") / "plants"
    write_bundle(place, experiment, weights, model, made_from={"run": "run"})
    return place
