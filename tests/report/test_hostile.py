"""No text of a record is alive on a page, wherever in the record it stands."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from outline import Outline
from samples import a_comparison, a_study, a_trial, an_ablation, an_improvement
from test_data import EVERY, a_check, of_images, of_table
from test_diagnosis import a_diagnosis
from test_run import outcome

from jdlopt.errors import UserError
from jdlopt.report import data, diagnosis, page, run, study, write_report

ALIVE = (
    "</script><script>window.alive=1</script>\"><img src=x onerror=window.alive=1>'"
    "<a href='javascript:window.alive=1'>x</a>{{ 7 * 7 }}%{x}"
)
Place = tuple[str | int, ...]


def places(value: Any, before: Place = ()) -> Iterator[Place]:
    """Yields where each leaf of a record is, once for all items of a list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*before, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*before, 0))
        if isinstance(value[0], dict) and value[-1].keys() != value[0].keys():
            yield from places(value[-1], (*before, len(value) - 1))
    else:
        yield before


def with_text(record: Any, place: Place, as_key: bool) -> Any:
    """Returns a record with hostile text for a leaf, or for the leaf's key."""
    made = copy.deepcopy(record)
    node = made
    for step in place[:-1]:
        node = node[step]
    if as_key:
        node[ALIVE] = node.pop(place[-1])
    else:
        node[place[-1]] = ALIVE
    return made


def check_dead(text: str) -> bool:
    """Asserts that hostile text is only text on a page; returns whether it is there."""
    outline = Outline(text)
    assert outline.unbalanced == [] and outline.open == []
    kinds = [attrs.get("type") for attrs, _ in outline.scripts]
    assert kinds.count(None) == 2 and set(kinds) <= {None, "application/json"}
    for tag, attrs in outline.elements:
        assert not any(name.startswith("on") for name in attrs), attrs
        assert tag != "img" or attrs["src"].startswith("data:image/png;base64,")
        assert attrs.get("href", "#").startswith(("#", "data:,"))
    for spec in outline.plots().values():
        assert not any(set("<>") & set(words) for words in strings(spec))
    return "window.alive" in text


def strings(value: Any) -> Iterator[str]:
    """Yields every string of a figure that Plotly would read as markup."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in page.MARKUP:
                yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def from_file(name: str, record: Any, folder: Path) -> str:
    (folder / name).write_text(json.dumps(record), "utf-8")
    return write_report(folder).read_text("utf-8")


def of_study(record: Any, folder: Path) -> str:
    best = {"data": {"source": ALIVE}, "model": {ALIVE: ALIVE}}
    (folder / "best_config.json").write_text(json.dumps(best), "utf-8")
    return from_file("study.json", record, folder)


def of_run(record: Any, folder: Path) -> str:
    features = tuple(record["features"])
    found = outcome((5,), 3, names=record["classes"], features=features)
    parts = (record[name] for name in ("config", "result", "rows"))
    return run.make_page(folder, *parts, found, record["unavailable"])


def of_diagnosis(record: Any, folder: Path) -> str:
    return diagnosis.make_page(folder, record)


A_RUN = {
    "config": {"data": {"source": "a"}, "model": {"name": "mlp"}},
    "result": {
        "status": "diverged", "metrics": {"train/loss": 0.1, "test/accuracy": 0.9}, "steps": 29,
        "best": {"step": 20, "metric": "validation/loss", "value": 0.1}, "wall_seconds": 2.0,
        "diverged": {"step": 7, "quantity": "loss", "value": None}, "n_params": 10,
        "versions": {"python": "3.11"},
    },
    "rows": [{"step": step, "train/loss": 1 / step, "validation/loss": 1.0} for step in (1, 2)],
    "classes": ["a", "b", "c"], "features": ["x1", "x2", "x3", "x4", "x5"], "unavailable": "",
}  # fmt: skip
TRIALS = [a_trial(n, 2, "infeasible" if n == 3 else "done") for n in range(5)]
MADE: dict[str, tuple[Any, Callable[[Any, Path], str], int]] = {
    "study": (a_study(TRIALS, 2), of_study, 6),
    "run": (A_RUN, of_run, 12),
    "comparison": (a_comparison(), lambda r, folder: from_file("compare.json", r, folder), 12),
    "ablation": (an_ablation(), lambda r, folder: from_file("ablate.json", r, folder), 6),
    "improvement": (an_improvement(), lambda r, folder: from_file("improve.json", r, folder), 8),
    "diagnosis": (a_diagnosis(("class_imbalance", "layer_scale")), of_diagnosis, 8),
}
"""A record, what makes a page of it, and of how many places at least text is shown."""


@pytest.fixture
def quick(monkeypatch):
    """Leaves out what is slow and the same in each page."""
    found = {**page.assets(), "plotly": "0"}
    monkeypatch.setattr(page, "assets", lambda: found)
    monkeypatch.setattr(study, "importances", lambda _: ({"optim.learning_rate": 1.0}, "x"))


@pytest.mark.parametrize("kind", MADE)
def test_no_text_of_a_record_is_alive(kind, quick, tmp_path):
    record, make, least = MADE[kind]
    shown = 0
    for place in dict.fromkeys(places(record)):
        for as_key in (False, True):
            if as_key and not isinstance(place[-1], str):
                continue
            try:
                text = make(with_text(record, place, as_key), tmp_path)
            except UserError:
                continue  # told instead of shown
            except (KeyError, TypeError, ValueError, AttributeError):
                assert make in (of_run, of_diagnosis), place  # not read from a file here
                continue
            shown += check_dead(text)
    assert shown >= least


@pytest.mark.parametrize("taken", [of_table(), of_images(), ALIVE])
def test_no_text_of_a_data_check_is_alive(taken, quick):
    if not isinstance(taken, str):
        [one] = taken
        columns = tuple(column._replace(label=ALIVE, change=0.1) for column in one.columns)
        names = (ALIVE,) * len(one.names)
        one = one._replace(columns=columns, labels=(ALIVE,) * 50, names=names, input=ALIVE)
        taken = (one,)
    for finding in EVERY:
        for field in dataclasses.fields(finding):
            if isinstance(getattr(finding, field.name), str) and field.name != "severity":
                found = dataclasses.replace(finding, **{field.name: ALIVE})
                assert check_dead(data.make_page(a_check(found), taken))


def at(record: Any, place: Place) -> Any:
    """Returns what stands at a place; None where there is no such place any more."""
    for step in place:
        try:
            record = record[step]
        except (KeyError, IndexError, TypeError):
            return None
    return record


def everywhere(
    record: Any, make: Callable[[Any, Path], str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Returns a record with hostile text for every text, and every key, that a page takes so."""
    count = 0
    with monkeypatch.context() as patched:
        found = {**page.assets(), "plotly": "0"}
        patched.setattr(page, "assets", lambda: found)
        patched.setattr(study, "importances", lambda _: ({"optim.learning_rate": 1.0}, "x"))
        for place in dict.fromkeys(places(record)):
            for as_key in (False, True):
                if not isinstance(place[-1] if as_key else at(record, place), str):
                    continue
                try:
                    changed = with_text(record, place, as_key)
                    make(changed, folder)
                except (UserError, KeyError, TypeError, ValueError, AttributeError):
                    continue  # told instead of shown, or its place is called by another name now
                record, count = changed, count + 1
    assert count > 10
    return record


