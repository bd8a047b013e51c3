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
    found = dict.fromkeys(("batch_norm", "dropout", "mixup", "wider", "deeper"), "")
    table = page[page.index("Round 1") :]
    for line in table.split("<tr>"):
        for name in found:
            if f">{name}<" in line:
                found[name] = line
    words = {"batch_norm": "adopted", "dropout": "not confirmed", "mixup": "eliminated early",
             "wider": "deferred: expensive", "deeper": "eliminated early"}  # fmt: skip
    for name, verdict in words.items():
        assert verdict in found[name], name
    assert "3.00×" in found["wider"] and "2.00×" in page  # a training's time; a step's


def test_a_record_that_lacks_something_is_told(record: dict, tmp_path: Path) -> None:
    del record["tried"][0]["candidates"][0]["cost"]
    (tmp_path / "improve.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(WorkdirError, match="is not as jdlopt writes it"):
        write_report(tmp_path)
