"""A worker process beside this one, whose lines are passed on: what a Ray actor does.

Nothing of jax is in the actor itself. Its worker is the process that it is everywhere else, so that
one that is killed, or out of memory, takes nothing with it; and without its actor it ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import IO, NamedTuple

import jdlopt
from jdlopt.executor.processes import command, environment

INSTALLED = ("site-packages", "dist-packages")


class Said(NamedTuple):
    """What a worker has said since it was last asked.

    Attributes:
      lines: its messages.
      noise: what it wrote on stderr.
      code: what it ended with; None while it lives.
    """

    lines: list[str]
    noise: str
    code: int | None


class Relay:
    """Starts a worker process on the machine that this is.

    Args:
      program: the module that answers requests.
      own: what the process has in its environment.
      folder: where it starts, if it is there.
    """

    def __init__(self, program: str, own: Mapping[str, str], folder: str):
        self._said: Queue[tuple[str, str | int]] = Queue()
        given = environment(own)
        package = str(Path(jdlopt.__file__).parents[1])
        if not package.endswith(INSTALLED):  # the worker finds the library that this process has
            given["PYTHONPATH"] = os.pathsep.join(
                filter(None, [package, given.get("PYTHONPATH", "")])
            )
        self._process = subprocess.Popen(
            command(program),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=given,
            cwd=folder if Path(folder).is_dir() else None,  # else it says so
        )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin and process.stdout and process.stderr
        noise = threading.Thread(target=self._pass, args=("noise", process.stderr), daemon=True)
        noise.start()
        self._pass("line", process.stdout)
        code = process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        noise.join(1.0)  # what it has started may hold the pipe
        self._said.put(("code", code))

    def _pass(self, kind: str, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                if line.endswith("\n"):  # else it was killed within the line
                    self._said.put((kind, line))

    def send(self, line: str) -> None:
        """Passes a request on; a worker that is dead is noticed by its end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def receive(self) -> Said:
        """Returns what the worker says next, and all that it has said meanwhile."""
        found = [self._said.get()]
        while not self._said.empty():
            found.append(self._said.get())
        texts = {
            kind: [str(text) for one, text in found if one == kind] for kind in ("line", "noise")
        }
        codes = [code for one, code in found if one == "code" and isinstance(code, int)]
        return Said(texts["line"], "".join(texts["noise"]), codes[0] if codes else None)

    def end(self) -> None:
        """Ends the worker, and waits until its memory is free."""
        self._process.kill()
        self._process.wait()
