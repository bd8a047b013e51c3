"""A study whose records another hand has changed: one message or the same study, never between.

What is changed is a study that trained nothing (see `searches`), so that each change is cheap.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pandas as pd
import pytest
from fake import trained
from hypothesis import given
from hypothesis import strategies as st
from searches import SPACE, search

from jdlopt.errors import UserError
from jdlopt.report.study import write_report
from jdlopt.study import curves, database
from jdlopt.study.enqueue import checked
from jdlopt.study.setup import claim

FIRST = checked(SPACE, [{"optim.learning_rate": 0.5, "model.dropout_rate": 0.25}])
ENDS = {3: ("diverged", "it diverged"), 5: ("pruned", None)}


def tuned(folder: Path, trials: int = 8) -> dict[str, Any]:
    """Goes on with a study as `tune` does; a trial's result is a function of its point."""

    def reply(request):
        result = trained(request, value=lambda trial: sum(trial.params.values()) + trial.seed / 8)
        ends = {one.number: ENDS.get(one.number, (one.status, None)) for one in result.trials}
        ended = [
            replace(one, status=ends[one.number][0], reason=ends[one.number][1])
            for one in result.trials
        ]
        return replace(result, trials=ended)

    database.quiet()
    claim(folder)
    with database.opened(None, folder) as storage:
        found = search(storage, folder, first=FIRST, trials=trials, keep=0, repeats=2)
        found.executor._processes.reply = reply
        return found.run(lambda: False).record


