"""Weights alone, in the names of others where they have some."""

from __future__ import annotations

import numpy as np
from families import experiment_of, weights_of
from safetensors.numpy import load_file

from jdlopt.export import weights as files


def test_any_models_weights_have_their_own_paths(tmp_path):
    experiment = experiment_of("cnn")
    found = weights_of(experiment)
    record = files.write(experiment, found, tmp_path)
    tensors = load_file(tmp_path / files.FILE)
    assert record["tensors"] == len(tensors) and record["names"] == "jdlopt"
    assert record["why_not"].startswith("model.name: 'cnn' is no model of transformers")
    assert any(name.startswith("batch_stats/") for name in tensors)
    kernel = found.params["head"]["outputs"]["kernel"]
    np.testing.assert_array_equal(tensors["params/head/outputs/kernel"], kernel)
