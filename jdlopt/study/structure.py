"""What trials of one structure share: the experiment, the data on the device, and the folds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from jdlopt import config as configs
from jdlopt.data import feed, named
from jdlopt.data.dataset import Dataset
from jdlopt.data.pools import Arrays
from jdlopt.data.sampling import Order
from jdlopt.errors import ConfigError
from jdlopt.train.evaluate import SMALLEST_BATCH
from jdlopt.train.experiment import Experiment
from jdlopt.train.predict import taught
from jdlopt.train.schema import begins_with, schema_of
from jdlopt.train.state import as_arrays
from jdlopt.train.step import TEACHER
from jdlopt.train.tracker import Tracker, make_tracker

OF_STEPS = ("augment", "batch_size")
"""Keys of ``data`` that opening does not look at: a space that searches them opens it once."""


@dataclass(frozen=True)
class Fold:
    """Where the splits of one fold lie in the data of a structure.

    Attributes:
      train: positions of the training examples, in the order of the split.
      validation: positions in evaluation batches, padded by repeating the last.
      weights: 1 for an example, 0 for padding.
      preprocess: what preprocessing learnt from this fold's training examples.
      order: the order of its training examples.
    """

    train: Int32[np.ndarray, " examples"]
    validation: Int32[np.ndarray, "batches batch"]
    weights: Float[np.ndarray, "batches batch"]
    preprocess: Mapping[str, Any]
    order: Order


@dataclass(frozen=True)
class Structure:
    """Trials that one compiled program serves: all but floats, seeds and folds are equal.

    Attributes:
      experiment: built for the first of the folds.
      schema: the keys of its config, to check a trial's floats with.
      folds: by number; the only one is None without cross-validation.
      data: ``inputs`` and ``targets`` of the training and validation examples of all folds; None
        where they don't fit into memory.
      fingerprint: of the config's structure.
    """

    experiment: Experiment
    schema: configs.Schema
    folds: Mapping[int | None, Fold]
    data: dict[str, Array] | None
    fingerprint: str

    def tracker(self, fold: int | None, params: Mapping[str, float]) -> Tracker:
        """Returns what takes the values of one training, of a fold and a trial's floats."""
        key, prune = "model.prune.", self.experiment.config.model.prune
        own: dict[str, Any] = {
            name.removeprefix(key): params[name] for name in params if name.startswith(key)
        }
        examples = len(self.folds[fold].train)
        return make_tracker(self.experiment, examples, replace(prune, **own))

    def hyperparameters(self, params: Mapping[str, float]) -> Any:
        """Returns a trial's traced floats, checked.

        Args:
          params: dotted keys and their values; the rest is as in the structure's config.

        Raises:
          ConfigError: a value is out of its key's range.
        """
        problems: list[str] = []
        checked = {}
        for key, value in params.items():
            field: Any = self.schema
            for name in key.split("."):
                field = field[name]
            checked[key] = configs.check_value(value, field, key, problems)
        configs.raise_problems(problems)
        return configs.hyperparameters(configs.override(self.experiment.config, checked))


def build(
    raw: Mapping[str, object],
    folds: Sequence[int] | None = None,
    cache: dict[object, object] | None = None,
) -> list[Structure]:
    """Opens the data of a config and builds its experiment, once for all folds that can share them.

    Folds of unlike sizes may differ in their number of steps, and balanced class weights differ
    from fold to fold: those are structures of their own.

    Args:
      raw: a config as `jdlopt.config.load` gives it.
      folds: the folds to train; ``data.folds`` of the config must be set.
      cache: keeps datasets and their place on the device from one structure to the next.

    Raises:
      ConfigError, DataError: the config is wrong.
    """
    cache = {} if cache is None else cache
    problems: list[str] = []
    schema = schema_of(configs.to_dict(raw), problems)
    configs.raise_problems(problems)
    groups: dict[Any, list[tuple[int | None, Experiment]]] = {}
    for fold in folds or (None,):
        config = raw if fold is None else configs.override(raw, {"data.fold": fold})
        # a step computes alike in all folds: it is traced for the first alone
        experiment = experiment_of(config, cache, check=not groups)
        if experiment.config.train.cache_features:
            raise ConfigError(
                "train.cache_features: is for a single run: each trial of a study has a body of "
                "its own. Set it to False; optim.freeze alone trains the same heads."
            )
        weighted = experiment.config.loss.class_weights == "balanced"
        learnt = str(jax.tree.map(np.shape, experiment.learnt))  # stacked, they must be alike
        own = fold if weighted else None
        steps = (experiment.total_steps, experiment.eval_every, experiment.log_every)
        key = (*steps, own, repr(experiment.recipe), learnt, _coding(experiment.data))
        groups.setdefault(key, []).append((fold, experiment))
    structures = []
    said: dict[int, Any] = {}  # what a teacher says of each dataset's examples
    for alike in groups.values():
        datasets = {fold: experiment.data for fold, experiment in alike}
        first = alike[0][1]
        positions, data = _pooled(datasets, cache)
        if data is not None:
            data = _taught(first, data, said)
        most = first.config.train.eval_batch_size
        largest = max(len(validation) for _, validation in positions.values())
        made = {
            fold: Fold(
                positions[fold][0],
                *_padded(positions[fold][1], most, largest),
                experiment.learnt,
                experiment.order,
            )
            for fold, experiment in alike
        }
        fingerprint = configs.fingerprint(configs.override(first.config, {"data.fold": 0}))
        structures.append(Structure(first, schema, made, data, fingerprint))
    return structures


