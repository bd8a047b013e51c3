"""What a person writes in a table is what a model is given, or it is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from jdlopt.data import Arrays, open_dataset, read_inputs
from jdlopt.data.check.cells import read_cells
from jdlopt.data.given import open_given
from jdlopt.data.notation import Notation, find, parse
from jdlopt.data.preprocess import apply, fit, make_recipe
from jdlopt.errors import DataError

ROWS = 60
NUMBERS = np.random.default_rng(0).normal(5_000, 3_000, ROWS).round(2)
LABELS = ["yes" if row % 3 else "no" for row in range(ROWS)]


def point(value: float) -> str:
    return f"{value:,.2f}"


def comma(value: float) -> str:
    return point(value).translate(str.maketrans(",.", ".,"))


WRITTEN = {
    "decimal comma": lambda value: f"{value:.2f}".replace(".", ","),
    "comma and points": comma,
    "point and commas": point,
    "spaces": lambda value: point(value).replace(",", " "),
    "no-break spaces": lambda value: comma(value).replace(".", "\u00a0"),
    "thin spaces": lambda value: comma(value).replace(".", "\u202f"),
    "apostrophes": lambda value: point(value).replace(",", "'"),
    "percent": lambda value: f"{value:.2f} %",
    "percent comma": lambda value: f"{comma(value)}%",
    "dollars": lambda value: ("-" if value < 0 else "") + f"${point(abs(value))}",
    "euros": lambda value: f"{comma(value)} €",
    "code": lambda value: f"CHF {point(value).replace(',', chr(39))}",
    "brackets": lambda value: f"({point(-value)})" if value < 0 else point(value),
    "minus sign": lambda value: comma(value).replace("-", "−"),
    "unit": lambda value: f"{value:.2f} kg",
}


def opened(tmp_path, frame: pd.DataFrame, suffix: str = ".csv", **fields):
    path = tmp_path / f"t{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path, index=False)
    fields = {"source": str(path), "target": "y", "stratify": False, **fields}
    return open_dataset(fields)


def inputs_of(dataset) -> np.ndarray:
    """All rows' inputs, in the order of the file."""
    (pool,) = dataset.pools.values()
    return pool.read(None).inputs


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_numbers_in_another_notation_are_numbers_and_said(tmp_path, written, suffix):
    frame = pd.DataFrame({"x": [WRITTEN[written](one) for one in NUMBERS], "y": LABELS})
    dataset = opened(tmp_path, frame, suffix)
    np.testing.assert_allclose(inputs_of(dataset)[:, 0], NUMBERS, rtol=1e-6)
    (note,) = dataset.notes
    assert (note.kind, note.count) == ("changed", ROWS) and "'x'" in note.places[0]
    # other files are read alike, even where a value of theirs means something else elsewhere
    few = pd.DataFrame({"x": [WRITTEN[written](one) for one in (1234.0, -2.5)]})
    few.to_csv(tmp_path / "new.csv", index=False)
    found = read_inputs(
        tmp_path / "new.csv", type(dataset.spec).from_dict(dataset.spec.to_dict()).input
    )
    np.testing.assert_allclose(found.inputs[:, 0], [1234.0, -2.5])
    cells = read_cells(tmp_path / f"t{suffix}")
    np.testing.assert_allclose(cells.numbers[:, 0], NUMBERS)
    kept = opened(tmp_path, frame, suffix, columns={"x": "category"})
    assert kept.spec.input.categories["x"]


@pytest.mark.parametrize("written", ["decimal comma", "comma and points", "euros", "percent"])
def test_a_target_in_another_notation_is_a_number(tmp_path, written):
    frame = pd.DataFrame({"x": range(ROWS), "y": [WRITTEN[written](one) for one in NUMBERS]})
    dataset = opened(tmp_path, frame)
    assert dataset.spec.task == "regression"
    (pool,) = dataset.pools.values()
    np.testing.assert_allclose(pool.targets(None), NUMBERS, rtol=1e-6)
    assert [note.kind for note in dataset.notes] == ["changed"]


