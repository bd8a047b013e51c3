"""Models with a row of outputs at each position, against the same weights with one an example."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models import make_model

TOKENS = jnp.array([[3, 5, 2, 7, 4, 0], [6, 2, 0, 0, 0, 0]])
LENGTHS = (5, 2)
SMALL = {"features": 8, "num_layers": 1}
SECTIONS = {
    "gru": {"name": "gru", **SMALL},
    "decoder": {"name": "transformer_decoder", "num_heads": 2, **SMALL},
    "encoder": {"name": "transformer_encoder", "num_heads": 2, **SMALL},
    "both_ways": {"name": "gru", "bidirectional": True, "readout": "mean", **SMALL},
}


def both(section):
    """The outputs at each position of some weights, and a function of those of an example."""
    at_each, of_all = (
        make_model(section, 3, tokens=9, positions=positions) for positions in (1, 0)
    )
    params, state = jax.jit(at_each.init)(jax.random.key(0), TOKENS, {})

    def outputs(model, tokens):
        apply = jax.jit(
            lambda params: model.apply(params, state, tokens, {}, key=None, train=False)
        )
        return apply(params)[0]

    found = outputs(at_each, TOKENS)
    assert found.shape == (*TOKENS.shape, 3)
    return found, lambda tokens: outputs(of_all, tokens)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "decoder"])
def test_a_position_has_the_outputs_of_the_sequence_that_ends_there(name):
    found, of_all = both(SECTIONS[name])
    ends = [(row, end) for row, length in enumerate(LENGTHS) for end in range(1, length + 1)]
    places = jnp.arange(TOKENS.shape[1])
    prefixes = jnp.stack([jnp.where(places < end, TOKENS[row], 0) for row, end in ends])
    expected = jnp.stack([found[row, end - 1] for row, end in ends])
    np.testing.assert_allclose(of_all(prefixes), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "both_ways"])
def test_the_mean_over_positions_is_the_output_of_the_mean(name):
    found, of_all = both(SECTIONS[name])
    means = [found[row, :length].mean(axis=0) for row, length in enumerate(LENGTHS)]
    np.testing.assert_allclose(of_all(TOKENS), jnp.stack(means), atol=1e-5)


@pytest.mark.slow
def test_a_decoder_with_an_output_a_token_scores_the_next_one():
    section = {**SECTIONS["decoder"], "num_heads": 2}
    model = make_model(section, 9, tokens=9, positions=1)
    params, state = jax.jit(model.init)(jax.random.key(0), TOKENS, {})
    assert "head" not in params
    found = model.apply(params, state, TOKENS, {}, key=None, train=False)[0]
    np.testing.assert_array_equal(found[..., 0], found[..., 1:].min(axis=-1))
    vectors = params["embeddings"]["tokens"]["embedding"]
    changed = jax.tree.map(lambda leaf: leaf, params)
    changed["embeddings"]["tokens"]["embedding"] = vectors.at[0].set(99.0)
    again = model.apply(changed, state, TOKENS, {}, key=None, train=False)[0]
    np.testing.assert_array_equal(again[0, :5], found[0, :5])  # padding is seen by nobody


def test_models_of_one_row_an_example_are_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"'mlp' has one row of outputs an example; .* gru"):
        make_model({"name": "mlp", "features": (4,)}, 3, tokens=9, positions=1)
