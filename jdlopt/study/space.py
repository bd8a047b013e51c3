"""What may be searched: a distribution for each config key, with roles and conditions.

A config file's ``get_space()`` returns a dict from dotted keys to distributions:

    from jdlopt.study.space import choice, int, log_uniform, uniform

    def get_space():
        return {
            "optim.learning_rate": log_uniform(1e-4, 1e-1, role="nuisance"),
            "optim.name": choice("adamw", "sgd", role="scientific"),
            "optim.momentum": uniform(0.0, 0.99, when={"optim.name": "sgd"}),
            "model.dropout_rate": uniform(0.0, 0.5),
        }
"""

from __future__ import annotations

import builtins
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt.config import Value
from jdlopt.errors import ConfigError, listing, nearest

ROLES = ("scientific", "nuisance")
KINDS = ("uniform", "log_uniform", "int", "choice")
GRID_POINTS = 5
"""Values that a grid takes of a continuous key."""


@dataclass(frozen=True)
class Distribution:
    """The values that one config key may take in a study.

    Attributes:
      kind: ``uniform``, ``log_uniform``, ``int`` or ``choice``.
      low, high: the bounds, both included, unless a choice.
      log: whether an ``int`` is drawn evenly on a log scale.
      step: the distance between the values of an ``int``.
      choices: the values of a ``choice``.
      role: ``scientific`` (its effect is the question), ``nuisance`` (tuned away so that the
        comparison is fair), or None. After the deep-learning tuning playbook.
      when: other keys and the values that they must have for this key to exist.
    """

    kind: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: builtins.int = 1
    choices: tuple[Value, ...] = ()
    role: str | None = None
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def grid(self) -> tuple[Value, ...]:
        """The values that a grid search takes: all, or `GRID_POINTS` of a continuous range."""
        if self.kind == "choice":
            return self.choices
        assert self.low is not None and self.high is not None
        if self.kind == "int":
            low, high = builtins.int(self.low), builtins.int(self.high)
            return tuple(range(low, high + 1, self.step))
        place = math.log if self.kind == "log_uniform" else float
        back = math.exp if self.kind == "log_uniform" else float
        first, last = place(self.low), place(self.high)
        inner = [
            back(first + (last - first) * index / (GRID_POINTS - 1))
            for index in range(1, GRID_POINTS - 1)
        ]
        return (self.low, *inner, self.high)


Space = dict[str, Distribution]


def _distribution(
    kind: str, role: str | None, when: Mapping[str, object] | None, **values: Any
) -> Distribution:
    if role is not None and role not in ROLES:
        raise ConfigError(
            f"space: role {role!r} is unknown.{nearest(str(role), ROLES)} Known: {listing(ROLES)}."
        )
    conditions = tuple(
        (key, tuple(value) if isinstance(value, tuple | list | set) else (value,))
        for key, value in (when or {}).items()
    )
    return Distribution(kind, role=role, when=conditions, **values)


def _bounds(kind: str, low: float, high: float) -> tuple[float, float]:
    """Returns bounds as Python's numbers, checked."""
    low, high = configs.tuples(low), configs.tuples(high)
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, builtins.int | float):
            raise ConfigError(f"space: {kind}: {name} must be a number, found {value!r}.")
        if not math.isfinite(value):
            raise ConfigError(f"space: {kind}: {name} must be finite, found {value!r}.")
    if not low < high:
        raise ConfigError(f"space: {kind}({low}, {high}): low must be below high.")
    return low, high


def uniform(
    low: float, high: float, *, role: str | None = None, when: Mapping[str, object] | None = None
) -> Distribution:
    """A float drawn evenly from ``[low, high]``."""
    low, high = _bounds("uniform", low, high)
    return _distribution("uniform", role, when, low=float(low), high=float(high))


def log_uniform(
    low: float, high: float, *, role: str | None = None, when: Mapping[str, object] | None = None
) -> Distribution:
    """A float whose logarithm is drawn evenly; for what matters by its order of magnitude."""
    low, high = _bounds("log_uniform", low, high)
    if low <= 0:
        raise ConfigError(f"space: log_uniform({low}, {high}): low must be greater than 0.")
    return _distribution("log_uniform", role, when, low=float(low), high=float(high))


def integer(
    low: builtins.int,
    high: builtins.int,
    *,
    log: bool = False,
    step: builtins.int = 1,
    role: str | None = None,
    when: Mapping[str, object] | None = None,
) -> Distribution:
    """A whole number from ``low`` to ``high``, both included; also called ``int``."""
    low, high = _bounds("int", low, high)  # type: ignore[assignment]
    step = configs.tuples(step)
    if not (isinstance(low, builtins.int) and isinstance(high, builtins.int)):
        raise ConfigError(f"space: int({low}, {high}): the bounds must be whole numbers.")
    if not isinstance(step, builtins.int) or step < 1 or (log and step != 1):
        raise ConfigError(f"space: int: step must be at least 1, and 1 with log; found {step!r}.")
    if log and low < 1:
        raise ConfigError(f"space: int({low}, {high}, log=True): low must be at least 1.")
    return _distribution("int", role, when, low=low, high=high, log=log, step=step)


