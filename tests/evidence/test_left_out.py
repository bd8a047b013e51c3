"""What does not fit in memory is no result of a comparison, an ablation or an improvement."""

import json
import time

import pytest
from fake import FakeProcesses, trained

from jdlopt import config as configs
from jdlopt.cli.evidence import _print_left_out
from jdlopt.errors import UserError
from jdlopt.evidence import pacing
from jdlopt.evidence.ablate import ablate
from jdlopt.evidence.compare import compare
from jdlopt.evidence.improve import improve
from jdlopt.evidence.options import AblationOptions, ComparisonOptions, ImprovementOptions
from jdlopt.evidence.sides import side_of
from jdlopt.evidence.trainer import Trainer, key_of
from jdlopt.executor.executor import Executor
from jdlopt.executor.messages import Failed, RunTrained, Stop, TrainPopulation, TrainRun
from jdlopt.report import write_report

BASE = {
    "data": {"source": "iris", "batch_size": 32},
    "model": {"name": "mlp", "features": (8,)},
    "optim": {"name": "adam", "learning_rate": 0.01},
    "train": {"epochs": 1},
}
LARGE = configs.override(BASE, {"model.features": (64,)})
LOSS = "validation/loss"


class Memory:
    """Workers that are no processes, whose memory holds models of so many features at most."""

    def __init__(self):
        self.most = 8

    def start(self, program, count, deadline=None, *_):
        processes = FakeProcesses()
        processes.reply = self.reply
        return Executor(processes, 1, deadline)

    def reply(self, request):
        if max(request.config["model"]["features"]) > self.most:
            return Failed(request.task, "out of memory", "RESOURCE_EXHAUSTED: Out of memory.")
        return trained(request, value=lambda trial: 0.5 + trial.seed % 7 / 100)


@pytest.fixture
def memory(monkeypatch):
    found = Memory()
    monkeypatch.setattr(Executor, "start", found.start)
    return found


def test_a_side_that_does_not_fit_decides_nothing(memory, tmp_path):
    options = ComparisonOptions(seeds=4, metric=LOSS, fixed=True)
    with pytest.raises(UserError, match=r"B did not fit in memory: .*the same command tries again"):
        compare(BASE, LARGE, tmp_path / "work", options)
    assert not (tmp_path / "work" / "compare.json").exists()
    assert len(list((tmp_path / "work" / "trainings").glob("*.jsonl"))) == 1
    memory.most = 64
    record = compare(BASE, LARGE, tmp_path / "work", options)
    assert record["decision"] == "drop" and record["effect"]["mean"] == 0


def test_a_technique_that_does_not_fit_is_undecided_and_the_rest_is_ablated(
    memory, tmp_path, capsys
):
    options = AblationOptions(seeds=3, metric=LOSS)
    record = ablate(BASE, ["wider", "clip_norm"], tmp_path / "work", options)
    assert set(record["did_not_fit"]) == {"+wider", "all", "-clip_norm"}
    assert [row["decision"] for row in record["techniques"]] == ["undecided", "drop"]
    assert record["techniques"][0]["alone"] is None and record["techniques"][0]["bad"] == {}
    _print_left_out(record)
    said = " ".join(capsys.readouterr().err.split())
    assert "left out: +wider, all, -clip_norm: did not fit in memory" in said
    write_report(tmp_path / "work")
    with pytest.raises(UserError, match="wider did not fit in memory"):
        ablate(BASE, ["wider"], tmp_path / "alone", options)
    memory.most = 10**6
    again = ablate(BASE, ["wider", "clip_norm"], tmp_path / "work", options)
    assert not again["did_not_fit"] and again["techniques"][0]["alone"]["mean"] == 0


