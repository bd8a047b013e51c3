from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jdlopt.data import open_dataset
from jdlopt.data.columns import read_column
from jdlopt.errors import DataError


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "width": rng.normal(size=60),
            "count": rng.integers(0, 9, size=60),
            "open": rng.integers(0, 2, size=60).astype(bool),
            "species": np.array(["cat", "dog", "emu"])[np.arange(60) % 3],
        }
    )


def save(frame, folder, suffix):
    path = folder / f"animals{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_becomes_features_and_classes(frame, tmp_path, suffix):
    path = save(frame, tmp_path, suffix)
    dataset = open_dataset({"source": str(path), "target": "species", "ignore": ("open",)})
    assert dataset.spec.name == "animals"
    assert dataset.spec.task == "classification"
    assert dataset.spec.class_names == ("cat", "dog", "emu")
    assert dataset.spec.input.feature_names == ("width", "count")
    assert dataset.spec.input.shape == (2,)
    assert dataset.sizes == {"train": 43, "validation": 5, "test": 12}
    for split in dataset.sizes:
        inputs, targets = dataset.read(split)
        assert (inputs.dtype, targets.dtype) == (np.float32, np.int32)
        rows = dataset.parts[split][1]
        np.testing.assert_array_equal(inputs, frame.loc[rows, ["width", "count"]].astype("float32"))
        names = np.array(dataset.spec.class_names)[targets]
        np.testing.assert_array_equal(names, frame.loc[rows, "species"])
        record = dataset.records(split)[1]
        np.testing.assert_array_equal(record[0], inputs[1])
        assert record[1] == targets[1]
    assert dataset.nbytes("train") == sum(array.nbytes for array in dataset.read("train"))


def test_numbers_that_are_declared_categories_are_coded_as_written(tmp_path):
    path = tmp_path / "places.csv"
    rows = [f"0{row % 3}100,{row},{'ab'[row % 2]}" for row in range(60)]
    path.write_text("\n".join(["postcode,size,kind", *rows]) + "\n")
    fields = {"source": str(path), "target": "kind", "categorical": ("postcode",)}
    dataset = open_dataset(fields)
    assert dataset.spec.input.categories == {"postcode": ("00100", "01100", "02100")}
    assert set(dataset.read("train").inputs[:, 0]) == {1.0, 2.0, 3.0}
    assert open_dataset({**fields, "categorical": ()}).spec.input.categories == {}
    with pytest.raises(DataError, match=r"data\.categorical: .*'postcod'.*'postcode'"):
        open_dataset({**fields, "categorical": ("postcod",)})


def test_booleans_are_numbers(frame, tmp_path):
    dataset = open_dataset({"source": str(save(frame, tmp_path, ".csv")), "target": "species"})
    assert set(dataset.read("train").inputs[:, 2]) == {0.0, 1.0}


def test_regression(frame, tmp_path):
    path = save(frame, tmp_path, ".csv")
    fields = {"source": str(path), "target": "width", "ignore": ("species",)}
    dataset = open_dataset(fields)
    assert (dataset.spec.task, dataset.spec.num_classes, dataset.spec.class_names) == (
        "regression",
        0,
        (),
    )
    assert dataset.read("train").targets.dtype == np.float32


def test_what_test_rows_hold_changes_nothing_before_they_are_read(frame, tmp_path):
    fields = {"source": str(save(frame, tmp_path, ".csv")), "target": "species"}
    before = open_dataset(fields)
    test_rows = before.parts["test"][1]
    frame.loc[test_rows, "width"] = 1e6
    save(frame, tmp_path, ".csv")
    after = open_dataset(fields)
    np.testing.assert_array_equal(after.parts["test"][1], test_rows)
    for split in ("train", "validation"):
        for left, right in zip(before.read(split), after.read(split)):
            np.testing.assert_array_equal(left, right)
    assert (after.read("test").inputs[:, 0] == 1e6).all()


def test_missing_values_can_be_kept_to_be_described(frame, tmp_path):
    frame.loc[3, "width"] = np.nan
    fields = {"source": str(save(frame, tmp_path, ".csv")), "target": "species"}
    dataset = open_dataset(fields, allow_missing=True)
    missing = sum(np.isnan(dataset.read(split).inputs).sum() for split in dataset.sizes)
    assert missing == 1


def open_text(folder, text, **fields):
    path = folder / "data.csv"
    path.write_text(text)
    return open_dataset({"source": str(path), "target": "y", **fields})


