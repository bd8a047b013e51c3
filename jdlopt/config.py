"""Experiments as data: load a config file, override, check against signatures, fingerprint, save.

A part's config keys are its Python signature: a model, loss, optimizer or schedule is a callable
whose keyword parameters are typed and have defaults, and `fields_of` reads the schema from them.
A user's own part is therefore checked by the same code as a bundled one.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import json
import math
import os
import sys
import types
import typing
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import ml_collections

from jdlopt.errors import ConfigError, listing, nearest

TRACED_SECTIONS = (("model",), ("loss",), ("optim",), ("data", "augment"))
"""The sections whose float leaves are traced hyperparameters; all else is structure."""


@dataclass(frozen=True)
class Range:
    """Bounds of a number, each closed unless said to be open."""

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    def __str__(self) -> str:
        low, high = (
            f"{bound:g}" if isinstance(bound, float) else str(bound)
            for bound in (self.low, self.high)
        )
        if self.high is None:
            return f"{'greater than' if self.low_open else 'at least'} {low}"
        left, right = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"in {left}{'-inf' if self.low is None else low}, {high}{right}"

    def holds(self, value: float) -> bool:
        """Says whether a finite number lies within the bounds."""
        if not math.isfinite(value):
            return False
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            return False
        return self.high is None or not (
            value > self.high or (self.high_open and value == self.high)
        )


@dataclass(frozen=True)
class Choice:
    """The names that a string may take: the keys of a table, or a tuple."""

    names: Container[str]


Rate = Annotated[float, Range(0, 1, high_open=True)]
Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, low_open=True)]
NonNegative = Annotated[float, Range(0)]
Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]


class Override(NamedTuple):
    """The text of ``--config.KEY=TEXT``, read as the type that its key asks for."""

    text: str


class Required:
    """Marks a key that has no default."""


@dataclass(frozen=True)
class Field:
    """What one config key may hold: any of ``types``, each with the element type of a tuple."""

    types: tuple[Any, ...]
    default: Any = Required
    range: Range | None = None
    choice: Choice | None = None

    def describe(self) -> str:
        """Says in words what the key takes."""
        words = " or ".join(_type_name(kind) for kind in self.types)
        return words + (f" {self.range}" if self.range else "")


Schema = dict[str, Any]
"""Key → `Field`, or a nested `Schema`."""


def _type_name(kind: Any) -> str:
    if kind is types.NoneType:
        return "None"
    if typing.get_origin(kind) is tuple:
        return f"tuple of {_type_name(typing.get_args(kind)[0])}"
    return getattr(kind, "__name__", str(kind))


def field_of(annotation: Any, default: Any = Required) -> Field:
    """Returns the `Field` that a parameter's annotation and default describe."""
    bounds, choice = None, None
    kinds: list[Any] = []
    pending = [annotation]
    while pending:
        kind = pending.pop(0)
        if typing.get_origin(kind) is Annotated:
            kind, *markers = typing.get_args(kind)
            for marker in markers:
                bounds = marker if isinstance(marker, Range) else bounds
                choice = marker if isinstance(marker, Choice) else choice
            pending.insert(0, kind)
        elif typing.get_origin(kind) in (typing.Union, types.UnionType):
            pending[:0] = typing.get_args(kind)
        else:
            kinds.append(kind)
    return Field(tuple(kinds), default, bounds, choice)


