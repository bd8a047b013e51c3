"""What to run next, as commands that a shell takes as they are."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jdlopt.config import split_argument
from jdlopt.config.parts import code_in
from jdlopt.study.records import Record

NEW = "NEW_DATA"
"""Stands for the file or folder of the person's own, which no directory knows."""


class Command(NamedTuple):
    """A command and what it is for.

    Attributes:
      words: what it does.
      text: as a shell takes it.
    """

    words: str
    text: str


def quoted(text: str) -> str:
    r"""Returns a word as a shell takes it, also one of bytes that are no UTF-8.

    Example:
      >>> print(quoted("runs/my run"), quoted("it's"), quoted("a\udcff\n"))
      'runs/my run' 'it'"'"'s' $'a\xff\n'
    """
    if not _UNPRINTABLE.search(text):
        return shlex.quote(text)
    return f"$'{''.join(map(_escape, text))}'"


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\t": r"\t", "\\": r"\\", "'": r"\'"}


def _escape(letter: str) -> str:
    if letter in _SHORT:
        return _SHORT[letter]
    if not _UNPRINTABLE.match(letter):
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))


def jdlopt(verb: str, *words: str | Path, allow_code: bool = False, **flags: object) -> str:
    """Returns a call of jdlopt.

    Args:
      verb: such as ``data check``.
      words: its arguments; paths are made absolute, so that it can be called from anywhere.
      allow_code: whether ``--allow-code`` is added.
      flags: ``name=value``, dots and dashes of a name written as ``__`` and ``_``; those that are
        None are left out.
    """
    parts = [f"jdlopt {verb}", *(quoted(_absolute(word)) for word in words)]
    for name, value in flags.items():
        if value is not None:
            flag = name.replace("__", ".") if "__" in name else name.replace("_", "-")
            parts.append(f"--{flag}={quoted(_absolute(value))}")
    return " ".join([*parts, *(["--allow-code"] if allow_code else [])])


def _absolute(value: object) -> str:
    return str(value.absolute()) if isinstance(value, Path) else str(value)


def beside(folder: Path, ending: str) -> Path:
    """Returns a directory beside another one: the same name with an ending.

    Example:
      >>> beside(Path("/runs/cnn"), "improved").as_posix()
      '/runs/cnn_improved'
    """
    whole = folder.absolute()
    return whole.parent / f"{whole.name}_{ending.replace('/', '_')}"


def of_run(workdir: Path, config: Record, result: Record | None) -> list[Command]:
    """Returns what follows a run: going on, evaluating, predicting, finding what holds it back.

    Args:
      workdir: its directory.
      config: its resolved config.
      result: the content of ``result.json``; None while there is none.
    """
    code = bool(code_in(config))
    status = (result or {}).get("status")
    made: list[Command] = []
    if status in (None, "interrupted"):
        text = jdlopt("train", workdir, allow_code=code)
        made.append(Command("Go on with the training", text))
    if status not in (None, "diverged"):
        text = jdlopt("eval", workdir, split="test", allow_code=code)
        made.append(Command("Evaluate the best checkpoint on the test split", text))
        text = jdlopt("predict", workdir, input=NEW, output="predictions.csv", allow_code=code)
        made.append(Command(f"Predict for new data, in the place of {NEW}", text))
        epochs = (config.get("train") or {}).get("epochs")
        if isinstance(epochs, int | float) and not isinstance(epochs, bool):
            more = f"{2 * epochs:g}"
            text = jdlopt("train", workdir, config__train__epochs=more, allow_code=code)
            made.append(Command("Train for twice as many epochs, from here on", text))
    text = jdlopt("diagnose", workdir, allow_code=code)
    made.append(Command("Find what holds it back", text))
    made.append(improving(workdir, code))
    return made


def improving(workdir: Path, code: bool) -> Command:
    """Returns the command that makes a run's config better."""
    place = beside(workdir, "improved")
    text = jdlopt("improve", workdir, workdir=place, budget="30m", allow_code=code)
    return Command("Make its config better, by techniques that pass a fair test", text)


def of_diagnosis(workdir: Path, config: Record, findings: Sequence[Record]) -> list[Command]:
    """Returns what follows a diagnosis: each technique of the first findings, tested fairly.

    Args:
      workdir: the run's directory.
      config: its resolved config.
      findings: the most important first.
    """
    code = bool(code_in(config))
    names = list(dict.fromkeys(name for one in findings for name in one["techniques"]))[:TESTED]
    made = [
        Command(
            f"Test whether {name.replace('_', ' ')} helps",
            jdlopt("compare", workdir, f"+{name}", workdir=beside(workdir, f"with_{name}"),
                   allow_code=code),
        )
        for name in names
    ]  # fmt: skip
    made.append(improving(workdir, code))
    text = jdlopt("diagnose", workdir, allow_code=code)
    return [*made, Command("Diagnose again, after more training", text)]


TESTED = 3
"""Techniques of a diagnosis that have a command each."""


