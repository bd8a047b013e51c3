"""The verbs of many runs: ``tune``, ``report``."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdlopt.cli.show import (
    DIVERGED,
    DONE,
    console,
    has_functions,
    load,
    number,
    one_of,
    place_of,
    print_json,
    print_path,
    run_of,
)
from jdlopt.cli.verbs import ReportFlags, TuneFlags
from jdlopt.errors import UserError

if TYPE_CHECKING:
    from rich import progress

SHOWN = 5
"""The best trials that are printed."""


def tune(flags: TuneFlags) -> int:
    """Searches a space; the trials train in worker processes."""
    from jdlopt.config import Override, override
    from jdlopt.study import space as spaces
    from jdlopt.study.resuming import is_study, resumed
    from jdlopt.study.tune import tune as search

    flags.options.check()
    place = place_of(flags)
    workdir, options = flags.workdir, flags.options
    if is_study(place):
        workdir = one_of(**{"RUN": place, "--workdir": workdir}) or place
        if flags.space is not None:
            raise UserError("--space: the study has its own; name a config with --config instead.")
        config, space, options = resumed(Path(place), options, flags.allow_code)
        config = override(config, {key: Override(text) for key, text in flags.overrides.items()})
    else:
        if flags.space is None and not has_functions(place):
            raise UserError(
                "--space: is missing; only a Python config file has a get_space(). Name a file "
                "with one, or JSON."
            )
        config = load(flags)
        space = spaces.load(flags.space or place)
    if workdir is None:
        raise UserError("--workdir: is missing; name the directory that the study is kept in.")
    with stoppable() as stopped, _Progress(not flags.json) as show:
        result = search(config, space, workdir, options, show, stopped)
    if flags.report:
        from jdlopt.report import write_report

        write_report(result.workdir)
    if flags.json:
        print_json({**result.record, "workdir": str(result.workdir)})
    else:
        _print_study(result.record, result.workdir)
    states = {trial["state"] for trial in result.record["trials"]}
    return DIVERGED if states == {"infeasible"} else DONE


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Makes the first Ctrl-C or SIGTERM a request to stop, and says whether there was one."""
    stop = threading.Event()
    names = (signal.SIGINT, signal.SIGTERM)

    def ask(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # the second one ends at once

    before = {name: signal.signal(name, ask) for name in names}
    try:
        yield stop.is_set
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


class _Progress:
    """A line an improvement; on a terminal, a bar of the trials as well."""

    def __init__(self, wanted: bool):
        self.console = console() if wanted else None
        self.bar: progress.Progress | None = None

    def __enter__(self) -> Callable[[object], None] | None:
        if self.console is None:
            return None
        if self.console.is_terminal:
            from rich import progress

            self.bar = progress.Progress(
                progress.TextColumn("{task.completed:.0f} trials"),
                progress.BarColumn(bar_width=24),
                progress.TextColumn("{task.fields[values]}", markup=False),
                console=self.console,
                transient=True,
            )
            self.task = self.bar.add_task("tune", total=None, values="starting workers")
            self.bar.start()
        return self.update

    def update(self, now: Any) -> None:
        assert self.console is not None
        finished = now.done + now.pruned + now.infeasible + now.left_out
        if now.improved and now.best is not None:
            trial, value = now.best
            self.console.print(f"trial {trial}: {number(value)}, the best of {finished}")
        if self.bar is None:
            return
        parts = [f"{now.running} running"]
        parts += [f"{now.pruned} pruned"] if now.pruned else []
        parts += [f"{now.infeasible} infeasible"] if now.infeasible else []
        parts += [f"{now.left_out} left out"] if now.left_out else []
        parts += [f"best {number(now.best[1])}"] if now.best else []
        parts += [f"{_duration(now.seconds_left)} left"] if now.seconds_left is not None else []
        total = now.trials
        self.bar.update(self.task, total=total, completed=finished, values=", ".join(parts))

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _print_study(record: Mapping[str, Any], workdir: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from jdlopt.report.hyperparameters import shortened
    from jdlopt.study import records
    from jdlopt.study.enqueue import BASE

    out = console()
    trials = {trial["number"]: trial for trial in record["trials"]}
    counts = {
        state: sum(trial["state"] == state for trial in trials.values()) for state in records.STATES
    }
    order = records.best(list(trials.values()), record["objectives"])
    if len(record["objectives"]) > 1:
        order = record["pareto"]
    keys = [row["key"] for row in record["space"]]
    title = f"{workdir}: {record['status']}, {_counted(len(trials), 'trial')}"
    title += "".join(f", {counts[s]} {s}" for s in ("pruned", "infeasible") if counts[s])
    table = Table(title=title)
    table.add_column("trial", justify="right")
    for objective in record["objectives"]:
        table.add_column(objective["name"], justify="right", overflow="fold")
    for name in shortened(keys):
        # a name that does not fit goes on in the next line, cut where it says something
        broken = name if len(keys) < 4 else name.replace("_", "_\n").replace(".", ".\n")
        table.add_column(broken, justify="right", overflow="fold")
    shown = order[:SHOWN]
    bases = [n for n, one in trials.items() if one.get("origin") == BASE and one["values"]]
    shown += [number for number in bases if number not in shown]
    for best in shown:
        trial = trials[best]
        values = [number(value) for value in trial["values"]]
        if trial.get("interval"):
            values = [
                f"{value} ± {(high - low) / 2:.4f}"
                for value, (low, high) in zip(values, trial["interval"])
            ]
        params = [_param(trial["params"].get(key)) for key in keys]
        table.add_row(_named(trial), *values, *params)
    out.print(table if shown else title)
    for reading in record["readings"]:
        if reading["level"] == "warning" or reading["name"] == "base":
            colour = "yellow" if reading["level"] == "warning" else "green"
            out.print(Text.assemble(("•", colour), f" {reading['text']}"))
            if reading["suggestion"]:
                out.print(f"  {reading['suggestion']}", style="dim")
    left = [one for one in record.get("enqueued", ()) if one["trial"] is None]
    if left:
        out.print(
            f"Not trained yet: {_counted(len(left), 'point')} that --enqueue asked for. The same "
            f"command with --trials={len(trials) + len(left)} goes on with what is left."
        )
    told = records.left_out_in_words(record)
    if told is not None:
        out.print(told)
    if record.get("ended"):
        out.print(f"ended: {record['ended']}")
    spent = record["time"]
    out.print(
        f"{_duration(spent['wall_seconds'])} with {_counted(spent['workers'], 'worker')}; "
        f"{spent['outside_share']:.0%} of it neither training nor compiling",
    )
    for file, what in (
        ("report.html", "what the study means"),
        ("best_config.json", "jdlopt train --config=… trains it again"),
        ("study.json", "every trial"),
        ("curves.parquet", "every trial's metrics by step"),
        ("trials/", "the best few as runs"),
    ):
        if (workdir / file).exists():
            print_path(out, workdir / file, what)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _named(trial: Mapping[str, Any]) -> str:
    """Returns a trial's number, and where its point comes from if no sampler drew it."""
    from jdlopt.study.enqueue import SAMPLER

    origin = trial.get("origin", SAMPLER)
    return str(trial["number"]) + ("" if origin == SAMPLER else f" ({origin})")


def _param(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"')


def report(flags: ReportFlags) -> int:
    """Writes ``report.html`` of a run or a study."""
    from jdlopt.report import write_report

    what = "the directory of a run, a study or a comparison"
    place = run_of("report", flags, what, must_be_run=False)
    path = write_report(Path(place), allow_code=flags.allow_code)
    if flags.json:
        print_json({"report": str(path)})
    else:
        console().print(f"{path}", soft_wrap=True)
    return DONE
