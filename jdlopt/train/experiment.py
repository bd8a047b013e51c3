"""An experiment: the one place where a config becomes the pure functions that are trained.

`Experiment.build` resolves a config, opens its data and makes the components of a step. Its methods
are what every verb uses: `fit` and populations compile its `train_step`, evaluations its
`evaluate_step`, predictions its `predict`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from jdlopt import config as configs
from jdlopt import metrics
from jdlopt.data import feed, from_run, kept_scaling, preprocess, sampling
from jdlopt.data.dataset import Dataset, class_counts
from jdlopt.data.named import each
from jdlopt.data.notes import Note
from jdlopt.data.preprocess import target
from jdlopt.data.spec import DataSpec
from jdlopt.errors import ConfigError, UserError
from jdlopt.models import Model, lora, pretrained
from jdlopt.models.pretrained import Loaded
from jdlopt.models.pretrained.architecture import architecture_of
from jdlopt.tasks import find_task
from jdlopt.tasks.regression import REGRESSION
from jdlopt.train import beginning, checks, decoding, lengths, step, teacher, tracing, weights_file
from jdlopt.train.components import (
    kept_of,
    learnt,
    make_components,
    model_of,
    open_clean,
    recipe_of,
    shaped,
    token_rows,
    total_steps,
)
from jdlopt.train.schema import Config, resolve_data, schema_of
from jdlopt.train.state import TrainState, Weights, as_arrays
from jdlopt.train.step import Batch, Collected, Components, Inputs, Measured, Predictions


@dataclass(frozen=True, eq=False)
class Experiment:
    """What can be trained: pure functions over one state pytree, and what the shell must know.

    Attributes:
      config: the resolved config.
      spec: what is known of its data.
      dataset: the data; None where it was built to predict alone. Its test split is not read by
        anything here.
      components: what a step is made of.
      recipe: what preprocessing does; ``learnt``: what it learnt from the training split.
      order: the order of the training examples.
      collector: what an evaluation measures.
      total_steps: updates in the whole run.
      eval_every, log_every: in steps.
      monitor: the metric that decides which evaluation is best.
      predictor: predicts from components, weights and raw inputs.
      begins: whether it may start from ``model.pretrained``; a run that began already has its own
        weights.
      start: the file of weights that it starts from, in place of ``model.pretrained``; see
        `jdlopt.train.weights_file`.
      traced_once: whether its step is traced once for all programs that hold it. jax then takes
        all operations to come from the line that puts the step into a program.
    """

    config: Config
    spec: DataSpec
    dataset: Dataset | None
    components: Components
    recipe: preprocess.Recipes
    learnt: preprocess.State
    order: sampling.Order
    collector: metrics.Collector
    total_steps: int
    eval_every: int
    log_every: int
    monitor: str
    predictor: Callable[[Components, Weights, Array], Predictions] = step.predict_step
    begins: bool = True
    start: Path | None = None
    traced_once: bool = True

    @staticmethod
    def build(
        raw: configs.AnyConfig,
        data: Dataset | DataSpec | None = None,
        *,
        learnt_before: preprocess.State | None = None,
        check: bool | None = None,
        begins: bool = True,
        learns: bool | None = None,
        num_devices: int | None = None,
    ) -> Experiment:
        """Builds the experiment of a config, after all checks that need no training.

        Args:
          raw: a config as a file gives it, overrides applied; or one that is resolved.
          data: the dataset where it is open already; or what is known of it, for an experiment that
            evaluates and predicts without it. The config's is opened by default, and then a step is
            traced on shapes, so that what can't be computed is reported before anything is trained.
          learnt_before: what preprocessing learnt, where it is known.
          check: whether a step is traced; by default where the data are opened here.
          begins: whether it is to be trained from its first step on, so that what
            ``model.pretrained`` names is looked at.
          learns: whether it is to be trained, from whatever step on, so that its teacher is looked
            at; by default where it begins.
          num_devices: what the mesh is checked against, for a plan of devices that are not here;
            by default as many as there are.

        Raises:
          ConfigError: everything that is wrong with the config, in one message.
          DataError: the dataset can't be opened.
        """
        config, known = _resolved(raw, data, num_devices)
        dataset = known if isinstance(known, Dataset) else None
        spec = known if isinstance(known, DataSpec) else known.spec
        spec = spec if dataset is None else dataclasses.replace(spec, sizes=dataset.sizes)
        learns = begins if learns is None else learns
        experiment = _assembled(config, spec, dataset, learnt_before, begins, learns)
        if data is None if check is None else check:
            experiment.check(num_devices, learns)
        return experiment

    def check(self, num_devices: int | None = None, learns: bool = True) -> None:
        """Traces a step on shapes, so that what can't be computed is said in words.

        Args:
          num_devices, learns: as `build` takes them.

        Raises:
          ConfigError: a step can't be made.
        """
        named = tracing.naming(self.components, self.config, self.spec, self.model_inputs)
        if not learns:  # what it learnt from may be gone
            named = named._replace(teacher=None)
        traced = dataclasses.replace(self, components=named)
        configs.raise_problems(tracing.unbuildable(traced, num_devices))
        if self.dataset is not None and "transcripts" in find_task(self.spec.task).shows:
            configs.raise_problems(lengths.unreachable(traced, self.dataset))

    # --- the protocol ----------------------------------------------------------------------------

    def init(
        self,
        seed: int | Int[Array, ""],
        hparams: PyTree | None = None,
        start: tuple[PyTree, PyTree] | None = None,
    ) -> TrainState:
        """Returns the state before the first step. Pure: jit or vmap it.

        Args:
          seed: parameters, dropout and augmentation draw from it.
          hparams: every traced float as a scalar array; by default the config's.
          start: ``(params, state)`` by path, of `pretrained`, to start from; None: random values.
        """
        hparams = self.hparams if hparams is None else hparams
        # as a Python int, one of 2**31 or more would not fit the type that JAX traces it as
        drawn = np.uint32(seed) if isinstance(seed, int | np.integer) else seed
        return self._initial(drawn, hparams, start)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        """Makes one update from a batch of raw inputs and targets. Pure: jit, vmap or shard it."""
        return self._step(state, batch)

    def evaluate_step(self, state: TrainState | Weights, batch: Batch) -> Collected:
        """Collects what the metrics need of a padded batch, for `collector` to finish. Pure."""
        weights = self.weights(state)
        return step.evaluate_step(self.components, weights, batch, self.predictor)

    def predict(self, state: TrainState | Weights, inputs: Inputs) -> Predictions:
        """Computes outputs and class probabilities for a batch of raw inputs. Pure."""
        return self.predictor(self.components, self.weights(state), inputs)

    # Each is traced once for all programs that inline it, as a step is by a program that makes one
    # and by one that makes many in a loop.

    @cached_property
    def _step(self) -> Callable[[TrainState, Batch], tuple[TrainState, Measured]]:
        made = partial(step.train_step, self.components)
        return jax.jit(made, inline=True) if self.traced_once else made

    @cached_property
    def _initial(self) -> Callable[..., TrainState]:
        return jax.jit(self._state_before_training, inline=True)

    def _state_before_training(
        self, seed: Int[Array, ""], hparams: PyTree, start: tuple[PyTree, PyTree] | None
    ) -> TrainState:
        components = self.components
        init_key, key = jax.random.split(jax.random.key(seed))
        example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.seen(1))
        params, model_state = components.model.init(init_key, example, hparams["model"])
        if start is not None:
            params, model_state = pretrained.placed(start, params, model_state)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state=model_state,
            opt_state=components.optimizer.init(params),
            average=components.average.init(params, model_state),
            hparams=hparams,
            key=key,
            preprocess=jax.tree.map(jnp.asarray, self.learnt),
            loss_scale=components.loss_scale(),
        )

    # --- what else is pure -----------------------------------------------------------------------

    def weights(self, state: TrainState | Weights) -> Weights:
        """Returns what a state predicts with, averaged where the config asks for it. Pure."""
        if isinstance(state, Weights):
            return state
        return step.weights_of(self.components, state)

    @property
    def hparams(self) -> PyTree:
        """Every traced float of the config, as float32 scalars."""
        return as_arrays(configs.hyperparameters(self.config))

    @cached_property
    def model_inputs(self) -> preprocess.Shaped | dict[str, preprocess.Shaped]:
        """The shape and type of one example as the model is trained on it, of each input."""
        found = preprocess.output_shape(self.recipe, self.learnt, self.spec.inputs)
        forcing, spec = self.components.teacher_forcing, self.spec
        if forcing is None:
            return found
        targets = jax.ShapeDtypeStruct((1, *spec.target_shape), spec.target_dtype)
        made = jax.eval_shape(forcing, shaped(found, 1), targets)
        return each(lambda one: preprocess.Shaped(one.shape[1:], str(one.dtype)), made)

    def seen(self, count: int) -> PyTree[jax.ShapeDtypeStruct]:
        """Returns the shapes and types of so many examples as the model takes them."""
        return shaped(self.model_inputs, count)

    # --- what the shell asks ---------------------------------------------------------------------

    @property
    def data(self) -> Dataset:
        """The dataset.

        Raises:
          UserError: the experiment was built without one.
        """
        if self.dataset is None:
            raise UserError(f"{self.spec.name!r}: the experiment was built without its data.")
        return self.dataset

    @property
    def streams(self) -> bool:
        """Whether batches are read one by one, since the training split is not kept in memory."""
        asked = self.config.data.in_memory
        return not (feed.fits(self.data.nbytes("train")) if asked is None else asked)

    def pretrained(self) -> Loaded | None:
        """Returns what it starts from, as arrays of the model; None: from random values.

        Raises:
          ConfigError: what ``model.pretrained`` names can't be read, or does not fit.
          WorkdirError: the same of a file of weights.
        """
        if self.start is not None:
            return self.loaded_from(self.start)
        section = self.config.model
        if section.pretrained is None or not self.begins:
            return None
        found = architecture_of(section.pretrained)
        if found is not None and found.is_run:
            return beginning.load(self.config, self.spec, self._shapes, self._head, found)
        return pretrained.load(configs.to_dict(section), *self._shapes, token_rows(self.spec))

    def loaded_from(self, start: Path) -> Loaded:
        """Returns the arrays of a file of weights that this model starts from.

        Raises:
          WorkdirError: it is damaged, or another model's.
        """
        params, state = map(pretrained.flat_shapes, self._shapes)
        return weights_file.loaded(start, (params, state))

    @cached_property
    def _shapes(self) -> tuple[PyTree, PyTree]:
        """The shapes of the model's parameters and state."""
        return self._shapes_of(self.components.model)

    def _shapes_of(self, model: Model) -> tuple[PyTree, PyTree]:
        return pretrained.shapes_of(model, self.seen(1), self.hparams["model"])

    @cached_property
    def _head(self) -> set[str]:
        """The paths of parameters and state whose shapes depend on the number of outputs."""
        try:
            wider = model_of(self.config, self.spec, self.recipe, more_outputs=1)
            others = self._shapes_of(wider)
        except ConfigError:
            return set()  # a module of one width, whatever the data
        found: set[str] = set()
        for one, other in zip(self._shapes, others, strict=True):
            there = pretrained.flat_shapes(other)
            here = pretrained.flat_shapes(one)
            found |= {path for path, shape in here.items() if there.get(path) != shape}
        return found

    def on(self, dataset: Dataset) -> Experiment:
        """Returns the experiment with other data to evaluate on, of the same spec but for sizes."""
        return dataclasses.replace(self, dataset=dataset)

    def measuring(self, names: tuple[str, ...]) -> Experiment:
        """Returns the experiment with other metrics in its evaluations, beside the loss."""
        spec = self.spec
        made = metrics.make_collector(
            names, spec.task, spec.num_classes, spec.decision, spec.class_names, _told(spec)
        )
        components = self.components._replace(collect=made.collect)
        return dataclasses.replace(self, components=components, collector=made)

    def all_metrics(self) -> tuple[str, ...]:
        """Returns the names of every metric that the task has, and those that the config names."""
        size = self.spec.num_classes or math.prod(self.spec.target_shape)
        found = metrics.all_metrics(self.spec.task, size)
        watched = self.monitor.partition("/")[2]
        asked = (*self.config.train.metrics, *([] if watched == "loss" else [watched]))
        return tuple(dict.fromkeys((*found, *asked)))


