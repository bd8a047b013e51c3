"""From a config to the pure parts that a step is made of: fill in, check, build."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jdlopt import config as configs
from jdlopt import losses, mesh, metrics, models, optim
from jdlopt.config import Count, Field, Natural, Schema
from jdlopt.data import feed, preprocess, source
from jdlopt.errors import ConfigError, UserError, listing, nearest
from jdlopt.train.state import TrainState, as_arrays

DEFAULT_EPOCHS = 20
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
    }
    return {
        "seed": Field((int,), 0, configs.Range(0, 2**32 - 1)),
        "data": data_schema(),
        "model": _part_schema(
            raw.get("model"), "model", models.MODELS, {}, problems, without=("num_outputs",)
        ),
        "loss": _part_schema(
            raw.get("loss"), "loss", losses.LOSSES, configs.fields_of(losses.LossFields), problems
        ),
        "optim": _part_schema(raw.get("optim"), "optim", optim.OPTIMIZERS, shared_optim, problems),
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
    if dataset is not None:
        problems += _impossible(config, dataset, problems)
        problems += [] if problems else _unbuildable(config, dataset)
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


def _impossible(
    config: Mapping[str, Any], dataset: source.Dataset, known: Sequence[str]
) -> list[str]:
    """What can't work with this dataset or machine, in words.

    Args:
      config: the checked config.
      dataset: its dataset.
      known: the problems found so far; what stands on a key with one is not looked at.
    """
    problems: list[str] = []

    def sound(*keys: str) -> bool:
        return not any(problem.startswith(key) for key in keys for problem in known)

    batch_size, train, loss = config["data"]["batch_size"], config["train"], config["loss"]
    size = dataset.sizes["train"]
    if batch_size > size:
        problems.append(
            f"data.batch_size: {batch_size} is larger than the training split of "
            f"{dataset.name!r}, {size} examples."
        )
    if sound("optim") and batch_size % config["optim"]["accumulate"]:
        problems.append(
            f"optim.accumulate: {config['optim']['accumulate']} doesn't divide data.batch_size, "
            f"{batch_size}."
        )
    if sound("train") and train["epochs"] is not None and train["steps"] is not None:
        problems.append("train: give epochs or steps, not both.")
    if sound("train", "optim.schedule"):
        warmup, steps = config["optim"]["schedule"]["warmup_steps"], total_steps(config, dataset)
        if warmup > steps:
            problems.append(
                f"optim.schedule.warmup_steps: {warmup} is more than the {steps} steps of the "
                "whole training: warm up for fewer steps, or train longer."
            )
    if sound("loss") and losses.task_of(loss["name"]) != dataset.task:
        fitting = listing(name for name in losses.LOSSES if losses.task_of(name) == dataset.task)
        kind = "classes" if dataset.task == "classification" else "a number"
        problems.append(
            f"loss.name: {loss['name']!r} is for {losses.task_of(loss['name'])}; the target of "
            f"{dataset.name!r} is {kind}: choose one of {fitting}."
        )
    if sound("loss") and loss["class_weights"] is not None:
        problems += _weight_problems(loss["class_weights"], dataset)
    if sound("train.metrics"):
        for name in train["metrics"]:
            problem = metric_problem(name, dataset)
            problems += [f"train.metrics: {problem}"] if problem else []
    if sound("train.monitor") and train["monitor"] is not None:
        split, _, name = train["monitor"].partition("/")
        if split == "validation" and name:
            problem = metric_problem(name, dataset, watched=True)
            problems += [f"train.monitor: {problem}"] if problem else []
        else:
            problems.append(
                f"train.monitor: expected 'validation/METRIC', found {train['monitor']!r}."
            )
    if sound("mesh"):
        problems += mesh.mesh_problems(config["mesh"], batch_size, len(jax.devices()))
    return problems


def _weight_problems(weights: str | Sequence[float], dataset: source.Dataset) -> list[str]:
    if not dataset.num_classes:
        return [
            f"loss.class_weights: the target of {dataset.name!r} is a number; it has no classes. "
            "Leave it out."
        ]
    if weights == "balanced":
        return []
    try:
        losses.resolve_class_weights(weights, np.ones(dataset.num_classes))
    except ConfigError as error:
        return [str(error)]
    return []


def metric_problem(name: str, dataset: source.Dataset, watched: bool = False) -> str | None:
    """Says why a metric can't be measured on a dataset (or watched during training), or None."""
    try:
        metrics.make_collector([name], dataset.task, dataset.num_classes)
        if watched:
            metrics.higher_is_better(name)
    except ConfigError as error:
        return str(error)
    return None


