"""What a process that trains is started with, so that its memory stays its own."""

from __future__ import annotations

import os
import subprocess
import sys

from jdlopt import memory


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
