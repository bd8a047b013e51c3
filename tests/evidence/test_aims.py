"""The aims size and speed: what is tried and adopted, and that losses do not add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake import FakeProcesses, trained

from jdlopt import cli
from jdlopt import config as configs
from jdlopt.errors import UserError
from jdlopt.evidence import techniques
from jdlopt.evidence.costs import cost_of, limit_of
from jdlopt.evidence.improve import improve
from jdlopt.evidence.margin import is_foreseen, is_within
from jdlopt.evidence.options import ImprovementOptions
from jdlopt.evidence.sides import side_of
from jdlopt.evidence.statistics import fixed_effect
from jdlopt.executor.executor import Executor
from jdlopt.executor.messages import RunTrained, TrainRun
from jdlopt.report import write_report
from jdlopt.train.inference import expected_bytes

MARGIN = 0.005
DIGITS: dict[str, Any] = {
    "data": {"source": "digits", "batch_size": 64, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (32,)},
    "optim": {"name": "adam", "learning_rate": 0.01},
    "train": {"epochs": 3, "loggers": ()},
    "mesh": {"data": 1},
}


def adopted(losses: np.ndarray, margin: float = MARGIN) -> float:
    """The share of rows of losses that a confirmation adopts."""
    effects = (fixed_effect(-row, 1 - 0.05 / 6, 1e-4) for row in losses)
    return float(np.mean([is_within(one, margin) for one in effects]))


@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_what_loses_the_margin_is_rarely_adopted_and_what_loses_nothing_mostly(noise: float):
    rng = np.random.default_rng(0)
    drawn = noise * MARGIN * rng.normal(size=(150, 20))
    assert adopted(MARGIN + drawn) <= 0.03
    assert adopted(drawn) >= 0.9
    assert adopted(drawn, margin=0.0) <= 0.03  # no gain is no better metric
    assert adopted(-3 * MARGIN + drawn, margin=0.0) >= 0.9


def test_a_confirmation_that_would_not_decide_is_foreseen():
    rng = np.random.default_rng(1)
    few, many = ([is_foreseen(row.tolist(), MARGIN, 0.95, pairs) for row in
                  0.8 * MARGIN * rng.normal(size=(100, 8))] for pairs in (3, 40))  # fmt: skip
    assert sum(few) < 20 < 80 < sum(many)


def test_a_time_that_is_hardly_less_is_not_faster():
    base, near, far = ({"bytes": 100, "ms": {"1": {"against": one}}} for one in (1.0, 0.97, 0.5))
    assert cost_of(far, "speed") < limit_of(base, "speed") < cost_of(near, "speed")
    assert not cost_of(near, "size") < limit_of(base, "size")


def test_bytes_are_known_before_anything_is_trained():
    config = {**DIGITS, "data": {**DIGITS["data"], "source": "iris"}}
    config["model"] = {"name": "mlp", "features": (8,)}
    side = side_of(config)

    def size(**change: object) -> int:
        asked = {key.replace("__", "."): value for key, value in change.items()}
        return expected_bytes(side_of(side.raw, asked, like=side).experiment)

    # two kernels and their biases; a scale for each channel; a bit a weight and a quarter of them
    biases, scales = 4 * (8 + 3), 4 * (8 + 3)
    assert size() == 4 * (4 * 8 + 8 * 3) + biases
    assert size(model__quantize__weights=4.0) == (4 * 8 + 8 * 3) // 2 + scales + biases
    pruned = {"model__prune__criterion": "magnitude", "model__prune__sparsity": 0.75}
    found = size(**pruned, model__quantize__weights=8.0)
    assert found == (4 * 8 // 8 + 4 * 8 // 4) + 8 * 3 + scales + biases


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"aim": "size"}, "--within=0.5pp"),
        ({"aim": "sise", "within": "1pp"}, "size"),
        ({"within": "1pp"}, "--within: is for --aim=size"),
        ({"aim": "speed", "within": "1pp", "until": "validation/accuracy>=0.9"}, "--until"),
        ({"aim": "size", "within": "one"}, "--within: 'one' can't be read"),
        ({"aim": "size", "within": "1pp", "techniques": ("dropout",)}, "dropout aims at gen"),
    ],
)
def test_an_aim_without_sense_is_refused(options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        ImprovementOptions(**options).check()


def test_what_may_be_lost_must_suit_the_metric_that_is_watched(tmp_path: Path, capsys):
    file = tmp_path / "digits.json"
    file.write_text(json.dumps(configs.to_dict(DIGITS)), encoding="utf-8")
    words = ["improve", f"--config={file}", f"--workdir={tmp_path / 'w'}", "--aim=size"]
    assert cli.main([*words, "--within=0.1"]) == 2
    said = capsys.readouterr().err
    assert "validation/accuracy" in said and not (tmp_path / "w").exists()


def test_what_is_pruned_or_quantized_can_become_more_so():
    side = side_of(DIGITS)
    facts = techniques.facts_of(side.config, side.dataset)

    def after(name: str, **change: object) -> list[object]:
        asked = {key.replace("__", "."): value for key, value in change.items()}
        config = side_of(side.raw, asked, like=side).config
        return [next(iter(reversed(one.values())))
                for one in techniques.TECHNIQUES[name].changes(config, facts)]  # fmt: skip

    sparse = {"model__prune__criterion": "magnitude", "model__prune__sparsity": 0.9}
    assert after("pruning") == [0.8, 0.9, 0.5, 0.95] and after("pruning", **sparse) == [0.95, 0.98]
    assert after("structured_pruning", **sparse) == []
    eight = {"model__quantize__weights": 8.0, "model__quantize__activations": 8.0}
    assert after("quantization", **eight) == [4.0]
    assert after("low_rank") == [8, 4] and after("low_rank", model__low_rank__rank=8) == [4]


class Runs(FakeProcesses):
    """Workers that train runs as well."""

    def send(self, index: int, message: Any) -> None:
        super().send(index, message)
        if isinstance(message, TrainRun):
            record = {"status": "done", "metrics": {"test/loss": 0.5}}
            self.answers.append((index, RunTrained(message.task, record)))


@pytest.mark.slow
def test_losses_do_not_add_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Either of two techniques loses less than the margin, both together more."""

    def reply(request: Any) -> Any:
        model = request.config["model"]
        lost = 0.006 * (model["quantize"]["weights"] is not None)
        lost += 0.006 * (model["prune"]["criterion"] is not None)
        return trained(request, value=lambda trial: 0.5 + lost + trial.seed % 7 / 100)

    processes = Runs()
    processes.reply = reply
    monkeypatch.setattr(Executor, "start", lambda *_, **__: Executor(processes, 1))
    options = ImprovementOptions(
        aim="size", within="0.01", metric="validation/loss", budget=60.0, confirm=3, test_seeds=2,
        techniques=("quantization", "pruning"),
    )  # fmt: skip
    config = {**DIGITS, "data": {"source": "iris", "batch_size": 32}, "train": {"epochs": 1}}
    record = improve(config, tmp_path / "work", options)
    (step,) = record["steps"]
    assert step["effect"]["mean"] == pytest.approx(-0.006) and step["share"] < 1
    found = [one for row in record["tried"] for one in row["confirmed"] if not one["adopted"]]
    assert found and all(one["effect"]["mean"] == pytest.approx(-0.012) for one in found)


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    workdir = tmp_path_factory.mktemp("aims") / "work"
    return improve(DIGITS, workdir, SMALLER), workdir


