"""The command line: one verb, one function. It imports lazily and is the only place that prints."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # python -m jdlopt.cli: a file in the working directory must not stand in for a library's
    del sys.path[0]

import contextlib
import errno
import importlib
import io
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence

from jdlopt import memory, no_tpus
from jdlopt.cli.flags import parser, read_flags
from jdlopt.cli.show import DEFECT, DIVERGED, DONE, INTERRUPTED, WRONG_INPUT
from jdlopt.cli.verbs import Flags
from jdlopt.errors import DivergedError, Interrupted, UserError, escaped, show_warning

REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT,
    errno.ELOOP,
)  # fmt: skip
"""What an operating system refuses wherever a path is touched; no defect of jdlopt's own."""

COLUMNS = "--config.data.columns."
SHOW_CURSOR = "\x1b[?25h"
TOO_EARLY = "interrupted; what was saved before is kept."


def _function(name: str) -> Callable[[Flags], int]:
    """Imports a verb's function when it runs: `--help` imports none."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"jdlopt.cli.{module}"), attribute)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: what a person can mend is one message, code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal can't show is no failure
            stream.reconfigure(errors="backslashreplace")
    try:
        words, overrides = split_overrides(words)
        verb, flags = read_flags(parser().parse_args(words), overrides)
        warnings.showwarning = show_warning
        memory.check_limit()
        with _signals_answered():
            return _function(verb.run)(flags)
    except UserError as error:
        if error.__cause__ is not None and memory.is_exhausted(error.__cause__):
            return _fail(_too_little(error.__cause__), WRONG_INPUT, debug)  # not what it says
        return _fail(str(error), WRONG_INPUT, debug)
    except DivergedError as error:
        return _fail(str(error), DIVERGED, debug)
    except Interrupted as error:
        return _fail(str(error), INTERRUPTED, debug)
    except KeyboardInterrupt:
        return _fail(TOO_EARLY, INTERRUPTED, debug)
    except BrokenPipeError:
        sys.stderr.close()
        return DONE
    except Exception as error:
        if memory.is_exhausted(error):
            return _fail(_too_little(error), WRONG_INPUT, debug)
        if isinstance(error, OSError) and error.errno in REFUSED:
            return _fail(_refusal(error), WRONG_INPUT, debug)
        traceback.print_exc()
        return DEFECT


def _too_little(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")[:200]
    name = f"{type(error).__name__}: " if first else type(error).__name__
    return f"{name}{first.rstrip('.:')}. {memory.LESS_MEMORY} What was saved before is kept."


def _refusal(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror}. Name a place that this user can read and write, with room."


@contextlib.contextmanager
def _signals_answered() -> Iterator[None]:
    """Makes SIGTERM and Ctrl-C an interruption from the first import on; a run then saves.

    A second Ctrl-C while it saves ends it at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        # an exception would be lost where one can't be raised, as in a callback of the collector
        shown = SHOW_CURSOR if os.isatty(2) else ""  # a bar may have hidden it
        os.write(2, f"{shown}jdlopt: {TOO_EARLY}\n".encode())
        os._exit(INTERRUPTED)

    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def split_overrides(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Separates ``--config.KEY=VALUE`` (or ``--config.KEY VALUE``) from the other words.

    Example:
      >>> split_overrides(["train", "--config=a.py", "--config.seed=3"])
      (['train', '--config=a.py'], {'seed': '3'})
    """
    rest: list[str] = []
    overrides: dict[str, str] = {}
    pending = list(words)
    while pending:
        word = pending.pop(0)
        if not word.startswith("--config."):
            rest.append(word)
            continue
        named = word.startswith(COLUMNS)  # a column's name may hold anything, its kind does not
        text = word.removeprefix("--config.")
        key, equals, value = text.rpartition("=") if named and "=" in text else text.partition("=")
        if not equals:
            if not pending or pending[0].startswith("--"):
                raise UserError(f"{word}: has no value; write {word}=VALUE.")
            value = pending.pop(0)
        if not key or not (named or all(key.split("."))):
            raise UserError(f"{word}: is no key; write --config.SECTION.KEY=VALUE.")
        overrides[key] = value
    return rest, overrides


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(escaped(f"jdlopt: {message}"), file=sys.stderr)
    return code


def script() -> None:
    """Runs the command line as a process of its own: `jdlopt` and ``python -m jdlopt.cli``."""
    asks = {"-h", "--help"} & set(sys.argv)
    if sys.argv[1:2] in (["train"], ["profile"]) and not asks:  # others train in other processes
        memory.start_again()
    os.environ["PYTHONSAFEPATH"] = "1"  # for the processes that it starts
    for name, value in no_tpus.settings().items():
        os.environ.setdefault(name, value)
    code = main()
    if code not in (DONE, INTERRUPTED):
        _leave_others(code)
    sys.exit(code)


def _leave_others(code: int) -> None:
    """Ends a process of several at once: jax would wait minutes for the others, and they for it."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
