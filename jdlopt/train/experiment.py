"""From a config to the pure parts that a step is made of: fill in, check, build."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jdlopt import config as configs
from jdlopt import losses, metrics, models, optim
from jdlopt.data import feed, preprocess, sampling, source
from jdlopt.data.augment.batch import make_augment
from jdlopt.errors import UserError
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
from jdlopt.train.schema import schema_of
from jdlopt.train.state import TrainState, as_arrays


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
        augment=make_augment(
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
