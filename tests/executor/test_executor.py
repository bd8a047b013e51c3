"""The executor without processes: who gets what, in which mode, and what a death costs."""

from __future__ import annotations

import pytest
from fake import FakeProcesses, population, trained

from jdlopt.errors import ConfigError, UserError
from jdlopt.executor.executor import ATTEMPTS, DEATHS, Executor, ShortageWarning
from jdlopt.executor.messages import (
    STARTING,
    CheckStudy,
    Failed,
    PopulationTrained,
    Progress,
    Stop,
    StudyChecked,
    TrainPopulation,
    TrainRun,
)
from jdlopt.executor.processes import Ended
from jdlopt.executor.task import GivenBack


@pytest.fixture
def processes():
    return FakeProcesses()


def executor(processes, count=1, **more):
    made = Executor(processes, count, **more)
    made.wait_ready()
    while processes.answers:
        made.receive(0)
    return made


def requests(processes):
    return [(index, one) for index, one in processes.sent if isinstance(one, TrainPopulation)]


def answer(processes, made, index=0, **more):
    """Has a worker finish what it does; returns what the executor's client receives."""
    newest = [one for who, one in requests(processes) if who == index][-1]
    return say(processes, made, index, trained(newest, **more))


def say(processes, made, index, message):
    """Has a worker say something; returns what the executor's client receives."""
    processes.answers.append((index, message))
    while processes.answers:
        received = made.receive(0)
        if received is not None:
            return received
    return None


def until_received(made):
    """Returns what the executor's client receives first, where workers reply by themselves."""
    while made.busy:
        received = made.receive(0)
        if received is not None:
            return received
    return None


def test_every_task_is_done_once_and_its_result_comes_back(processes):
    made = executor(processes, count=2)
    tasks = [made.submit(population(number), "s") for number in range(5)]
    found, answered = [], 0
    while answered < len(tasks):
        made.dispatch()
        index, request = requests(processes)[answered]
        answered += 1
        processes.answers.append((index, trained(request)))
        received = made.receive(0)
        assert isinstance(received.message, PopulationTrained)
        found.append(received.task.number)
    assert sorted(found) == [task.number for task in tasks] and not made.busy
    assert made.spent.training == pytest.approx(0.5)


def test_a_worker_gets_what_it_has_compiled_and_others_wait_for_a_compilation(processes):
    made = executor(processes, count=2)
    for number, structure in enumerate("aaabb"):
        made.submit(population(number), structure)
    made.dispatch()
    first = {index: one.trials[0].number for index, one in requests(processes)}
    assert first == {0: 0, 1: 3}  # the other structure, not the one that is compiled now
    answer(processes, made, 0)
    made.dispatch()
    assert requests(processes)[-1][1].trials[0].number == 1


def test_orders_are_kept_where_results_matter(processes):
    made = executor(processes, any_order=False)
    made.submit(population(0), "a", order=0)
    made.submit(population(1), "b", order=0)
    made.submit(population(2), "a", order=1)
    for number in (0, 1, 2):
        made.dispatch()
        assert requests(processes)[-1][1].trials[0].number == number
        answer(processes, made)


def test_modes_are_timed_where_that_pays_and_then_used(processes):
    made = executor(processes)
    for number in range(60):
        made.submit(population(number), "a")
    made.dispatch()
    assert not requests(processes)[-1][1].calibrate  # what compiling takes is not known yet
    answer(processes, made, train_seconds=1.0, compile_seconds=1.0)
    made.dispatch()
    assert requests(processes)[-1][1].calibrate  # 58 s of work against 20 times 1 s
    answer(processes, made, execution_mode="each", chosen="measured")
    made.dispatch()
    now = requests(processes)[-1][1]
    assert now.execution_mode == "each" and not now.calibrate


def test_a_mode_that_was_asked_for_is_never_timed(processes):
    made = executor(processes)
    for number in range(60):
        made.submit(population(number, execution_mode="vmap"), "a")
    made.dispatch()
    answer(processes, made, train_seconds=1.0, compile_seconds=1.0)
    made.dispatch()
    now = requests(processes)[-1][1]
    assert now.execution_mode == "vmap" and not now.calibrate


