"""From a config to the pure parts that a step is made of: fill in, check, build."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jdlopt import config as configs
from jdlopt import losses, mesh, metrics, models, optim
from jdlopt.config import Count, Field, Natural, Schema
from jdlopt.data import feed, preprocess, source
from jdlopt.errors import ConfigError, UserError, listing
from jdlopt.train.state import TrainState, as_arrays

DEFAULT_EPOCHS = 20
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
      tensorboard: whether TensorBoard files are written.
    """

    epochs: Count | None = None
    steps: Count | None = None
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
    tensorboard: bool = True


class Experiment(NamedTuple):
    """The pure parts of one experiment; `step_parts` are what `train_step` takes.

    Attributes:
      config: the resolved config.
      dataset: the opened dataset; its test split is not read by anything built here.
      model, loss, optimizer, average, augment: the parts of a step.
      preprocess_state: what preprocessing learnt from the training split.
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
    augment: Callable[..., Any]
    preprocess_state: Any
    collector: metrics.Collector
    total_steps: int
    eval_every: int
    log_every: int
    monitor: str

    @property
    def preprocess(self) -> Callable[[Array], Array]:
        """Raw inputs → model inputs."""
        return functools.partial(preprocess.apply, self.preprocess_state)

    @property
    def step_parts(self) -> dict[str, Any]:
        """The keyword arguments of `train_step`."""
        return {
            "model": self.model,
            "loss": self.loss,
            "optimizer": self.optimizer,
            "average": self.average,
            "preprocess": self.preprocess,
            "augment": self.augment,
            "accumulate": self.config["optim"]["accumulate"],
        }


def _part_schema(
    raw: Mapping[str, Any],
    section: str,
    table: Mapping[str, Any],
    shared: Schema,
    problems: list[str],
    without: tuple[str, ...] = (),
) -> Schema:
    """The keys of a section whose ``name`` chooses a part: the shared ones and the part's own."""
    values = raw.get(section, {})
    name_field = shared.get("name", Field((str,)))
    name = values.get("name") if isinstance(values, Mapping) else None
    name = name.text if isinstance(name, configs.Override) else name
    if name is None and name_field.default is not configs.Required:
        name = name_field.default
    schema: Schema = {**shared, "name": Field((str,), name_field.default)}
    if name is None:
        return schema
    try:
        part = configs.find_part(name, table, f"{section}.name")
        own = {} if part is None else configs.fields_of(part, without=without)
        return {**schema, **own}
    except ConfigError as error:
        problems.append(str(error))
        given = values if isinstance(values, Mapping) else {}
        return {**{key: Field((Any,)) for key in given}, **schema}


def data_schema() -> Schema:
    """Returns every key that the ``data`` section may have."""
    return {
        **configs.fields_of(source.DataFields),
        "preprocess": configs.fields_of(preprocess.PreprocessFields),
        "augment": {},
    }


def schema_of(raw: Mapping[str, Any], problems: list[str]) -> Schema:
    """Returns every key that a config of these parts may have; notes unknown parts."""
    optim_raw = raw.get("optim", {})
    optim_raw = optim_raw if isinstance(optim_raw, Mapping) else {}
    shared_optim = {
        **configs.fields_of(optim.OptimFields),
        "schedule": _part_schema(
            optim_raw,
            "schedule",
            optim.SCHEDULES,
            configs.fields_of(optim.ScheduleFields),
            problems,
        ),
        "average": _part_schema(
            optim_raw, "average", optim.AVERAGES, configs.fields_of(optim.AverageFields), problems
        ),
    }
    return {
        "seed": Field((int,), 0, configs.Range(0)),
        "data": data_schema(),
        "model": _part_schema(raw, "model", models.MODELS, {}, problems, without=("num_outputs",)),
        "loss": _part_schema(
            raw, "loss", losses.LOSSES, configs.fields_of(losses.LossFields), problems
        ),
        "optim": _part_schema(raw, "optim", optim.OPTIMIZERS, shared_optim, problems),
        "train": configs.fields_of(TrainFields),
        "mesh": configs.fields_of(mesh.MeshFields),
    }


