"""Libraries that only some formats need: imported late, and named where they are missing."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator

from jdlopt.errors import UserError

EXTRAS = {
    "export": "pip install 'jdlopt[export]'",
    "tf": "pip install 'jdlopt[tf]'",
    "litert": (
        "pip install --no-deps --target=litert litert-converter ai-edge-litert xdsl==0.28.0 "
        "'immutabledict<4.2.2' lark ordered-set backports.strenum, then PYTHONPATH=litert"
    ),
}
"""What installs a group of libraries."""


def need(extra: str, *packages: str) -> None:
    """Checks that packages are installed, before what imports them.

    Args:
      extra: of `EXTRAS`.
      packages: their names as they are imported.

    Raises:
      UserError: one is missing; it says what installs it.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"export: needs {' and '.join(missing)}, which is not installed: {EXTRAS[extra]}."
        )


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Keeps what libraries say of their own shapes, imports and habits to themselves.

    Args:
      loggers: the names of their loggers; ``root`` is that of those without one.
    """
    found = [logging.getLogger(None if name == "root" else name) for name in loggers]
    before = [one.level for one in found]
    for one in found:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(found, before, strict=True):
            one.setLevel(level)
