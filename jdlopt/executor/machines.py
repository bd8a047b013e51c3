"""Which of several machines can do what is asked for: what one lacks, another may have.

A machine that does not see the data, or has another library, fails at once at whatever it is given,
and would soon have failed at all that waits. So what fails on one machine is tried on another; if
that can do it, the first is left out: its workers keep their places, and get nothing more.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection

from jdlopt.executor.messages import ENVIRONMENT, WRONG_INPUT, Failed
from jdlopt.executor.task import Task


class MachineWarning(UserWarning):
    """A machine can't do what others can, and is left out."""


class Machines:
    """What is known of the machines that workers run on, by their names.

    Attributes:
      left_out: why a machine gets nothing more.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}

    def may_do(self, host: str, task: Task, hosts: Collection[str]) -> bool:
        """Says whether a machine may be given a task.

        Args:
          host: its name.
          task: what it would be given.
          hosts: all machines that workers are ready on.
        """
        if host in self.left_out:
            return False
        return host not in task.refused or not self._others(task, hosts)

    def _others(self, task: Task, hosts: Collection[str]) -> set[str]:
        return {one for one in hosts if one not in task.refused and one not in self.left_out}

    def refuse(self, host: str, task: Task, failure: Failed, hosts: Collection[str]) -> bool:
        """Notes that a task failed on a machine; says whether another is to try it."""
        if failure.kind not in (WRONG_INPUT, ENVIRONMENT):
            return False
        task.refused[host] = failure.message
        return bool(self._others(task, hosts))

    def leave_out(self, host: str, why: str) -> None:
        """Gives a machine nothing more, and says so once."""
        if host not in self.left_out:
            self.left_out[host] = why
            warnings.warn(f"the machine {host} is left out: {why}", MachineWarning, stacklevel=2)

    def done(self, host: str, task: Task) -> None:
        """Leaves out the machines that could not do what one has done."""
        for other, why in task.refused.items():
            if other != host:
                self.leave_out(other, f"others can do what it can't: {why}")