def told(act: Callable[[], object]) -> object:
    """Returns what an act comes to; None where it says in a message why it can't."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return act()
        except UserError:
            return None


def results(record: dict[str, Any]) -> list[tuple[object, ...]]:
    return [tuple(row[key] for key in ("number", "params", "state", "values"))
            for row in record["trials"]]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, list[tuple[object, ...]]]:
    folder = tmp_path_factory.mktemp("whole") / "study"
    folder.mkdir()
    record = tuned(folder)
    assert [row["state"] for row in record["trials"]].count("done") == 6
    assert results(tuned(folder)) == results(record)
    return folder, results(record)


@pytest.fixture
def study(whole, tmp_path) -> Path:
    return copied(whole, tmp_path)


def copied(whole, place: Path) -> Path:
    shutil.rmtree(place / "study", ignore_errors=True)
    return Path(shutil.copytree(whole[0], place / "study"))


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "study.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


OF_RECORD = "trial_user_attributes where key = 'record'"
TWICE = (
    "pragma foreign_keys = off",
    "update trials set number = 1 where number = 2",
)
MADE = {
    "numbers twice": TWICE,
    "a number lost": ("update trials set number = 9 where number = 7",),
    "a number below zero": ("update trials set number = -1 where number = 0",),
    "params out of range": ("update trial_params set param_value = 99 where trial_id = 2",),
    "other params": ("update trial_params set param_value = 0.125 where trial_id = 2",),
    "params lost": ("delete from trial_params where trial_id = 2",),
    "other direction": ("update study_directions set direction = 'MAXIMIZE'",),
    "no record": (f"delete from {OF_RECORD} and trial_id = 1",),
    "record no object": ("update trial_user_attributes set value_json = '[3]' where key='record'",),
    "record no JSON": ("update trial_user_attributes set value_json = '{' where key = 'record'",),
    "no attributes": ("update trial_user_attributes set trial_id = 99 where trial_id = 1",),
    "other value": ("update trial_values set value = 0.0625 where trial_id = 1",),
    "other state": ("update trials set state = 'PRUNED' where number = 0",),
    "not finished": ("update trials set state = 'RUNNING' where number = 4",),
    "unknown state": ("update trials set state = 'SOON' where number = 0",),
    "other definition": ("update study_user_attributes set value_json = '\"{}\"' "
                         "where key = 'definition'",),
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
def test_a_storage_that_another_hand_changed_is_one_message(kind, study):
    change(study, *MADE[kind])
    before = (study / "study.json").read_bytes()
    with pytest.raises(UserError) as error:
        tuned(study)
    assert "storage" in str(error.value) or "study.db" in str(error.value)
    assert (study / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "update trial_user_attributes set value_json = '3' where key = 'owner'",
        "update trial_user_attributes set value_json = '[{}]' where key = 'owner'",
        "update trial_user_attributes set value_json = '\"x\"' where key = 'generation'",
        "update trial_user_attributes set value_json = '-5' where key = 'generation'",
        "update trial_user_attributes set value_json = '1000000' where key = 'generation'",
        "delete from trial_user_attributes where key = 'generation'",
        "update study_user_attributes set value_json = '[]' where key like 'owner:%'",
    ],
)
def test_what_says_who_did_what_changes_no_result(statement, whole, study):
    change(study, statement)
    assert results(tuned(study)) == whole[1]
    change(study, statement)
    assert len(told(lambda: tuned(study, trials=12))["trials"]) == 12


def rows(study: dict[str, Any]) -> list[dict[str, Any]]:
    return study["trials"]


RECORDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "numbers twice": lambda one: rows(one)[2].update(number=1),
    "a trial twice": lambda one: rows(one).append(rows(one)[2]),
    "no number": lambda one: rows(one)[2].pop("number"),
    "no object": lambda one: rows(one).__setitem__(2, [3]),
    "no state": lambda one: rows(one)[2].pop("state"),
    "no trainings": lambda one: rows(one)[2].update(trainings=None),
    "a huge value": lambda one: rows(one)[2].update(values=[10**400]),
    "no value": lambda one: rows(one)[2].update(values=[float("nan")]),
    "params out of range": lambda one: rows(one)[2]["params"].update({"optim.learning_rate": 9}),
    "other direction": lambda one: one["objectives"][0].update(direction="maximize"),
    "other best": lambda one: one.update(best=3),
    "a key twice": lambda one: one["space"].append(one["space"][0]),
    "an objective twice": lambda one: one["objectives"].append(one["objectives"][0]),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_study_file_that_another_hand_changed_is_told_and_written_again(kind, whole, study):
    record = json.loads((study / "study.json").read_text())
    RECORDS[kind](record)
    (study / "study.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is not as jdlopt writes it"):
        write_report(study)
    assert results(tuned(study)) == whole[1]
    write_report(study)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 10**5, '{"status": "done"}', "\0"])
def test_a_study_file_that_is_damaged_is_told_and_written_again(text, whole, study):
    (study / "study.json").write_text(text)
    with pytest.raises(UserError, match=r"study\.json: is "):
        write_report(study)
    assert results(tuned(study)) == whole[1]


@pytest.mark.parametrize("name", ["study.json", "study.db"])
def test_a_pipe_is_not_waited_for(name, study):
    (study / name).unlink()
    os.mkfifo(study / name)
    with pytest.raises(UserError, match="is no file"):
        tuned(study)


# --- anything, anywhere ---------------------------------------------------------------------------

VALUES = st.sampled_from([
    None, "", "x", "[]", "{", "{}", '"x"', "null", "NaN", "1e999", "-1", 0, 1, -1, 7, 2**40,
    2**63 - 1, 0.5, -1.5, 1e308, float("inf"), b"\0", "[" * 10**5,
])  # fmt: skip
WRONG = st.sampled_from([
    None, [], {}, "x", "", True, -1, 0, 3.5, float("nan"), float("inf"), 1e308, 10**30, 10**400,
    [1, "a"], {"a": 1}, "\0", "\ud800", [[]],
])  # fmt: skip
MANY = hypothesis.settings(
    max_examples=100,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate],
)


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields every place of a JSON value."""
    yield before
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*before, key))


