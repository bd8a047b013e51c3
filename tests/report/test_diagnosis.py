"""The page of a diagnosis, from a record made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from outline import check as check_page
from samples import HOSTILE

from jdlopt.evidence.findings import CAUSES, Finding
from jdlopt.report import commands, diagnosis


def a_diagnosis(names: tuple[str, ...] = CAUSES) -> dict[str, Any]:
    """Every finding of a run whose classes, columns and layers have hostile names."""
    steps = list(range(10, 110, 10))
    falling = [1 / step for step in steps]
    layer = {"layer": HOSTILE, "kind": "relu", "units": 8, "dead": 0.5, "saturated": None,
             "rms_before": 1.0, "rms_after": 0.5, "rank": 3.0}  # fmt: skip
    flat = {**layer, "kind": "tanh", "dead": None, "saturated": 0.7, "rank": None}
    gradient = {"name": HOSTILE, "relative": 0.1, "gain": 1.4, "gradient": 1.0, "parameter": 10.0}
    said = {
        "confusion": [[5, 1], [2, 4]],
        "calibration": {"bins": [{"confidence": 0.7, "accuracy": 0.5, "count": 9},
                                 {"confidence": 0.9, "accuracy": 0.8, "count": 3}]},
    }  # fmt: skip
    record = {
        "config": {"data": {"source": HOSTILE}, "model": {"name": "mlp"}},
        "run": {"status": "done", "steps": 100, "classes": [HOSTILE, "b"], "counts": [6, 6],
                "best": {"metric": "validation/loss", "value": 0.01}},
        "curves": {f"{split}/{what}": {"steps": steps, "values": falling}
                   for split in ("train", "validation") for what in ("loss", "accuracy")},
        "layers": {"start": [layer, flat], "checkpoint": [layer, flat]},
        "gradients": {"start": {"layers": [gradient]}, "checkpoint": {"layers": [gradient]}},
        "predictions": {"train": said, "validation": said},
        "splits": {"columns": [{"name": HOSTILE, "statistic": 0.4}]},
        "pruned": [{"share": 0.0, "loss": 0.1}, {"share": 0.9, "loss": 0.2}],
        "rates": {"rates": np.logspace(-4, 1, 20).tolist(), "losses": [*([1.0] * 19), None],
                  "start": 1.0, "rate": 0.1, "suggested": 0.01, "best_rate": 0.1},
    }  # fmt: skip
    numbers = {"since": 20, "step": 30, "best_step": 100, "columns": {HOSTILE: 0.99}}
    levels = ("serious", "warning", "note", "good")
    findings = [
        Finding(name, levels[place % 4], f"{HOSTILE}.", HOSTILE, ("dropout",), numbers).as_dict()
        for place, name in enumerate(names)
    ]
    return {"findings": findings, "record": record, "unseen": [f"{HOSTILE} is gone"]}


def test_the_page_is_whole_and_escaped():
    made = check_page(diagnosis.make_page(Path(HOSTILE.replace("/", "")), a_diagnosis()))
    assert not any(attrs.get("src") == "x" for tag, attrs in made.elements if tag == "img")
    titles = [words for level, words in made.headings if level == 2]
    drawn = [name for name in CAUSES if name in diagnosis.FIGURES]
    assert titles[:2] == ["Findings", "Next steps"] and titles[-1] == "Not examined"
    assert {name.replace("_", " ").capitalize() for name in drawn} <= set(titles)
    assert len(made.plots()) > len(drawn)


def test_each_curve_is_drawn_once_with_the_steps_that_findings_are_about():
    found = a_diagnosis()
    found["record"]["run"]["best"]["step"] = 90
    made = check_page(diagnosis.make_page(Path("run"), found))
    losses = [
        name for name, plot in made.plots().items()
        if plot["layout"].get("yaxis", {}).get("title", {}).get("text") == "loss"
        and plot["layout"].get("xaxis", {}).get("title", {}).get("text") == "step"
    ]  # fmt: skip
    assert losses == ["curve-loss"]
    at = [mark["x0"] for mark in made.plots()["curve-loss"]["layout"]["shapes"]]
    assert at[0] == 90 and {20, 30, 100} <= set(at)
    rates = [name for name, plot in made.plots().items() if "learning rate" in str(plot["layout"])]
    assert rates == ["rate-curve"]
    assert "Show it" in made.words


def test_examples_with_doubtful_labels_are_shown_from_the_runs_own_data(tmp_path):
    import pandas as pd

    rows = {"size": range(100, 160), "colour": ["red", "blue"] * 30, "kind": ["a", "b"] * 30}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    found = a_diagnosis(("label_errors",))
    found["record"]["config"]["data"] = {"source": str(tmp_path / "t.csv"), "target": "kind"}
    found["record"]["data"] = {
        "label_noise": {"examples": [{"place": n, "name": "", "pair": "a → b"} for n in (4, 7)]}
    }
    made = check_page(diagnosis.write_page(tmp_path / "run", found).read_text("utf-8"))
    assert "Label errors" in [words for _, words in made.headings]
    for words in ("row 4", "row 7", "104", "107", "given → likely", "a → b"):
        assert words in made.words
    (tmp_path / "t.csv").unlink()  # gone: the finding is there all the same
    made = check_page(diagnosis.write_page(tmp_path / "run", found).read_text("utf-8"))
    assert "row 4" not in made.words and "Label errors" not in [w for _, w in made.headings]


def test_each_technique_has_a_command_that_a_shell_takes(tmp_path):
    import shlex

    folder = tmp_path / "it's a run"
    made = commands.of_diagnosis(folder, {}, a_diagnosis()["findings"])
    words = shlex.split(made[0].text)
    assert words[:4] == ["jdlopt", "compare", str(folder), "+dropout"]
    assert words[4] == f"--workdir={folder}_with_dropout"


def test_every_figure_is_of_a_finding():
    assert set(diagnosis.FIGURES) <= set(CAUSES)


def test_nothing_found_is_said_and_nothing_measured_is_no_error():
    bare = {"config": {"data": {"source": "a"}, "model": {"name": "mlp"}},
            "run": {"status": "diverged", "steps": None}}  # fmt: skip
    found = {**a_diagnosis(()), "record": bare}
    assert "Nothing was found" in check_page(diagnosis.make_page(Path("run"), found)).words
    check_page(diagnosis.make_page(Path("run"), {**a_diagnosis(("divergence",)), "record": bare}))


@pytest.mark.slow
@pytest.mark.skipif(browser.program() is None, reason="there is no Chromium to open pages in")
def test_the_page_is_drawn_without_a_complaint_and_fits_a_phone(tmp_path):
    path = tmp_path / "diagnosis.html"
    path.write_text(diagnosis.make_page(Path("run"), a_diagnosis()), "utf-8")
    with browser.opened() as page:
        page.open(path, fragment="#dark")
        assert page.complaints() == []
        count = page.run("document.querySelectorAll('.plot').length")
        assert count == int(page.run("document.documentElement.dataset.drawn")) > 20
        assert page.run("document.querySelectorAll('img[src=x]').length") == 0
        page.open(path, width=390, height=844)
        assert page.run("document.documentElement.scrollWidth") <= 390