SMALLER = ImprovementOptions(
    aim="size", within="10pp", budget=20.0, confirm=3, test_seeds=2, workers=1,
    techniques=("quantization", "l1"),
)  # fmt: skip


@pytest.mark.slow
def test_a_config_becomes_smaller_within_what_may_be_lost(smaller):
    record, workdir = smaller
    steps = [step for step in record["steps"] if step["technique"] != "tuning"]
    assert steps and record["margin"] == pytest.approx(0.1)
    shares = [step["share"] for step in steps]
    assert all(step["effect"]["interval"][0] > -0.1 for step in steps)
    assert shares == sorted(shares, reverse=True) and shares[-1] < 0.3
    before, after = record["cost"]["baseline"], record["cost"]["improved"]
    assert after["bytes"] / before["bytes"] == pytest.approx(shares[-1])  # of trained weights
    assert set(after["ms"]) == {"1", "32"}
    tried = {row["technique"].split(":")[0] for one in record["tried"] for row in one["candidates"]}
    assert tried == {"quantization"}  # a penalty alone saves nothing
    page = write_report(workdir).read_text(encoding="utf-8")
    assert "loses at most 10pp" in page and f"{before['bytes']:,} before" in page
    assert "A smaller version" in (workdir / "improved.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_loop_that_was_killed_makes_the_same_model_smaller(smaller, capsys):
    record, workdir = smaller
    kept = {name: record[name] for name in ("plans", "costs", "first_rung", "pacing", "budget")}
    (workdir / "improve.json").write_text(json.dumps({"status": "running", "seconds": 1.0, **kept}))
    before = {path: path.read_bytes() for path in (workdir / "trainings").iterdir()}
    file = workdir.parent / "digits.json"
    file.write_text(json.dumps(DIGITS), encoding="utf-8")
    words = [
        "improve", f"--config={file}", f"--workdir={workdir}", "--aim=size", "--within=10pp",
        "--budget=20s", "--confirm=3", "--test-seeds=2", "--workers=1",
        "--techniques=quantization,l1",
    ]  # fmt: skip
    assert cli.main(words) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "bytes (0.1" in told and "a prediction at batch 1" in told and "may be lost" in told
    again = json.loads((workdir / "improve.json").read_text(encoding="utf-8"))
    for name in ("technique", "change", "effect", "share", "value"):
        assert again["steps"][0][name] == record["steps"][0][name]
    after = {path: path.read_bytes() for path in (workdir / "trainings").iterdir()}
    assert all(after[path].startswith(text) for path, text in before.items())
    with pytest.raises(UserError, match="other configs or options"):
        improve(DIGITS, workdir, ImprovementOptions(aim="speed", within="10pp"))
