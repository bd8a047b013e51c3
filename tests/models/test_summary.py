"""A model layer by layer: every parameter and every product stands in one row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jdlopt.models import make_model
from jdlopt.models.summary import flops_of, layers_of

ENCODER = {"name": "transformer_encoder", "features": 8, "num_layers": 3, "num_heads": 2}
CASES = {
    "mlp": ({"name": "mlp", "features": (8,), "batch_norm": True}, (6,), {}),
    "cnn": ({"name": "cnn", "features": (4, 8)}, (8, 8, 3), {}),
    "gru": ({"name": "gru", "features": 4}, (5,), {"tokens": 20}),
    "encoder": ({**ENCODER, "remat": "full", "dtype": "bfloat16"}, (5,), {"tokens": 20}),
    "scanned": ({**ENCODER, "scan_layers": True, "lora_rank": 2}, (5,), {"tokens": 20}),
    "nnx": ({"name": "own_modules:NnxNet"}, (6,), {}),
}


pytestmark = pytest.mark.usefixtures("own_modules")


def layers(section, shape, keys, size=2):
    """Returns a model's rows, its parameters' shapes and the FLOPs of its forward pass."""
    model = make_model(section, 3, **keys)
    x = jax.ShapeDtypeStruct((size, *shape), jnp.int32 if keys else jnp.float32)
    params, state = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, {}), x)

    def forward(params, state, x):
        return model.apply(params, state, x, {}, key=jax.random.key(0), train=True)[0]

    found = layers_of(model, params, state, x, {})
    return {layer.path: layer for layer in found}, params, flops_of(forward, params, state, x)


@pytest.mark.parametrize("case", CASES)
def test_rows_add_up(case):
    rows, params, flops = layers(*CASES[case])
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    assert sum(row.parameters for row in rows.values()) == sum(sizes)
    assert sum(row.flops for row in rows.values()) == flops > 0
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    for row in rows.values():
        assert not row.parameters or any(path.startswith(row.path) for path in paths)


def test_a_convolution_in_numbers():
    row = layers(*CASES["cnn"])[0]["conv_1"]
    assert (row.kind, row.shape) == ("Conv", (2, 8, 8, 8))
    assert row.parameters == 3 * 3 * 4 * 8 + 8
    assert row.flops == 2 * (2 * 8 * 8 * 8) * (3 * 3 * 4)
    assert row.activation_bytes == 4 * 2 * 8 * 8 * 8


def test_scanned_layers_count_as_often_as_they_run():
    scanned, _, _ = layers({**ENCODER, "scan_layers": True}, (5,), {"tokens": 20})
    unrolled, _, _ = layers(ENCODER, (5,), {"tokens": 20})
    for part in ("attention", "attention/query", "mlp/down", "norm_1"):
        each = [unrolled[f"layer_{index}/{part}"] for index in range(3)]
        together = scanned[f"layers/{part}"]
        for name in ("parameters", "flops", "activation_bytes"):
            assert getattr(together, name) == sum(getattr(one, name) for one in each), (part, name)


def test_half_the_bits_take_half_the_memory():
    full, half = (
        layers({**ENCODER, "dtype": dtype}, (5,), {"tokens": 20})[0]["layer_1/mlp/up"]
        for dtype in ("float32", "bfloat16")
    )
    assert full.activation_bytes == 2 * half.activation_bytes