int = integer


def choice(
    *values: Value, role: str | None = None, when: Mapping[str, object] | None = None
) -> Distribution:
    """One of the values: numbers, names, bools, None or tuples of them."""
    found = tuple(configs.tuples(value) for value in values)
    if len(found) < 2:
        raise ConfigError(f"space: choice: needs at least 2 values, found {listing(found)}.")
    if len({label(value) for value in found}) < len(found):
        raise ConfigError(f"space: choice: a value is given twice in {listing(found)}.")
    return _distribution("choice", role, when, choices=found)


def label(value: Value) -> Any:
    """Returns a choice as Optuna's storage can hold it: a tuple becomes its text."""
    return repr(value) if isinstance(value, tuple) else value


def value_of(one: Distribution, held: Value) -> Value:
    """Returns the value that Optuna's storage holds as ``held``: the inverse of `label`.

    Raises:
      KeyError: it stands for none of the choices.

    Example:
      >>> value_of(choice((8,), (8, 8)), "(8, 8)")
      (8, 8)
    """
    return {label(value): value for value in one.choices}[held] if one.kind == "choice" else held


def holds(one: Distribution, held: object) -> bool:
    """Says whether a distribution may have drawn what a storage holds.

    Example:
      >>> holds(choice("relu", (8, 8)), "(8, 8)"), holds(uniform(0, 1), 2.0)
      (True, False)
      >>> holds(integer(1, 9), 2), holds(integer(1, 9), 2.5), holds(integer(1, 9, step=2), 2)
      (True, False, False)
    """
    if one.kind == "choice":
        return any(type(held) is type(label(v)) and held == label(v) for v in one.choices)
    if isinstance(held, bool) or not isinstance(held, builtins.int | float):
        return False
    assert one.low is not None and one.high is not None
    fits = one.kind != "int" or (type(held) is builtins.int and (held - one.low) % one.step == 0)
    return fits and one.low <= held <= one.high


def words(value: object) -> str:
    """Returns a choice as its reader would write it.

    Example:
      >>> words([64, 64]), words("adamw"), words(None)
      ('64, 64', 'adamw', 'None')
    """
    if isinstance(value, list | tuple):
        return ", ".join(words(one) for one in value) or "none"
    return str(value)


# --- reading and checking -------------------------------------------------------------------------


def load(file: str | Path) -> Space:
    """Returns the space of a Python file's ``get_space()``, or of a JSON file.

    Raises:
      ConfigError: no such file, it has no ``get_space``, or what it returns is no space.
    """
    path = Path(configs.split_argument(str(file))[0])
    if not path.is_file():
        raise ConfigError(f"--space: there is no file '{path}'.")
    if path.suffix == ".json":
        try:
            found = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: is not a JSON space: {error}") from error
        return from_json(found)
    try:
        module = configs.execute(path, "space")
        found = module.get_space() if module and hasattr(module, "get_space") else None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:  # the user's own code
        raise ConfigError(configs.explained(error, path)) from error
    if module is None:
        raise ConfigError(f"--space: '{path}' is neither a Python file (.py) nor JSON (.json).")
    if found is None:
        raise ConfigError(
            f"{path}: has no function get_space(), so nothing says what may be searched. Add one "
            "that returns {key: distribution}, or name another file with --space."
        )
    return check(found, str(path))


def check(found: object, where: str = "space") -> Space:
    """Returns a space in an order in which every key follows those that its condition names.

    Raises:
      ConfigError: it is empty, or holds what is no distribution, or its conditions can't hold.
    """
    if not isinstance(found, Mapping) or not found:
        raise ConfigError(f"{where}: expected {{key: distribution}}, found {found!r:.60}.")
    problems: list[str] = []
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Distribution):
            problems.append(
                f"{key}: expected one of {', '.join(KINDS)} of jdlopt.study.space, found {value!r}."
            )
            continue
        for parent, values in value.when:
            if parent not in found:
                known = [other for other in found if other != key]
                problems.append(
                    f"{key}: exists only for some {parent}, which is not searched."
                    f"{nearest(parent, known)}"
                )
            elif isinstance(found[parent], Distribution) and found[parent].kind == "choice":
                never = [one for one in values if one not in found[parent].choices]
                problems += [
                    f"{key}: exists only if {parent} is {one!r}, which is none of "
                    f"{listing(found[parent].choices)}."
                    for one in never
                ]
    configs.raise_problems(problems, where)
    ordered: Space = {}
    waiting = dict(found)
    while waiting:
        ready = [k for k, v in waiting.items() if all(parent in ordered for parent, _ in v.when)]
        if not ready:
            raise ConfigError(f"{where}: the conditions of {listing(waiting)} go in a circle.")
        for key in ready:
            ordered[key] = waiting.pop(key)
    return ordered


def active(distribution: Distribution, params: Mapping[str, Value]) -> bool:
    """Says whether a key exists, given the values of the keys before it."""
    return all(key in params and params[key] in values for key, values in distribution.when)


