"""The curves on disk: a trial that was trained again has the rows of its newest training alone."""

import pytest

from jdlopt.study import curves


def rows(trial, steps, value):
    return [
        {"trial": trial, "seed": 0, "fold": -1, "step": step, "epoch": 1.0, "train/loss": value}
        for step in steps
    ]


def test_a_trial_that_was_trained_again_has_its_newest_rows_alone(tmp_path, monkeypatch):
    curves.add(tmp_path, [*rows(0, [1, 2, 3], 0.5), *rows(1, [1], 0.25)])
    curves.gather(tmp_path)
    curves.add(tmp_path, rows(0, [1], 0.625))
    curves.add(tmp_path, rows(0, [1, 2], 0.75))  # stopped earlier this time
    found = curves.gather(tmp_path)
    assert found[["trial", "step", "train/loss"]].values.tolist() == [
        [0, 1, 0.75], [0, 2, 0.75], [1, 1, 0.25],
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == [curves.CURVES]


def flipped(content):
    """The same with a bit of a value changed: the column's bytes lie in the file's first part."""
    at = content.index(b"\x00\x00\x80\x3e")  # 0.25 in float32
    return content[: at + 2] + bytes([content[at + 2] ^ 1]) + content[at + 3 :]


@pytest.mark.parametrize("damage", [lambda _: b"", lambda c: c[: len(c) // 2], flipped])
@pytest.mark.parametrize("gathered", [False, True])
def test_a_damaged_file_is_passed_over_and_told_once(tmp_path, damage, gathered):
    curves.add(tmp_path, rows(0, [1, 2], 0.25))
    if gathered:
        curves.gather(tmp_path)
    [path] = tmp_path.rglob("*.parquet")
    path.write_bytes(damage(path.read_bytes()))
    curves.add(tmp_path, rows(1, [1], 0.5))
    with pytest.warns(curves.CurvesWarning, match="left out"):
        found = curves.gather(tmp_path)
    assert found["trial"].tolist() == [1]
    assert curves.gather(tmp_path)["trial"].tolist() == [1]


def test_folders_with_names_of_any_kind_are_no_columns(tmp_path):
    folder = tmp_path / "trial=7" / "a[*]?#%"
    folder.mkdir(parents=True)
    curves.add(folder, rows(0, [1], 0.5))
    assert curves.gather(folder)["trial"].tolist() == [0]


def test_what_a_killed_process_had_begun_to_write_is_found(tmp_path):
    curves.add(tmp_path, rows(0, [1], 0.5))
    (tmp_path / curves.PARTS / ".x.parquet.12").write_bytes(b"half")
    assert [path.name for path in curves.half_written(tmp_path)] == [".x.parquet.12"]
    assert len(curves.gather(tmp_path)) == 1
