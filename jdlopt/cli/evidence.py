"""The verbs that weigh evidence: ``compare``, ``ablate``, ``improve``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jdlopt.cli.show import (
    DONE,
    config_at,
    console,
    has_functions,
    load,
    number,
    place_of,
    print_json,
    print_path,
)
from jdlopt.cli.study import stoppable
from jdlopt.cli.verbs import AblateFlags, CompareFlags, ImproveFlags
from jdlopt.errors import UserError
from jdlopt.evidence.options import ACCURACY, SIZE, SPEED, PairOptions

if TYPE_CHECKING:
    from rich.progress import Progress

    from jdlopt.config import AnyConfig

Options = TypeVar("Options", bound=PairOptions)

COLOURS = {"adopt": "green", "drop": "red", "undecided": "yellow"}


def compare(flags: CompareFlags) -> int:
    """Compares two configs, or one with a technique applied to it."""
    from jdlopt.evidence import compare as comparison
    from jdlopt.evidence import sides

    first, second = _sides(flags)
    options = _with_space(flags.options, flags.space, first if has_functions(first) else None)
    options.check()
    a = config_at(first, flags.overrides, flags.allow_code)
    if second.startswith("+"):
        from jdlopt.evidence import ablate as ablation

        chosen = ablation.parse(second.removeprefix("+").split(","))
        b: AnyConfig = ablation.applied(sides.side_of(a), chosen)[0].raw
    else:
        b = config_at(second, flags.overrides, flags.allow_code)
    out = None if flags.json else console()

    def look(record: Mapping[str, Any]) -> None:
        if out is not None and record["status"] == "running":
            out.print(f"{record['seeds']} seeds: {_effect(record['effect'])}")

    with stoppable() as stopped:
        record = comparison.compare(a, b, flags.workdir, options, look, stopped)
    page = _page(flags)
    if flags.json:
        print_json(_plain({**record, "workdir": flags.workdir}))
    else:
        _print_comparison(record, page)
    return DONE


def _sides(flags: CompareFlags) -> tuple[str, str]:
    """Returns what A and B are; ``--config`` stands for A."""
    given = [one for one in (flags.config, flags.a, flags.b) if one is not None]
    if len(given) == 2:
        return given[0], given[1]
    what = "two configs" if len(given) < 2 else "two configs, not three"
    raise UserError(
        f"compare: takes {what}: `jdlopt compare A B`, where each is a config file or a run's "
        "directory, and B may be +NAME, A with a technique; --config=A stands for A."
    )


def ablate(flags: AblateFlags) -> int:
    """Measures techniques alone on a baseline, and left out from all together."""
    from jdlopt.evidence import ablate as ablation

    options = _with_space(flags.options, flags.space)
    config = load(flags)
    with stoppable() as stopped, _Bar(not flags.json) as show:
        record = ablation.ablate(config, flags.techniques, flags.workdir, options, show, stopped)
    page = _page(flags)
    if flags.json:
        print_json(_plain({**record, "workdir": flags.workdir}))
    else:
        _print_ablation(record, page)
    return DONE


def improve(flags: ImproveFlags) -> int:
    """Makes a config better by itself, and says by how much."""
    from jdlopt.evidence import improve as improvement

    flags.options.check()
    place, config = place_of(flags), load(flags)
    out = None if flags.json else console()

    def say(text: str) -> None:
        if out is not None:
            out.print(text)

    with stoppable() as stopped:
        record = improvement.improve(
            config,
            flags.workdir,
            flags.options,
            file=None if Path(place).is_dir() else place,
            allow_code=flags.allow_code,
            on_progress=say,
            should_stop=stopped,
        )
    page = _page(flags)
    if flags.json:
        print_json(_plain({**record, "workdir": flags.workdir}))
    else:
        _print_improvement(record, page)
    return DONE


def _print_improvement(record: Mapping[str, Any], page: Path | None) -> None:
    from rich.table import Table

    from jdlopt.evidence.costs import in_words as in_words_of_cost
    from jdlopt.evidence.remaining import in_words

    out = console()
    table = Table(title=f"{record['metric']}, what was adopted")
    saved = {ACCURACY: [], SIZE: ["bytes"], SPEED: ["a prediction"]}[record["aim"]]
    for name in ("technique", "gain", record["metric"], *saved, "step time"):
        table.add_column(name, justify="left" if name == "technique" else "right")
    for step in record["steps"]:
        before, after = step["before_step_seconds"], step["step_seconds"]
        share = step["share"]
        table.add_row(
            step["technique"],
            _short(step["effect"]),
            number(step["value"]),
            *("–" if share is None else f"{share:.2f}×" for _ in saved),
            f"{after / before:.2f}×" if before and after else "–",
        )
    if record["steps"]:
        out.print(table)
    out.print(f"It ended because {record['why']}.")
    told = in_words(record)
    if told is not None:
        out.print(told)
    elif not record["steps"]:
        out.print("No technique survived a fair test: the baseline stands.")
    _print_left_out(record)
    if record["cost"]:
        out.print(f"{in_words_of_cost(record['cost'])}.")
    if record["confirmed"]:
        may = f"; {number(record['margin'])} may be lost" if record["within"] else ""
        out.print(f"The whole, on fresh seeds: {_effect(record['confirmed'])}{may}")
    if record["test"] and record["test"]["effect"]:
        test = record["test"]
        out.print(f"{test['metric']}: {_effect(test['effect'])}")
    print_path(out, record["file"], "jdlopt train --config=… trains it")
    if record.get("file_note"):
        out.print(record["file_note"])
    if page is not None:
        out.print(f"  {page}", soft_wrap=True)


def _print_left_out(record: Mapping[str, Any]) -> None:
    """Prints what did not fit in memory, and what to do."""
    from jdlopt.memory import LESS_MEMORY

    short = record.get("did_not_fit")
    if short:
        reason = next(iter(short.values())).rstrip(".")
        console().print(
            f"left out: {', '.join(short)}: {reason}. The same command tries again. {LESS_MEMORY}"
        )


def _with_space(options: Options, file: str | None, marked: str | None = None) -> Options:
    """Returns options with the nuisance keys of a file, or those that a config's file marks."""
    from jdlopt.study import space as spaces

    if file:
        return replace(options, space=spaces.load(file))
    if not options.tune or marked is None:
        return options
    found = spaces.load(marked)
    return replace(options, space={k: one for k, one in found.items() if one.role == "nuisance"})