GOOD = "a,b,y\n" + "".join(f"{row}.5,{row},{row % 2}\n" for row in range(20))


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("", {}, "is empty: expected a header"),
        ("a,b,y\n", {}, "is empty: it has a header but no rows"),
        (GOOD, {"target": None}, "data.target is not set.*Columns: a, b, y"),
        (GOOD.replace("a,b", "label,b"), {"target": "labels"}, "Did you mean 'label'"),
        (GOOD, {"ignore": ("bb",)}, "data.ignore: there is no column 'bb'"),
        (GOOD, {"ignore": ("a", "b")}, "no feature column is left"),
        (GOOD.replace("a,b,", "a,a,"), {}, "more than one column is called 'a'"),
        (GOOD.replace("3.5,", "much,"), {}, "column 'a' has text in 2 rows.*'much' in row 4"),
        (GOOD.replace("3.5,3", "3.5,"), {}, r"column 'b' has missing values .*1 rows.*row 4"),
        (GOOD.replace("3.5,3", "inf,1e60"), {}, r"column 'a' holds inf in row 4.*\n.*1e\+60"),
        (GOOD.replace("3.5,3,1", "3.5,3,"), {}, "1 missing values.*row 4"),
        (GOOD.replace("3.5,3,1", "3.5,3,1,9"), {}, "Expected 3 fields in line 5, saw 4"),
        (GOOD.replace("\n", ",7\n").replace("y,7", "y"), {}, "more values than the header"),
        (GOOD.replace(",1\n", ",0\n"), {}, "one class only"),
        (GOOD.replace("3.5,3,1", "3.5,3,2"), {}, r"too few examples of a class.*2 \(1\)"),
        (GOOD.replace("3.5,3,1", "3.5,3,x"), {"task": "regression"}, "row 4 holds 'x'"),
        (GOOD.replace("a,b", ",b"), {}, "'Unnamed: 0' has no name.*saved row index"),
        ("a,y\n1,0\n2,1\n", {"stratify": False}, "validation split"),
    ],
)
def test_wrong_tables(tmp_path, text, fields, message):
    with pytest.raises(DataError, match=f"(?s)data.csv.*{message}"):
        open_text(tmp_path, text, **fields)


def test_all_problems_of_a_table_are_told_at_once(tmp_path):
    with pytest.raises(DataError, match=r"(?s)column 'a' has text.*column 'b' has missing"):
        open_text(tmp_path, GOOD.replace("3.5,3", "x,"))


def test_a_byte_order_mark_and_spaces_are_no_part_of_a_name(tmp_path):
    text = "\ufeff" + GOOD.replace("a,b,y", "a, b, y")
    assert open_text(tmp_path, text).spec.input.feature_names == ("a", "b")


def test_dates_and_objects_are_refused(frame, tmp_path):
    frame["when"] = pd.Timestamp("2020-01-01")
    frame["many"] = [[1, 2]] * len(frame)
    path = save(frame, tmp_path, ".parquet")
    with pytest.raises(DataError, match=r"(?s)'when' holds dates.*'many' holds ndarray objects"):
        open_dataset({"source": str(path), "target": "species"})
    with pytest.raises(DataError, match=r"'when'.*holds dates"):
        open_dataset({"source": str(path), "target": "when"})


def test_files_that_are_no_tables(tmp_path):
    binary = tmp_path / "data.csv"
    binary.write_bytes(b"\x80\xfe\x81\xff" * 50)
    with pytest.raises(DataError, match="can't be read as CSV in UTF-8"):
        open_dataset({"source": str(binary), "target": "y"})
    fake = tmp_path / "data.parquet"
    fake.write_text(GOOD)
    with pytest.raises(DataError, match="can't be read as Parquet"):
        open_dataset({"source": str(fake), "target": "y"})


# --- categories -----------------------------------------------------------------------------------


