"""What a training step costs on devices that are not here: compiled for them, and estimated.

The room bears the name of its verb: ``jdlopt.plan(config, "v5e:4x4")`` calls it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdlopt.plan.record import Plan


class _Callable(ModuleType):
    """A package that is called as `jdlopt.plan.plan.plan` is."""

    def __call__(self, *given: Any, **options: Any) -> Plan:
        from jdlopt.plan.plan import plan

        return plan(*given, **options)


sys.modules[__name__].__class__ = _Callable
