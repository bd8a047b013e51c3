"""The verb ``train``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdlopt.cli import cost
from jdlopt.cli.show import (
    DONE,
    WRONG_INPUT,
    config_at,
    console,
    is_config_file,
    number,
    one_of,
    print_json,
    print_path,
    start,
)
from jdlopt.cli.verbs import TrainFlags
from jdlopt.errors import UserError

if TYPE_CHECKING:
    import ml_collections


def train(flags: TrainFlags) -> int:
    """Trains one config, or shows it, its model or the batch that fits."""
    file = flags.run if flags.run is not None and is_config_file(flags.run) else None
    workdir = one_of(**{"RUN": flags.run if file is None else None, "--workdir": flags.workdir})
    config = _config_of(flags, workdir, file)
    speaks = start()
    if flags.print_config:
        from jdlopt.config import dumps
        from jdlopt.train.experiment import Experiment

        text = dumps(Experiment.build(config).config)
        if speaks:
            print(text, end="")
        return DONE
    if flags.memory is not None and not flags.find_batch_size:
        raise UserError("--memory: is a device's, for --find-batch-size; give that as well.")
    if flags.print_model:
        return cost.print_model(config, flags.json) if speaks else DONE
    if flags.find_batch_size:
        return cost.find_batch_size(config, flags.memory, flags.json) if speaks else DONE
    if not workdir:
        raise UserError("--workdir: is missing; name the directory that the run is kept in.")
    from jdlopt.train.loop import fit
    from jdlopt.train.progress import Bar

    where = console()
    shows = speaks and not flags.json and where.is_terminal
    with Bar(where) if shows else nullcontext() as show:
        result = fit(config, workdir, show)
    if speaks and flags.json:
        print_json({**result.record, "workdir": str(result.workdir)})
    elif speaks:
        _print_result(result.record, Path(workdir))
    return WRONG_INPUT if result.record.get("not_evaluated") else DONE


def _config_of(
    flags: TrainFlags, workdir: str | None, file: str | None
) -> ml_collections.ConfigDict:
    """The config that the flags name, or that of the run which they name; overrides as text."""
    named = one_of(**{"RUN": file, "--config": flags.config})
    if named is None and not (workdir and (Path(workdir) / "config.json").is_file()):
        where = f"{workdir!r} holds no run that could go on" if workdir else "no run is named"
        raise UserError(
            f"--config: is missing, and {where}. Name the file that holds get_config(), or a run's "
            "directory."
        )
    return config_at(named or workdir or "", flags.overrides, flags.allow_code)


def _share_of_time(goodput: Mapping[str, Any] | None) -> str:
    """Says which part of a run's time made steps that count, and what took most of the rest."""
    if not goodput or goodput["share"] is None:
        return ""
    rest = {kind: one for kind, one in goodput["seconds"].items() if kind != "steps"}
    most = max(rest, key=lambda kind: rest[kind])
    starts = f" over {goodput['starts']} starts" if goodput["starts"] > 1 else ""
    words = most.replace("_", " ")
    return (
        f"; goodput {goodput['share']:.0%}{starts}, most of the rest {words} ({rest[most]:.1f} s)"
    )


def _print_result(record: Mapping[str, Any], workdir: Path) -> None:
    from rich.table import Table

    out = console()
    found = record["metrics"]
    splits = [
        split
        for split in ("train", "validation", "test")
        if any(name.startswith(f"{split}/") for name in found)
    ]
    names = dict.fromkeys(
        name.partition("/")[2]
        for name, value in found.items()
        if isinstance(value, int | float) and not name.endswith("grad_norm")
    )
    table = Table(title=f"{workdir}: {record['status']} after {record['steps']:,} steps")
    table.add_column("metric")
    for split in splits:
        table.add_column(split, justify="right")
    for name in names:
        table.add_row(name, *(number(found.get(f"{split}/{name}", None)) for split in splits))
    out.print(table)
    best = record["best"]
    speed = record["examples_per_second"]
    out.print(
        f"best {best['metric']} {number(best['value'])} at step {best['step']:,}; "
        f"{record['n_params']:,} parameters; {record['wall_seconds']:.1f} s, of it "
        f"{record['compile_seconds']:.1f} s compiling"
        + (f"; {speed:,.0f} examples/s" if speed else "")
        + _share_of_time(record.get("goodput")),
    )
    for split, reason in record.get("not_evaluated", {}).items():
        out.print(f"the {split} split is not evaluated: {reason}", soft_wrap=True)
    for file, what in (
        ("result.json", "these numbers and what they depend on"),
        ("metrics.jsonl", "a line per logged step"),
        ("metrics.csv", "the same as a table"),
        ("splits.csv", "which rows or files are in which split"),
        ("checkpoints/", "newest and best"),
        ("tensorboard/", "scalars and hparams"),
        ("wandb/", "what wandb keeps; `wandb sync` sends what was logged offline"),
    ):
        if (workdir / file).exists():
            print_path(out, workdir / file, what)
    for name, one in record.get("loggers", {}).items():
        if "url" in one:
            out.print(f"{name}: {one['url']}", soft_wrap=True)
        if one.get("lost_steps"):
            out.print(f"{name}: {one['lost_steps']:,} steps were not logged: {one['reason']}")
