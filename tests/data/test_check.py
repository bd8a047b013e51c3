"""What a check finds: exactly the damage that was planted, and nothing of the test split else."""

from __future__ import annotations

import ast
import contextlib
import csv
import json
import wave

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from jdlopt.data.check import check_source, check_table_file, finding, near_duplicates
from jdlopt.data.check.arrays import array_findings, look
from jdlopt.data.check.cells import MISSING, NUMBER, TEXT, cells_of, read_cells
from jdlopt.data.check.columns import (
    bounds,
    cardinalities,
    constants,
    leaks,
    outliers,
    scales,
    table_findings,
)
from jdlopt.data.check.examples import imbalance, odd_rows
from jdlopt.data.check.files import folder_findings
from jdlopt.data.check.labels import label_noise, target_noise
from jdlopt.data.check.opened import near_rows
from jdlopt.data.check.structure import damage, duplicates
from jdlopt.data.dataset import Dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.origin import origins
from jdlopt.data.pools import ArrayPool, Arrays
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.errors import DataError

NO_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=8)


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def kinds(findings):
    return {one.kind: one for one in findings}


def places(one, by_column=True):
    """(row, column) of all that a finding tells."""
    return {(int(r), part.name if by_column else "") for part in one.parts for r in part.rows}


@pytest.fixture(autouse=True)
def one_thread():
    """Fits are small: where other tests run beside them, threads would wait for one another."""
    with threadpool_limits(limits=1):
        yield


def every(cells):
    return np.ones(len(cells.numbers), bool)


# --- cells ----------------------------------------------------------------------------------------


def test_cells_equal_what_pandas_reads(tmp_path):
    text = (
        'a,"b, c",word,flag,gap\n1,-2.5e3,yes,True,\n'
        '3,4,"two\nlines",false,7\n\n 5 ,6,"say ""no""",TRUE,NA\n'
    )
    path = tmp_path / "table.csv"
    path.write_text(text, newline="")
    cells = read_cells(path)
    frame = pd.read_csv(path, skipinitialspace=True)
    assert cells.names == tuple(frame.columns)
    assert cells.numeric == (True, True, False, True, True)
    for place, name in enumerate(cells.names):
        if cells.numeric[place]:
            expected = [{"true": 1.0, "false": 0.0}.get(str(v).lower(), v) for v in frame[name]]
            np.testing.assert_array_equal(cells.numbers[:, place], np.array(expected, float))
        else:
            assert [cells.shown(row, place) for row in range(3)] == frame[name].tolist()
    np.testing.assert_array_equal(cells.kinds == MISSING, frame.isna())
    assert cells.rows.tolist() == [1, 2, 3]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_is_the_same_in_every_format(tmp_path, suffix):
    frame = pd.DataFrame({"x": [1.5, np.nan, 3.0], "s": ["a", None, "b"], "n": [1, 2, 3]})
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    cells = read_cells(path)
    assert cells.kinds.tolist() == [[0, TEXT, 0], [MISSING, MISSING, 0], [0, TEXT, 0]]
    np.testing.assert_array_equal(cells.numbers[:, 0], [1.5, np.nan, 3.0])
    assert cells.words[1] == ("a", "b")


@given(st.lists(st.lists(NO_TEXT, min_size=3, max_size=3), min_size=1, max_size=6))
@settings(max_examples=40)
def test_what_csv_wrote_is_read_back(tmp_path_factory, rows):
    path = write(tmp_path_factory.mktemp("cells") / "t.csv", [["a", "b", "c"], *rows])
    # a cell begins behind the spaces, and a line of three empty cells is none
    read = read_cells(path)
    assert read.whole.all() and len(read.rows) == len(rows)
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            kind = read.kinds[row, column]
            if kind == TEXT:
                assert read.shown(row, column) == cell.strip()
            elif kind == NUMBER:
                word = cell.strip().lower()
                value = {"true": 1.0, "false": 0.0}.get(word)
                assert read.numbers[row, column] == (float(word) if value is None else value)


