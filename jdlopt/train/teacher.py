"""The runs that a run learns from (``loss.distill``), and what they say of its examples.

A teacher's directory is data: its code runs only where this run's own config names the same. Its
weights are constants of the step, never in the state, the optimizer or a checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import keystr, tree_leaves_with_path
from jaxtyping import Array

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.data import from_run, preprocess
from jdlopt.data.augment.batch import unchanged
from jdlopt.data.dataset import Dataset
from jdlopt.data.named import by_name
from jdlopt.data.preprocess import target
from jdlopt.data.spec import DataSpec
from jdlopt.errors import ConfigError, UserError, WorkdirError, listing
from jdlopt.losses import EMA, DistillFields
from jdlopt.metrics import higher_is_better
from jdlopt.models.intermediate import with_layers
from jdlopt.train import checkpoint, checksums, data_record, log
from jdlopt.train.components import num_outputs
from jdlopt.train.loggers.logger import FINAL
from jdlopt.train.result import read_result
from jdlopt.train.schema import Config
from jdlopt.train.state import TrainState, Weights
from jdlopt.train.step import (
    TEACHER,
    Batch,
    Components,
    Inputs,
    Said,
    Teacher,
    weights_of,
)

KEY = "loss.distill.teacher"
LAYERS = "loss.distill.teacher_features"


class Opened(Protocol):
    """What of a teacher's experiment is used."""

    @property
    def config(self) -> Config:
        """Its resolved config."""

    @property
    def spec(self) -> DataSpec:
        """What it knew of its data."""

    @property
    def components(self) -> Components:
        """What its step is made of."""

    @property
    def recipe(self) -> preprocess.Recipes:
        """What its preprocessing does."""

    @property
    def learnt(self) -> preprocess.State:
        """What that learnt."""

    @property
    def hparams(self) -> Any:
        """Its traced floats."""

    def init(self, seed: int) -> TrainState:
        """Returns the state before the first step."""


class Model(NamedTuple):
    """A teacher's model: its functions, and the weights of its best evaluation."""

    place: Path
    experiment: Opened
    weights: Weights


class Pupil(NamedTuple):
    """What of the run that learns a teacher must fit.

    Attributes:
      config, spec, recipe: its own.
      learnt: what its preprocessing learnt.
      dataset: its data; None where nothing is trained on them, and so nothing checked.
    """

    config: Config
    spec: DataSpec
    recipe: preprocess.Recipes
    learnt: preprocess.State
    dataset: Dataset | None


def make_teacher(pupil: Pupil, components: Components, build: Callable[..., Opened]) -> Teacher:
    """Returns the teacher that a config names; its weights are read when it is first asked.

    Args:
      pupil: what learns.
      components: of its step.
      build: `jdlopt.train.experiment.Experiment.build`.

    Raises:
      ConfigError: it is no finished run, or one of other classes or inputs, or was trained on what
        is validation or test data here.
    """
    fields = pupil.config.loss.distill
    assert fields is not None and fields.teacher is not None
    if pupil.config.train.cache_features:
        raise ConfigError(f"{KEY}: can't be had together with train.cache_features: set it False.")
    if fields.teacher == EMA:
        return _of_average(pupil.config, fields)
    places = [place for name in _named(fields.teacher) for place in runs_of(name)]
    if fields.features and len(places) > 1:
        raise ConfigError(
            f"loss.distill.features: are learnt from one teacher; {KEY} names {len(places)}."
        )
    steady = components.augment is unchanged
    record: tuple[Mapping[str, str], ...] = ()
    if pupil.dataset is not None:
        for place in places:
            _check(place, pupil, steady)
        record = tuple({"run": str(one), "checkpoint": _digest(one)} for one in places)

    @functools.cache
    def models() -> list[Model]:
        allowed = configs.code_in(pupil.config)
        with jax.ensure_compile_time_eval():  # it may be asked first while a step is traced
            return [_opened(place, allowed, build) for place in places]

    wide, link = num_outputs(pupil.config, pupil.spec), components.loss.link

    def mean(said: Sequence[tuple[Model, Array]]) -> Array:
        """The teachers' outputs as this run's loss takes them; numbers in their own unit."""
        if link is None:
            found = [target.unscaled(one.weights.preprocess, out) for one, out in said]
            return jnp.stack(found).mean(axis=0)
        links = [one.experiment.components.loss.link for one, _ in said]
        if len(said) == 1 and links[0] == link and said[0][1].shape[-1] == wide:
            return said[0][1].astype(jnp.float32)  # logits keep what probabilities lose
        shares = [own.probabilities(out) for own, (_, out) in zip(links, said) if own is not None]
        return link.outputs(jnp.stack(shares).mean(axis=0), wide)

    def of(seen: Callable[[Model], Inputs]) -> Said:
        said: list[tuple[Model, Array]] = []
        layers: tuple[Array, ...] = ()
        for one in models():
            patterns = fields.teacher_features or fields.features
            outputs, layers = _applied(one.experiment.components, one.weights, seen(one), patterns)
            said.append((one, outputs))
        return Said(mean(said), layers)

    def of_raw(inputs: Inputs) -> Said:
        return of(lambda one: one.experiment.components.preprocess(one.weights.preprocess, inputs))

    def says(components: Components, state: TrainState, batch: Batch, seen: Inputs) -> Said:
        found = batch.get(TEACHER)
        if found is None:
            found = of_raw(batch["inputs"]) if steady else of(lambda one: seen)
        if link is None:
            return found._replace(outputs=target.scaled(state.preprocess, found.outputs))
        return found

    return Teacher(says, of_raw if steady else None, fields.features, record)


