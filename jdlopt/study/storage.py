"""A study in Optuna's own storage: what it is, who works on it, what each trial came to."""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from jdlopt.errors import UserError, WorkdirError

DATABASE = "study.db"
DEFINITION, RECORD, OWNER, OWNERS = "definition", "record", "owner", "owner:"
BEAT_SECONDS = 10.0
"""How often an owner says that it lives."""
SILENT_SECONDS = 90.0
"""After so long without a word, an owner on another machine is taken for dead."""


def quiet() -> None:
    """Keeps Optuna's own messages back: jdlopt tells what a person needs to know."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_storage(url: str | None, workdir: Path) -> Any:
    """Opens Optuna's storage: SQLite in the study's directory, ``journal:FILE``, or a database URL.

    Raises:
      UserError: it can't be opened.
    """
    if url is not None and url.startswith("journal:"):
        from optuna.storages.journal import JournalFileBackend

        backend = JournalFileBackend(url.removeprefix("journal:"))
        return optuna.storages.JournalStorage(backend)
    try:
        if url is not None:
            return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        from sqlalchemy import event

        path = (workdir / DATABASE).absolute()
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}}
        )

        def configure(connection: Any, _: Any) -> None:
            # a commit is one append and outlives the process; the default rewrites and waits
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

        event.listen(storage.engine, "connect", configure)
        storage.engine.dispose()
        return storage
    except Exception as error:  # whatever a database driver raises
        text = " ".join(str(error).split())[:300]
        raise UserError(
            f"--storage: {url or workdir / DATABASE} can't be opened: {type(error).__name__}: "
            f"{text}. Expected a database URL such as postgresql+psycopg://user@host/name, "
            "journal:FILE, or nothing for SQLite in the study's directory."
        ) from error


def close_storage(storage: Any) -> None:
    """Closes the connections to a storage."""
    engine = getattr(storage, "engine", None)
    if engine is not None:
        storage.remove_session()
        engine.dispose()


def process_start(pid: int) -> str:
    """Returns when a process of this machine started, as the kernel counts; '' if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc/self").exists() else "unknown"
    return text.rpartition(")")[2].split()[19]


class Book:
    """One study's rows in the storage, as one owner (a coordinator) reads and writes them.

    Args:
      storage: what `open_storage` returned.
      name: the study's name in it.
      directions: ``maximize`` or ``minimize``, for each objective.
      definition: config, space and options; another one under the same name is refused.
    """

    def __init__(
        self, storage: Any, name: str, directions: Sequence[Any], definition: Mapping[str, Any]
    ):
        self.study = optuna.create_study(
            storage=storage, study_name=name, directions=list(directions), load_if_exists=True
        )
        self.storage, self.id = self.study._storage, self.study._study_id
        text = json.dumps(definition, sort_keys=True)
        there = self.study.user_attrs.get(DEFINITION)
        if there is None:
            self.study.set_user_attr(DEFINITION, text)
        elif there != text:
            raise WorkdirError(_differences(name, json.loads(there), definition))
        self.owner = uuid.uuid4().hex[:12]
        self._beaten = 0.0
        self.slot = sum(self._lives(one) for one in self._owners().values())
        self.beat()

    def _owners(self) -> dict[str, Any]:
        attrs = self.storage.get_study_user_attrs(self.id)
        return {
            key.removeprefix(OWNERS): json.loads(value)
            for key, value in attrs.items()
            if key.startswith(OWNERS)
        }

    def beat(self) -> None:
        """Says that this owner lives, if it was not said a moment ago."""
        now = time.time()
        if now - self._beaten < BEAT_SECONDS:
            return
        self._beaten = now
        pid = os.getpid()
        mark = {"host": platform.node(), "pid": pid, "start": process_start(pid), "beat": now}
        self.storage.set_study_user_attr(self.id, f"{OWNERS}{self.owner}", json.dumps(mark))

    def leave(self) -> None:
        """Says that this owner works no more."""
        mark = {"host": "", "pid": 0, "start": "", "beat": 0.0}
        self.storage.set_study_user_attr(self.id, f"{OWNERS}{self.owner}", json.dumps(mark))

    def _lives(self, mark: Mapping[str, Any]) -> bool:
        if mark["host"] == platform.node():
            return bool(mark["start"]) and process_start(mark["pid"]) == mark["start"]
        return time.time() - mark["beat"] < SILENT_SECONDS

    def alone(self) -> bool:
        """Says whether no other owner works on the study now."""
        return not any(
            self._lives(mark) for owner, mark in self._owners().items() if owner != self.owner
        )

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials, in the order of their numbers."""
        return self.storage.get_all_trials(self.id, deepcopy=False)

    def orphans(self) -> list[FrozenTrial]:
        """Takes over the unfinished trials of owners that are dead; returns them."""
        owners = self._owners()
        lost = [
            trial
            for trial in self.trials()
            if trial.state == TrialState.RUNNING
            and trial.user_attrs.get(OWNER) != self.owner
            and not self._lives(
                owners.get(
                    trial.user_attrs.get(OWNER, ""), {"host": "", "pid": 0, "start": "", "beat": 0}
                )
            )
        ]
        for trial in lost:
            self.storage.set_trial_user_attr(trial._trial_id, OWNER, self.owner)
        if lost and not self.alone():
            time.sleep(
                0.5
            )  # another owner may have taken them at the same moment: the last one has
        kept = {trial._trial_id for trial in lost}
        return [
            trial
            for trial in self.trials()
            if trial._trial_id in kept and trial.user_attrs.get(OWNER) == self.owner
        ]

    def add(self, drawn: FrozenTrial) -> int:
        """Writes a drawn point as a running trial of this owner; returns its number."""
        token = uuid.uuid4().hex
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs={OWNER: self.owner, "token": token},
            system_attrs=drawn.system_attrs,
        )
        trial_id = self.storage.create_new_trial(self.id, template_trial=template)
        return self.storage.get_trial_number_from_id(trial_id)

    def finish(
        self, number: int, record: Mapping[str, Any], values: Sequence[float] | None
    ) -> None:
        """Writes what a trial came to, and only then that it is finished. Twice is once.

        Args:
          number: the trial's.
          record: what study.json says of it.
          values: one an objective; None where it has none.
        """
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.id, number)
        if self.storage.get_trial(trial_id).state.is_finished():
            return
        self.storage.set_trial_user_attr(trial_id, RECORD, dict(record))
        state = {
            "done": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
            "infeasible": TrialState.FAIL,
        }[record["state"]]
        if state == TrialState.COMPLETE and values is None:
            state = TrialState.FAIL
        self.storage.set_trial_state_values(
            trial_id, state, values if state != TrialState.FAIL else None
        )


def _differences(name: str, there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    rows = []
    for key in sorted({*there, *now}):
        if there.get(key) != now.get(key):
            rows.append(f"  {key}: {there.get(key)!r:.120} there, {now.get(key)!r:.120} now")
    shown = "\n".join(rows[:8])
    return (
        f"the study {name!r} is another one:\n{shown}\nChoose another --workdir, or use the same "
        "config, space and options to go on with it."
    )