def test_what_trials_reached_is_the_history_of_the_next(processes):
    made = executor(processes)
    for number in range(3):
        made.submit(population(number), "a")
    made.dispatch()
    answer(processes, made, reached={3: [0.5, 0.25]})
    made.dispatch()
    answer(processes, made, reached={3: [0.75]})
    made.dispatch()
    assert requests(processes)[-1][1].history == {3: [0.5, 0.25, 0.75]}


# --- failures -------------------------------------------------------------------------------------


def test_a_task_whose_worker_died_is_done_by_another(processes):
    made = executor(processes)
    made.submit(population(0))
    made.dispatch()
    assert say(processes, made, 0, Ended(-9)) is None
    made.dispatch()
    assert [index for index, _ in requests(processes)] == [0, 1]
    assert answer(processes, made, 1).message.trials[0].status == "done"


def test_trials_that_kill_their_workers_are_tried_alone_and_left_out(processes):
    made = executor(processes)
    made.submit(population(0), "a")
    processes.reply = lambda request: Ended(-9)
    received = until_received(made)
    assert isinstance(received.message, Failed) and received.message.kind == "out of memory"
    assert received.message.message.endswith("its worker process was killed by SIGKILL")
    assert [one.at_once for _, one in requests(processes)] == [None] * ATTEMPTS + [1]
    assert not made.busy


def test_a_worker_that_says_what_is_no_message_ends_the_call(processes):
    made = executor(processes)
    made.submit(population(0))
    processes.reply = lambda request: Ended(-9, "no JSON: 'x'")
    with pytest.raises(UserError, match=rf"no JSON: 'x'.*{ATTEMPTS} times.*goes on from there"):
        until_received(made)


def test_what_does_not_fit_is_tried_smaller_then_alone_and_the_rest_is_trained(processes):
    made = executor(processes, count=2)
    large = [made.submit(population(*range(8)), "a"), made.submit(population(8), "a")]
    small = [made.submit(population(number), "b") for number in (9, 10, 11)]
    seen = []

    def reply(request):
        seen.append((request.trials[0].number, request.at_once, len(made.running)))
        if request.trials[0].number < 9:
            return Failed(request.task, "out of memory", "MemoryError")
        return trained(request)

    processes.reply = reply
    found = {}
    while made.busy:
        received = made.receive(0)
        if received is not None:
            found[received.task.number] = received.message
    left_out = [found[task.number] for task in large]
    assert {one.kind for one in left_out} == {"out of memory"}
    assert {one.message for one in left_out} == {"did not fit in memory: MemoryError"}
    assert all(isinstance(found[task.number], PopulationTrained) for task in small)
    tried = [(at_once, running) for number, at_once, running in seen if number == 0]
    assert [at_once for at_once, _ in tried] == [None, 2, 1]
    assert tried[-1][1] == 1  # alone
    assert len([number for number, *_ in seen if number == 8]) <= 1  # nothing more is tried of it
    assert len(processes.ended) > 2  # a worker that had too little memory is replaced


def test_what_fits_in_part_is_trained_so_from_then_on(processes):
    made = executor(processes)
    for first in (0, 8, 16):
        made.submit(population(*range(first, first + 8)), "a")
    processes.reply = lambda request: (
        trained(request) if request.at_once else Failed(request.task, "out of memory", "x")
    )
    while made.busy:
        received = made.receive(0)
        assert received is None or isinstance(received.message, PopulationTrained)
    assert [one.at_once for _, one in requests(processes)] == [None, 2, 2, 2]


def test_what_had_been_trained_for_a_while_is_tried_again_as_it_is(processes):
    made = executor(processes)
    made.submit(population(*range(8)), "a")
    for index in range(ATTEMPTS):
        made.dispatch()
        task = requests(processes)[-1][1].task
        assert say(processes, made, index, Progress(task, 1, 10, 8)) is not None
        assert say(processes, made, index, Failed(task, "out of memory", "x")) is None
    made.dispatch()
    assert [one.at_once for _, one in requests(processes)] == [None] * ATTEMPTS + [2]


def test_a_run_that_does_not_fit_is_left_out_and_given_back_after_a_stop(processes):
    made = executor(processes)
    task = made.submit(TrainRun({}, "/nowhere"))
    for index in range(2):
        made.dispatch()
        received = say(processes, made, index, Failed(task.number, "out of memory", "x"))
    assert received.task is task and received.message.kind == "out of memory"
    task = made.submit(population(0))
    made.dispatch()
    made.stop()
    assert say(processes, made, 2, Failed(task.number, "out of memory", "x")).message == GivenBack()