def _taught(
    experiment: Experiment, data: dict[str, Array], known: dict[int, Any]
) -> dict[str, Any]:
    """Returns examples with what a teacher says of them, where that is always the same.

    Args:
      experiment: of the structure.
      data: its examples on the device.
      known: what was said before of other structures' examples of this config.
    """
    if id(data) not in known:
        known[id(data)] = taught(experiment, jax.device_get(data["inputs"]))
    said = known[id(data)]
    return data if said is None else {**data, TEACHER: jax.tree.map(jnp.asarray, said)}


def experiment_of(
    raw: Mapping[str, object], cache: dict[object, object], check: bool = True
) -> Experiment:
    """Builds the experiment of a config, on data that stay open from one config to the next.

    Args:
      raw: a config as `jdlopt.config.load` gives it.
      cache: the datasets that are open, by what their ``data`` sections say of opening them.
      check: whether a step is traced on shapes.

    Raises:
      ConfigError, DataError: the config is wrong.
    """
    section = raw.get("data")
    if not isinstance(section, Mapping):
        return Experiment.build(raw, check=check)
    said = {name: value for name, value in section.items() if name not in OF_STEPS}
    kept = begins_with(configs.to_dict(raw), [])  # a run's coding, where weights are a run's
    said = {**said, "from": str(kept.file) if kept is not None and kept.is_run else None}
    key = "dataset", json.dumps(configs.to_dict(said), sort_keys=True, default=repr)
    found = cache.get(key)
    assert found is None or isinstance(found, Dataset)
    experiment = Experiment.build(raw, found, check=check)
    cache[key] = experiment.data
    return experiment


def _pooled(
    datasets: Mapping[int | None, Dataset], cache: dict[Any, Any]
) -> tuple[dict[int | None, tuple[np.ndarray, np.ndarray]], dict[str, Array] | None]:
    """Puts the examples of all folds on the device once; returns where each split's lie."""
    first = next(iter(datasets.values()))
    total = first.nbytes("train") + first.nbytes("validation")
    sizes = first.sizes
    positions: dict[int | None, tuple[np.ndarray, np.ndarray]] = {}
    if None in datasets:
        ends = sizes["train"], sizes["train"] + sizes["validation"]
        positions[None] = np.arange(ends[0]), np.arange(*ends)
        pieces = ["train", "validation"]
    else:
        everything = np.sort(np.concatenate([_examples(first, s) for s in ("train", "validation")]))
        for fold, dataset in datasets.items():
            train, validation = (
                np.searchsorted(everything, _examples(dataset, split))
                for split in ("train", "validation")
            )
            positions[fold] = train, validation
        pieces = []
    typed = {
        fold: (train.astype(np.int32), validation.astype(np.int32))
        for fold, (train, validation) in positions.items()
    }
    if not feed.fits(total):
        return typed, None
    key = (first.spec.source, tuple(sizes.items()), bool(pieces), repr(first.parts), _coding(first))
    if key not in cache:
        if pieces:
            read = [first.read(split) for split in pieces]
            inputs, targets = zip(*read, strict=True)
            arrays = Arrays(named.joined(inputs), np.concatenate(targets))
        else:
            for split in ("train", "validation"):
                first.read(split)  # checks what it holds
            arrays = first.pools[first.parts["train"][0]].read(everything)
        cache[key] = {
            "inputs": jax.tree.map(jnp.asarray, arrays.inputs),
            "targets": jnp.asarray(arrays.targets),
        }
    return typed, cache[key]


def _coding(dataset: Dataset) -> str:
    """What the numbers of its inputs mean: columns, categories and vocabulary go by the fold."""
    return repr(
        [
            (name, one.feature_names, one.categories, None if one.text is None else one.text.meta())
            for name, one in dataset.spec.named.items()
        ]
    )


def _examples(dataset: Dataset, split: str) -> np.ndarray:
    """Which examples of their pool a split of a fold is made of."""
    indices = dataset.parts[split][1]
    assert indices is not None
    return indices


def _padded(positions: np.ndarray, most: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a split into evaluation batches: as many, and of the size, that the largest one needs.

    Folds of unlike sizes then have the same shape.
    """
    batch_size = min(most, max(largest, SMALLEST_BATCH))
    count = -(-largest // batch_size)
    padded = np.minimum(np.arange(count * batch_size), len(positions) - 1)
    weights = (np.arange(count * batch_size) < len(positions)).astype(np.float32)
    return (
        positions[padded].reshape(count, batch_size),
        weights.reshape(count, batch_size),
    )


def check_probes(raw: Mapping[str, object], points: Sequence[Mapping[str, object]]) -> None:
    """Checks a config at many points of a space, all problems in one message; trains nothing.

    Raises:
      ConfigError: a key is unknown, or may take a value that it can't have.
    """
    problems: list[str] = []
    for params in points:
        found: list[str] = []
        config = configs.to_dict(configs.override(raw, params))
        configs.check_section(config, schema_of(config, found), "", found)
        problems += [problem for problem in found if problem not in problems]
    configs.raise_problems(problems, "space")


def stacked(hparams: Sequence[object]) -> Any:
    """Returns hyperparameters of several trials as one pytree with a leading axis."""
    if not hparams:
        raise ConfigError("a population needs at least one trial")
    return jax.tree.map(lambda *values: jnp.stack(values), *[as_arrays(one) for one in hparams])