@pytest.fixture
def mixed():
    """Numbers, booleans and three kinds of text, without any damage."""
    rng = np.random.default_rng(1)
    size = 80
    return pd.DataFrame(
        {
            "width": rng.normal(size=size).round(3),
            "colour": rng.choice(["red", "green", "blue"], size),
            "open": rng.integers(0, 2, size).astype(bool),
            "size": pd.Categorical(rng.choice(["L", "M", "S"], size)),
            "owner": rng.choice(["Ada", "Bo", "Cy Young"], size),
            "y": np.arange(size) % 2,
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_text_becomes_codes_of_the_training_rows_categories(mixed, tmp_path, suffix):
    fields = {"source": str(save(mixed, tmp_path, suffix)), "target": "y"}
    rare = open_dataset(fields).parts
    mixed.loc[rare["validation"][1][0], "colour"] = "mauve"
    mixed.loc[rare["test"][1][0], "owner"] = "Zoe"
    dataset = open_dataset(fields | {"source": str(save(mixed, tmp_path, suffix))})
    assert dataset.spec.input.feature_names == ("width", "colour", "open", "size", "owner")
    expected = {
        "colour": ("blue", "green", "red"),
        "size": ("L", "M", "S"),
        "owner": ("Ada", "Bo", "Cy Young"),
    }
    assert dataset.spec.input.categories == expected
    assert dataset.spec.to_dict()["categories"] == {
        name: list(one) for name, one in expected.items()
    }
    for split in dataset.sizes:
        rows = mixed.iloc[dataset.parts[split][1]]
        inputs = dataset.read(split).inputs
        assert not np.isnan(inputs).any()
        for name, categories in expected.items():
            codes = inputs[:, dataset.spec.input.feature_names.index(name)].astype(int)
            texts = rows[name].astype(str)
            known = np.where(np.isin(texts, categories), texts, "?")
            np.testing.assert_array_equal(np.array(["?", *categories])[codes], known)
    assert dataset.read("validation").inputs[0, 1] == 0 == dataset.read("test").inputs[0, 4]


def test_with_folds_inputs_are_coded_alike_in_all_of_them(mixed, tmp_path):
    fields = {"source": str(save(mixed, tmp_path, ".csv")), "target": "y", "folds": 3}
    row = open_dataset(fields).parts["validation"][1][0]
    mixed.loc[row, "colour"] = "mauve"
    save(mixed, tmp_path, ".csv")
    folds = [open_dataset(fields | {"fold": fold}) for fold in range(3)]
    assert folds[0].spec.input.categories["colour"] == ("blue", "green", "mauve", "red")
    assert (
        folds[0].spec.input.categories
        == folds[1].spec.input.categories
        == folds[2].spec.input.categories
    )


def test_categories_can_be_coded_by_hashes(mixed, tmp_path):
    from jdlopt.data.preprocess import encode

    fields = {"source": str(save(mixed, tmp_path, ".csv")), "target": "y"}
    dataset = open_dataset(fields | {"preprocess": {"encode": "hashed", "hash_buckets": 5}})
    rows = dataset.parts["train"][1]
    expected = encode.buckets(list(mixed["colour"].iloc[rows]), 5)
    np.testing.assert_array_equal(dataset.read("train").inputs[:, 1], expected)
    assert dataset.spec.to_dict()["hash_buckets"] == 5


TEXTS = "a,b,y\n" + "".join(f"{'pq'[row % 2]},{row},{row // 2 % 2}\n" for row in range(20))


@pytest.mark.parametrize(
    ("values", "is_text"),
    [
        (["p", "q", " p ", "q"], True),
        (["1", "2", "x", "y"], False),  # half of them are numbers: the others are damage
        (["1", "x", "y", None], True),
        (["1e3", " 2", "x", None], False),
        ([None, None, None, None], False),
        (pd.Categorical([7, 8, 10, 7]), True),  # said to be categories
        ([True, None, False, None], False),
        (["x", "y", "z", "2", "3", "4"], True),  # the last two are no training rows
    ],
)
def test_a_column_is_of_numbers_if_at_least_half_of_its_training_texts_are(values, is_text):
    found = read_column(pd.Series(values, name="a"), fit_rows=np.arange(4))
    damaged = any(problem.kind == "not a number" for problem in found.problems)
    assert (found.texts is not None) == is_text
    assert damaged == (not is_text and "x" in values)


def test_text_that_is_declared_is_written_as_a_csv_would():
    found = read_column(pd.Series(pd.Categorical([7.0, 8.5, None]), name="a"), np.arange(3))
    assert found.texts.tolist() == ["7", "8.5", None]


def test_dates_written_as_text_are_refused(tmp_path):
    for date in ("2024-03-01", "1.12.1999", "2024/3/1 12:30"):
        with pytest.raises(DataError, match=r"'a' holds dates.*data.ignore=\('a',\)"):
            open_text(tmp_path, TEXTS.replace("p,", f"{date},").replace("q,", f"{date},"))


# --- missing and damaged --------------------------------------------------------------------------


def test_missing_values_are_kept_where_preprocessing_fills_them(tmp_path):
    text = GOOD.replace("3.5,3", "3.5,").replace("\n4.5", "\n")
    with pytest.raises(
        DataError, match=r"(?s)in row 5.*in row 4.*data.preprocess.missing='median'"
    ):
        open_text(tmp_path, text)
    with pytest.raises(DataError, match="missing"):
        open_text(tmp_path, text, preprocess={"missing": "none"})
    dataset = open_text(tmp_path, text, preprocess={"missing": "median"})
    assert dataset.spec.to_dict()["allow_missing"]
    found = sum(np.isnan(dataset.read(split).inputs).sum(axis=0) for split in dataset.sizes)
    assert found.tolist() == [1, 1]
    with pytest.raises(DataError, match="'a' holds inf"):
        open_text(tmp_path, text.replace("\n7.5", "\ninf"), preprocess={"missing": "median"})


def test_a_missing_category_is_missing(tmp_path):
    text = TEXTS.replace("p,6", ",6")
    with pytest.raises(DataError, match=r"column 'a' has missing values .*1 rows.* row 7"):
        open_text(tmp_path, text)
    dataset = open_text(tmp_path, text, preprocess={"missing": "most_frequent"})
    missing = [np.isnan(dataset.read(split).inputs[:, 0]).sum() for split in dataset.sizes]
    assert sum(missing) == 1
    assert dataset.spec.input.categories == {"a": ("p", "q")}


DAMAGED = (
    GOOD.replace("3.5,3,1", "3.5,3,1,9")
    .replace("14,0", "14,0,,")  # rows 4 and 15
    .replace("\n5.5", '\n"12,5x"')  # row 6
    .replace("8.5,8", "8.5,1e60")  # row 9
    .replace("10.5,10,0", "10.5,10,")  # row 11
    .replace("17.5,17", "?,inf")  # row 18
)


def test_damage_is_an_error_that_says_how_to_skip_it(tmp_path):
    with pytest.raises(DataError, match=r"line 5, saw 4.*data.on_bad='skip'"):
        open_text(tmp_path, DAMAGED)
    with pytest.raises(DataError, match=r"(?s)'12,5x' in row 6.*data.on_bad='skip'"):
        open_text(
            tmp_path,
            DAMAGED.replace(",1,9\n", ",1\n").replace(",,\n", "\n").replace("10,\n", "10,0\n"),
        )


def test_damaged_rows_are_skipped_and_counted(tmp_path):
    dataset = open_text(tmp_path, DAMAGED, on_bad="skip")
    assert dataset.skipped == {
        "too many columns": 2, "no target": 1, "not a number": 2, "infinite value": 1,
    }  # fmt: skip
    assert sum(dataset.sizes.values()) == 14
    kept = np.concatenate([dataset.read(split).inputs for split in dataset.sizes])
    assert sorted(kept[:, 1].tolist()) == [0, 1, 2, 4, 6, 7, 9, 11, 12, 13, 15, 16, 18, 19]
    told = str(dataset.skips)
    assert told.startswith("6 examples were skipped (2 too many columns, ")
    for words in (
        "data.csv, row 4 (too many columns: 4, expected 3)",
        "data.csv, row 15 (too many columns: 5",
        "row 6 (not a number: '12,5x' in column 'a')",
        "row 9 (infinite value: ",
        "row 11 (its target is nan)",
        "row 18 (not a number: '?' in column 'a')",
    ):
        assert words in told


def test_skipping_changes_nothing_where_there_is_no_damage(frame, tmp_path):
    fields = {"source": str(save(frame, tmp_path, ".csv")), "target": "species"}
    strict, lenient = open_dataset(fields), open_dataset(fields | {"on_bad": "skip"})
    assert lenient.skipped == {} and str(lenient.skips) == "no example was skipped"
    assert lenient.sizes == strict.sizes
    for split in strict.sizes:
        for left, right in zip(strict.read(split), lenient.read(split)):
            np.testing.assert_array_equal(left, right)


def test_what_is_skipped_moves_no_other_row_to_another_split(frame, tmp_path):
    fields = {"target": "species", "on_bad": "skip"}
    before = open_dataset(fields | {"source": str(save(frame, tmp_path, ".csv"))})
    frame["width"] = frame["width"].astype(object)
    damaged = [before.parts[split][1][0] for split in before.sizes]
    frame.loc[damaged, "width"] = "?"
    after = open_dataset(fields | {"source": str(save(frame, tmp_path, ".csv"))})
    for split, row in zip(before.sizes, damaged):
        assert after.sizes[split] == before.sizes[split] - 1
        np.testing.assert_array_equal(
            after.parts[split][1], before.parts[split][1][before.parts[split][1] != row]
        )


def test_quoted_values_may_hold_lines_and_separators(tmp_path):
    text = GOOD.replace("3.5,3,1\n", '3.5,"3\n,,,",1\n\n  \n').replace("7.5,7,1", "7.5,7,1,1")
    dataset = open_text(tmp_path, text, on_bad="skip")
    assert dataset.skipped == {"too many columns": 1, "not a number": 1}
    assert r"row 4 (not a number: '3\n,,,' in column 'b')" in str(dataset.skips)
    assert "row 8 (too many columns" in str(dataset.skips)  # blank lines are no rows


def test_a_target_that_is_mostly_numbers_is_one_to_predict(tmp_path):
    text = "a,y\n" + "".join(f"{row},{row}.25\n" for row in range(30))
    damaged = text.replace(",7.25", ",7;25").replace(",9.25", ",inf").replace(",11.25", ",")
    with pytest.raises(DataError, match=r"1 missing values.*row 12"):
        open_text(tmp_path, damaged)
    with pytest.raises(DataError, match="row 8 holds '7;25', which is not a number"):
        open_text(tmp_path, text.replace(",7.25", ",7;25"))
    dataset = open_text(tmp_path, damaged, on_bad="skip")
    assert dataset.spec.task == "regression"
    assert dataset.skipped == {"no target": 3}
    assert "row 8 (its target is '7;25')" in str(dataset.skips)


def test_nothing_may_be_left(tmp_path):
    with pytest.raises(DataError, match="no rows: 20 examples were skipped"):
        open_text(tmp_path, GOOD.replace("\n", ",9\n").replace("y,9", "y"), on_bad="skip")
    with pytest.raises(DataError, match="no train example is left: 20 examples"):
        open_text(tmp_path, GOOD.replace(".5,", "1e60,"), on_bad="skip")


# --- groups, times, weights, texts ----------------------------------------------------------------


@pytest.fixture
def visits():
    rng = np.random.default_rng(2)
    size = 120
    return pd.DataFrame(
        {
            "pressure": rng.normal(size=size),
            "patient": [f"p{number}" for number in rng.integers(0, 25, size)],
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 60, size), "D"),
            "share": rng.integers(1, 4, size) / 2,
            "note": rng.choice(["feels well", "feels quite ill", "NA"], size),
            "ill": rng.integers(0, 2, size),
        }
    )


