"""The few exceptions that a user can meet, and what their messages have in common."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping

HUNG = 124
"""The exit code of a process that has ended itself since nothing moved: start it again."""


class UserError(Exception):
    """The user's input is wrong: the command line answers with this message and exit code 2."""


class ConfigError(UserError):
    """A config names an unknown key, or holds a value that can't work."""


class DataError(UserError):
    """A dataset is missing, unreadable, or not what the config says that it is."""


class WorkdirError(UserError):
    """A work directory can't be used: another config's, not writable, or holding no run."""


class DivergedError(Exception):
    """Training met a value that is not finite: exit code 3, the last good checkpoint is kept."""

    def __init__(self, step: int, quantity: str, value: float, detail: str = ""):
        self.step = step
        self.quantity = quantity
        self.value = value
        self.detail = detail
        super().__init__(f"training diverged at step {step}: {quantity} is {value}.{detail}")


class Interrupted(Exception):
    """A signal asked the run to stop: its state is saved, exit code 130."""


def escaped(text: str) -> str:
    r"""Returns text that any terminal and any file takes: what is unsafe in it as its escape.

    Unsafe are control characters but for tabs and ends of lines, characters that turn the direction
    of writing, and surrogates, which stand for bytes of a file's name that are no UTF-8.

    Example:
      >>> print(escaped("caf\udce9 \x1b[31m"))
      caf\udce9 \x1b[31m
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Writes a warning that is for the user on stderr, in one line: a `warnings.showwarning`."""
    if issubclass(category, UserWarning):
        print(escaped(f"jdlopt: warning: {message}"), file=sys.stderr)


_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def nearest(name: object, known: Iterable[object]) -> str:
    """Returns `` Did you mean 'x'?`` for the closest known name, or nothing if none is close.

    Example:
      >>> nearest("adamW2", ["adam", "adamw", "sgd"])
      " Did you mean 'adamw'?"
      >>> nearest("zebra", ["adam", "sgd"])
      ''
    """
    table = {str(candidate).lower(): str(candidate) for candidate in known}
    close = difflib.get_close_matches(str(name).lower(), table, n=1, cutoff=0.6)
    return f" Did you mean {table[close[0]]!r}?" if close else ""


def listing(names: Iterable[object], limit: int = 20) -> str:
    """Returns known names as one readable line, cut after ``limit`` of them.

    Example:
      >>> listing(["b", "a"]), listing([",", "."])
      ('a, b', "',', '.'")
    """
    ordered = sorted(map(_named, map(str, names)))
    rest = len(ordered) - limit
    return ", ".join(ordered[:limit]) + (f" and {rest} more" if rest > 0 else "")


def differences(there: Mapping[str, object], now: Mapping[str, object], limit: int = 8) -> str:
    """Returns the keys whose values differ, a line each; nothing if none does.

    Args:
      there, now: flat mappings; a key that one of them lacks is None there.
      limit: lines before the rest is counted.

    Example:
      >>> differences({"seed": 0, "steps": 9}, {"seed": 1, "steps": 9})
      '  seed: 0 there, 1 now'
    """
    lines = [
        f"  {key}: {there.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted({*there, *now})
        if there.get(key) != now.get(key) or (key in there) != (key in now)
    ]
    rest = len(lines) - limit
    return "\n".join([*lines[:limit], *([f"  and {rest} more"] if rest > 0 else [])])


def _named(name: str) -> str:
    """Returns a name as it stands, or in quotes where it is signs alone that would not be seen."""
    return name if any(map(str.isalnum, name)) or name[:1] in ("'", '"') else repr(name)