@given(st.binary(max_size=300))
@example(b"\0")
@settings(max_examples=80)
def test_no_bytes_are_a_defect(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "t.csv"
    path.write_bytes(b"a,b\n1,2\n" + content)
    cells = read_cells(path)
    found = damage(cells, range(2), None)
    json.dumps([one.as_dict() for one in found])
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        read_cells(path)


def test_bytes_that_are_no_utf8_and_a_quote_that_never_ends_are_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n1,caf\xe9\n2,x\n")
    told = kinds(damage(read_cells(path), range(2), None))
    assert places(told["encoding"]) == {(1, "b")}
    path.write_text('a,b\n5,6\n1,"' + "never ends\n" * 20_000 + "3,4\n")
    cells = read_cells(path)
    told = kinds(damage(cells, range(2), None))
    assert "quote" in told["unreadable"].text
    assert told["unreadable"].parts[0].name.startswith("lines 3 to")
    np.testing.assert_array_equal(cells.numbers[cells.whole], [[5, 6], [3, 4]])


def test_a_header_without_names_is_told(tmp_path):
    path = write(tmp_path / "t.csv", [["", "x", "x"], ["1", "2", "3"]])
    cells = read_cells(path)
    assert len(set(cells.names)) == 3
    told = kinds(damage(cells, range(3), None))["header"]
    assert {part.name for part in told.parts} == {"Unnamed: 0", "x.1"}


@pytest.mark.parametrize("text", ["", "\n\n", "a,b\n"])
def test_what_is_no_table_is_refused_by_name(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"t\.csv"):
        read_cells(path)


# --- damage ---------------------------------------------------------------------------------------

DAMAGED = {"missing": "NA", "text_in_numbers": "12,5x", "infinite": "-inf", "outliers": "1e6"}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_exactly_the_planted_damage_is_found(tmp_path_factory, seed):
    draw = np.random.default_rng(seed)
    names = ["p", "q", "r"]
    rows = [[f"{value:.4f}" for value in row] for row in draw.normal(size=(120, 3))]
    planted = {kind: set() for kind in (*DAMAGED, "wrong_size", "duplicates")}
    chosen = 1 + draw.permutation(119)[:48]
    sound = sorted(set(range(120)) - set(chosen.tolist()))
    for row in chosen.tolist():
        kind = list(planted)[draw.integers(len(planted))]
        column = int(draw.integers(3))
        if kind == "wrong_size":
            rows[row] = [*rows[row], "9"] if draw.random() < 0.5 else rows[row][:2]
        elif kind == "duplicates":
            rows[row] = list(rows[draw.choice([one for one in sound if one < row])])
        else:
            rows[row][column] = DAMAGED[kind]
        planted[kind].add((row + 1, names[column] if kind in DAMAGED else ""))
    path = write(tmp_path_factory.mktemp("damage") / "t.csv", [names, *rows])
    cells = read_cells(path)
    found = [
        *damage(cells, range(3), None),
        *duplicates(cells, range(3), None),
        *outliers(cells, range(3), every(cells)),
    ]
    told = {one.kind: places(one, one.kind in DAMAGED) for one in found}
    assert told == {kind: some for kind, some in planted.items() if some}
    for one in found:
        assert one.count == len(planted[one.kind])


def test_categories_are_no_damage_but_text_among_numbers_is(tmp_path):
    rows = [[str(i), "ab"[i % 2], "3" if i % 3 else "x", "2020-01-02", ""] for i in range(30)]
    cells = read_cells(write(tmp_path / "t.csv", [["n", "c", "m", "d", "e"], *rows]))
    told = kinds(damage(cells, range(5), None))
    assert set(told) == {"text_in_numbers", "empty_column", "dates"}
    assert places(told["text_in_numbers"]) == {(i + 1, "m") for i in range(0, 30, 3)}
    assert told["empty_column"].config == "data.ignore=('e',)"
    assert told["dates"].where == "d"


def test_equal_features_with_other_targets_are_conflicts(tmp_path):
    rows = [["1", "a"], ["2", "a"], ["1", "b"], ["2", "a"], ["3", "b"]]
    cells = read_cells(write(tmp_path / "t.csv", [["x", "y"], *rows]))
    told = kinds(duplicates(cells, [0], 1))
    assert places(told["conflicts"], False) == {(1, ""), (3, "")}
    assert places(told["duplicates"], False) == {(4, "")}


def test_duplicates_equal_pandas():
    draw = np.random.default_rng(3)
    values = draw.integers(0, 3, (200, 3)).astype(float)
    values[draw.random(values.shape) < 0.2] = np.nan
    values[values == 0] *= -1.0  # -0 equals 0
    values[::2] += 0.0
    told = duplicates(cells_of("m", "abc", values), range(3), None)
    expected = np.flatnonzero(pd.DataFrame(values + 0.0).duplicated())
    np.testing.assert_array_equal(told[0].parts[0].rows, expected)


# --- columns --------------------------------------------------------------------------------------


def test_bounds_are_ten_interquartile_ranges():
    values = np.random.default_rng(0).normal(size=500)
    low, high, share = bounds(values)
    first, third = np.percentile(values, (25, 75))
    assert low == pytest.approx(first - 10 * (third - first))
    assert high == pytest.approx(third + 10 * (third - first))
    out = (values < first - 1.5 * (third - first)) | (values > third + 1.5 * (third - first))
    assert share == out.mean() < 0.02
    assert bounds(np.arange(8.0)) is None
    low, high, _ = bounds(np.array([0.0] * 90 + list(range(1, 13))))
    assert (low, high) == (-650.0, 650.0)


def test_a_long_tail_is_not_taken_for_outliers():
    values = np.exp(2 * np.random.default_rng(0).normal(size=(2000, 1)))
    cells = cells_of("m", ["income"], values)
    [told] = outliers(cells, [0], every(cells))
    assert (told.kind, told.config) == ("heavy_tail", "data.preprocess.scale='log'")


def test_constant_columns_and_almost_constant_ones():
    values = np.zeros((1000, 4))
    values[:, 1] = np.arange(1000) < 4
    values[:, 2] = np.arange(1000) < 6
    values[5:, 3] = np.nan  # one value where there is any
    told = kinds(constants(cells_of("m", "abcd", values), range(4), np.ones(1000, bool)))
    assert told["constant"].where == "a, d" and told["almost_constant"].where == "b"
    assert told["constant"].config == "data.preprocess.constant_columns='drop'"


def test_leaking_columns_are_found_and_honest_ones_are_not(tmp_path):
    draw = np.random.default_rng(0)
    classes = draw.integers(0, 3, 300)
    noisy = np.where(np.arange(300) == 7, (classes + 1) % 3, classes)
    columns = {
        "same": classes,
        "named": np.array(["u", "v", "w"])[classes],
        "split": np.array(list("abcdef"))[2 * classes + draw.integers(0, 2, 300)],
        "sorted": classes + 0.8 * draw.random(300),
        "strong": classes + draw.normal(size=300),
        "identifier": [f"row {i}" for i in range(300)],
        "noise": draw.normal(size=300),
    }
    frame = pd.DataFrame(columns)
    frame.to_csv(tmp_path / "t.csv", index=False)
    cells = read_cells(tmp_path / "t.csv")
    seen = np.ones(300, bool)
    [told] = leaks(cells, range(7), seen, classes.astype(float), "classification")
    assert {part.name for part in told.parts} == {"same", "named", "split", "sorted"}
    assert told.config == "data.ignore=('same', 'named', 'split', 'sorted')"
    many = np.tile(classes, 10)
    wrong = np.concatenate([noisy, np.tile(classes, 9)])  # one label in 3,000
    tiled = cells_of("m", ["same", "noise"], np.stack([many, draw.normal(size=3000)], axis=1))
    [told] = leaks(tiled, [0, 1], np.ones(3000, bool), wrong.astype(float), "classification")
    assert told.where == "same"


@pytest.mark.parametrize("values", [1, 2])
def test_a_column_of_equal_values_gives_nothing_away(values):
    classes = np.sort(np.arange(400) % 2)  # in the order of the file, too
    column = np.where(np.arange(400) % 200 < 200 // values, 7.0, 8.0)
    cells = cells_of("m", ["same"], column[:, None])
    assert leaks(cells, [0], every(cells), classes.astype(float), "classification") == []


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_group_that_has_one_target_is_split_by(tmp_path, task):
    draw = np.random.default_rng(0)
    patient = draw.permutation(np.repeat(np.arange(120), 4))
    target = draw.integers(0, 2, 120) if task == "classification" else draw.normal(size=120)
    wanted = target[patient] + (0.01 * draw.normal(size=480) if task == "regression" else 0.0)
    frame = pd.DataFrame({
        "patient": [f"p{one}" for one in patient], "number": draw.permutation(120)[patient],
        "city": [f"city {one}" for one in draw.integers(0, 60, 480)],
        "quantity": np.round(10 * np.argsort(np.argsort(target))[patient] + draw.normal(size=480)),
    })  # fmt: skip
    frame.to_csv(tmp_path / "t.csv", index=False)
    cells = read_cells(tmp_path / "t.csv")
    told = kinds(table_findings(cells, range(4), None, every(cells), wanted, task))
    assert {part.name for part in told["group_leak"].parts} == {"patient", "number"}
    assert told["group_leak"].config == "data.group='patient'"
    assert told["cardinality"].where == "city"  # what is split by is not hashed
    shuffled = draw.permutation(wanted)
    again = kinds(table_findings(cells, range(4), None, every(cells), shuffled, task))
    assert "group_leak" not in again


def test_lines_of_a_check_can_all_be_followed():
    def a_finding(kind: str, config: str) -> finding.Finding:
        return finding.Finding(kind, "note", f"the {kind}", "", 1, 2, "columns", config)

    lines = [
        "data.ignore=('a',)", "data.preprocess.scale='standard'", "data.ignore=('b', 'c')",
        "data.preprocess.outliers='iqr'", "data.preprocess.scale='log'",
        "data.preprocess.outliers='isolation_forest'\ndata.preprocess.outlier_action='drop'",
        "data.preprocess.scale='standard'",
    ]  # fmt: skip
    made = finding.agreed([a_finding(f"k{i}", line) for i, line in enumerate(lines)], ("z",))
    all_out = "data.ignore=('z', 'a', 'b', 'c')"
    assert [one.config for one in made] == [
        all_out, lines[1], all_out, lines[3], "", "", lines[1]
    ]  # fmt: skip
    assert "data.preprocess.scale='standard' (for the k1)" in made[4].advice


def test_leaks_of_a_value_are_correlations():
    draw = np.random.default_rng(0)
    target = draw.normal(size=100)
    values = np.stack([-2 * target + 1, target + 0.5 * draw.normal(size=100)], axis=1)
    cells = cells_of("m", ["leak", "honest"], values)
    [told] = leaks(cells, [0, 1], every(cells), target, "regression")
    assert told.where == "leak"


def test_scales_are_compared_by_their_ranges():
    draw = np.random.default_rng(0)
    values = draw.uniform(size=(100, 3)) * np.array([1.0, 50.0, 1000.0])
    cells = cells_of("m", "abc", values)
    [told] = scales(cells, range(3), every(cells))
    low, high = np.percentile(values, (1, 99), axis=0)
    np.testing.assert_allclose(told.numbers["values"], (high - low)[::-1])
    assert told.numbers["names"] == ["c", "b", "a"]
    assert not scales(cells, range(2), every(cells))


def test_text_of_many_values_is_a_category_or_an_identifier(tmp_path):
    rows = [[f"id {i}", f"city {i % 60}", f"kind {i % 5}"] for i in range(240)]
    cells = read_cells(write(tmp_path / "t.csv", [["id", "city", "kind"], *rows]))
    told = kinds(cardinalities(cells, range(3), every(cells)))
    assert (told["identifiers"].where, told["cardinality"].where) == ("id", "city")


# --- examples -------------------------------------------------------------------------------------


def test_imbalance_is_the_ratio_of_the_classes():
    assert imbalance(np.repeat([0, 1, 2], [20, 30, 40]), "abc") == []
    [told] = imbalance(np.repeat([0, 1, 2], [200, 30, 9]), "abc")
    assert told.severity == "warning" and told.numbers["ratio"] == pytest.approx(200 / 9)
    assert told.where == "c" and told.numbers["values"] == [200, 30, 9]


def test_odd_rows_are_those_far_from_all_others():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(400, 4))
    values[:3] += 12.0
    values[10, 0] = np.nan
    [told] = odd_rows(values, 5 + np.arange(400))
    assert set(told.parts[0].rows.tolist()) == {5, 6, 7}
    assert len(told.config.splitlines()) == 2


@pytest.mark.parametrize("is_table", [True, False])
def test_flipped_labels_are_found(is_table):
    draw = np.random.default_rng(1)
    true = draw.integers(0, 3, 600)
    features = draw.normal(size=(600, 5)) + 4.0 * np.eye(3, 5)[true]
    given_labels = true.copy()
    flipped = draw.choice(600, 30, replace=False)
    given_labels[flipped] = (true[flipped] + 1) % 3
    rows = 1000 + np.arange(600)
    [told] = label_noise(features, given_labels, rows, "abc", is_table)
    found = {int(row) - 1000 for part in told.parts for row in part.rows}
    assert (
        len(found & set(flipped.tolist())) >= 23
    )  # of 30: the model that judges has seen flipped ones, too
    assert len(found - set(flipped.tolist())) <= 15
    # what is told of each is what it was: the class before the one given
    names = [f"{'abc'[(c + 1) % 3]} → {'abc'[c]}" for c in range(3)]
    assert set(names) <= {part.name for part in told.parts}
    assert np.sum(told.numbers["matrix"]) == told.count == len(found)


def test_a_third_of_labels_drawn_anew_are_doubted_though_models_agree_with_few():
    rng = np.random.default_rng(0)
    features, true = load_digits(return_X_y=True)
    wrong = rng.random(len(true)) < 0.3
    given_labels = np.where(wrong, rng.integers(10, size=len(true)), true)
    [told] = label_noise(features, given_labels, np.arange(len(true)), "0123456789", False)
    doubted = np.concatenate([part.rows for part in told.parts])
    assert told.kind == "label_noise" and told.numbers["agreement"] < 0.75
    assert np.isin(np.flatnonzero(given_labels != true), doubted).mean() > 0.75


def test_models_that_agree_with_two_labels_of_three_of_overlapping_classes_doubt_none():
    draw = np.random.default_rng(0)
    true = draw.integers(0, 3, 900)
    features = draw.normal(size=(900, 5)) + 1.2 * np.eye(3, 5)[true]
    [told] = label_noise(features, true, np.arange(900), "abc", True)
    assert told.kind == "label_noise_unknown" and "agree with 6" in told.text


def test_a_model_that_knows_nothing_doubts_no_label():
    draw = np.random.default_rng(0)
    [told] = label_noise(
        draw.normal(size=(300, 4)), draw.integers(0, 2, 300), np.arange(300), "ab", False
    )
    assert told.kind == "label_noise_unknown" and told.count == 0


def test_values_far_from_their_prediction_are_found():
    draw = np.random.default_rng(0)
    features = draw.uniform(-1, 1, (500, 3))
    values = features @ np.array([1.0, -2.0, 0.5]) + 0.01 * draw.normal(size=500)
    values[[4, 77]] += 30.0
    [told] = target_noise(features, values, np.arange(500))
    assert set(told.parts[0].rows[:2].tolist()) == {4, 77}


# --- near-duplicates ------------------------------------------------------------------------------


def test_near_images_share_their_signs_and_others_do_not():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 12, 12, 1)).astype(np.float32)
    near = images[:20] + draw.normal(scale=2.0, size=(20, 12, 12, 1))
    other = draw.integers(0, 256, (40, 12, 12, 1)).astype(np.float32)
    centre = images.reshape(60, -1).mean(axis=0)
    train, mixed = (
        near_duplicates.signs(one, centre) for one in (images, np.concatenate([other, near]))
    )
    np.testing.assert_array_equal(near_duplicates.near([mixed], [train]), np.arange(40, 60))


