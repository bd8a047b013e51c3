"""The loop that improves a config: what it adopts, writes and resumes; and ablations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jdlopt import cli
from jdlopt import config as configs
from jdlopt.errors import UserError
from jdlopt.evidence.ablate import ablate, parse
from jdlopt.evidence.improve import improve
from jdlopt.evidence.options import AblationOptions, ImprovementOptions
from jdlopt.report import write_report

SLOW = '''"""Iris, with a learning rate that is far too low."""


def get_config():
    return {
        "data": {"source": "iris", "batch_size": 32, "preprocess": {"scale": "standard"}},
        "model": {"name": "mlp", "features": (8,)},
        "optim": {"name": "adam", "learning_rate": 1e-3},
        "train": {"epochs": 20},
        "mesh": {"data": 1},
    }
'''


@pytest.fixture(scope="module")
def improved(tmp_path_factory) -> tuple[dict, Path, Path]:
    folder = tmp_path_factory.mktemp("improve")
    file = folder / "slow.py"
    file.write_text(SLOW, encoding="utf-8")
    options = ImprovementOptions(
        budget=600.0, until="validation/accuracy>=0.8", confirm=5, test_seeds=2, workers=1,
        techniques=("learning_rate_up",), diagnose=False,
    )  # fmt: skip
    said: list[str] = []
    record = improve(
        configs.load(file), folder / "work", options, file=file, on_progress=said.append
    )
    return {**record, "said": said}, folder / "work", file


@pytest.mark.slow
def test_what_helps_is_adopted_and_confirmed(improved) -> None:
    record, _, _ = improved
    names = [step["technique"] for step in record["steps"]]
    assert names and names[0].startswith("learning_rate_up")
    assert record["steps"][0]["effect"]["interval"][0] > 0
    assert record["confirmed"]["interval"][0] > 0
    assert record["folds"] == 5  # the validation split is small
    assert record["why"] == "the goal validation/accuracy>=0.8 was reached"
    assert any("adopted" in line for line in record["said"])


@pytest.mark.slow
def test_the_test_split_is_asked_once_of_both(improved) -> None:
    record, workdir, _ = improved
    test = record["test"]
    assert test["metric"] == "test/accuracy" and len(test["improved"]) == 2
    assert test["effect"]["mean"] > 0
    with_test = [
        path for path in (workdir / "runs").glob("*/result.json")
        if "test/accuracy" in json.loads(path.read_text())["metrics"]
    ]  # fmt: skip
    assert len(with_test) == 4  # two seeds of two configs


@pytest.mark.slow
def test_the_improved_file_is_the_old_one_with_a_changed_line(improved) -> None:
    record, workdir, file = improved
    text = (workdir / "improved.py").read_text(encoding="utf-8")
    assert "learning_rate_up" in text and '"source": "iris"' in text
    config = configs.to_dict(configs.load(workdir / "improved.py"))
    assert "folds" not in config["data"]  # how it was chosen is not how it is trained
    expected = configs.override(configs.load(file), record["changes"])
    assert config == configs.to_dict(expected)


@pytest.mark.slow
def test_the_same_call_takes_the_same_decisions_and_trains_nothing(improved) -> None:
    record, workdir, file = improved
    (workdir / "improve.json").write_text(
        json.dumps({"status": "running", "seconds": 1.0, "plans": record["plans"]})
    )
    options = ImprovementOptions(
        budget=600.0, until="validation/accuracy>=0.8", confirm=5, test_seeds=2, workers=1,
        techniques=("learning_rate_up",), diagnose=False,
    )  # fmt: skip
    before = {path: path.read_bytes() for path in (workdir / "trainings").iterdir()}
    again = improve(configs.load(file), workdir, options, file=file)
    assert {path: path.read_bytes() for path in (workdir / "trainings").iterdir()} == before
    assert [s["technique"] for s in again["steps"]] == [s["technique"] for s in record["steps"]]
    assert again["test"]["improved"] == record["test"]["improved"]


@pytest.mark.slow
def test_a_budget_that_ended_before_anything_was_tested_says_so(tmp_path, capsys) -> None:
    file = tmp_path / "slow.py"
    watched = SLOW.replace('"epochs": 20', '"epochs": 20, "monitor": "validation/f1_macro"')
    file.write_text(watched, encoding="utf-8")
    args = [
        "improve", f"--config={file}", f"--workdir={tmp_path / 'work'}", "--budget=1s",
        "--confirm=3", "--test-seeds=2", "--workers=1", "--no-diagnosis",
    ]  # fmt: skip
    assert cli.main(args) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "is not known yet" in told and "survived" not in told and "--budget=" in told
    record = json.loads((tmp_path / "work" / "improve.json").read_text())
    assert record["metric"] == "validation/f1_macro"  # what the config watches
    assert record["steps"] == [] and record["remaining"]["promising"] == []
    assert "learning_rate_up" in record["remaining"]["untried"]
    assert record["remaining"]["seconds"] > 0
    improved = (tmp_path / "work" / "improved.py").read_text()
    assert "before anything could be confirmed" in improved


@pytest.mark.slow
def test_a_loop_that_was_killed_at_its_end_keeps_its_steps(improved) -> None:
    record, workdir, file = improved
    late = {**record, "status": "running", "seconds": 1e6, "screened": {}, "dropped": []}
    (workdir / "improve.json").write_text(json.dumps(late), encoding="utf-8")
    options = ImprovementOptions(
        budget=600.0, until="validation/accuracy>=0.8", confirm=5, test_seeds=2, workers=1,
        techniques=("learning_rate_up",), diagnose=False,
    )  # fmt: skip
    again = improve(configs.load(file), workdir, options, file=file)
    assert again["steps"] == record["steps"] and again["changes"] == record["changes"]
    assert again["test"]["improved"] == record["test"]["improved"]


@pytest.mark.slow
def test_a_larger_budget_or_another_goal_goes_on(improved, tmp_path: Path) -> None:
    _, _, file = improved
    options = ImprovementOptions(
        budget=0.1, confirm=3, test_seeds=2, workers=1, techniques=("learning_rate_up",),
        diagnose=False,
    )  # fmt: skip
    first = improve(configs.load(file), tmp_path / "work", options, file=file)
    assert first["why"] == "the time budget ended" and not first["steps"]
    again = improve(configs.load(file), tmp_path / "work", options, file=file)
    assert again["seconds"] == first["seconds"]
    more = replace(options, budget=300.0, until="validation/accuracy>=0.5")
    second = improve(configs.load(file), tmp_path / "work", more, file=file)
    assert second["why"].startswith("the goal") and second["value"] >= 0.5
    further = replace(more, until="validation/accuracy>=0.999")
    assert (
        improve(configs.load(file), tmp_path / "work", further, file=file)["why"] != second["why"]
    )


@pytest.mark.slow
def test_the_report_has_the_ladder_and_the_file(improved) -> None:
    _, workdir, _ = improved
    page = write_report(workdir).read_text(encoding="utf-8")
    assert "Adopted techniques" in page and "Test split" in page and "learning_rate_up" in page


@pytest.mark.slow
def test_an_ablation_weighs_each_technique_alone_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    config = configs.load(tmp_path / "slow.py")
    options = AblationOptions(seeds=4, workers=1)
    names = ["learning_rate_up:2", "clip_norm:2"]
    record = ablate(config, names, tmp_path / "work", options)
    rate, clip = record["techniques"]
    assert rate["alone"]["mean"] > 0 and rate["left_out"]["mean"] > 0
    assert clip["change"] == {"optim.clip_norm": 0.1}
    assert set(record["arms"]) == {
        "baseline", "all", *(f"{sign}{name}" for sign in "+-" for name in names)
    }  # fmt: skip
    alone = record["arms"]["+clip_norm:2"]["values"]
    assert record["arms"]["-learning_rate_up:2"]["values"] == alone  # the same config
    assert rate["alone"]["adjusted_p_value"] >= rate["alone"]["p_value"]
    page = write_report(tmp_path / "work").read_text(encoding="utf-8")
    assert "Ablation" in page and "clip_norm:2" in page


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["droput"], "Did you mean 'dropout'"),
        (["dropout", "dropout"], "given twice"),
        ([], "is empty"),
        (["a b"], "can't be read"),
    ],
)
def test_wrong_techniques_are_told(names: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(names)


def test_techniques_of_one_key_are_not_ablated_together(tmp_path: Path, capsys) -> None:
    file = tmp_path / "slow.py"
    file.write_text(SLOW, encoding="utf-8")
    words = ["ablate", f"--config={file}", f"--workdir={tmp_path / 'work'}"]
    both = "--techniques=learning_rate_up,learning_rate_down"
    assert cli.main([*words, both]) == 2
    assert "both change optim.learning_rate" in capsys.readouterr().err
    assert cli.main(["improve", *words[1:], "--until=validation/accuracy>>1"]) == 2
    assert "--until" in capsys.readouterr().err
    assert cli.main(["improve", *words[1:], "--techniques=droput"]) == 2
    assert "Did you mean 'dropout'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_loop_goes_on_where_it_stood(improved, tmp_path: Path) -> None:
    """Killed three times at other moments; it ends with the steps of one that was not."""
    record, _, file = improved
    command = [
        sys.executable, "-m", "jdlopt.cli", "improve", f"--config={file}", "--budget=10m",
        f"--workdir={tmp_path / 'work'}", "--until=validation/accuracy>=0.8", "--confirm=5",
        "--test-seeds=2", "--workers=1", "--techniques=learning_rate_up", "--no-diagnosis",
        "--json", "--no-report",
    ]  # fmt: skip
    for seconds in (9, 12, 15):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert [s["technique"] for s in found["steps"]] == [s["technique"] for s in record["steps"]]
    assert found["changes"] == record["changes"]
