"""What can't work: everything about a config that is known to be wrong before it is trained."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, PyTree

from jdlopt import losses, mesh, metrics
from jdlopt.config import to_dict
from jdlopt.data import augment
from jdlopt.data.dataset import Dataset
from jdlopt.data.named import each
from jdlopt.data.notes import Note, Notes
from jdlopt.data.preprocess import Shaped, pca
from jdlopt.data.spec import DataSpec
from jdlopt.errors import ConfigError, listing
from jdlopt.models import has_submodels
from jdlopt.models.head import features_of
from jdlopt.models.pretrained import Loaded
from jdlopt.optim.groups import FROZEN, labels_of, path_name
from jdlopt.optim.schedules import warmup_problem
from jdlopt.tasks import find_task
from jdlopt.train import loggers
from jdlopt.train.components import num_outputs, shaped, total_steps
from jdlopt.train.schema import Config
from jdlopt.train.state import TrainState
from jdlopt.train.step import Batch, Collected, Components, Measured

T = TypeVar("T")


@runtime_checkable
class Traceable(Protocol):
    """What of an experiment is traced on shapes; `jdlopt.train.experiment.Experiment` is one."""

    @property
    def config(self) -> Config:
        """The resolved config."""

    @property
    def spec(self) -> DataSpec:
        """What is known of its data."""

    @property
    def components(self) -> Components:
        """What a step is made of."""

    def init(self, seed: int) -> TrainState:
        """Returns the state before the first step."""

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        """Makes one update."""

    def evaluate_step(self, state: TrainState, batch: Batch) -> Collected:
        """Collects what the metrics need of a batch."""

    def pretrained(self) -> Loaded | None:
        """Returns the weights to start from, if any are named."""

    def seen(self, count: int) -> PyTree[jax.ShapeDtypeStruct]:
        """Returns the shapes and types of so many examples as the model takes them."""


def impossible(config: Config, spec: DataSpec, known: Sequence[str]) -> list[str]:
    """What can't work with this dataset or machine, in words.

    Args:
      config: the checked config.
      spec: what is known of its data.
      known: the problems found so far; what stands on a key with one is not looked at.
    """
    problems: list[str] = []

    def sound(*keys: str) -> bool:
        return not any(problem.startswith(key) for key in keys for problem in known)

    if not sound("data.batch_size"):
        return problems  # how many steps there are is not known
    batch_size, train, loss = config.data.batch_size, config.train, config.loss
    size = spec.sizes["train"]
    if batch_size > size:
        problems.append(
            f"data.batch_size: {batch_size} is larger than the training split of "
            f"{spec.name!r}, {size} examples."
        )
    if sound("optim") and batch_size % config.optim.accumulate:
        problems.append(
            f"optim.accumulate: {config.optim.accumulate} doesn't divide data.batch_size, "
            f"{batch_size}."
        )
    problems += loggers.unknown(train.loggers or ()) if sound("train.loggers") else []
    if sound("train") and train.epochs is not None and train.steps is not None:
        problems.append("train: give epochs or steps, not both.")
    if sound("train", "optim.schedule"):
        problem = warmup_problem(to_dict(config.optim.schedule), total_steps(config, spec))
        problems += [problem] if problem else []
    if sound("train", "optim.groups"):
        steps = total_steps(config, spec)
        problems += [
            f"optim.groups.{name}.unfreeze_at: {group.unfreeze_at} is not within the {steps} "
            "steps of the whole training: unfreeze earlier, or name its parameters in optim.freeze."
            for name, group in config.optim.groups.items()
            if group.unfreeze_at >= steps
        ]
    task = find_task(spec.task)
    if sound("loss") and not losses.fits(loss.name, task.name, task.losses):
        problems.append(
            f"loss.name: {loss.name!r} is not for {task.name}, the task of {spec.name!r}: "
            f"choose one of {listing(task.losses)}."
        )
    scaled = config.data.preprocess.target_scale is not None and "values" not in task.shows
    if sound("data.preprocess") and scaled:
        problems.append(
            f"data.preprocess.target_scale: is for numbers; {spec.name!r} is a {task.name} "
            "dataset. Leave it out."
        )
    if sound("loss") and loss.class_weights is not None:
        problems += _weight_problems(loss.class_weights, spec)
    if sound("train.metrics"):
        for name in train.metrics:
            problem = metric_problem(name, spec)
            problems += [f"train.metrics: {problem}"] if problem else []
    if sound("train.monitor") and train.monitor is not None:
        split, _, name = train.monitor.partition("/")
        if split == "validation" and name:
            problem = metric_problem(name, spec, watched=True)
            problems += [f"train.monitor: {problem}"] if problem else []
        else:
            problems.append(
                f"train.monitor: expected 'validation/METRIC', found {train.monitor!r}."
            )
    if sound("data.augment"):
        data = config.data
        problems += augment.problems(data.augment, spec, data.preprocess)
    if sound("mesh"):
        problems += mesh.mesh_problems(config.mesh, batch_size, len(jax.devices()))
    return problems


def undefined(dataset: Dataset, config: Config) -> tuple[list[str], tuple[Note, ...]]:
    """Returns why what is monitored can't be computed on validation, and which metrics can't be.

    The notes are on every metric that is undefined on validation or test, whose targets alone are
    looked at.

    Args:
      dataset: the data.
      config: the checked config.
    """
    spec, task = dataset.spec, find_task(dataset.spec.task)
    monitor = config.train.monitor or task.monitor
    watched = monitor.partition("/")[2]
    names = {*metrics.all_metrics(spec.task, _outputs(spec)), *config.train.metrics, watched}
    needing = {name: metrics.find_metric(name).needs for name in sorted(names)}
    problems: list[str] = []
    notes = Notes()
    for split in ("validation", "test"):
        looked = split == "validation" or dataset.on_bad == "error"
        if not any(needing.values()) or not looked or not dataset.sizes.get(split):
            continue
        lacks = _lacks(dataset.targets(split), spec)
        for name, need in needing.items():
            if need not in lacks:
                continue
            remedy = (
                "Give each split every class with data.stratify=True, a larger "
                f"data.{split}_fraction or data.split_seed, or look at another metric."
            )
            if split == "validation" and name == watched:
                problems.append(
                    f"train.monitor: {monitor!r} is undefined on the validation split of "
                    f"{spec.name!r}, which has {lacks[need]}. {remedy}"
                )
            what = f"metrics that are undefined on the {split} split, which has {lacks[need]}"
            notes.add("unused", what, name, unit="metrics", remedy=remedy)
    return problems, tuple(notes)


def approximations(config: Config, learnt: PyTree, rows: int) -> tuple[Note, ...]:
    """Returns what preprocessing found only almost exactly.

    Args:
      config: the checked config.
      learnt: what preprocessing learnt, of the only input or by name.
      rows: training rows.
    """
    wanted = config.data.preprocess.pca
    notes = Notes()
    for state in (learnt, *learnt.values()):
        found = state.get("pca") if isinstance(state, Mapping) else None
        if isinstance(found, Mapping) and "components" in found and wanted is not None:
            columns = found["components"].shape[-1]
            if pca.solver(rows, columns, wanted) == "randomized":
                notes.add("changed", pca.RANDOMIZED, count=columns, unit="columns")
    return tuple(notes)


def _outputs(spec: DataSpec) -> int:
    return spec.num_classes or max(1, len(spec.target_names))


def _lacks(targets: np.ndarray, spec: DataSpec) -> dict[str, str]:
    """Returns what a metric may need and these targets have not, each with what they lack."""
    found = {}
    if len(targets) < 2:
        found[metrics.TWO_EXAMPLES] = "one example"
    if spec.num_classes:
        one = targets.ndim == 1
        counts = np.bincount(targets, minlength=spec.num_classes) if one else targets.sum(axis=0)
        for some, words in ((counts == 0, "no example"), (counts == len(targets), "only examples")):
            if some.any():
                first = spec.class_names[int(np.argmax(some))]
                more = f" and {int(some.sum()) - 1} more" if some.sum() > 1 else ""
                found[metrics.EACH_CLASS] = f"{words} of {first!r}{more}"
                break
    return found


def _weight_problems(weights: str | Sequence[float], spec: DataSpec) -> list[str]:
    if not spec.num_classes:
        return [
            f"loss.class_weights: the target of {spec.name!r} is a number; it has no classes. "
            "Leave it out."
        ]
    if weights == "balanced":
        return []
    try:
        labels = find_task(spec.task).link == "sigmoid"
        size = spec.sizes["train"] if labels else None
        losses.resolve_class_weights(weights, np.ones(spec.num_classes), size)
    except ConfigError as error:
        return [str(error)]
    return []


def metric_problem(name: str, spec: DataSpec, watched: bool = False) -> str | None:
    """Says why a metric can't be measured on a dataset (or watched during training), or None."""
    try:
        metrics.make_collector([name], spec.task, spec.num_classes)
        if watched:
            metrics.higher_is_better(name)
    except ConfigError as error:
        return str(error)
    return None