def _unbuildable(config: Mapping[str, Any], dataset: source.Dataset) -> list[str]:
    """Traces a step's parts on the shapes of two examples: what can't be built fails here.

    So it fails before a directory is claimed for it, and the message says which part it was.
    """
    names = {section: config[section]["name"] for section in ("model", "loss", "optim")}
    wide = num_outputs(config, dataset)
    hparams = as_arrays(configs.hyperparameters(config))
    key = jax.random.key(0)
    inputs = jax.ShapeDtypeStruct((2, *dataset.input_shape), jnp.float32)
    targets = jax.ShapeDtypeStruct((2,), dataset.target_dtype)
    weighted = config["loss"]["class_weights"] is not None
    weights = np.ones(dataset.num_classes) if weighted else None

    def forward(inputs: Array) -> Any:
        model = models.make_model(config["model"], wide)
        params, model_state = model.init(key, inputs, hparams["model"])
        return params, model.apply(
            params, model_state, inputs, hparams["model"], key=key, train=True
        )[0]

    def objective(outputs: Array, targets: Array, params: Any) -> Any:
        loss = losses.make_loss(config["loss"], weights)
        return (
            loss.per_example(outputs, targets, hparams["loss"]),
            loss.objective(outputs, targets, params, hparams["loss"]),
        )

    def update(params: Any) -> Any:
        optimizer = optim.make_optimizer(config["optim"], total_steps(config, dataset))
        optim.make_average(config["optim"], total_steps(config, dataset))
        return optimizer.update(
            params,
            optimizer.init(params),
            params,
            hparams=hparams["optim"],
            value=jnp.zeros(()),
            grad_fn=lambda params: params,
        )[0]

    try:
        what = (
            f"model: {names['model']!r} can't take inputs of shape {dataset.input_shape} of "
            f"{dataset.name!r}"
        )
        params, outputs = jax.eval_shape(forward, inputs)
        if outputs.shape != (2, wide):
            return [
                f"model: {names['model']!r} returns shape {outputs.shape} for 2 examples; "
                f"expected {(2, wide)}."
            ]
        what = f"loss: {names['loss']!r} can't be computed from {wide} outputs and these targets"
        each, mean = jax.eval_shape(objective, outputs, targets, params)
        if each.shape != (2,) or mean.shape != ():
            return [
                f"loss: {names['loss']!r} returns shape {each.shape} for 2 examples; expected "
                "(2,): one number an example."
            ]
        what = f"optim: {names['optim']!r} can't update the parameters"
        jax.eval_shape(update, params)
    except ConfigError as error:
        section, text = what.partition(":")[0], str(error)
        return [text if text.startswith(section) else f"{section}: {text}"]
    except Exception as error:  # whatever a part raises about what it is given, the config chose it
        text = " ".join(str(error).split())
        return [f"{what}: {type(error).__name__}: {text[:300]}"]
    return []


def num_outputs(config: Mapping[str, Any], dataset: source.Dataset) -> int:
    """Returns the width of the model's last layer."""
    if dataset.task == "regression":
        return 1
    return losses.num_outputs(config["loss"]["name"], dataset.num_classes)


def total_steps(config: Mapping[str, Any], dataset: source.Dataset) -> int:
    """Returns the updates in the whole run."""
    train, batch_size = config["train"], config["data"]["batch_size"]
    epochs = train["epochs"] or DEFAULT_EPOCHS
    return train["steps"] or -(-epochs * dataset.sizes["train"] // batch_size)


def no_augmentation(key: Key[Array, ""], batch: Any, strengths: Any) -> Any:
    """Leaves a batch as it is."""
    return batch


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
        targets = np.concatenate([part.targets for part in feed.parts(dataset, "train")])
        counts = np.bincount(targets, minlength=dataset.num_classes)
        weights = losses.resolve_class_weights(weights, counts)
    scaling = config["data"]["preprocess"]
    scaled = scaling["scale"] != "none"
    train_inputs = (part.inputs for part in feed.parts(dataset, "train"))
    preprocess_state = preprocess.fit_batches(scaling, train_inputs) if scaled else {}
    return Experiment(
        config=dict(config),
        dataset=dataset,
        model=models.make_model(config["model"], num_outputs(config, dataset)),
        loss=losses.make_loss(config["loss"], weights),
        optimizer=optim.make_optimizer(config["optim"], steps),
        average=optim.make_average(config["optim"], steps),
        augment=no_augmentation,
        preprocess_state=preprocess_state,
        collector=metrics.make_collector(names, dataset.task, dataset.num_classes),
        total_steps=steps,
        eval_every=eval_every,
        log_every=min(train["log_every"] or eval_every, steps),
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
