"""The command line: one verb, one function. It imports lazily and is the only place that prints."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jdlopt import __version__, memory
from jdlopt.cli.show import DEFECT, DIVERGED, DONE, INTERRUPTED, WRONG_INPUT
from jdlopt.errors import DivergedError, Interrupted, UserError, nearest

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

    def verb(name: str, run: str, summary: str, parent: Any = verbs) -> Any:
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

    train = verb("train", "run:train", "Train one config, or go on with its run.")
    _config_flag(train)
    train.add_argument("--workdir", metavar="DIR", help="the run's directory")
    train.add_argument("--print-config", action="store_true", help="show the resolved config only")
    train.add_argument("--print-model", action="store_true", help="show the model's layers only")
    train.add_argument(
        "--find-batch-size",
        action="store_true",
        help="show the largest batch whose step fits the device only",
    )
    train.add_argument(
        "--memory", metavar="SIZE", help="of a device, such as 24GiB, for --find-batch-size"
    )

    evaluate = verb("eval", "run:evaluate", "Evaluate a run's checkpoint on a split.")
    _run_flags(evaluate)
    evaluate.add_argument(
        "--split", default="validation", choices=("train", "validation", "test"), help="which data"
    )

    predict = verb(
        "predict", "run:predict", "Predict for a CSV, Parquet or NPZ file or image folder."
    )
    _run_flags(predict)
    predict.add_argument("--input", required=True, metavar="PATH", help="what to predict for")
    predict.add_argument(
        "--output", metavar="FILE", help="a .csv or .npz; by default a table on stdout"
    )

    tune = verb("tune", "study:tune", "Search a space around a config; its trials train together.")
    tune.add_argument("--config", metavar="FILE[:ARG]", help="a config file, with get_space()")
    tune.add_argument("--space", metavar="FILE", help="a file with get_space(), or JSON")
    tune.add_argument("--workdir", required=True, metavar="DIR", help="the study's directory")
    budget = tune.add_argument_group("budget")
    budget.add_argument("--trials", type=int, metavar="N", help="trials in all (default: 32)")
    budget.add_argument("--budget", metavar="TIME", help="such as 90s, 10m, 1h30m")
    budget.add_argument("--until", metavar="GOAL", help="such as 'validation/accuracy>=0.95'")
    search = tune.add_argument_group("search")
    search.add_argument(
        "--sampler",
        default="quasi_random",
        help="quasi_random (default), random, grid, tpe, gp, cmaes",
    )
    search.add_argument("--seed", type=int, default=0, help="of the sampler")
    search.add_argument("--repeats", type=int, default=1, metavar="K", help="seeds a trial")
    search.add_argument("--folds", type=int, metavar="K", help="cross-validation with K folds")
    search.add_argument(
        "--objective",
        action="append",
        default=[],
        metavar="NAME",
        help="validation/METRIC, n_params or step_seconds; may be given several times",
    )
    search.add_argument("--halving", metavar="RULE", help="stop the worse early: asha or median")
    search.add_argument("--reduction", type=int, default=3, help="asha: one in so many goes on")
    how = tune.add_argument_group("how")
    how.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    how.add_argument("--width", type=int, metavar="N", help="members in a population")
    how.add_argument("--formulation", metavar="NAME", help="vmap, scan or each; else measured")
    how.add_argument("--storage", metavar="URL", help="an Optuna database, or journal:FILE")
    how.add_argument("--study", metavar="NAME", help="the study's name in the storage")
    how.add_argument("--keep", type=int, default=3, metavar="N", help="best trials kept as runs")
    how.add_argument("--no-report", action="store_true", help="write no report.html")

    compare = verb(
        "compare", "evidence:compare", "Say whether config B beats config A, and at what cost."
    )
    compare.set_defaults(config=None)  # --config.KEY=VALUE is for both
    compare.add_argument("a", metavar="A", help="a config file: the baseline")
    compare.add_argument("b", metavar="B", help="another, or +NAME[:N],...: A with techniques")
    _evidence_flags(compare, seeds=20)
    compare.add_argument("--first", type=int, default=5, metavar="N", help="seeds before a look")
    compare.add_argument("--every", type=int, default=2, metavar="N", help="seeds between looks")
    compare.add_argument(
        "--fixed", action="store_true", help="look once, after all the seeds: a narrower interval"
    )

    ablate = verb("ablate", "evidence:ablate", "Measure techniques alone, and left out from all.")
    _config_flag(ablate)
    ablate.add_argument(
        "--techniques", required=True, metavar="A,B,C", help="names of the catalogue, NAME[:N]"
    )
    _evidence_flags(ablate, seeds=10)

    improve = verb("improve", "evidence:improve", "Make a config better by itself, step by step.")
    _config_flag(improve)
    improve.add_argument("--workdir", required=True, metavar="DIR", help="where all of it is kept")
    improve.add_argument(
        "--budget", default="30m", metavar="TIME", help="in all, such as 90s, 10m (default: 30m)"
    )
    improve.add_argument("--until", metavar="GOAL", help="such as 'validation/accuracy>=0.95'")
    improve.add_argument("--metric", metavar="NAME", help="validation/METRIC that is to get better")
    improve.add_argument(
        "--techniques",
        default="",
        metavar="A,B,C",
        help="names or groups to try (default: all)",
    )
    improve.add_argument(
        "--confirm", type=int, default=10, metavar="N", help="fresh seeds of a confirmation"
    )
    improve.add_argument(
        "--test-seeds", type=int, default=5, metavar="N", help="seeds of the test at the end"
    )
    improve.add_argument("--level", type=float, default=0.95, metavar="P", help="of the intervals")
    improve.add_argument("--no-diagnosis", action="store_true", help="try in the catalogue's order")
    improve.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    improve.add_argument("--no-report", action="store_true", help="write no report.html")

    techniques = verb("techniques", "techniques:listed", "List what may make a config better.")
    techniques.add_argument("--config", metavar="FILE[:ARG]", help="say what each would change")
    techniques.add_argument("--group", metavar="NAME", help="data, structure, optimisation, ...")
    techniques.add_argument("--aim", metavar="NAME", help="accuracy, generalisation, speed, ...")

    diagnose = verb("diagnose", "diagnose:diagnose", "Say what holds a run back, and what to try.")
    diagnose.add_argument("run_directory", nargs="?", metavar="WORKDIR", help="a run's directory")
    diagnose.add_argument("--workdir", metavar="DIR", help="the same, instead of WORKDIR")
    diagnose.add_argument(
        "--lr-range",
        action="store_true",
        help="run the learning-rate range test however long it takes (by default if it is short)",
    )

    report = verb("report", "study:report", "Write the report of a directory again.")
    report.add_argument("workdir", metavar="WORKDIR", help="a run's, a study's, a comparison's")

    what = "List, describe, check or show datasets."
    data = verbs.add_parser("data", help=what, description=what)
    kinds = data.add_subparsers(dest="what", metavar="WHAT", required=True)
    listed = verb("list", "data:listed", "List the datasets that are here.", kinds)
    listed.add_argument("--data_dir", metavar="DIR", help="where prepared TFDS datasets lie")
    described = verb(
        "describe", "data:described", "Describe a config's dataset: splits, classes, values.", kinds
    )
    _config_flag(described)
    checked = verb("check", "data:checked", "Look for problems in a dataset or a file.", kinds)
    checked.add_argument("file", nargs="?", metavar="FILE", help="a file, folder or dataset's name")
    checked.add_argument("--config", metavar="FILE[:ARG]", help="a config file, instead of FILE")
    checked.add_argument("--target", metavar="COLUMN", help="what FILE is to predict")
    checked.add_argument("--ignore", metavar="A,B", help="columns of FILE to leave out")
    checked.add_argument("--task", choices=("auto", "classification", "regression"), help="of FILE")
    checked.add_argument("--workdir", metavar="DIR", help="write data_check.html in it")
    checked.add_argument(
        "--without-test",
        action="store_true",
        help="don't look for near-duplicates of test examples",
    )
    shown = verb(
        "show", "data:shown", "Draw training examples raw, preprocessed and augmented.", kinds
    )
    _config_flag(shown)
    shown.add_argument("--output", required=True, metavar="FILE.png", help="the picture")
    shown.add_argument("--examples", type=int, default=8, metavar="N", help="rows (default: 8)")
    shown.add_argument("--all", action="store_true", help="every augmentation that fits")
    shown.add_argument("--seed", type=int, default=0, help="of the augmentations' draws")
    return top


def _function(name: str) -> Callable[[argparse.Namespace], int]:
    """Imports a verb's function when it runs: `--help` imports none."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"jdlopt.cli.{module}"), attribute)