class _Failed(Exception):
    """What a component raised while a step was traced, with what it was asked for."""

    def __init__(self, what: str, error: Exception):
        super().__init__(what)
        self.what, self.error = what, error


def _saying(what: str, call: Callable[..., T]) -> Callable[..., T]:
    """Returns a function whose failures say what failed."""

    def called(*args: object, **keys: object) -> T:
        try:
            return call(*args, **keys)
        except _Failed:  # a component that calls another, as an optimizer may its gradients
            raise
        except Exception as error:
            raise _Failed(what, error) from error

    return called


def naming(
    components: Components, config: Config, spec: DataSpec, inputs: PyTree[Shaped]
) -> Components:
    """Returns components of which what one raises says which it was, and whose widths are checked.

    Args:
      components: those of a config.
      config: the config, for their names.
      spec: what is known of its data.
      inputs: what the model is given of each input.
    """
    names = {section: getattr(config, section).name for section in ("model", "loss", "optim")}
    wide = num_outputs(config, spec)
    shape = each(lambda one: one.shape, inputs)
    ensemble = config.model.ensemble
    model, loss, optimizer, average = (
        components.model,
        components.loss,
        components.optimizer,
        components.average,
    )

    def applied(*args: object, **keys: object) -> tuple[Array, PyTree]:
        outputs, state = model.apply(*args, **keys)
        rows = len(jax.tree.leaves(args[2])[0])
        expected: tuple[int, ...] = (rows, wide)
        if keys["train"]:
            submodels = outputs.shape[-3:-2] if has_submodels(names["model"]) else ()
            expected = (*([ensemble] if ensemble > 1 else []), *submodels, *expected)
        if outputs.shape != expected:
            raise ConfigError(
                f"model: {names['model']!r} returns shape {outputs.shape} for {rows} examples; "
                f"expected {expected}."
            )
        return outputs, state

    def of_each(outputs: Array, targets: Array, hparams: PyTree) -> Array:
        found = loss.per_example(outputs, targets, hparams)
        if found.shape != (len(targets),):
            raise ConfigError(
                f"loss: {names['loss']!r} returns shape {found.shape} for {len(targets)} examples; "
                f"expected ({len(targets)},): one number an example."
            )
        return found

    takes = f"model: {names['model']!r} can't take inputs of shape {shape} of {spec.name!r}"
    targets = f"loss: {names['loss']!r} can't be computed from {wide} outputs and these targets"
    updates = f"optim: {names['optim']!r} can't update the parameters"
    averages = f"optim.average.name: {config.optim.average.name!r} can't average the parameters"
    return components._replace(
        model=model._replace(init=_saying(takes, model.init), apply=_saying(takes, applied)),
        loss=loss._replace(
            per_example=_saying(targets, of_each), objective=_saying(targets, loss.objective)
        ),
        optimizer=optimizer._replace(
            init=_saying(updates, optimizer.init), update=_saying(updates, optimizer.update)
        ),
        average=average._replace(
            init=_saying(averages, average.init), update=_saying(averages, average.update)
        ),
        augment=_saying("data: the inputs can't be augmented or preprocessed", components.augment),
    )


