"""What a process that trains is started with, so that its memory stays its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jdlopt import cli, memory


def test_what_the_user_has_set_up_is_left_alone() -> None:
    assert memory.settings({"MALLOC_ARENA_MAX": "1"}) == {}
    assert memory.settings({memory.TUNABLES: "glibc.malloc.tcache_count=1"}) == {}


def test_a_process_starts_itself_again_once_with_the_same_words() -> None:
    script = (
        "import os, sys; from jdlopt import memory; memory.start_again(); "
        "print(sys.argv[1:], os.environ.get(memory.TUNABLES), os.getppid())"
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MALLOC_") and name != memory.TUNABLES
    }
    ran = subprocess.run(
        [sys.executable, "-c", script, "a b", "--c=1"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    expected = memory.settings(environment).get(memory.TUNABLES)
    assert ran.stdout.strip() == f"['a b', '--c=1'] {expected} {os.getpid()}"


def test_the_console_script_does_what_the_module_does() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, function = project["scripts"]["jdlopt"].partition(":")
    as_module = (root / "jdlopt/cli/__main__.py").read_text("utf-8")
    assert f"from {module} import {function}\n" in as_module
    assert f"    {function}()\n" in as_module


@pytest.mark.parametrize(
    ("words", "again"),
    [("train --config=a.py", 1), ("train --help", 0), ("--help", 0), ("tune --config=a.py", 0)],
)
def test_only_a_training_starts_the_process_again(
    monkeypatch: pytest.MonkeyPatch, words: str, again: int
) -> None:
    started: list[int] = []
    monkeypatch.setattr(sys, "argv", ["jdlopt", *words.split()])
    monkeypatch.setattr(memory, "start_again", lambda: started.append(1))
    monkeypatch.setattr(cli, "main", lambda: 0)
    with pytest.raises(SystemExit):
        cli.script()
    assert len(started) == again
