from __future__ import annotations

import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from jdlopt.data.preprocess import encode
from jdlopt.errors import ConfigError

text = st.text(max_size=4)
columns = st.lists(st.one_of(text, st.none()), min_size=1, max_size=20)
COLOURS = ["red", "blue", "green", "red", "blue"]
SIZES = ["S", "XL", "S", "M", "M"]


@given(train=columns, other=columns)
@settings(max_examples=100, deadline=None)
def test_codes_name_training_categories_and_nothing_else(train, other):
    found = encode.categories(train)
    assert list(found) == sorted({value for value in train if value is not None})
    for value, code in zip(other, encode.codes(other, found), strict=True):
        if value is None:
            assert np.isnan(code)
        elif value in found:
            assert found[int(code) - 1] == value
        else:
            assert code == 0


def test_what_is_not_text_becomes_text():
    column = np.array([True, 2, float("nan"), None, "x"], dtype=object)
    assert encode.categories(column) == ("2", "True", "x")
    coded = encode.codes(column, ("2", "True", "x"))
    np.testing.assert_array_equal(coded, np.array([2, 1, np.nan, np.nan, 3], np.float32))
    assert coded.dtype == np.float32


def coded_table():
    """Two columns of categories around a numeric one, and scikit-learn's view of them."""
    numbers = np.array([0.5, -1.0, 2.0, 3.0, 0.0], np.float32)
    lists = [encode.categories(COLOURS), encode.categories(SIZES)]
    values = np.stack(
        [encode.codes(COLOURS, lists[0]), numbers, encode.codes(SIZES, lists[1])], axis=1
    )
    return values, (3, 0, 3), np.array([COLOURS, SIZES]).T, numbers


def test_one_hot_as_scikit_learn():
    values, cardinalities, strings, numbers = coded_table()
    result = np.asarray(encode.one_hot(values, cardinalities))
    expected = OneHotEncoder(sparse_output=False).fit_transform(strings)
    np.testing.assert_array_equal(result[:, 0], numbers)
    np.testing.assert_array_equal(result[:, 2:5], expected[:, :3])
    np.testing.assert_array_equal(result[:, 6:9], expected[:, 3:])
    np.testing.assert_array_equal(result[:, [1, 5]], np.zeros((5, 2)))  # nothing is unknown


def test_unknown_categories_have_a_place_and_missing_ones_none():
    categories = encode.categories(COLOURS)
    codes = encode.codes(["violet", None, "blue"], categories)[:, None]
    assert encode.one_hot(codes, (3,)).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_ordinal_and_embedding_keep_the_codes():
    values, cardinalities, strings, numbers = coded_table()
    ordinal = OrdinalEncoder().fit_transform(strings)
    kept = np.asarray(encode.apply(values, method="ordinal", cardinalities=cardinalities))
    np.testing.assert_array_equal(kept[:, [0, 2]], ordinal + 1)
    np.testing.assert_array_equal(kept[:, 1], numbers)
    looked_up = encode.apply(values, method="embedding", cardinalities=cardinalities)
    np.testing.assert_array_equal(looked_up[:, 0], numbers)
    np.testing.assert_array_equal(looked_up[:, 1:], ordinal + 1)


@given(column=columns, count=st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_buckets_depend_on_the_text_alone(column, count):
    found = encode.buckets(column, count)
    for row, value in enumerate(column):
        if value is None:
            assert np.isnan(found[row])
        else:
            assert 1 <= found[row] <= count
            assert found[row] == encode.buckets([value], count)[0]


def test_buckets_are_the_same_in_another_process_and_fill_evenly():
    program = (
        "from jdlopt.data.preprocess.encode import buckets;"
        "print(buckets(['blau', 'rot', 'grün', '\\ud800'], 1000).astype(int).tolist())"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert printed[0].startswith("[")
    counts = np.bincount(encode.buckets([f"word {n}" for n in range(8000)], 8).astype(int))[1:]
    assert len(counts) == 8
    assert counts.min() > 850 and counts.max() < 1150  # five standard deviations of 30


def test_buckets_become_columns():
    values = np.array([[1.5, 3.0], [2.5, 1.0], [3.5, np.nan]], np.float32)
    expected = [[1.5, 0, 0, 1], [2.5, 1, 0, 0], [3.5, 0, 0, 0]]
    assert encode.apply(values, method="hashed", cardinalities=(0, 3)).tolist() == expected


@pytest.mark.parametrize("method", encode.ENCODINGS)
def test_sizes_names_and_compiled_results_agree(method):
    values, cardinalities, _, _ = coded_table()
    categories = [encode.categories(COLOURS), (), encode.categories(SIZES)]
    names = encode.output_names(
        ["colour", "weight", "size"],
        method=method,
        cardinalities=cardinalities,
        categories=categories,
    )
    eager = encode.apply(values, method=method, cardinalities=cardinalities)
    assert eager.shape == (5, encode.output_size(method, cardinalities)) == (5, len(names))
    assert len(set(names)) == len(names)
    apply = jax.jit(encode.apply, static_argnames=("method", "cardinalities"))
    compiled = apply(values, method=method, cardinalities=cardinalities)
    np.testing.assert_array_equal(compiled, eager)
    if method == "one_hot":
        for row, (colour, size) in enumerate(zip(COLOURS, SIZES, strict=True)):
            marked = {name for name, value in zip(names, eager[row], strict=True) if value == 1.0}
            assert {f"colour={colour}", f"size={size}"} == marked - {"weight"}


def test_what_is_unknown_is_told():
    with pytest.raises(ConfigError, match="Did you mean 'one_hot'"):
        encode.apply(np.zeros((1, 1)), method="onehot", cardinalities=(2,))
    with pytest.raises(ConfigError, match="0 buckets"):
        encode.buckets(["a"], 0)
