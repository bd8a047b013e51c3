"""What a profile holds, as it is written to ``profile.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

PROFILE, TRACE = "profile.json", "profile"
"""The file of the record, and the folder of the trace, as XProf and TensorBoard look into it."""
SHARES = {
    "device": "operations on the device",
    "runtime": "between operations",
    "compile": "compiling",
    "transfer": "copying to the device",
    "data": "waiting for data",
    "dispatch": "dispatch (Python)",
    "other": "other",
}
"""What the time of a step is spent on, in words."""


@dataclass(frozen=True)
class Operation:
    """An operation of a compiled program, over all the times that it ran.

    Attributes:
      name: of the instruction in the program's text, such as ``dot.5``.
      program: which program, such as ``jit_one_step``.
      kind: what it does: ``dot``, ``convolution``, ``fusion of reduce``, …
      where: the file and line that it comes from, of the user's code or jdlopt's; empty if unknown.
      layer: the layer that it belongs to, with ``backward`` where it is of the backward pass.
      seconds: over all steps and devices; where several ran at a moment, each has its part of it.
      share: of all operations' seconds.
      count: how often it ran.
      flops: of its matrix products and convolutions, of one time; None where it has none.
      nbytes: what it takes and makes, by the shapes, of one time; None where they are not known.
    """

    name: str
    program: str
    kind: str
    where: str
    layer: str
    seconds: float
    share: float
    count: int
    flops: float | None
    nbytes: float | None


@dataclass(frozen=True)
class Line:
    """A line of source, by the operations that come from it."""

    where: str
    share: float
    kinds: Sequence[str]


@dataclass(frozen=True)
class Buffer:
    """Memory of a step on a device, by what it is for.

    Attributes:
      what: an array's path in the state, or the operation that makes it.
      kind: ``parameters``, ``optimizer``, ``state``, or ``temporary``.
      shape: of it on one device, ``f32[32,64]``.
      where: the line that a temporary one comes from.
      nbytes: on one device.
    """

    what: str
    kind: str
    shape: str
    where: str
    nbytes: int


@dataclass(frozen=True)
class Memory:
    """What a training step takes of a device.

    Attributes:
      arguments, outputs, temporaries, in_place: bytes as the compiler counts them: what the program
        is given, makes, needs meanwhile, and writes over what it was given.
      peak: the compiler's own peak; None where it says none.
      in_use_at_most: what the device says was in use at most; None where it says nothing, as a CPU.
      buffers: the largest, first.
    """

    arguments: int
    outputs: int
    temporaries: int
    in_place: int
    peak: int | None
    in_use_at_most: int | None
    buffers: Sequence[Buffer]


@dataclass(frozen=True)
class Profile:
    """Where the time of a run's steps goes.

    Attributes:
      model, source: the names in the config.
      device: its kind; ``devices``: how many, of so many ``processes``, of which this is the first.
      mode: how steps are dispatched: ``step`` or ``loop``.
      steps_per_dispatch: how many at once, at most.
      batch_size: examples in a step.
      steps: that were traced; ``seconds``: what they took.
      shares: of these seconds, see `jdlopt.profiling.trace.shares`.
      host: seconds of what the host did, whatever the devices did meanwhile.
      compile_seconds: of the programs of training; ``build_seconds``: of opening the data, building
        the experiment and tracing its step.
      operations: the longest first; what is beyond is one row at the end.
      lines: the same by line of source.
      memory: of the training program; None where the compiler says nothing.
      trace: the folder with the trace, beside the record; empty if it was not kept.
      versions: of jax and others.
    """

    model: str
    source: str
    device: str
    devices: int
    processes: int
    mode: str
    steps_per_dispatch: int
    batch_size: int
    steps: int
    seconds: float
    shares: Mapping[str, float]
    host: Mapping[str, float]
    compile_seconds: float
    build_seconds: float
    operations: Sequence[Operation]
    lines: Sequence[Line]
    memory: Memory | None
    trace: str
    versions: Mapping[str, str]

    @property
    def step_seconds(self) -> float:
        """What a step takes."""
        return self.seconds / self.steps

    def to_dict(self) -> dict[str, object]:
        """Returns it as JSON can hold it."""
        return asdict(self)
