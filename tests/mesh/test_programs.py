"""What devices exchange in a step of a transformer, as the TPUs' compiler has it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not here"),
]
LAYERS = {"features": 128, "num_heads": 4, "max_positions": 32, "dtype": "bfloat16"}
COMPILE = """
import json, sys
from jdlopt import mesh as meshes
from jdlopt.plan.compiled import program_of
from jdlopt.plan.lowering import lower_training
from jdlopt.plan.topology import devices_of, parse
from jdlopt.train.experiment import Experiment

found, topology = [], parse("v5e:2x2")
for config in json.loads(sys.argv[1]):
    experiment = Experiment.build(config, num_devices=4, check=False)
    mesh = meshes.make_mesh(experiment.config.mesh, devices_of(topology))
    lowered = lower_training(experiment, mesh)
    program = program_of(lowered, list(mesh.devices.flat), dict(mesh.shape), topology)
    found.append([[one.kind, one.axes, one.count, one.nbytes] for one in program.collectives])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The collectives of a step: of a layout and a number of layers, scanned or not."""
    path = tmp_path_factory.mktemp("sequences") / "data.npz"
    x = np.random.default_rng(0).normal(size=(200, 32, 8)).astype(np.float32)
    y = np.arange(200) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    cases = [("fsdp", 3, False), ("fsdp", 3, True), ("tensor", 1, False), ("tensor", 2, False)]
    configs = [
        {
            "data": {"source": str(path), "batch_size": 32, "in_memory": False},
            "model": {"name": "transformer_encoder", **LAYERS, "num_layers": count,
                      "scan_layers": scan},
            "mesh": {axis: 4},
        }
        for axis, count, scan in cases
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, json.dumps(configs)],
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu",
             "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_scanned_layers_exchange_what_unrolled_ones_do(compiled):
    unrolled, scanned = (
        sum(nbytes for *_, nbytes in compiled["fsdp", 3, scan]) for scan in (False, True)
    )
    # what the last layer gathers going forward serves its backward pass at once, but in a loop
    kernels = 4 * 128 * 128 + 2 * 128 * 512
    assert 0.95 * unrolled <= scanned <= 1.05 * unrolled + 2 * kernels
    for scan in (False, True):
        assert not [one for one in compiled["fsdp", 3, scan] if one[0] == "all-to-all"]


def test_a_layer_split_over_tensor_adds_activations_four_times(compiled):
    def sums(count):
        found = compiled["tensor", count, False]
        return sum(times for kind, _, times, _ in found if kind == "all-reduce")

    # after attention and after the feed-forward network, and before each in the backward pass,
    # where those of queries, keys and values go together, as one collective or as three
    assert 4 <= sums(2) - sums(1) <= 6
    gathers = [
        sum(times for kind, _, times, _ in compiled["tensor", count, False] if kind == "all-gather")
        for count in (1, 2)
    ]
    assert gathers[0] == gathers[1]