def probes(space: Space) -> Iterator[dict[str, Value]]:
    """Yields points that together hold every key at its bounds, and every choice once.

    What is wrong with a space shows on these, before anything is trained.
    """
    for key in space:
        for value in _ends(space[key]):
            params: dict[str, Value] = {}
            fixed = {key: value, **_needed(space, key)}
            for name, distribution in space.items():
                if active(distribution, params):
                    params[name] = fixed.get(name, _ends(distribution)[0])
            if key in params:
                yield params


def _ends(distribution: Distribution) -> Sequence[Value]:
    grid = distribution.grid()
    return grid if distribution.kind == "choice" else (grid[0], grid[-1])


def _needed(space: Space, key: str) -> dict[str, Value]:
    needed: dict[str, Value] = {}
    for parent, values in space[key].when:
        needed = {**_needed(space, parent), **needed, parent: values[0]}
    return needed


def optuna_distribution(one: Distribution) -> Any:
    """Returns what Optuna holds of a distribution, as `suggest` has it make one."""
    from optuna import distributions

    if one.kind == "choice":
        return distributions.CategoricalDistribution([label(value) for value in one.choices])
    assert one.low is not None and one.high is not None
    if one.kind == "int":
        low, high = builtins.int(one.low), builtins.int(one.high)
        return distributions.IntDistribution(low, high - (high - low) % one.step, one.log, one.step)
    return distributions.FloatDistribution(one.low, one.high, one.kind == "log_uniform")


def suggest(trial: Any, space: Space) -> dict[str, Value]:
    """Draws a point from an Optuna trial; keys whose conditions don't hold are left out."""
    params: dict[str, Value] = {}
    for key, one in space.items():
        if not active(one, params):
            continue
        if one.kind == "choice":
            held = trial.suggest_categorical(key, [label(value) for value in one.choices])
            params[key] = value_of(one, held)
        elif one.kind == "int":
            params[key] = trial.suggest_int(key, one.low, one.high, step=one.step, log=one.log)
        else:
            assert one.low is not None and one.high is not None
            log = one.kind == "log_uniform"
            params[key] = trial.suggest_float(key, one.low, one.high, log=log)
    return params


def points(space: Space) -> Iterator[dict[str, Value]]:
    """Yields every distinct point of the grid, keys whose conditions don't hold left out.

    Example:
      >>> list(points({"a": choice(1, 2), "b": choice(3, 4, when={"a": 2})}))
      [{'a': 1}, {'a': 2, 'b': 3}, {'a': 2, 'b': 4}]
    """

    def grow(keys: Sequence[str], params: dict[str, Value]) -> Iterator[dict[str, Value]]:
        if not keys:
            yield params
            return
        key, *rest = keys
        if not active(space[key], params):
            yield from grow(rest, params)
            return
        for value in space[key].grid():
            yield from grow(rest, {**params, key: value})

    yield from grow(list(space), {})


# --- JSON -----------------------------------------------------------------------------------------


def to_json(space: Space) -> list[dict[str, Any]]:
    """Returns a space as JSON can hold it; `from_json` reads it back."""
    rows = []
    for key, one in space.items():
        row: dict[str, Any] = {"key": key, "kind": one.kind, "role": one.role}
        if one.kind == "choice":
            row["choices"] = list(one.choices)
        else:
            row |= {"low": one.low, "high": one.high, "log": one.log or one.kind == "log_uniform"}
        if one.kind == "int":
            row["step"] = one.step
        conditions = [{"key": parent, "values": list(values)} for parent, values in one.when]
        row["condition"] = conditions[0] if conditions else None
        row["conditions"] = conditions
        rows.append(row)
    return rows


def from_json(rows: Any) -> Space:
    """Returns the space that `to_json` was given.

    Raises:
      ConfigError: it is none.

    Example:
      >>> space = {"optim.learning_rate": log_uniform(1e-4, 1e-1, role="nuisance")}
      >>> from_json(to_json(space)) == space
      True
    """
    found: dict[str, Distribution] = {}
    try:
        for row in rows:
            when = {
                one["key"]: tuple(as_choice(value) for value in one["values"])
                for one in row.get("conditions") or []
            }
            found[row["key"]] = replace(from_row(row), when=tuple(when.items()))
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"space: is not as jdlopt writes it: {error!r}.") from error
    return check(found)


def from_row(row: Mapping[str, Any]) -> Distribution:
    """Returns the distribution of one row of `to_json`, without its conditions.

    Raises:
      ConfigError: it is none.
    """
    role, kind = row.get("role"), row["kind"]
    if kind == "choice":
        return choice(*map(as_choice, row["choices"]), role=role)
    if kind == "int":
        log, step = bool(row.get("log")), row.get("step", 1)
        return integer(row["low"], row["high"], log=log, step=step, role=role)
    if kind not in KINDS:
        raise ConfigError(f"space: kind {kind!r} is unknown. Known: {listing(KINDS)}.")
    return (uniform if kind == "uniform" else log_uniform)(row["low"], row["high"], role=role)


def as_choice(value: Any) -> Value:
    """Returns a choice as it was before JSON made lists of its tuples."""
    return tuple(as_choice(item) for item in value) if isinstance(value, list) else value