def fields_of(part: Callable[..., Any], without: Iterable[str] = ()) -> dict[str, Field]:
    """Returns the config keys of a part: its keyword parameters with a type that a config can hold.

    Args:
      part: a function, class, Linen module or dataclass. Positional-only and positional parameters
        of a function are its data, not its config; a class's parameters are all config.
      without: parameters that jdlopt fills in itself.
    """
    # a class may have a metaclass whose signature says nothing, as NNX modules do
    target = part.__init__ if inspect.isclass(part) else part
    signature = inspect.signature(target)
    hints = dict(typing.get_type_hints(target, include_extras=True))
    if inspect.isclass(part):
        hints = {**typing.get_type_hints(part, include_extras=True), **hints}
    skipped = {"self", "rngs", *without}
    if "parent" in signature.parameters:  # a Linen module: flax fills these in
        skipped |= {"parent", "name"}
    fields = {}
    for name, parameter in signature.parameters.items():
        if name in skipped or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
            parameter.POSITIONAL_ONLY,
        ):
            continue
        if not inspect.isclass(part) and parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        default = Required if parameter.default is parameter.empty else parameter.default
        if default is not Required and not _is_plain(_tuples(default)):
            continue  # a function or dtype: no config can hold it, so the part keeps its own
        annotation = hints.get(name, Any)
        fields[name] = field_of(annotation, default)
    return fields


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def find_part(name: str, table: Mapping[str, Any], what: str) -> Any:
    """Returns the part that a name means: a table's entry, or ``package.module:Name`` imported.

    Raises:
      ConfigError: the name is in neither, with the nearest known name.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"{what}: expected a name, found {_shown(name)}. Known: {listing(table)}; "
            "or a dotted path 'package.module:Name' to a part of your own."
        )
    if name in table:
        return table[name]
    if ":" not in name:
        raise ConfigError(
            f"{what} {name!r} is unknown.{nearest(name, table)} Known: {listing(table)}; "
            "or a dotted path 'package.module:Name' to a part of your own."
        )
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # `jdlopt` is a script: its sys.path lacks the user's folder
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"{what} {name!r}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(
            f"{what} {name!r}: {module_name!r} has no {attribute!r}."
            f"{nearest(attribute, dir(module))}"
        )
    part = getattr(module, attribute)
    if not callable(part):
        raise ConfigError(
            f"{what} {name!r}: is {_shown(part)}; expected a function or class to call."
        )
    return part


# --- loading --------------------------------------------------------------------------------------


def load(file: str | os.PathLike[str]) -> ml_collections.ConfigDict:
    """Returns the config of ``FILE.py[:argument]`` (its ``get_config``) or of ``FILE.json``.

    Raises:
      ConfigError: no such file, or it can't be read as a config.
    """
    text = os.fspath(file)
    name, argument = text, None
    if not Path(text).exists() and ":" in text:
        name, _, argument = text.rpartition(":")
    path = Path(name)
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "not there"
        siblings = [other.name for other in path.parent.glob("*.*") if other.suffix == path.suffix]
        raise ConfigError(
            f"--config: the file {name!r} is {what}.{nearest(path.name, siblings)} Name a Python "
            "file with a function get_config(), or a JSON file."
        )
    if path.suffix == ".json":
        return _load_json(path)
    spec = importlib.util.spec_from_file_location(f"jdlopt_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config: {name!r} is neither a Python file (.py) nor JSON (.json).")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ConfigError(f"{name}: has no function get_config().")
        config = module.get_config(*([] if argument is None else [argument]))
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code: name its line, not ours
        raise ConfigError(
            f"{name}{_line_of(error, path)}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(config, Mapping | ml_collections.ConfigDict):
        raise ConfigError(f"{name}: get_config() returned {type(config).__name__}, not a config.")
    return _as_config(config, name)


def _as_config(found: Mapping[str, Any], where: str) -> ml_collections.ConfigDict:
    if isinstance(found, ml_collections.ConfigDict):
        unset = list(_unset(found))
        if unset:
            raise ConfigError(f"{where}: {listing(unset)}: is required and has no value.")
    tree = to_dict(found)
    wrong = [key for key in _keys(tree) if not isinstance(key, str) or "." in key]
    if wrong:
        raise ConfigError(
            f"{where}: {wrong[0]!r} can't be a key: expected a name without dots; a key of a "
            "section is nested, as in {'optim': {'learning_rate': 0.1}}."
        )
    return ml_collections.ConfigDict(tree)


def _keys(tree: Mapping[Any, Any]) -> Iterator[Any]:
    for key, value in tree.items():
        yield key
        if isinstance(value, Mapping):
            yield from _keys(value)


def _unset(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[str]:
    for key in config:
        try:
            value = config[key]
        except ml_collections.config_dict.RequiredValueError:
            yield prefix + key
        else:
            if isinstance(value, ml_collections.ConfigDict):
                yield from _unset(value, f"{prefix}{key}.")


def _line_of(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    trace, line = error.__traceback__, None
    while trace:
        if Path(trace.tb_frame.f_code.co_filename) == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""


def _load_json(path: Path) -> ml_collections.ConfigDict:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: is not a JSON config: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, not a config.")
    return _as_config(data, str(path))


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def override(
    config: Mapping[str, Any] | ml_collections.ConfigDict, assignments: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Returns the config with dotted keys set; a string from a command line comes as `Override`.

    Example:
      >>> override({"optim": {"learning_rate": 0.1}}, {"optim.learning_rate": 0.2}).optim.to_dict()
      {'learning_rate': 0.2}
    """
    tree = to_dict(config)
    for dotted, value in assignments.items():
        *sections, key = dotted.split(".")
        node = tree
        for depth, section in enumerate(sections):
            child = node.setdefault(section, {})
            if not isinstance(child, dict):
                prefix = ".".join(sections[: depth + 1])
                raise ConfigError(f"--config.{dotted}: {prefix} is a value, not a section.")
            node = child
        if isinstance(node.get(key), dict) and not isinstance(value, Mapping):
            raise ConfigError(
                f"--config.{dotted}: is a section; set one of its keys: {listing(node[key])}."
            )
        node[key] = value
    return ml_collections.ConfigDict(tree)