def test_several_targets_and_few_values_in_another_notation_are_numbers(tmp_path):
    texts = [WRITTEN["comma and points"](one) for one in NUMBERS]
    frame = pd.DataFrame(
        {"x": range(ROWS), "y": texts, "z": [f"{row % 4},5" for row in range(ROWS)]}
    )
    dataset = opened(tmp_path, frame, target=("y", "z"))
    (pool,) = dataset.pools.values()
    np.testing.assert_allclose(pool.targets(None)[:, 0], NUMBERS, rtol=1e-6)
    few = opened(tmp_path, frame[["x", "z"]], target="z")
    assert few.spec.task == "regression"


def test_a_target_of_dates_is_refused(tmp_path):
    days = [f"2024-01-{row % 28 + 1:02}" for row in range(ROWS)]
    with pytest.raises(DataError, match="holds dates, such as '2024-01-01'"):
        opened(tmp_path, pd.DataFrame({"x": range(ROWS), "y": days}))


def test_a_comma_that_may_mean_either_is_asked_about(tmp_path):
    frame = pd.DataFrame({"x": [f"{1 + row},{row + 100}" for row in range(ROWS)], "y": LABELS})
    with pytest.raises(DataError, match=r"'1,100', whose comma may be .*data.decimal=',' or"):
        opened(tmp_path, frame)
    wanted = {",": 1.1, ".": 1100.0}
    for sign, first in wanted.items():
        assert inputs_of(opened(tmp_path, frame, decimal=sign))[0, 0] == np.float32(first)
    with pytest.raises(DataError, match=r"data\.decimal"):
        opened(tmp_path, pd.DataFrame({"x": range(ROWS), "y": frame["x"]}))


def test_with_a_decimal_comma_points_stand_between_thousands(tmp_path):
    frame = pd.DataFrame({"x": [f"{row + 1}.500" for row in range(ROWS)], "y": LABELS})
    assert inputs_of(opened(tmp_path, frame))[0, 0] == 1.5
    assert inputs_of(opened(tmp_path, frame, decimal=","))[0, 0] == 1500
    frame.head(2)[["x"]].to_csv(tmp_path / "new.csv", index=False)
    spec = opened(tmp_path, frame, decimal=",").spec.input
    assert read_inputs(tmp_path / "new.csv", spec).inputs.tolist() == [[1500], [2500]]


@pytest.mark.parametrize(
    "texts",
    [
        ["P01", "P02"], ["1st", "2nd"], ["1.2.3", "4.5.6"], ["10-20", "20-30"], ["48,2;5,1", "2"],
        ["192.168.0.1"], ["red"], ["5", "5 %"], ["16GB", "32GB"], ["$5", "€ 6"], ["", "x"], [],
    ],
)  # fmt: skip
def test_other_texts_are_no_numbers(texts):
    assert find(texts).notation is None


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=8))
def test_any_texts_can_be_looked_at(texts):
    found = find([text.strip() for text in texts])
    if found.notation is not None:
        assert np.isfinite(parse(texts, found.notation)).any()


@given(st.floats(-1e9, 1e9).map(lambda value: round(value, 2)), st.sampled_from(list(WRITTEN)))
def test_a_number_reads_back(value, written):
    text = WRITTEN[written](value)
    affix = {"percent": "%", "percent comma": "%", "dollars": "$", "euros": "€", "code": "CHF",
             "unit": "kg"}.get(written, "")  # fmt: skip
    comma_ = written not in (
        "point and commas", "spaces", "apostrophes", "percent", "dollars", "code", "brackets",
        "unit",
    )  # fmt: skip
    (read,) = parse([text], Notation("," if comma_ else ".", affix))
    assert read == pytest.approx(value, abs=0.006)


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [False, True])
def test_durations_are_seconds_and_a_missing_one_is_missing(tmp_path, missing):
    seconds = np.arange(ROWS) * 1.5
    frame = pd.DataFrame({"took": pd.to_timedelta(seconds, "s"), "y": LABELS})
    if missing:
        frame.loc[3, "took"] = pd.NaT
        with pytest.raises(DataError, match=r"column 'took' has missing values .* in 1 rows"):
            opened(tmp_path, frame, ".parquet")
    options = {"preprocess": {"missing": "mean"}}
    for dataset in (
        opened(tmp_path, frame, ".parquet", **options),
        open_given({"source": "d", "target": "y", "stratify": False, **options}, frame),
    ):
        wanted = np.where(np.arange(ROWS) == 3, np.nan, seconds) if missing else seconds
        np.testing.assert_array_equal(inputs_of(dataset)[:, 0], np.float32(wanted))
        assert "seconds" in dataset.notes[0].what
    target = pd.DataFrame({"x": range(ROWS), "y": pd.to_timedelta(seconds, "s")})
    assert opened(tmp_path, target, ".parquet").spec.task == "regression"


