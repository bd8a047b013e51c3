"""Reading a profiler's trace: how long operations ran, and what the device waited for. Pure.

A trace has planes (the host, a device each) of lines (a thread, a stream) of events. On a TPU or
GPU, operations are events of the device's planes. XLA's CPU backend runs them on threads of the
host: an event of an operation names it in its statistics (``hlo_op``), and ends where the other
event says that it names by number (``_p``, ``_c``): a matrix product goes on in other threads when
the one that began it has returned.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from jdlopt.data.feed import TO_DEVICE
from jdlopt.train.execution import DISPATCH, FEED

Span = tuple[float, float]
"""Begin and end, in nanoseconds."""

OPS_LINES = ("XLA Ops", "Sparse Core Ops")
"""Lines of a TPU's plane that have an event an operation; other lines show the same time again."""
PROGRAM_LINES = ("XLA Modules",)
"""Lines of such a plane that have an event a run of a program."""
RUNNING = "ThunkExecutor::Execute"
"""What events of XLA's CPU backend begin with that span runs of a program, or parts of one."""
COPIES = ("MemcpyH2D", "BufferFromHostBuffer", "TransferToDevice", "H2D Dispatch")
"""What events of copies from the host to a device begin with."""
COMPILING = ("PjRtCpuClient::Compile", "backend_compile", "XlaCompile", "PjRtClient::Compile")
"""What events of compiling begin with."""


class RawEvent(Protocol):
    """An event, as `jax.profiler.ProfileData` gives it."""

    name: str
    start_ns: float
    duration_ns: float
    stats: Iterable[tuple[str, object]]


class RawLine(Protocol):
    """A line of events."""

    name: str
    events: Iterable[RawEvent]


class RawPlane(Protocol):
    """A plane of lines."""

    name: str
    lines: Iterable[RawLine]


class Raw(Protocol):
    """A trace, as `jax.profiler.ProfileData` gives it."""

    planes: Iterable[RawPlane]


class Event(NamedTuple):
    """An operation that ran.

    Attributes:
      program, name: which; ``name`` is the instruction's in the program's text.
      begin, end: in nanoseconds.
      flops, nbytes: where the trace says them, as a TPU's does.
    """

    program: str
    name: str
    begin: float
    end: float
    flops: float | None = None
    nbytes: float | None = None


class Trace(NamedTuple):
    """What is read of a trace.

    Attributes:
      operations: by device, of CPUs all together as ``host``.
      spans: of other things by what they are: one of `KINDS`.
      first, last: the window, in nanoseconds.
    """

    operations: dict[str, list[Event]]
    spans: dict[str, list[Span]]
    first: float
    last: float


KINDS = ("runtime", "compile", "transfer", "data", "dispatch")
"""What else takes time: a program that runs, between its operations; compiling; copying to the
device; getting a batch; and Python's dispatch. Where two of them go on at one moment, the first
here is what it is counted as."""
_NAMED = {TO_DEVICE: "transfer", FEED: "data", DISPATCH: "dispatch"}


def read(raw: Raw, window: str, holds_others: Callable[[str, str], bool]) -> Trace:
    """Returns what a trace says of operations and of the host.

    Args:
      raw: from `jax.profiler.ProfileData`.
      window: the name of the event that spans what is looked at.
      holds_others: says of a program and an operation of it whether it consists of others, as a
        loop does, which are traced by themselves.

    Raises:
      LookupError: no event has this name.
    """
    begun: dict[object, tuple[str, Event]] = {}
    ended: dict[object, float] = {}
    operations: dict[str, list[Event]] = defaultdict(list)
    spans: dict[str, list[Span]] = {kind: [] for kind in KINDS}
    windows: list[Span] = []
    for plane in raw.planes:
        is_device = plane.name.startswith("/device:") and "CUSTOM" not in plane.name
        device, lines = plane.name if is_device else "host", list(plane.lines)
        chosen = [line for line in lines if line.name in OPS_LINES]
        for line in lines:
            for event in line.events:
                begin = float(event.start_ns)
                span = begin, begin + float(event.duration_ns)
                kind = "runtime" if line.name in PROGRAM_LINES else _kind(event.name)
                if event.name == window:
                    windows.append(span)
                elif kind is not None:
                    spans[kind].append(span)
                elif event.name.startswith("end: "):
                    ended[dict(event.stats).get("_c")] = begin
                elif not chosen or line in chosen:
                    stats = dict(event.stats)
                    made = _operation(event.name, stats, span)
                    if made is not None:
                        begun[stats.get("_p", len(begun))] = device, made
    for number, (device, one) in begun.items():
        whole = one._replace(end=ended.get(number, one.end))
        if holds_others(one.program, one.name):
            spans["runtime"].append((whole.begin, whole.end))
        else:
            operations[device].append(whole)
    if not windows:
        raise LookupError(f"the trace has no event {window!r}")
    first, last = min(windows)[0], max(end for _, end in windows)
    return Trace(dict(operations), spans, first, last)


