"""A worker's answers: what came of a request, and whose fault a failure is."""

from __future__ import annotations

import io

import pytest
from fake import population

from jdlopt.errors import ConfigError, DataError, DivergedError, WorkdirError
from jdlopt.executor.messages import ANSWERS, Progress, decode
from jdlopt.executor.worker import Link, answer


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("optim.name: is unknown"), "wrong input"),
        (DataError("the labels are no classes"), "wrong input"),
        (DivergedError(3, "loss", float("nan")), "diverged"),
        (WorkdirError("the directory is another config's"), "wrong input"),
        (caused(WorkdirError("the disk is full"), OSError(28, "No space left")), "environment"),
        (caused(DataError("can't be read"), OSError(5, "Input/output error")), "environment"),
        (OSError(28, "No space left on device"), "environment"),
        (MemoryError(), "out of memory"),
        (OSError(12, "Cannot allocate memory"), "out of memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"), "out of memory"),
        (RuntimeError("INTERNAL: Buffer Definition Event: Out of memory"), "out of memory"),
        (caused(RuntimeError("step"), MemoryError()), "out of memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: writing: No space left on device"), "environment"),
        (RuntimeError("RESOURCE_EXHAUSTED: Error writing local file"), "environment"),
        (caused(WorkdirError("full"), OSError(28, "RESOURCE_EXHAUSTED: x")), "environment"),
        (KeyError("x"), "defect"),
    ],
)
def test_a_failure_is_answered_with_its_kind(error, kind):
    def fail(request):
        raise error

    found = answer(fail, population(0, task=7))
    assert (found.task, found.kind) == (7, kind)
    assert (found.traceback is not None) == (kind == "defect")


def test_a_stop_reaches_what_was_asked_for_before_it():
    link = Link(io.StringIO())
    assert not link.stopped(1)
    link.stop(3)
    assert link.stopped(1) and link.stopped(3) and not link.stopped(4)


def test_answers_are_lines():
    out = io.StringIO()
    link = Link(out)
    link.send(Progress(1, 2, 3, 4))
    link.send(Progress(1, 4, 3, 0))
    lines = out.getvalue().splitlines()
    assert [decode(line, ANSWERS).step for line in lines] == [2, 4]
