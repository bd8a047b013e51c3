from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.data.targets import encode, infer_coding
from jdlopt.errors import ConfigError, DataError

BITS = np.array([[1, 0], [1, 1], [0, 0]])


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b", "a"], "classification"),
        ([True, False, True], "classification"),
        ([0, 1, 2], "classification"),
        ([0.0, 1.0, 2.0], "classification"),
        ([0.5, 1.0, 2.0], "regression"),
        (list(range(20)), "classification"),
        (list(range(21)), "regression"),
        (np.eye(3), "classification"),
        (BITS, "multilabel"),
        (BITS.astype(bool), "multilabel"),
        (BITS.astype(float), "multilabel"),
        (BITS * 2, "regression"),
        (BITS + 0.5, "regression"),
    ],
)
def test_task_is_inferred_from_type_and_distinct_values(values, task):
    coding = infer_coding(np.array(values), "auto", "y")
    assert coding.task == task
    guessed = np.ndim(values) == 2  # the same numbers could mean another task
    assert [note.kind for note in coding.notes] == ["guessed"] * guessed
    assert all("data.task=" in str(note) for note in coding.notes)


def test_classes_are_sorted_by_value_and_named():
    values = np.array([10, 9, 10, 2])
    coding = infer_coding(values, "auto", "y")
    assert coding.class_names == ("2", "9", "10")
    assert encode(values, coding, "y").tolist() == [2, 1, 2, 0]
    assert encode(values, coding, "y").dtype == np.int32
    assert infer_coding(np.array([1.0, 0.0]), "auto", "y").class_names == ("0", "1")


def test_a_task_that_is_set_wins():
    assert infer_coding(np.arange(30), "classification", "y").class_names[-1] == "29"
    coding = infer_coding(np.array([0, 1, 1]), "regression", "y")
    assert coding.task == "regression"
    assert coding.class_names == ()
    assert encode(np.array([0, 1]), coding, "y").dtype == np.float32
    assert infer_coding(np.eye(3), "multilabel", "y").shape == (3,)
    assert infer_coding(BITS, "regression", "y").outputs == ("0", "1")


def test_one_hot_rows_are_classes():
    coding = infer_coding(np.eye(3), "auto", "y", names=("a", "b", "c"))
    assert coding.class_names == ("a", "b", "c")
    assert encode(np.eye(3)[[2, 0]], coding, "y").tolist() == [2, 0]
    with pytest.raises(DataError, match=r"row 2 holds \[0.0, 0.0, 0.0\].*'multilabel'"):
        encode(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), coding, "y")


@given(st.lists(st.sets(st.sampled_from(["a", "b c", "d"])), min_size=1, max_size=9))
def test_labels_of_a_text_and_of_columns_are_the_same(rows):
    rows = [{"a", "d"}, {"b c"}, *rows]
    texts = np.array(["|".join(sorted(row)) or None for row in rows], dtype=object)
    spaced = np.array([None if text is None else f" {text} |" for text in texts], dtype=object)
    columns = np.array([[label in row for label in ("a", "b c", "d")] for row in rows])
    coding = infer_coding(texts, "auto", "y", delimiter="|")
    assert (coding.task, coding.class_names, coding.shape) == (
        "multilabel",
        ("a", "b c", "d"),
        (3,),
    )
    same = infer_coding(columns, "multilabel", "y", names=("a", "b c", "d"))
    for values in (texts, spaced):
        np.testing.assert_array_equal(encode(values, coding, "y"), columns)
    np.testing.assert_array_equal(encode(columns, same, "y"), columns)
    assert encode(texts, coding, "y").dtype == np.int32


def test_several_numbers_are_named_and_kept():
    values = np.array([[0.5, 3.0], [1.5, 4.0]])
    coding = infer_coding(values, "auto", "y", names=("height", "weight"))
    assert (coding.outputs, coding.shape, coding.dtype) == (("height", "weight"), (2,), "float32")
    np.testing.assert_array_equal(encode(values, coding, "y"), values.astype(np.float32))
    with pytest.raises(DataError, match=r"row 2, 'weight' holds .*finite"):
        encode(np.array([[0.5, 3.0], [1.5, np.inf]]), coding, "y")


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ([], "auto", "is empty"),
        ([1.0, np.nan], "auto", "1 missing values .NaN., the first in row 2"),
        (np.array(["a", None], dtype=object), "auto", "first in row 2"),
        ([[1, 0], [np.nan, 1]], "auto", "the first in row 2, 'column 1'"),
        (["a", "a"], "auto", "one class only"),
        ([0.5, 0.5], "auto", "one value only"),
        ([[0, 1], [0, 1]], "multilabel", r"one set of labels only .\[0, 1\]"),
        (["1", "x"], "regression", "row 2 holds 'x'.*data.task='classification'"),
        ([0.5, np.inf], "regression", "row 2 holds .*finite"),
        (np.zeros((3, 2, 2)), "auto", "shape .3, 2, 2.*task of your own"),
        (BITS, "classification", "row 2 holds .1, 1..*'multilabel'"),
        ([[1, 0], [0, 2]], "multilabel", "row 2, 'column 2' holds 2; a label is there"),
        (["a|b", "b"], "multilabel", "data.label_delimiter='|'"),
    ],
)
def test_wrong_targets(values, task, message):
    with pytest.raises(DataError, match=message):
        infer_coding(np.asarray(values), task, "y")


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (["", ""], "auto", "no example has a label"),
        (["a|b", "b | a"], "auto", "one set of labels only"),
        (["a", "", "a"], "auto", "one label only, 'a'; is ';' what stands between"),
        (["a|b", "b"], "classification", "data.label_delimiter: .*Leave one of them out"),
    ],
)
def test_wrong_texts_of_labels(values, task, message):
    delimiter = ";" if "one label" in message else "|"
    with pytest.raises(DataError, match=message):
        infer_coding(np.asarray(values), task, "y", delimiter=delimiter)


def test_a_class_or_label_unknown_in_training_is_named():
    coding = infer_coding(np.array(["a", "b"]), "auto", "y")
    with pytest.raises(DataError, match=r"row 2 has class .*'c'.*Known: a, b"):
        encode(np.array(["a", "c"]), coding, "y")
    labels = infer_coding(np.array(["a|b", "b"]), "auto", "y", delimiter="|")
    with pytest.raises(DataError, match=r"row 2 has label 'c'.*Known: a, b"):
        encode(np.array(["a", "b|c"]), labels, "y")


def test_an_unknown_task_is_an_error_that_names_the_nearest():
    with pytest.raises(ConfigError, match=r"data.task 'multilable' is unknown.*'multilabel'"):
        infer_coding(BITS, "multilable", "y")
