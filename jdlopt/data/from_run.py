"""What a run learnt of its data, kept for other data: categories, vocabulary, what is scaled how.

Weights that a run learnt mean what they do only behind its own coding. Its directory is data: two
JSON files are read, and nothing is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import writing
from jdlopt.data import preprocess
from jdlopt.data.named import by_name
from jdlopt.data.notes import Note, Notes
from jdlopt.data.preprocess import target
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.errors import ConfigError, DataError

CONFIG, INPUTS = "config.json", "inputs.json"
HOLDING_RUNS = ("trials", "runs", ".")
"""Where directories that hold several runs have them."""
TRAIN = "train"
"""What ``data.fit_on`` says where nothing is kept."""


class Kept(NamedTuple):
    """What a run knew of its data.

    Attributes:
      place: its directory.
      spec: of its data.
      learnt: what its preprocessing learnt.
      config: its ``config.json``.
    """

    place: Path
    spec: DataSpec
    learnt: preprocess.State
    config: Mapping[str, Any]

    def input(self, name: str) -> InputSpec | None:
        """Returns what is known of an input: the one of its name, or the only one."""
        if isinstance(self.spec.inputs, InputSpec):
            return self.spec.inputs
        return self.spec.inputs.get(name)

    def recipe(self, of: preprocess.PreprocessFields) -> preprocess.Recipes | None:
        """Returns what its preprocessing did, with the keys that don't concern inputs as given."""
        section = self.config.get("data", {}).get("preprocess", {})
        fields = preprocess.as_fields({**_tuples(section), "target_scale": of.target_scale})
        try:
            return preprocess.make_recipes(fields, self.spec.inputs)
        except ConfigError:
            return None


def _tuples(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in section.items()}


def is_run(place: Path) -> bool:
    """Says whether a folder is a run's directory."""
    return (place / INPUTS).is_file() and (place / CONFIG).is_file()


def first_run_in(place: Path) -> Path | None:
    """Returns the first run that lies in a study's directory, an improvement's, or any folder."""
    for folder in HOLDING_RUNS:
        found = sorted((place / folder).glob(f"*/{INPUTS}"))
        if found:
            return found[0].parent
    return None


def kept(fit_on: str) -> Kept | None:
    """Returns what the run that ``data.fit_on`` names knew of its data; None for ``train``.

    Raises:
      ConfigError: it is no run's directory, or its records are damaged.
    """
    if fit_on == TRAIN:
        return None
    place = writing.expanded(fit_on)
    if not is_run(place):
        raise ConfigError(
            f"data.fit_on: {fit_on!r} is no run's directory: it lacks {INPUTS}. Name the directory "
            f"of a run, or {TRAIN!r}, which learns all from the training split."
        )
    stamp = tuple((place / name).stat().st_mtime_ns for name in (CONFIG, INPUTS))
    return _read(place, stamp)


@lru_cache(maxsize=2)
def _read(place: Path, stamp: tuple[int, ...]) -> Kept:
    try:
        record = json.loads((place / INPUTS).read_text(encoding="utf-8"))
        config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        spec = DataSpec.from_dict(record["dataset"])
        learnt = preprocess.from_dict(record["preprocess"])
        if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
            raise ValueError(f"{CONFIG} has no data section")
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError
    ) as error:  # fmt: skip
        raise ConfigError(
            f"data.fit_on: what the run in {place} knew of its data can't be read: {error}. With "
            f"data.fit_on={TRAIN!r} all is learnt from the training split."
        ) from error
    return Kept(place, spec, learnt, config)


def same_targets(known: Kept, spec: DataSpec, column: object) -> bool:
    """Says whether a run predicted what these data ask for: its outputs mean the same.

    Args:
      known: the run.
      spec: of the data.
      column: ``data.target``.
    """
    before = known.config["data"].get("target")
    before = tuple(before) if isinstance(before, list) else before
    old = known.spec
    alike = (old.task, old.class_names, old.target_names, old.target_shape) == (
        spec.task, spec.class_names, spec.target_names, spec.target_shape,
    )  # fmt: skip
    return alike and (bool(spec.class_names) or before == column)


