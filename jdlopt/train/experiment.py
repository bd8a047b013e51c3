"""From a config to the pure parts that a step is made of: fill in, check, build."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jdlopt import config as configs
from jdlopt import losses, mesh, metrics, models, optim
from jdlopt.config import Count, Field, Natural, Schema
from jdlopt.data import augment, feed, preprocess, sampling, source
from jdlopt.errors import ConfigError, UserError, listing, nearest
from jdlopt.models import lora, pretrained
from jdlopt.train import scaling
from jdlopt.train.checks import impossible, unbuildable
from jdlopt.train.parts import (
    fitted,
    model_of,
    num_outputs,
    open_clean,
    token_rows,
    total_steps,
)
from jdlopt.train.state import TrainState, as_arrays

MOST_STEPS = 2**31 - 1
"""Steps are counted in int32."""
SECTIONS = ("seed", "data", "model", "loss", "optim", "train", "mesh")


@dataclass(frozen=True)
class TrainFields:
    """The ``train`` section.

    Attributes:
      epochs: passes over the training split; 20 if ``steps`` is not given either.
      steps: updates; instead of ``epochs``.
      eval_every: steps between evaluations on the validation split; an epoch by default.
      log_every: steps between logged lines; as ``eval_every`` by default.
      monitor: the metric that says which evaluation is best, such as ``validation/accuracy``.
      patience: stop after so many evaluations without a better one.
      metrics: what evaluations during training measure beside the loss; by the task by default.
      eval_batch_size: examples in one dispatch of an evaluation.
      steps_per_dispatch: 1 calls the step from Python, k runs k steps in one compiled loop;
        measured and chosen by default.
      checkpoint_every: steps between checkpoints; by default they go by ``checkpoint_seconds``.
      checkpoint_seconds: least time between two checkpoints.
      evaluate_test: whether the best checkpoint is evaluated on the test split at the end.
      cache_features: whether what a frozen body makes of each example is computed once, in
        evaluation mode, and the head alone is trained on that. All else must be frozen.
      tensorboard: whether TensorBoard files are written.
    """

    epochs: Count | None = None
    steps: Annotated[int, configs.Range(1, MOST_STEPS)] | None = None
    eval_every: Count | None = None
    log_every: Count | None = None
    monitor: str | None = None
    patience: Count | None = None
    metrics: tuple[str, ...] = ()
    eval_batch_size: Count = 1024
    steps_per_dispatch: Count | None = None
    checkpoint_every: Count | None = None
    checkpoint_seconds: Natural = 30
    evaluate_test: bool = True
    cache_features: bool = False
    tensorboard: bool = True


class Experiment(NamedTuple):
    """The pure parts of one experiment; `step_parts` are what `train_step` takes.

    Attributes:
      config: the resolved config.
      dataset: the opened dataset; its test split is not read by anything built here.
      model, loss, optimizer, average, freezing, augment: the parts of a step.
      recipe: what preprocessing does; ``preprocess_state``: what it learnt from the training split.
      input_shape, input_dtype: of one example after preprocessing.
      order: the order of the training examples.
      collector: what evaluations during training measure.
      total_steps: updates in the whole run.
      eval_every, log_every: in steps.
      monitor: the metric that decides which evaluation is best.
    """

    config: dict[str, Any]
    dataset: source.Dataset
    model: models.Model
    loss: losses.Loss
    optimizer: Any
    average: Any
    freezing: optim.Freezing
    augment: Callable[..., Any]
    recipe: preprocess.Recipe
    preprocess_state: Any
    input_shape: tuple[int, ...]
    input_dtype: str
    order: sampling.Order
    collector: metrics.Collector
    total_steps: int
    eval_every: int
    log_every: int
    monitor: str

    @property
    def preprocess(self) -> Callable[[Array], Array]:
        """Raw inputs → model inputs."""
        return functools.partial(preprocess.apply, self.recipe, self.preprocess_state)

    @property
    def streams(self) -> bool:
        """Whether batches are read one by one, since the training split is not kept in memory."""
        asked = self.config["data"]["in_memory"]
        return not (feed.fits(self.dataset.nbytes("train")) if asked is None else asked)

    @property
    def step_parts(self) -> dict[str, Any]:
        """The keyword arguments of `train_step`."""
        return {
            "model": self.model,
            "loss": self.loss,
            "optimizer": self.optimizer,
            "average": self.average,
            "freezing": self.freezing,
            "preprocess": self.preprocess,
            "augment": self.augment,
            "learning_rate": functools.partial(
                optim.learning_rate_at, self.config["optim"], self.total_steps
            ),
            "accumulate": self.config["optim"]["accumulate"],
        }


def _part_schema(
    values: Any,
    section: str,
    table: Mapping[str, Any],
    shared: Schema,
    problems: list[str],
    without: tuple[str, ...] = (),
    bundled_only: bool = False,
) -> Schema:
    """The keys of a section whose ``name`` chooses a part: the shared ones and the part's own."""
    values = values if isinstance(values, Mapping) else {}
    name_field = shared.get("name", Field((str,)))
    name = values.get("name", name_field.default)
    name = name.text if isinstance(name, configs.Override) else name
    schema: Schema = {**shared, "name": Field((str,), name_field.default)}
    try:
        if name is configs.Required:
            raise ConfigError(f"{section}.name: is missing; choose one of {listing(table)}.")
        if bundled_only and name not in table:
            known = f"{nearest(name, table)} Known: {listing(table)}."
            raise ConfigError(f"{section}.name {name!r} is unknown.{known}")
        part = configs.find_part(name, table, f"{section}.name")
        own = {} if part is None else configs.fields_of(part, without=without)
        return {**schema, **own}
    except ConfigError as error:
        problems.append(str(error))
    except (TypeError, ValueError, NameError, AttributeError) as error:
        problems.append(f"{section}.name {name!r}: its parameters can't be read: {error}.")
    anything = Field((Any,), None)  # which other keys there may be is not known
    return {**dict.fromkeys(values, anything), **shared, "name": anything}


