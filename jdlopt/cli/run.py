"""The verbs of one run: ``train``, ``eval``, ``predict``."""

from __future__ import annotations

import sys
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
    run_of,
    start,
)
from jdlopt.cli.verbs import EvalFlags, PredictFlags, TrainFlags
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
        where = f"{workdir} holds no run that could go on" if workdir else "no run is named either"
        raise UserError(
            f"--config: is missing, and {where}. Name the file that holds get_config(), or a run's "
            "directory."
        )
    return config_at(named or workdir or "", flags.overrides, flags.allow_code)


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
        + (f"; {speed:,.0f} examples/s" if speed else ""),
    )
    for split, reason in record.get("not_evaluated", {}).items():
        out.print(f"the {split} split is not evaluated: {reason}", soft_wrap=True)
    for file, what in (
        ("result.json", "these numbers and what they depend on"),
        ("metrics.jsonl", "a line per logged step"),
        ("splits.csv", "which rows or files are in which split"),
        ("checkpoints/", "newest and best"),
        ("tensorboard/", "scalars and hparams"),
    ):
        if (workdir / file).exists():
            print_path(out, workdir / file, what)


def evaluate(flags: EvalFlags) -> int:
    """Evaluates a checkpoint of a run on a split."""
    speaks = start()
    from jdlopt.train.serve import evaluate_run

    workdir = run_of("eval", flags, flags.workdir)
    record = evaluate_run(
        workdir, flags.split, flags.checkpoint, flags.tta, flags.allow_code,
        flags.changed_data,
    )  # fmt: skip
    if not speaks:
        return DONE
    if flags.json:
        print_json(record)
        return DONE
    from rich.table import Table

    table = Table(title=f"{workdir}: {flags.checkpoint} checkpoint, step {record['step']:,}")
    table.add_column("metric")
    table.add_column(flags.split, justify="right")
    for name, value in record["metrics"].items():
        if isinstance(value, int | float) or value is None:
            table.add_row(name.partition("/")[2], number(value))
    console().print(table)
    return DONE


def predict(flags: PredictFlags) -> int:
    """Predicts for a file or folder."""
    start()
    from jdlopt.data.notes import say
    from jdlopt.train import serve
    from jdlopt.train.disk import as_json

    if flags.output:
        serve.check_output(flags.output)
    workdir = run_of("predict", flags, flags.workdir)
    predictions = serve.predict_run(
        workdir, flags.input, flags.checkpoint, tta=flags.tta, allow_code=flags.allow_code,
        all_classes=flags.all_classes,
    )  # fmt: skip
    say(predictions.notes)
    if flags.output:
        serve.write_predictions(predictions, flags.output)
        summary = {"rows": len(predictions.rows), "output": flags.output}
        if flags.json:
            print_json(summary)
        else:
            console().print(f"{summary['rows']:,} predictions in {flags.output}")
    elif flags.json:
        print_json(as_json(serve.as_columns(predictions)))
    else:
        serve.write_csv(predictions, sys.stdout)
    return DONE
