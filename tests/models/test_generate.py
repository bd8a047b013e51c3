"""Generation with a cache against the model without one, and the laws of sampling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models.attention import stack_layers
from jdlopt.models.generate import generate, sample
from jdlopt.models.transformer import TransformerDecoder

SIZES = {
    "num_outputs": 1,
    "features": 8,
    "num_layers": 2,
    "num_heads": 2,
    "max_positions": 12,
    "num_tokens": 13,
}
MODEL = TransformerDecoder(**SIZES)
PROMPT = jnp.array([[3, 4, 5, 6, 7], [9, 2, 0, 0, 0], [8, 0, 1, 12, 0]])
LENGTHS = (5, 2, 4)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def params():
    found = jax.jit(MODEL.init)(jax.random.key(0), PROMPT)["params"]
    # Embeddings start small: larger ones make the scores differ.
    return jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(KEY, leaf.shape), found)


@pytest.fixture(scope="module")
def greedy(params):
    """The best continuations, by the model without a cache, one row at a time."""
    logits = jax.jit(lambda tokens: MODEL.apply({"params": params}, tokens, method="logits"))
    rows = []
    for row, length in zip(PROMPT.tolist(), LENGTHS, strict=True):
        tokens = np.zeros((1, 12), np.int32)
        tokens[0, :length] = row[:length]
        for position in range(length, length + 6):  # what follows a position changes nothing there
            tokens[0, position] = logits(tokens)[0, position - 1].argmax()
        rows.append(tokens[0, length : length + 6])
    return np.stack(rows)


@pytest.mark.parametrize("scan", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_cache_changes_nothing(params, greedy, scan):
    model = TransformerDecoder(**SIZES, scan_layers=scan)
    found = stack_layers(params) if scan else params
    np.testing.assert_array_equal(generate(found, PROMPT, KEY, 0.0, model=model, count=6), greedy)
    lengths = jnp.array(LENGTHS)
    noisy = jnp.where(jnp.arange(5) < lengths[:, None], PROMPT, 11)  # any id may be padding then
    again = generate(found, noisy, KEY, 0.0, model=model, count=6, lengths=lengths)
    np.testing.assert_array_equal(again, greedy)


def test_stops_at_the_end_token(params, greedy):
    end = int(greedy[0, 2])
    found = np.asarray(generate(params, PROMPT, KEY, 0.0, model=MODEL, count=6, end=end))
    for row, whole in zip(found, greedy, strict=True):
        stop = [*whole, end].index(end) + 1
        np.testing.assert_array_equal(row[:stop], whole[:stop])
        assert not row[stop:].any()


def test_one_program_serves_all_options(params):
    generate.clear_cache()
    draws = [
        generate(params, PROMPT, KEY, temperature, top_k, top_p, model=MODEL, count=6)
        for temperature, top_k, top_p in [
            (0.0, 0, 1.0),
            (0.7, 3, 0.5),
            (0.7, 3, 0.5),
            (2.0, 0, 0.9),
        ]
    ]
    assert generate._cache_size() == 1
    np.testing.assert_array_equal(draws[1], draws[2])
    assert bool((draws[1] != draws[3]).any())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.4, 0.1, 0.3, 0.2]),
        ({"temperature": 0.5}, np.array([0.16, 0.01, 0.09, 0.04]) / 0.3),
        ({"top_k": 2}, [4 / 7, 0, 3 / 7, 0]),
        ({"top_p": 0.75}, [4 / 9, 0, 3 / 9, 2 / 9]),
        ({"top_p": 0.65}, [4 / 7, 0, 3 / 7, 0]),
        ({"top_p": 0.0}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.7}, [4 / 7, 0, 3 / 7, 0]),  # of what top_k left: 4/9, 3/9, 2/9
        ({"temperature": 0.0, "top_k": 3}, [1, 0, 0, 0]),
    ],
)
def test_sample_draws_from_the_right_tokens(options, expected):
    n = 20_000
    logits = jnp.broadcast_to(jnp.log(jnp.array([0.4, 0.1, 0.3, 0.2])), (n, 4))
    tokens = jax.jit(sample)(KEY, logits, **options)
    shares = np.bincount(tokens, minlength=4) / n
    assert not (shares[np.asarray(expected) == 0]).any()
    np.testing.assert_allclose(shares, expected, atol=5 * np.sqrt(0.25 / n))


def test_says_what_does_not_fit(params):
    with pytest.raises(ConfigError, match=r"5 and 9 new tokens need 13 positions; .* is 12"):
        generate(params, PROMPT, KEY, model=MODEL, count=9)
    with pytest.raises(ConfigError, match="no vocabulary"):
        generate(params, PROMPT, KEY, model=TransformerDecoder(1), count=2)