def _page(flags: CompareFlags | AblateFlags | ImproveFlags) -> Path | None:
    if not flags.report:
        return None
    from jdlopt.report import write_report

    return write_report(Path(flags.workdir))


def _plain(record: Mapping[str, object]) -> Any:
    from jdlopt.train.disk import as_json

    return as_json(record)


class _Bar:
    """How many trainings are done, on a terminal."""

    def __init__(self, wanted: bool):
        self.console = console() if wanted else None
        self.bar: Progress | None = None

    def __enter__(self) -> Callable[[int, int], None] | None:
        if self.console is None or not self.console.is_terminal:
            return None
        from rich import progress

        bar = self.bar = progress.Progress(
            progress.TextColumn("{task.completed:.0f} of {task.total:.0f} trainings"),
            progress.BarColumn(bar_width=24),
            progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        task = bar.add_task("train", total=None)
        bar.start()
        return lambda done, total: bar.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def gain(value: float | None) -> str:
    """Returns a gain with its sign, as a table shows it."""
    return "–" if value is None else f"{value:+.4f}"


def _effect(effect: Mapping[str, Any] | None) -> str:
    if effect is None:
        return "no effect can be measured"
    low, high = effect["interval"]
    if low is None or abs(low) == float("inf"):
        return f"{gain(effect['mean'])}, too few seeds for an interval"
    return f"{gain(effect['mean'])} ({effect['level']:.0%} interval {gain(low)} to {gain(high)})"


def _print_comparison(record: Mapping[str, Any], page: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    table = Table(title=f"{record['metric']}, {record['seeds']} seeds")
    table.add_column("")
    table.add_column("A", justify="right")
    table.add_column("B", justify="right")
    a, b = record["a"], record["b"]
    table.add_row(
        record["metric"], *(f"{number(one['mean'])} ± {one['std']:.4f}" for one in (a, b))
    )
    for name, words in (
        ("step_seconds", "seconds a step"),
        ("n_params", "parameters"),
        ("steps", "steps"),
    ):
        shown = [f"{one[name]:.3g}" if name == "step_seconds" and one[name] else one[name]
                 for one in (a, b)]  # fmt: skip
        table.add_row(words, *(f"{v:,}" if isinstance(v, int) else str(v) for v in shown))
    for name, words in (("memory", "bytes of a step"), ("bytes", "bytes of the weights")):
        table.add_row(words, *(f"{record[name][side]:,}" for side in "ab"))
    for key, (before, after) in record["changes"].items():
        table.add_row(key, str(before), str(after))
    out.print(table)
    decision = record["decision"]
    out.print(
        Text.assemble(
            (decision, COLOURS[decision]),
            f": B against A {record['reason'] or _effect(record['effect'])}",
        )
    )
    if decision == "undecided" and record["effect"]:
        needed = record["effect"]["seeds_needed"]
        if needed is None:
            out.print("No number of seeds would make so small a gain clear.")
        else:
            out.print(
                f"If the gain is as large as it looks, {needed} seeds make it clear: "
                f"--seeds={needed} goes on from here.",
            )
        out.print(
            f"With these looks, a gain of {number(record['detectable'])} is found 8 times in 10.",
        )
    if page is not None:
        out.print(f"  {page}", soft_wrap=True)


def _print_ablation(record: Mapping[str, Any], page: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    title = f"{record['metric']}: {number(record['arms']['baseline']['mean'])} at the baseline"
    table = Table(title=f"{title}, {record['seeds']} seeds")
    for name in ("technique", "alone", "left out", "step time", "decision"):
        table.add_column(name, justify="left" if name in ("technique", "decision") else "right")
    for row in record["techniques"]:
        ratio = row["cost"]["training_seconds"]
        colour = COLOURS[row["decision"]]
        table.add_row(
            row["technique"],
            _short(row["alone"]),
            _short(row["left_out"]),
            "–" if ratio is None else f"{ratio:.2f}×",
            Text(row["decision"], colour),
        )
    if record["all"] is not None:
        table.add_row("all together", _short(record["all"]), "", "", "")
    out.print(table)
    _print_left_out(record)
    for name in record["interactions"]:
        row = next(row for row in record["techniques"] if row["technique"] == name)
        low, high = row["interaction"]["interval"]
        out.print(
            f"{name} is worth {gain(row['interaction']['mean'])} ({gain(low)} to "
            f"{gain(high)}) more beside the others than alone.",
        )
    if page is not None:
        out.print(f"  {page}", soft_wrap=True)


def _short(effect: Mapping[str, Any] | None) -> str:
    if effect is None:
        return "–"
    low, high = effect["interval"]
    return f"{gain(effect['mean'])} ({gain(low)} to {gain(high)})"
