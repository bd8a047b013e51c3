"""Several targets an example: labels and numbers, the same from every kind of source."""

from __future__ import annotations

import collections

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tfds_files import prepare

from jdlopt.data import open_dataset
from jdlopt.data.check import check_source
from jdlopt.data.combined_labels import combined, remedy
from jdlopt.data.stratification import dealt
from jdlopt.errors import DataError

RNG = np.random.default_rng(0)
N = 60
X = RNG.normal(size=(N, 3)).astype(np.float32)
LABELS = (RNG.random((N, 3)) < 0.4).astype(np.int32)
LABELS[:, 2] |= LABELS.sum(axis=1) == 0
LABELS[:2] = [[0, 0, 0], [1, 1, 0]]
NAMES = ("action", "drama", "war")
NUMBERS = RNG.normal(size=(N, 2)).astype(np.float32)
TEXTS = ["|".join(np.array(NAMES)[row == 1]) for row in LABELS]


def table(tmp_path, **columns):
    path = tmp_path / "films.csv"
    pd.DataFrame({**{f"x{i}": X[:, i] for i in range(3)}, **columns}).to_csv(path, index=False)
    return path


def labels_file(tmp_path, **columns):
    for index in range(N):
        pixels = np.full((4, 4), index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    files = [f"{index}.png" for index in range(N)]
    pd.DataFrame({"file": files, **columns}).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


def whole(dataset):
    """Returns the targets of all splits, in the order of the source."""
    found = np.empty((N, *dataset.targets("train").shape[1:]), dataset.targets("train").dtype)
    for split, (_, rows) in dataset.parts.items():
        found[rows] = dataset.targets(split)
    return found


def columns(values, names):
    return dict(zip(names, values.T, strict=True))


def opened(tmp_path, source):
    """Opens the labels of `LABELS` from a kind of source."""
    if source == "columns":
        path = table(tmp_path, **columns(LABELS, NAMES))
        return open_dataset({"source": str(path), "target": NAMES})
    if source == "booleans":
        path = table(tmp_path, **columns(LABELS.astype(bool), NAMES))
        return open_dataset({"source": str(path), "target": NAMES})
    if source == "text":
        path = table(tmp_path, genre=TEXTS)
        return open_dataset({"source": str(path), "target": "genre", "label_delimiter": "|"})
    if source == "npz":
        np.savez(tmp_path / "films.npz", x=X, y=LABELS, target_names=np.array(NAMES))
        return open_dataset({"source": str(tmp_path / "films.npz")})
    if source == "npz of texts":
        np.savez(tmp_path / "films.npz", x=X, y=np.array(TEXTS))
        return open_dataset({"source": str(tmp_path / "films.npz"), "label_delimiter": "|"})
    if source == "labels.csv":
        return open_dataset({"source": str(labels_file(tmp_path, **columns(LABELS, NAMES)))})
    if source == "labels.csv of texts":
        folder = labels_file(tmp_path, genre=TEXTS)
        return open_dataset({"source": str(folder), "label_delimiter": "|"})
    features, target = {
        "tfds list": (lambda tfds: tfds.features.Sequence(tfds.features.ClassLabel(names=NAMES)),
                      [np.flatnonzero(row).tolist() for row in LABELS]),
        "tfds dict": (lambda tfds: dict.fromkeys(NAMES, np.bool_),
                      [dict(zip(NAMES, row.astype(bool), strict=True)) for row in LABELS]),
    }[source]  # fmt: skip
    rows = [{"x": x, "y": y} for x, y in zip(X, target, strict=True)]
    folder = prepare(
        tmp_path,
        "films",
        lambda tfds: {
            "x": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "y": features(tfds),
        },
        {"train": rows},
        keys=("x", "y"),
    )
    return open_dataset({"source": str(folder)})


@pytest.mark.parametrize(
    "source",
    [
        "columns", "booleans", "text", "npz", "npz of texts", "labels.csv", "labels.csv of texts",
        "tfds list", "tfds dict",
    ],
)  # fmt: skip
def test_labels_are_the_same_from_every_source(tmp_path, source):
    dataset = opened(tmp_path, source)
    assert dataset.spec.task == "multilabel"
    assert dataset.spec.class_names == NAMES
    assert (dataset.spec.target_shape, dataset.spec.target_dtype) == ((3,), "int32")
    np.testing.assert_array_equal(whole(dataset), LABELS)


@pytest.mark.parametrize("source", ["columns", "npz", "labels.csv", "tfds row", "tfds scalars"])
def test_several_numbers_are_the_same_from_every_source(tmp_path, source):
    names = ("height", "weight")
    section = {"target": names}
    if source == "columns":
        section["source"] = str(table(tmp_path, **columns(NUMBERS, names)))
    elif source == "npz":
        np.savez(tmp_path / "films.npz", x=X, y=NUMBERS, target_names=np.array(names))
        section = {"source": str(tmp_path / "films.npz")}
    elif source == "labels.csv":
        section["source"] = str(labels_file(tmp_path, **columns(NUMBERS, names)))
    else:
        row = source == "tfds row"
        rows = [
            {"x": x, **({"y": y} if row else dict(zip(names, y, strict=True)))}
            for x, y in zip(X, NUMBERS, strict=True)
        ]

        def features(tfds):
            several = tfds.features.Tensor(shape=(2,), dtype=np.float32)
            targets = {"y": several} if row else dict.fromkeys(names, np.float32)
            return {"x": tfds.features.Tensor(shape=(3,), dtype=np.float32), **targets}

        section["source"] = str(prepare(tmp_path, "films", features, {"train": rows}))
        section |= {"target": "y"} if row else {}
        names = ("0", "1") if row else names
    dataset = open_dataset(section)
    assert (dataset.spec.task, dataset.spec.target_names) == ("regression", names)
    assert dataset.spec.target_dtype == "float32"
    np.testing.assert_allclose(whole(dataset), NUMBERS, rtol=1e-6)


def test_a_list_of_files_with_one_class_each_and_splits_of_its_own(tmp_path):
    kinds = np.array(["bee", "ant"])[np.arange(N) % 2]
    splits = np.array(["train", "val", "test"])[np.arange(N) // 20]
    folder = labels_file(tmp_path, kind=kinds, split=splits, place=np.arange(N) // 4)
    dataset = open_dataset({"source": str(folder), "target": "kind"})
    assert (dataset.spec.task, dataset.spec.class_names) == ("classification", ("ant", "bee"))
    assert dataset.sizes == {"train": 20, "validation": 20, "test": 20}
    inputs, targets = dataset.read("test")
    np.testing.assert_array_equal(inputs[:, 0, 0, 0], np.arange(40, 60))
    np.testing.assert_array_equal(targets, 1 - np.arange(40, 60) % 2)


def test_a_list_of_files_may_group_and_skip(tmp_path):
    folder = labels_file(tmp_path, size=np.linspace(0, 1, N), place=np.arange(N) // 4)
    (folder / "3.png").unlink()
    section = {"source": str(folder), "target": "size", "group": "place", "ignore": ()}
    with pytest.raises(DataError, match=r"row 4: no such image: '3.png'"):
        open_dataset(section)
    dataset = open_dataset({**section, "on_bad": "skip"})
    assert dataset.spec.task == "regression"
    assert dataset.skipped == {"no such image": 1}
    places = [set((whole_rows(dataset, split)) // 4) for split in dataset.parts]
    assert not places[0] & places[1] and not places[0] & places[2]


def whole_rows(dataset, split):
    return dataset.read(split).inputs[:, 0, 0, 0]


@pytest.mark.parametrize(
    ("columns_of", "section", "message"),
    [
        ({"a": ["x"] * N, "b": NUMBERS[:, 0]}, {"target": ("a", "b")}, "row 1 holds 'x' in 'a'"),
        ({"a": NUMBERS[:, 0]}, {"target": ("a", "c")}, "there is no column 'c'"),
        ({"a": NUMBERS[:, 0]}, {"target": ("a", "a")}, "names a column twice"),
        ({"a": TEXTS}, {"target": "a", "label_delimiter": " "}, "data.label_delimiter: is blank"),
        ({"a": TEXTS}, {"target": "a", "task": "multilabel"}, "data.label_delimiter='|'"),
        (columns(LABELS, NAMES), {"target": NAMES, "sampling": "balanced"}, "one class"),
        (columns(LABELS, NAMES), {"target": NAMES, "task": "classification"}, "'multilabel'"),
        (
            columns(NUMBERS, "ab"),
            {"target": ("a", "b"), "stratify_bins": 3},
            "data.stratify_bins: bins the one number",
        ),
    ],
)
def test_what_several_targets_can_not_be(tmp_path, columns_of, section, message):
    path = table(tmp_path, **columns_of)
    with pytest.raises(DataError) as error:
        open_dataset({"source": str(path), **section})
    assert message in str(error.value)


def test_rows_without_all_their_targets_are_left_out(tmp_path):
    values = NUMBERS.copy()
    values[5, 1] = np.nan
    path = table(tmp_path, **columns(values, "ab"))
    section = {"source": str(path), "target": ("a", "b")}
    with pytest.raises(DataError, match=r"1 missing values .NaN., the first in row 6, 'b'"):
        open_dataset(section)
    dataset = open_dataset({**section, "on_bad": "skip"})
    assert dataset.skipped == {"no target": 1}
    assert sum(dataset.sizes.values()) == N - 1


@given(
    seed=st.integers(0, 1000),
    size=st.integers(20, 120),
    labels=st.integers(2, 6),
    share=st.floats(0.05, 0.9),
)
@settings(max_examples=30, deadline=None)
def test_each_part_gets_its_share_of_every_label(seed, size, labels, share):
    there = (np.random.default_rng(seed).random((size, labels)) < share).astype(np.int32)
    shares = (0.7, 0.3)
    part = dealt(there, shares, seed)
    np.testing.assert_array_equal(part, dealt(there, shares, seed))
    assert set(np.unique(part)) == {0, 1}
    rarest = np.argmin(np.where(there.sum(axis=0) > 0, there.sum(axis=0), size + 1))
    for place, wanted in enumerate(shares):  # exact for the label that is dealt out first
        count = there[part == place][:, rarest].sum()
        assert abs(count - wanted * there[:, rarest].sum()) <= 1


@pytest.mark.parametrize("decimal", [None, ","])
def test_a_list_of_labels_is_read_by_the_rules_of_a_table(tmp_path, decimal):
    place = labels_file(tmp_path, score=[f"{row},5" for row in range(1, N + 1)])
    section = {"source": str(place), "target": "score", "decimal": decimal}
    dataset = open_dataset(section)
    assert whole(dataset).tolist() == [row + 0.5 for row in range(1, N + 1)]
    assert decimal or "decimal comma" in " ".join(map(str, dataset.notes))
    labels_file(tmp_path, score=["None", "b"] * (N // 2))
    with pytest.raises(DataError, match=r"'None' \d+ times.*data\.missing_values"):
        open_dataset(section)
    assert open_dataset({**section, "missing_values": ()}).spec.class_names == ("None", "b")


# --- several labels taken for one -----------------------------------------------------------------

GENRES = ["action", "drama", "war", "action|drama", "drama|war", "action|drama|war"]


def labelled_table(folder, labels):
    frame = pd.DataFrame({"x": np.arange(len(labels)) % 7, "genre": labels})
    frame.to_csv(folder / "films.csv", index=False)
    return {"source": str(folder / "films.csv"), "target": "genre"}


@pytest.mark.parametrize(("delimiter", "told"), [(None, True), (";", True), ("|", False)])
def test_combinations_that_are_taken_for_one_label_are_told(tmp_path, delimiter, told):
    section = labelled_table(tmp_path, GENRES * 20)
    section |= {"label_delimiter": delimiter}
    notes = [str(note) for note in open_dataset(section).notes]
    found = [one for one in check_source(section).findings if one.kind == "combined_labels"]
    assert bool(found) is told is any("data.label_delimiter='|'" in note for note in notes)
    if told:
        assert found[0].severity == "warning" and "'|' in it" in found[0].text
        key = found[0].config if delimiter is None else found[0].advice
        assert "data.label_delimiter='|'" in key


@pytest.mark.parametrize(
    "labels",
    [
        ["Boston, MA", "New York, NY", "Lowell, MA", "Austin, TX"],
        ["(0,10]", "(10,20]", "(20,30]"],
        ["yes", "no"],
        [str(n) for n in range(40)],
    ],
)
def test_names_with_a_separator_in_them_are_one_label(tmp_path, labels):
    section = labelled_table(tmp_path, labels * 20) | {"task": "classification"}
    assert not [note for note in open_dataset(section).notes if "label_delimiter" in str(note)]
    kinds = {one.kind for one in check_source(section).findings}
    assert "combined_labels" not in kinds


def test_labels_of_which_nearly_every_example_has_its_own_are_told():
    counts = {f"a text of its own {n}": 1 for n in range(50)} | {"again": 30}
    assert combined(counts, 80).separator is None
    assert "data.target" in remedy(combined(counts, 80), None)
    assert combined({str(n): 10 for n in range(50)}, 500) is None


@given(
    st.lists(st.sets(st.sampled_from("abcde"), min_size=1), min_size=20, max_size=60),
    st.sampled_from("|;,"),
)
def test_splitting_is_advised_only_where_labels_come_back(sets, separator):
    texts = [separator.join(sorted(one)) for one in sets]
    counts = collections.Counter(texts)
    found = combined(counts, len(texts))
    apart = {label for one in sets for label in one}
    if found is not None and found.separator is not None:
        assert found.separator == separator and found.apart == len(apart) <= len(counts)


def test_a_target_in_one_text_names_several_columns(tmp_path):
    frame = pd.DataFrame({"x": range(60), "a": [0, 1, 1] * 20, "b": [1, 1, 0] * 20})
    frame.to_csv(tmp_path / "t.csv", index=False)
    section = {"source": str(tmp_path / "t.csv"), "target": "a, b"}
    assert open_dataset(section).spec.class_names == ("a", "b")
    assert check_source(section).count("error") == 0
    frame.assign(**{"a, b": [0, 1] * 30}).to_csv(tmp_path / "t.csv", index=False)
    assert open_dataset(section).spec.class_names == ("0", "1")  # a column of that very name
    with pytest.raises(DataError, match=r"data\.target: there is no column 'd'"):
        open_dataset({**section, "target": "a,d"})
