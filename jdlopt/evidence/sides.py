"""The sides of a comparison: configs with the data that they open, and what makes two a pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jdlopt import config as configs
from jdlopt.errors import ConfigError, UserError, listing
from jdlopt.tasks import find_task

if TYPE_CHECKING:
    from jdlopt.data.dataset import Dataset
    from jdlopt.train.experiment import Experiment
    from jdlopt.train.schema import Config

MAY_DIFFER = (
    "data.batch_size", "data.preprocess.", "data.augment.", "data.sampling", "data.in_memory",
    "data.workers", "data.text.",
)  # fmt: skip
"""The keys of ``data`` that leave the examples of each split as they are."""
ADDED_TO_LOSSES = ("loss.l1", "loss.l2", "loss.penalize", "loss.class_weights")
"""The keys of ``loss`` that leave the loss of an example, as it is measured, as it is."""
SAME_DATASET = ("model.", "loss.", "optim.", "train.", "data.augment.", "data.batch_size", "seed")
"""The keys that leave an opened dataset as it is."""


class Side(NamedTuple):
    """A config that is compared.

    Attributes:
      experiment: built from it.
      raw: as given, in plain values; changes are made here, so that defaults can follow them, and
        keys that refer to others.
    """

    experiment: Experiment
    raw: configs.AnyConfig

    @property
    def config(self) -> Config:
        """The resolved config."""
        return self.experiment.config

    @property
    def dataset(self) -> Dataset:
        """The data that it opens."""
        return self.experiment.data


def side_of(
    raw: configs.AnyConfig, change: Mapping[str, object] | None = None, like: Side | None = None
) -> Side:
    """Returns a config, changed at some keys, as it is compared: resolved, its dataset opened.

    Args:
      raw: as `jdlopt.config.load` gives it.
      change: dotted keys and values. Where another part is named, keys that it does not have go.
      like: a side of the same data, whose dataset is taken where the change leaves it as it is;
        whether the model can be built then shows in training.

    Raises:
      ConfigError, DataError: the config is wrong.
    """
    from jdlopt.train.experiment import Experiment
    from jdlopt.train.schema import schema_of

    tree = changed(raw, change) if change else configs.to_dict(raw)
    tree = configs.settled(tree, schema_of(tree, []))
    keys = configs.References(raw).following(change or {})
    same = like is not None and all(
        key.startswith(SAME_DATASET) and key != "model.pretrained" for key in keys
    )
    experiment = Experiment.build(tree, like.dataset if like and same else None)
    kept = configs.with_values(configs.override(raw, change) if change else raw, tree)
    return Side(experiment, kept)


def changed(raw: configs.AnyConfig, change: Mapping[str, object]) -> dict[str, Any]:
    """Returns a config with keys changed.

    Where another part is named, its section keeps what every such part has, and of the old part's
    own keys the floats and names that the new one has as well, such as a dropout rate: sizes mean
    other things in another model.

    Example:
      >>> raw = {"data": {"source": "iris"}, "optim": {"name": "sgd", "momentum": 0.9}}
      >>> changed(raw, {"optim.name": "adamw"})["optim"]
      {'name': 'adamw'}
    """
    from jdlopt import losses, models, optim
    from jdlopt.train.schema import schema_of

    before = configs.flat(raw)
    tree = configs.to_dict(configs.override(raw, change))
    schema = schema_of(tree, [])
    shared = {
        name
        for part in (models.ModelFields, optim.OptimFields, optim.ScheduleFields, losses.LossFields)
        for name in configs.fields_of(part)
    }
    for key in change:
        *sections, last = key.split(".")
        if last != "name" or not sections or before.get(key) == change[key]:
            continue
        section, known = tree, schema
        for name in sections:
            section, known = section[name], known.get(name, {})
        prefix = ".".join(sections)
        for name in list(section):
            asked = any(one == f"{prefix}.{name}" or one.startswith(f"{prefix}.{name}.")
                        for one in change)  # fmt: skip
            kept = name in shared or isinstance(section[name], float | str | Mapping)
            if name not in known or not (asked or kept):
                del section[name]
    return tree


def check_pair(a: Side, b: Side, metric: str) -> None:
    """Checks that two configs are about the same examples and that a metric means the same of both.

    Raises:
      ConfigError: they are not, or it is the loss and they have different ones, with the keys that
        differ.
    """
    if metric == "validation/loss":
        differ = _unlike(a, b, "loss", ADDED_TO_LOSSES)
        scales = [side.config.data.preprocess.target_scale for side in (a, b)]
        if scales[0] != scales[1]:
            differ["data.preprocess.target_scale"] = (scales[0], scales[1])
        if differ:
            raise ConfigError(
                "validation/loss means another thing for each side: they differ in "
                f"{listing(list(differ))}. Name another --metric, such as "
                f"{default_metric(a.dataset.spec.task)}."
            )
    unlike = _unlike(a, b, "data", MAY_DIFFER)
    if unlike:
        raise ConfigError(
            "the two configs are not about the same examples, so their seeds make no pairs:\n"
            + "\n".join(f"  {key}: {one!r} and {other!r}" for key, (one, other) in unlike.items())
            + "\nGive both the same values; model, loss, optim, train, data.batch_size, "
            "data.preprocess and data.augment may differ."
        )


def _unlike(
    a: Side, b: Side, section: str, may_differ: tuple[str, ...]
) -> dict[str, tuple[Any, Any]]:
    """The keys of a section that differ, but those that may; with the values of both sides."""
    one, other = (configs.flat({section: side.config.to_dict()[section]}) for side in (a, b))
    return {
        key: (one.get(key), other.get(key))
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key) and not key.startswith(may_differ)
    }


def check_space(space: Mapping[str, object], metric: str) -> None:
    """Checks that tuning does not change what the metric means.

    Raises:
      ConfigError: the metric is the loss, and a key says what it is.
    """
    wrong = [key for key in space if key.startswith("loss.") and key not in ADDED_TO_LOSSES]
    if metric == "validation/loss" and wrong:
        raise ConfigError(
            f"validation/loss means another thing for each value of {wrong[0]}; don't tune it, or "
            "name another --metric."
        )


def default_metric(task: str) -> str:
    """Returns the metric of a comparison by default: nothing that depends on the loss."""
    return f"validation/{find_task(task).judged}"


def metric_of(side: Side, asked: str | None, flag: str = "--metric") -> str:
    """Returns the metric of a comparison: what is asked for, else its task's.

    Args:
      side: whose data it is measured on.
      asked: by a person, or None.
      flag: by which it was asked for.

    Raises:
      UserError: it is none of the validation split's, is undefined there, or that is trained on.
    """
    from jdlopt.train.checks import check_choosing, metric_problem, undefined_metric

    check_choosing(side.config.data.train_on)
    metric = asked or default_metric(side.dataset.spec.task)
    split, _, name = metric.partition("/")
    problem = metric_problem(name, side.dataset.spec, watched=True)
    if split != "validation" or problem:
        raise UserError(f"{flag}: {metric!r} is none: {problem or 'name validation/METRIC.'}")
    undefined = undefined_metric(side.dataset, name)
    if undefined:
        raise UserError(f"{flag}: {undefined}")
    return metric


def measuring(side: Side, metric: str) -> Side:
    """Returns a config whose evaluations measure a metric."""
    name = metric.partition("/")[2]
    measured = side.config.train.metrics or find_task(side.dataset.spec.task).metrics
    if name == "loss" or name in measured:
        return side
    return side_of(side.raw, {"train.metrics": (*measured, name)})


COUNTED = ("accuracy", "balanced_accuracy", "subset_accuracy")
"""Metrics that count the examples that are right."""


def resolution_of(metric: str, dataset: Dataset) -> float:
    """Returns the step in which a metric moves: one example's share of an accuracy, else 0."""
    name = metric.partition("/")[2]
    return 1 / dataset.sizes["validation"] if name in COUNTED else 0.0


def step_memory(side: Side) -> int:
    """Returns the bytes that the compiler says a training step takes; nothing is run."""
    from jdlopt import mesh
    from jdlopt.train import memory

    return memory.step_bytes(side.experiment, mesh.make_mesh(side.config.mesh))
