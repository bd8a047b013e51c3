"""Several runs that predict as one: the mean of what their models say.

Hansen and Salamon, "Neural network ensembles", 1990; Lakshminarayanan et al., "Simple and scalable
predictive uncertainty estimation using deep ensembles", 2017.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from jdlopt import config as configs
from jdlopt.data.decision import Threshold
from jdlopt.data.inputs import Inputs
from jdlopt.data.named import each
from jdlopt.data.preprocess import target
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.errors import UserError, WorkdirError, listing
from jdlopt.tasks import find_task
from jdlopt.train import data_record, disk, serve, step
from jdlopt.train.continuation import Continuation
from jdlopt.train.experiment import Experiment
from jdlopt.train.predictions import Predictions
from jdlopt.train.state import Weights
from jdlopt.train.step import Components


class Member(NamedTuple):
    """One model of an ensemble: its run's directory, its functions, weights and their step."""

    workdir: Path
    experiment: Experiment
    weights: Weights
    step: int


def predict_ensemble(
    workdirs: Sequence[str | Path],
    path: str | Path,
    which: str = "best",
    batch_size: int = 256,
    tta: int = 0,
    allow_code: configs.Allowed = False,
    all_classes: bool = False,
    with_inputs: bool = False,
    positive: object = None,
    threshold: Threshold = None,
    continuation: Continuation | None = None,
) -> Predictions:
    """Returns the predictions of several runs together, as `jdlopt.train.serve.predict_run` does.

    Of classes and labels, the mean of their probabilities decides; of numbers it is their mean, and
    ``spread`` their standard deviation (of the models, divided by their number).

    Args:
      workdirs: the runs' directories.
      path, which, batch_size, tta, allow_code, all_classes, with_inputs, positive, threshold,
        continuation: as there. Each run reads the inputs by its own record of the data, with its
        own preprocessing.

    Raises:
      UserError: a directory holds no finished run, they predict other things, or the file can't be
        read as their inputs.
    """
    members = [opened(Path(one), which, tta, allow_code) for one in workdirs]
    spec = decided(members, positive, threshold)
    readers = first_alike(members)
    read = {i: serve.read_for(members[i].experiment, path) for i in dict.fromkeys(readers)}
    experiment, weights = combined(members, spec, readers)
    several = {str(i): one.inputs for i, one in read.items()}
    inputs = several if len(read) > 1 else read[0].inputs
    notes = tuple(dict.fromkeys(note for one in read.values() for note in one.notes))
    found = Inputs(inputs, read[0].ids, notes, read[0].texts if len(read) == 1 else None)
    if "continuations" in find_task(spec.task).shows:
        raise UserError("--ensemble: texts are continued by one model. Name a run.")
    made = serve.predict(
        experiment, weights, found, batch_size, all_classes=all_classes, continuation=continuation
    )
    return serve.beside_inputs(made, members[0].experiment, path, with_inputs)


def evaluate_ensemble(
    workdirs: Sequence[str | Path],
    split: str = "validation",
    which: str = "best",
    tta: int = 0,
    allow_code: configs.Allowed = False,
    changed_data: str = "refuse",
    positive: object = None,
    threshold: Threshold = None,
) -> dict[str, Any]:
    """Returns the metrics of several runs together on a split, and of each alone.

    Args:
      workdirs: the runs' directories.
      split, which, tta, allow_code, changed_data, positive, threshold: as in
        `jdlopt.train.serve.evaluate_run`.

    Returns:
      ``split``, ``checkpoint``, ``tta``, ``metrics`` of the ensemble, and ``models``: of each its
      ``workdir``, ``step`` and ``metrics``.

    Raises:
      UserError: a directory holds no run, they predict other things, were trained on other data or
        other splits of them, or read other inputs.
    """
    members = [opened(Path(one), which, tta, allow_code) for one in workdirs]
    spec = decided(members, positive, threshold)
    data = serve.experiment_with_data(workdirs[0], allow_code, changed_data).data
    for one in members[1:]:
        if _read_alike(one.experiment.spec) != _read_alike(spec):
            raise UserError(
                f"--ensemble: {one.workdir} reads other inputs of {data.spec.source!r} than "
                f"{members[0].workdir} (other columns, or coded in another way): evaluate each "
                "alone. `jdlopt predict --ensemble` takes both."
            )
        data_record.check(one.workdir, data, changed_data)
    experiment, weights = combined(members, spec, [0] * len(members))
    alone = [
        dataclasses.replace(one.experiment, spec=dataclasses.replace(spec, sizes=data.sizes))
        for one in members
    ]
    record = {
        "split": split,
        "checkpoint": which,
        "tta": tta,
        "metrics": serve.measure(experiment.on(data), weights, split),
        "models": [
            {
                "workdir": str(one.workdir),
                "step": one.step,
                "metrics": serve.measure(single.on(data), one.weights, split),
            }
            for one, single in zip(members, alone, strict=True)
        ],
    }
    return disk.as_json(record)