def test_signs_differ_by_the_angle():
    angle = 0.5
    pair = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]], np.float32)
    pair = np.repeat(pair, 200, axis=1) @ np.linalg.qr(
        np.random.default_rng(0).normal(size=(400, 400))
    )[0].astype(np.float32)
    one, other = near_duplicates.signs(pair, np.zeros(400))
    assert (one != other).mean() == pytest.approx(angle / np.pi, abs=0.06)


def test_near_rows_share_a_grid_and_far_rows_do_not():
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(500, 6))
    close = rows + draw.normal(scale=1e-4, size=rows.shape)
    far = rows + 0.2
    prints = [
        near_duplicates.grid_fingerprints(some, np.zeros(6), np.ones(6))
        for some in (rows, close, far)
    ]

    def alike(a, b):
        return np.any([one == other for one, other in zip(a, b)], axis=0).mean()

    assert alike(prints[0], prints[1]) > 0.99
    assert alike(prints[0], prints[2]) == 0


@pytest.mark.parametrize("columns", [1, 2, 3, 8, 30])
def test_rows_drawn_at_random_are_no_near_duplicates(columns):
    rows = np.random.default_rng(columns).normal(size=(3000, columns))
    rows = np.concatenate([rows, rows[:, :1] > 0], axis=1)  # a column of two values helps nobody
    width = near_duplicates.grid_width(rows)
    one, other = (
        near_duplicates.grid_fingerprints(some, np.zeros(columns + 1), np.ones(columns + 1), width)
        for some in np.split(rows, 2)
    )
    alike = np.any([np.isin(a, b) for a, b in zip(one, other)], axis=0)
    assert alike.mean() < 0.01
    assert width <= near_duplicates.GRID


