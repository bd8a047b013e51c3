"""The verbs of trained runs: ``eval`` and ``predict``, of one or of several as an ensemble."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdlopt.cli.show import DONE, console, number, print_json, run_of, start
from jdlopt.cli.verbs import EvalFlags, ModelFlags, PredictFlags, WeightsFlags
from jdlopt.errors import UserError

if TYPE_CHECKING:
    from jdlopt.train.predictions import Predictions

MOST_MODELS = 6
"""Models of an ensemble that have a column each."""
SUMMARIES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean of each": lambda values: sum(values) / len(values),
    "least": min,
    "most": max,
}
"""What is shown of more models than that."""


def runs_of_flags(verb: str, flags: WeightsFlags) -> list[Path]:
    """Returns the directories of the runs that the flags of a verb name."""
    from jdlopt.study.kept import runs_of

    if not flags.ensemble:
        what = "a run's directory (or several, or a study's best trials, as --ensemble)"
        return [Path(run_of(verb, flags, what))]
    if any(one is not None for one in (flags.run, flags.config, flags.workdir)):
        raise UserError("--ensemble: names several runs, and RUN is one; give one of the two.")
    return [run for name in flags.ensemble for run in runs_of(name)]


def _decision(flags: ModelFlags) -> dict[str, Any]:
    from jdlopt.data.decision import read_threshold

    threshold = None if flags.threshold is None else read_threshold(flags.threshold)
    beams = {"beam_width": flags.beam_width, "length_penalty": flags.length_penalty}
    beams = {name: value for name, value in beams.items() if value is not None}
    if beams and (flags.ensemble or getattr(flags, "bundle", None)):
        raise UserError("--beam-width and --length-penalty are about one run that writes texts.")
    return {"positive": flags.positive, "threshold": threshold, **beams}


def evaluate(flags: EvalFlags) -> int:
    """Evaluates a checkpoint of a run on a split, or several runs as an ensemble."""
    speaks = start()
    from jdlopt.train.ensemble import evaluate_ensemble
    from jdlopt.train.serve import evaluate_run

    runs = runs_of_flags("eval", flags)
    how = (flags.split, flags.checkpoint, flags.tta, flags.allow_code, flags.changed_data)
    if flags.ensemble:
        record = evaluate_ensemble(runs, *how, **_decision(flags))
    else:
        record = evaluate_run(runs[0], *how, **_decision(flags))
    if not speaks:
        return DONE
    if flags.json:
        print_json(record)
    elif flags.ensemble:
        _print_ensemble(record, flags)
    else:
        title = f"{runs[0]}: {flags.checkpoint} checkpoint, step {record['step']:,}"
        _print({flags.split: record["metrics"]}, title)
    return DONE


def _print(columns: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Prints metrics, those of the first column, by column."""
    from rich.table import Table

    table = Table(title=title)
    table.add_column("metric")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    for name, value in next(iter(columns.values())).items():
        if isinstance(value, int | float) or value is None:
            values = (number(one[name]) for one in columns.values())
            table.add_row(name.partition("/")[2], *values)
    console().print(table)


def _print_ensemble(record: Mapping[str, Any], flags: EvalFlags) -> None:
    models = [one["metrics"] for one in record["models"]]
    columns = {"ensemble": record["metrics"]}
    if len(models) <= MOST_MODELS:
        columns |= {f"model {place}": one for place, one in enumerate(models, start=1)}
    else:
        columns |= {name: _summary(models, of) for name, of in SUMMARIES.items()}
    _print(columns, f"{len(models)} models, {flags.checkpoint} checkpoints, {flags.split}")
    for place, one in enumerate(record["models"], start=1):
        line = f"  model {place}  {one['workdir']}, step {one['step']:,}"
        console().print(line, soft_wrap=True)


def _summary(
    models: Sequence[Mapping[str, Any]], of: Callable[[Sequence[float]], float]
) -> dict[str, float | None]:
    """Returns a summary of each metric that is a number of every model."""
    found: dict[str, float | None] = {}
    for name in models[0]:
        values = [one[name] for one in models]
        whole = all(isinstance(value, int | float) for value in values)
        found[name] = of(values) if whole else None
    return found


