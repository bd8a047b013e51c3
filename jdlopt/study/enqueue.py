"""Points that a study trains first: the base config's own, and those that a person asks for."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt.config import Value
from jdlopt.errors import UserError, listing, nearest
from jdlopt.study import space as spaces
from jdlopt.study.space import Distribution, Space

BASE, ENQUEUED, SAMPLER = "base", "enqueued", "sampler"
"""Where a trial's point comes from."""


@dataclass(frozen=True)
class Planned:
    """A point that is trained before the sampler draws its own.

    Attributes:
      origin: `BASE` or `ENQUEUED`.
      values: of the keys that it names; the sampler draws the others.
      outside: of the base config, by key, the values that are not in the space.
    """

    origin: str
    values: dict[str, Value]
    outside: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tells it from other points: 12 hex digits of its values."""
        text = json.dumps(self.values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, object]:
        """Returns JSON-able values."""
        return {"origin": self.origin, "values": self.values, "outside": self.outside}

    @staticmethod
    def from_dict(record: Any, space: Space) -> Planned:
        """Returns the point that `to_dict` was called on.

        Raises:
          KeyError, TypeError, ValueError: it is none of this space.
        """
        values = {str(key): fitting(space[key], v) for key, v in record["values"].items()}
        if record["origin"] not in (BASE, ENQUEUED):
            raise ValueError(record["origin"])
        return Planned(record["origin"], values, dict(record["outside"]))


# --- reading --------------------------------------------------------------------------------------


def read_points(text: str) -> tuple[dict[str, object], ...]:
    """Reads points as a flag names them: ``KEY=VALUE,KEY=VALUE``, or a JSON file of one or several.

    Raises:
      UserError: it is neither.

    Example:
      >>> read_points("optim.learning_rate=0.01,model.features=8,8")[0]["model.features"].text
      '8,8'
    """
    if text.strip().endswith(".json"):
        return _of_file(Path(text.strip()))
    point: dict[str, object] = {}
    for part in re.split(r",(?=\s*[A-Za-z_][\w.]*\s*=)", text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UserError(
                f"--enqueue: {text!r} can't be read; write it as "
                "--enqueue='optim.learning_rate=0.01,model.dropout_rate=0.1', or name a JSON file."
            )
        if key.strip() in point:
            raise UserError(f"--enqueue: {text!r} has {key.strip()} twice.")
        point[key.strip()] = configs.Override(value.strip())
    return (point,)


def _of_file(path: Path) -> tuple[dict[str, object], ...]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"--enqueue: {path} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"--enqueue: {path} is not JSON: {error}.") from error
    some = found if isinstance(found, list) else [found]
    if not some or not all(isinstance(one, dict) for one in some):
        raise UserError(
            f"--enqueue: {path} holds no points: expected a list of objects such as "
            '{"optim.learning_rate": 0.01}.'
        )
    return tuple(configs.flat(one) for one in some)


def checked(space: Space, asked: Sequence[Mapping[str, object]]) -> list[Planned]:
    """Returns the points that are asked for, each once, as values of the space.

    Raises:
      UserError: a key is unknown, a value is not in the space, or a key has no place beside the
        others; all of it in one message.
    """
    problems: list[str] = []
    found: dict[str, Planned] = {}
    for place, point in enumerate(asked, 1):
        where = "--enqueue: " if len(asked) == 1 else f"--enqueue, point {place}: "
        if not isinstance(point, Mapping) or not point:
            problems.append(f"{where}names no key; the space has {listing(space)}.")
            continue
        values: dict[str, Value] = {}
        for key, given in point.items():
            if key not in space:
                problems.append(
                    f"{where}{key} is not searched.{nearest(key, space)} The space has "
                    f"{listing(space)}."
                )
                continue
            try:
                values[key] = fitting(space[key], given)
            except ValueError as error:
                problems.append(f"{where}{key}: {error}")
        if values.keys() == point.keys():
            problems += [f"{where}{text}" for text in _misplaced(space, values)]
            one = Planned(ENQUEUED, values)
            found.setdefault(one.name, one)
    if problems:
        raise UserError("\n".join(problems))
    return list(found.values())


def _misplaced(space: Space, values: Mapping[str, Value]) -> list[str]:
    """What is wrong with the keys of a point that exist under a condition."""
    problems = []
    for key in values:
        for parent, wanted in space[key].when:
            only = f"{key} exists only if {parent} is {' or '.join(map(repr, wanted))}"
            if parent not in values:
                problems.append(f"{only}: name that as well.")
            elif values[parent] not in wanted:
                problems.append(f"{only}, and it is {values[parent]!r} here.")
    return problems


def fitting(one: Distribution, given: object) -> Value:
    """Returns the value of a distribution that is meant by what a person gives for it.

    Args:
      one: the distribution.
      given: a value, or text of a command line as an `Override`.

    Raises:
      ValueError: it has no such value; the words say which it has.

    Example:
      >>> fitting(spaces.choice("relu", (8, 8)), [8, 8]), fitting(spaces.uniform(0, 1), 1)
      ((8, 8), 1.0)
    """
    text = given.text if isinstance(given, configs.Override) else None
    value = given if text is None else _literal(text)
    if one.kind == "choice":
        same = [v for v in one.choices if _equal(v, value)]
        same += [v for v in one.choices if text is not None and text in (str(v), spaces.words(v))]
        if not same:
            shown = text if text is not None else value
            raise ValueError(
                f"{shown!r} is none of {listing(map(repr, one.choices))}."
                f"{nearest(shown, one.choices)}"
            )
        return same[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, found {text if text is not None else value!r}.")
    assert one.low is not None and one.high is not None
    if not one.low <= value <= one.high:
        raise ValueError(f"{value!r} lies outside [{one.low:g}, {one.high:g}].")
    if one.kind != "int":
        return float(value)
    if value != int(value) or (int(value) - int(one.low)) % one.step:
        steps = f"from {one.low:g} in steps of {one.step}" if one.step > 1 else "a whole number"
        raise ValueError(f"{value!r} is not {steps}.")
    return int(value)


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _equal(choice: Value, value: object) -> bool:
    """Says whether a choice is a value: lists are tuples, whole numbers are floats of their size.

    Example:
      >>> _equal((8, 8), [8, 8]), _equal(1.0, 1), _equal(1, True), _equal("1", 1)
      (True, True, False, False)
    """
    if isinstance(choice, tuple):
        if not isinstance(value, list | tuple) or len(choice) != len(value):
            return False
        return all(_equal(one, other) for one, other in zip(choice, value))
    if isinstance(choice, bool) or isinstance(value, bool):
        return choice is value
    if isinstance(choice, int | float) and isinstance(value, int | float):
        return choice == value
    return type(choice) is type(value) and choice == value


# --- the base config ------------------------------------------------------------------------------


def base_point(space: Space, config: Mapping[str, object]) -> Planned:
    """Returns the point at which the base config lies, as far as it lies in the space.

    Args:
      space: what is searched.
      config: what the base experiment has at its keys.
    """
    values: dict[str, Value] = {}
    outside: dict[str, object] = {}
    for key, one in space.items():
        if not spaces.active(one, values):
            continue
        try:
            values[key] = fitting(one, config.get(key))
        except ValueError:
            outside[key] = config.get(key)
    return Planned(BASE, values, outside)


def outside_in_words(planned: Planned, space: Space) -> str:
    """Returns what is said of a base config that does not wholly lie in its space, or nothing."""
    if not planned.outside:
        return ""
    told = []
    for key, value in planned.outside.items():
        one = space[key]
        held = listing(map(repr, one.choices)) if one.kind == "choice" else ""
        told.append(
            f"the base config's {key}, {value!r}, "
            + (f"is none of {held}" if held else f"lies outside [{one.low:g}, {one.high:g}]")
        )
    said = "; ".join(told)
    if not planned.values:
        return f"{said}. No value of it lies in the space, so it is not among the trials."
    names = listing(planned.outside)
    return f"{said}. The trial of the base config has its other values, and {names} drawn."


def first_points(
    space: Space,
    config: Mapping[str, object],
    asked: Sequence[Mapping[str, object]],
    base: bool,
) -> tuple[list[Planned], str]:
    """Returns the points that a study begins with, and what is to be said of the base config.

    Args:
      space: what is searched.
      config: what the base experiment has at its keys.
      asked: points that a person asks for.
      base: whether the base config comes first.

    Raises:
      UserError: a point that is asked for is not one of the space.
    """
    found, said = checked(space, asked), ""
    if base:
        own = base_point(space, config)
        said = outside_in_words(own, space)
        if own.values:
            found = [own, *(one for one in found if one.name != own.name)]
    return found, said


def completed(space: Space, planned: Planned, seed: int) -> dict[str, Value]:
    """Returns a point with values for the keys that it leaves out, drawn at random.

    Args:
      space: what is searched.
      planned: the point.
      seed: of the draw.
    """
    from jdlopt.study.sampler_view import SamplerView  # help must not wait for Optuna

    return SamplerView("random", seed, 0, ["minimize"], space).draw(planned.values)[0]
