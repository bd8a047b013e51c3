"""The report of a run: its numbers, its curves, and where it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jdlopt.errors import UserError
from jdlopt.report import commands, figures, predictions, profile
from jdlopt.report.outcome import Guesses, Outcome
from jdlopt.report.page import Figure, Table, number, render
from jdlopt.report.records import as_written
from jdlopt.report.saving import save
from jdlopt.study.records import Record
from jdlopt.tasks import find_task
from jdlopt.train.goodput import Account


def write_report(workdir: Path, allow_code: bool = False) -> Path:
    """Writes ``report.html`` of a run, finished or not; returns its path.

    Args:
      workdir: the run's directory.
      allow_code: import the parts that its config names by dotted path.

    Raises:
      WorkdirError: the directory's files can't be read, or name code that is not allowed.
    """
    from jdlopt.train import log, serve, split_record
    from jdlopt.train.result import read_result

    config = serve.run_config(workdir, allow_code)
    result = read_result(workdir)
    rows = log.read_lines(workdir / log.METRICS)
    profiled = profile.section(workdir)
    unavailable, outcome = "", None
    try:
        outcome = examine(workdir, config)
    except UserError as error:
        unavailable = str(error)
    with as_written(workdir / "result.json"):
        kept = split_record.find(workdir)
        splits = "" if kept is None else kept.name
        text = make_page(workdir, config, result, rows, outcome, unavailable, splits, profiled)
    return save(workdir, text)


def make_page(
    workdir: Path,
    config: Record,
    result: Record | None,
    rows: Sequence[Record],
    outcome: Outcome | None,
    unavailable: str = "",
    splits: str = "",
    profiled: profile.Section | None = None,
) -> str:
    """Returns the page as HTML.

    Args:
      workdir: the run's directory.
      config: its resolved config.
      result: the content of ``result.json``; None while there is none.
      rows: of ``metrics.jsonl``.
      outcome: what the best checkpoint predicts, or None.
      unavailable: why there is no outcome.
      splits: the name of the file that says which examples are in which split; empty if none.
      profiled: of its profile, or None.
    """
    found = (result or {}).get("metrics") or {}
    return render(
        "run",
        title=f"Run {workdir.resolve().name}",
        lead=f"{config['model']['name']} on {config['data']['source']}.",
        footer=", ".join(f"{k} {v}" for k, v in (result or {}).get("versions", {}).items()),
        result=None if result is None else {"diverged": None, **result},
        facts=_facts(result, found) if result else [],
        curves=_curves(rows, _best_step(result)),
        metrics=_metrics(found) if found else None,
        unavailable=unavailable,
        splits=splits,
        profile=profiled,
        commands=commands.of_run(workdir, config, result),
        where=commands.where(config),
        **(predictions.shown(outcome) if outcome else {}),
    )


def examine(workdir: Path, config: Record) -> Outcome:
    """Computes the best checkpoint's outputs and losses on the validation split.

    Raises:
      UserError: there is no checkpoint, or the data or the model's module is not there any more.
    """
    from jdlopt.data.dataset import class_counts
    from jdlopt.data.origin import names
    from jdlopt.report import continuations
    from jdlopt.train import data_record, serve
    from jdlopt.train.predict import MOST_PROBABILITIES, likeliest, losses_of, predictor

    experiment = serve.with_data(dict(config), workdir)
    data_record.check(workdir, experiment.data)
    weights, _ = serve.load_weights(experiment, workdir, "best")
    dataset = experiment.data
    spec, arrays, called = dataset.spec, dataset.read("validation"), names(dataset, "validation")
    shows = find_task(spec.task).shows
    counts = class_counts(dataset) if {"classes", "labels"} & shows else None
    if "masks" in shows or ("classes" in shows and spec.num_classes > MOST_PROBABILITIES):
        some = likeliest(experiment, 1)(weights, arrays.inputs, arrays.targets)
        assert some.losses is not None
        return Outcome(
            *arrays,
            np.empty((0, 0)),
            None,
            some.losses,
            spec,
            called,
            counts,
            Guesses(some.classes[..., 0], some.probabilities[..., 0]),
        )
    if "continuations" in shows:
        losses = losses_of(experiment, weights, arrays.inputs, arrays.targets)
        samples = continuations.samples(experiment, weights, arrays.inputs, called)
        return Outcome(
            *arrays, np.empty((0, 0)), None, losses, spec, called, counts, samples=samples
        )
    found = predictor(experiment)(weights, arrays.inputs, arrays.targets)
    assert found.losses is not None
    return Outcome(
        arrays.inputs,
        arrays.targets,
        found.outputs,
        found.probabilities,
        found.losses,
        spec,
        called,
        counts,
    )


def _facts(result: Record, found: Record) -> list[tuple[str, object]]:
    best = result.get("best") or {}
    facts: list[tuple[str, object]] = []
    if best.get("step", -1) >= 0:
        facts.append((f"best {best.get('metric')}", best.get("value")))
    test = next(
        (
            f"test/{name}"
            for name in ("accuracy", "mean_iou", "wer", "rmse", "loss")
            if f"test/{name}" in found
        ),
        "",
    )
    facts += [(test, found[test])] if test else []
    missing = (result.get("not_evaluated") or {}).items()
    return [
        *facts,
        ("status", result["status"]),
        *((f"{split} split", f"not evaluated: {reason}"[:300]) for split, reason in missing),
        *_made(result),
        ("steps", result.get("steps")),
        ("parameters", result.get("n_params")),
        ("wall time", f"{number(result.get('wall_seconds'))} s"),
        *_goodput(result.get("goodput")),
    ]


def _goodput(record: object) -> list[tuple[str, object]]:
    """Which part of the run's time made steps that count, and where the rest went."""
    try:
        account = Account.from_dict(record)
    except ValueError:
        return []
    share, spent = account.share(), sorted(account.seconds.items(), key=lambda one: -one[1])
    rest = ", ".join(f"{kind.replace('_', ' ')} {number(s)} s" for kind, s in spent if s >= 0.05)
    again = f"; {account.lost_steps:,} steps made again" if account.lost_steps else ""
    facts: list[tuple[str, object]] = [] if share is None else [("goodput", f"{share:.1%}")]
    return [*facts, ("starts", f"{account.starts}{again}"), ("time", rest)]