def test_clock_times_are_seconds(tmp_path):
    frame = pd.DataFrame(
        {"at": [f"{row // 4}:{row % 4 * 15:02}" for row in range(ROWS)], "y": LABELS}
    )
    dataset = opened(tmp_path, frame)
    np.testing.assert_array_equal(inputs_of(dataset)[:, 0], np.arange(ROWS) * 900)
    assert "clock times" in dataset.notes[0].what


@pytest.mark.parametrize(
    "text", ["{:02}/02/2024", "2024-01-{:02}", "{} Jan 2024", "Jan {}, 2024", "{}-Feb-24"]
)
def test_dates_are_refused_and_never_categories(tmp_path, text):
    frame = pd.DataFrame({"when": [text.format(row % 28 + 1) for row in range(ROWS)], "y": LABELS})
    with pytest.raises(DataError, match="column 'when' holds dates"):
        opened(tmp_path, frame)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["a", "b", None] * 20, dtype="category"),
        pd.Series([True, False, None] * 20, dtype="boolean"),
        pd.Series([1, 2, None] * 20, dtype="Int64"),
        pd.Series([1.5, np.nan, 2.0] * 20),
        pd.Series(["a", None, "b"] * 20),
    ],
)
def test_what_is_missing_in_a_typed_column_is_missing(column):
    frame = pd.DataFrame({"x": column, "y": LABELS})
    with pytest.raises(DataError, match="column 'x' has missing values"):
        open_given({"source": "d", "target": "y"}, frame)
    section = {"source": "d", "target": "y", "preprocess": {"missing": "most_frequent"}}
    values = inputs_of(open_given(section, frame))[:, 0]
    np.testing.assert_array_equal(np.isnan(values), column.isna())


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [" ", "\u00a0", "\u200b", "\u3000", "\ufeff"])
def test_classes_that_differ_by_a_space_around_them_are_one(tmp_path, space):
    labels = [label + space * (row % 2) for row, label in enumerate(LABELS)]
    frame = pd.DataFrame({"x": range(ROWS), "kind": labels, "y": labels})
    dataset = opened(tmp_path, frame)
    assert dataset.spec.class_names == ("no", "yes")
    assert dataset.spec.input.categories["kind"] == ("no", "yes")
    (note,) = dataset.notes
    assert (note.kind, note.count, note.unit) == ("changed", ROWS // 2, "targets")
    arrays = open_given({"source": "d"}, (np.arange(ROWS)[:, None], np.array(labels)))
    assert arrays.spec.class_names == ("no", "yes")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "Cat"),
        ("кот", "Кот"),
        ("New York", "New  York"),
        ("é", "e\u0301"),
        ("a\u200bb", "ab"),
    ],
)
def test_classes_and_categories_that_look_alike_are_told(tmp_path, one, other):
    labels = [(one, other, "dog")[row % 3] for row in range(ROWS)]
    frame = pd.DataFrame({"kind": labels, "y": labels})
    dataset = opened(tmp_path, frame)
    told = [note for note in dataset.notes if note.kind == "guessed"]
    assert [note.unit for note in told] == ["classes", "categories"]
    assert all(repr(one) in note.places[0] and repr(other) in note.places[0] for note in told)
    assert "20 times" in told[0].places[0]


def test_a_text_with_as_many_values_as_rows_is_told(tmp_path):
    frame = pd.DataFrame({"name": [f"person {row}x" for row in range(ROWS)], "y": LABELS})
    told = opened(tmp_path, frame).notes
    assert [note.kind for note in told] == ["guessed", "unseen"]
    assert "data.columns={'name': 'text'}" in told[0].remedy and "43 values" in told[0].places[0]
    said = opened(tmp_path, frame, columns={"name": "category"}).notes
    assert [note.kind for note in said] == ["unseen"]


