"""Where workers run: on this machine, on those of a Ray cluster, or in a SLURM allocation."""

from __future__ import annotations

import re
from typing import NamedTuple

from jdlopt.errors import UserError, nearest

HERE, RAY, SLURM = KINDS = ("here", "ray", "slurm")
RESOURCES = ("cpus", "gpus", "tpus")
PLACES = "here, ray[:HOST:PORT] or slurm; and what a worker takes there: ray,cpus=N,gpus=N"


class Place(NamedTuple):
    """Where workers run, and what each of them takes there.

    Attributes:
      kind: ``here``, ``ray`` or ``slurm``.
      address: ``HOST:PORT`` of a Ray cluster; None: the one that this machine is part of.
      cpus, gpus, tpus: of a worker; None: by what the machines have.
    """

    kind: str = HERE
    address: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    tpus: int | None = None

    @classmethod
    def read(cls, text: str | None) -> Place:
        """Reads what ``--workers-on`` says.

        Raises:
          UserError: it can't be read, or asks for what the place does not have.

        Example:
          >>> Place.read("ray:10.0.0.1:6379,cpus=4,gpus=1")
          Place(kind='ray', address='10.0.0.1:6379', cpus=4, gpus=1, tpus=None)
          >>> Place.read(None)
          Place(kind='here', address=None, cpus=None, gpus=None, tpus=None)
        """
        if text is None:
            return cls()
        where, *rest = str(text).split(",")
        kind, _, address = where.partition(":")
        if kind not in KINDS:
            raise UserError(
                f"--workers-on: {kind!r} is unknown.{nearest(kind, KINDS)} Expected {PLACES}."
            )
        if address and (kind != RAY or re.fullmatch(r"[^\s/]+:\d+", address) is None):
            raise UserError(f"--workers-on: {where!r}: {address!r} is no address of {kind}'s. "
                            f"Expected {PLACES}.")  # fmt: skip
        return cls(kind, address or None, **dict(map(_resource, rest)))._check()

    def _check(self) -> Place:
        given = {name for name in RESOURCES if getattr(self, name) is not None}
        if self.kind == HERE and given:
            raise UserError(
                f"--workers-on: {min(given)}: workers on this machine share what it has; leave it "
                "out, or set --workers."
            )
        if self.kind == SLURM and self.tpus is not None:
            raise UserError("--workers-on: slurm knows cpus and gpus, not tpus.")
        return self

    @property
    def one_core(self) -> bool:
        """Whether a worker takes one core of its machine."""
        return (self.cpus or 1) == 1 and not self.gpus and not self.tpus


def _resource(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in RESOURCES:
        raise UserError(
            f"--workers-on: {text!r}: {name!r} is unknown.{nearest(name, RESOURCES)} "
            f"Expected {PLACES}."
        )
    least = 1 if name == "cpus" else 0
    if re.fullmatch(r"\d{1,6}", number) is None or int(number) < least:
        raise UserError(f"--workers-on: {text!r}: expected {name}=N, a whole number from {least}.")
    return name, int(number)


def place_problems(text: str | None) -> list[str]:
    """Returns what is wrong with what ``--workers-on`` says, in words."""
    try:
        Place.read(text)
    except UserError as error:
        return [str(error)]
    return []
