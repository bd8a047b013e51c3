"""What is known of a run while it trains, and the bar that shows it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console


class Progress(NamedTuple):
    """What a progress bar shows.

    Attributes:
      step: updates made.
      total_steps: updates in the whole run.
      values: the newest logged values.
      examples_per_second: since training started, compilation not counted.
      waiting: share of the time spent waiting for data.
    """

    step: int
    total_steps: int
    values: Mapping[str, float]
    examples_per_second: float
    waiting: float


class Bar:
    """A progress bar on a terminal or in a notebook; a context manager that stops it.

    Called with a `Progress`, it shows it.

    Args:
      console: where it is shown.
    """

    def __init__(self, console: Console):
        from rich import progress

        self._bar = progress.Progress(
            progress.TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.fields[values]}", markup=False),
            progress.TextColumn("{task.fields[speed]}", style="dim", markup=False),
            progress.TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("train", total=None, values="compiling", speed="")

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __call__(self, now: Progress) -> None:
        """Shows what is known."""
        shown = [name for name in now.values if name in ("train/loss", "validation/loss")]
        shown += [
            name
            for name in now.values
            if name.startswith("validation/") and name != "validation/loss"
        ][:1]
        values = "  ".join(f"{name} {now.values[name]:.4f}" for name in shown)
        speed = f"{now.examples_per_second:,.0f} examples/s"
        if now.waiting > 0.01:
            speed += f", {now.waiting:.0%} waiting for data"
        self._bar.update(
            self._task,
            total=now.total_steps,
            completed=now.step,
            values=values or "…",
            speed=speed,
        )

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def notebook_bar() -> Bar | None:
    """Returns the bar of a notebook's cell, or None outside of one."""
    if "ipykernel" not in sys.modules:
        return None
    from rich.console import Console

    return Bar(Console(force_jupyter=True))