@pytest.mark.parametrize("hidden", [1, 2, 4])
def test_columns_that_depend_on_one_another_bring_rows_close_by_chance(hidden):
    draw = np.random.default_rng(hidden)
    causes = draw.normal(size=(1500, hidden))
    rows = causes @ draw.normal(size=(hidden, 12)) + 1e-3 * draw.normal(size=(1500, 12))
    splits = {"train": np.arange(1000), "test": np.arange(1000, 1500)}
    found = near_rows(rows, splits, np.arange(1500))
    assert sum(one.count for one in found) <= 3
    rows[1000:1060] = rows[:60] + 1e-9 * draw.normal(size=(60, 12))
    [told] = near_rows(rows, splits, np.arange(1500))
    assert told.severity == "warning" and set(range(1000, 1060)) <= set(told.parts[0].rows.tolist())
    assert told.count <= 63 and told.numbers["equal"] == 0


def test_rows_of_few_values_are_equal_by_nature(tmp_path):
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(draw.integers(0, 2, (300, 4)), columns=list("abcd"))
    frame.to_csv(tmp_path / "t.csv", index=False)
    told = kinds(check_table_file(tmp_path / "t.csv", "d").findings)
    assert told["near_duplicates"].severity == told["duplicates"].severity == "note"
    assert "few different values" in told["near_duplicates"].advice


