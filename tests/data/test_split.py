from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt.data.split import split_indices
from jdlopt.errors import DataError

fractions = st.floats(0.1, 0.5)


@st.composite
def labels(draw):
    counts = draw(st.lists(st.integers(12, 60), min_size=2, max_size=5))
    values = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(values)


@given(labels(), fractions, fractions, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_stratified_splits_are_disjoint_complete_and_proportional(y, test, validation, seed):
    keys = {"test_fraction": test, "validation_fraction": validation, "seed": seed}
    splits = split_indices(len(y), labels=y, **keys)
    everything = np.concatenate(list(splits.values()))
    assert sorted(everything.tolist()) == list(range(len(y)))
    assert len(splits["test"]) == np.ceil(len(y) * test)
    for name, whole in [
        ("test", np.arange(len(y))),
        ("validation", np.sort(np.concatenate([splits["train"], splits["validation"]]))),
    ]:
        share = len(splits[name]) / len(whole)
        for label in np.unique(y):
            expected = share * (y[whole] == label).sum()
            assert abs((y[splits[name]] == label).sum() - expected) <= 1
        assert (np.diff(splits[name]) > 0).all()


@given(st.integers(10, 300), fractions, fractions, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_same_seed_same_splits_and_test_is_independent_of_validation(size, test, validation, seed):
    def split(validation_fraction):
        return split_indices(
            size,
            labels=None,
            test_fraction=test,
            validation_fraction=validation_fraction,
            seed=seed,
        )

    first, second = split(validation), split(validation)
    assert all((first[name] == second[name]).all() for name in first)
    assert (split(0.3)["test"] == first["test"]).all()


def test_other_seed_other_split():
    keys = {"labels": None, "test_fraction": 0.5, "validation_fraction": 0.5}
    assert not np.array_equal(
        split_indices(100, seed=0, **keys)["test"], split_indices(100, seed=1, **keys)["test"]
    )


def test_no_fraction_no_split():
    splits = split_indices(5, labels=None, test_fraction=None, validation_fraction=None, seed=0)
    assert list(splits) == ["train"]
    assert splits["train"].tolist() == [0, 1, 2, 3, 4]


def test_rare_class_is_named():
    y = np.array([0] * 20 + [1] * 20 + [2] * 2)
    with pytest.raises(DataError, match=r"rare \(2\).*data.stratify=False"):
        split_indices(
            len(y),
            labels=y,
            test_fraction=0.2,
            validation_fraction=0.2,
            seed=0,
            class_names=["a", "b", "rare"],
        )


def test_too_few_examples():
    with pytest.raises(DataError, match=r"test_fraction=0.2 to the test split"):
        split_indices(1, labels=None, test_fraction=0.2, validation_fraction=0.2, seed=0)
    y = np.arange(30) % 10
    with pytest.raises(DataError, match=r"validation_fraction=0.1 to the validation split"):
        split_indices(30, labels=y, test_fraction=0.4, validation_fraction=0.1, seed=0)