KEYS = {"target": "ill", "ignore": ("note", "day", "patient", "share")}


def test_columns_beside_the_features_are_none_of_them(visits, tmp_path):
    fields = {"source": str(save(visits, tmp_path, ".csv")), "target": "ill", "ignore": ("note",)}
    grouped = {
        "group": "patient",
        "weight": "share",
        "sampling": "weighted",
        "ignore": ("day", "note"),
    }
    dataset = open_dataset(fields | grouped)
    assert dataset.spec.input.feature_names == ("pressure",)
    patients = [set(visits["patient"].iloc[rows]) for _, rows in dataset.parts.values()]
    assert sum(map(len, patients)) == visits["patient"].nunique()
    np.testing.assert_array_equal(dataset.weights, visits["share"].iloc[dataset.parts["train"][1]])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("how", ["dates", "numbers"])
def test_the_test_split_is_the_latest(visits, tmp_path, suffix, how):
    visits["day"] = visits["day"] if how == "dates" else visits["day"].dt.day_of_year
    fields = {"source": str(save(visits, tmp_path, suffix)), "target": "ill", "time": "day"}
    dataset = open_dataset(fields | {"ignore": ("note", "patient", "share")})
    days = {split: visits["day"].iloc[rows] for split, (_, rows) in dataset.parts.items()}
    assert days["train"].max() < days["validation"].min()
    assert days["validation"].max() < days["test"].min()
    assert dataset.spec.input.feature_names == ("pressure",)