def opened(workdir: Path, which: str, tta: int, allow_code: configs.Allowed) -> Member:
    """Returns a run's model, as one of several; the arguments are those of `predict_ensemble`."""
    experiment = serve.run_experiment(workdir, allow_code)
    weights, at = serve.load_weights(experiment, workdir, which)
    return Member(workdir, serve.with_tta(experiment, tta), weights, at)


def decided(members: Sequence[Member], positive: object, threshold: Threshold) -> DataSpec:
    """Returns what the runs predict, and by which threshold, after checking that they agree.

    Raises:
      WorkdirError: they predict other things.
      UserError: they decide by other thresholds or positive classes, and none is given; or they
        write texts.
    """
    first = members[0]
    if first.experiment.components.teacher_forcing is not None:
        raise UserError(
            "--ensemble: runs that write texts token by token can't be averaged. Predict with each "
            "alone, or train several models as one: model.ensemble."
        )
    spec = serve.deciding(first.experiment, positive, threshold).spec
    if "pairs" in find_task(spec.task).shows:
        raise UserError(
            "--ensemble: embeddings of several models can't be averaged: each has axes of its own."
        )
    for one in members[1:]:
        other = one.experiment.spec
        for what in ("task", "class_names", "target_names", "target_shape"):
            mine, its = getattr(spec, what), getattr(other, what)
            if mine != its:
                raise WorkdirError(
                    f"--ensemble: {first.workdir} and {one.workdir} predict other things: {what} "
                    f"is {_shown(mine)} and {_shown(its)}. Their models can't be averaged."
                )
        if spec.positions and each(_places_by, spec.inputs) != each(_places_by, other.inputs):
            raise UserError(
                f"--ensemble: {first.workdir} and {one.workdir} cut inputs into other positions "
                "(another tokenizer or column of words, or another sample rate), at which their "
                "predictions can't be averaged. Name runs of one coding."
            )
        decided = serve.deciding(one.experiment, positive, threshold).spec.decision
        if decided != spec.decision:
            raise UserError(
                f"--ensemble: {first.workdir} and {one.workdir} decide by other thresholds or "
                "positive classes. Say --threshold and --positive."
            )
    return spec


def _places_by(spec: InputSpec) -> Any:
    """Returns what decides on which part of an input stands at each position."""
    text = None if spec.text is None else (spec.text.state, spec.text.word_column)
    return text, spec.sample_rate


def _shown(value: object) -> str:
    return listing(value) if isinstance(value, tuple) and value else repr(value)


def first_alike(members: Sequence[Member]) -> list[int]:
    """Returns of each run the first one that reads inputs as it does."""
    specs = [one.experiment.spec.inputs for one in members]
    return [specs.index(one) for one in specs]


def _read_alike(spec: DataSpec) -> Any:
    """Returns what decides on the values of inputs; of missing ones the data have none or all."""

    def without(one: InputSpec) -> InputSpec:
        return dataclasses.replace(one, missing="")

    return each(without, spec.inputs)


def combined(
    members: Sequence[Member], spec: DataSpec, readers: Sequence[int]
) -> tuple[Experiment, Weights]:
    """Returns an experiment that predicts the mean of several, and the weights that it does so by.

    Args:
      members: the models, which predict the same; the loss is that of the first.
      spec: what they predict.
      readers: which of several inputs each takes, by its number as text; all 0 where there is one.

    Returns:
      An experiment to evaluate and predict with, not to train; the parameters of the weights are
      those of all models.
    """
    first = members[0]
    several = max(readers) > 0

    def predict(components: Components, weights: Weights, inputs: Any) -> step.Predictions:
        said = [
            one.experiment.predict(own, inputs[str(place)] if several else inputs)
            for one, own, place in zip(members, weights.params, readers, strict=True)
        ]
        return mean(components, weights, said)

    experiment = dataclasses.replace(first.experiment, spec=spec, predictor=predict)
    weights = Weights(
        params=tuple(one.weights for one in members),
        model_state={},
        hparams=first.weights.hparams,
        preprocess=first.weights.preprocess,
    )
    return experiment, weights


def mean(
    components: Components, weights: Weights, said: Sequence[step.Predictions]
) -> step.Predictions:
    """Returns the mean of what several models say of a batch. Pure.

    Class probabilities are averaged, and the outputs are such as give their mean; numbers are
    averaged in the unit of the targets.

    Args:
      components: whose loss is computed of it.
      weights: with what its preprocessing learnt of the targets.
      said: of each model.
    """
    one = said[0]
    if one.probabilities is None:
        outputs = jnp.stack([each.outputs for each in said])
        average, spread = outputs.mean(axis=0), outputs.std(axis=0)
        scaled = one.scaled if len(said) == 1 else target.scaled(weights.preprocess, average)
        return step.Predictions(average, None, scaled, spread)
    if len(said) == 1:
        return one
    found = [each.probabilities for each in said if each.probabilities is not None]
    probabilities = jnp.stack(found).mean(axis=0)
    link = components.loss.link
    assert link is not None
    outputs = link.outputs(probabilities, one.outputs.shape[-1])
    return step.Predictions(outputs, probabilities, outputs)
