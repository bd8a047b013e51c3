"""A study in Optuna's own storage: what it is, who works on it, what each trial came to."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import platform
import random
import re
import time
import uuid
import weakref
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.errors import UserError, WorkdirError, differences
from jdlopt.study import space as spaces

DEFINITION, RECORD, OWNER, OWNERS = "definition", "record", "owner", "owner:"
NAME = re.compile(f"{OWNERS}[0-9a-f]{{12}}")
LOCKS = ".owner-"
"""How the files begin that owners lock."""
GENERATION, SUM = "generation", "crc32"
CHANGED = (
    "Something else has written there; put back a copy of the storage, or choose another --workdir."
)
GONE = {"machine": "", "pid": 0, "start": "", "lock": False, "beat": 0.0, "slot": None}
"""The mark of an owner that works no more."""
STATE_OF = {
    "done": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "infeasible": TrialState.FAIL,
}
"""What Optuna calls the states of trials that have ended."""
BEAT_SECONDS = 10.0
"""How often an owner says that it lives."""
SILENT_SECONDS = 90.0
"""After so long without a word, an owner whose process can't be asked for is taken for dead."""


def machine() -> str:
    """Returns what tells where process numbers mean the same: this boot, this PID namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def process_start(pid: int) -> str:
    """Returns when a process of this machine started, as the kernel counts; '' if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc/self").exists() else "unknown"
    return text.rpartition(")")[2].split()[19]


