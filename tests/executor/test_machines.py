"""Workers on several machines: who waits for a place, who is lost, and who is left out."""

from __future__ import annotations

import pytest
from fake import FakeProcesses, population, trained

from jdlopt.errors import ConfigError, UserError
from jdlopt.executor.executor import DEATHS, Executor
from jdlopt.executor.machines import MachineWarning
from jdlopt.executor.messages import STARTING, CheckStudy, Failed, Ready, TrainPopulation
from jdlopt.executor.processes import Ended


def executor(processes, count):
    made = Executor(processes, count)
    made.wait_ready()
    while processes.answers:
        made.receive(0)
    return made


def given(processes):
    """Who was given which trial, in order."""
    return [
        (index, one.trials[0].number)
        for index, one in processes.sent
        if isinstance(one, TrainPopulation)
    ]


def finish(made, processes):
    """Has workers reply until all is done; returns what the executor's client receives."""
    found = {}
    while made.busy:
        received = made.receive(0)
        if received is not None:
            assert received.task.number not in found
            found[received.task.number] = received.message
    return found


def test_a_worker_without_a_place_gets_nothing_until_it_has_one():
    processes = FakeProcesses("a")
    made = executor(processes, 2)
    for number in range(3):
        made.submit(population(number), "s")
    made.dispatch()
    assert given(processes) == [(0, 0)]
    processes.answers.append((1, Ready("cpu", ["cpu:0"], "b")))
    made.receive(0)
    processes.reply = trained
    processes.answers.append((0, trained(processes.sent[0][1])))
    assert len(finish(made, processes)) == 3
    assert {index for index, _ in given(processes)} == {0, 1}


def test_a_machine_that_is_lost_with_many_workers_costs_its_trials_nothing():
    processes = FakeProcesses(*["a"] * 2, *["b"] * (DEATHS + 2))
    made = executor(processes, DEATHS + 4)
    tasks = [made.submit(population(number), f"s{number}") for number in range(DEATHS + 4)]
    for _ in range(5):  # more often than a task may be tried
        made.dispatch()
        busy = [task.number for task in made.running]
        processes.hosts = ["b"] * (DEATHS + 2)
        lost = [n for n, one in made._workers.items() if one.host == "b"]
        processes.answers += [(index, Ended(1, lost="its node was drained")) for index in lost]
        while processes.answers:
            assert made.receive(0) is None
        assert sorted(busy) == [task.number for task in tasks]
    processes.reply = trained
    for index, request in [one for one in processes.sent if isinstance(one[1], TrainPopulation)]:
        if index in made._workers and index < 2:
            processes.answers.append((index, trained(request)))
    for index, worker in made._workers.items():
        if index >= 2 and worker.task is not None:
            processes.answers.append((index, trained(made._workers[index].task.request)))
    assert sorted(finish(made, processes)) == [task.number for task in tasks]


def test_a_machine_that_can_not_do_what_another_can_is_left_out():
    processes = FakeProcesses("bad", "good")
    made = executor(processes, 2)
    tasks = [made.submit(population(number), "s") for number in range(4)]

    def reply(request):
        index = processes.sent[-1][0]
        if index == 0:
            return Failed(request.task, "wrong input", "data.source: is not there", host="bad")
        return trained(request)

    processes.reply = reply
    with pytest.warns(MachineWarning, match="the machine bad is left out.*data.source: is not"):
        found = finish(made, processes)
    assert sorted(found) == [task.number for task in tasks]
    assert not any(isinstance(message, Failed) for message in found.values())
    assert len([one for one in given(processes) if one[0] == 0]) < len(tasks)


def test_what_no_machine_can_do_is_the_trials_fault_or_ends_the_call():
    processes = FakeProcesses("a", "b", "c")
    made = executor(processes, 3)
    task = made.submit(population(0), "s")
    processes.reply = lambda request: Failed(request.task, "wrong input", "rate: is negative")
    assert finish(made, processes)[task.number].message == "rate: is negative"
    assert len(given(processes)) == 3
    made.submit(population(1), "s")
    processes.reply = lambda request: Failed(request.task, "environment", "disk full", host="c")
    with pytest.raises(UserError, match="on c: disk full"):
        finish(made, processes)


def test_a_machine_that_can_not_start_a_worker_is_named_and_left_out_if_others_can():
    processes = FakeProcesses("a")
    made = executor(processes, 2)
    failure = Failed(STARTING, "environment", "/runs/x can't be read", host="b")
    processes.answers.append((1, failure))
    with pytest.warns(MachineWarning, match="the machine b is left out: /runs/x can't"):
        made.receive(0)
    made.submit(population(0), "s")
    made.submit(population(1), "s")
    processes.reply = trained
    finish(made, processes)
    assert given(processes) == [(0, 0), (0, 1)] and processes.started == 2

    alone = Executor(FakeProcesses("a"), 1)
    alone._processes.answers = [(0, Failed(STARTING, "wrong input", "no jax", host="a"))]
    with pytest.raises(ConfigError, match="on a: no jax"):
        alone.wait_ready()


def test_a_check_goes_on_where_a_machine_is_lost_and_names_the_one_that_fails():
    processes = FakeProcesses("a", "b")
    made = Executor(processes, 1)
    processes.answers.append((0, Ended(1, lost="gone")))
    processes.answers.append((1, Failed(0, "wrong input", "data.source: is not there", host="b")))
    with pytest.raises(ConfigError, match=r"on b: data\.source"):
        made.check(CheckStudy({}, {}, [], [], None, []))
    assert [index for index, one in processes.sent if isinstance(one, CheckStudy)] == [0, 1]
