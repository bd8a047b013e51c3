"""Starts one run as several processes on this machine, joined by jax.distributed over loopback.

    python launch/local.py --processes=2 -- train --config=FILE --workdir=DIR

Everything after ``--`` is jdlopt's own command line. Useful to try a configuration of several hosts
before a cluster is at hand; on a machine with several GPUs one process drives them all, and this
script is not needed.

A signal is passed on to every process, so that the run saves and ends with 130. When one process
fails, the others are given a moment to end by themselves and then are killed. The exit code is the
first bad one. The environment variable JDLOPT replaces the command (``python -m jdlopt.cli``).
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import IO

INTERRUPTED = 130
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
DEVICE_COUNT_FLAG = "--xla_force_host_platform_device_count"
GRACE_SECONDS = 5.0
"""How long the others may go on once one process has failed: they wait for it in vain."""
SAVING_SECONDS = 60.0
"""The same once one process was interrupted: the others are writing their part of a checkpoint."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the processes to their end and returns the first bad exit code, or 0."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=_count, default=2, metavar="N", help="default: 2")
    parser.add_argument(
        "--devices-per-process",
        type=_count,
        metavar="N",
        help="split the CPU into N devices in each process, whatever accelerators there are",
    )
    parser.add_argument("command", nargs="+", metavar="-- VERB ...", help="jdlopt's command line")
    flags = parser.parse_args(argv)

    command = [*jdlopt_command(os.environ), *flags.command]
    port = free_port()
    children: list[subprocess.Popen[str]] = []
    relays: list[threading.Thread] = []
    undo = _forward_signals(children)
    try:
        for index in range(flags.processes):
            environment = process_environment(
                os.environ, index, flags.processes, port, flags.devices_per_process
            )
            children.append(_start(command, environment, index))
            if index:
                relays.append(_relay(children[-1], index))
        return wait(children)
    finally:
        for child in children:
            _kill(child)
        for relay in relays:
            relay.join(timeout=1)  # not for ever: what a process started may hold its pipe open
        undo()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def jdlopt_command(environment: Mapping[str, str]) -> list[str]:
    """Returns the words that start jdlopt: those of the variable JDLOPT, or this Python's own."""
    return shlex.split(environment.get("JDLOPT", "")) or [sys.executable, "-m", "jdlopt.cli"]


def free_port() -> int:
    """Returns a port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def process_environment(
    environment: Mapping[str, str], index: int, count: int, port: int, devices: int | None
) -> dict[str, str]:
    """Returns the environment that tells one process who it is among how many.

    Args:
      environment: what the processes inherit.
      index: this process's number, from 0.
      count: the number of processes.
      port: where the first process coordinates them, on loopback.
      devices: fake CPU devices in each process; None leaves the devices as they are.
    """
    told = {
        **environment,
        "JDLOPT_COORDINATOR": f"127.0.0.1:{port}",
        "JDLOPT_NUM_PROCESSES": str(count),
        "JDLOPT_PROCESS_ID": str(index),
    }
    if devices is not None:
        flags = environment.get("XLA_FLAGS", "").split()
        kept = [flag for flag in flags if not flag.startswith(DEVICE_COUNT_FLAG)]
        told["XLA_FLAGS"] = " ".join([*kept, f"{DEVICE_COUNT_FLAG}={devices}"])
        told["JAX_PLATFORMS"] = "cpu"
    return told


def _start(
    command: Sequence[str], environment: Mapping[str, str], index: int
) -> subprocess.Popen[str]:
    """Starts one process; the first owns the terminal, the others have a pipe for their errors.

    Each leads a process group of its own: a Ctrl-C reaches it once, through this script, and not a
    second time from the terminal.
    """
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=None if index == 0 else subprocess.DEVNULL,
        stderr=None if index == 0 else subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    )


def _relay(child: subprocess.Popen[str], index: int) -> threading.Thread:
    """Starts to pass a process's error lines on, each with the process's number before it."""

    def relay(lines: IO[str]) -> None:
        for line in lines:
            sys.stderr.write(f"[process {index}] {line}")
            sys.stderr.flush()

    thread = threading.Thread(target=relay, args=(child.stderr,), daemon=True)
    thread.start()
    return thread


def _forward_signals(children: Sequence[subprocess.Popen[str]]) -> Callable[[], None]:
    """Passes signals on to every process, those started later included; returns how to stop it."""

    def forward(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in FORWARDED}

    def undo() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    return undo


def wait(children: Sequence[subprocess.Popen[str]]) -> int:
    """Waits for all processes, killing those that outlive a failed one; returns the exit code."""
    first_bad, deadline = 0, float("inf")
    while True:
        codes = [child.poll() for child in children]
        bad = [code for code in codes if code]
        if bad and not first_bad:
            first_bad = bad[0] if bad[0] > 0 else 128 - bad[0]  # a negative code is a signal
            grace = SAVING_SECONDS if first_bad == INTERRUPTED else GRACE_SECONDS
            deadline = time.monotonic() + grace
        if None not in codes:
            return first_bad
        if time.monotonic() > deadline:
            left = [index for index, code in enumerate(codes) if code is None]
            print(f"local.py: killing process {', '.join(map(str, left))}", file=sys.stderr)
            for index in left:
                _kill(children[index])
            return first_bad
        time.sleep(0.05)


def _kill(child: subprocess.Popen[str]) -> None:
    """Kills a process and what it started."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


if __name__ == "__main__":
    sys.exit(main())