class StudyStorage:
    """One study's rows in the storage, as one owner (a coordinator) reads and writes them.

    Args:
      storage: what `open_storage` returned.
      name: the study's name in it.
      directions: ``maximize`` or ``minimize``, for each objective.
      definition: config, space and options; another one under the same name is refused.
      locks: a folder that all owners see, see `lock_folder`; what is locked there lives.
    """

    def __init__(
        self,
        storage: Any,
        name: str,
        directions: Sequence[Any],
        definition: Mapping[str, Any],
        locks: Path | None = None,
    ):
        with _as_optuna_writes():
            self.study = optuna.create_study(
                storage=storage, study_name=name, directions=list(directions), load_if_exists=True
            )
            self.storage, self.id = self.study._storage, self.study._study_id
            text = json.dumps(definition, sort_keys=True)
            there = self.study.user_attrs.get(DEFINITION)
            if there is None:
                self.study.set_user_attr(DEFINITION, text)
            elif there != text:
                raise WorkdirError(_another(name, json.loads(there), json.loads(text)))
            ways = [one.name.lower() for one in self.storage.get_study_directions(self.id)]
            # of two trials of one number, what Optuna keeps of a storage has the last
            numbers = sorted(one.number for one in storage.get_all_trials(self.id, deepcopy=False))
        if ways != list(directions):
            raise WorkdirError(
                f"the study {name!r}: the storage says to {', '.join(ways)} its objectives, its "
                f"definition to {', '.join(directions)} them. {CHANGED}"
            )
        if numbers != list(range(len(numbers))):
            raise WorkdirError(
                f"the study {name!r} does not have its {len(numbers)} trials numbered from 0 to "
                f"{len(numbers) - 1} in the storage, each once. {CHANGED}"
            )
        self.owner = uuid.uuid4().hex[:12]
        self._beaten, self.slot = -math.inf, 0
        self._locks, self._heard = locks, dict[str, tuple[float, float]]()
        self._lock = self._hold()
        self._take_slot()

    def _take_slot(self) -> None:
        """Takes a number that no living owner has: owners with unlike numbers draw unlike points.

        It is written first and looked at then: of two that take the same, one at least sees it.
        """
        self.slot = min(set(range(10**3)) - self._slots())
        while True:
            self.beat(anew=True)
            taken = self._slots()
            if self.slot not in taken:
                return
            time.sleep(random.uniform(0.01, 0.1))
            self.slot = random.choice(sorted(set(range(len(taken) + 8)) - taken))

    def _slots(self) -> set[int]:
        marks = [one for one in self._owners().items() if one[0] != self.owner]
        return {mark["slot"] for owner, mark in marks if self._lives(owner, mark)}

    def _owners(self) -> dict[str, Any]:
        with _as_optuna_writes():
            attrs = self.storage.get_study_user_attrs(self.id)
        return {
            key.removeprefix(OWNERS): _mark(value)
            for key, value in attrs.items()
            if NAME.fullmatch(key)  # it becomes the name of a file
        }

    def beat(self, anew: bool = False) -> None:
        """Says that this owner lives, if it was not said a moment ago."""
        now = time.monotonic()  # a clock that is set makes nobody silent
        if now - self._beaten < BEAT_SECONDS and not anew:
            return
        self._beaten = now
        pid = os.getpid()
        mark = {
            "machine": machine(), "pid": pid, "start": process_start(pid), "beat": now,
            "lock": self._lock is not None, "slot": self.slot,
        }  # fmt: skip
        self.storage.set_study_user_attr(self.id, f"{OWNERS}{self.owner}", json.dumps(mark))

    def leave(self) -> None:
        """Says that this owner works no more."""
        self.storage.set_study_user_attr(self.id, f"{OWNERS}{self.owner}", json.dumps(GONE))
        if self._lock is not None and self._locks is not None:
            self._lock.close()
            self._lock = None
            (self._locks / f"{LOCKS}{self.owner}").unlink(missing_ok=True)

    def _hold(self) -> IO[bytes] | None:
        """Locks a file of this owner's own, which the kernel unlocks however the process ends."""
        if self._locks is None:
            return None
        try:
            file = writing.lock_file(self._locks / f"{LOCKS}{self.owner}")
        except OSError:
            return None
        weakref.finalize(self, file.close)  # an owner that nobody has any more works no more
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # a file system without locks
            file.close()
            return None
        return file

    def _lives(self, owner: str, mark: Mapping[str, Any]) -> bool:
        """Says whether an owner works: by its lock, else by its process, else by its beats.

        A process number says nothing in another PID namespace, whatever the host is called; and
        the beats are compared with this process's own clock, not with that of another machine.
        """
        if not mark["start"]:
            return False
        if mark["lock"] and self._locks is not None:
            path = self._locks / f"{LOCKS}{owner}"
            try:
                number = os.open(path, os.O_RDONLY | writing.NO_LINK | writing.NO_WAIT)
                with os.fdopen(number, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink(missing_ok=True)
                return False
            except BlockingIOError:
                return True
            except FileNotFoundError:
                return False
            except OSError:
                pass  # no locks here, though there were where it began
        if mark["machine"] == machine():
            return process_start(mark["pid"]) == mark["start"]
        now = time.monotonic()
        beat, heard = self._heard.get(owner, (None, now))
        if beat != mark["beat"]:
            heard = now
        self._heard[owner] = mark["beat"], heard
        return now - heard < SILENT_SECONDS

    def alone(self) -> bool:
        """Says whether no other owner works on the study now."""
        return not any(
            self._lives(owner, mark)
            for owner, mark in self._owners().items()
            if owner != self.owner
        )

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials, in the order of their numbers."""
        with _as_optuna_writes():
            return self.storage.get_all_trials(self.id, deepcopy=False)

    def is_ours(self, trial: FrozenTrial) -> bool:
        """Says whether some coordinator drew a trial; other programs may add some to a study."""
        return OWNER in trial.user_attrs

    def is_mine(self, trial: FrozenTrial) -> bool:
        """Says whether this owner is to finish a trial, or has."""
        return trial.user_attrs.get(OWNER) == self.owner and trial.state != TrialState.WAITING

    def claim(self, most: int | None = None, without: Container[int] = ()) -> int:
        """Takes over the trials that wait, and those of dead owners; returns how many.

        Args:
          most: trials from this number on are left alone.
          without: those that wait and are left alone, too.
        """
        owners, taken = self._owners(), 0
        for trial in self.trials():
            if trial.state.is_finished() or not self.is_ours(trial):
                continue
            if most is not None and trial.number >= most:
                continue
            if trial.state == TrialState.WAITING and trial.number in without:
                continue
            try:
                taken += self._claim(trial, owners)
            except optuna.exceptions.UpdateFinishedTrialError:
                continue  # another was faster
        return taken

    def _claim(self, trial: FrozenTrial, owners: Mapping[str, Any]) -> bool:
        storage, trial_id = self.storage, trial._trial_id
        if trial.state == TrialState.RUNNING:
            owner = str(trial.user_attrs[OWNER])
            if owner == self.owner or self._lives(owner, owners.get(owner, GONE)):
                return False
            now = storage.get_trial(trial_id)
            if now.state == TrialState.RUNNING and now.user_attrs[OWNER] == owner:
                storage.set_trial_state_values(trial_id, TrialState.WAITING)
        # whoever reads between these lines shall find an owner that lives; one alone gets it
        storage.set_trial_user_attr(trial_id, OWNER, self.owner)
        if not storage.set_trial_state_values(trial_id, TrialState.RUNNING):
            return False
        storage.set_trial_user_attr(trial_id, OWNER, self.owner)
        return True

    def add(self, drawn: FrozenTrial, generation: int) -> int:
        """Writes a drawn point as a running trial of this owner; returns its number."""
        return self._create(
            generation,
            params=drawn.params,
            distributions=drawn.distributions,
            system_attrs=drawn.system_attrs,
        )

    def reserve(self, generation: int) -> int:
        """Writes a running trial whose params its number will say; returns the number."""
        return self._create(generation)

    def _create(self, generation: int, **known: Any) -> int:
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            user_attrs={OWNER: self.owner, GENERATION: generation},
            **known,
        )
        trial_id = self.storage.create_new_trial(self.id, template_trial=template)
        return self.storage.get_trial_number_from_id(trial_id)

    def set_params(self, number: int, space: spaces.Space, params: Mapping[str, Any]) -> None:
        """Writes a reserved trial's params, those that are not there yet."""
        trial_id = self._id(number)
        there = self.storage.get_trial(trial_id).params
        for key, value in params.items():
            if key not in there:
                given = spaces.optuna_distribution(space[key])
                held = given.to_internal_repr(spaces.label(value))
                self.storage.set_trial_param(trial_id, key, held, given)

    def release(self, number: int) -> None:
        """Gives a trial back that was not trained: it waits for whoever goes on."""
        self.storage.set_trial_state_values(self._id(number), TrialState.WAITING)

    def _id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.id, number)

    def finish(
        self, number: int, record: Mapping[str, Any], values: Sequence[float] | None
    ) -> dict[str, object]:
        """Writes what a trial came to, and only then that it is finished. Twice is once.

        Args:
          number: the trial's.
          record: what study.json says of it.
          values: one an objective; None where it has none.

        Returns:
          The record that counts: the first one.
        """
        trial_id = self._id(number)
        state = STATE_OF[record["state"]]
        held = {**record, SUM: checksum(self.storage.get_trial(trial_id).params, record)}
        try:
            self.storage.set_trial_user_attr(trial_id, RECORD, held)
            self.storage.set_trial_state_values(
                trial_id, state, values if state != TrialState.FAIL else None
            )
        except optuna.exceptions.UpdateFinishedTrialError:
            first = self.storage.get_trial(trial_id).user_attrs.get(RECORD) or record
            return unsigned(first)
        return dict(record)