def _kind(name: str) -> str | None:
    if name in _NAMED:
        return _NAMED[name]
    for kind, starts in (("transfer", COPIES), ("compile", COMPILING), ("runtime", RUNNING)):
        if name.startswith(starts):
            return kind
    return None


def _operation(name: str, stats: Mapping[str, object], span: Span) -> Event | None:
    """An event as an operation, or None where it is none."""
    operation = stats.get("hlo_op")
    if operation is None and "hlo_category" not in stats:
        return None
    if operation is None:  # a TPU's event is named by the whole instruction
        found = re.match(r"%?([\w.\-]+)", name)
        operation = found[1] if found else name
    counts = [stats.get(key) for key in ("flops", "bytes_accessed")]
    flops, nbytes = (float(n) if isinstance(n, int | float) else None for n in counts)
    return Event(str(stats.get("hlo_module", "")), str(operation), *span, flops, nbytes)


# --- times ----------------------------------------------------------------------------------------


class Total(NamedTuple):
    """An operation over all the times that it ran.

    Attributes:
      seconds: its parts of the time of each device, see `parts`.
      times: how often it ran.
      flops, nbytes: of one time, where the trace says them.
    """

    seconds: float
    times: int
    flops: float | None
    nbytes: float | None


def totals(devices: Iterable[Sequence[Event]]) -> dict[tuple[str, str], Total]:
    """Returns the time of each operation, by program and name, from the events of each device."""
    found: dict[tuple[str, str], Total] = {}
    for events in devices:
        for event, own in zip(events, parts([(one.begin, one.end) for one in events])):
            key = event.program, event.name
            before = found.get(key, Total(0.0, 0, event.flops, event.nbytes))
            found[key] = before._replace(
                seconds=before.seconds + 1e-9 * own, times=before.times + 1
            )
    return found


def parts(spans: Sequence[Span]) -> list[float]:
    """Returns of each span its part of the time: of a moment of several spans each has as much.

    So the parts sum to the time in which there is a span at all. An operation that waits for a
    thread which another one keeps busy would count as that long otherwise.

    Example:
      >>> parts([(0, 4), (2, 6)])
      [3.0, 3.0]
    """
    bounds = [(at, step, n) for n, (begin, end) in enumerate(spans) if begin < end
              for at, step in ((begin, 1), (end, -1))]  # fmt: skip
    own = [0.0] * len(spans)
    each = at = 0.0  # the part of a span that had been there from the start
    active = 0
    for now, step, number in sorted(bounds):
        each += (now - at) / active if active else 0.0
        at, active = now, active + step
        own[number] -= step * each
    return own


def shares(trace: Trace) -> dict[str, float]:
    """Returns what the time was spent on, as shares that sum to 1.

    ``device`` is the share at which an operation ran (of several devices, their mean). The rest of
    the time a device had nothing to do, and the host was busy with one of `KINDS`, or ``other``:
    what a step's programs and events do not tell.
    """
    whole = trace.last - trace.first
    window = [(trace.first, trace.last)]
    if whole <= 0:
        return {}
    busy = [
        union(within([(one.begin, one.end) for one in events], window))
        for events in trace.operations.values()
    ] or [[]]
    found = {"device": sum(length(one) for one in busy) / len(busy) / whole}
    for kind in KINDS:
        found[kind] = 0.0
    for one in busy:
        known = one
        for kind in KINDS:
            more = union([*known, *within(trace.spans[kind], window)])
            found[kind] += (length(more) - length(known)) / len(busy) / whole
            known = more
    return {**found, "other": max(0.0, 1.0 - sum(found.values()))}


def host_seconds(trace: Trace) -> dict[str, float]:
    """Returns the seconds of each of `KINDS`, whatever the device did meanwhile."""
    window = [(trace.first, trace.last)]
    return {
        kind: 1e-9 * length(union(within(spans, window))) for kind, spans in trace.spans.items()
    }


def union(spans: Iterable[Span]) -> list[Span]:
    """Returns spans as ones that don't touch, in order.

    Example:
      >>> union([(4, 5), (0, 2), (1, 3)])
      [(0, 3), (4, 5)]
    """
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def within(spans: Iterable[Span], windows: Sequence[Span]) -> list[Span]:
    """Returns what lies of spans within windows."""
    cut = [(max(begin, first), min(end, last)) for begin, end in spans for first, last in windows]
    return [(begin, end) for begin, end in cut if begin < end]


def length(spans: Iterable[Span]) -> float:
    """Returns how long spans that don't touch are together."""
    return sum(end - begin for begin, end in spans)
