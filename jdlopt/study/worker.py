"""What the workers of studies and comparisons do: check a study, train a population or a run."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import config as configs
from jdlopt.errors import ConfigError, DivergedError, listing, nearest
from jdlopt.executor import messages
from jdlopt.executor.messages import (
    Answer,
    CheckStudy,
    PopulationTrained,
    Progress,
    Request,
    RunTrained,
    StudyChecked,
    TrainPopulation,
    TrainRun,
    TrialResult,
)
from jdlopt.executor.worker import Link, all_cores
from jdlopt.metrics import higher_is_better
from jdlopt.study import structure
from jdlopt.study.halving import rungs
from jdlopt.study.population import Cache, Population
from jdlopt.study.space import from_json, probes
from jdlopt.study.structure import Structure
from jdlopt.study.trial import DIVERGED, Trial
from jdlopt.tasks import find_task
from jdlopt.train import checkpoint, checks, data_record, disk, log, loggers, serve, weights_file
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit_experiment
from jdlopt.train.schema import schema_of
from jdlopt.train.start import weights_in_words

MOST_STRUCTURES = 40
"""Structures whose programs are held. Each takes hundreds of the memory mappings of which Linux
gives a process 65,530; what is wanted again is loaded from where programs are kept."""
COSTS = ("n_params", "step_seconds")
"""Objectives that are no metrics; less is better."""


def start(link: Link) -> StudyWorker:
    """Returns what answers a worker's requests."""
    return StudyWorker(link)