def _told(spec: DataSpec) -> Callable[[np.ndarray], list[str]] | None:
    """What says targets in words, where the task does."""
    told = find_task(spec.task).told
    return None if told is None else lambda targets: told(targets, spec)


def _resolved(
    raw: configs.AnyConfig, data: Dataset | DataSpec | None, num_devices: int | None
) -> tuple[Config, Dataset | DataSpec]:
    """The config with every default filled in, checked against its data, and the data."""
    raw, data = _with_loss(configs.to_dict(raw), data)
    raw = _with_target_scale(raw)
    problems: list[str] = []
    checked = configs.check_section(raw, schema_of(raw, problems), "", problems)
    try:
        config = Config.from_dict(checked)
    except ConfigError:  # without a key that it must have, there is no config to look at further
        configs.raise_problems(problems)
        raise
    if config.model.lora_rank and not problems:
        config = _with_frozen_base(config)
    known = data
    if known is None and not any(problem.startswith("data") for problem in problems):
        try:
            known = open_clean(config.data)
        except UserError as error:
            if not problems:
                raise
            problems.append(str(error))
    if known is not None:
        spec = known if isinstance(known, DataSpec) else known.spec
        problems += checks.impossible(config, spec, problems, num_devices)
    if isinstance(known, Dataset) and not problems:
        problems, notes = checks.undefined(known, config)
        known = known.noting(notes)
    configs.raise_problems(problems)
    assert known is not None
    return config, known