@pytest.mark.slow
def test_an_improvement_goes_on_without_what_does_not_fit_and_tries_it_again(memory, tmp_path):
    options = ImprovementOptions(
        budget=600.0, metric=LOSS, techniques=("wider", "clip_norm"), confirm=3, test_seeds=2,
        diagnose=False,
    )  # fmt: skip
    record = improve(BASE, tmp_path / "work", options)
    assert "wider" in record["did_not_fit"] and not record["steps"]
    tried = {row["technique"] for one in record["tried"] for row in one["candidates"]}
    assert "clip_norm" in tried and "wider" not in tried
    assert json.loads((tmp_path / "work" / "improve.json").read_text())["status"] == "done"
    write_report(tmp_path / "work")
    memory.most = 10**6
    again = improve(BASE, tmp_path / "work", options)
    tried = {row["technique"] for one in again["tried"] for row in one["candidates"]}
    assert "wider" in tried and not again["did_not_fit"]
    path = tmp_path / "work" / "improve.json"
    for text in ("[", '{"plans": [1]}', '{"status": "done"}', '{"seconds": "long"}'):
        path.write_text(text)
        found = improve(BASE, tmp_path / "work", options)
        assert (found["steps"], found["why"]) == (again["steps"], again["why"])
    memory.most = 1
    with pytest.raises(UserError, match="what has been reached did not fit in memory"):
        improve(BASE, tmp_path / "small", options)


class Runs(FakeProcesses):
    """Workers that train runs as well."""

    def send(self, index, message):
        super().send(index, message)
        if isinstance(message, TrainRun):
            record = {"status": "done", "metrics": {"test/loss": 0.5}}
            self.answers.append((index, RunTrained(message.task, record)))


@pytest.mark.slow
def test_a_technique_too_dear_for_what_is_left_is_told_and_a_cheaper_one_adopted(
    monkeypatch, tmp_path
):
    def reply(request):
        wide = max(request.config["model"]["features"]) > 8
        clipped = request.config["optim"]["clip_norm"] is not None
        seconds = 2000.0 if wide else 1.0

        def value(trial):
            return 0.5 - 0.2 * wide - 0.1 * clipped + trial.seed % 7 / 100

        return trained(request, value=value, step_seconds=seconds / 10)

    processes = Runs()
    processes.reply = reply
    monkeypatch.setattr(Executor, "start", lambda *_, **__: Executor(processes, 1))
    options = ImprovementOptions(
        budget=600.0, metric=LOSS, techniques=("wider", "clip_norm"), confirm=3, test_seeds=2,
        diagnose=False,
    )  # fmt: skip
    record = improve(BASE, tmp_path / "work", options)
    assert [step["technique"] for step in record["steps"]][:1] == ["clip_norm"]
    promising = {one["technique"] for one in record["remaining"]["promising"]}
    assert promising == {"wider", "wider:2"}


class Endless(FakeProcesses):
    """Workers whose populations end only when they are told to stop."""

    def send(self, index, message):
        super().send(index, message)
        if isinstance(message, TrainPopulation):
            self.running = index, message
        if isinstance(message, Stop):
            index, request = self.running
            self.answers.append((index, trained(request, status="running", steps=0)))


def test_a_training_that_runs_when_time_is_up_is_stopped_and_is_no_result(monkeypatch, tmp_path):
    monkeypatch.setattr(Executor, "start", lambda *_, **__: Executor(Endless(), 1))
    side = side_of(BASE)
    with Trainer(tmp_path / "work", workers=1) as trainer:
        trainer.deadline = time.perf_counter() + 0.3
        found = trainer.train([(side.config, range(2))])
    assert found == {key_of(side.config): {}}
    assert not list((tmp_path / "work" / "trainings").glob("*.jsonl"))


def test_a_training_that_chooses_is_shorter_with_its_schedule_scaled():
    side = side_of(configs.override(BASE, {"train.epochs": 20}))
    short = pacing.shortened(side, 4)
    assert short.train.epochs == 5 and short.optim == side.config.optim
    fixed = side_of(configs.override(BASE, {"train.epochs": 4, "optim.groups.a.unfreeze_at": 12,
                                            "optim.groups.a.params": ("kernel",)}))  # fmt: skip
    assert not pacing.can_be_shortened(fixed) and pacing.shortened(fixed, 1) is fixed.config
