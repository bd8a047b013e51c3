"""What a module sows is added to the objective and logged, and is no part of the state."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.data.given import open_given
from jdlopt.models.bridge import bridge
from jdlopt.models.ensemble import with_members
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import as_arrays


class Sowing(nn.Module):
    """Two layers, each of which asks for small outputs."""

    num_outputs: int
    weight: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for index in range(2):
            x = nn.Dense(self.num_outputs, name=f"dense_{index}")(x)
            if train:
                size = jnp.mean(jnp.square(x))
                self.sow("losses", f"size_{index}", self.weight * size)
                self.sow("measured", "size", size)
        return x


@pytest.mark.parametrize(("members", "accumulate"), [(2, 1), (1, 2)])
def test_a_step_adds_and_logs_what_was_sown(members, accumulate):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 4)).astype(np.float32), np.arange(48) % 3
    raw = {
        "data": {"source": "arrays", "batch_size": 8},
        "model": {"name": "linear", "ensemble": members},
        "optim": {"name": "sgd", "learning_rate": 0.1, "accumulate": accumulate},
        "train": {"steps": 2},
        "mesh": {"data": 1},
    }
    built = Experiment.build(raw, open_given(raw["data"], (x, y)))
    model = bridge(Sowing, "own", {"weight": 0.5}, 3)
    if members > 1:
        model = with_members(model, members, lambda outputs: outputs.mean(axis=0))
    components = built.components._replace(model=model)
    built = dataclasses.replace(built, components=components)
    hparams = as_arrays(configs.hyperparameters(built.config))
    batch = {"inputs": jnp.asarray(x[:8]), "targets": jnp.asarray(y[:8])}

    @jax.jit
    def steps(weight):
        own = {**hparams, "model": {"weight": weight}}
        state = built.init(0, own)
        return state, *built.train_step(state, batch)

    state, after, found = steps(0.5)
    _, other, plain = steps(0.0)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    np.testing.assert_allclose(found["size"], plain["size"], rtol=1e-6)
    np.testing.assert_allclose(found["loss"] - plain["loss"], found["size"], rtol=1e-4)
    kernels = [jax.tree.leaves(one.params)[1] for one in (after, other)]
    assert float(jnp.abs(kernels[0] - kernels[1]).max()) > 1e-4
