"""A study's rows in Optuna's storage: owners, their slots, who takes what over, what counts."""

import contextlib
import json

import optuna
import pytest

from jdlopt.errors import UserError
from jdlopt.study import database, storage
from jdlopt.study import space as spaces
from jdlopt.study.storage import StudyStorage

SPACE = spaces.check({"x": spaces.uniform(0, 1), "y": spaces.choice((1,), (1, 2))})


@pytest.fixture(params=["sqlite", "journal"])
def opened(request, tmp_path):
    database.quiet()
    url = f"journal:{tmp_path / 'journal'}" if request.param == "journal" else None
    found = database.open_storage(url, tmp_path)
    yield found
    database.close_storage(found)


def owner(opened, locks=None):
    return StudyStorage(opened, "study", ["maximize"], {"seed": 0}, locks)


def dead(one):
    """Makes an owner look as a killed one does: it said nothing, but its process is gone."""
    marks = one.storage.get_study_user_attrs(one.id)
    mark = {**json.loads(marks[f"owner:{one.owner}"]), "start": "never"}
    one.storage.set_study_user_attr(one.id, f"owner:{one.owner}", json.dumps(mark))


def add(one):
    study = optuna.create_study()
    trial = study.ask()
    spaces.suggest(trial, SPACE)
    return one.add(study.get_trials()[0], generation=0)


DONE = {"state": "done", "values": [0.5]}


def test_living_owners_have_slots_of_their_own_and_the_dead_leave_theirs(opened):
    first, second, third = owner(opened), owner(opened), owner(opened)
    assert [first.slot, second.slot, third.slot] == [0, 1, 2]
    dead(second)
    assert owner(opened).slot == 1
    first.leave()
    assert owner(opened).slot == 0


def test_trials_of_the_dead_are_claimed_once_and_those_of_the_living_never(opened):
    first, second, third = owner(opened), owner(opened), owner(opened)
    numbers = [add(first), add(first), add(first), add(second)]
    first.finish(numbers[0], DONE, [0.5])
    dead(first)
    assert second.claim() == 2
    assert third.claim() == 0
    assert [second.is_mine(trial) for trial in second.trials()] == [False, True, True, True]


def test_released_trials_wait_and_are_claimed_below_a_number(opened):
    first, second = owner(opened), owner(opened)
    for number in (add(first), add(first), add(first)):
        first.release(number)
    assert [trial.state.name for trial in second.trials()] == ["WAITING"] * 3
    assert second.claim(most=2) == 2
    assert [trial.state.name for trial in first.trials()] == ["RUNNING", "RUNNING", "WAITING"]
    assert first.claim() == 1


def test_the_first_record_of_a_trial_counts(opened):
    one = owner(opened)
    number = add(one)
    assert one.finish(number, DONE, [0.5]) == DONE
    assert one.finish(number, {"state": "pruned", "values": None}, None) == DONE
    (trial,) = one.trials()
    assert trial.state.name == "COMPLETE" and trial.values == [0.5]


def test_reserved_trials_get_the_params_that_their_number_says(opened):
    one = owner(opened)
    number = one.reserve(generation=0)
    for _ in range(2):  # a coordinator that goes on writes what is missing
        one.set_params(number, SPACE, {"x": 0.25, "y": (1, 2)})
    assert one.trials()[0].params == {"x": 0.25, "y": "(1, 2)"}


def test_trials_of_other_programs_are_left_alone(opened):
    one = owner(opened)
    one.study.enqueue_trial({"x": 0.5})
    assert one.claim() == 0
    assert not one.is_ours(one.trials()[0])


MARK = {"machine": "x", "pid": 1, "start": "1", "lock": False, "beat": float("nan"), "slot": 3}


@pytest.mark.parametrize("text", ["", "[", "3", "{}", '{"pid": "1"}', json.dumps(MARK)])
def test_an_owner_that_another_hand_wrote_is_gone(opened, text):
    first, second = owner(opened), owner(opened)
    add(first)
    first.storage.set_study_user_attr(first.id, f"owner:{first.owner}", text)
    assert second.alone() and second.claim() == 1


def test_no_file_is_removed_that_the_name_of_an_owner_leads_to(opened, tmp_path):
    locks = tmp_path / "locks"
    (locks / ".owner-").mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("kept")
    first = owner(opened, locks)
    mark = json.dumps({**MARK, "lock": True, "beat": 0.0})
    first.storage.set_study_user_attr(first.id, "owner:/../../victim", mark)
    assert owner(opened, locks).slot == 1 and victim.read_text() == "kept"


