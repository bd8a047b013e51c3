from __future__ import annotations

import numpy as np
import pytest

from jdlopt.data.targets import encode, infer_coding
from jdlopt.errors import DataError


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
    ],
)
def test_task_is_inferred_from_type_and_distinct_values(values, task):
    assert infer_coding(np.array(values), "auto", "y").task == task


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


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ([], "auto", "is empty"),
        ([1.0, np.nan], "auto", "1 missing values .NaN., the first in row 2"),
        (np.array(["a", None], dtype=object), "auto", "first in row 2"),
        (["a", "a"], "auto", "one class only"),
        ([0.5, 0.5], "auto", "one value only"),
        (["1", "x"], "regression", "row 2 holds 'x'.*data.task='classification'"),
        ([0.5, np.inf], "regression", "row 2 holds .*finite"),
        (np.eye(3), "auto", "shape .3, 3.*argmax"),
    ],
)
def test_wrong_targets(values, task, message):
    with pytest.raises(DataError, match=message):
        infer_coding(np.asarray(values), task, "y")


def test_a_class_unknown_in_training_is_named():
    coding = infer_coding(np.array(["a", "b"]), "auto", "y")
    with pytest.raises(DataError, match=r"row 2 has class .*'c'.*Known: a, b"):
        encode(np.array(["a", "c"]), coding, "y")