def predict(flags: PredictFlags) -> int:
    """Predicts for a file or folder."""
    start()
    if flags.embeddings:
        return _embed(flags)
    from jdlopt.data.notes import say
    from jdlopt.train import predictions
    from jdlopt.train.disk import as_json

    if flags.output:
        named = Path(flags.output).suffix in predictions.OUTPUTS
        predictions.check_output(flags.output, not named and _predicts_masks(flags))
    how = {**_decision(flags), "all_classes": flags.all_classes, "with_inputs": flags.with_inputs}
    found = (_of_runs if flags.bundle is None else _of_bundle)(flags, how)
    say(found.notes)
    if flags.output:
        predictions.write_predictions(found, flags.output)
        summary = {"rows": len(found.rows), "output": flags.output}
        if flags.json:
            print_json(summary)
        else:
            console().print(f"{summary['rows']:,} predictions in {flags.output}")
    elif flags.json:
        print_json(as_json(predictions.as_columns(found)))
    else:
        predictions.write_csv(found, sys.stdout)
    return DONE


def _continuing(flags: PredictFlags) -> dict[str, bool]:
    """Returns whether each flag about continuing texts says something."""
    usual = type(flags.continuation)()
    return {
        f"--{one.name.replace('_', '-')}": getattr(flags.continuation, one.name)
        != getattr(usual, one.name)
        for one in dataclasses.fields(usual)
    }


def _predicts_masks(flags: PredictFlags) -> bool:
    from jdlopt.train.serve import predicts_masks

    if flags.bundle is not None:
        return False
    return all(predicts_masks(run) for run in runs_of_flags("predict", flags))


def _embed(flags: PredictFlags) -> int:
    """Writes the embeddings of a file's or folder's examples."""
    from jdlopt.data.notes import say
    from jdlopt.train import embeddings

    others = {
        "--bundle": flags.bundle, "--ensemble": flags.ensemble, "--tta": flags.tta,
        "--with-inputs": flags.with_inputs, "--all-classes": flags.all_classes,
        "--threshold": flags.threshold is not None, "--positive": flags.positive is not None,
        "--beam-width": flags.beam_width is not None,
        "--length-penalty": flags.length_penalty is not None, **_continuing(flags),
    }  # fmt: skip
    for name in (name for name, value in others.items() if value):
        raise UserError(f"--embeddings: are of one run's model, as it is; leave {name} out.")
    output = embeddings.check_output(flags.output)
    (run,) = runs_of_flags("predict", flags)
    found = embeddings.embed_run(run, flags.input, flags.checkpoint, flags.allow_code)
    say(found.notes)
    embeddings.write_embeddings(found, output)
    shapes = {name: list(values.shape) for name, values in found.arrays.items()}
    if flags.json:
        print_json({"rows": len(found.rows), "output": str(output), "arrays": shapes})
    else:
        told = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        console().print(f"{told} in {output}")
    return DONE


def _of_runs(flags: PredictFlags, how: Mapping[str, Any]) -> Predictions:
    from jdlopt.train.ensemble import predict_ensemble
    from jdlopt.train.serve import predict_run

    runs = runs_of_flags("predict", flags)
    how = {**how, "tta": flags.tta, "allow_code": flags.allow_code}
    how["continuation"] = flags.continuation
    if flags.ensemble:
        return predict_ensemble(runs, flags.input, flags.checkpoint, **how)
    return predict_run(runs[0], flags.input, flags.checkpoint, **how)


def _of_bundle(flags: PredictFlags, how: Mapping[str, Any]) -> Predictions:
    from jdlopt.export.predictions import predict_bundle

    named = {
        "RUN": flags.run, "--config": flags.config, "--workdir": flags.workdir,
        "--ensemble": flags.ensemble, "--tta": flags.tta, "--allow-code": flags.allow_code,
        **_continuing(flags),
    }  # fmt: skip
    given = [name for name, value in named.items() if value]
    if given or flags.checkpoint != "best":
        what = given[0] if given else "--checkpoint"
        raise UserError(f"--bundle: names a model by itself; {what} is about a run. Leave one out.")
    assert flags.bundle is not None
    return predict_bundle(flags.bundle, flags.input, **how)