def unsigned(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trial's record as it was before its sum was put into it."""
    return {name: value for name, value in record.items() if name != SUM}


def checksum(params: Mapping[str, object], record: Mapping[str, object]) -> int:
    """Returns a sum over what a trial is and what it came to: a bit that flips must be seen."""
    named = {str(name): value for name, value in params.items()}
    return zlib.crc32(json.dumps([named, unsigned(record)], sort_keys=True).encode())


@contextlib.contextmanager
def _as_optuna_writes() -> Iterator[None]:
    """Makes what Optuna can't read in its own storage an error for people.

    Raises:
      WorkdirError: another hand has changed it.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (UserError, SQLAlchemyError, optuna.exceptions.StorageInternalError):
        raise  # another's, or the database's
    except Exception as error:  # it looks into what it reads without checking
        text = " ".join(str(error).split())[:200]
        raise WorkdirError(
            f"the study's storage holds what Optuna can't read: {type(error).__name__}: {text}. "
            f"{CHANGED}"
        ) from error


def _mark(text: object) -> dict[str, Any]:
    """Returns what an owner said of itself; what is no such mark is that of one that is gone."""
    try:
        mark = json.loads(str(text))
    except ValueError:
        return GONE
    if not isinstance(mark, dict):
        return GONE
    kinds = {"machine": str, "pid": int, "start": str, "lock": bool, "beat": float, "slot": int}
    known = all(isinstance(mark.get(key), kind) for key, kind in kinds.items())
    return mark if known and math.isfinite(mark["beat"]) else GONE


def _another(name: str, there: Mapping[str, object], now: Mapping[str, object]) -> str:
    changed = differences(_flat(there), _flat(now))
    return (
        f"the study {name!r} is another one:\n{changed}\nChoose another --workdir (or, in a shared "
        "--storage, another --study), or use the same config, space and options to go on with it."
    )


def _flat(definition: Mapping[str, Any]) -> dict[str, Any]:
    space = {row["key"]: {**row, "key": None} for row in definition["space"]}
    return configs.flat({**definition, "space": space})
