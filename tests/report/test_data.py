"""The page of a data check: whole, escaped, with what a reader needs to act."""

from __future__ import annotations

import re

import browser
import numpy as np
import pytest
from outline import check as check_page
from samples import HOSTILE

from jdlopt.data.check import Check, Finding, Part, check_source
from jdlopt.errors import WorkdirError
from jdlopt.report import data
from jdlopt.report.samples import Column, Samples

ESCAPE = "\x1b[31m"


def a_finding(kind="missing", severity="error", parts=2, rows=30, **more):
    draw = np.random.default_rng(parts)
    made = tuple(
        Part(
            f"{HOSTILE} {n}", np.sort(draw.choice(500, rows + n, replace=False)), rows + n, HOSTILE
        )
        for n in range(parts)
    )
    given = {
        "problem": "missing values", "text": f"{HOSTILE} in 3 cells", "count": 60, "of": 900,
        "unit": "cells", "advice": "Fill them in:", "parts": made,
    }  # fmt: skip
    return Finding(kind, severity, **{**given, **more})


def a_check(*findings, kind="table"):
    sizes = {"rows": 500, "columns": 30}
    return Check(HOSTILE + ESCAPE, kind, findings, sizes, ("All rows.",), None, {})


def of_table(columns=4, prepared=4):
    draw = np.random.default_rng(0)
    raw = draw.normal(size=(50, columns)).astype(np.float32)
    raw[:, 0] = np.nan
    scaled = draw.normal(size=(50, prepared)).astype(np.float32)
    made = (
        Column("raw", raw, "raw"),
        Column("preprocessed", scaled, "model"),
        Column(f"jitter {HOSTILE}", scaled, "model", 0.25, 1.0),
    )
    return (Samples(made, ("a",) * 50, "table", names=(HOSTILE,) * columns),)


def of_images():
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    made = (Column("raw", images, "raw"), Column("preprocessed", images / 255.0, "model"))
    return (Samples(made, (HOSTILE,) * 20, "image"),)


EVERY = (
    a_finding(),
    a_finding("wrong_size", parts=1, unit="rows"),
    a_finding("opening", parts=0, config=""),
    a_finding("leaks", "warning", 60, config=f"data.ignore=({HOSTILE!r},)", unit="columns"),
    a_finding(
        "scales", "warning", 3,
        numbers={"names": [HOSTILE, "b"], "values": [900.0, 2.0], "log": True, "axis": "range"},
    ),
    a_finding(
        "odd_rows", "note", 1,
        numbers={"names": ["0.4", "0.5"], "values": [9, 2], "axis": "rows", "upright": True},
    ),
    a_finding(
        "label_noise", "note", 2,
        numbers={"names": [HOSTILE, "2"], "matrix": [[0, 4], [1, 0]]},
    ),
)  # fmt: skip


@pytest.mark.parametrize("taken", [of_table(), of_table(14, 20), of_images(), f"{HOSTILE} is gone"])
def test_the_page_is_whole_and_escaped(taken):
    made = check_page(data.make_page(a_check(*EVERY), taken))
    assert HOSTILE in made.words and ESCAPE not in made.words
    assert not any(tag == "script" and "src" in attrs for tag, attrs in made.elements)
    pictures = [attrs for tag, attrs in made.elements if tag == "img"]
    assert len(pictures) == (taken[0].kind == "image" if isinstance(taken, tuple) else 0)
    plots = made.plots()
    assert {f"finding-{n}-figure" for n in (0, 1, 3, 4, 5, 6)} <= set(plots)
    assert "finding-2-figure" not in plots
    # a figure's own text is markup too: there the name is escaped once more
    names = plots["finding-4-figure"]["layout"]["yaxis"]["ticktext"]
    assert names[1] == "b " and "<" not in names[0]
    titles = [words for level, words in made.headings if level == 2]
    assert titles[0] == "Findings" and titles[-1] == "Samples"
    assert titles[-2] == "Next steps" and len(titles) == len(EVERY) + 3


def test_a_config_line_is_shown_and_copied_whole():
    text = data.make_page(a_check(*EVERY), "none")
    made = check_page(text)
    assert "finding-0-config" in made.attributes("data-copy")
    assert "data.preprocess.missing='median'" in made.words
    copied = [one for one in made.attributes("data-copy") if one.startswith("finding")]
    assert len(copied) == 6  # all but what no config mends
    odd = re.search(r'<pre id="finding-5-config">(.*?)</pre>', text, re.S)
    assert odd is not None and len(odd[1].splitlines()) == 2


def test_many_parts_are_cut_and_say_so():
    made = check_page(data.make_page(a_check(a_finding("leaks", "warning", 60)), "none"))
    assert f"the first {data.MOST_PARTS} of 60" in made.words
    bars = made.plots()["finding-0-figure"]["data"][0]["x"]
    assert len(bars) == data.MOST_BARS


def test_nothing_found_is_said():
    made = check_page(data.make_page(a_check(), of_images()))
    assert "Nothing was found" in made.words


def test_histograms_hold_every_value_before_and_after():
    taken = of_table()
    plots = check_page(data.make_page(a_check(), taken)).plots()
    assert "sample-0" not in plots or len(plots["sample-0"]["data"]) == 1  # it has no raw value
    raw, scaled = plots["sample-1"]["data"]
    assert sum(raw["y"]) == sum(scaled["y"]) == 50
    low, high = taken[0].columns[0].values[:, 1].min(), taken[0].columns[0].values[:, 1].max()
    assert low < min(raw["x"]) and max(raw["x"]) < high


