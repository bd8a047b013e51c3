"""A run that was made, not trained: another run's weights, changed, in a directory of their own.

Such a directory is an ordinary finished run, which every verb takes; its ``result.json`` says under
``made`` which run it comes from and what was done.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Int, PyTree

from jdlopt import config as configs
from jdlopt.data.dataset import Dataset
from jdlopt.errors import ConfigError, WorkdirError
from jdlopt.mesh import MeshFields, make_mesh
from jdlopt.models import pruning
from jdlopt.train import (
    checkpoint,
    checksums,
    data_record,
    goodput,
    log,
    serve,
    split_record,
)
from jdlopt.train.experiment import Experiment
from jdlopt.train.facts import count_of, evaluated, facts_of, reasons_of, tell_faults
from jdlopt.train.goodput import Account
from jdlopt.train.pending import Snapshot
from jdlopt.train.result import read_result, write_result
from jdlopt.train.run import Run, open_run
from jdlopt.train.saving import Saving
from jdlopt.train.state import TrainState, Weights
from jdlopt.train.tracker import make_tracker


def save_made(
    source: Run,
    config: configs.AnyConfig,
    weights: Weights,
    directory: str | Path,
    how: Mapping[str, object],
    dataset: Dataset | None = None,
) -> Run:
    """Writes weights as a finished run, evaluated on the validation and the test split.

    A split that can't be evaluated is told in the record and in a warning, as after a training.

    The data, their splits and what preprocessing learnt of them are the source's. The checkpoint is
    one that `fit` goes on from, where the config is asked for more epochs: the optimizer begins
    anew.

    Args:
      source: the finished run that the weights come from.
      config: the config of a model that has these weights; its ``data`` are the source's.
      weights: what predicts. Its ``hparams`` and ``preprocess`` are not looked at: they are the
        config's and the source's. What its masks leave out is written as 0.
      directory: the new run's; it must not hold a run.
      how: what was done, as JSON can hold it: ``method`` and whatever else belongs to it.
      dataset: the source's data, where they are open already, or others that were agreed to.

    Raises:
      WorkdirError: the source has not finished, or its record is damaged; the directory holds a
        run, or can't be written.
      ConfigError: the config is wrong, or its model has other weights.
      DataError: the source's data can't be opened any more.
    """
    started = time.perf_counter()
    place = Path(directory)
    if read_result(place) is not None:
        raise WorkdirError(f"{place}: holds a run already. Choose another directory.")
    made_from = origin(source)
    experiment = with_data_of(source, config, dataset)
    config, step = experiment.config, int(source.record["steps"])
    weights = weights.replace(params=pruning.applied(weights.params, weights.model_state))
    _check_alike(jax.eval_shape(partial(experiment.init, config.seed)), weights)
    start = _flat(weights.params), _flat(weights.model_state)
    state = jax.jit(partial(_state, experiment))(start, step)
    weights = dataclasses.replace(weights, hparams=experiment.hparams, preprocess=state.preprocess)
    found, faults = evaluated(experiment, partial(serve.measure, experiment, weights))
    numbers = {name: value for name, value in found.items() if isinstance(value, float)}
    tracker = make_tracker(experiment, experiment.data.sizes["train"])
    tracker.best = tracker.best.after(step, numbers.get(experiment.monitor, float("nan")))
    with log.claim(place, config):
        data_record.keep(place, experiment.data)
        split_record.save(place, experiment.data)
        serve.save_inputs_record(experiment, place)
        began, teachers = source.record.get("pretrained"), source.record.get("teachers") or []
        if began:
            log.save_pretrained(place, began)
        if teachers:
            log.save_teachers(place, teachers)
        lines = log.RunLog(place, step, (), config)
        lines.write(step, {n: v for n, v in numbers.items() if n.startswith("validation/")}, {})
        lines.flush()
        lines.close()
        mesh, best = make_mesh(config.mesh), Snapshot(step, weights)
        seconds = time.perf_counter() - started
        account = Account().with_more(goodput.STEPS, seconds)
        with closing(Saving(place, experiment, mesh)) as saving:
            saving.save(state, step, best, tracker, None, account)
            saving.wait()
        write_result(
            place,
            {
                "status": "done",
                "metrics": found,
                "steps": step,
                "wall_seconds": seconds,
                **facts_of(
                    experiment,
                    tracker.best,
                    count_of(weights.params),
                    mesh,
                    began,
                    teachers,
                    weights,
                ),
                **reasons_of(faults),
                "made": {**made_from, "how": dict(how)},
            },
        )
    tell_faults(faults, place)
    return open_run(place, allow_code=bool(source.allow_code))


def origin(source: Run) -> dict[str, object]:
    """Returns what a run that is made says of the one that it comes from.

    Returns:
      ``from``, its directory (None of a run in memory); ``checkpoint``, the SHA-256 of its best
      one; and ``config_fingerprint``.

    Raises:
      WorkdirError: it has not finished, or has no checkpoint.
    """
    where = source.workdir
    if not source.is_final:
        raise WorkdirError(
            f"{where or 'the run'}: its training has not finished (its status is "
            f"{source.status!r}): nothing is made from it. Go on with `jdlopt train` first."
        )
    digest = None
    if where is not None:
        kept = checkpoint.steps(where / log.CHECKPOINTS, "best")
        if not kept:
            raise WorkdirError(f"{where}: holds no best checkpoint; nothing is made from it.")
        digest = checksums.fingerprint(checkpoint.place(where / log.CHECKPOINTS, kept[-1], "best"))
    return {
        "from": None if where is None else str(where),
        "checkpoint": digest,
        "config_fingerprint": source.record.get("config_fingerprint"),
    }


def with_data_of(
    source: Run, config: configs.AnyConfig, dataset: Dataset | None = None
) -> Experiment:
    """Returns the experiment of a config on a run's data, preprocessed by what that run learnt.

    Args:
      source, config: as in `save_made`.
      dataset: the data, where they are open already.

    Raises:
      ConfigError, DataError, WorkdirError: the config is wrong, or the data are gone or others.
    """
    dataset = source.experiment.dataset if dataset is None else dataset
    if dataset is None:
        assert source.workdir is not None
        dataset = serve.experiment_with_data(source.workdir, source.allow_code).data
    plain = {**configs.to_dict(config), "mesh": configs.to_dict(MeshFields())}
    return Experiment.build(
        plain, dataset, learnt_before=source.experiment.learnt, check=False, begins=False
    )


def _state(
    experiment: Experiment, start: tuple[PyTree, PyTree], step: Int[Array, ""]
) -> TrainState:
    """The state of a training that has these weights after so many steps, its optimizer anew."""
    state = experiment.init(experiment.config.seed, None, start)
    return state.replace(step=jnp.asarray(step, jnp.int32))


def _check_alike(here: TrainState, there: Weights) -> None:
    """Raises a `ConfigError` that names the first array in which weights are not a config's."""
    params = pruning.without_scores(here.params)  # which begin anew
    for mine, its in (
        (_shapes(params), _shapes(there.params)),
        (_shapes(here.model_state), _shapes(there.model_state)),
    ):
        for name in dict.fromkeys((*mine, *its)):
            if mine.get(name) != its.get(name):
                raise ConfigError(
                    f"model: the config's has {name} of shape {mine.get(name)}, and the weights "
                    f"{its.get(name)}: they are another model's."
                )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in _flat(tree).items()}


def _flat(tree: PyTree) -> dict[str, Any]:
    """The arrays of a model by path, as `Experiment.init` takes them."""
    return {"/".join(map(str, path)): leaf for path, leaf in flatten_dict(tree).items()}
