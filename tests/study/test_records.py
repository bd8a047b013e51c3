"""The curves on disk: a trial that was trained again has the rows of its newest training alone."""

import os

from jdlopt.study import records
from jdlopt.study.setup import claim


def rows(trial, steps, value):
    return [
        {"trial": trial, "seed": 0, "fold": -1, "step": step, "epoch": 1.0, "train/loss": value}
        for step in steps
    ]


def test_a_trial_that_was_trained_again_has_its_newest_rows_alone(tmp_path):
    records.add_curves(tmp_path, [*rows(0, [1, 2, 3], 0.5), *rows(1, [1], 0.25)])
    records.gather_curves(tmp_path)
    records.add_curves(tmp_path, rows(0, [1, 2], 0.75))  # stopped earlier this time
    found = records.gather_curves(tmp_path)
    assert found[["trial", "step", "train/loss"]].values.tolist() == [
        [0, 1, 0.75], [0, 2, 0.75], [1, 1, 0.25],
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == [records.CURVES]


def test_what_a_killed_process_had_begun_to_write_is_removed(tmp_path):
    records.add_curves(tmp_path, rows(0, [1], 0.5))
    gone, alive = 2**22 + 1, os.getpid()
    for pid in (gone, alive):
        (tmp_path / records.PARTS / f".x.parquet.{pid}").write_bytes(b"half")
    records.gather_curves(tmp_path)
    left = [path.name for path in (tmp_path / records.PARTS).iterdir()]
    assert left == [f".x.parquet.{alive}"]


def test_a_journal_in_the_directory_is_the_studys_own(tmp_path):
    (tmp_path / "all.journal").write_text("")
    (tmp_path / "all.journal.lock").write_text("")
    claim(tmp_path, f"journal:{tmp_path / 'all.journal'}")