def _with_loss(
    raw: dict[str, object], data: Dataset | DataSpec | None
) -> tuple[dict[str, object], Dataset | DataSpec | None]:
    """A config that names a loss, by default its task's; and its data, if it was opened."""
    loss = raw.get("loss") or {}
    if not isinstance(loss, Mapping) or "name" in loss:
        return raw, data
    if data is None:
        try:
            data = open_clean(resolve_data(raw))
        except UserError:
            return raw, None  # what is wrong is reported together with all else
    spec, train = data if isinstance(data, DataSpec) else data.spec, raw.get("train")
    monitor = configs.text_of(train.get("monitor")) if isinstance(train, Mapping) else None
    task = find_task(spec.task)
    name = task.default_loss(monitor if isinstance(monitor, str) else None)
    return {**raw, "loss": {**loss, "name": name}}, data


def _with_target_scale(raw: dict[str, object]) -> dict[str, object]:
    """A config that says how targets are scaled: of a regression with a bundled loss, they are."""
    loss, data = raw.get("loss") or {}, raw.get("data") or {}
    section = data.get("preprocess", {}) if isinstance(data, Mapping) else None
    if not isinstance(loss, Mapping) or not isinstance(section, Mapping):
        return raw
    bundled = configs.text_of(loss.get("name")) in REGRESSION.losses
    if "target_scale" in section or not bundled:
        return raw
    assert isinstance(data, Mapping)
    return {**raw, "data": {**data, "preprocess": {**section, "target_scale": "standard"}}}


