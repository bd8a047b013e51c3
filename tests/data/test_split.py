from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)

from jdlopt.data.hold_out import held_out
from jdlopt.data.split import split_indices
from jdlopt.data.stratification import binned
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


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12), st.floats(0.05, 0.95), st.integers(0, 99)
)
@settings(max_examples=80, deadline=None)
def test_what_is_held_out_is_what_scikit_learn_holds_out(counts, fraction, seed):
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    for labels in (None, y):
        found = held_out(len(y), fraction, seed, labels)
        try:
            keys = {"test_size": fraction, "random_state": seed, "stratify": labels}
            _, expected = train_test_split(np.arange(len(y)), **keys)
        except ValueError:
            assert found is None
        else:
            np.testing.assert_array_equal(np.flatnonzero(found), np.sort(expected))


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


# --- groups, times and bins -----------------------------------------------------------------------

FRACTIONS = {"test_fraction": 0.25, "validation_fraction": 0.2, "seed": 3}


def groups_of(size, count, seed=0):
    return np.random.default_rng(seed).integers(0, count, size)


@given(st.integers(30, 120), st.integers(8, 20), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_no_group_is_in_two_splits(size, count, seed):
    groups = groups_of(size, count, seed)
    splits = split_indices(size, labels=None, groups=groups, **FRACTIONS | {"seed": seed})
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(size))
    found = [set(groups[indices]) for indices in splits.values()]
    assert sum(len(one) for one in found) == len(set(groups))
    assert len(found[1]) == np.ceil(len(set(groups)) * 0.25)  # the share is of groups


def test_groups_are_held_out_as_scikit_learn_does():
    groups = groups_of(200, 30)
    splits = split_indices(200, labels=None, groups=groups, **FRACTIONS)
    rows = np.arange(200)
    rest, test = next(
        GroupShuffleSplit(1, test_size=0.25, random_state=3).split(rows, groups=groups)
    )
    train, validation = next(
        GroupShuffleSplit(1, test_size=0.2, random_state=3).split(rest, groups=groups[rest])
    )
    np.testing.assert_array_equal(splits["test"], test)
    np.testing.assert_array_equal(splits["validation"], rest[validation])
    np.testing.assert_array_equal(splits["train"], rest[train])


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_folds_are_scikit_learns(stratified, grouped):
    size, folds = 120, 4
    y, groups = np.arange(size) % 3, groups_of(size, 24)
    splitter = {
        (False, False): KFold(folds, shuffle=True, random_state=5),
        (True, False): StratifiedKFold(folds, shuffle=True, random_state=5),
        (False, True): GroupKFold(folds),
        (True, True): StratifiedGroupKFold(folds, shuffle=True, random_state=5),
    }[stratified, grouped]
    expected = splitter.split(np.zeros(size), y, *([groups] if grouped else []))
    for which, (train, validation) in enumerate(expected):
        splits = split_indices(
            size,
            labels=y if stratified else None,
            groups=groups if grouped else None,
            test_fraction=None,
            validation_fraction=0.1,
            seed=5,
            fold=(folds, which),
        )
        np.testing.assert_array_equal(splits["train"], train)
        np.testing.assert_array_equal(splits["validation"], validation)


@given(st.lists(st.integers(-50, 50), min_size=12, max_size=80), fractions, fractions)
@settings(max_examples=60, deadline=None)
def test_splits_follow_one_another_in_time(times, test, validation):
    times = np.array(times)
    keys = {"labels": None, "test_fraction": test, "validation_fraction": validation, "seed": 0}
    try:
        splits = split_indices(len(times), times=times, **keys)
    except DataError:
        assert len(np.unique(times)) <= 2
        return
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(times)))
    assert times[splits["train"]].max() < times[splits["validation"]].min()
    assert times[splits["validation"]].max() < times[splits["test"]].min()


def test_without_ties_the_splits_in_time_are_as_large_as_asked_for():
    times = np.random.default_rng(0).permutation(101) / 7
    splits = split_indices(101, labels=None, times=times, **FRACTIONS)
    order = np.argsort(times)
    rest, test = train_test_split(order, test_size=0.25, shuffle=False)
    train, validation = train_test_split(rest, test_size=0.2, shuffle=False)
    for name, expected in {"train": train, "validation": validation, "test": test}.items():
        np.testing.assert_array_equal(splits[name], np.sort(expected))


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.5, 3.0, 8.0, 9.0]), min_size=20, max_size=60),
    st.integers(2, 6),
)
@settings(max_examples=40, deadline=None)
def test_bins_are_those_of_pandas(values, bins):
    values = np.array(values)
    expected = pd.qcut(values, bins, labels=False, duplicates="drop")
    if len(np.unique(values)) == 1 or np.unique(expected, return_counts=True)[1].min() < 1:
        return
    np.testing.assert_array_equal(binned(values, bins, least=1), expected)


def test_bins_that_would_be_too_small_are_merged():
    values = np.random.default_rng(0).normal(size=23)
    for bins, least in [(10, 2), (10, 4), (10, 8), (3, 12)]:
        counts = np.unique(binned(values, bins, least), return_counts=True)[1]
        assert counts.min() >= least
        assert len(counts) <= bins
    assert len(np.unique(binned(values, 10, 2))) == 10


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"groups": np.zeros(40, int), "times": np.arange(40)}, "by one of them"),
        ({"times": np.arange(40), "fold": (4, 0)}, "trained on what came after"),
        ({"times": np.zeros(40)}, "40 examples of 1 different times"),
        ({"groups": np.zeros(40, int)}, "1 groups can't give data.test_fraction"),
        ({"groups": np.arange(40) % 3, "fold": (4, 0)}, "[23] groups for 4 folds"),
        ({"times": np.arange(40), "labels": np.repeat([0, 1], [25, 15])}, "no training .*: late"),
    ],
)
def test_splits_that_can_not_be_made(keys, message):
    keys = {"labels": None, "class_names": ["early", "late"], **FRACTIONS, **keys}
    if "labels" in keys and keys["labels"] is not None:
        keys["test_fraction"] = 0.4
    with pytest.raises(DataError, match=message):
        split_indices(40, **keys)