@pytest.mark.parametrize(("field", "value"), [("machine", "x"), ("start", "1"), ("pid", 1)])
def test_who_holds_a_lock_lives_whatever_its_process_number_says(opened, tmp_path, field, value):
    first = owner(opened, tmp_path)
    number = add(first)
    key = f"owner:{first.owner}"
    mark = json.loads(first.storage.get_study_user_attrs(first.id)[key])
    first.storage.set_study_user_attr(first.id, key, json.dumps({**mark, field: value}))
    second = owner(opened, tmp_path)
    assert not second.alone() and second.claim() == 0 and second.slot == 1
    first._lock.close()  # as the kernel does where a process ends
    assert second.alone() and second.claim() == 1
    assert second.is_mine(second.trials()[number])
    second.leave()
    assert not list(tmp_path.glob(".owner-*"))


def test_an_owner_in_another_namespace_is_dead_after_a_silence_by_ones_own_clock(
    opened, monkeypatch
):
    first, second = owner(opened), owner(opened)
    where = "another container of the same host"
    here = storage.machine
    monkeypatch.setattr(storage, "machine", lambda: where)
    now = storage.time.monotonic()
    monkeypatch.setattr(storage.time, "monotonic", lambda: now)
    monkeypatch.setattr(storage.time, "time", lambda: 1e12)  # a clock that was set
    assert not second.alone()
    now += storage.SILENT_SECONDS - 1
    assert not second.alone()
    monkeypatch.setattr(storage, "machine", here)
    first.beat()
    monkeypatch.setattr(storage, "machine", lambda: where)
    now += 2
    assert not second.alone()
    now += storage.SILENT_SECONDS + 1
    assert second.alone()


WHOLE = b'{"op_code":0,"a":1}\n'


@pytest.mark.parametrize("cut", [b'{"op_code":4,"x', b"{", b"\0\0"])
@pytest.mark.parametrize("then", [b"", WHOLE])
def test_a_line_that_was_cut_is_left_out_of_a_journal(tmp_path, cut, then):
    path = tmp_path / "journal"
    path.write_bytes(WHOLE + cut + then)
    with pytest.warns(database.JournalWarning, match="left out"):
        database.mend_journal(path)
    assert path.read_bytes() == WHOLE + then


def test_a_journal_that_was_cut_opens_again(tmp_path):
    database.quiet()
    url = f"journal:{tmp_path / 'journal'}"
    with database.opened(url, tmp_path) as found:
        add(owner(found))
    with (tmp_path / "journal").open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    for trials in (1, 2):
        with (
            pytest.warns(database.JournalWarning) if trials == 1 else contextlib.nullcontext(),
            database.opened(url, tmp_path) as found,
        ):
            one = owner(found)
            assert len(one.trials()) == trials
            add(one)


def test_a_journal_with_another_damaged_line_is_refused(tmp_path):
    (tmp_path / "journal").write_bytes(WHOLE + b'{"op_cide":4}}\n' + WHOLE)
    with pytest.raises(UserError, match="is damaged in the line"):
        database.open_storage(f"journal:{tmp_path / 'journal'}", tmp_path)


def test_a_database_that_fails_later_is_told_in_one_message():
    with (
        pytest.raises(UserError, match="goes on from there"),
        database.errors_for_people("postgresql://x"),
    ):
        raise optuna.exceptions.StorageInternalError("gone")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://ann:hush%21@nowhere.invalid/db",
        "mysql://ann:hush!@nowhere.invalid/db",
        "nosuch://ann:hush!@host:notaport/db",
        "postgresql://ann@host/db?password=hush!",
        "://ann:hush!@host",
    ],
)
def test_a_storage_that_can_not_be_opened_is_told_without_its_password(url, tmp_path):
    with pytest.raises(UserError, match="--storage") as told:
        database.open_storage(url, tmp_path)
    assert "hush" not in str(told.value) and "ann" in str(told.value)


@pytest.mark.parametrize(
    "name", ["q?1", "q#1", "a%20b", "{x}", ":memory:", "file:a?b=c", "[*]", "é&;"]
)
def test_a_study_lies_in_its_directory_whatever_the_name(tmp_path, name):
    database.quiet()
    for folder in (tmp_path / name, tmp_path / f"{name}2"):
        folder.mkdir()
        with database.opened(None, folder) as found:
            one = owner(found)
            assert one.trials() == []
            add(one)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert found == sorted([name, f"{name}2", f"{name}/study.db", f"{name}2/study.db"])


def test_what_is_finished_is_on_the_disk_when_that_is_told(tmp_path):
    with database.opened(None, tmp_path) as found, found.engine.connect() as connection:
        settings = [connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous")]  # fmt: skip
    assert settings == ["wal", 2]  # 2: FULL
