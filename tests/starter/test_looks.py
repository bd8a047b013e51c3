"""Columns: what each holds, and what it would mean to predict it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jdlopt.data.fields import DataFields
from jdlopt.starter import looks
from jdlopt.starter.looks import as_target

ROWS = 60
DRAW = np.random.default_rng(0)
COLUMNS = {
    "id": range(ROWS),
    "user_id": [f"u{index:03}" for index in range(ROWS)],
    "nothing": [None] * ROWS,
    "same": ["x"] * ROWS,
    "zero": [0] * ROWS,
    "when": [f"2024-01-{1 + index % 28:02}" for index in range(ROWS)],
    "size": DRAW.normal(size=ROWS),
    "grade": [index % 5 for index in range(ROWS)],
    "count": DRAW.integers(0, 500, ROWS),
    "half": [(index % 3) / 2 for index in range(ROWS)],
    "colour": ["red", "green", "blue"] * (ROWS // 3),
    "genres": ["action|drama", "drama", "action", "comedy|action"] * (ROWS // 4),
    "review": [
        f"a film that {'pleased' if i % 2 else 'bored'} me, number {i}" for i in range(ROWS)
    ],
    "评论": [f"这部电影非常好看我很喜欢{chr(0x4E00 + index)}" for index in range(ROWS)],
    "price": [f"{index},5" for index in range(ROWS)],
    "flag": [True, False] * (ROWS // 2),
    "patient": [f"p{index % 12}" for index in range(ROWS)],
}


@pytest.fixture(scope="module")
def seen():
    return looks.look_at(pd.DataFrame(COLUMNS), DataFields(""), Path())


@pytest.mark.parametrize(
    ("name", "holds", "task"),
    [
        ("id", looks.NUMBERS, "regression"),
        ("user_id", looks.CATEGORIES, None),
        ("nothing", looks.NOTHING, None),
        ("same", looks.ONE_VALUE, None),
        ("zero", looks.ONE_VALUE, None),
        ("when", looks.DATES, None),
        ("size", looks.NUMBERS, "regression"),
        ("grade", looks.NUMBERS, "classification"),
        ("count", looks.NUMBERS, "regression"),
        ("half", looks.NUMBERS, "regression"),
        ("colour", looks.CATEGORIES, "classification"),
        ("genres", looks.CATEGORIES, "multilabel"),
        ("review", looks.TEXTS, None),
        ("评论", looks.TEXTS, None),
        ("price", looks.NUMBERS, "regression"),
        ("flag", looks.NUMBERS, "classification"),
        ("patient", looks.CATEGORIES, "classification"),
    ],
)
def test_columns_are_known_by_what_they_hold(seen, name, holds, task):
    assert (seen[name].holds, as_target(seen[name]).task) == (holds, task)


def test_what_else_a_target_may_mean_is_said(seen):
    other = {name: as_target(look).other for name, look in seen.items()}
    assert other["grade"] == "regression" and other["half"] == "classification"
    assert other["count"] is None and other["genres"] == "classification"
    assert other["flag"] is None and other["colour"] is None and other["size"] is None


def test_columns_that_name_rows_groups_or_categories(seen):
    assert {name for name, look in seen.items() if look.names_rows} == {"id", "user_id"}
    assert {name for name, look in seen.items() if look.may_group} == {"patient"}
    codes = pd.DataFrame(
        {"zip": DRAW.integers(10_000, 10_030, ROWS), "x": DRAW.integers(0, 40, 60)}
    )
    found = looks.look_at(codes, DataFields(""), Path())
    assert found["zip"].may_be_categories and not found["x"].may_be_categories


def test_the_config_says_what_a_column_holds_where_it_does():
    table = pd.DataFrame({"review": COLUMNS["review"], "grade": COLUMNS["grade"]})
    fields = DataFields("", columns={"review": "category", "grade": "category"})
    found = looks.look_at(table, fields, Path())
    assert [look.holds for look in found.values()] == [looks.CATEGORIES] * 2


def test_rows_for_a_reader_say_all_of_it(seen):
    rows = {row["column"]: row for row in looks.rows_of(seen)}
    assert rows["colour"]["what there is"] == "3 classes"
    assert rows["same"]["what there is"] == "always 'x': nothing to learn"
    assert rows["grade"] == {
        "column": "grade",
        "holds": "numbers",
        "different": 5,
        "missing": 0,
        "as the target": "classification",
        "what there is": "whole numbers with 5 different values, 0 to 4",
    }
