"""What a coordinator and its workers say to each other: typed, one JSON object a line.

`encode` and `decode` are the only places where a message becomes text and text a message.
"""

from __future__ import annotations

import functools
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

Config = dict[str, Any]
"""A config as JSON holds it."""
Row = dict[str, Any]
"""A logged line: ``step``, ``epoch`` and metrics by name."""

WRONG_INPUT, DIVERGED, DEFECT = "wrong input", "diverged", "defect"
ENVIRONMENT, NO_MEMORY = "environment", "out of memory"
"""Kinds of failure. ``environment``: a full disk, a file that can't be read, a process that was
killed; it says nothing about what was being trained, and nothing else can be trained either. Where
there was too little memory, something smaller can."""
STARTING = -1
"""The task of a worker that could not start."""
EXECUTION_MODES = ("vmap", "scan", "each")
"""How a population's trials are computed: side by side, in turn in one program, or in turn with a
call for each step."""
RUNNING = "running"
"""The status of a trial that was stopped before its end."""


class MessageError(ValueError):
    """A line is no message."""


# --- requests -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One trial of a population: a seed and, with cross-validation, a fold.

    Attributes:
      number: what results are known by; several seeds and folds may share it.
      seed: as in ``config.seed``.
      fold: which fold, or None.
      params: the floats in which it differs from the population's config, by dotted key.
      start: the file of weights that it starts from, instead of the config's own beginning; all of
        a population have one, or none.
      keep: the file that its best weights are written to, or None.
    """

    number: int
    seed: int
    fold: int | None
    params: dict[str, float]
    start: str | None = None
    keep: str | None = None


@dataclass(frozen=True)
class TrainPopulation:
    """Asks for trials of one structure, trained together.

    Attributes:
      config: what they have in common.
      trials: whom to train.
      folds: all folds that the structure is built for, or None.
      width: how many trials the programs are compiled for.
      directory: where checkpoints of the population go.
      halving: ``asha``, ``median`` or None; ``reduction``: with ``asha``, one in so many goes on.
      history: what earlier trials had reached, by the step of a rung.
      execution_mode: how the trials are computed, or None where it is not known yet.
      calibrate: whether the modes are timed and the fastest is taken.
      at_once: how many trials are trained together at most, where memory is short; None: all.
      task: the number of the task, which the executor gives.
    """

    config: Config
    trials: list[Trial]
    folds: list[int] | None
    width: int
    directory: str
    halving: str | None = None
    reduction: int = 3
    history: dict[int, list[float]] = field(default_factory=dict)
    execution_mode: str | None = None
    calibrate: bool = False
    at_once: int | None = None
    task: int = 0


@dataclass(frozen=True)
class TrainRun:
    """Asks for one config trained by `fit`, in a run's directory."""

    config: Config
    workdir: str
    task: int = 0


@dataclass(frozen=True)
class CheckStudy:
    """Asks whether a study can be: its config, its space and what it measures.

    Attributes:
      config: the base config.
      overrides: texts whose types only the config's schema knows, by dotted key.
      space: rows of `jdlopt.study.space.to_json`.
      traced: the keys of the space that need no program of their own.
      folds: all folds, or None.
      objectives: names; none asks for the config's monitored metric.
      goal: the metric that ends the study, or None.
    """

    config: Config
    overrides: dict[str, str]
    space: list[dict[str, Any]]
    traced: list[str]
    folds: list[int] | None
    objectives: list[str]
    goal: str | None = None
    task: int = 0


@dataclass(frozen=True)
class Stop:
    """Asks for what trains to end at its next evaluation: all tasks up to a number."""

    task: int


# --- answers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """A worker has started, on the machine called ``host``."""

    platform: str
    devices: list[str]
    host: str = ""


@dataclass(frozen=True)
class Progress:
    """A population has come to an evaluation, with so many of its trials still training."""

    task: int
    step: int
    total_steps: int
    active: int


@dataclass(frozen=True)
class TrialResult:
    """How one trial of a population ended.

    Attributes:
      number, seed, fold: as in the request.
      status: ``done``, ``stopped early``, ``pruned``, ``diverged``, or `RUNNING`.
      reason: why, where it did not end well.
      steps: updates made.
      best_step, value: of the best evaluation, in the monitored metric.
      rows: its logged lines.
    """

    number: int
    seed: int
    fold: int | None
    status: str
    reason: str | None
    steps: int
    best_step: int | None
    value: float | None
    rows: list[Row]


@dataclass(frozen=True)
class PopulationTrained:
    """A population's results.

    Attributes:
      task: whose.
      trials: how each ended.
      fingerprint: of the structure.
      total_steps: of a whole training.
      train_seconds, compile_seconds: spent.
      execution_mode: how the trials were computed; None where `fit` trained them one by one.
      chosen: ``given``, ``measured`` or ``default``.
      devices: that shared the trials.
      mode_seconds: of one step of one trial, by the modes that were timed.
      reached: what the trials had reached, by the step of a rung.
      n_params: numbers in the parameters.
      step_seconds: of one update of one trial, evaluations included.
    """

    task: int
    trials: list[TrialResult]
    fingerprint: str
    total_steps: int
    train_seconds: float
    compile_seconds: float
    execution_mode: str | None = None
    chosen: str | None = None
    devices: list[str] = field(default_factory=list)
    mode_seconds: dict[str, float] = field(default_factory=dict)
    reached: dict[int, list[float]] = field(default_factory=dict)
    n_params: int | None = None
    step_seconds: float | None = None


