"""What directories hold, read as what anybody may have written: checked before use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import UndefinedError

from jdlopt.errors import listing
from jdlopt.study import curves
from jdlopt.study.schema import not_as_written, read_object

if TYPE_CHECKING:
    import pandas as pd


def read(path: Path, needed: Mapping[str, type]) -> dict[str, Any]:
    """Returns a record, checked for the parts that a report needs.

    Args:
      path: a file of JSON.
      needed: the type of each part.

    Raises:
      WorkdirError: it can't be read, or is not as jdlopt writes it.
    """
    record = read_object(path)
    wrong = [name for name, kind in needed.items() if not isinstance(record.get(name), kind)]
    if wrong:
        raise not_as_written(path, f"{listing(wrong)}: missing, or of another type")
    return record


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Turns what a record lacks, where a page is made of it, into a message.

    Raises:
      WorkdirError: the record is not as jdlopt writes it.
    """
    try:
        yield
    except (
        LookupError, TypeError, ValueError, ArithmeticError, AttributeError, UndefinedError,
        RecursionError,
    ) as error:  # fmt: skip
        raise not_as_written(path, repr(error)) from error


def read_curves(workdir: Path) -> tuple[pd.DataFrame, str]:
    """Returns the trials' curves, and what is wrong with the files, if anything.

    A damaged file costs its curves, not the report.
    """
    table, damaged = curves.read(workdir)
    if not damaged:
        return table, ""
    names = listing([path.name for path in damaged])
    reason = next(iter(damaged.values()))
    lost = "Some curves are missing" if len(table) else "There are no curves"
    return table, f"{lost}: {names} can't be read: {reason}."