def of_study(workdir: Path, record: Record) -> list[Command]:
    """Returns what follows a study: its best trial as a run, evaluated and used.

    Args:
      workdir: its directory.
      record: the content of ``study.json``.
    """
    made = _going_on(workdir, record)
    best = record.get("best")
    kept = workdir / "trials" / f"{best:04d}" if isinstance(best, int) else None
    if kept is not None and (kept / "result.json").is_file():
        code = bool(code_in(record["config"]))
        text = jdlopt("eval", kept, split="test", allow_code=code)
        made.append(Command("Evaluate the best trial on the test split", text))
        text = jdlopt("predict", kept, input=NEW, output="predictions.csv", allow_code=code)
        made.append(Command(f"Predict with it for new data, in the place of {NEW}", text))
    if (workdir / "best_config.json").is_file():
        text = jdlopt("train", config=workdir / "best_config.json", workdir=beside(workdir, "best"))
        made.append(Command("Train the best config once more", text))
        text = jdlopt("improve", config=workdir / "best_config.json",
                      workdir=beside(workdir, "improved"), budget="30m")  # fmt: skip
        made.append(Command("Make it better, by techniques that pass a fair test", text))
    return made


def _going_on(workdir: Path, record: Record) -> list[Command]:
    """The command that goes on with a study, where its directory says how."""
    base, limit, count = record.get("base_config"), record.get("limit"), len(record["trials"])
    if not isinstance(base, dict):
        return []
    finished = record.get("status") == "done" and not record.get("ended")
    words, trials = "Go on with the study", limit
    if finished or type(limit) is not int or count >= limit:
        if record.get("sampler") == "grid":
            return []
        words, trials = "Search on, to twice as many trials", 2 * max(count, 1)
    stored = record.get("storage")
    place, name = stored if isinstance(stored, list) and len(stored) == 2 else (None, None)
    text = jdlopt("tune", workdir, trials=trials, storage=place, study=name,
                  allow_code=bool(code_in(base)))  # fmt: skip
    return [Command(words, text)]


def of_comparison(workdir: Path, record: Record) -> list[Command]:
    """Returns what follows a comparison: more seeds where it is undecided, else its winner.

    Args:
      workdir: its directory.
      record: the content of ``compare.json``.
    """
    sides = {side: workdir / f"{side}.json" for side in "ab"}
    if not all(path.is_file() for path in sides.values()):
        return []
    better = {"adopt": "b", "drop": "a"}.get(record["decision"])
    if better is not None:
        place = beside(workdir, better)
        text = jdlopt("train", config=sides[better], workdir=place)
        return [Command(f"Train {better.upper()} as a run", text)]
    needed = (record["effect"] or {}).get("seeds_needed")
    if not isinstance(needed, int) or record.get("tuning"):
        return []
    text = jdlopt("compare", *sides.values(), workdir=workdir, seeds=max(needed, record["seeds"]))
    return [Command("Go on with as many seeds as may decide", text)]


def of_compression(workdir: Path, record: Record) -> list[Command]:
    """Returns what follows a compression: the chosen model, used; or more seeds, where some may do.

    Args:
      workdir: its directory.
      record: the content of ``compress.json``.
    """
    code, run = bool(code_in(record["config"])), Path(record["run"])
    made = []
    if record["directory"] is not None:
        place = workdir / Path(record["directory"]).name
        text = jdlopt("predict", place, input=NEW, output="predictions.csv", allow_code=code)
        made.append(Command(f"Predict with the chosen model, in the place of {NEW}", text))
    needed = [
        row["loss"]["seeds_needed"]
        for row in record["candidates"]
        if row["decision"] == "undecided" and row["loss"]
    ]
    known = [one for one in needed if isinstance(one, int) and one > len(record["seeds"])]
    if known:
        text = jdlopt("compress", run, within=record["within"], out=workdir, seeds=min(known),
                      prefer=record["prefer"], allow_code=code)  # fmt: skip
        made.append(Command("Go on with as many seeds as may decide", text))
    return made


def of_improvement(workdir: Path) -> list[Command]:
    """Returns what follows an improvement: its config trained as a run, then evaluated."""
    if not (workdir / "improved.py").is_file():
        return []
    place = beside(workdir, "run")
    train = jdlopt("train", config=workdir / "improved.py", workdir=place)
    test = jdlopt("eval", place, split="test")
    return [
        Command("Train the improved config as a run", train),
        Command("Evaluate that run on the test split", test),
    ]


def of_check(
    source: str, target: str | Sequence[str] | None, lines: Sequence[str], config: str | None
) -> list[Command]:
    """Returns what follows a check of data: training with the lines that it proposes.

    Args:
      source: ``data.source``.
      target: ``data.target``.
      lines: ``KEY=VALUE``, what findings propose.
      config: the config file that was checked; None where a file was.
    """
    flags = " ".join(f"--config.{quoted(line)}" for line in dict.fromkeys(lines))
    if config is None:
        several = target if target is None or isinstance(target, str) else ",".join(target)
        path = Path(source) if os.path.exists(source) else source
        first = jdlopt("init", path, target=several, out="config.py")
        return [
            Command("Check it again", jdlopt("data check", path, target=several)),
            Command("Write a first config for it", first),
        ]
    file, argument = split_argument(config)
    whole = str(Path(file).absolute()) + ("" if argument is None else f":{argument}")
    again = f"{jdlopt('data check', config=whole)} {flags}".strip()
    train = f"{jdlopt('train', config=whole, workdir='runs/checked')} {flags}".strip()
    those = " with these config lines" if lines else ""
    return [Command(f"Check again{those}", again), Command(f"Train{those}", train)]


def where(config: Record) -> str:
    """Returns the directory that commands are to be run in; empty where any will do.

    A config whose source is a relative path is about files of the directory that it was used in.
    """
    source = str((config.get("data") or {}).get("source", ""))
    relative = bool(source) and not os.path.isabs(source) and os.path.exists(source)
    return quoted(str(Path.cwd())) if relative else ""