class StudyWorker:
    """Answers requests; keeps data on the device and compiled programs between them.

    Args:
      link: to the coordinator.
    """

    def __init__(self, link: Link):
        self.link, self.cache = link, Cache()
        self.structures: dict[str, list[Structure]] = {}
        self.data: dict[Any, Any] = {}

    def __call__(self, request: Request) -> Answer:
        """Does what is asked for; returns what it came to."""
        if isinstance(request, CheckStudy):
            return self.check(request)
        if isinstance(request, TrainPopulation):
            return self.train(request)
        assert isinstance(request, TrainRun)
        return RunTrained(request.task, self.fit(request.config, request.workdir))

    # --- checking ---------------------------------------------------------------------------------

    def check(self, request: CheckStudy) -> StudyChecked:
        """Checks a study's config, space and objectives."""
        texts = {key: configs.Override(text) for key, text in request.overrides.items()}
        raw = configs.override(request.config, texts)
        watched = [name for name in request.objectives if name.startswith("validation/")]
        if watched:
            raw = configs.override(raw, {"train.monitor": watched[0]})
        points = list(probes(from_json(request.space)))
        try:
            structure.check_probes(raw, points)
            config, experiment = self._built(raw, points[0], request)
        except ConfigError as error:
            if not watched:
                raise
            text = re.sub(r"^(\s*)train\.monitor:", r"\1--objective:", str(error), flags=re.M)
            raise ConfigError(text) from error
        checks.check_choosing(experiment.config.data.train_on)
        loggers.check(experiment.config.train.used_loggers)  # the best trials are kept as runs
        names = request.objectives or [experiment.monitor]
        _check_objectives(names, experiment)
        *measured, _ = _measured(experiment)
        wanted = [name.partition("/")[2] for name in names if name not in COSTS]
        more = [name for name in wanted if name not in (*measured, "loss")]
        if more:
            every = (*measured, *dict.fromkeys(more))
            raw = configs.override(raw, {"train.metrics": every})
            config, experiment = self._built(raw, points[0], request)
        _check_goal(request.goal, experiment)
        directions = {
            name: "minimize"
            if name in COSTS or not higher_is_better(name.partition("/")[2])
            else "maximize"
            for name in names
        }
        return StudyChecked(
            config=config,
            resolved=disk.as_json(experiment.config.to_dict()),
            base=_values(config, [row["key"] for row in request.space]),
            directions=directions,
            monitor=experiment.monitor,
            seed=experiment.config.seed,
            versions=log.versions(),
            data=data_record.fingerprint(experiment.data),
            notes=[note.to_dict() for note in experiment.data.notes],
            weights=weights_in_words(experiment),
        )

    def _built(
        self, raw: configs.AnyConfig, point: Mapping[str, object], request: CheckStudy
    ) -> tuple[dict[str, Any], Experiment]:
        """A base config, settled, and the experiment of it at a point of the space."""
        schema = schema_of(configs.to_dict(configs.override(raw, point)), [])
        config = configs.settled(configs.to_dict(raw), schema)
        shape = {key: v for key, v in point.items() if key not in request.traced}
        structures = self._structures(configs.override(config, shape), request.folds)
        return config, structures[0].experiment

    def _structures(
        self, config: Mapping[str, object], folds: Sequence[int] | None
    ) -> list[Structure]:
        """The structures of a config, built once."""
        plain = configs.to_dict(config)
        group = json.dumps([plain, folds], sort_keys=True)
        if group not in self.structures and len(self.structures) >= MOST_STRUCTURES:
            self.structures.clear()
            self.cache.forget()
        if group not in self.structures:
            self.structures[group] = structure.build(plain, folds, self.data)
        return self.structures[group]

    # --- training ---------------------------------------------------------------------------------

    def train(self, request: TrainPopulation) -> PopulationTrained:
        """Trains the trials of a population; folds that can't share a program come in turn."""
        compiled = self.cache.compile.seconds
        structures = self._structures(request.config, request.folds)
        trials = [
            Trial(one.number, one.seed, one.fold, one.params, *_files(one))
            for one in request.trials
        ]
        trained: list[_Trained] = []
        for one in structures:
            own = [trial for trial in trials if trial.fold in one.folds]
            for trial in own:
                trial.tracker = one.tracker(trial.fold, trial.params)
            if own and one.data is None:
                self._train_alone(one, own, request)
                continue
            size = request.at_once or max(1, len(own))
            for first in range(0, len(own), size):
                if first and self.link.stopped(request.task):
                    break
                found = self._train_together(one, own[first : first + size], request)
                trained.append(found)
        result = PopulationTrained(
            task=request.task,
            trials=[_result(trial) for trial in trials],
            fingerprint=structures[0].fingerprint,
            total_steps=structures[0].experiment.total_steps,
            train_seconds=sum(one.train_seconds for one in trained),
            compile_seconds=self.cache.compile.seconds - compiled,
        )
        if not trained:
            return result
        return PopulationTrained(**result.__dict__ | trained[0].facts)

    def _train_together(
        self, one: Structure, trials: list[Trial], request: TrainPopulation
    ) -> _Trained:
        """Trains trials as one population."""
        import jax

        experiment, given = one.experiment, request.execution_mode
        place = Path(request.directory) / one.fingerprint
        if request.at_once is not None:
            place = place / f"{trials[0].number}-{trials[0].seed}-{trials[0].fold or 0}"
        population = Population(
            one,
            trials,
            width=request.at_once or max(request.width, len(trials)),
            execution_mode=given or ("scan" if jax.default_backend() == "cpu" else "vmap"),
            cache=self.cache,
            halving=request.halving,
            history=request.history,
            rungs=rungs(experiment.total_steps, experiment.eval_every, request.reduction),
            reduction=request.reduction,
            directory=place,
            checkpoint_seconds=experiment.config.train.checkpoint_seconds,
        )
        with all_cores():
            population.compile()
        measured = request.calibrate and given is None
        if measured:
            population.choose()

        def progress(now: Population) -> None:
            self.link.send(Progress(request.task, now.step, now.total, len(now.active)))

        population.train_all(lambda: self.link.stopped(request.task), progress)
        if population.active and population.step:
            population.save()
        return _Trained(
            population.train_seconds,
            {
                "execution_mode": population.execution_mode,
                "devices": [str(device) for device in population.layout.devices],
                "chosen": "given" if given else "measured" if measured else "default",
                "mode_seconds": population.step_seconds,
                "reached": population.reached,
                "n_params": population.n_params,
                "step_seconds": population.train_seconds / max(1, population.trained_steps),
            },
        )

    def fit(self, config: Mapping[str, object], workdir: str | Path) -> dict[str, Any]:
        """Trains a config as a run; returns its record. Its structure was checked before."""
        experiment = structure.experiment_of(config, self.data, check=False)
        return fit_experiment(experiment, workdir).record

    def _fit_whole(self, config: Mapping[str, object], place: Path, trial: Trial) -> dict[str, Any]:
        """Trains as `fit` does, from the beginning where no checkpoint is whole."""
        experiment = structure.experiment_of(config, self.data, check=False)
        experiment = dataclasses.replace(experiment, start=trial.start)
        try:
            record = fit_experiment(experiment, place).record
        except checkpoint.AllDamagedError as error:
            checkpoint.begin_anew(place, error)
            record = fit_experiment(experiment, place).record
        if trial.keep is not None:
            weights_file.save(trial.keep, serve.load_weights(experiment, place, "best")[0])
        return record

    def _train_alone(
        self, one: Structure, trials: Sequence[Trial], request: TrainPopulation
    ) -> None:
        """Trains trials by `fit`, one by one, each in a directory of its own."""
        for trial in trials:
            name = f"{trial.number:04d}-{trial.seed}-{trial.fold or 0}"
            place = Path(request.directory) / name
            changes = {**trial.params, "seed": trial.seed, "train.evaluate_test": False}
            changes["train.loggers"] = ()  # what they log is in the study's curves
            if trial.fold is not None:
                changes["data.fold"] = trial.fold
            try:
                record = self._fit_whole(configs.override(request.config, changes), place, trial)
                trial.status, trial.steps = record["status"], record["steps"]
                step, value = record["best"]["step"], record["best"]["value"]
                value = math.nan if value is None else value
                trial.tracker.best = trial.tracker.best.after(step, value)
            except DivergedError as error:
                trial.status, trial.steps, trial.reason = DIVERGED, error.step, str(error)
            trial.rows = log.read_lines(place / log.METRICS)
            if self.link.stopped(request.task):
                break