def test_where_memory_is_short_fewer_workers_are_started(processes):
    made = executor(processes, count=2)
    processes.answers.append((1, Failed(STARTING, "out of memory", "MemoryError")))
    with pytest.warns(ShortageWarning, match="going on with 1"):
        made.receive(0)
    made.submit(population(0))
    made.dispatch()
    processes.answers.append((0, Failed(STARTING, "out of memory", "MemoryError")))
    with pytest.raises(UserError, match=r"MemoryError\. There is too little memory"):
        made.receive(0)


def test_workers_that_die_in_a_row_end_the_call(processes):
    made = executor(processes, count=DEATHS + 1)
    for index in range(DEATHS):
        assert say(processes, made, index, Ended(1)) is None
    with pytest.raises(UserError, match="Is memory short"):
        say(processes, made, DEATHS, Ended(1))


@pytest.mark.parametrize(
    ("kind", "message", "error", "says"),
    [
        ("environment", "OSError: No space left", UserError, "No space left.*goes on from there"),
        ("defect", "KeyError: 'x'", RuntimeError, "the traceback"),
    ],
)
def test_what_the_trials_are_not_to_blame_for_is_raised(processes, kind, message, error, says):
    made = executor(processes)
    task = made.submit(population(0))
    made.dispatch()
    processes.answers.append((0, Failed(task.number, kind, message, "the traceback")))
    with pytest.raises(error, match=says):
        made.receive(0)


@pytest.mark.parametrize("kind", ["wrong input", "diverged"])
def test_what_the_trials_are_to_blame_for_is_received(processes, kind):
    made = executor(processes)
    task = made.submit(population(0))
    made.dispatch()
    processes.answers.append((0, Failed(task.number, kind, "rate: is negative")))
    received = made.receive(0)
    assert received.task.number == task.number and received.message.kind == kind


# --- the end --------------------------------------------------------------------------------------


def test_a_stop_gives_back_what_waits_and_the_executor_goes_on(processes):
    made = executor(processes)
    tasks = [made.submit(population(number), "a") for number in range(3)]
    made.dispatch()
    assert [task.number for task in made.stop()] == [task.number for task in tasks[1:]]
    assert processes.sent[-1] == (0, Stop(tasks[-1].number)) and made.stop() == []
    later = made.submit(population(3), "a")
    received = answer(processes, made, status="running", steps=4)
    assert received.task.number == tasks[0].number
    made.dispatch()
    assert [task.number for task in made.running] == [later.number]
    assert later.number > tasks[-1].number  # which the stop does not reach


def test_what_a_stopped_worker_had_is_given_back_if_it_dies(processes):
    made = executor(processes)
    task = made.submit(population(0))
    made.dispatch()
    made.stop()
    processes.answers.append((0, Ended(-9)))
    assert list(made.drain()) == [(task, GivenBack())]
    assert not made.busy


def test_a_check_is_answered_once_and_other_answers_to_it_are_passed_over(processes):
    made = executor(processes, count=2)
    done = StudyChecked({}, {}, {"validation/loss": "minimize"}, "validation/loss", 0, {})
    processes.answers += [(0, done), (1, done)]
    request = CheckStudy({}, {}, [], [], None, [])
    assert made.check(request) == done
    assert [index for index, one in processes.sent if isinstance(one, CheckStudy)] == [0, 1]
    assert made.receive(0) is None
    processes.answers.append((1, Failed(0, "wrong input", "optim.learning_rat: is unknown")))
    with pytest.raises(ConfigError, match="learning_rat"):
        made.check(request)


@pytest.mark.parametrize("early", [True, False])
def test_a_check_goes_on_without_a_worker_that_had_too_little_memory_to_start(processes, early):
    made = executor(processes, count=2)
    done = StudyChecked({}, {}, {"validation/loss": "minimize"}, "validation/loss", 0, {})
    processes.answers += [(1, Failed(STARTING, "out of memory", "MemoryError")), (1, Ended(1))]

    def checked():
        if early:
            made.receive(0)
        processes.answers.append((0, done))
        return made.check(CheckStudy({}, {}, [], [], None, []))

    with pytest.warns(ShortageWarning, match="going on with 1"):
        found = checked()
    assert found == done


def test_a_deadline_that_has_passed_is_known(processes):
    made = executor(processes, deadline=0.0)
    assert made.late
    made.deadline = None
    assert not made.late
