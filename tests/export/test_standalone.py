"""What a bundle reads without jdlopt is what jdlopt reads; the rest is refused in words."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt.data.columns import number_columns
from jdlopt.data.notation import Notation, parse
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.errors import DataError
from jdlopt.export.manifest import describe_inputs, describe_outputs, spec_of
from jdlopt.export.standalone.answers import decoded, differs
from jdlopt.export.standalone.examples import _written, read_arrays, read_rows, read_tensors
from jdlopt.export.standalone.opening import (
    Bundle,
    Column,
    Input,
    InputError,
    Outputs,
    _input_of,
)
from jdlopt.tasks import find_task

TABLE = InputSpec(
    (4,),
    "float32",
    ("age", "price", "town", "when"),
    missing="fill",
    categories={"town": ("Berlin", "NA", "Oslo")},
    offsets=(0, 0, 0, 1_700_000_000),
    notations={"price": Notation(",", "€")},
)


def bundle_of(spec, outputs=None):
    """Returns a bundle without a model: what is read for it."""
    data = DataSpec("data", "data", "classification", spec, {"train": 0}, ("a", "b"))
    inputs = tuple(_input_of(one) for one in describe_inputs(data))
    classes = Outputs("classification", ("a", "b"), (), 1, None)
    return Bundle("data", None, {}, inputs, outputs or classes, lambda arrays: {})


# --- the same as in training ----------------------------------------------------------------------

NUMBERS = st.one_of(
    st.none(),
    st.integers(-(10**6), 10**6),
    st.floats(-1e30, 1e30),
)


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(
            NUMBERS,
            st.sampled_from(["1.234,5 €", "€7", "-3,25", "12", None]),
            st.sampled_from(["Berlin", " Oslo ", "Rome", "NA", None]),
            st.integers(1_700_000_000 - 50, 1_700_000_000 + 50),
        ),
        min_size=1,
        max_size=6,
    ).filter(lambda rows: any(row[2] for row in rows))
)
def test_rows_are_coded_as_in_training(rows):
    names = TABLE.feature_names
    frame = pd.DataFrame(
        {name: [row[place] for row in rows] for place, name in enumerate(names)}
    ).astype({"price": object, "town": object, "when": "int64", "age": "float64"})
    expected = number_columns(frame, TABLE, "frame")
    given_rows = [dict(zip(names, row, strict=True)) for row in rows]
    found = read_rows(bundle_of(TABLE), given_rows).arrays["input"]
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=40)
@given(
    text=st.from_regex(r"[-+−(]?[$€]?[0-9.,' :()]{1,9}(kg|%| €)?", fullmatch=True),
    notation=st.sampled_from(
        [Notation(), Notation(","), Notation(".", "kg"), Notation(",", "€"), Notation(":")]
    ),
)
def test_numbers_are_read_as_jdlopt_reads_a_notation(text, notation):
    expected = parse([text], notation)[0]
    found = _written(text, Column("x", decimal=notation.decimal, unit=notation.affix))
    assert (found is None and np.isnan(expected)) or found == expected


def test_hashed_categories_fall_into_the_buckets_of_training():
    spec = dataclasses.replace(TABLE, hash_buckets=7)
    frame = pd.DataFrame({"age": [1.0], "price": ["1"], "town": ["Rome"], "when": [1_700_000_000]})
    found = read_rows(bundle_of(spec), frame.to_dict("records")).arrays["input"]
    np.testing.assert_array_equal(found, number_columns(frame, spec, "frame"))


@pytest.mark.parametrize(
    "spec",
    [
        TABLE,
        InputSpec((28, 28, 1), "uint8"),
        InputSpec((5,), "float32", offsets=(0, 1, 2, 3, 1e9)),
        InputSpec((2,), "float32", ("a", "b"), missing_values=("-",), hash_buckets=None),
        {"table": TABLE, "photo": InputSpec((8, 8, 3), "uint8", column="path")},
        InputSpec((16_000, 1), "float32", sample_rate=16_000),
    ],
)
def test_a_manifest_gives_back_what_it_was_made_of(spec):
    data = DataSpec("d", "d", "regression", spec, {"train": 0}, target_dtype="float32")
    said = {
        "name": "d",
        "inputs": describe_inputs(data),
        "outputs": describe_outputs(data, {"outputs": (1,)}),
    }
    assert spec_of(said, "here") == data


def test_outputs_mean_what_the_task_says():
    rng = np.random.default_rng(0)
    for task, classes, threshold in (
        ("classification", ("a", "b"), 0.3),
        ("classification", ("a", "b", "c"), None),
        ("multilabel", ("a", "b", "c"), (0.2, 0.5, 0.9)),
        ("multilabel", ("a", "b", "c"), None),
    ):
        shares = rng.random((9, len(classes))).astype(np.float32)
        spec = DataSpec("d", "d", task, TABLE, {"train": 0}, classes, target_shape=())
        spec = dataclasses.replace(spec, decision=spec.decision._replace(threshold=threshold))
        of_task = find_task(task)
        expected = of_task.columns(of_task.decode(shares, shares, spec), shares, spec)
        bundle = bundle_of(TABLE, Outputs(task, classes, (), 1, threshold))
        assert decoded(bundle, {"probabilities": shares}) == expected


# --- what can't be read ---------------------------------------------------------------------------

GOOD = {"age": 3, "price": "2,5", "town": "Oslo", "when": 1_700_000_001}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"age": "old"}, "row 1, column 'age': found 'old', expected a finite number"),
        ({"age": "1,5"}, "column 'age': found '1,5', expected a finite number"),
        ({"age": 10**400}, "column 'age': found 1000000"),
        ({"age": [1]}, "column 'age': found a list, expected a finite number"),
        ({"town": {"a": 1}}, "column 'town': found an object, expected a text, such as 'Berlin'"),
        ({"price": "1" + "a" * 10**6 + "1"}, "column 'price': found '1aaa"),
        ({"age": "\u200b" * 10**6 + "x"}, "column 'age': found 'x'"),
        ({"price": "2.5.1"}, "expected a number, in texts with a decimal comma, in '€'"),
    ],
)
def test_a_cell_that_can_not_be_used_is_named(change, said):
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        read_rows(bundle_of(TABLE), [{**GOOD, **change}])


def test_a_missing_value_is_refused_where_nothing_fills_it_in():
    strict = bundle_of(dataclasses.replace(TABLE, missing="refuse"))
    with pytest.raises(InputError, match="row 2, column 'age': the value is missing"):
        read_rows(strict, [GOOD, {**GOOD, "age": None}])
    with pytest.raises(InputError, match=r"lacks 1 of 4 columns: 'age'.* Found: 'Age'"):
        read_rows(strict, [{"Age": 1, **{k: v for k, v in GOOD.items() if k != "age"}}])
    assert "Rome" in read_rows(strict, [{**GOOD, "town": "Rome"}]).notes[0]


def test_arrays_of_another_shape_type_or_name_are_refused():
    image = bundle_of(InputSpec((4, 4, 1), "uint8"))
    assert read_arrays(image, {"input": np.zeros((2, 4, 4), "uint8")}).arrays["input"].ndim == 4
    for given_arrays, said in (
        ({"input": np.zeros((2, 5, 4, 1), "uint8")}, r"has shape \[2, 5, 4, 1\]; expected 'input'"),
        ({"input": np.full((1, 4, 4, 1), 0.5)}, "expected whole numbers from 0 to 255"),
        ({"input": np.full((1, 4, 4, 1), np.nan)}, "missing or infinite"),
        ({"inputs": np.zeros((2, 4, 4, 1))}, "no input 'inputs'. Did you mean 'input'"),
        ({}, "input 'input' is missing"),
        ({"input": np.array(["a"])}, "holds <U1, expected uint8"),
    ):
        with pytest.raises(InputError, match=said):
            read_arrays(image, given_arrays)


def test_texts_are_rows_where_their_tokenizer_is():
    spec = {"table": TABLE, "words": InputSpec((2,), "int32")}
    alone = bundle_of(spec)
    with pytest.raises(InputError, match="the model takes arrays, no rows"):
        read_rows(alone, [{**GOOD, "review": "fine"}])
    known = alone._replace(
        texts={"words": ("review", lambda texts: np.array([[len(text), 0] for text in texts]))}
    )
    rows = [{**GOOD, "review": "fine"}, {**GOOD, "review": None}]
    assert read_rows(known, rows).arrays["words"].tolist() == [[4, 0], [0, 0]]
    with pytest.raises(InputError, match="column 'review': found a number, expected a text"):
        read_rows(known, [{**GOOD, "review": 3}])


@given(request=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["inputs", "name", "shape", "datatype", "data", "input", "FP32"]), inner
    ),
    max_leaves=12,
))  # fmt: skip
def test_any_json_is_read_or_refused_in_words(request):
    one = Input("input", (2,), "float32", None, False, frozenset(), None, ())
    bundle = bundle_of(TABLE)._replace(inputs=(one,))
    for content in (
        request,
        {"inputs": [request]},
        {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 2], "data": request}]},
    ):
        with contextlib.suppress(InputError):  # and nothing else
            assert read_tensors(bundle, content).arrays["input"].shape == (1, 2)


def test_answers_differ_by_more_than_a_tolerance_or_not():
    one = {"predictions": [{"prediction": "a", "probability_a": 0.5}]}
    near = {"predictions": [{"prediction": "a", "probability_a": 0.50001}]}
    assert not differs(one, near, 1e-4)
    assert "probability_a" in differs(one, near, 1e-6)
    assert "prediction" in differs(one, {"predictions": [{"prediction": "b"}]}, 1.0)


def test_a_frame_that_training_would_refuse_is_refused(tmp_path):
    frame = pd.DataFrame([{**GOOD, "age": "old"}])
    with pytest.raises(DataError):
        number_columns(frame, TABLE, "frame")
    with pytest.raises(InputError):
        read_rows(bundle_of(TABLE), frame.to_dict("records"))
