"""Searches without workers: what is drawn, given back, gone on with, whatever they were cut by."""

import dataclasses
import json

import pytest
from fake import trained
from searches import SPACE, search

from jdlopt.errors import UserError
from jdlopt.executor.messages import Failed, TrainPopulation
from jdlopt.executor.processes import Ended
from jdlopt.study import database, known_data, records, schema
from jdlopt.study import space as spaces
from jdlopt.study.enqueue import BASE, Planned, checked, completed
from jdlopt.study.options import SAMPLERS

TWO_STRUCTURES = spaces.check(
    {
        "optim.learning_rate": spaces.log_uniform(1e-3, 1.0),
        "model.features": spaces.choice((8,), (64,)),
    }
)
TIME = {"wall_seconds": 1.0, "training_seconds": 1.0, "compile_seconds": 1.0, "outside_share": 0.0,
        "workers": 1}  # fmt: skip
GRID = spaces.check({"optim.learning_rate": spaces.choice(0.1, 0.2, 0.3)})
FIRST = (
    Planned(BASE, {"optim.learning_rate": 0.01, "model.dropout_rate": 0.25}),
    *checked(SPACE, [{"optim.learning_rate": 0.5}, {"model.dropout_rate": 0.0}]),
)


@pytest.fixture
def opened(tmp_path):
    database.quiet()
    found = database.open_storage(None, tmp_path)
    yield found
    database.close_storage(found)


def begin(found):
    """Has the worker begin its next population; returns what it is asked, or None."""
    found.advance()
    running = found.executor.running
    return running[0].request if running else None


def answer(found, message):
    found.executor._processes.answers.append((0, message))
    found.take(found.executor.receive(0))


def results(found, request, status="done", steps=10):
    """Trials whose value is a function of their point."""

    def value(trial):
        point = found.trials.points[trial.number]
        return abs(point["optim.learning_rate"] - 0.1) + point.get("model.dropout_rate", 0.0)

    return trained(request, status, steps, value)


def train(found, tasks=10**6):
    """Trains so many populations."""
    while tasks and (request := begin(found)) is not None:
        answer(found, results(found, request))
        tasks -= 1


def states(found):
    return [trial.state.name for trial in found.storage.trials()]


