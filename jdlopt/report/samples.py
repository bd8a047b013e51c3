"""Some training examples, raw, preprocessed and augmented in each way, to be drawn side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Num

from jdlopt import config as configs
from jdlopt.data.check.arrays import kind_of
from jdlopt.errors import ConfigError
from jdlopt.tasks import find_task

if TYPE_CHECKING:
    from jaxtyping import Array, PyTree  # imports jax

    from jdlopt.data.augment import Inputs
    from jdlopt.data.dataset import Dataset
    from jdlopt.data.fields import DataFields
    from jdlopt.data.precision import Offset

MEASURED = 256
"""Examples over which the mean change is taken, or fewer where they are large."""
VALUES = 1 << 24
RAW_STAGES = ("geometry", "raw")
"""What is applied before preprocessing."""


class Column(NamedTuple):
    """One way to see the same examples.

    Attributes:
      label: what was done.
      values: [examples, …].
      space: ``raw`` or ``model``: what it can be compared with.
      change: the mean absolute change of a value; of tokens, the share that changed.
      strength: of the augmentation; None where it is none.
    """

    label: str
    values: Num[np.ndarray, "examples *shape"]
    space: str
    change: float | None = None
    strength: float | None = None


class Samples(NamedTuple):
    """An input of examples in columns: raw, preprocessed, then each augmentation.

    Attributes:
      columns: each with all examples that were measured.
      labels: what each example's target is called; untrusted.
      kind: what the input is, as `jdlopt.data.check.arrays.kind_of` says.
      tokens: what each token id stands for, of texts.
      names: of a table's raw columns; untrusted.
      categories: what the codes of a table's columns stand for, from 1 on; untrusted.
      input: which of several inputs it is; empty for the only one.
      offsets: what was taken off each of a table's columns; empty for nothing.
    """

    columns: tuple[Column, ...]
    labels: tuple[str, ...]
    kind: str
    tokens: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = {}
    input: str = ""
    offsets: tuple[Offset, ...] = ()


def take(fields: DataFields, *, everything: bool = False, seed: int = 0) -> tuple[Samples, ...]:
    """Returns training examples of a resolved ``data`` section, seen in every way it has.

    What changes pixels, waveforms or tokens is shown before preprocessing; what changes features or
    mixes examples, after it.

    Args:
      fields: the resolved ``data`` section.
      everything: show every augmentation that fits: those of the config at its strengths, the
        others at the largest of the strengths that are tried first.
      seed: of the augmentations' draws.

    Returns:
      One for each input, of the same examples.

    Raises:
      DataError: the dataset can't be opened or used as the section says.
      ConfigError: an augmentation does not fit the data.
    """
    import jax

    from jdlopt.data import named, preprocess
    from jdlopt.train import components

    dataset = components.open_clean(fields)
    recipe = components.recipe_of(fields, dataset.spec)
    kept = components.kept_of(fields, recipe, dataset.spec)
    state = components.learnt(recipe, dataset, kept.inputs)
    raw, targets = _examples(dataset)

    def prepare(inputs: PyTree[Array]) -> PyTree[Array]:
        return preprocess.apply(recipe, state, inputs)

    prepared = named.each(np.asarray, jax.jit(prepare)(raw))
    unit = named.each(np.asarray, jax.jit(_unit)(raw))
    seen = named.by_name(prepared)  # in another order: that of their names
    columns = {
        name: [Column("raw", one, "raw"), Column("preprocessed", seen[name], "model")]
        for name, one in named.by_name(raw).items()
    }
    for name, options, strength, is_raw in _chosen(fields, dataset, everything):
        change = _augment(fields, dataset, options, named.count(raw))
        stage = _unchanged if is_raw else prepare
        given = configs.hyperparameters({"data": {"augment": options}})["augment"]
        batch = {"inputs": raw, "targets": targets, "step": np.int32(0)}

        def run(
            key: Array,
            batch: Mapping[str, PyTree[Array]],
            given: Mapping[str, Array],
            change: Callable[..., Mapping[str, PyTree[Array]]] = change,
            stage: Callable[[PyTree[Array]], PyTree[Array]] = stage,
        ) -> PyTree[Array]:
            return change(key, batch, given, stage)["inputs"]

        made = named.by_name(jax.jit(run)(jax.random.key(seed), batch, given))
        label = name if strength is None else f"{name} {strength:g}"
        for which, base in named.contents(named.by_name(unit if is_raw else prepared)).items():
            after = np.asarray(made[which])
            amount = _change(base, after)
            if len(made) == 1 or _fits(name, options, dataset, fields, which):
                column = Column(label, after, "raw" if is_raw else "model", amount, strength)
                columns[which].append(column)
    labels = _labels(dataset, targets)
    return tuple(
        Samples(
            tuple(columns[name]),
            labels,
            kind_of(one),
            () if one.text is None else tuple(one.text.state.tokens),
            tuple(str(column) for column in one.feature_names or ()),
            {} if one.hash_buckets else one.categories,
            name if len(columns) > 1 else "",
            one.offsets,
        )
        for name, one in named.contents(dataset.spec.named).items()
    )


def _augment(
    fields: DataFields, dataset: Dataset, options: Mapping[str, Any], count: int
) -> Callable[..., dict[str, Any]]:
    """Returns what a ``data.augment`` section does to a batch of examples."""
    from jdlopt.data.augment.batch import make_augment
    from jdlopt.train.components import parts_of

    parts, vocabulary = parts_of(dataset.spec, fields.preprocess, options)
    return make_augment(
        options,
        size=dataset.sizes["train"],
        batch_size=count,
        num_outputs=dataset.spec.num_classes or math.prod(dataset.spec.target_shape),
        classes=dataset.spec.num_classes,
        vocabulary=vocabulary,
        parts=parts,
    )


def _inputs(fields: DataFields, dataset: Dataset, name: str) -> Inputs:
    from jdlopt.data import augment

    return augment.inputs_of(dataset.spec, fields.preprocess, dataset.spec.named[name])


def _fits(
    name: str, options: Mapping[str, Any], dataset: Dataset, fields: DataFields, which: str
) -> bool:
    """Says whether the augmentation that a section asks for changes one of several inputs."""
    from jdlopt.data import augment

    left: Mapping[str, Any] = augment.fitted(options, _inputs(fields, dataset, which))
    label = name.removeprefix("own.")
    own: Mapping[str, object] = left["own"]
    return label in own if name.startswith("own.") else bool(left.get(name) is not None)


def _examples(dataset: Dataset) -> tuple[Any, np.ndarray]:
    pool, rows = dataset.parts["train"][0], dataset.rows("train")
    size = sum(math.prod(one.shape) for one in dataset.spec.named.values())
    count = max(8, min(MEASURED, VALUES // size))
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))
    # those that are drawn are the first: let them be from the whole split
    places = places[np.argsort(np.random.default_rng(0).random(len(places)), kind="stable")]
    inputs, targets = dataset.pools[pool].read(rows[places])
    return inputs, np.asarray(targets)


def _chosen(
    fields: DataFields, dataset: Dataset, everything: bool
) -> list[tuple[str, dict[str, Any], float | None, bool]]:
    """Returns each augmentation's name, the section with it alone, its strength, and its place.

    The place is whether it comes before preprocessing.
    """
    from jdlopt.data import augment

    given = dict(fields.augment)
    wrong = augment.problems(given, dataset.spec, fields.preprocess)
    if wrong:
        raise ConfigError("\n".join(wrong))
    every = [_inputs(fields, dataset, name) for name in dataset.spec.named]
    possible = {
        name: part
        for name, part in augment.AUGMENTATIONS.items()
        if any(part.misfit(one) is None for one in every) and not augment.unmixable(part, every)
    }
    rest: dict[str, object] = {"alternating_flip": False, "own": {}}
    alone = {**given, **dict.fromkeys(augment.AUGMENTATIONS), **rest}
    found: list[tuple[str, dict[str, Any], float | None, bool]] = []
    for name, part in possible.items():
        strength = given.get(name)
        if strength is None and everything and all(given[key] for key in part.requires):
            strength = part.first[-1]
        if strength is not None:
            options = {**alone, name: strength}
            found.append((name, options, float(strength), part.stage in RAW_STAGES))
    if given.get("alternating_flip"):
        found.append(("alternating_flip", {**alone, "alternating_flip": True}, None, True))
    for label, one in given["own"].items():
        part = augment.find_own(one["name"], f"data.augment.own.{label}.name")
        options = {**alone, "own": {label: one}}
        found.append((f"own.{label}", options, one["strength"], part.stage in RAW_STAGES))
    return found


def _unchanged(inputs: PyTree[Array]) -> PyTree[Array]:
    return inputs


def _unit(inputs: PyTree[Array]) -> PyTree[Array]:
    """Bytes as numbers from 0 to 1, as augmentations see them."""
    from jdlopt.data import named

    return named.each(
        lambda one: one.astype(np.float32) / 255.0 if one.dtype == np.uint8 else one, inputs
    )


def _change(base: np.ndarray, made: np.ndarray) -> float:
    if base.dtype.kind == "i":
        return float((base != made)[base != 0].mean()) if (base != 0).any() else 0.0
    return float(np.nanmean(np.abs(made.astype(np.float64) - base.astype(np.float64))))


def _labels(dataset: Dataset, targets: np.ndarray) -> tuple[str, ...]:
    told = find_task(dataset.spec.task).told
    if told is not None:
        return tuple(told(targets, dataset.spec))
    if targets.ndim == 2:  # labels by name, or several numbers
        names, values = np.array(dataset.spec.class_names, dtype=object), targets.tolist()
        return tuple(
            "|".join(names[np.array(row, bool)])
            if len(names)
            else ", ".join(f"{v:.4g}" for v in row)
            for row in values
        )
    if dataset.spec.num_classes:
        return tuple(str(dataset.spec.class_names[int(target)]) for target in targets)
    return tuple(f"{float(target):.4g}" for target in targets)
