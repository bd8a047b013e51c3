"""The command line: one verb, one function. It imports lazily and is the only place that prints."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdlopt import __version__
from jdlopt.errors import DivergedError, Interrupted, UserError, nearest

DONE, DEFECT, WRONG_INPUT, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 130
REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT,
)  # fmt: skip
"""What an operating system refuses wherever a path is touched; no defect of jdlopt's own."""

TOO_EARLY = "interrupted; what was saved before is kept."
EPILOG = """\
Set a config's keys with --config.KEY=VALUE, such as --config.optim.learning_rate=0.01.
Exit codes: 0 done; 1 a defect of jdlopt; 2 the input is wrong; 3 training diverged;
130 interrupted, and resumable with the same command.
"""


class _Parser(argparse.ArgumentParser):
    """Answers a wrong flag in one line, like any other wrong input."""

    words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.words = list(args or ())  # a verb's parser gets here with the words behind the verb
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> Any:
        bad = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        hint = nearest(bad.group(1), re.findall(r"[\w-]+", bad.group(2))) if bad else ""
        flags = [word.partition("=")[0] for word in self.words if word.startswith("--")]
        for flag in flags if not bad else ():
            if flag not in self._option_string_actions:
                close = nearest(flag, self._option_string_actions)
                hint += f" {flag} is unknown.{close}"
        raise UserError(f"{message}.{hint} ({self.prog} --help lists what there is.)")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all verbs."""
    top = _Parser(
        prog="jdlopt",
        description="Makes deep-learning models better, and proves it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"jdlopt {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, run: Callable[..., int], summary: str, parent: Any = verbs) -> Any:
        added = parent.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=EPILOG,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="one JSON object on stdout")
        added.add_argument("--debug", action="store_true", help="a traceback for every error")
        return added

    train = verb("train", _train, "Train one config, or go on with its run.")
    _config_flag(train)
    train.add_argument("--workdir", metavar="DIR", help="the run's directory")
    train.add_argument("--print-config", action="store_true", help="show the resolved config only")

    evaluate = verb("eval", _eval, "Evaluate a run's checkpoint on a split.")
    _run_flags(evaluate)
    evaluate.add_argument(
        "--split", default="validation", choices=("train", "validation", "test"), help="which data"
    )

    predict = verb("predict", _predict, "Predict for a CSV, Parquet or NPZ file or image folder.")
    _run_flags(predict)
    predict.add_argument("--input", required=True, metavar="PATH", help="what to predict for")
    predict.add_argument(
        "--output", metavar="FILE", help="a .csv or .npz; by default a table on stdout"
    )

    data = verbs.add_parser("data", help="List or describe datasets.", description="Datasets.")
    kinds = data.add_subparsers(dest="what", metavar="WHAT", required=True)
    listed = verb("list", _data_list, "List the datasets that are here.", kinds)
    listed.add_argument("--data_dir", metavar="DIR", help="where prepared TFDS datasets lie")
    described = verb(
        "describe", _data_describe, "Describe a config's dataset: splits, classes, values.", kinds
    )
    _config_flag(described)
    return top


def _config_flag(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help="a config file (.py or .json)"
    )


def _run_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--workdir", required=True, metavar="DIR", help="a run's directory")
    verb.add_argument(
        "--checkpoint", default="best", choices=("best", "newest"), help="which parameters"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: what a person can mend is one message, code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        words, overrides = split_overrides(words)
        flags = parser().parse_args(words)
        if overrides and not hasattr(flags, "config"):
            raise UserError(
                f"--config.{next(iter(overrides))}: {flags.verb} takes no config"
                + (": the run's own is used." if hasattr(flags, "workdir") else ".")
            )
        flags.overrides = overrides
        warnings.showwarning = _show_warning
        with _sigterm_answered():
            return flags.run(flags)
    except UserError as error:
        return _fail(str(error), WRONG_INPUT, debug)
    except DivergedError as error:
        return _fail(str(error), DIVERGED, debug)
    except Interrupted as error:
        return _fail(str(error), INTERRUPTED, debug)
    except KeyboardInterrupt:
        return _fail(TOO_EARLY, INTERRUPTED, debug)
    except BrokenPipeError:
        sys.stderr.close()
        return DONE
    except OSError as error:
        if error.errno in REFUSED:
            return _fail(_refusal(error), WRONG_INPUT, debug)
        traceback.print_exc()
        return DEFECT
    except Exception:
        traceback.print_exc()
        return DEFECT


def _refusal(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror}. Name a place that this user can read and write, with room."


@contextlib.contextmanager
def _sigterm_answered() -> Iterator[None]:
    """Makes SIGTERM an interruption from the first import on; a run that trains then saves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        # an exception would be lost where one can't be raised, as in a callback of the collector
        os.write(2, f"jdlopt: {TOO_EARLY}\n".encode())
        os._exit(INTERRUPTED)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def split_overrides(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Separates ``--config.KEY=VALUE`` (or ``--config.KEY VALUE``) from the other words.

    Example:
      >>> split_overrides(["train", "--config=a.py", "--config.seed=3"])
      (['train', '--config=a.py'], {'seed': '3'})
    """
    rest: list[str] = []
    overrides: dict[str, str] = {}
    pending = list(words)
    while pending:
        word = pending.pop(0)
        if not word.startswith("--config."):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix("--config.").partition("=")
        if not equals:
            if not pending or pending[0].startswith("--"):
                raise UserError(f"{word}: has no value; write {word}=VALUE.")
            value = pending.pop(0)
        if not key or not all(key.split(".")):
            raise UserError(f"{word}: is no key; write --config.SECTION.KEY=VALUE.")
        overrides[key] = value
    return rest, overrides


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"jdlopt: {message}", file=sys.stderr)
    return code


def _show_warning(message: Any, category: Any, *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"jdlopt: warning: {message}", file=sys.stderr)


def _load(flags: argparse.Namespace) -> Any:
    from jdlopt import config

    loaded = config.load(flags.config)
    return config.override(
        loaded, {key: config.Override(text) for key, text in flags.overrides.items()}
    )


def _start() -> bool:
    """Joins the other processes of the run, if any; says whether this one may print."""
    from jdlopt.train import processes

    processes.join()
    import jax

    from jdlopt.train.program import keep_programs

    keep_programs()

    return jax.process_index() == 0


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def _print_json(value: Mapping[str, Any]) -> None:
    print(json.dumps(value))


# --- train ----------------------------------------------------------------------------------------


def _train(flags: argparse.Namespace) -> int:
    config = _load(flags)
    speaks = _start()
    if flags.print_config:
        from jdlopt.config import dumps
        from jdlopt.train import experiment

        text = dumps(experiment.resolve(config))
        if speaks:
            print(text, end="")
        return DONE
    if not flags.workdir:
        raise UserError("--workdir: is missing; name the directory that the run is kept in.")
    from jdlopt.train.loop import fit

    with _progress(speaks and not flags.json) as show:
        result = fit(config, flags.workdir, show)
    if speaks and flags.json:
        _print_json({**result.record, "workdir": str(result.workdir)})
    elif speaks:
        _print_result(result.record, result.workdir)
    return DONE


class _progress:
    """A progress bar on a terminal, silence elsewhere."""

    def __init__(self, wanted: bool):
        self.console = _console() if wanted else None
        self.bar: Any = None

    def __enter__(self) -> Callable[[Any], None] | None:
        if self.console is None or not self.console.is_terminal:
            return None
        from rich import progress

        self.bar = progress.Progress(
            progress.TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.fields[values]}"),
            progress.TextColumn("[dim]{task.fields[speed]}"),
            progress.TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("train", total=None, values="compiling", speed="")
        self.bar.start()
        return self.update

    def update(self, now: Any) -> None:
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
        self.bar.update(
            self.task,
            total=now.total_steps,
            completed=now.step,
            values=values or "…",
            speed=speed,
        )

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:,.0f}"


def _print_result(record: Mapping[str, Any], workdir: Path) -> None:
    from rich.table import Table

    console = _console()
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
        table.add_row(name, *(_number(found.get(f"{split}/{name}", None)) for split in splits))
    console.print(table)
    best = record["best"]
    speed = record["examples_per_second"]
    console.print(
        f"best {best['metric']} {_number(best['value'])} at step {best['step']:,}; "
        f"{record['n_params']:,} parameters; {record['wall_seconds']:.1f} s, of it "
        f"{record['compile_seconds']:.1f} s compiling"
        + (f"; {speed:,.0f} examples/s" if speed else ""),
        highlight=False,
    )
    for file, what in (
        ("result.json", "these numbers and what they depend on"),
        ("metrics.jsonl", "a line per logged step"),
        ("checkpoints/", "newest and best"),
        ("tensorboard/", "scalars and hparams"),
    ):
        if (workdir / file).exists():
            console.print(f"  {workdir / file}  [dim]{what}[/dim]", highlight=False, soft_wrap=True)


# --- eval, predict --------------------------------------------------------------------------------


def _eval(flags: argparse.Namespace) -> int:
    speaks = _start()
    from jdlopt.train.serve import evaluate_run

    record = evaluate_run(flags.workdir, flags.split, flags.checkpoint)
    if not speaks:
        return DONE
    if flags.json:
        _print_json(record)
        return DONE
    from rich.table import Table

    table = Table(title=f"{flags.workdir}: {flags.checkpoint} checkpoint, step {record['step']:,}")
    table.add_column("metric")
    table.add_column(flags.split, justify="right")
    for name, value in record["metrics"].items():
        if isinstance(value, int | float) or value is None:
            table.add_row(name.partition("/")[2], _number(value))
    _console().print(table)
    return DONE


def _predict(flags: argparse.Namespace) -> int:
    _start()
    from jdlopt.train import serve
    from jdlopt.train.log import as_json

    if flags.output:
        serve.check_output(flags.output)
    predictions = serve.predict_run(flags.workdir, flags.input, flags.checkpoint)
    if flags.output:
        serve.write_predictions(predictions, flags.output)
        summary = {"rows": len(predictions.rows), "output": flags.output}
        if flags.json:
            _print_json(summary)
        else:
            _console().print(f"{summary['rows']:,} predictions in {flags.output}", highlight=False)
    elif flags.json:
        _print_json(as_json(serve.as_columns(predictions)))
    else:
        serve.write_csv(predictions, sys.stdout)
    return DONE


# --- data -----------------------------------------------------------------------------------------


def _data_list(flags: argparse.Namespace) -> int:
    from jdlopt.data.describe import list_datasets

    rows = list_datasets(flags.data_dir)
    if flags.json:
        _print_json({"datasets": rows})
        return DONE
    shown = [
        {
            "data.source": row["name"],
            "task": row["task"] or "",
            "examples": " + ".join(f"{size:,} {split}" for split, size in row["sizes"].items()),
            "what it is": row["description"].partition("\n")[0],
        }
        for row in rows
    ]
    _print_rows(shown, "datasets")
    return DONE


def _print_rows(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title))
    for column in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(column, "") for row in rows]
        numeric = all(isinstance(value, int | float) or value in ("", "–") for value in values)
        table.add_column(escape(column), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    _console().print(table)


def _cell(value: Any) -> str:
    from rich.markup import escape

    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def _data_describe(flags: argparse.Namespace) -> int:
    from jdlopt.data.describe import describe
    from jdlopt.data.source import open_dataset
    from jdlopt.train import experiment
    from jdlopt.train.log import as_json

    section = experiment.resolve_data(_load(flags))
    description = describe(open_dataset(section, allow_missing=True))
    if flags.json:
        _print_json(as_json(description))
        return DONE
    _print_description(description)
    return DONE


def _print_description(description: Mapping[str, Any]) -> None:
    shape = "×".join(str(size) for size in description["input_shape"])
    target = f"{description['num_classes']} classes" if description["num_classes"] else "a number"
    title = f"{description['name']}: {description['input_dtype']} inputs of shape {shape}, "
    splits = description["splits"]
    _print_rows(
        [
            {
                "split": name,
                "examples": split["examples"],
                "MB": split["nbytes"] / 1e6,
                **(
                    split.get("inputs")
                    or dict.fromkeys(("missing", "min", "max", "mean", "std"), "–")
                ),
            }
            for name, split in splits.items()
        ],
        f"{title}{target} to predict (the test split is counted and not read)",
    )
    read = {name: split for name, split in splits.items() if split["read"]}
    if description["num_classes"]:
        rows = [
            {
                "class": name,
                **{split: read[split]["classes"][name]["examples"] for split in read},
                "share in train": f"{read['train']['classes'][name]['share']:.1%}",
            }
            for name in description["class_names"]
        ]
        _print_rows(rows, "class balance")
    else:
        rows = [{"split": split, **found["target"]} for split, found in read.items()]
        _print_rows(rows, "target")
    if description["feature_names"]:
        features = read["train"]["features"]
        _print_rows([{"feature": name, **found} for name, found in features.items()], "features")


def script() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    script()