def test_a_regression_can_be_split_by_bins(visits, tmp_path):
    fields = {"source": str(save(visits, tmp_path, ".csv")), "target": "pressure"}
    fields |= {"ignore": ("note", "day", "patient"), "validation_fraction": 0.25}
    dataset = open_dataset(fields | {"stratify_bins": 6})
    edges = np.quantile(visits["pressure"], np.linspace(0, 1, 7)[1:-1])
    for split, (_, rows) in dataset.parts.items():
        bins = np.digitize(visits["pressure"].iloc[rows], edges, right=True)
        counts = np.bincount(bins, minlength=6)
        assert counts.max() - counts.min() <= 1, split
    plain = open_dataset(fields)
    assert not np.array_equal(plain.parts["test"][1], dataset.parts["test"][1])


def test_a_column_of_texts_becomes_tokens(visits, tmp_path):
    from jdlopt.data import text

    fields = {"source": str(save(visits, tmp_path, ".csv")), "target": "ill", "text_column": "note"}
    fields["text"] = {"max_tokens": 6, "vocab_size": 60, "min_frequency": 1}
    rare = open_dataset(fields).parts["test"][1][0]
    visits.loc[rare, "note"] = "xylophonist"
    save(visits, tmp_path, ".csv")
    dataset = open_dataset(fields)
    assert (dataset.spec.input.shape, dataset.spec.input.dtype) == ((6,), "int32")
    assert dataset.spec.input.feature_names is None and dataset.spec.input.text.column == "note"
    train = visits["note"].iloc[dataset.parts["train"][1]]
    state = text.fit(fields["text"], list(train))
    for split, (_, rows) in dataset.parts.items():
        inputs, targets = dataset.read(split)
        assert inputs.dtype == np.int32
        np.testing.assert_array_equal(inputs, text.encode(state, list(visits["note"].iloc[rows])))
        np.testing.assert_array_equal(targets, visits["ill"].iloc[rows])
    assert "xylophonist" not in dataset.spec.input.text.vocabulary()
    words = text.decode(state, dataset.read("train").inputs)
    assert {word for word in words if "feels" not in word} == {"na"}  # no missing value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group": "patent"}, "data.group: there is no column 'patent'. Did you mean 'patient'"),
        ({"time": "note"}, "data.time column 'note': row 1 holds .*2024-03-01"),
        ({"weight": "note", "sampling": "weighted"}, "data.weight column 'note': row 1 holds"),
        ({"weight": "share", "target": "pressure", "ignore": ("day",)}, "set both"),
        (
            {"weight": "pressure", "sampling": "weighted", "ignore": ()},
            "data.weight .*row .* holds -0.*at least 0",
        ),
        ({"weight": "share"}, "data.sampling is 'uniform' and data.weight is 'share': set both"),
        ({"sampling": "weighted"}, "set both"),
        ({"group": "patient", "time": "day"}, "by one of them"),
        ({"text_column": "ill"}, "data.text_column: 'ill' is data.target"),
        ({"target": "pressure", "sampling": "balanced"}, "this is a regression dataset"),
        ({"sample_rate": 8000}, "data.sample_rate: .*holds no sounds"),
        ({"seconds": 1.0}, "data.seconds: .*holds no sounds"),
    ],
)
def test_wrong_columns(visits, tmp_path, fields, message):
    source = {"source": str(save(visits, tmp_path, ".csv"))}
    with pytest.raises(DataError, match=message):
        open_dataset(source | KEYS | fields)


def test_rows_without_a_group_or_time_are_skipped_when_asked(visits, tmp_path):
    visits.loc[[3, 5], "patient"] = None
    visits["day"] = visits["day"].astype(str)
    visits.loc[8, "day"] = "soon"
    source = {"source": str(save(visits, tmp_path, ".csv")), "target": "ill"}
    with pytest.raises(
        DataError, match=r"row 4 holds a missing value, one of 2 rows.*data.on_bad='skip'"
    ):
        open_dataset(source | KEYS | {"group": "patient"})
    grouped = open_dataset(source | KEYS | {"group": "patient", "on_bad": "skip"})
    assert grouped.skipped == {"no group": 2}
    timed = open_dataset(source | KEYS | {"time": "day", "on_bad": "skip"})
    assert timed.skipped == {"no time": 1}
    assert "row 9 (its time is 'soon')" in str(timed.skips)
