"""A finished run made smaller or faster, as far as its loss stays within a margin.

The room bears the name of its verb: ``jdlopt.compress(run, within="0.5pp")`` calls it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A package that is called as `jdlopt.compress.compress.compress` is."""

    def __call__(self, *given: Any, **options: Any) -> dict[str, Any]:
        from jdlopt.compress.compress import compress

        return compress(*given, **options)


sys.modules[__name__].__class__ = _Callable
