"""Weights alone, in the names of others where they have some."""

from __future__ import annotations

import numpy as np
import pytest
from families import experiment_of, weights_of
from safetensors.numpy import load_file

from jdlopt.export import weights as files


def test_any_models_weights_have_their_own_paths(tmp_path):
    experiment = experiment_of("cnn")
    found = weights_of(experiment)
    record = files.write(experiment, found, tmp_path)
    tensors = load_file(tmp_path / files.FILE)
    assert record == {"tensors": len(tensors), "names": "jdlopt"}
    assert any(name.startswith("batch_stats/") for name in tensors)
    kernel = found.params["head"]["outputs"]["kernel"]
    np.testing.assert_array_equal(tensors["params/head/outputs/kernel"], kernel)


@pytest.mark.slow
def test_a_vit_reads_back_in_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    experiment = experiment_of("vit")
    found = weights_of(experiment)
    files.write(experiment, found, tmp_path)
    model = transformers.ViTForImageClassification.from_pretrained(tmp_path).eval()
    images = experiment.data.read("train").inputs[:4]
    pixels = torch.tensor((images / 255).astype(np.float32).transpose(0, 3, 1, 2))
    with torch.no_grad():
        theirs = model(pixels).logits.numpy()
    ours = np.asarray(experiment.predict(found, images).outputs)
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * np.abs(ours).max())
