"""Whether a training moves: what hangs, and who is not heard of any more."""

from __future__ import annotations

import pytest

from jdlopt.train.goodput import EVALUATION, STEPS, Stopwatch
from jdlopt.train.watch import PEER_SECONDS, Peers, Watch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def training(seconds: float) -> tuple[Clock, Stopwatch]:
    """A stopwatch that has seen five dispatches of so many seconds."""
    clock = Clock()
    stopwatch = Stopwatch(now=clock)
    for _ in range(6):
        stopwatch.switch(STEPS, "steps")
        clock.now += seconds
    return clock, stopwatch


@pytest.mark.parametrize(("seconds", "allowed"), [(0.1, 30.0), (3.0, 60.0)])
def test_a_dispatch_hangs_after_20_times_its_median_and_some_seconds(seconds, allowed):
    _, stopwatch = training(seconds)
    watch = Watch(stopwatch, least=30.0)
    looks = [watch.look(1.0) for _ in range(int(allowed) + 2)]
    assert not any(looks[:-1]) and "nothing has moved" in str(looks[-1])
    assert watch.look(1.0)  # and so it is until something moves
    stopwatch.switch(STEPS, "steps")
    assert watch.look(1.0) is None


def test_what_was_never_seen_to_end_may_take_any_time():
    clock, stopwatch = training(0.1)
    watch = Watch(stopwatch, least=30.0)
    with stopwatch.during(EVALUATION, "an evaluation"):
        assert not any(watch.look(100.0) for _ in range(100))
        clock.now += 2
    with stopwatch.during(EVALUATION, "an evaluation"):
        assert any(watch.look(10.0) for _ in range(6))


def test_what_pauses_is_compared_by_its_own_time():
    clock, stopwatch = training(0.1)
    with stopwatch.during(EVALUATION, "an evaluation"):
        clock.now += 1000
    stopwatch.switch(STEPS, "steps")
    assert stopwatch.running()[2] == pytest.approx([0.1] * 6)


class Store(dict[str, str]):
    """What the coordinator keeps, as long as it answers."""

    answers = True

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        if not self.answers:
            raise ConnectionError("no answer")
        assert allow_overwrite
        self[key] = value

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self.items() if name.startswith(key)]


def together(seconds: int, watches: list[Watch], alive: set[int]) -> list[str | None]:
    """What each sees at last after so many seconds in which some of them live."""
    found: list[str | None] = [None] * len(watches)
    for _ in range(seconds):
        for index in alive:
            watches[index].peers.tell()
        for index in alive:
            watches[index].stopwatch.switch(STEPS, "steps")
            found[index] = found[index] or watches[index].look(1.0)
    return found


def test_a_process_that_is_not_heard_of_ends_the_first_and_the_first_all_others():
    store = Store()
    watches = [Watch(training(0.1)[1], 300.0, Peers(store, index, "run")) for index in range(3)]
    assert together(3 * PEER_SECONDS, watches, {0, 1, 2}) == [None] * 3
    first, other, _ = together(PEER_SECONDS + 2, watches, {0, 1})
    assert "process 2 has not been heard of" in str(first) and other is None
    store.answers = False
    assert "process 0 has not answered" in str(together(PEER_SECONDS + 2, watches, {1})[1])


def test_a_process_that_is_done_is_not_waited_for():
    store = Store()
    watches = [Watch(training(0.1)[1], 300.0, Peers(store, index, "run")) for index in range(2)]
    together(3, watches, {0, 1})
    watches[1].peers.leave()
    assert together(3 * PEER_SECONDS, watches, {0}) == [None, None]