CONDITIONAL = spaces.check(
    {
        "optim.learning_rate": spaces.log_uniform(1e-3, 1.0),
        "optim.name": spaces.choice("momentum", "adamw"),
        "optim.momentum": spaces.uniform(0.1, 0.9, when={"optim.name": "momentum"}),
        "data.batch_size": spaces.int(8, 64, log=True),
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_points_that_are_asked_for(opened, tmp_path, sampler):
    if sampler == "gp":
        pytest.importorskip("torch", reason="Optuna's Gaussian process needs PyTorch")
    points = [
        {"optim.name": "adamw", "optim.learning_rate": 0.5},
        {"optim.name": "momentum", "optim.momentum": 0.3},
        {"data.batch_size": 9},
    ]
    first = [Planned(BASE, {"optim.learning_rate": 0.01}), *checked(CONDITIONAL, points)]
    grid = [completed(CONDITIONAL, one, 0) for one in first]
    grid += [completed(CONDITIONAL, Planned(BASE, {}), n) for n in range(14)]
    found = search(opened, tmp_path, CONDITIONAL, first, grid, sampler=sampler,
                   trials=18)  # fmt: skip
    train(found)
    assert sorted(found.trials.finished) == list(range(18))
    for number, one in enumerate(first):
        assert one.values.items() <= found.trials.points[number].items()
        assert found.trials.queue.origins()[number] == one.origin
    drawn = [repr(found.trials.points[number]) for number in range(4, 18)]
    assert len(set(drawn)) == 14


def test_a_part_that_is_searched_leaves_out_the_other_parts_keys(opened, tmp_path):
    found = search(opened, tmp_path, CONDITIONAL, trials=8)
    given = {**found.setup.config, "data": {"source": "iris"}, "model": {"name": "linear"},
             "optim": {"name": "momentum", "momentum": 0.9, "learning_rate": 0.1}}  # fmt: skip
    setup = dataclasses.replace(found.setup, config=given)
    other = setup.config_of({"optim.name": "adamw", "optim.learning_rate": 0.5})
    assert other["optim"] == {"name": "adamw", "learning_rate": 0.5}
    same = setup.changed({"optim.name": "momentum"})
    assert same["optim"] == given["optim"]


@pytest.mark.parametrize("sampler", ["quasi_random", "random", "tpe", "cmaes"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_study_that_was_cut_draws_what_it_would_have_drawn(opened, tmp_path, sampler, cut):
    whole = search(database.open_storage("journal:" + str(tmp_path / "j"), tmp_path),
                   tmp_path / "whole", first=FIRST, sampler=sampler, trials=32)  # fmt: skip
    (tmp_path / "whole").mkdir()
    train(whole)
    part = search(opened, tmp_path, first=FIRST, sampler=sampler, trials=32)
    train(part, tasks=cut)
    part.scheduler.advance()
    part.storage.leave()  # as if it were dead: what it had drawn is nobody's
    rest = search(opened, tmp_path, sampler=sampler, trials=32)  # it keeps what was asked for
    train(rest)
    for number, planned in enumerate(FIRST):
        assert planned.values.items() <= rest.trials.points[number].items()
    assert rest.trials.queue.origins() == {0: "base", 1: "enqueued", 2: "enqueued"}
    assert rest.trials.points == whole.trials.points and len(rest.trials.points) == 32
    assert states(rest) == ["COMPLETE"] * 32
    assert {n: r["values"] for n, r in rest.trials.finished.items()} == {
        n: r["values"] for n, r in whole.trials.finished.items()
    }


def test_what_a_budget_leaves_untrained_waits_for_the_next_call(opened, tmp_path):
    first = search(opened, tmp_path, trials=16)
    train(first, tasks=1)
    request = begin(first)
    first.end("the time budget ended")
    answer(first, results(first, request, status="running", steps=0))  # it was compiling
    assert sorted(first.trials.finished) == [0, 1, 2, 3] == sorted(first.trials.points)
    assert set(states(first)[4:]) == {"WAITING"}
    first.storage.leave()
    second = search(opened, tmp_path, trials=16)
    train(second)
    assert states(second) == ["COMPLETE"] * 16


def test_what_a_budget_stopped_in_training_is_pruned_with_what_it_reached(opened, tmp_path):
    first = search(opened, tmp_path, trials=4)
    request = begin(first)
    first.end("the time budget ended")
    answer(first, results(first, request, status="running", steps=5))
    assert states(first) == ["PRUNED"] * 4
    reasons = {record["reason"] for record in first.trials.finished.values()}
    assert reasons == {"the time budget ended"}


def test_an_interruption_keeps_what_trained_for_the_next_call(opened, tmp_path):
    first = search(opened, tmp_path, trials=8)
    request = begin(first)
    first.interrupt()
    answer(first, results(first, request, status="running", steps=5))
    assert not first.trials.finished and not (tmp_path / "curves").exists()
    first.storage.leave()
    second = search(opened, tmp_path, trials=8)
    train(second)
    assert states(second) == ["COMPLETE"] * 8


@pytest.mark.parametrize("sampler", ["quasi_random", "random", "tpe", "grid"])
def test_two_coordinators_draw_different_points_and_no_more_than_asked(opened, tmp_path, sampler):
    space = GRID if sampler == "grid" else SPACE
    trials = None if sampler == "grid" else 20
    both = [search(opened, tmp_path, space, sampler=sampler, trials=trials) for _ in range(2)]
    for _ in range(6):
        for one in both:
            one.trials.see_others()
            train(one, tasks=1)
    count = trials or 3
    ended = [trial for trial in both[0].storage.trials() if trial.state.is_finished()]
    assert [trial.number for trial in ended] == list(range(count))
    assert len({str(trial.params) for trial in ended}) == count
    assert not both[0].trials.others_work()


def test_trials_of_a_wrong_config_are_infeasible(opened, tmp_path):
    found = search(opened, tmp_path, trials=4)
    request = begin(found)
    assert isinstance(request, TrainPopulation)
    answer(found, Failed(found.executor.running[0].number, "wrong input", "rate: is negative"))
    assert states(found) == ["FAIL"] * 4
    assert {one["reason"] for one in found.trials.finished.values()} == {"rate: is negative"}


def test_a_fault_of_the_environment_is_no_result_and_the_next_call_goes_on(opened, tmp_path):
    first = search(opened, tmp_path, trials=8)
    train(first, tasks=1)
    request = begin(first)  # the worker has begun the second population
    failure = Failed(request.task, "environment", "disk full")
    first.executor._processes.answers.append((0, failure))
    with pytest.raises(UserError, match="goes on from there"):
        first.run(lambda: False)
    assert states(first) == ["COMPLETE"] * 4 + ["RUNNING"] * 4
    assert json.loads((tmp_path / "study.json").read_text())["status"] == "interrupted"
    second = search(opened, tmp_path, trials=8)
    train(second)
    assert states(second) == ["COMPLETE"] * 8


def values(found, key="optim.learning_rate"):
    return [trial.params[key] for trial in found.storage.trials()]


@pytest.mark.parametrize("cut", [0, 1])
def test_what_is_enqueued_is_trained_once_however_often_it_is_asked_for(opened, tmp_path, cut):
    asked = checked(SPACE, [{"optim.learning_rate": 0.5 + number / 100} for number in range(6)])
    first = search(opened, tmp_path, first=asked, trials=12)
    train(first, tasks=cut)
    first.storage.leave()
    both = [search(opened, tmp_path, first=asked, trials=12) for _ in range(2)]
    for _ in range(6):
        for one in both:
            one.trials.see_others()
            train(one, tasks=1)
    drawn = values(first)
    assert len(drawn) == 12
    assert [drawn.count(one.values["optim.learning_rate"]) for one in asked] == [1] * 6


def test_a_study_that_has_begun_takes_more_points_and_no_base_config(opened, tmp_path):
    first = search(opened, tmp_path, trials=4)
    train(first)
    first.storage.leave()
    second = search(opened, tmp_path, first=FIRST, trials=8)
    train(second)
    assert values(second)[4] == 0.5 and second.trials.queue.origins() == {
        4: "enqueued",
        5: "enqueued",
    }
    assert [row["trial"] for row in second.trials.queue.record(range(8))] == [4, 5]
    second.storage.leave()
    third = search(opened, tmp_path, first=checked(SPACE, [{"optim.learning_rate": 0.7}]), trials=8)
    train(third)
    assert third.trials.queue.record(range(8))[-1]["trial"] is None  # no trial is left for it


def test_a_grid_begins_with_what_is_enqueued_and_has_no_point_twice(opened, tmp_path):
    space = spaces.check({**GRID, "model.features": spaces.choice((8,), (8, 8))})
    first = checked(space, [{"optim.learning_rate": 0.2, "model.features": [8, 8]}])
    rest = [point for point in spaces.points(space) if point != first[0].values]
    grid = [completed(space, first[0], 0), *rest]
    found = search(opened, tmp_path, space, first, grid, sampler="grid")
    train(found)
    assert found.trials.points[0] == first[0].values and len(found.trials.points) == 6
    assert found.trials.queue.origins() == {0: "enqueued"}


def test_a_point_that_another_hand_wrote_into_the_storage_is_refused(opened, tmp_path):
    found = search(opened, tmp_path, first=FIRST, trials=4)
    found.storage.leave()
    name = f"enqueued:{FIRST[0].name}"
    for text in ("{", "[]", json.dumps({**FIRST[0].to_dict(), "values": {"seed": 3}, "order": 0})):
        found.storage.storage.set_study_user_attr(found.storage.id, name, text)
        with pytest.raises(UserError, match="no point as jdlopt writes it"):
            search(opened, tmp_path, trials=4)


def does_not_fit(how, everything=False):
    """Returns the reply of a worker whose memory is too small for 64 features."""

    def reply(request):
        if not everything and list(request.config["model"]["features"]) == [8]:
            return trained(request)
        if how == "deaths":
            return Ended(-9)
        return Failed(request.task, "out of memory", "RESOURCE_EXHAUSTED: Out of memory")

    return reply


@pytest.mark.parametrize("how", ["errors", "deaths"])
@pytest.mark.parametrize("sampler", ["quasi_random", "tpe"])
def test_what_does_not_fit_in_memory_is_left_out_and_trained_by_the_next_call(
    opened, tmp_path, how, sampler
):
    asked = {"trials": 12, "keep": 0, "sampler": sampler, "space": TWO_STRUCTURES}
    first = search(opened, tmp_path, **asked)
    first.scheduler.advance()
    large = [n for n, one in first.trials.points.items() if one["model.features"] == (64,)]
    assert 0 < len(large) < len(first.trials.points)
    first.executor._processes.reply = does_not_fit(how)
    record = first.run(lambda: False).record
    there = {row["number"]: row["state"] for row in record["trials"]}
    assert {there[number] for number in large} == {"left out"} and "done" in there.values()
    assert schema.study_problems(record | {"time": TIME}) == []
    assert "did not fit in memory" in records.left_out_in_words(record)
    assert [states(first)[number] for number in large] == ["WAITING"] * len(large)
    second = search(opened, tmp_path, **asked)
    second.executor._processes.reply = trained
    record = second.run(lambda: False).record
    assert {row["state"] for row in record["trials"]} == {"done"} and len(record["trials"]) == 12
    assert records.left_out_in_words(record) is None


def test_a_search_of_which_nothing_fits_in_memory_ends_and_is_wrong(opened, tmp_path):
    found = search(opened, tmp_path, budget=100.0, keep=0, sampler="tpe")
    found.executor._processes.reply = does_not_fit("errors", everything=True)
    with pytest.raises(UserError, match=r"no trial was trained: .*too little memory.*tries them"):
        found.run(lambda: False)
    assert set(states(found)) == {"WAITING"} and not found.trials.finished
    assert json.loads((tmp_path / "study.json").read_text())["status"] == "interrupted"


def test_two_coordinators_that_leave_the_same_out_both_end(opened, tmp_path):
    asked = {"trials": 8, "keep": 0, "space": TWO_STRUCTURES}
    first, second = (search(opened, tmp_path, **asked) for _ in range(2))
    for one in (first, second):
        one.executor._processes.reply = does_not_fit("errors")
    first.run(lambda: False)
    assert set(states(first)) == {"WAITING", "COMPLETE"}
    second.scheduler.adopt()  # another machine may have more memory: it tries
    assert set(states(first)) == {"RUNNING", "COMPLETE"} and first.trials.others_work()
    second.run(lambda: False)
    assert not first.trials.others_work() and not second.trials.others_work()
    assert set(states(first)) == {"WAITING", "COMPLETE"}


def test_a_study_whose_data_changed_goes_on_only_where_it_is_said(opened, tmp_path):
    first = search(opened, tmp_path, trials=8)
    train(first, tasks=1)
    first.storage.leave()
    grown = {"splits": {"train": {"count": 12, "rows": None, "content": "b"}}}
    with pytest.raises(UserError, match=r"train: 9 examples there, 12 now\n.*--changed-data=ok"):
        search(opened, tmp_path, data=grown, trials=8)
    with pytest.warns(known_data.ChangedDataWarning, match="not those that 4 trials"):
        second = search(opened, tmp_path, data=grown, trials=8, changed_data="ok")
    second.storage.leave()
    again = search(opened, tmp_path, data=grown, trials=8)  # it was said once
    train(again)
    [change] = again.progress.write("done")["data_changes"]
    assert change["before"] == [0, 1, 2, 3] and "12 now" in change["changes"]
