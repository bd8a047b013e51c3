"""The vision transformer: sizes known from its papers, its patches, and what can't work."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models import make_model
from jdlopt.models.attention import stack_layers
from jdlopt.models.vit import PatchEmbeddings

TINY = {"name": "vit", "features": 8, "num_layers": 2, "num_heads": 2, "mlp_features": 12}


@pytest.mark.parametrize(
    ("variant", "count"), [("Ti", 5_717_416), ("S", 22_050_664), ("B", 86_567_656)]
)
def test_a_variant_has_as_many_parameters_as_published(variant, count):
    model = make_model({"name": "vit", "variant": variant, "scan_layers": True}, 1000)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), image, {})
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_patches_are_read_row_by_row():
    images = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    module = PatchEmbeddings(12, 2, False, None)
    params = module.init(jax.random.key(0), images, False)["params"]
    params = {
        "patches": {"kernel": jnp.eye(12), "bias": jnp.zeros(12)},
        "positions": {"embedding": jnp.zeros_like(params["positions"]["embedding"])},
    }
    patches = module.apply({"params": params}, images, False)
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[1, 4], images[1, 2:4, 2:4].ravel())


@pytest.mark.parametrize(
    ("pooling", "shape"),
    [pytest.param("cls", (8, 4), marks=pytest.mark.slow), ("mean", (8, 8, 3))],
)
def test_scanned_layers_and_remat_change_nothing(pooling, shape):
    section = {**TINY, "patch_size": 4, "pooling": pooling}
    model = make_model(section, 3)
    scanned = make_model({**section, "scan_layers": True, "remat": "full"}, 3)
    x = jax.random.normal(jax.random.key(0), (4, *shape))
    params, _ = jax.jit(model.init)(jax.random.key(1), x, {})
    assert ("class_token" in params["embeddings"]) == (pooling == "cls")

    def step(model, params):
        def loss(params):
            return (model.apply(params, {}, x, {}, key=None, train=True)[0] ** 2).mean()

        return jax.jit(jax.grad(loss))(params)

    expected, found = stack_layers(step(model, params)), step(scanned, stack_layers(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


@pytest.mark.parametrize(
    ("keys", "shape", "message"),
    [
        ({"patch_size": 5}, (8, 12, 3), r"images of 8×12 can't be cut .*5×5; 1, 2, 4 would fit"),
        ({"patch_size": 4, "num_heads": 3}, (8, 8), r"3 heads can't share a width of 8"),
        ({}, (12,), r"'vit' takes images of shape .*are \(12,\)"),
    ],
)
def test_says_what_does_not_fit(keys, shape, message):
    with pytest.raises(ConfigError, match=message):
        make_model({**TINY, **keys}, 2).init(jax.random.key(0), jnp.ones((1, *shape)), {})