def _groups_schema(groups: Any, problems: list[str]) -> Schema:
    """The keys of each of the freely named groups in ``optim.groups``."""
    shared = configs.fields_of(optim.GroupFields)
    schema: Schema = {}
    for name, values in groups.items() if isinstance(groups, Mapping) else ():
        named = isinstance(values, Mapping) and values.get("name") is not None
        section = f"optim.groups.{name}"
        schema[name] = (
            _part_schema(values, section, optim.OPTIMIZERS, shared, problems) if named else shared
        )
    return schema


def data_schema() -> Schema:
    """Returns every key that the ``data`` section may have."""
    from jdlopt.data.text import TextFields

    return {
        **configs.fields_of(source.DataFields),
        "text": configs.fields_of(TextFields),
        "preprocess": configs.fields_of(preprocess.PreprocessFields),
        "augment": augment.schema(),
    }


def schema_of(raw: Mapping[str, Any], problems: list[str]) -> Schema:
    """Returns every key that a config of these parts may have; notes unknown parts."""
    optim_raw = raw.get("optim", {})
    optim_raw = optim_raw if isinstance(optim_raw, Mapping) else {}
    shared_optim = {
        **configs.fields_of(optim.OptimFields),
        "schedule": _part_schema(
            optim_raw.get("schedule"),
            "optim.schedule",
            optim.SCHEDULES,
            configs.fields_of(optim.ScheduleFields),
            problems,
        ),
        "average": _part_schema(
            optim_raw.get("average"),
            "optim.average",
            optim.AVERAGES,
            configs.fields_of(optim.AverageFields),
            problems,
            bundled_only=True,
        ),
        "groups": _groups_schema(optim_raw.get("groups"), problems),
    }
    return {
        "seed": Field((int,), 0, configs.Range(0, 2**32 - 1)),
        "data": data_schema(),
        "model": _part_schema(
            raw.get("model"),
            "model",
            models.MODELS,
            configs.fields_of(models.ModelFields),
            problems,
            without=models.FILLED_IN,
        ),
        "loss": _part_schema(
            raw.get("loss"), "loss", losses.LOSSES, configs.fields_of(losses.LossFields), problems
        ),
        "optim": _part_schema(raw.get("optim"), "optim", optim.OPTIMIZERS, shared_optim, problems),
        "train": configs.fields_of(TrainFields),
        "mesh": configs.fields_of(mesh.MeshFields),
    }


def _with_frozen_base(section: Mapping[str, Any]) -> dict[str, Any]:
    """The ``optim`` section of a model with adapters: the config says that its base is frozen."""
    said = any(pattern.startswith("^base/") for pattern in section["freeze"])
    return {**section, "freeze": section["freeze"] + (() if said else (lora.FREEZE,))}


def prepare(
    raw: Mapping[str, Any], opened: source.Dataset | None = None
) -> tuple[dict[str, Any], source.Dataset]:
    """Returns the resolved config and its opened dataset, after all checks that need no training.

    Args:
      raw: a config as a file gives it, overrides applied.
      opened: the dataset, where it is open already; whether the step can be built is then left to
        the training.

    Raises:
      ConfigError: everything that is wrong with it, in one message.
      DataError: the dataset can't be opened.
    """
    raw = configs.to_dict(raw)
    problems: list[str] = []
    config = configs.check_section(raw, schema_of(raw, problems), "", problems)
    if config.get("model", {}).get("lora_rank") and not problems:
        config["optim"] = _with_frozen_base(config["optim"])
    dataset = None
    if not any(problem.startswith("data") for problem in problems):
        try:
            dataset = open_clean(config["data"]) if opened is None else opened
        except UserError as error:
            if not problems:
                raise
            problems.append(str(error))
    if dataset is not None:
        problems += impossible(config, dataset, problems)
        if opened is None and not problems:
            problems += unbuildable(config, dataset)
    configs.raise_problems(problems)
    assert dataset is not None
    return config, dataset