def _check_objectives(names: Sequence[str], experiment: Experiment) -> None:
    """Raises a `ConfigError` where an objective is none, or is undefined on validation."""
    for name in (one for one in names if one not in COSTS):
        split, _, metric = name.partition("/")
        problem = checks.metric_problem(metric, experiment.spec, watched=True)
        if split != "validation" or problem:
            raise ConfigError(
                f"--objective: {name!r} is none: "
                + (problem or "name validation/METRIC, n_params or step_seconds.")
            )
        undefined = checks.undefined_metric(experiment.data, metric)
        if undefined:
            raise ConfigError(f"--objective: {undefined}")


def _check_goal(goal: str | None, experiment: Experiment) -> None:
    """Raises a `ConfigError` where the metric of a goal is none of those that are measured."""
    if goal is None:
        return
    split, _, metric = goal.partition("/")
    measured = _measured(experiment)
    if split not in ("validation", "train") or metric not in measured:
        problem = checks.metric_problem(metric, experiment.spec, watched=True)
        known = problem is None and split in ("validation", "train")
        names = [f"validation/{name}" for name in measured]
        advice = (
            f" Add it: --config.train.metrics={','.join((*measured[:-1], metric))}."
            if known
            else ""
        )
        raise ConfigError(
            f"--until: {goal!r} is not measured.{nearest(goal, names)} "
            f"Measured are {listing(names)}.{advice}"
        )
    undefined = checks.undefined_metric(experiment.data, metric) if split == "validation" else None
    if undefined:
        raise ConfigError(f"--until: {undefined}")


def _measured(experiment: Experiment) -> tuple[str, ...]:
    """Returns the metrics of an evaluation, the loss last."""
    task = find_task(experiment.spec.task)
    names = (
        *(experiment.config.train.metrics or task.metrics),
        experiment.monitor.partition("/")[2],
    )
    return (*(name for name in dict.fromkeys(names) if name != "loss"), "loss")


def _values(config: Mapping[str, object], keys: Sequence[str]) -> dict[str, object]:
    """Returns what a config has at some keys, given or by default; None where it has no such key.

    The config need not be one that can be trained: a searched key may replace what is wrong.
    """
    ignored: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told where it is trained
        whole = configs.check_section(config, schema_of(config, ignored), "", ignored)
    flat = configs.flat(whole)
    return {key: disk.as_json(flat.get(key)) for key in keys}


def _files(one: messages.Trial) -> tuple[Path | None, Path | None]:
    """The file that a trial starts from, and the one that it is kept in."""
    start, keep = (None if place is None else Path(place) for place in (one.start, one.keep))
    return start, keep


class _Trained(NamedTuple):
    """What is kept of a population, whose arrays are not: seconds, and facts of its structure."""

    train_seconds: float
    facts: dict[str, Any]


def _result(trial: Trial) -> TrialResult:
    best = trial.tracker.best
    return TrialResult(
        number=trial.number,
        seed=trial.seed,
        fold=trial.fold,
        status=trial.status,
        reason=trial.reason,
        steps=trial.steps,
        best_step=best.step,
        value=disk.as_json(best.value),
        rows=disk.as_json(trial.rows),
    )
