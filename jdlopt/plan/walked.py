"""What a walk over a traced step keeps of each array, and what it writes down. Pure data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

FORWARD, BACKWARD, AGAIN = "forward", "backward", "recomputed"
"""When an operation runs: in the forward pass, in the backward pass, or there once more."""
PRIMES = (997, 991, 983, 977)
"""Batch sizes to trace with: what they divide grows with the batch, as no other size has them as a
factor."""
POWERS = 3
"""Amounts are counted by the powers 0, 1 and 2 of the batch size; more count as 2."""


class Amount(NamedTuple):
    """A number of operations or bytes: ``each · batch ** power``."""

    each: float
    power: int

    def by_power(self) -> np.ndarray:
        """Returns it as a row with an entry for each power."""
        row = np.zeros(POWERS)
        row[min(self.power, POWERS - 1)] = self.each
        return row


NOTHING = Amount(0.0, 0)


def amount(count: int, prime: int) -> Amount:
    """Returns a count at the traced batch size as what it is at any.

    Example:
      >>> amount(997 * 6, prime=997), amount(12, prime=997)
      (Amount(each=6.0, power=1), Amount(each=12.0, power=0))
    """
    power = 0
    while count and count % prime == 0:
        count //= prime
        power += 1
    return Amount(float(count), power)


def total(amounts: Iterable[Amount]) -> np.ndarray:
    """Returns the sum of amounts by power."""
    return sum((one.by_power() for one in amounts), np.zeros(POWERS))


@dataclass(slots=True)
class Terms:
    """What devices still have to add up, as a product has it whose sum is split over them.

    Attributes:
      axes: over which.
      size: of an array of it, in the narrowest type that it goes through.
      added: whether that was done.
    """

    axes: frozenset[str]
    size: Amount
    added: bool = False


@dataclass(slots=True)
class Array:
    """What is known of an array of a traced step.

    Attributes:
      size: its bytes.
      itemsize: bytes of one of its numbers.
      known: whether it is the same whatever the parameters and the batch; the compiler makes such
        an array where it is used.
      weights: whether it is made of parameters alone.
      ident: its number among those that lie in memory; None: it is computed where it is used.
      sources: the numbers of those that it is computed from.
      leaf: the parameter that it is, in whatever type and order, or None.
      dims: which dimension of the parameter each of its own is; None where that is unknown.
      over: axes of the mesh, other than the batch's, over which it is split.
      terms: of which it is one on each device, or None.
    """

    size: Amount
    itemsize: int
    known: bool = False
    weights: bool = False
    ident: int | None = None
    sources: frozenset[int] = frozenset()
    leaf: int | None = None
    dims: tuple[int | None, ...] | None = None
    over: frozenset[str] = frozenset()
    terms: Terms | None = None

    @property
    def partial(self) -> frozenset[str]:
        """The axes over which it still has to be added up."""
        return frozenset() if self.terms is None or self.terms.added else self.terms.axes

    @property
    def reads(self) -> frozenset[int]:
        """The arrays in memory that its use reads."""
        return self.sources if self.ident is None else frozenset((self.ident,))


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that a step does once, or as often as the loop that it is in turns.

    Attributes:
      name: of the primitive, or of the function that is one kernel.
      phase: `FORWARD`, `BACKWARD` or `AGAIN`.
      times: how often.
      flops: of its matrix products and convolutions.
      dtype: that these multiply in.
      vector: other operations on numbers; counted where no memory traffic hides them.
      moved: bytes of activations that it reads from memory and writes to it.
      weights: the same of parameters, each gathered from where FSDP keeps it.
      kept: the same of parameters where they lie.
      over: axes of the mesh, other than the batch's, that divide it.
    """

    name: str
    phase: str
    times: int
    flops: Amount = NOTHING
    dtype: str = "float32"
    vector: Amount = NOTHING
    moved: tuple[Amount, ...] = ()
    weights: float = 0.0
    kept: float = 0.0
    over: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Sent:
    """A collective of activations.

    Attributes:
      axis: of the mesh, over which.
      kind: ``all-reduce``, ``all-gather`` or ``all-to-all``.
      phase, times: as in `Operation`.
      size: of the array on a device, were it not split over `over`.
      over: axes that split it besides.
    """

    axis: str
    kind: str
    phase: str
    times: int
    size: Amount
    over: frozenset[str]


@dataclass(slots=True)
class Event:
    """A moment of a step: which arrays are read and made, and what goes on within a loop."""

    reads: frozenset[int]
    makes: tuple[int, ...] = ()
    inner: list[Event] = field(default_factory=list)


@dataclass(slots=True)
class Parameter:
    """A parameter, and how a step uses it.

    Attributes:
      path, shape: of it.
      itemsize: bytes of a number as it is kept.
      used: bytes of a number as it is used: 2 where it is cast to bfloat16 first.
      phases: when it is read.
      turns: of the loop that takes a slice of it at a time; 1: it is used whole.
    """

    path: str
    shape: tuple[int, ...]
    itemsize: int
    used: int = 0
    phases: set[str] = field(default_factory=set)
    turns: int = 1

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape, dtype=np.int64))
