"""Some training examples, raw, preprocessed and augmented in each way, to be drawn side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Num

from jdlopt import config as configs
from jdlopt.errors import ConfigError, listing

if TYPE_CHECKING:
    from jaxtyping import Array  # imports jax

    from jdlopt.data.dataset import Dataset
    from jdlopt.data.fields import DataFields

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
    """Examples in columns: raw, preprocessed, then each augmentation.

    Attributes:
      columns: each with all examples that were measured.
      labels: what each example's target is called; untrusted.
      kind: what the inputs are, as preprocessing takes them.
      tokens: what each token id stands for, of texts.
      names: of a table's raw columns; untrusted.
    """

    columns: tuple[Column, ...]
    labels: tuple[str, ...]
    kind: str
    tokens: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def take(fields: DataFields, *, everything: bool = False, seed: int = 0) -> Samples:
    """Returns training examples of a resolved ``data`` section, seen in every way it has.

    What changes pixels, waveforms or tokens is shown before preprocessing; what changes features or
    mixes examples, after it.

    Args:
      fields: the resolved ``data`` section.
      everything: show every augmentation that fits: those of the config at its strengths, the
        others at the largest of the strengths that are tried first.
      seed: of the augmentations' draws.

    Raises:
      DataError: the dataset can't be opened or used as the section says.
      ConfigError: an augmentation does not fit the data.
    """
    import jax

    from jdlopt.data import preprocess
    from jdlopt.data.augment.batch import make_augment
    from jdlopt.train import components

    dataset = components.open_clean(fields)
    one = dataset.spec.input
    recipe = preprocess.make_recipe(fields.preprocess, one, dataset.spec.name)
    state = components.learnt(recipe, dataset)
    text = one.text
    raw, targets = _examples(dataset)

    def prepare(inputs: Array) -> Array:
        return preprocess.apply(recipe, state, inputs)

    prepared = np.asarray(jax.jit(prepare)(raw))
    unit = np.asarray(jax.jit(_unit)(raw))
    columns = [Column("raw", raw, "raw"), Column("preprocessed", prepared, "model")]
    for name, options, strength, is_raw in _chosen(fields, dataset, everything):
        change = make_augment(
            options,
            size=dataset.sizes["train"],
            batch_size=len(raw),
            num_outputs=dataset.spec.num_classes or math.prod(dataset.spec.target_shape),
            classes=dataset.spec.num_classes,
            vocabulary=None if text is None else text.vocabulary(),
        )
        stage = _unchanged if is_raw else prepare
        given = configs.hyperparameters({"data": {"augment": options}})["augment"]
        batch = {"inputs": raw, "targets": targets, "step": np.int32(0)}

        def run(
            key: Array,
            batch: Mapping[str, Array],
            given: Mapping[str, Array],
            change: Callable[..., Mapping[str, Array]] = change,
            stage: Callable[[Array], Array] = stage,
        ) -> Array:
            return change(key, batch, given, stage)["inputs"]

        made = np.asarray(jax.jit(run)(jax.random.key(seed), batch, given))
        base = unit if is_raw else prepared
        shown = name if strength is None else f"{name} {strength:g}"
        column = Column(shown, made, "raw" if is_raw else "model", _change(base, made), strength)
        columns.append(column)
    kind = recipe.kind
    tokens = () if text is None else tuple(text.state.tokens)
    names = tuple(str(name) for name in dataset.spec.input.feature_names or ())
    return Samples(tuple(columns), _labels(dataset, targets), kind, tokens, names)


def _examples(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    pool, indices = dataset.parts["train"]
    rows = np.arange(len(dataset.pools[pool])) if indices is None else indices
    count = max(8, min(MEASURED, VALUES // math.prod(dataset.spec.input.shape)))
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))
    # those that are drawn are the first: let them be from the whole split
    places = places[np.argsort(np.random.default_rng(0).random(len(places)), kind="stable")]
    inputs, targets = dataset.pools[pool].read(rows[places])
    return np.asarray(inputs), np.asarray(targets)


def _chosen(
    fields: DataFields, dataset: Dataset, everything: bool
) -> list[tuple[str, dict[str, Any], float | None, bool]]:
    """Returns each augmentation's name, the section with it alone, its strength, and its place.

    The place is whether it comes before preprocessing.
    """
    from jdlopt.data import augment

    given = dict(fields.augment)
    possible = augment.fitting(augment.inputs_of(dataset.spec, fields.preprocess))
    wrong = [n for n in augment.AUGMENTATIONS if given.get(n) is not None and n not in possible]
    if wrong:
        raise ConfigError(
            f"data.augment.{wrong[0]}: does not fit {dataset.spec.input.dtype} inputs of shape "
            f"{dataset.spec.input.shape}. Those that fit: {listing(possible)}."
        )
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


def _unchanged(inputs: Array) -> Array:
    return inputs


def _unit(inputs: Array) -> Array:
    """Bytes as numbers from 0 to 1, as augmentations see them."""
    return inputs.astype(np.float32) / 255.0 if inputs.dtype == np.uint8 else inputs


def _change(base: np.ndarray, made: np.ndarray) -> float:
    if base.dtype.kind == "i":
        return float((base != made)[base != 0].mean()) if (base != 0).any() else 0.0
    return float(np.nanmean(np.abs(made.astype(np.float64) - base.astype(np.float64))))


def _labels(dataset: Dataset, targets: np.ndarray) -> tuple[str, ...]:
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