def test_a_column_of_texts_is_checked_as_texts(tmp_path):
    draw = np.random.default_rng(0)
    words = np.array(["the", "cat", "sat", "on", "a", "mat", "and", "slept", "all", "day"])
    texts = [" ".join(draw.choice(words, 8)) for _ in range(90)]
    texts[4], texts[5], texts[9] = "", "cat", texts[8]
    frame = pd.DataFrame({"text": texts, "id": range(90), "label": np.arange(90) % 2})
    frame.to_csv(tmp_path / "t.csv", index=False)
    section = {"source": str(tmp_path / "t.csv"), "target": "label", "text_column": "text"}
    check = check_source(section)
    told = kinds(check.findings)
    assert check.kind == "text" and "identifiers" not in told and "label_noise" not in told
    assert places(told["missing"]) == {(5, "text")}


def test_near_duplicates_across_splits_are_reported(tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (90, 8, 8)).astype(np.uint8)
    test = draw.integers(0, 256, (30, 8, 8)).astype(np.uint8)
    test[3] = images[5]
    test[7] = np.clip(images[11].astype(int) + 1, 0, 255)
    labels = np.arange(90) % 3
    np.savez(
        tmp_path / "i.npz", x_train=images, y_train=labels, x_test=test, y_test=labels[:30],
        x_val=draw.integers(0, 256, (12, 8, 8)).astype(np.uint8), y_val=labels[:12],
    )  # fmt: skip
    section = {"source": str(tmp_path / "i.npz")}
    told = kinds(check_source(section).findings)["near_duplicates"]
    [part] = told.parts
    assert part.name == "test like train" and part.rows.tolist() == [3, 7]
    assert "1 of them equal" in part.detail
    assert "near_duplicates" not in kinds(check_source(section, with_test=False).findings)