def resolve_data(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the resolved ``data`` section alone, whatever the other sections hold.

    Raises:
      ConfigError: everything that is wrong with the section.
    """
    problems: list[str] = []
    section = configs.to_dict(raw).get("data", {})
    checked = configs.check_section(section, data_schema(), "data", problems)
    configs.raise_problems(problems)
    return checked


def resolve(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config with every default filled in, checked against its dataset."""
    return prepare(raw)[0]


def build(config: Mapping[str, Any], dataset: source.Dataset) -> Experiment:
    """Returns the parts of a resolved config; reads the training split to fit preprocessing."""
    train = config["train"]
    size, batch_size = dataset.sizes["train"], config["data"]["batch_size"]
    epoch = feed.steps_per_epoch(size, batch_size)
    steps = total_steps(config, dataset)
    eval_every = min(train["eval_every"] or epoch, steps)
    monitor = train["monitor"] or (
        "validation/accuracy" if dataset.task == "classification" else "validation/loss"
    )
    names = tuple(train["metrics"]) or metrics.default_metrics(dataset.task)
    watched = monitor.partition("/")[2]
    if watched not in (*names, "loss"):
        names = (*names, watched)
    weights = config["loss"]["class_weights"]
    if weights is not None:
        counts = np.bincount(dataset.targets("train"), minlength=dataset.num_classes)
        weights = losses.resolve_class_weights(weights, counts)
    recipe, state = fitted(config["data"], dataset)
    shape, dtype = preprocess.output_shape(recipe, state, dataset.input_shape, dataset.input_dtype)
    outputs = num_outputs(config, dataset)
    sampled = config["data"]["sampling"]
    order = sampling.make_order(
        sampled,
        labels=dataset.targets("train") if sampled == "balanced" else None,
        weights=dataset.weights,
    )
    return Experiment(
        config=dict(config),
        dataset=dataset,
        model=model_of(config, outputs, dataset.meta(), recipe),
        loss=losses.make_loss(config["loss"], weights, config["model"]["ensemble"]),
        optimizer=optim.make_optimizer(config["optim"], steps),
        average=optim.make_average(config["optim"], steps),
        freezing=optim.make_freezing(config["optim"]),
        augment=augment.make_augment(
            config["data"]["augment"],
            size=size,
            batch_size=batch_size,
            num_outputs=outputs,
            classes=dataset.num_classes,
            vocabulary=None if dataset.text is None else dataset.text.vocabulary(),
        ),
        recipe=recipe,
        preprocess_state=state,
        input_shape=shape,
        input_dtype=dtype,
        order=order,
        collector=metrics.make_collector(names, dataset.task, dataset.num_classes),
        total_steps=steps,
        eval_every=eval_every,
        log_every=min(train["log_every"] or eval_every, steps),
        monitor=monitor,
    )


def pretrained_of(experiment: Experiment) -> pretrained.Loaded | None:
    """Returns what ``model.pretrained`` names, as arrays of the model, or None if it names none.

    Raises:
      ConfigError: it can't be read, or does not fit.
    """
    section = experiment.config["model"]
    if section["pretrained"] is None:
        return None
    hparams = as_arrays(configs.hyperparameters(experiment.config))["model"]
    example = jax.ShapeDtypeStruct((1, *experiment.input_shape), experiment.input_dtype)
    shapes = pretrained.shapes_of(experiment.model, example, hparams)
    return pretrained.load(section, *shapes, token_rows(experiment.dataset))


def init_state(
    experiment: Experiment, seed: int | Array, hparams: Any, loaded: Any = None
) -> TrainState:
    """Returns the state before the first step. Pure: jit or vmap it over seeds and hyperparameters.

    Args:
      experiment: the parts.
      seed: parameters, dropout and augmentation draw from it.
      hparams: every traced float as a scalar array.
      loaded: ``(params, state)`` by path, of `pretrained_of`, to start from; None: random values.
    """
    init_key, key = jax.random.split(jax.random.key(seed))
    example = jnp.zeros((1, *experiment.input_shape), experiment.input_dtype)
    params, model_state = experiment.model.init(init_key, example, hparams["model"])
    if loaded is not None:
        params, model_state = pretrained.placed(loaded, params, model_state)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=experiment.optimizer.init(params),
        average=experiment.average.init(params, model_state),
        hparams=hparams,
        key=key,
        loss_scale=scaling.start() if experiment.config["model"]["dtype"] == "float16" else (),
    )


def evaluated(experiment: Experiment, state: TrainState) -> tuple[Any, Any]:
    """Returns the parameters and model state that evaluations use, averaged where asked for."""
    params = optim.eval_params(experiment.config["optim"], state.opt_state, state.params)
    return experiment.average.evaluated(state.average, params, state.model_state)
