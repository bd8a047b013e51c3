"""Frozen batch norm: training normalises as evaluation does, and leaves the statistics alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models import make_model

pytestmark = pytest.mark.usefixtures("own_modules")


@pytest.mark.parametrize(
    "section",
    [
        {"name": "mlp", "features": (8,), "batch_norm": True},
        {"name": "cnn", "features": (4,), "batch_norm": True},
        {"name": "own_modules:LinenNet", "noise_rate": 0.0},
        {"name": "own_modules:NnxNet", "noise_rate": 0.0},
    ],
    ids=lambda section: section["name"],
)
def test_training_normalises_as_evaluation_does(section):
    x = 2 + 3 * jax.random.normal(jax.random.key(0), (16, 6))
    hparams = {"noise_rate": jnp.float32(0)} if "noise_rate" in section else {}
    model = make_model({**section, "freeze_norm": True}, 3)
    params, state = jax.jit(model.init)(jax.random.key(1), x, hparams)
    state = jax.tree.map(lambda leaf: leaf + 0.5, state)
    key = jax.random.key(2)
    outputs, new = model.apply(params, state, x, hparams, key=key, train=True)
    wanted, _ = model.apply(params, state, x, hparams, key=None, train=False)
    np.testing.assert_array_equal(outputs, wanted)
    jax.tree.map(np.testing.assert_array_equal, new, state)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    thawed = make_model(section, 3).apply(params, state, x, hparams, key=key, train=True)
    assert float(jnp.abs(thawed[0] - outputs).max()) > 1e-3


def test_says_that_there_is_no_batch_norm():
    model = make_model({"name": "mlp", "freeze_norm": True}, 3)
    with pytest.raises(ConfigError, match=r"model.freeze_norm: .* has no batch norm"):
        model.init(jax.random.key(0), jnp.ones((2, 4)), {})