def prepare(raw: Mapping[str, Any]) -> tuple[dict[str, Any], source.Dataset]:
    """Returns the resolved config and its opened dataset, after all checks that need no training.

    Args:
      raw: a config as a file gives it, overrides applied.

    Raises:
      ConfigError: everything that is wrong with it, in one message.
      DataError: the dataset can't be opened.
    """
    raw = configs.to_dict(raw)
    problems: list[str] = []
    config = configs.check_section(raw, schema_of(raw, problems), "", problems)
    dataset = None
    if not any(problem.startswith("data") for problem in problems):
        try:
            dataset = source.open_dataset(config["data"])
        except UserError as error:
            if not problems:
                raise
            problems.append(str(error))
    if dataset is not None and not problems:
        problems += _impossible(config, dataset)
    if not problems and dataset is not None:
        problems += _unbuildable(config, dataset)
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


def _impossible(config: Mapping[str, Any], dataset: source.Dataset) -> list[str]:
    """What can't work with this dataset or machine, in words."""
    problems = []
    batch_size, train = config["data"]["batch_size"], config["train"]
    size = dataset.sizes["train"]
    if batch_size > size:
        problems.append(
            f"data.batch_size: {batch_size} is larger than the training split of "
            f"{dataset.name!r}, {size} examples."
        )
    if batch_size % config["optim"]["accumulate"]:
        problems.append(
            f"optim.accumulate: {config['optim']['accumulate']} doesn't divide data.batch_size, "
            f"{batch_size}."
        )
    if train["epochs"] is not None and train["steps"] is not None:
        problems.append("train: give epochs or steps, not both.")
    loss_task = losses.task_of(config["loss"]["name"])
    if loss_task != dataset.task:
        fitting = listing(name for name in losses.LOSSES if losses.task_of(name) == dataset.task)
        kind = "classes" if dataset.task == "classification" else "a number"
        problems.append(
            f"loss.name: {config['loss']['name']!r} is for {loss_task}; the target of "
            f"{dataset.name!r} is {kind}: choose one of {fitting}."
        )
    weights = config["loss"]["class_weights"]
    if isinstance(weights, tuple) and len(weights) != dataset.num_classes:
        problems.append(
            f"loss.class_weights: {len(weights)} weights for {dataset.num_classes} classes of "
            f"{dataset.name!r}."
        )
    for name in train["metrics"]:
        problem = metric_problem(name, dataset)
        if problem:
            problems.append(f"train.metrics: {problem}")
    monitor = train["monitor"]
    if monitor is not None:
        split, _, name = monitor.partition("/")
        if split != "validation" or not name:
            problems.append(f"train.monitor: expected 'validation/METRIC', found {monitor!r}.")
        else:
            problem = metric_problem(name, dataset)
            if problem:
                problems.append(f"train.monitor: {problem}")
    problems += mesh.mesh_problems(config["mesh"], batch_size, len(jax.devices()))
    return problems


def metric_problem(name: str, dataset: source.Dataset) -> str | None:
    """Says why a metric can't be measured on a dataset, or None."""
    try:
        metrics.make_collector([name], dataset.task, dataset.num_classes)
    except ConfigError as error:
        return str(error)
    return None