# --- whole sources --------------------------------------------------------------------------------


@pytest.fixture
def frame():
    draw = np.random.default_rng(0)
    label = draw.integers(0, 2, 200)
    return pd.DataFrame(
        {
            "x": label + draw.normal(scale=0.3, size=200),
            "y": draw.normal(size=200),
            "label": np.array(["no", "yes"])[label],
        }
    )


@pytest.mark.parametrize(
    ("left_out", "section"),
    [([], {"ignore": ("when",)}), ([5, 90], {"time": "when", "on_bad": "skip"})],
)
def test_nothing_but_damage_is_learnt_from_test_rows(frame, tmp_path, left_out, section):
    path = tmp_path / "t.csv"
    frame["when"] = np.arange(200)
    frame.loc[left_out, "label"] = None
    frame.to_csv(path, index=False)
    before = check_table_file(path, "label", **section)
    rows = origins(before.dataset)["test"]["row"]
    frame.loc[rows, "y"] = np.linspace(-900, 900, len(rows))  # a scale, a tail, odd rows, a leak
    frame.loc[rows, "x"] = (frame.loc[rows, "label"] == "no") * 40.0
    frame.to_csv(path, index=False)
    after = check_table_file(path, "label", **section)
    np.testing.assert_array_equal(origins(after.dataset)["test"]["row"], rows)
    learnt = [
        one.as_dict() for one in after.findings if one.kind not in ("outliers", "near_duplicates")
    ]
    assert learnt == [one.as_dict() for one in before.findings if one.kind != "near_duplicates"]
    told = kinds(after.findings)["outliers"]
    assert {row for row, _ in places(told)} <= set((rows + 1).tolist())


def test_without_the_test_split_its_inputs_are_not_read(tmp_path):
    arrays = {
        "x_train": np.random.default_rng(0).normal(size=(60, 3)), "y_train": np.arange(60) % 2,
        "x_test": np.full((9000, 3), np.inf), "y_test": np.arange(9000) % 2,
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **arrays)
    content = (tmp_path / "a.npz").read_bytes()
    place = content.index(np.full((9000, 3), np.inf).tobytes()) + 200_000
    (tmp_path / "a.npz").write_bytes(content[:place] + b"broken!!" + content[place + 8 :])
    section = {"source": str(tmp_path / "a.npz")}
    check = check_source(section, with_test=False)
    assert check.dataset is not None and any("not looked at" in one for one in check.looked_at)
    with pytest.raises(DataError, match="x_test"):
        check_source(section)


