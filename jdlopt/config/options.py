"""Options as frozen dataclasses: what a caller passes and what a flag says are checked alike.

A field's annotation says all that there is to know of an option: its type, its range and names
(`Range`, `Choice`), and by a `Flag` what help says of it. So the command line is made of the same
classes that Python takes, and the same mistake gets the same message from both.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from jdlopt.config.checking import check_value
from jdlopt.config.schema import Field, Required, field_of
from jdlopt.config.values import coerced, read_text
from jdlopt.errors import UserError

Options = TypeVar("Options")


@dataclass(frozen=True)
class Flag:
    """How a field is written on the command line.

    Attributes:
      help: what help says; the default is added to it.
      metavar: what stands for its value in help.
      name: of the flag, where it is not ``--`` and the field's; a flag that turns off what is on
        by default begins with ``no-``.
      group: the heading that help lists it under.
      positional: whether it is written without a name.
      read: text → value, where the type alone does not say how; raises `UserError`. Of a tuple,
        text → the items that one flag stands for, which its class checks by itself.
      shown: the default as help shows it.
    """

    help: str
    metavar: str | None = None
    name: str | None = None
    group: str | None = None
    positional: bool = False
    read: Callable[[str], Any] | None = None
    shown: str | None = None


@dataclass(frozen=True)
class Option:
    """One field of a class of options: what it may hold, and its flag."""

    name: str
    field: Field
    flag: Flag

    @property
    def spelt(self) -> str:
        """What a message calls it: the flag, or of a positional one its name."""
        if self.flag.positional:
            return self.flag.metavar or self.name
        return f"--{self.flag.name or self.name.replace('_', '-')}"

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value."""
        return self.field.types == (bool,)


def options_of(kind: type[Any]) -> tuple[Option, ...]:
    """Returns the fields of a class of options that have a `Flag`, in their order."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = []
    for one in dataclasses.fields(kind):
        hint = hints[one.name]
        markers = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
        flag = next((marker for marker in markers if isinstance(marker, Flag)), None)
        if flag is not None:
            default = Required if one.default is dataclasses.MISSING else one.default
            found.append(Option(one.name, field_of(hint, default), flag))
    return tuple(found)


def nested_options(kind: type[Any]) -> dict[str, type[Any]]:
    """Returns the fields of a class that are classes of options themselves."""
    hints = typing.get_type_hints(kind)
    fields = (one.name for one in dataclasses.fields(kind))
    return {name: hints[name] for name in fields if dataclasses.is_dataclass(hints[name])}


def option_problems(options: Any) -> list[str]:
    """Returns what is wrong with each of some options by itself, in words.

    Example:
      >>> @dataclass(frozen=True)
      ... class Few:
      ...     seeds: Annotated[int, Flag("how many")] = 2
      >>> option_problems(Few(seeds="x"))
      ["--seeds: expected int, found str 'x'."]
    """
    problems: list[str] = []
    for option in options_of(type(options)):
        if option.flag.read is not None and takes_several(option):
            continue
        check_value(getattr(options, option.name), option.field, option.spelt, problems)
    return problems


def raise_option_problems(problems: Sequence[str]) -> None:
    """Raises one `UserError` that tells all the problems found, a line each, if there are any."""
    if problems:
        raise UserError("\n".join(problems))


def read_options(kind: type[Options], words: Mapping[str, Any], **more: Any) -> Options:
    """Returns options as flags say them, not checked; what no flag says has its default.

    Args:
      kind: the class.
      words: by field: None where there was no flag, True of a switch, else its text, or the texts
        of a tuple's flags.
      more: fields that have no flag.

    Raises:
      UserError: a text can't be read at all.
    """
    values = {
        option.name: _value(option, words[option.name])
        for option in options_of(kind)
        if words.get(option.name) is not None
    }
    inner = {name: read_options(one, words) for name, one in nested_options(kind).items()}
    return kind(**values, **inner, **more)


def _value(option: Option, given: Any) -> Any:
    if option.is_switch:
        return not option.field.default
    if isinstance(given, list):  # a flag that was given several times
        if option.flag.read is not None:
            return tuple(item for text in given for item in option.flag.read(text))
        return tuple(part.strip() for text in given for part in text.split(",") if part.strip())
    if option.flag.read is not None:
        return option.flag.read(given)
    if set(option.field.types) <= {str, type(None)}:
        return given  # a path may look like a number or have quotes
    return coerced(read_text(given, option.field), option.field)


def takes_several(option: Option) -> bool:
    """Says whether an option is a tuple: its flag may be given several times, or with commas."""
    return any(typing.get_origin(kind) is tuple for kind in option.field.types)