def _of_average(config: Config, fields: DistillFields) -> Teacher:
    """The teacher that is the model's own average.

    Tarvainen and Valpola, "Mean teachers are better role models", 2017.
    """
    if config.optim.average.name == "none":
        raise ConfigError(
            f"{KEY}: {EMA!r} is the average of the model's parameters, and there is none: set "
            "optim.average.name='ema'."
        )

    def says(components: Components, state: TrainState, batch: Batch, seen: Inputs) -> Said:
        patterns = fields.teacher_features or fields.features
        weights = weights_of(components, state)
        return Said(*_applied(components, weights, seen, patterns))

    return Teacher(says, None, fields.features, ())


def _applied(
    components: Components, weights: Weights, seen: Inputs, patterns: Sequence[str]
) -> tuple[Array, tuple[Array, ...]]:
    given = (weights.params, weights.model_state, seen, weights.hparams["model"])
    (outputs, _), layers = with_layers(
        lambda: components.model.apply(*given, key=None, train=False), patterns, LAYERS
    )
    return lax.stop_gradient((outputs.astype(jnp.float32), layers))


# --- which runs -----------------------------------------------------------------------------------


def _named(teacher: str | tuple[str, ...]) -> tuple[str, ...]:
    names = (teacher,) if isinstance(teacher, str) else teacher
    if not names or EMA in names:
        found = "an empty tuple" if not names else f"{EMA!r} among others"
        raise ConfigError(f"{KEY}: expected runs' directories, found {found}.")
    return names


def runs_of(name: str) -> list[Path]:
    """Returns the runs that a teacher's name means: one, or ``STUDY:k``, the best k of a study's.

    Those are the best of the runs that it keeps, by the metric that they watched.

    Raises:
      ConfigError: there is no such run, or the study keeps fewer.
    """
    place = writing.expanded(name)
    study, _, count = name.rpartition(":")
    if from_run.is_run(place) or not (study and count.isdigit()):
        return [place]
    folders = {
        one.parent
        for folder in from_run.HOLDING_RUNS
        for one in writing.expanded(study).glob(f"{folder}/*/{from_run.INPUTS}")
    }
    ranked = ((_rank(one), one) for one in folders)
    found = [one for _, one in sorted((rank, one) for rank, one in ranked if rank is not None)]
    if not 0 < int(count) <= len(found):
        raise ConfigError(
            f"{KEY}: {name!r}: {study} keeps {len(found)} finished runs. `jdlopt tune` keeps more "
            f"with --keep={count}."
        )
    return found[: int(count)]


def _rank(place: Path) -> float | None:
    """What a run's best evaluation came to, the less the better; None if it has not ended well."""
    found = read_result(place)
    best = (found or {}).get("best") or {}
    metric, value = best.get("metric"), best.get("value")
    if found is None or found["status"] not in FINAL or not isinstance(value, int | float):
        return None
    return -value if higher_is_better(str(metric).partition("/")[2]) else value


def _check(place: Path, pupil: Pupil, steady: bool) -> None:
    """Raises a `ConfigError` that says why a run can't be learnt from."""
    if not from_run.is_run(place):
        raise ConfigError(
            f"{KEY}: {str(place)!r} is no run's directory. Name one that `jdlopt train` was given."
        )
    found = read_result(place)
    if found is None or found["status"] not in FINAL or _best(place) is None:
        raise ConfigError(
            f"{KEY}: the run in {place} has not finished. Go on with `jdlopt train` first."
        )
    known = from_run.kept(str(place))
    assert known is not None
    problem = _other_targets(known.spec, pupil.spec) or _other_inputs(known, pupil)
    if not steady:
        problem = problem or _other_preprocessing(known, pupil)
    problem = problem or _leak(known, pupil)
    if problem:
        raise ConfigError(f"{KEY}: the run in {place} {problem}")