def test_the_picture_shrinks_to_its_limit(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (6, 20, 90, 90, 3), dtype=np.uint8)
    columns = tuple(Column(f"c{i}", some, "raw") for i, some in enumerate(noise))
    taken = (Samples(columns, ("a",) * 20, "image"),)
    made = check_page(data.make_page(a_check(), taken))
    [picture] = [attrs for tag, attrs in made.elements if tag == "img"]
    assert picture["alt"].startswith(("2 ", "4 "))
    monkeypatch.setattr(data, "PICTURE_BYTES", 10)
    assert "jdlopt data show" in check_page(data.make_page(a_check(), taken)).words


def test_the_page_of_a_real_dataset_is_written(tmp_path):
    section = {"source": "wine", "preprocess": {"scale": "standard"}, "augment": {"jitter": 0.1}}
    from jdlopt.train.schema import resolve_data

    check = check_source(resolve_data({"data": section}))
    path = data.write_page(check, tmp_path / "new" / "folder")
    assert path.name == "data_check.html" and [path] == list(path.parent.iterdir())
    made = check_page(path.read_text("utf-8"))
    assert "127 training rows, the first 12 of 13 columns" in made.words
    assert "jitter 0.1" in made.words and "wine" in made.words
    # scaled before it is shown
    middle = made.plots()["sample-3"]["data"][1]["x"]
    assert -5 < min(middle) < 0 < max(middle) < 6


def test_doubtful_rows_are_shown_as_they_stand_in_the_file(tmp_path):
    import pandas as pd

    draw = np.random.default_rng(0)
    true = draw.integers(0, 2, 300)
    frame = pd.DataFrame({"x": true * 4.0 + draw.normal(size=300), "place": np.arange(300)})
    frame["colour"] = np.where(true, "red", "blue")
    wrong = draw.choice(300, 30, replace=False)
    frame["label"] = np.array(["no", "yes"])[true]
    frame.loc[wrong, "label"] = np.array(["yes", "no"])[true[wrong]]
    frame.loc[5, "label"] = None  # left out: rows after it lie elsewhere in the pool
    frame.to_csv(tmp_path / "t.csv", index=False)
    check = check_source({
        "source": str(tmp_path / "t.csv"), "target": "label", "on_bad": "skip", "columns": {},
    })  # fmt: skip
    [noise] = [one for one in check.findings if one.kind == "label_noise"]
    shown = data.examples_of(check, noise)
    titles, rows = shown.table.header, shown.table.rows
    assert titles == ["example", "given → likely", "x", "place", "colour"] and len(rows) == 12
    for name, pair, _, place, colour in rows:
        number = int(name.removeprefix("row "))
        assert number == int(place) + 1 and number in np.concatenate([p.rows for p in noise.parts])
        assert (colour == "red") == (pair == "no → yes")
    made = check_page(data.make_page(check, "none", "a config.json"))
    assert (
        "data check --config=" in made.words and "--config.loss.label_smoothing=0.1" in made.words
    )


def test_doubtful_images_are_shown_with_their_files(tmp_path):
    from PIL import Image

    draw = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / "images" / f"class {label}").mkdir(parents=True)
        for number in range(120):
            bright = label if number % 10 else 1 - label
            pixels = draw.integers(0, 90, (4, 4), np.uint8) + 150 * bright
            Image.fromarray(pixels.astype(np.uint8)).save(
                tmp_path / "images" / f"class {label}" / f"{number}.png"
            )
    check = check_source({"source": str(tmp_path / "images")})
    [noise] = [one for one in check.findings if one.kind == "label_noise"]
    shown = data.examples_of(check, noise)
    assert shown.table is None and 5 <= len(shown.pictures) <= 12
    wrong = {f"class {label}/{number}.png" for label in "01" for number in range(0, 120, 10)}
    assert {one["name"] for one in shown.pictures} <= wrong
    assert all("class" in one["caption"] for one in shown.pictures)


def test_a_place_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match=r"file/data_check\.html"):
        data.write_page(a_check(), tmp_path / "file")


# --- in a browser ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(browser.program() is None, reason="there is no Chromium to open pages in")
def test_the_page_is_drawn_without_a_complaint_and_fits_a_phone(tmp_path):
    with browser.opened() as page:
        for number, taken in enumerate((of_table(), of_images())):
            path = tmp_path / f"{number}.html"
            path.write_text(data.make_page(a_check(*EVERY), taken), "utf-8")
            for theme in ("light", "dark"):
                page.open(path, fragment=f"#{theme}")
                assert page.complaints() == []
                count = page.run("document.querySelectorAll('.plot').length")
                assert count == int(page.run("document.documentElement.dataset.drawn")) > 5
                bare = """[...document.querySelectorAll('.plot')].filter(
                    p => !p.querySelector('.trace, .hm, .bars')).length"""
                assert page.run(bare) == 0
            assert page.run("document.querySelectorAll('img[src=x]').length") == 0
            page.open(path, width=390, height=844)
            assert page.run("document.documentElement.scrollWidth") <= 390
            wide = """[...document.querySelectorAll('main *')].filter(
                e => !e.closest('.scroll, pre, svg') && !e.matches('.hidden')
                && e.getBoundingClientRect().right > 391).map(e => e.outerHTML)"""
            assert page.run(wide) == []
