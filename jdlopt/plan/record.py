"""What a plan says: one frozen record, which JSON holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jdlopt.plan.roofline import Seconds

PLAN = "plan.json"


@dataclass(frozen=True)
class Sent:
    """Collectives of one kind over the same mesh axes, of one step.

    Attributes:
      kind: such as ``all-gather``.
      axes: the mesh axes.
      count: how many there are.
      nbytes: of their arrays on a chip together.
    """

    kind: str
    axes: tuple[str, ...]
    count: float
    nbytes: float


@dataclass(frozen=True)
class Costly:
    """An operation that takes much of the time.

    Attributes:
      name, kind: the instruction's.
      source: jax's name of where it comes from.
      times: how often it runs in a step.
      flops, hbm_bytes: of all of these together.
      seconds: the same, at least.
    """

    name: str
    kind: str
    source: str
    times: float
    flops: float
    hbm_bytes: float
    seconds: float


@dataclass(frozen=True)
class Program:
    """What one program takes and does on a chip; a training program of many steps, a step of it.

    Attributes:
      name: ``training`` or ``evaluation``.
      steps: in one dispatch.
      fits: whether it does, with what lies in memory beside it.
      memory: bytes on a chip at its peak, by what they are.
      peak: what the compiler says that the program takes at its peak, its arguments included; where
        the program doesn't fit, what it would take.
      beside: bytes that lie on a chip meanwhile and are no argument of it.
      examples: in a step, over all chips.
      flops: of a chip's matrix products and convolutions.
      hbm_bytes: between a chip and its memory.
      collectives: what is sent.
      seconds: the roofline; None where the program doesn't fit, so that there is none.
      costliest: the operations that take the most time.
      unread_loops: loops whose length can't be read, beside the one over steps; one turn of them
        counts.
      compile_seconds: what lowering and compiling it took here.
      said: the compiler's message, where it says that the program doesn't fit.
    """

    name: str
    steps: int
    fits: bool
    memory: Mapping[str, int]
    peak: int
    beside: int
    examples: int
    flops: float = 0.0
    hbm_bytes: float = 0.0
    collectives: tuple[Sent, ...] = ()
    seconds: Seconds | None = None
    costliest: tuple[Costly, ...] = ()
    unread_loops: int = 0
    compile_seconds: float = 0.0
    said: str = ""


@dataclass(frozen=True)
class Range:
    """A quantity by the fast and the slow estimate."""

    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """What a config takes on a machine that is not here.

    Attributes:
      topology, slices, chip, chips: the machine.
      mesh: devices along each axis.
      batch_size: examples in a step, over all chips.
      parameters: numbers in the model.
      limit: bytes of memory that a program has on a chip.
      fits: whether training and evaluation do.
      training, evaluation: the programs.
      total_steps: of the whole training.
      model_flops: of a step over all chips, without what is computed again to save memory.
      step_seconds, examples_per_second, mfu: of training; None where it doesn't fit. MFU is model
        FLOPs against what the chips could do in bfloat16.
      hours: of the training steps alone; ``chip_hours``: these times the chips.
      price, cost: dollars for a chip-hour, and for all; None where no price was given.
      message: where it doesn't fit, in one sentence: what it takes, what there is, what to try.
      versions: of jax and of libtpu.
    """

    topology: str
    slices: int
    chip: str
    chips: int
    mesh: Mapping[str, int]
    batch_size: int
    parameters: int
    limit: int
    fits: bool
    training: Program
    evaluation: Program | None
    total_steps: int
    model_flops: float
    step_seconds: Range | None
    examples_per_second: Range | None
    mfu: Range | None
    hours: Range | None
    chip_hours: Range | None
    price: float | None
    cost: Range | None
    message: str
    versions: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Plan:
        """Returns the plan that `to_dict` gave."""
        ranges = ("step_seconds", "examples_per_second", "mfu", "hours", "chip_hours", "cost")
        evaluation = values["evaluation"]
        return Plan(
            **{
                **values,
                **{name: values[name] and Range(**values[name]) for name in ranges},
                "training": _program(values["training"]),
                "evaluation": None if evaluation is None else _program(evaluation),
            }
        )


def _program(values: Mapping[str, Any]) -> Program:
    sent = (Sent(**{**one, "axes": tuple(one["axes"])}) for one in values["collectives"])
    return Program(
        **{
            **values,
            "collectives": tuple(sent),
            "seconds": values["seconds"] and Seconds(**values["seconds"]),
            "costliest": tuple(Costly(**one) for one in values["costliest"]),
        }
    )