def unbuildable(experiment: Traceable) -> list[str]:
    """Traces the real training and evaluation step on shapes, and says in words what can't be.

    So it fails before a directory is claimed for it, and the message says which component it was.

    Args:
      experiment: of components that say which they are (`naming`).
    """
    config, spec = experiment.config, experiment.spec
    size = 2 * config.optim.accumulate
    batch: dict[str, Any] = {
        "inputs": shaped(spec.inputs, size),
        "targets": jax.ShapeDtypeStruct((size, *spec.target_shape), spec.target_dtype),
    }
    weights = jax.ShapeDtypeStruct((size,), np.float32)
    try:
        state = jax.eval_shape(partial(experiment.init, 0))
        if config.model.pretrained is not None:
            _saying("model.pretrained: can't be read", experiment.pretrained)()
        # losses first: what an evaluation says of one is plainer than what a gradient does
        jax.eval_shape(experiment.evaluate_step, state, {**batch, "weights": weights})
        jax.eval_shape(experiment.train_step, state, batch)
        if config.train.cache_features:
            return _uncacheable(experiment, state)
    except _Failed as failure:
        section, text = failure.what.partition(":")[0], " ".join(str(failure.error).split())
        if isinstance(failure.error, ConfigError):
            text = str(failure.error)
            return [text if text.startswith(section) else f"{section}: {text}"]
        return [f"{failure.what}: {type(failure.error).__name__}: {text[:300]}"]
    except ConfigError as error:
        return [str(error)]
    return []


def _uncacheable(experiment: Traceable, state: TrainState) -> list[str]:
    """What is in the way of ``train.cache_features``, in words."""
    config, params = experiment.config, state.params
    label = labels_of(to_dict(config.optim))
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    heads = [path for path in paths if re.match("(base/)?(model/)?head/", path)]
    others = [path for path in paths if path not in heads]
    trained = [path for path in others if label(path) is not FROZEN]
    found = []
    if not heads or not others:
        what = "no parameters named 'head/…'" if not heads else "no parameters but the head's"
        found.append(
            f"train.cache_features: the model {config.model.name!r} has {what}: there is no "
            "body to compute features with. Leave it out."
        )
    elif trained:
        found.append(
            f"train.cache_features: all but the head must be frozen, but {listing(trained, 4)} "
            r"would be trained. Set optim.freeze to ('^(?!(model/)?head/)',) or leave "
            "cache_features out."
        )
    else:
        inputs = experiment.seen(2)
        seen = partial(features_of, experiment.components.model)
        what = "train.cache_features: the head's input can't be computed"
        jax.eval_shape(
            _saying(what, seen), params, state.model_state, inputs, state.hparams["model"]
        )
    section = config.data.augment
    changing = [name for name in augment.AUGMENTATIONS if section.get(name) is not None]
    changing += [name for name in ("own", "alternating_flip") if section.get(name)]
    if changing:
        found.append(
            "train.cache_features: data.augment changes examples anew in each epoch "
            f"({listing(changing)}): switch it off, or leave cache_features out."
        )
    return found