def test_a_damaged_table_is_checked_though_no_run_could_open_it(frame, tmp_path):
    path = tmp_path / "t.csv"
    frame["y"] = frame["y"].astype(object)
    frame.loc[3, "y"] = "12,5x"
    frame.loc[9, "label"] = None
    frame.to_csv(path, index=False)
    check = check_table_file(path, "label")
    told = kinds(check.findings)
    assert check.dataset is None and check.findings[0].severity == "error"
    assert places(told["text_in_numbers"]) == {(4, "y")}
    assert places(told["missing_target"], False) == {(10, "")}
    assert "opening" in told
    json.dumps(check.as_dict())


def test_what_the_config_sees_to_is_a_note(frame, tmp_path):
    frame.loc[5, "y"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    section = {"source": str(tmp_path / "t.csv"), "target": "label"}
    assert kinds(check_source(section).findings)["missing"].severity == "error"
    told = kinds(check_source({**section, "preprocess": {"missing": "mean"}}).findings)
    assert told["missing"].severity == "note" and "opening" not in told
    assert told["missing"].config == ""


def test_a_table_without_a_target_is_checked(frame, tmp_path):
    frame.to_csv(tmp_path / "t.csv", index=False)
    check = check_table_file(tmp_path / "t.csv")
    assert check.count("error") == 0
    with pytest.raises(DataError, match=r"data.target.*Did you mean 'label'"):
        check_table_file(tmp_path / "t.csv", "lable")
    for rest in ({"ignore": ("x", "y")}, {"ignore": ("x",), "id": "y"}):
        with pytest.raises(DataError, match="no feature column"):
            check_table_file(tmp_path / "t.csv", "label", **rest)


def test_a_target_that_is_none_is_a_finding(frame, tmp_path):
    frame["label"] = "yes"
    frame.to_csv(tmp_path / "t.csv", index=False)
    told = kinds(check_table_file(tmp_path / "t.csv", "label").findings)
    assert "one class only" in told["target"].text


def test_every_config_line_can_be_read_and_names_a_key_that_there_is():
    from jdlopt.train.schema import data_schema

    for lines in finding.REMEDIES.values():
        for line in lines.splitlines():
            key, _, value = line.partition("=")
            ast.literal_eval(value)
            section, *names = key.split(".")
            node = data_schema({}, []) if section == "data" else {}
            for name in names if section == "data" else ():
                node = node[name]


# --- images, sound, tokens ------------------------------------------------------------------------


def test_damaged_and_odd_images_are_named(tmp_path):
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(5):
            pixels = draw.integers(0, 256, (6, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    good = (tmp_path / "cat/0.png").read_bytes()
    (tmp_path / "cat/0.png").write_bytes(good[: len(good) // 2])
    Image.new("L", (9, 9)).save(tmp_path / "dog/1.png")
    Image.new("RGB", (8, 6), (9, 200, 3)).save(tmp_path / "dog/2.png")
    kind, found, _ = folder_findings(tmp_path, DataFields(source=str(tmp_path)))
    told = kinds(found)
    assert kind == "image"
    assert told["damaged_file"].where == "cat/0.png"
    assert told["wrong_image_size"].where == "dog/1.png"
    assert told["wrong_image_size"].config == "data.image_size=(6, 8)"
    assert told["mixed_colours"].where == "dog/2.png"
    check = check_source({"source": str(tmp_path)})
    assert check.dataset is None and "opening" in kinds(check.findings)


def test_sounds_of_another_rate_or_length_are_named(tmp_path):
    for name in ("yes", "no"):
        (tmp_path / name).mkdir()
        for index in range(4):
            rate, count = 16000, 1600
            if (name, index) == ("yes", 1):
                rate, count = 8000, 800
            if (name, index) == ("no", 2):
                count = 3200
            with wave.open(str(tmp_path / name / f"{index}.wav"), "wb") as file:
                file.setparams((1, 2, rate, count, "NONE", ""))
                file.writeframes(np.zeros(count, "<i2").tobytes())
    (tmp_path / "no/3.wav").write_bytes(b"RIFF none")
    kind, found, opened = folder_findings(tmp_path, DataFields(source=str(tmp_path)))
    told = kinds(found)
    assert kind == "audio" and "all 8 sounds were opened" in opened
    assert told["odd_rate"].where == "yes/1.wav"
    assert told["odd_rate"].config == "data.sample_rate=16000"
    assert told["odd_length"].where == "no/2.wav"
    assert told["odd_length"].config == "data.seconds=0.1"
    assert told["damaged_file"].where == "no/3.wav"


def test_what_a_run_does_not_use_is_a_finding_and_no_file_is_said_to_be_opened(tmp_path):
    for name in ("train/cat", "train/dog", "Testing/dog/deep"):
        (tmp_path / name).mkdir(parents=True)
        for index in range(9):
            values = np.random.default_rng(index).integers(0, 256, (6, 8), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / name / f"{index}.png")
    (tmp_path / "train/dog/a.heic").write_bytes(b"not read")
    (tmp_path / "train/dog/.DS_Store").write_bytes(b"hidden")
    damaged = tmp_path / "Testing/dog/deep/1.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    check = check_source({"source": str(tmp_path)})
    told = kinds(check.findings)
    assert told["damaged_file"].where == "Testing/dog/deep/1.png"
    assert told["passed_over"].where.endswith("train/dog/a.heic")
    assert "'.heic'" in told["passed_over"].text
    assert any("all 27 images were opened" in sentence for sentence in check.looked_at)


def dataset_of(inputs, sample_rate=None):
    arrays = Arrays(inputs, (np.arange(len(inputs)) % 2).astype(np.int32))
    sizes = {"train": 40, "validation": 10, "test": 10}
    rows = np.split(np.random.default_rng(1).permutation(len(inputs))[:60], [40, 50])
    one = InputSpec(inputs.shape[1:], str(inputs.dtype), sample_rate=sample_rate)
    return Dataset(
        DataSpec("made", "made", "classification", one, sizes, class_names=("a", "b")),
        pools={"all": ArrayPool(len(inputs), lambda: arrays)},
        parts={split: ("all", some) for split, some in zip(sizes, rows)},
    )  # fmt: skip


def told_of(dataset, kind):
    rows = dataset.parts["train"][1]
    found = array_findings(kind, dataset.spec.input.dtype, look(dataset, "train"), rows)
    return kinds(found), rows


def test_values_of_images_outside_one_and_blank_ones():
    images = np.random.default_rng(0).uniform(size=(60, 8, 8, 1)).astype(np.float32)
    dataset = dataset_of(images)
    blank, wide, gap = dataset.parts["train"][1][[2, 5, 9]]
    images[blank], images[wide, 0, 0], images[gap, 1, 1] = 0.5, 255.0, np.nan
    told, _ = told_of(dataset, "image")
    assert set(told) == {"blank", "outside_unit", "missing"}
    assert [told[k].parts[0].rows.tolist() for k in told] == [[gap], [blank], [wide]]
    dark = dataset_of((images > 0.5).astype(np.uint8))
    assert "0 to 1 of 0 to 255" in told_of(dark, "image")[0]["few_levels"].text


def test_clipped_sound_and_empty_texts():
    sound = 0.5 * np.random.default_rng(0).uniform(-1, 1, (60, 4000)).astype(np.float32)
    dataset = dataset_of(sound, 16000)
    loud = dataset.parts["train"][1][4]
    sound[loud, ::100] = 1.0
    assert told_of(dataset, "audio")[0]["clipped"].parts[0].rows.tolist() == [loud]
    tokens = np.random.default_rng(0).integers(1, 50, (60, 12)).astype(np.int32)
    dataset = dataset_of(tokens)
    empty, short = dataset.parts["train"][1][[1, 3]]
    tokens[empty], tokens[short, 2:] = 0, 0
    told, _ = told_of(dataset, "text")
    assert told["empty_text"].parts[0].rows.tolist() == [empty]
    assert told["short_text"].parts[0].rows.tolist() == [short]


def test_large_splits_are_gone_through_in_parts(monkeypatch):
    from jdlopt.data.check import arrays

    inputs = np.random.default_rng(0).normal(size=(90, 40, 2)).astype(np.float32)
    whole = look(dataset_of(inputs), "train")
    monkeypatch.setattr(arrays, "VALUES", 700)
    for one, other in zip(whole, look(dataset_of(inputs), "train"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_shrinking_takes_means():
    from jdlopt.data.check.arrays import shrunk

    images = np.random.default_rng(0).uniform(size=(3, 64, 96, 3)).astype(np.float32)
    expected = images.reshape(3, 32, 2, 32, 3, 3).mean(axis=(2, 4)).reshape(3, -1)
    np.testing.assert_allclose(shrunk(images), expected, rtol=1e-5)
    small = images[:, :20, :20]
    np.testing.assert_array_equal(shrunk(small), small.reshape(3, -1))