def differences(known: InputSpec, one: InputSpec) -> list[str]:
    """Returns in words how an input differs from a run's, as far as its coding goes."""
    if known.text is not None or one.text is not None:
        same = None not in (known.text, one.text) and _words(known) == _words(one)
        return [] if same else ["the vocabulary is another"]
    found = []
    if known.shape != one.shape or known.dtype != one.dtype:
        found.append(f"{one.dtype} of shape {one.shape} here, {known.dtype} {known.shape} there")
    if known.feature_names != one.feature_names:
        here, there = set(one.feature_names or ()), set(known.feature_names or ())
        new, gone = sorted(here - there), sorted(there - here)
        told = [f"columns {', '.join(map(repr, new[:3]))} are new"] if new else []
        told += [f"columns {', '.join(map(repr, gone[:3]))} are not there"] if gone else []
        found += told or ["the columns have another order"]
    elif known.categories != one.categories:
        names = [n for n, texts in one.categories.items() if known.categories.get(n) != texts]
        found.append(f"the categories of {', '.join(map(repr, names[:3]))} are others")
    if known.offsets != one.offsets:
        found.append("constants taken off are others")
    if known.sample_rate != one.sample_rate:
        found.append(f"{one.sample_rate} samples a second here, {known.sample_rate} there")
    return found


def _words(one: InputSpec) -> object:
    assert one.text is not None
    return one.text.state.tokenizer


class State(NamedTuple):
    """What of a run's preprocessing is kept for other data.

    Attributes:
      inputs: what it learnt of each input that is coded and scaled as the run's was, by name.
      target: what it learnt of the targets; empty where they mean something else.
      notes: what is kept, and why the rest isn't.
    """

    inputs: Mapping[str, preprocess.State]
    target: preprocess.State
    notes: tuple[Note, ...] = ()


def state_for(known: Kept, recipe: preprocess.Recipes, spec: DataSpec, column: object) -> State:
    """Returns what of a run's preprocessing can be kept for other data.

    Args:
      known: the run.
      recipe: what is done to the data.
      spec: of the data.
      column: ``data.target``.
    """
    recipes = by_name(recipe)
    fields = next(iter(recipes.values())).fields
    before = by_name(known.recipe(fields) or {})
    several = isinstance(known.spec.inputs, Mapping), isinstance(spec.inputs, Mapping)
    inputs: dict[str, preprocess.State] = {}
    notes = Notes()
    for name, one in spec.named.items():
        old = known.input(name) if several[0] == several[1] else None
        if old is None:
            reasons = [f"the run has no input {name!r} beside others"]
        else:
            reasons = differences(old, one) or _unlike(recipes[name], before.get(name))
        learnt = known.learnt.get(name, {}) if several[0] else _without_target(known.learnt)
        coded = old is not None and bool(old.categories or old.text or old.offsets)
        place = name if several[1] else ""
        if reasons:
            if learnt or coded or preprocess.is_fitted(recipes[name]):
                what = f"learnt anew, not kept from the run in {known.place}: {'; '.join(reasons)}"
                notes.add("changed", what, place, unit="inputs")
            continue
        inputs[name] = learnt
        if learnt or coded:
            what = f"what the run in {known.place} learnt of its data: {_kinds(learnt, one)}"
            notes.add("kept", what, place, unit="inputs", remedy=ANEW)
    scaled = known.config["data"].get("preprocess", {}).get("target_scale")
    same = same_targets(known, spec, column) and scaled == fields.target_scale
    kept_target = {key: v for key, v in known.learnt.items() if same and key == target.TARGET}
    return State(inputs, kept_target, tuple(notes))


ANEW = f"data.fit_on={TRAIN!r} learns it from the training split."


def _without_target(learnt: preprocess.State) -> preprocess.State:
    return {key: value for key, value in learnt.items() if key != target.TARGET}


def _kinds(learnt: preprocess.State, one: InputSpec) -> str:
    """What is kept, in words."""
    words = {
        "scale": "scaling", "missing": "fills of missing values", "outliers": "bounds of outliers",
        "pca": "principal components",
    }  # fmt: skip
    found = [words.get(name, name) for name in learnt]
    found += ["categories"] if one.categories else []
    found += ["vocabulary"] if one.text is not None else []
    found += ["constants taken off"] if one.offsets else []
    return ", ".join(found)


def _unlike(here: preprocess.Recipe, there: preprocess.Recipe | None) -> list[str]:
    """The keys of ``data.preprocess`` that differ, in words."""
    if here == there:
        return []
    if there is None:
        return ["its data.preprocess can't be read"]
    keys = [
        f"data.preprocess.{key} is {value!r} here, {getattr(there.fields, key)!r} there"
        for key, value in vars(here.fields).items()
        if getattr(there.fields, key) != value
    ]
    return keys[:3] or ["its inputs are coded otherwise"]
