"""What can't work: everything about a config that is known to be wrong before it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from jdlopt import losses, mesh, metrics, models
from jdlopt.config import to_dict
from jdlopt.data import augment, next_tokens
from jdlopt.data.dataset import Dataset, counts_of
from jdlopt.data.fields import BOTH
from jdlopt.data.named import PRESENT
from jdlopt.data.notes import Note, Notes
from jdlopt.data.preprocess import pca
from jdlopt.data.spec import DataSpec
from jdlopt.errors import ConfigError, listing
from jdlopt.models import sees_ahead
from jdlopt.optim.schedules import warmup_problem
from jdlopt.tasks import find_task
from jdlopt.train import loggers
from jdlopt.train.components import total_steps
from jdlopt.train.schema import Config


def impossible(
    config: Config, spec: DataSpec, known: Sequence[str], num_devices: int | None = None
) -> list[str]:
    """What can't work with this dataset or machine, in words.

    Args:
      config: the checked config.
      spec: what is known of its data.
      known: the problems found so far; what stands on a key with one is not looked at.
      num_devices: what the mesh is made of; None: all devices that there are.
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
    elif sound("optim", "model.batch_norm_groups"):
        part, groups = batch_size // config.optim.accumulate, config.model.batch_norm_groups
        if part % groups:
            problems.append(
                f"model.batch_norm_groups: {groups} groups can't be made of {part} examples, "
                "data.batch_size / optim.accumulate, all of one size."
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
    if sound("model.name", "loss", "optim"):
        problems += _pair_problems(config, spec, pairs="pairs" in task.shows)
    if sound("model") and task.name == next_tokens.TASK and sees_ahead(to_dict(config.model)):
        problems.append(
            f"model.name: {config.model.name!r} sees the tokens that it is to predict. Take "
            "'transformer_decoder', or 'gru' or 'lstm' that are not bidirectional."
        )
    scaled = config.data.preprocess.target_scale is not None and "values" not in task.shows
    if sound("data.preprocess") and scaled:
        problems.append(
            f"data.preprocess.target_scale: is for numbers; {spec.name!r} is a {task.name} "
            "dataset. Leave it out."
        )
    if sound("loss") and loss.distill is not None and spec.positions:
        problems.append(
            f"loss.distill: a teacher says one thing of an example; {task.name} has a prediction "
            "at each position. Leave it out."
        )
    if sound("data.preprocess") and spec.positions == 2 and config.data.preprocess.resize:
        problems.append(
            "data.preprocess.resize: would give images another size than their masks. "
            "data.image_size resizes both."
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
    if config.data.train_on == BOTH and train.patience is not None:
        problems.append(
            f"train.patience: data.train_on={BOTH!r} trains on the validation split, so it can't "
            "say when to stop. Give train.epochs or train.steps, such as those that a run with "
            "patience has shown to be enough, and leave train.patience out."
        )
    if sound("data.augment"):
        data = config.data
        problems += augment.problems(data.augment, spec, data.preprocess)
    if config.model.prune.criterion is not None and train.cache_features:
        problems.append(
            "train.cache_features: the features of a body that is pruned change while it is "
            "trained. Set it to False, or leave model.prune out."
        )
    if task.teacher_forcing is not None:
        problems += _of_written_targets(config, task.name)
    if sound("mesh"):
        count = len(jax.devices()) if num_devices is None else num_devices
        problems += mesh.mesh_problems(config.mesh, batch_size, count)
    return problems


def _of_written_targets(config: Config, task: str) -> list[str]:
    """What a task can't have whose model is given its targets so far."""
    given = {
        "loss.distill": config.loss.distill is not None,
        "train.cache_features": config.train.cache_features,
    }
    return [
        f"{key}: what a teacher or a frozen body makes of an example is computed from its inputs "
        f"alone; the model of a {task} dataset is given targets beside them. Leave it out."
        for key, on in given.items()
        if on
    ]


def _pair_problems(config: Config, spec: DataSpec, pairs: bool) -> list[str]:
    """Returns what can't be had where two embeddings of each example are compared, in words."""
    name, found = config.model.name, []
    if config.loss.name in losses.TOGETHER and config.optim.accumulate > 1:
        found.append(
            f"optim.accumulate: {config.loss.name!r} compares all examples of a batch with one "
            f"another, and {config.optim.accumulate} parts of it would be smaller batches. Set "
            "optim.accumulate=1; model.remat or mesh.data save memory as well."
        )
    if not pairs:
        if name == "two_towers":
            found.append(
                f"model.name: {name!r} embeds pairs of inputs, for data.task='pairs'; that of "
                f"{spec.name!r} is {spec.task}. 'fusion' takes several inputs."
            )
        return found
    if PRESENT in spec.named:
        found.append(
            "data.missing_inputs: a pair needs both of its inputs. Leave the key out; "
            "data.on_bad='skip' leaves rows out that lack one."
        )
    elif len(spec.named) != 2:
        found.append(
            f"data.task: 'pairs' are of two inputs; {spec.name!r} has {len(spec.named)}: "
            f"{listing(spec.named)}. data.columns says what columns hold, data.ignore leaves "
            "others out."
        )
    if not isinstance(config.model.options.get("features"), int):
        found.append(
            f"model.name: {name!r} makes no embeddings; data.task='pairs' needs 'two_towers', or a "
            "module of your own whose key 'features' is their width "
            "(jdlopt.tasks.pair_outputs.parted)."
        )
    elif name in models.MODELS and name != "two_towers":
        found.append(f"model.name: {name!r} makes no embeddings of pairs; 'two_towers' does.")
    if config.model.ensemble > 1:
        found.append(
            "model.ensemble: embeddings of several models can't be averaged: each has axes of its "
            "own. Set model.ensemble=1."
        )
    if config.loss.distill is not None:
        found.append(
            "loss.distill.teacher: embeddings have no probabilities to learn from. Leave it out."
        )
    if config.data.batch_size < 2:
        found.append("data.batch_size: a pair is compared with others; take at least 2.")
    return found


def check_choosing(train_on: str) -> None:
    """Checks that a validation split can choose: that it is not trained on.

    Args:
      train_on: ``data.train_on`` of the config.

    Raises:
      ConfigError: it is.
    """
    if train_on == BOTH:
        raise ConfigError(
            f"data.train_on={BOTH!r}: the validation split is trained on, so nothing can be chosen "
            "or judged by it. It is for the last training of a config that has been chosen: leave "
            "it out here, and give it to `jdlopt train` at the end."
        )


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
            if split == "validation" and name == watched:
                problems.append(f"train.monitor: {_undefined(name, spec, lacks[need])}")
            what = f"metrics that are undefined on the {split} split, which has {lacks[need]}"
            notes.add("unused", what, name, unit="metrics", remedy=_remedy(split))
    return problems, tuple(notes)


def undefined_metric(dataset: Dataset, name: str) -> str | None:
    """Says why a metric can't be computed on the validation split, or None."""
    need = metrics.find_metric(name).needs
    if not need or not dataset.sizes.get("validation"):
        return None
    lacks = _lacks(dataset.targets("validation"), dataset.spec)
    return _undefined(name, dataset.spec, lacks[need]) if need in lacks else None


def _undefined(name: str, spec: DataSpec, lacks: str) -> str:
    return (
        f"'validation/{name}' is undefined on the validation split of {spec.name!r}, which has "
        f"{lacks}. {_remedy('validation')}"
    )


def _remedy(split: str) -> str:
    return (
        f"Give each split every class with data.stratify=True, a larger data.{split}_fraction or "
        "data.split_seed, or look at another metric."
    )


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
    if spec.num_classes and not spec.positions:
        counts = counts_of(targets, spec)
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
        metrics.make_collector([name], spec.task, spec.num_classes, class_names=spec.class_names)
        if watched:
            metrics.higher_is_better(name)
    except ConfigError as error:
        return str(error)
    return None
