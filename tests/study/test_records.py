"""What is in a study's directory, and whose it is."""

import json

import pytest

from jdlopt.errors import WorkdirError
from jdlopt.study.setup import check_whole, claim


def test_a_journal_in_the_directory_is_the_studys_own(tmp_path):
    (tmp_path / "all.journal").write_text("")
    (tmp_path / "all.journal.lock").write_text("")
    claim(tmp_path, f"journal:{tmp_path / 'all.journal'}")


def told(folder, trials):
    (folder / "study.json").write_text(json.dumps({"trials": trials}))


DONE = [{"number": number, "state": "done"} for number in range(3)]


@pytest.mark.parametrize("content", [None, b""])
def test_a_study_whose_database_is_lost_is_no_new_one(tmp_path, content):
    told(tmp_path, DONE)
    if content is not None:
        (tmp_path / "study.db").write_bytes(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(WorkdirError, match=r"3 finished trials, 3 of which .*move study\.json"):
        claim(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_storage_must_have_what_the_study_tells_of(tmp_path):
    check_whole(tmp_path, set())
    told(tmp_path, [*DONE, {"number": 3, "state": "running"}])
    check_whole(tmp_path, {0, 1, 2, 3, 4})
    with pytest.raises(WorkdirError, match=r"1 of which .*\(trial 1 is the first"):
        check_whole(tmp_path, {0, 2})
    (tmp_path / "study.json").write_text("[")
    check_whole(tmp_path, {0})
    with pytest.raises(WorkdirError, match="is damaged"):
        check_whole(tmp_path, set())
