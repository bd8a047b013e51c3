"""A model in two halves is the same model, whatever lies around its modules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.config import Required, fields_of
from jdlopt.errors import ConfigError
from jdlopt.models import MODELS, make_model
from jdlopt.models.head import features_of, head_of

CASES = {
    "cnn": ({"features": (4,), "batch_norm": True, "hidden": (5,)}, 0),
    "cnn of embedded tokens": ({"features": (4,)}, 11),
    "gru": ({"features": 4, "bidirectional": True}, 0),
    "lstm of token ids": ({"features": 4, "readout": "mean"}, 11),
    "transformer_encoder": ({"features": 8, "num_heads": 2, "scan_layers": True}, 11),
}


def made(name, keys, tokens, dtype):
    fields = fields_of(MODELS[name], without=("num_outputs", "num_tokens"))
    defaults = {
        key: field.default for key, field in fields.items() if field.default is not Required
    }
    section = {"name": name, **defaults, **keys, "dtype": dtype}
    return make_model(section, 3, tokens=tokens)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_the_head_on_the_features_is_the_whole_model(case, dtype):
    keys, tokens = CASES[case]
    model = made(case.partition(" ")[0], keys, tokens, dtype)
    key = jax.random.key(0)
    inputs = jnp.arange(12).reshape(2, 6) % 11 if tokens else jax.random.normal(key, (2, 6))
    params, state = jax.jit(model.init)(key, inputs, {})
    features = features_of(model, params, state, inputs, {})
    assert features.dtype == jnp.float32
    head = head_of(model, jax.ShapeDtypeStruct(inputs.shape, inputs.dtype))
    whole, _ = model.apply(params, state, inputs, {}, key=None, train=False)
    for train in (False, True):
        outputs, after = head.apply(params, state, features, {}, key=key, train=train)
        np.testing.assert_array_equal(outputs, whole)
        jax.tree.map(np.testing.assert_array_equal, after, state)  # the body's statistics


def test_a_model_without_a_head_is_told():
    model = made("linear", {}, 0, "float32")
    inputs = jnp.ones((2, 4))
    params, state = jax.jit(model.init)(jax.random.key(0), inputs, {})
    with pytest.raises(ConfigError, match="one submodule named 'head' once; this one does 0 times"):
        features_of(model, params, state, inputs, {})
