"""Statistics of groups: a batch is normalised as its groups would be, each a batch of its own."""

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
        {"name": "mlp", "features": (8, 4), "batch_norm": True},
        {"name": "cnn", "features": (4,), "batch_norm": True, "dtype": "bfloat16"},
        {"name": "own_modules:LinenNet", "noise_rate": 0.0},
    ],
    ids=lambda section: section["name"],
)
def test_groups_are_batches_of_their_own(section):
    x = 2 + 3 * jax.random.normal(jax.random.key(0), (12, 6)) * jnp.arange(1, 13)[:, None]
    hparams = {"noise_rate": jnp.float32(0)} if "noise_rate" in section else {}
    whole = make_model(section, 3)
    params, state = jax.jit(whole.init)(jax.random.key(1), x, hparams)

    def trained(groups):
        model = whole if groups is None else make_model({**section, "batch_norm_groups": groups}, 3)

        @jax.jit
        def run(params, x):
            def outputs(params):
                return model.apply(params, state, x, hparams, key=jax.random.key(2), train=True)

            gradient = jax.grad(lambda params: jnp.sum(outputs(params)[0] ** 2))(params)
            return *outputs(params), gradient

        return lambda x: run(params, x)

    close = 2e-2 if "dtype" in section else 1e-5
    made, alone = trained(3)(x), [trained(None)(part) for part in jnp.split(x, 3)]
    outputs, states, gradients = zip(*alone, strict=True)
    np.testing.assert_allclose(made[0], jnp.concatenate(outputs), rtol=close, atol=close)
    mean = jax.tree.map(lambda *each: sum(each) / 3, *states)
    total = jax.tree.map(lambda *each: sum(each), *gradients)
    for found, wanted in ((made[1], mean), (made[2], total)):
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(
                one, other, rtol=close, atol=close * float(jnp.abs(other).max() + 1)
            ),
            found,
            wanted,
        )
    assert float(jnp.abs(trained(None)(x)[0] - made[0]).max()) > 1e-2
    again = trained(1)(x)
    jax.tree.map(np.testing.assert_array_equal, again, trained(None)(x))
    # 4 groups can't be made of 6 examples: it is 2
    jax.tree.map(np.testing.assert_array_equal, trained(4)(x[:6])[:2], trained(2)(x[:6])[:2])


def test_evaluation_knows_no_groups():
    x = jax.random.normal(jax.random.key(0), (6, 4))
    section = {"name": "mlp", "features": (8,), "batch_norm": True}
    model, grouped = make_model(section, 3), make_model({**section, "batch_norm_groups": 2}, 3)
    params, state = model.init(jax.random.key(1), x, {})
    wanted, _ = model.apply(params, state, x, {}, key=None, train=False)
    found, _ = grouped.apply(params, state, x, {}, key=None, train=False)
    np.testing.assert_array_equal(found, wanted)


def test_says_what_can_have_no_groups():
    def initialised(section):
        model = make_model({**section, "batch_norm_groups": 2}, 3)
        return model.init(jax.random.key(0), jnp.ones((2, 4)), {})

    with pytest.raises(ConfigError, match=r"model.batch_norm_groups: .* has no batch norm"):
        initialised({"name": "mlp"})
    with pytest.raises(ConfigError, match=r"model.batch_norm_groups: .* is an NNX module"):
        initialised({"name": "own_modules:NnxNet", "noise_rate": 0.0})
