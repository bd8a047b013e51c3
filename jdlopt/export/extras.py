"""Libraries that only some formats need: imported late, and named where they are missing."""

from __future__ import annotations

import importlib.util

from jdlopt.errors import UserError

EXTRAS = {
    "export": "pip install 'jdlopt[export]'",
    "tf": "pip install 'jdlopt[tf]'",
    "litert": "pip install litert-converter 'immutabledict<4.2.2'",
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