def test_categories_that_training_has_not_are_counted(tmp_path):
    frame = pd.DataFrame({"kind": ["a", "b"] * 30, "n": range(ROWS), "y": LABELS})
    spec = opened(tmp_path, frame).spec
    new = pd.DataFrame({"kind": ["a", "c", "c", "d"], "n": range(4)})
    new.to_csv(tmp_path / "new.csv", index=False)
    (note,) = read_inputs(tmp_path / "new.csv", spec.inputs).notes
    assert (note.kind, note.count) == ("unseen", 3) and "'c'" in note.places[0]


# --- precision ------------------------------------------------------------------------------------


def scaled(dataset) -> np.ndarray:
    recipe = make_recipe({"scale": "standard"}, dataset.spec.input)
    inputs = inputs_of(dataset)
    train = dataset.read("train").inputs
    return np.asarray(apply(recipe, fit(recipe, Arrays(train, None)), inputs))


def expected(values: np.ndarray, dataset) -> np.ndarray:
    rows = dataset.parts["train"][1]
    return StandardScaler().fit(values[rows]).transform(values)


SECTION = {"source": "d", "target": "y", "stratify": False, "preprocess": {"scale": "standard"}}


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-12, 12), st.sampled_from((-1, 1)), st.floats(-6, 12), st.integers(0, 99),
    st.sampled_from(("frame", "arrays")),
)  # fmt: skip
def test_columns_of_any_offset_and_spread_are_scaled_or_it_is_said(
    offset, sign, spread, seed, source
):
    noise = np.random.default_rng(seed).normal(size=(ROWS, 1))
    values = sign * 10.0**offset + 10.0**spread * noise
    if source == "frame":
        given = pd.DataFrame({"x": values[:, 0], "y": LABELS})
        dataset = open_given(SECTION, given)
    else:
        dataset = open_given({**SECTION, "target": None}, (values, np.array(LABELS)))
    told = [note for note in dataset.notes if "float64 has rounded" in note.what]
    if not told:
        np.testing.assert_allclose(scaled(dataset), expected(values, dataset), 1e-5, 1e-5)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_unix_seconds_and_ids_are_told_apart(tmp_path, suffix):
    seconds = 1_700_000_000 + np.arange(ROWS)
    ids = 2**53 + 1 + np.arange(ROWS)
    if suffix == ".npz":
        np.savez(tmp_path / "t.npz", x=np.stack([seconds, ids], 1), y=np.array(LABELS))
        dataset = open_dataset({"source": str(tmp_path / "t.npz"), "stratify": False})
        path = tmp_path / "t.npz"
    else:
        frame = pd.DataFrame({"seconds": seconds, "id": ids, "y": LABELS})
        dataset = opened(tmp_path, frame, suffix)
        path = tmp_path / f"t{suffix}"
    inputs = inputs_of(dataset)
    assert (np.diff(inputs, axis=0) == 1).all()
    (note,) = dataset.notes
    assert (note.kind, note.count) == ("changed", 2)
    spec = type(dataset.spec).from_dict(dataset.spec.to_dict())
    np.testing.assert_array_equal(read_inputs(path, spec.inputs).inputs, inputs)
    with pytest.raises(DataError, match="scale='log'"):
        open_dataset({"source": str(path), "preprocess": {"scale": "log"}, "stratify": False,
                      "target": None if suffix == ".npz" else "y"})  # fmt: skip


def test_a_constant_is_filled_in_as_it_is_written(tmp_path):
    seconds = 1_700_000_000.0 + np.arange(ROWS)
    seconds[5] = np.nan
    frame = pd.DataFrame({"seconds": seconds, "n": [1.0, np.nan] * 30, "y": LABELS})
    options = {"missing": "constant", "fill_value": 1_700_000_500.0}
    dataset = opened(tmp_path, frame, preprocess=options)
    recipe = make_recipe(options, dataset.spec.input)
    found = np.asarray(apply(recipe, fit(recipe, dataset.read("train")), inputs_of(dataset)))
    assert found[5, 0] - found[4, 0] == 496 and found[1, 1] == np.float32(1_700_000_500.0)
