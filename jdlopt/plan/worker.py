"""A planning process: it reads one request on stdin and answers a line for each config."""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from typing import Any, NoReturn

from jdlopt.config import make_importable_again
from jdlopt.errors import UserError, show_warning


def serve() -> NoReturn:
    """Answers one request, and ends when the process that made it does."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_until_alone, daemon=True).start()
    warnings.showwarning = show_warning
    make_importable_again(os.environ)
    from jdlopt.plan.planning import make_plan
    from jdlopt.plan.request import decoded
    from jdlopt.plan.topology import parse

    topology = parse(request["topology"], request["slices"])
    for config in request["configs"]:
        answer: dict[str, Any]
        try:
            answer = {"plan": make_plan(decoded(config), topology, request["price"]).to_dict()}
        except UserError as error:
            answer = {"error": _kind(error), "message": str(error)}
        out.write(json.dumps(answer) + "\n")
    os._exit(0)  # libtpu's own end may take seconds


def _kind(error: UserError) -> str:
    from jdlopt.plan.plan import ERRORS

    known = (kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERRORS)
    return next(known)


def _until_alone() -> None:
    sys.stdin.read()
    os._exit(1)