@pytest.mark.slow
@pytest.mark.skipif(browser.program() is None, reason="there is no Chromium to open pages in")
def test_in_a_browser_nothing_of_it_runs(tmp_path, monkeypatch):
    hostile = {
        "study": a_study([{**a_trial(n, 2), "params": {"optim.learning_rate": 1e-3,
                           "model.activation": ALIVE}} for n in range(9)], 2),
        "run": {**A_RUN, "classes": [ALIVE, "b", ALIVE], "features": [ALIVE] * 5},
        "comparison": {**a_comparison(), "metric": ALIVE, "changes": {ALIVE: [ALIVE, ALIVE]}},
        "ablation": {**an_ablation(), "techniques": [
            {**row, "technique": ALIVE} for row in an_ablation()["techniques"]]},
        "diagnosis": json.loads(json.dumps(a_diagnosis()).replace(
            json.dumps(a_diagnosis()["record"]["config"]["data"]["source"]), json.dumps(ALIVE))),
    }  # fmt: skip
    hostile["study"]["space"] = [
        {**row, "choices": ["relu", ALIVE]} if row["key"] == "model.activation" else row
        for row in hostile["study"]["space"]
    ]
    pages = {kind: (MADE[kind][1], record) for kind, record in hostile.items()}
    for kind, (record, make, _) in MADE.items():
        folder = tmp_path / f"everywhere-{kind}"
        folder.mkdir()
        pages[f"all-of-{kind}"] = (make, everywhere(record, make, folder, monkeypatch))
    with browser.opened() as chromium:
        for kind, (make, record) in pages.items():
            folder = tmp_path / kind
            folder.mkdir()
            path = folder / "page.html"
            path.write_text(make(record, folder), "utf-8")
            assert "window.alive" in path.read_text("utf-8")
            chromium.open(path)
            assert chromium.complaints() == [], kind  # nor did the policy have to refuse anything
            assert chromium.run("window.alive") is None
            assert (
                chromium.run("document.querySelectorAll('img[src=x], a[href^=java]').length") == 0
            )
            assert chromium.run("document.querySelectorAll('.plot').length") == int(
                chromium.run("document.documentElement.dataset.drawn")
            )


def test_the_text_is_a_living_one():
    with pytest.raises(AssertionError):
        check_dead(f"<!doctype html><p>{ALIVE}</p>")