@dataclass(frozen=True)
class RunTrained:
    """A run's ``result.json``."""

    task: int
    record: dict[str, Any]


@dataclass(frozen=True)
class StudyChecked:
    """What a coordinator must know of a study.

    Attributes:
      config: with the overrides read as their keys' types.
      resolved: the config at a point of the space, with all its defaults.
      base: what the base config has at the keys of the space.
      directions: ``maximize`` or ``minimize``, by objective.
      monitor: the metric that the ``value`` of a trial is.
      seed: of the config.
      versions: of the libraries.
      data: what tells the data from others, as `jdlopt.train.data_record.fingerprint` has it.
      notes: what was left out, changed or guessed of them, as `Note.to_dict` has it.
      weights: which ones trials start from, in words; empty where from random ones.
    """

    config: Config
    resolved: Config
    directions: dict[str, str]
    monitor: str
    seed: int
    versions: dict[str, str]
    base: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)
    weights: str = ""
    task: int = 0


@dataclass(frozen=True)
class Failed:
    """A task failed, on the machine called ``host``: ``kind`` is one of the kinds above."""

    task: int
    kind: str
    message: str
    traceback: str | None = None
    host: str = ""


Request = TrainPopulation | TrainRun | CheckStudy | Stop
Answer = Ready | Progress | PopulationTrained | RunTrained | StudyChecked | Failed
REQUESTS = {kind.__name__: kind for kind in typing.get_args(Request)}
ANSWERS = {kind.__name__: kind for kind in typing.get_args(Answer)}


# --- JSON -----------------------------------------------------------------------------------------


def encode(message: Request | Answer) -> str:
    """Returns a message as one line of JSON."""
    return json.dumps({"type": type(message).__name__, **_plain(message)})


def _plain(message: Any) -> dict[str, Any]:
    found = {}
    for one in fields(message):
        value = getattr(message, one.name)
        nested = isinstance(value, list) and value and is_dataclass(value[0])
        found[one.name] = [_plain(item) for item in value] if nested else value
    return found


def decode(line: str, kinds: Mapping[str, type]) -> Any:
    """Reads a line that `encode` has made.

    Args:
      line: one line.
      kinds: the messages that are expected, by name: `REQUESTS` or `ANSWERS`.

    Raises:
      MessageError: it is none of them, or a field is missing, unknown or of another type.

    Example:
      >>> decode(encode(Stop(3)), REQUESTS)
      Stop(task=3)
      >>> decode('{"type": "Stop", "task": "three"}', REQUESTS)
      Traceback (most recent call last):
      jdlopt.executor.messages.MessageError: Stop.task: expected int, found 'three'
    """
    try:
        record = json.loads(line)
    except ValueError as error:
        raise MessageError(f"no JSON: {line[:80]!r}") from error
    name = record.pop("type", None) if isinstance(record, dict) else None
    if not isinstance(name, str) or name not in kinds:
        raise MessageError(f"expected one of {', '.join(kinds)}, found {line[:80]!r}")
    return _read(kinds[name], record, name)


@functools.cache
def _hints(kind: type) -> dict[str, object]:
    return typing.get_type_hints(kind)


def _read(want: Any, value: Any, where: str) -> object:
    """Returns a JSON value as a type: a dataclass, list, dict, optional or plain one."""
    if want is Any:
        return value
    origin, arguments = typing.get_origin(want), typing.get_args(want)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _read(next(one for one in arguments if one is not type(None)), value, where)
    if origin is list and isinstance(value, list):
        return [_read(arguments[0], item, where) for item in value]
    if origin is dict and isinstance(value, dict):
        key, held = arguments
        if key is str and held is Any:
            return value
        return {_key(key, k, where): _read(held, v, f"{where}.{k}") for k, v in value.items()}
    if is_dataclass(want) and isinstance(value, dict):
        return _object(want, value, where)
    if want is float and type(value) in (int, float):
        return float(value)
    if isinstance(want, type) and origin is None and type(value) is want:
        return value
    raise MessageError(f"{where}: expected {getattr(want, '__name__', want)}, found {value!r:.80}")


def _key(want: type, key: str, where: str) -> object:
    try:
        return want(key)  # JSON makes text of whole numbers
    except ValueError as error:
        raise MessageError(f"{where}: expected {want.__name__} keys, found {key!r}") from error


def _object(want: Any, value: Mapping[str, Any], where: str) -> object:
    hints = _hints(want)
    strange = [name for name in value if name not in hints]
    if strange:
        raise MessageError(f"{where}: has no field {strange[0]!r}")
    given = {}
    for one in fields(want):
        if one.name in value:
            given[one.name] = _read(hints[one.name], value[one.name], f"{where}.{one.name}")
        elif one.default is MISSING and one.default_factory is MISSING:
            raise MessageError(f"{where}.{one.name}: is missing")
    return want(**given)