def _made(result: Record) -> list[tuple[str, object]]:
    """What a run that was made, not trained, says of that."""
    made = result.get("made")
    if made is None:
        return []
    return [("made by", made["how"].get("method")), ("made from", made["from"])]


def _best_step(result: Record | None) -> int | None:
    """Returns the step of the best checkpoint, if there is one."""
    step = ((result or {}).get("best") or {}).get("step", -1)
    return step if isinstance(step, int) and step >= 0 else None


def _curves(rows: Sequence[Record], best: int | None) -> list[Figure]:
    names = dict.fromkeys(name.partition("/")[2] for row in rows for name in row if "/" in name)
    names = dict.fromkeys(["loss", "accuracy", *names, "grad_norm"])
    names["grad_norm"] = names.pop("grad_norm")  # last: it matters when something is wrong
    made: list[Figure] = []
    for name in names:
        points: dict[str, tuple[list[float], list[float]]] = {}
        for split in ("train", "validation"):
            steps, values = points.setdefault(split, ([], []))
            for row in rows:
                value = row.get(f"{split}/{name}")
                if isinstance(value, int | float):
                    steps.append(row["step"])
                    values.append(value)
        figure = figures.by_split(f"curve-{len(made)}", name, points, best)
        made += [figure] if figure else []
    return made


def _metrics(found: Record) -> Table:
    splits = [
        s for s in ("train", "validation", "test") if any(k.startswith(f"{s}/") for k in found)
    ]
    names = dict.fromkeys(
        key.partition("/")[2]
        for key, value in found.items()
        if isinstance(value, int | float) and not key.endswith("grad_norm")
    )
    rows = [[name, *(found.get(f"{split}/{name}") for split in splits)] for name in names]
    caption = "Validation and test: of the best checkpoint; train: of the last logged step"
    return Table(caption, ["metric", *splits], rows)
