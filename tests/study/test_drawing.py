"""Drawing without workers: what is drawn, given back, gone on with, whatever a study was cut by."""

import time
from types import SimpleNamespace

import pytest

from jdlopt.errors import UserError
from jdlopt.study import dispatch, drawing, storage
from jdlopt.study import space as spaces
from jdlopt.study.mirror import Mirror
from jdlopt.study.opening import traced_keys
from jdlopt.study.options import Options
from jdlopt.study.search import Search

SPACE = spaces.check(
    {
        "optim.learning_rate": spaces.log_uniform(1e-3, 1.0),
        "model.dropout_rate": spaces.uniform(0.0, 0.5),
    }
)
GRID = spaces.check({"optim.learning_rate": spaces.choice(0.1, 0.2, 0.3)})


class Worker(SimpleNamespace):
    """Is told, and does nothing."""

    def tell(self, order):
        self.told.append(order)


@pytest.fixture
def opened(tmp_path):
    storage.quiet()
    found = storage.open_storage(None, tmp_path)
    yield found
    storage.close_storage(found)


def search(opened, workdir, space=SPACE, **options):
    """Opens a study as `tune` does, with one worker that only listens."""
    asked = Options(width=4, **options)
    book = storage.Book(opened, "study", ["minimize"], {})
    worker = Worker(index=0, task=None, groups=set(), compiling=None, told=[])
    grid = list(spaces.points(space)) if asked.sampler == "grid" else None
    found = Search(
        config={"seed": 0}, space=space, traced=traced_keys(space), workdir=workdir,
        options=asked, objectives=[{"name": "validation/loss", "direction": "minimize"}],
        facts={"seed": 0, "platform": "cpu", "resolved": {}, "monitor": "validation/loss",
               "versions": {}, "devices": []},
        book=book, mirror=Mirror(asked.sampler, asked.seed, book.slot, ["minimize"], space),
        grid=grid, workers=SimpleNamespace(all={0: worker}, stop=lambda: None),
        started=time.perf_counter(), deadline=None, on_progress=None,
    )  # fmt: skip
    drawing.take_over(found)
    return found


def train(found, tasks=10**6, status="done"):
    """Trains so many populations: a trial's value is a function of its point."""
    while tasks:
        drawing.advance(found)
        dispatch.hand_out(found)
        task = found.workers.all[0].task
        if task is None:
            return
        answer(found, task, status)
        tasks -= 1


def answer(found, task, status="done", steps=10):
    members = []
    for number in task.trials:
        point = found.points[number]
        value = abs(point["optim.learning_rate"] - 0.1) + point.get("model.dropout_rate", 0.0)
        rows = [{"step": steps, "epoch": 1.0, "validation/loss": value}] if steps else []
        members.append({
            "trial": number, "seed": 0, "fold": None, "status": status, "reason": None,
            "steps": steps, "best_step": steps, "value": value if steps else None, "rows": rows,
        })  # fmt: skip
    message = {
        "event": "done", "task": task.number, "members": members, "fingerprint": "f",
        "train_seconds": 0.1, "compile_seconds": 0.1, "total_steps": 10,
    }  # fmt: skip
    dispatch.hear(found, 0, message)


def states(found):
    return [trial.state.name for trial in found.book.trials()]


@pytest.mark.parametrize("sampler", ["quasi_random", "random", "tpe", "cmaes"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_study_that_was_cut_draws_what_it_would_have_drawn(opened, tmp_path, sampler, cut):
    whole = search(storage.open_storage("journal:" + str(tmp_path / "j"), tmp_path),
                   tmp_path / "whole", sampler=sampler, trials=32)  # fmt: skip
    (tmp_path / "whole").mkdir()
    train(whole)
    part = search(opened, tmp_path, sampler=sampler, trials=32)
    train(part, tasks=cut)
    drawing.advance(part)
    part.book.leave()  # as if it were dead: what it had drawn is nobody's
    rest = search(opened, tmp_path, sampler=sampler, trials=32)
    train(rest)
    assert rest.points == whole.points and len(rest.points) == 32
    assert states(rest) == ["COMPLETE"] * 32
    assert {n: r["values"] for n, r in rest.finished.items()} == {
        n: r["values"] for n, r in whole.finished.items()
    }


def test_what_a_budget_leaves_untrained_waits_for_the_next_call(opened, tmp_path):
    first = search(opened, tmp_path, trials=16)
    train(first, tasks=1)
    drawing.advance(first)
    dispatch.hand_out(first)
    dispatch.end(first, "the time budget ended")
    answer(first, first.workers.all[0].task, status="running", steps=0)  # it was compiling
    assert sorted(first.finished) == [0, 1, 2, 3] == sorted(first.points)
    assert set(states(first)[4:]) == {"WAITING"}
    first.book.leave()
    second = search(opened, tmp_path, trials=16)
    train(second)
    assert states(second) == ["COMPLETE"] * 16


def test_what_a_budget_stopped_in_training_is_pruned_with_what_it_reached(opened, tmp_path):
    first = search(opened, tmp_path, trials=4)
    drawing.advance(first)
    dispatch.hand_out(first)
    dispatch.end(first, "the time budget ended")
    answer(first, first.workers.all[0].task, status="running", steps=5)
    assert states(first) == ["PRUNED"] * 4
    assert {record["reason"] for record in first.finished.values()} == {"the time budget ended"}


def test_an_interruption_keeps_what_trained_for_the_next_call(opened, tmp_path):
    first = search(opened, tmp_path, trials=8)
    drawing.advance(first)
    dispatch.hand_out(first)
    dispatch.interrupt(first)
    answer(first, first.workers.all[0].task, status="running", steps=5)
    assert not first.finished and not (tmp_path / "curves").exists()
    first.book.leave()
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
            drawing.see_others(one)
            train(one, tasks=1)
    count = trials or 3
    ended = [trial for trial in both[0].book.trials() if trial.state.is_finished()]
    assert [trial.number for trial in ended] == list(range(count))
    assert len({str(trial.params) for trial in ended}) == count
    assert not drawing.others_work(both[0])


def test_workers_that_die_without_doing_anything_end_the_study_with_a_message(opened, tmp_path):
    found = search(opened, tmp_path, trials=4)
    found.workers.start = lambda: found.workers.all.setdefault(
        0, Worker(index=0, task=None, groups=set(), compiling=None, told=[])
    )
    for _ in range(dispatch.DEATHS):
        dispatch.hear(found, 0, {"event": "ended", "code": -9})
    with pytest.raises(UserError, match="Is memory short"):
        dispatch.hear(found, 0, {"event": "ended", "code": -9})