def to_dict(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config as nested plain dicts, references followed, lists as tuples."""
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    return {
        key: to_dict(value) if isinstance(value, Mapping) else _tuples(value)
        for key, value in config.items()
    }


# --- checking -------------------------------------------------------------------------------------


def check_section(
    values: Any, schema: Schema, path: str, problems: list[str], extra: str = ""
) -> dict[str, Any]:
    """Returns a section with defaults filled in and types made right; notes what is wrong.

    Args:
      values: the section as the user gave it.
      schema: the keys that it may hold.
      path: the section's dotted name, for messages.
      problems: messages are appended here, so that all of them can be told at once.
      extra: what to add to the message of an unknown key.
    """
    prefix = f"{path}." if path else ""
    if not isinstance(values, Mapping):
        problems.append(f"{path}: expected a section of keys, found {_shown(values)}.")
        values = {}
    for key in values:
        if key not in schema:
            hint = nearest(key, schema) or f" Known: {listing(schema)}."
            problems.append(f"{prefix}{key}: is unknown.{hint}{extra}")
    checked: dict[str, Any] = {}
    for key, field in schema.items():
        if isinstance(field, dict):
            checked[key] = check_section(values.get(key, {}), field, prefix + key, problems)
        elif key in values:
            checked[key] = check_value(values[key], field, prefix + key, problems)
        elif field.default is Required:
            problems.append(f"{prefix}{key}: is missing; it must be {field.describe()}.")
        else:
            checked[key] = _coerced(field.default, field)
    return checked


def check_value(value: Any, field: Field, path: str, problems: list[str]) -> Any:
    """Returns a value as its field's type; notes a wrong type, range or name in ``problems``."""
    if isinstance(value, Override):
        value = _read(value.text, field)
    value = _coerced(value, field)
    if Any not in field.types and not any(_is_kind(value, kind) for kind in field.types):
        kind = "" if isinstance(value, Mapping) else f"{type(value).__name__} "
        problems.append(f"{path}: expected {field.describe()}, found {kind}{_shown(value)}.")
        return value
    if not isinstance(value, Mapping) and not _is_plain(value):
        problems.append(
            f"{path}: a config holds numbers, names, bools, None and tuples of them; "
            f"found {type(value).__name__} {_shown(value)}."
        )
    each = "each " if isinstance(value, tuple) else ""
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, bool) or not isinstance(item, int | float):
            continue
        if not math.isfinite(item):
            problems.append(f"{path}: {each}must be a finite number, found {item}.")
        elif field.range is not None and not field.range.holds(item):
            problems.append(f"{path}: {each}must be {field.range}, found {item!r}.")
    if field.choice is not None and isinstance(value, str) and value not in field.choice.names:
        known = typing.cast(Iterable[str], field.choice.names)
        problems.append(
            f"{path}: {value!r} is unknown.{nearest(value, known)} Known: {listing(known)}."
        )
    return value


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a section with the keys {listing(value)}" if value else "an empty section"
    text = repr(value.text if isinstance(value, Override) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def _coerced(value: Any, field: Field) -> Any:
    """Lists become tuples; an int becomes a float where only a float will do."""
    value = _tuples(value)
    plain_int = isinstance(value, int) and not isinstance(value, bool)
    if plain_int and float in field.types and int not in field.types:
        return float(value)
    if isinstance(value, tuple) and tuple[float, ...] in field.types:
        whole = [isinstance(item, int) and not isinstance(item, bool) for item in value]
        return tuple(
            float(item) if is_int else item for item, is_int in zip(value, whole, strict=True)
        )
    return value


def _is_kind(value: Any, kind: Any) -> bool:
    if kind is types.NoneType:
        return value is None
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        return isinstance(value, tuple) and all(_is_kind(item, element) for item in value)
    if kind in (int, float, bool, str):
        return type(value) is kind
    return isinstance(value, kind) if inspect.isclass(kind) else True


def _read(text: str, field: Field) -> Any:
    """Reads a command-line value as its key's type: names need no quotes."""
    if types.NoneType in field.types and text in ("None", "none", "null"):
        return None
    if bool in field.types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if value == text and float in field.types and str not in field.types:
        with contextlib.suppress(ValueError):
            value = float(text)  # nan and inf, to be told what they are
    if isinstance(value, float) and value.is_integer() and float not in field.types:
        value = int(value) if int in field.types else value
    if str in field.types and not any(
        _is_kind(_coerced(value, field), kind) for kind in field.types
    ):
        return text
    if isinstance(value, str) and str in field.types:
        return value
    wants_tuple = any(typing.get_origin(kind) is tuple for kind in field.types)
    if wants_tuple and not isinstance(value, tuple | list) and value is not None:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return (value,)
    return value


def raise_problems(problems: list[str], where: str = "config") -> None:
    """Raises one `ConfigError` that tells all the problems found, if there are any."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{where}: {count}\n" + "\n".join(f"  {item}" for item in problems))


# --- structure and hyperparameters ----------------------------------------------------------------


def _section(config: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    node: Any = config
    for key in path:
        node = node.get(key, {})
    return node


def _floats(tree: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            nested = _floats(value)
            if nested:
                kept[key] = nested
        elif isinstance(value, float):
            kept[key] = value
    return kept


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the traced floats of a resolved config: ``{"model": {…}, "loss": {…}, …}``."""
    tree = to_dict(config)
    return {path[-1]: _floats(_section(tree, path)) for path in TRACED_SECTIONS}


def structure(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a resolved config without traced floats and seed: what a program is made of."""
    tree = to_dict(config)
    tree.pop("seed", None)
    for path in TRACED_SECTIONS:
        parent: Any = _section(tree, path[:-1])
        if path[-1] in parent:
            parent[path[-1]] = _without_floats(parent[path[-1]])
    return tree


def _without_floats(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_floats(item) for key, item in value.items()}
    return "float" if isinstance(value, float) else value


def fingerprint(config: Mapping[str, Any]) -> str:
    """Returns 16 hex digits, equal for configs of equal structure whatever their floats."""
    text = json.dumps(structure(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def dumps(config: Mapping[str, Any]) -> str:
    """Returns a resolved config as JSON text, keys in their own order."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a config as one dict of dotted keys.

    Example:
      >>> flat({"a": {"b": 1}, "c": 2})
      {'a.b': 1, 'c': 2}
    """
    leaves: dict[str, Any] = {}
    for key, value in to_dict(config).items():
        if isinstance(value, Mapping):
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