def _config_flag(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help="a config file (.py or .json)"
    )


def _evidence_flags(verb: argparse.ArgumentParser, seeds: int) -> None:
    verb.add_argument("--workdir", required=True, metavar="DIR", help="where trainings are kept")
    verb.add_argument(
        "--seeds", type=int, default=seeds, metavar="N", help=f"pairs at most (default: {seeds})"
    )
    verb.add_argument("--first-seed", type=int, default=0, metavar="N", help="and those after it")
    verb.add_argument("--metric", metavar="NAME", help="validation/METRIC")
    verb.add_argument(
        "--least", type=float, default=0.0, metavar="X", help="the smallest gain worth having"
    )
    verb.add_argument("--level", type=float, default=0.95, metavar="P", help="of the intervals")
    verb.add_argument(
        "--tune", type=int, default=0, metavar="N", help="points of nuisance keys, for each side"
    )
    verb.add_argument("--tune-seeds", type=int, default=2, metavar="N", help="seeds a point")
    verb.add_argument("--space", metavar="FILE", help="the nuisance keys, as get_space()")
    verb.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    verb.add_argument("--no-report", action="store_true", help="write no report.html")


def _run_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--workdir", required=True, metavar="DIR", help="a run's directory")
    verb.add_argument(
        "--checkpoint", default="best", choices=("best", "newest"), help="which parameters"
    )
    verb.add_argument(
        "--tta",
        type=_copies,
        default=0,
        metavar="N",
        help="average over N augmented copies of each example, too",
    )


def _copies(text: str) -> int:
    if not text.isdecimal() or int(text) > 10_000:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 10000, found {text!r}")
    return int(text)


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
            return _function(flags.run)(flags)
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


def script() -> None:
    """Runs the command line as a process of its own: `jdlopt` and ``python -m jdlopt.cli``."""
    asks = {"-h", "--help"} & set(sys.argv)
    if sys.argv[1:2] == ["train"] and not asks:  # other verbs train in processes of their own
        memory.start_again()
    sys.exit(main())
