"""Some training examples, raw, preprocessed and augmented in each way, to be drawn side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from jdlopt.errors import ConfigError, listing

MEASURED = 256
"""Examples over which the mean change is taken, or fewer where they are large."""
VALUES = 1 << 24
SHOWN = {
    "crop": 0.15, "resized_crop": 0.5, "flip": 0.5, "flip_vertical": 0.5, "rotate": 15.0,
    "shift": 0.1, "zoom": 0.2, "shear": 15.0, "hue": 0.1, "posterize": 4.0, "blur": 1.0,
    "noise": 0.1, "cutout": 0.4, "rand_augment": 0.3, "trivial_augment": 1.0, "gain": 6.0,
    "audio_shift": 0.2, "speed": 0.1, "background_noise": 0.1, "jitter": 0.1, "scaling": 0.1,
    "time_shift": 0.2, "time_warp": 0.2, "mixup": 0.4, "cutmix": 1.0,
}  # fmt: skip
"""The strength at which an augmentation is shown that the config does not use."""
DEFAULT = 0.3


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


def take(section: Mapping[str, Any], *, everything: bool = False, seed: int = 0) -> Samples:
    """Returns training examples of a resolved ``data`` section, seen in every way it has.

    What changes pixels, waveforms or tokens is shown before preprocessing; what changes features or
    mixes examples, after it.

    Args:
      section: the resolved ``data`` section.
      everything: show every augmentation that fits, those of the config at its strengths.
      seed: of the augmentations' draws.

    Raises:
      DataError: the dataset can't be opened or used as the section says.
      ConfigError: an augmentation does not fit the data.
    """
    import jax

    from jdlopt.data import augment, preprocess
    from jdlopt.train import parts

    dataset = parts.open_clean(section)
    recipe, state = parts.fitted(section, dataset)
    raw, targets = _examples(dataset)

    def prepare(inputs: Any) -> Any:
        return preprocess.apply(recipe, state, inputs)

    prepared = np.asarray(jax.jit(prepare)(raw))
    unit = np.asarray(jax.jit(_unit)(raw))
    columns = [Column("raw", raw, "raw"), Column("preprocessed", prepared, "model")]
    before = {*augment.BEFORE, "alternating_flip"}
    for name, options, strength in _chosen(section, dataset, everything):
        change = augment.make_augment(
            options,
            size=dataset.sizes["train"],
            batch_size=len(raw),
            num_outputs=dataset.num_classes or 1,
            classes=dataset.num_classes,
            vocabulary=None if dataset.text is None else dataset.text.vocabulary(),
        )
        is_raw = name in before
        stage = _unchanged if is_raw else prepare
        given = {} if strength is None else {_key(name): np.float32(strength)}
        batch = {"inputs": raw, "targets": targets, "step": np.int32(0)}

        def run(key: Any, batch: Any, given: Any, change: Any = change, stage: Any = stage) -> Any:
            return change(key, batch, given, stage)["inputs"]

        made = np.asarray(jax.jit(run)(jax.random.key(seed), batch, given))
        base = unit if is_raw else prepared
        shown = name if strength is None else f"{name} {strength:g}"
        column = Column(shown, made, "raw" if is_raw else "model", _change(base, made), strength)
        columns.append(column)
    kind = recipe.kind
    tokens = () if dataset.text is None else tuple(dataset.text.state.tokens)
    names = tuple(str(name) for name in dataset.feature_names or ())
    return Samples(tuple(columns), _labels(dataset, targets), kind, tokens, names)


def _examples(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    pool, indices = dataset.parts["train"]
    rows = np.arange(len(dataset.pools[pool])) if indices is None else indices
    count = max(8, min(MEASURED, VALUES // math.prod(dataset.input_shape)))
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))
    # those that are drawn are the first: let them be from the whole split
    places = places[np.argsort(np.random.default_rng(0).random(len(places)), kind="stable")]
    inputs, targets = dataset.pools[pool].read(rows[places])
    return np.asarray(inputs), np.asarray(targets)


def _chosen(
    section: Mapping[str, Any], dataset: Any, everything: bool
) -> list[tuple[str, dict[str, Any], float | None]]:
    """Returns each augmentation's name, the section with it alone, and its strength."""
    from jdlopt.data import augment

    given = dict(section["augment"])
    audio = section["preprocess"].get("audio", "none")
    possible = augment.fitting(
        dataset.input_shape,
        dataset.input_dtype,
        is_sound=dataset.sample_rate is not None,
        features=audio,
    )
    wrong = [n for n in augment.AUGMENTATIONS if given.get(n) is not None and n not in possible]
    if wrong:
        raise ConfigError(
            f"data.augment.{wrong[0]}: does not fit {dataset.input_dtype} inputs of shape "
            f"{dataset.input_shape}. Those that fit: {listing(possible)}."
        )
    own = {"alternating_flip": False, "own": None, "own_strength": None}
    alone = {**given, **dict.fromkeys(augment.AUGMENTATIONS), **own}
    found: list[tuple[str, dict[str, Any], float | None]] = []
    for name, part in possible.items():
        strength = given.get(name)
        if strength is None and everything and (name != "synonyms" or given["synonyms_file"]):
            strength = min(SHOWN.get(name, DEFAULT), part.high or math.inf)
        if strength is not None:
            found.append((name, {**alone, name: strength}, float(strength)))
    if given.get("alternating_flip"):
        found.append(("alternating_flip", {**alone, "alternating_flip": True}, None))
    if given.get("own") is not None:
        kept = {"own": given["own"], "own_strength": given["own_strength"]}
        found.append(("own", {**alone, **kept}, given["own_strength"]))
    return found


def _key(name: str) -> str:
    return "own_strength" if name == "own" else name


def _unchanged(inputs: Any) -> Any:
    return inputs


def _unit(inputs: Any) -> Any:
    """Bytes as numbers from 0 to 1, as augmentations see them."""
    return inputs.astype(np.float32) / 255.0 if inputs.dtype == np.uint8 else inputs


def _change(base: np.ndarray, made: np.ndarray) -> float:
    if base.dtype.kind == "i":
        return float((base != made)[base != 0].mean()) if (base != 0).any() else 0.0
    return float(np.nanmean(np.abs(made.astype(np.float64) - base.astype(np.float64))))


def _labels(dataset: Any, targets: np.ndarray) -> tuple[str, ...]:
    if dataset.num_classes:
        return tuple(str(dataset.class_names[int(target)]) for target in targets)
    return tuple(f"{float(target):.4g}" for target in targets)