def _unbuildable(config: Mapping[str, Any], dataset: source.Dataset) -> list[str]:
    """Traces the whole objective on shapes alone: a model that can't take this data fails here."""
    model = models.make_model(config["model"], num_outputs(config, dataset))
    shape = (2, *dataset.input_shape)
    hparams = as_arrays(configs.hyperparameters(config))

    def outputs(key: Key[Array, ""], inputs: Array) -> Any:
        params, model_state = model.init(key, inputs, hparams["model"])
        return model.apply(params, model_state, inputs, hparams["model"], key=key, train=True)[0]

    try:
        found = jax.eval_shape(outputs, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    except Exception as error:  # whatever a model raises about a shape, it is the config's fault
        text = " ".join(str(error).split())
        return [
            f"model: {config['model']['name']!r} can't take inputs of shape {dataset.input_shape} "
            f"of {dataset.name!r}: {text[:300]}"
        ]
    expected = (2, num_outputs(config, dataset))
    if found.shape != expected:
        return [
            f"model: {config['model']['name']!r} returns shape {found.shape} for 2 examples; "
            f"expected {expected}."
        ]
    return []


def num_outputs(config: Mapping[str, Any], dataset: source.Dataset) -> int:
    """Returns the width of the model's last layer."""
    if dataset.task == "regression":
        return 1
    return losses.num_outputs(config["loss"]["name"], dataset.num_classes)


def no_augmentation(key: Key[Array, ""], batch: Any, strengths: Any) -> Any:
    """Leaves a batch as it is."""
    return batch


def build(config: Mapping[str, Any], dataset: source.Dataset) -> Experiment:
    """Returns the parts of a resolved config; reads the training split to fit preprocessing."""
    train = config["train"]
    size, batch_size = dataset.sizes["train"], config["data"]["batch_size"]
    epoch = feed.steps_per_epoch(size, batch_size)
    epochs = train["epochs"] or DEFAULT_EPOCHS
    total_steps = train["steps"] or -(-epochs * size // batch_size)
    eval_every = min(train["eval_every"] or epoch, total_steps)
    monitor = train["monitor"] or (
        "validation/accuracy" if dataset.task == "classification" else "validation/loss"
    )
    names = tuple(train["metrics"]) or metrics.default_metrics(dataset.task)
    watched = monitor.partition("/")[2]
    if watched not in (*names, "loss"):
        names = (*names, watched)
    weights = config["loss"]["class_weights"]
    if weights is not None:
        counts = np.bincount(dataset.read("train").targets, minlength=dataset.num_classes)
        weights = losses.resolve_class_weights(weights, counts)
    scaling = config["data"]["preprocess"]
    scaled = scaling["scale"] != "none"
    preprocess_state = preprocess.fit(scaling, dataset.read("train")) if scaled else {}
    return Experiment(
        config=dict(config),
        dataset=dataset,
        model=models.make_model(config["model"], num_outputs(config, dataset)),
        loss=losses.make_loss(config["loss"], weights),
        optimizer=optim.make_optimizer(config["optim"], total_steps),
        average=optim.make_average(config["optim"], total_steps),
        augment=no_augmentation,
        preprocess_state=preprocess_state,
        collector=metrics.make_collector(names, dataset.task, dataset.num_classes),
        total_steps=total_steps,
        eval_every=eval_every,
        log_every=min(train["log_every"] or eval_every, total_steps),
        monitor=monitor,
    )


def init_state(experiment: Experiment, seed: int | Array, hparams: Any) -> TrainState:
    """Returns the state before the first step. Pure: jit or vmap it over seeds and hyperparameters.

    Args:
      experiment: the parts.
      seed: parameters, dropout and augmentation draw from it.
      hparams: every traced float as a scalar array.
    """
    init_key, key = jax.random.split(jax.random.key(seed))
    example = jnp.zeros((1, *experiment.dataset.input_shape), experiment.dataset.input_dtype)
    params, model_state = experiment.model.init(
        init_key, experiment.preprocess(example), hparams["model"]
    )
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=experiment.optimizer.init(params),
        average=experiment.average.init(params, model_state),
        hparams=hparams,
        key=key,
    )


def evaluated(experiment: Experiment, state: TrainState) -> tuple[Any, Any]:
    """Returns the parameters and model state that evaluations use, averaged where asked for."""
    params = optim.eval_params(experiment.config["optim"], state.opt_state, state.params)
    return experiment.average.evaluated(state.average, params, state.model_state)
