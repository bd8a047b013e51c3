"""What one process of a training knows is acted upon by all of them at the same step."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt.train import checksums
from jdlopt.train.processes import Agreement


class Exchange:
    """Rows that processes send each other, to be read once all of them have sent theirs."""

    def __init__(self, count):
        self.count, self.rows = count, {}

    def of(self, index):
        sent = iter(range(10**6))

        def send(row):
            meeting = self.rows.setdefault(next(sent), {})
            meeting[index] = row

            def read():
                assert len(meeting) == self.count  # all have met at this step
                return np.stack([meeting[other] for other in range(self.count)])

            return read

        return send


@settings(max_examples=40)
@given(
    count=st.integers(2, 4),
    stop=st.integers(0, 600),
    save=st.integers(0, 600),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_all_processes_save_and_stop_at_the_same_step(count, stop, save, lengths, seed):
    draw = random.Random(seed)
    exchange, clocks = Exchange(count), [0.0] * count
    told = draw.randrange(count)  # the one that gets the signal
    agreements = [
        Agreement(exchange.of(index), now=lambda index=index: clocks[index])
        for index in range(count)
    ]
    step, saved = draw.choice([0, 2000]), []
    first = step
    while True:
        step += draw.choice(lengths)
        found = []
        for index in draw.sample(range(count), count):
            clocks[index] += draw.uniform(0.01, 0.2)
            late = index == 0 and not saved and step >= first + save
            found.append(agreements[index](step, index == told and step >= first + stop, late))
        assert len(set(found)) == 1
        stops, saves = found[0]
        if saves:
            saved.append(step)
        if stops:
            break
        # dispatches of at least 0.01 s: two seconds are soon over, whoever's clock it was
        assert step < first + stop + 40 * 500
    assert step >= first + stop and len(saved) <= 1
    assert not saved or saved[0] >= first + save


def test_any_damage_is_in_one_of_the_shares(tmp_path):
    for number in range(7):
        (tmp_path / f"{number}").write_bytes(bytes(100 * number))
    checksums.write(tmp_path)
    for parts in (1, 2, 3, 9):
        shares = [(part, parts) for part in range(parts)]
        assert not any(checksums.damage(tmp_path, *share) for share in shares)
        for number in range(1, 7):
            path = tmp_path / f"{number}"
            path.write_bytes(b"\1" + bytes(100 * number - 1))
            found = [said for said in (checksums.damage(tmp_path, *s) for s in shares) if said]
            assert len(found) == 1 and found[0].startswith(f"{number} was changed")
            path.write_bytes(bytes(100 * number))
    (tmp_path / "3").unlink()
    assert checksums.damage(tmp_path) == "3 is missing"
