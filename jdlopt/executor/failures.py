"""What a failure of a worker is to its coordinator's caller."""

from __future__ import annotations

from dataclasses import replace

from jdlopt import memory
from jdlopt.errors import ConfigError, UserError
from jdlopt.executor.messages import ENVIRONMENT, NO_MEMORY, WRONG_INPUT, Failed

KEPT = "What was finished is kept; the same command goes on from there."


def error_of(failure: Failed, elsewhere: bool = False) -> Exception:
    """Returns the exception that a failure is.

    Args:
      failure: what a worker said.
      elsewhere: whether the worker may have been on another machine, which is then named.
    """
    if elsewhere and failure.host:
        failure = replace(failure, message=f"on {failure.host}: {failure.message}")
    if failure.kind in (ENVIRONMENT, NO_MEMORY):
        text = failure.message
        if failure.kind == NO_MEMORY:
            text = f"{text.rstrip('.')}. {memory.LESS_MEMORY}"
        return UserError(text if "same command" in text else f"{text} {KEPT}")
    if failure.kind == WRONG_INPUT:
        return ConfigError(failure.message)
    return RuntimeError(failure.traceback or failure.message)