def _other_targets(known: DataSpec, spec: DataSpec) -> str:
    for what in ("task", "class_names", "target_names", "target_shape"):
        here, there = getattr(spec, what), getattr(known, what)
        if here != there:
            return f"predicts something else: {what} is {_shown(here)} here, {_shown(there)} there."
    return ""


def _other_inputs(known: from_run.Kept, pupil: Pupil) -> str:
    here, there = set(pupil.spec.named), set(known.spec.named)
    if here != there:
        return f"takes other inputs: {listing(sorted(here))} here, {listing(sorted(there))} there."
    for name, one in pupil.spec.named.items():
        unlike = from_run.differences(known.spec.named[name], one)
        if unlike:
            return (
                f"takes other inputs: {'; '.join(unlike)}. With data.fit_on={str(known.place)!r} "
                "they are coded as its were."
            )
    return ""


def _other_preprocessing(known: from_run.Kept, pupil: Pupil) -> str:
    """Why a teacher can't be given the very batch that this run's augmentation makes."""
    why = "sees the batches that data.augment makes, and so must be given what this run's model is"
    fields = pupil.config.data.preprocess
    mine, its = by_name(pupil.recipe), by_name(known.recipe(fields) or {})
    for name, one in mine.items():
        if one != its.get(name):
            return f"{why}: set data.preprocess as it is there."
    if not _equal(pupil.learnt, known.learnt):
        return f"{why}: set data.fit_on={str(known.place)!r}, which scales as it does there."
    return ""


def _equal(here: preprocess.State, there: preprocess.State) -> bool:
    """Says whether preprocessing learnt the same of inputs."""
    trees = [{k: v for k, v in one.items() if k != target.TARGET} for one in (here, there)]
    mine, its = ({keystr(path): leaf for path, leaf in tree_leaves_with_path(t)} for t in trees)
    return mine.keys() == its.keys() and all(
        np.shape(leaf) == np.shape(its[name])
        and np.allclose(leaf, its[name], rtol=1e-5, atol=1e-6, equal_nan=True)
        for name, leaf in mine.items()
    )


def _leak(known: from_run.Kept, pupil: Pupil) -> str:
    """Says what of the validation and test examples here the teacher was trained on."""
    if known.config["data"].get("source") != pupil.config.data.source or pupil.dataset is None:
        return ""
    found = data_record.trained_on(known.place, pupil.dataset)
    for split, (some, all_of_them) in ({} if found is None else found.seen).items():
        if some:
            return (
                f"was trained on {some:,} of the {all_of_them:,} {split} examples here, and would "
                "give their targets away. Split the data as it did, or train it on these splits."
            )
    return ""


def _shown(value: object) -> str:
    return listing(value, 4) if isinstance(value, tuple) and value else repr(value)


# --- its model ------------------------------------------------------------------------------------


def _best(place: Path) -> Path | None:
    """The best checkpoint of a run."""
    folder = place / log.CHECKPOINTS
    found = checkpoint.steps(folder, "best")
    return checkpoint.place(folder, found[-1], "best") if found else None


def _digest(place: Path) -> str:
    folder = _best(place)
    assert folder is not None
    return checksums.fingerprint(folder)


def _opened(place: Path, allowed: configs.Allowed, build: Callable[..., Opened]) -> Model:
    """A run's model, built from its directory alone."""
    try:
        config = log.saved_config(place / log.CONFIG)
        configs.refuse_code(config, place / log.CONFIG, allowed)
        known, folder = from_run.kept(str(place)), _best(place)
        if known is None or folder is None:
            raise WorkdirError(f"{place}: holds no best checkpoint.")
        # on the devices that are here now, whatever the run had
        experiment = build({**config, "mesh": {"data": 1}}, known.spec, learnt_before=known.learnt)
        state = jax.eval_shape(functools.partial(experiment.init, 0))
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        template = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one),
            {"params": state.params, "model_state": state.model_state},
        )
        tree = checkpoint.restore(folder, template)
    except UserError as error:
        raise ConfigError(f"{KEY}: {error}") from error
    # as arrays of the host they are constants on whatever devices a step is compiled for
    weights = Weights(**tree, hparams=experiment.hparams, preprocess=experiment.learnt)
    return Model(place, experiment, jax.device_get(weights))