def changed(record: Any, data: st.DataObject) -> Any:
    """Returns a JSON value that is changed somewhere: another value, one less, or one twice."""
    record = json.loads(json.dumps(record))
    place = data.draw(st.sampled_from([place for place in places(record) if place]))
    node = record
    for key in place[:-1]:
        node = node[key]
    how = data.draw(st.sampled_from(["other", "none", "twice"]))
    if how == "none":
        del node[place[-1]]
    elif how == "twice" and isinstance(node, list):
        node.append(node[place[-1]])
    else:
        node[place[-1]] = data.draw(WRONG)
    return record


@pytest.mark.slow
@MANY
@given(st.data())
def test_a_study_file_with_anything_anywhere_is_no_traceback(whole, tmp_path_factory, data):
    study = copied(whole, tmp_path_factory.getbasetemp())
    record = changed(json.loads((study / "study.json").read_text()), data)
    (study / "study.json").write_text(json.dumps(record))
    told(lambda: write_report(study))
    found = told(lambda: tuned(study))
    assert found is None or results(found) == whole[1]


@pytest.mark.slow
@MANY
@given(st.data())
def test_a_database_with_anything_anywhere_is_no_traceback(whole, tmp_path_factory, data):
    study = copied(whole, tmp_path_factory.getbasetemp())
    with closing(sqlite3.connect(study / "study.db")) as connection:
        tables = [row[0] for row in connection.execute(
            "select name from sqlite_master where type = 'table' and name not like 'sqlite%'"
        )]  # fmt: skip
        cells = [
            (table, row[0], column)
            for table in sorted(tables)
            for row in connection.execute(f"select rowid from {table}")
            for column in [one[1] for one in connection.execute(f"pragma table_info({table})")]
        ]
        table, row, column = data.draw(st.sampled_from(cells))
        held = connection.execute(f"select {column} from {table} where rowid = ?", [row])
        (text,) = held.fetchone()
        how = data.draw(st.sampled_from(["cell", "inside", "gone", "twice"]))
        try:
            if how == "gone":
                connection.execute(f"delete from {table} where rowid = ?", [row])
            elif how == "twice":
                columns = [one[1] for one in connection.execute(f"pragma table_info({table})")]
                rest = ", ".join(columns[1:])
                connection.execute(
                    f"insert into {table} ({rest}) select {rest} from {table} where rowid = ?",
                    [row],
                )
            else:
                value = data.draw(VALUES)
                if how == "inside" and column == "value_json":
                    inner = json.loads(text)
                    inner = [inner] if not isinstance(inner, dict | list) or not inner else inner
                    value = json.dumps(changed(inner, data))
                connection.execute(f"update {table} set {column} = ? where rowid = ?", [value, row])
            connection.commit()
        except (sqlite3.Error, OverflowError):
            hypothesis.reject()
    found = told(lambda: tuned(study))
    assert found is None or results(found) == whole[1]
    told(lambda: write_report(study))


@pytest.mark.slow
@MANY
@given(st.data())
def test_curves_with_anything_anywhere_cost_their_lines_alone(whole, tmp_path_factory, data):
    study = copied(whole, tmp_path_factory.getbasetemp())
    path = study / curves.CURVES
    table = pd.read_parquet(path)
    column = data.draw(st.sampled_from([*table.columns, "written", "more"]))
    how = data.draw(st.sampled_from(["value", "text", "gone", "huge", "cut", "bool", "twice"]))
    if how == "gone":
        table = table.drop(columns=column, errors="ignore")
    elif how == "twice":
        table = pd.concat([table, table])
    elif how == "text":
        table[column] = "x"
    elif how == "bool":
        table[column] = True
    else:
        value = data.draw(st.sampled_from([float("nan"), float("inf"), -1, 1e308, 2**62, 0.5]))
        held = pd.Series(table.get(column, 0.0), index=table.index)
        held = held if isinstance(value, int) else held.astype(float)
        table[column] = value if how == "huge" else held.where(table.index != 1, value)
    table.to_parquet(path)
    if how == "cut":
        content = path.read_bytes()
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    told(lambda: write_report(study))
    assert results(told(lambda: tuned(study))) == whole[1]
