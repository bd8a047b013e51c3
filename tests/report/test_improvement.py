"""The report of an improvement: the ladder, what was tried and why it was dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from samples import HOSTILE

from jdlopt.errors import WorkdirError
from jdlopt.report import write_report


def effect(low: float, high: float) -> dict:
    return {"mean": (low + high) / 2, "interval": [low, high], "level": 0.95, "p_value": 0.01,
            "std": 0.01, "kind": "fixed", "seeds": 10, "seeds_needed": None}  # fmt: skip


def row(name: str, gain: float | None, **more: object) -> dict:
    return {"technique": name, "seeds": 8, "gain": gain, "change": {"model.name": HOSTILE},
            "score": 0.5, "cost": 1.25, "later": False} | more  # fmt: skip


@pytest.fixture
def record() -> dict:
    step = {"technique": "batch_norm", "change": {"model.batch_norm": True}, "value": 0.7,
            "effect": effect(0.01, 0.03), "step_seconds": 2e-4, "before_step_seconds": 1e-4,
            "n_params": 1000, "seconds": 60.0}  # fmt: skip
    tried = {
        "round": 1, "findings": [], "done": True, "tuned": True,
        "candidates": [row("batch_norm", 0.02), row("dropout", 0.01), row("mixup", -0.01),
                       row("wider", 0.03, cost=3.0, later=True), row("deeper", None)],
        "confirmed": [{"technique": "batch_norm", "effect": effect(0.01, 0.03)},
                      {"technique": "dropout", "effect": effect(-0.01, 0.02)}],
    }  # fmt: skip
    return {"status": "done", "why": "the time budget ended", "metric": "validation/accuracy",
            "steps": [step], "tried": [tried], "findings": [], "confirmed": effect(0.01, 0.04),
            "test": None, "seconds": 90.0}  # fmt: skip


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
    words = {"batch_norm": "adopted", "dropout": "not confirmed", "mixup": "did not get so far",
             "wider": "left for later: dear", "deeper": "did not get so far"}  # fmt: skip
    for name, verdict in words.items():
        assert verdict in found[name], name
    assert "3.00×" in found["wider"] and "2.00×" in page  # a training's time; a step's


def test_a_record_that_lacks_something_is_told(record: dict, tmp_path: Path) -> None:
    del record["tried"][0]["candidates"][0]["cost"]
    (tmp_path / "improve.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(WorkdirError, match="is not as jdlopt writes it"):
        write_report(tmp_path)
