"""What is written of a quantized run for a runtime that computes in integers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CLASSES, IMAGES, ROWS, built, weights_of

from jdlopt.export.rounded import rounded

FEW_BITS = {"quantize": {"weights": 4.0}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"name": "cnn", "features": (4, 8), "batch_norm": True},
        {"name": "cnn", "features": (4, 8), "lora_rank": 2, "lora_alpha": 3.0},
        {"name": "mlp", "features": (8,), "prune": {"criterion": "magnitude", "sparsity": 0.5}},
    ],
    ids=["cnn", "adapters", "pruned"],
)
def test_kernels_are_those_that_the_run_predicts_with(model):
    given = (IMAGES, CLASSES) if model["name"] == "cnn" else (ROWS, CLASSES)
    experiment = built({**model, **FEW_BITS}, {}, given)
    found = weights_of(experiment)
    plain, made = rounded(experiment, found)
    assert not plain.config.model.quantize.on
    raw = jnp.asarray(experiment.data.read("train").inputs)
    expected = jax.jit(experiment.predict)(found, raw).outputs
    np.testing.assert_allclose(jax.jit(plain.predict)(made, raw).outputs, expected, 1e-5, 1e-6)


def test_what_is_not_quantized_stays_as_it_is():
    experiment = built({"name": "linear"}, {}, (ROWS, CLASSES))
    found = weights_of(experiment)
    assert rounded(experiment, found) == (experiment, found)
