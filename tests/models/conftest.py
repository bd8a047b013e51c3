"""What tests of several models share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


@pytest.fixture
def own_modules(monkeypatch):
    """Modules of a user's own, as they would lie in the working directory."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield
    sys.modules.pop("own_modules", None)
