"""Workers that are no processes: they are sent requests, and say what a test has them say."""

from __future__ import annotations

from collections.abc import Callable

from jdlopt.executor.messages import (
    REQUESTS,
    Answer,
    PopulationTrained,
    Ready,
    Request,
    TrainPopulation,
    Trial,
    TrialResult,
    decode,
    encode,
)
from jdlopt.executor.processes import Ended


class FakeProcesses:
    """Where workers live, for an executor; ``reply`` answers each population at once.

    ``hosts`` are the machines that workers are put on, in turn; of several, one that is not named
    any more has no place yet.
    """

    def __init__(self, *hosts: str) -> None:
        self.hosts, self.elsewhere = [*hosts], bool(hosts)
        self.sent: list[tuple[int, Request]] = []
        self.answers: list[tuple[int, Answer | Ended]] = []
        self.ended: list[int] = []
        self.started = 0
        self.reply: Callable[[TrainPopulation], Answer | Ended] | None = None

    def slots(self) -> int:
        return 0

    def start(self) -> int:
        if self.hosts or not self.elsewhere:
            host = self.hosts.pop(0) if self.hosts else ""
            self.answers.append((self.started, Ready("cpu", ["cpu:0"], host)))
        self.started += 1
        return self.started - 1

    def send(self, index: int, message: Request) -> None:
        self.sent.append((index, decode(encode(message), REQUESTS)))
        if self.reply is not None and isinstance(message, TrainPopulation):
            self.answers.append((index, self.reply(message)))

    def receive(self, seconds: float) -> tuple[int, Answer | Ended] | None:
        return self.answers.pop(0) if self.answers else None

    def end(self, index: int) -> None:
        self.ended.append(index)

    def close(self) -> None:
        self.sent.clear()


def population(*numbers: int, **more) -> TrainPopulation:
    trials = [Trial(number, 0, None, {}) for number in numbers]
    return TrainPopulation({}, trials, None, len(trials), "/nowhere", **more)


def trained(request: TrainPopulation, status="done", steps=10, value=0.5, **more):
    """A population's result; ``value`` may be a function of a trial."""
    results = []
    for trial in request.trials:
        own = value(trial) if callable(value) else value
        rows = [{"step": steps, "epoch": 1.0, "validation/loss": own}] if steps else []
        results.append(
            TrialResult(trial.number, trial.seed, trial.fold, status, None, steps,
                        steps or -1, own if steps else None, rows)
        )  # fmt: skip
    known = {"fingerprint": "f", "total_steps": 10, "train_seconds": 0.1, "compile_seconds": 0.1}
    return PopulationTrained(request.task, results, **known | more)