def _learnt(
    config: Config, recipe: preprocess.Recipes, dataset: Dataset, kept: from_run.State
) -> preprocess.State:
    """What preprocessing learns from the training split, beside what of another run is kept."""
    found = learnt(recipe, dataset, kept.inputs)
    scale = config.data.preprocess.target_scale
    if kept.target or scale is None:
        return {**found, **kept.target}
    return {**found, **target.fit(dataset.targets("train"), scale)}


def _with_frozen_base(config: Config) -> Config:
    """A config of a model with adapters: its ``optim`` section says that the base is frozen."""
    freeze = config.optim.freeze
    said = any(pattern.startswith("^base/") for pattern in freeze)
    freeze += () if said else (lora.FREEZE,)
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, freeze=freeze))


def _assembled(
    config: Config,
    spec: DataSpec,
    dataset: Dataset | None,
    known: preprocess.State | None,
    begins: bool,
    learns: bool,
) -> Experiment:
    """The experiment of a resolved config; it reads the training split to fit preprocessing."""
    train, size = config.train, spec.sizes["train"]
    steps = total_steps(config, spec)
    eval_every = min(train.eval_every or feed.steps_per_epoch(size, config.data.batch_size), steps)
    task = find_task(spec.task)
    monitor = train.monitor or task.monitor
    names = tuple(train.metrics) or task.metrics
    watched = monitor.partition("/")[2]
    if watched not in (*names, "loss"):
        names = (*names, watched)
    collector = metrics.make_collector(
        names, spec.task, spec.num_classes, spec.decision, spec.class_names, _told(spec)
    )
    recipe = recipe_of(config.data, spec)
    notes: tuple[Note, ...] = ()
    if dataset is not None and known is None:
        kept = kept_of(config.data, recipe, spec)
        known = _learnt(config, recipe, dataset, kept)
        apart = kept_scaling.notes_on(kept, recipe, dataset, config.data.fit_on)
        notes = (*kept.notes, *apart)
    known = known or {}
    if dataset is not None:
        notes = (*checks.approximations(config, known, size), *notes)
    counts, labels = None, None
    sampled = config.data.sampling
    if dataset is not None and config.loss.class_weights == "balanced":
        counts = class_counts(dataset)
    if dataset is not None and sampled == "balanced":
        labels = dataset.targets("train")
    order = (
        sampling.Order()
        if dataset is None
        else sampling.make_order(sampled, labels=labels, weights=dataset.weights)
    )
    components = make_components(config, spec, recipe, collector, counts)
    if config.loss.distill is not None:
        pupil = teacher.Pupil(config, spec, recipe, known, dataset if learns else None)
        made = teacher.make_teacher(pupil, components, Experiment.build)
        components = components._replace(teacher=made)
    return Experiment(
        config=config,
        spec=spec,
        dataset=None if dataset is None else dataset.noting(notes),
        components=components,
        recipe=recipe,
        learnt=known,
        order=order,
        collector=collector,
        total_steps=steps,
        eval_every=eval_every,
        log_every=min(train.log_every or eval_every, steps),
        monitor=monitor,
        predictor=decoding.predictor_of(config, spec),
        begins=begins,
    )
