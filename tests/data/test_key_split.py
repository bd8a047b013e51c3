"""A split by a key: a hash of it alone decides, whatever other examples there are."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jdlopt.data import open_dataset
from jdlopt.data.given import open_given
from jdlopt.data.key_split import place_of
from jdlopt.data.origin import origins
from jdlopt.data.split import split_indices
from jdlopt.errors import DataError

FRACTIONS = {"test_fraction": 0.25, "validation_fraction": 0.3}
keys = st.lists(st.text(min_size=1, max_size=6), min_size=60, max_size=120, unique=True)


def placed(names, seed=0, fold=None, **fractions):
    """The split of each key."""
    splits = split_indices(
        len(names), labels=None, seed=seed, keys=names, fold=fold, **FRACTIONS | fractions
    )
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(names)))
    return {names[row]: split for split, rows in splits.items() for row in rows}


@given(keys, st.integers(0, 1000), st.integers(20, 59), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_no_example_moves_when_others_come_go_or_change_places(names, seed, few, random):
    everything = placed(names, seed)
    shuffled = random.sample(names, few)
    try:
        some = placed(shuffled, seed)
    except DataError:  # so few that a split is empty
        return
    assert some == {name: everything[name] for name in shuffled}


@given(keys, st.integers(0, 1000), st.integers(2, 5))
@settings(max_examples=30)
def test_folds_share_what_is_not_test_and_the_test_split_is_that_without_folds(names, seed, folds):
    try:
        made = [placed(names, seed, (folds, which)) for which in range(folds)]
    except DataError:
        return
    test = {name for name, split in placed(names, seed).items() if split == "test"}
    held = [{name for name, split in one.items() if split == "validation"} for one in made]
    assert all({n for n, split in one.items() if split == "test"} == test for one in made)
    assert set.union(*held) == set(names) - test and sum(map(len, held)) == len(names) - len(test)


def test_the_place_of_a_key_is_that_of_its_sha256():
    digest = hashlib.sha256("3/test/Zürich".encode()).hexdigest()
    assert place_of("Zürich", 3, "test") == int(digest[:16], 16) / 2**64
    assert place_of("Zu\u0308rich", 3, "test") == place_of("Zürich", 3, "test")
    assert place_of("a", 0, "test") == pytest.approx(PLACE, abs=1e-15)


PLACE = 0.823676236951585
"""Of ``a``, as any other machine has it."""


def test_a_larger_share_takes_all_that_a_smaller_one_took_and_the_seed_counts():
    names = [f"{row}" for row in range(2000)]
    few, many = (placed(names, test_fraction=share) for share in (0.1, 0.2))
    taken = [{n for n, split in one.items() if split == "test"} for one in (few, many)]
    assert taken[0] < taken[1]
    assert [len(one) / 2000 for one in taken] == pytest.approx([0.1, 0.2], abs=0.02)
    assert placed(names, seed=1) != placed(names)


# --- of a source ----------------------------------------------------------------------------------


def table(size, first=0):
    rows = np.arange(first, first + size)
    return pd.DataFrame(
        {
            "id": [f"{row // 2:03}" for row in rows],
            "x": rows * 1.5,
            "y": np.array(["n", "p"])[rows % 2],
        }
    )


def split_of_rows(dataset):
    return {row: split for split, one in origins(dataset).items() for row in one["row"].tolist()}


def test_a_table_that_grows_keeps_its_rows_in_their_splits(tmp_path):
    path = tmp_path / "t.csv"
    section = {"source": str(path), "target": "y", "split_by": "id"}
    table(200).to_csv(path, index=False)
    before = open_dataset(section)
    assert before.spec.input.feature_names == ("x",)  # the key is no feature
    # keys that were all digits are read as before beside one that isn't
    grown = pd.concat(
        [table(200), table(100, 300), pd.DataFrame([{"id": "A7", "x": 0.5, "y": "n"}])]
    )
    grown.to_csv(path, index=False)
    after = open_dataset(section)
    first, second = split_of_rows(before), split_of_rows(after)
    assert {row: second[row] for row in first} == first
    assert all(first[row] == first[row + 1] for row in range(0, 200, 2))  # equal keys together
    assert origins(before)["train"]["key"][0] == "000"
    [note] = [note for note in after.notes if "split_by" in note.what]
    assert note.count == 301 and "not stratified" in note.what
    plain = open_dataset({**section, "stratify": False})
    assert not [note for note in plain.notes if "split_by" in note.what]


def test_files_of_a_folder_go_by_their_paths(tmp_path):
    rng = np.random.default_rng(0)

    def add(names):
        for name in names:
            for kind in ("dark", "light"):
                (tmp_path / kind).mkdir(exist_ok=True)
                grey = rng.integers(0, 256, (4, 4)).astype(np.uint8)
                Image.fromarray(grey).save(tmp_path / kind / f"{name}.png")

    def opened():
        found = origins(open_dataset({"source": str(tmp_path), "split_by": "path"}))
        return {file: split for split, one in found.items() for file in one["file"]}

    add(range(30, 60))
    before = opened()
    add(range(30))
    after = opened()
    assert len(before) == 60 and len(after) == 120
    assert {file: after[file] for file in before} == before
    with pytest.raises(DataError, match=r"data\.split_by: names columns"):
        open_dataset({"source": str(tmp_path), "split_by": "patient"})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"group": "x"}, r"data\.split_by='x' keeps groups together"),
        ({"time": "x"}, r"data\.time and data\.split_by"),
        ({"stratify_bins": 3}, r"data\.stratify_bins and data\.split_by"),
        ({"split_by": "ids"}, r"data\.split_by: there is no column 'ids'. Did you mean 'id'"),
        ({"test_fraction": 1e-6}, r"puts none of 30 keys into the test split"),
    ],
)
def test_what_a_key_can_not_be_had_with_is_refused(keys, said):
    with pytest.raises(DataError, match=said):
        open_given({"source": "", "target": "y", "split_by": "id", **keys}, table(60))


def test_a_row_without_a_key_is_refused_or_left_out():
    frame = table(60)
    frame.loc[7, "id"] = None
    section = {"source": "", "target": "y", "split_by": "id"}
    with pytest.raises(DataError, match=r"row 8 holds a missing value, one of 1 rows"):
        open_given(section, frame)
    dataset = open_given({**section, "on_bad": "skip"}, frame)
    assert dataset.skipped == {"no split_by": 1} and 7 not in split_of_rows(dataset)


def test_arrays_have_no_keys():
    with pytest.raises(DataError, match=r"data\.split_by: names a column or feature"):
        open_given({"source": "", "split_by": "id"}, (np.zeros((9, 2)), np.arange(9) % 2))
    with pytest.raises(DataError, match=r"data\.group: names a column or feature"):
        open_given({"source": "", "group": "id"}, (np.zeros((9, 2)), np.arange(9) % 2))
