"""The report of an improvement: its steps, what was tried and why it was dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from samples import HOSTILE, an_improvement

from jdlopt.errors import WorkdirError
from jdlopt.report import write_report


@pytest.fixture
def record() -> dict:
    return an_improvement()


def test_each_technique_has_its_verdict(record: dict, tmp_path: Path) -> None:
    (tmp_path / "improve.json").write_text(json.dumps(record), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert HOSTILE not in page
    names = ("batch_norm", "dropout", "mixup", "wider", "deeper", "l2")
    found = dict.fromkeys(names, "")
    table = page[page.index("Round 1") :]
    for line in table.split("<tr>"):
        for name in found:
            if f">{name}<" in line:
                found[name] = line
    words = {"batch_norm": "adopted", "dropout": "not confirmed", "mixup": "eliminated early",
             "wider": "deferred: expensive", "deeper": "not tried: out of time",
             "l2": "a training failed"}  # fmt: skip
    for name, verdict in words.items():
        assert verdict in found[name], name
    assert "3.00×" in found["wider"] and "2.00×" in page  # a training's time; a step's
    assert "×" not in found["deeper"] and found["deeper"].count("–") >= 3  # nothing is known of it


def test_what_there_was_no_time_for_is_no_failure(record: dict, tmp_path: Path) -> None:
    [row] = record["tried"]
    row |= {"done": False, "confirmed": []}
    left = [{"technique": "dropout", "gain": 0.01, "seeds": 8}]
    record |= {"steps": [], "confirmed": None}
    record["remaining"] = {"promising": left, "untried": ["l2", "deeper"], "seconds": 330.0}
    (tmp_path / "improve.json").write_text(json.dumps(record), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "the baseline stands" not in page and "passed the final test" not in page
    for words in (
        "is not known yet", "dropout (+0.0100 with 8 seeds)", "Not tried yet: l2, deeper",
        "about 6 min more", "--budget=7m", "promising, not tested yet",
    ):  # fmt: skip
        assert words in page, words


def test_a_record_that_lacks_something_is_told(record: dict, tmp_path: Path) -> None:
    del record["tried"][0]["candidates"][0]["cost"]
    (tmp_path / "improve.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(WorkdirError, match="is not as jdlopt writes it"):
        write_report(tmp_path)
