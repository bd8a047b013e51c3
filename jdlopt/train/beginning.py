"""Where a run begins that starts from another run: its weights, read without its code."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from jdlopt import writing
from jdlopt.config import flat
from jdlopt.data import from_run
from jdlopt.data.spec import DataSpec
from jdlopt.errors import ConfigError, WorkdirError, listing
from jdlopt.models import lora, pruning
from jdlopt.models.kernel_inputs import is_range
from jdlopt.models.pretrained import Loaded, check_heads, flat_shapes, problems_in_words
from jdlopt.models.pretrained.architecture import Architecture, differing, run_of
from jdlopt.models.pretrained.own_runs import match
from jdlopt.train import checkpoint, checksums, log
from jdlopt.train.schema import Config

MEMBER = "member_0"
FAMILY = "a run of jdlopt"
SHAPING = ("data.image_size", "data.preprocess.", "data.text.", "data.sample_rate", "data.seconds")
"""Keys of ``data`` that decide which shape a model's inputs have."""


class Weights(NamedTuple):
    """A run's weights, by path.

    Attributes:
      params, state: parameters, and what the model keeps beside them.
      checkpoint: the folder that they are of.
      sha256: of the checkpoint.
      note: what was chosen among several, in words; empty if nothing.
    """

    params: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    checkpoint: Path
    sha256: str
    note: str


def read(place: str) -> Weights:
    """Returns what a run's best checkpoint predicts with, or else its newest one's parameters.

    Args:
      place: the run's directory, or one of its checkpoints.

    Raises:
      ConfigError: it has no checkpoint, or that is damaged.
    """
    folder = _checkpoint(writing.expanded(place))
    try:
        return _read(folder, checksums.fingerprint(folder))
    except (WorkdirError, OSError) as error:
        raise ConfigError(f"model.pretrained: {error}") from error


@lru_cache(maxsize=1)
def _read(folder: Path, digest: str) -> Weights:
    tree = checkpoint.read(folder)
    params, state, note = tree["params"], tree.get("model_state") or {}, ""
    if MEMBER in params:
        note = f"the first of an ensemble of {len(params)} models"
        params, state = params[MEMBER], state.get(MEMBER, {})
    return Weights(_flat(params), _flat(state), folder, digest, note)


def _checkpoint(place: Path) -> Path:
    if (place / checkpoint.TREE).is_dir():
        return place
    directory = place / log.CHECKPOINTS
    for kind in ("best", "step"):
        found = checkpoint.steps(directory, kind)
        if found:
            return checkpoint.place(directory, found[-1], kind)
    raise ConfigError(
        f"model.pretrained: the run in '{place}' has no checkpoint yet. Train it first: "
        f"`jdlopt train --workdir={place}`."
    )


def _flat(tree: PyTree) -> dict[str, np.ndarray]:
    return {"/".join(map(str, path)): np.asarray(leaf) for path, leaf in flatten_dict(tree).items()}


def load(
    config: Config,
    spec: DataSpec,
    shapes: tuple[PyTree, PyTree],
    head: Collection[str],
    found: Architecture,
) -> Loaded:
    """Returns a run's weights in the places of a model's, as ``model.pretrained`` asks for it.

    Args:
      config: of the run that begins.
      spec: of its data.
      shapes: of the model's parameters and state.
      head: the paths of what depends on the number of outputs: new, where these mean something
        else than they did.
      found: what the old run says of its model.

    Raises:
      ConfigError: the weights don't fit, with the keys to change.
    """
    section = config.to_dict()["model"]
    place = section["pretrained"]
    if found.name != section["name"] and ":" not in f"{found.name}{section['name']}":
        raise ConfigError(
            f"model.pretrained: the run in '{place}' is of a {found.name!r}; here model.name is "
            f"{section['name']!r}. Set model.name={found.name!r}."
        )
    weights, known = read(place), from_run.kept(str(run_of(writing.expanded(place))))
    assert known is not None
    params = {
        path: shape
        for path, shape in flat_shapes(shapes[0]).items()
        if not path.startswith(f"{pruning.SCORES}/")
    }
    masked, state = _masks(weights.state, flat_shapes(shapes[1]))
    there = _adapted(weights.params, known.config, section, params)
    same = from_run.same_targets(known, spec, config.data.target)
    # ranges of inputs that were never seen are learnt
    state = {p: s for p, s in state.items() if p in masked or not is_range(p)}
    made = match(there, params, head, same)
    beside = match(masked, state, head, same)
    if made.missing or made.misshapen or made.unused or beside.missing or beside.misshapen:
        raise ConfigError(_unfit(place, config, spec, known, found, made, beside))
    taken = {path for path in made.found if path not in head}
    if not taken and made.new:
        raise ConfigError(
            f"model.pretrained: nothing of the run in '{place}' can be taken: all that this model "
            f"has depends on its outputs, and these {_outputs(known.spec, spec)}."
        )
    unlike = differing(found, section)
    check_heads(unlike, found.file)
    record = {
        "file": str(place),
        "checkpoint": weights.checkpoint.name,
        "sha256": weights.sha256,
        "family": FAMILY,
        "tensors": len(made.found) + len(beside.found),
        "new": sorted(made.new + beside.new),
        "ignored": [],
        "why_new": _outputs(known.spec, spec) if set(made.new) & set(head) else "",
        "differing": {key: [here, old] for key, (here, old) in unlike.items()},
        "note": weights.note,
    }
    return Loaded(made.found, beside.found, record)


def _adapted(
    there: dict[str, np.ndarray],
    old: Mapping[str, Any],
    section: Mapping[str, Any],
    here: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """The run's parameters, its adapters added to its kernels unless they are trained further."""
    adapters = {path: array.shape for path, array in there.items() if path.startswith("adapters/")}
    own = {path: shape for path, shape in here.items() if path.startswith("adapters/")}
    before = old.get("model", {})
    if not adapters or (adapters == own and before.get("lora_alpha") == section["lora_alpha"]):
        return there
    tree = unflatten_dict({tuple(path.split("/")): array for path, array in there.items()})
    return _flat(lora.merged(tree, before.get("lora_alpha")))


def _masks(
    there: dict[str, np.ndarray], here: dict[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
    """A run's state and the places for it, of masks only those that both have; steps count anew."""
    own, counter = f"{pruning.STATE}/", f"{pruning.STATE}/step"

    def fits(path: str) -> bool:
        alike = path in there and there[path].shape == here.get(path)
        return not path.startswith(own) or (alike and path != counter)

    return (
        {path: array for path, array in there.items() if fits(path)},
        {path: shape for path, shape in here.items() if fits(path)},
    )


def _outputs(old: DataSpec, new: DataSpec) -> str:
    """Why a head is new, in words."""
    if old.task != new.task:
        return f"are for {new.task} here and for {old.task} there"
    counts = [
        f"{one.num_classes} classes" if one.num_classes else f"{math.prod(one.target_shape)} values"
        for one in (new, old)
    ]
    if counts[0] != counts[1]:
        return f"are {counts[0]} here and {counts[1]} there"
    kind = "classes" if new.num_classes else "targets"
    names = [listing(one.class_names or one.target_names, 3) for one in (new, old)]
    told = f" ({names[0]} here, {names[1]} there)" if all(names) else ""
    return f"are other {kind}{told}"


def _unfit(
    place: str,
    config: Config,
    spec: DataSpec,
    known: from_run.Kept,
    found: Architecture,
    made: Any,
    beside: Any,
) -> str:
    """What does not fit, and which keys to change."""
    text = problems_in_words(
        [*made.missing, *beside.missing],
        made.unused,
        [f"{path}: {here} here, {there} there"
         for path, (here, there) in {**made.misshapen, **beside.misshapen}.items()],
    )  # fmt: skip
    section = config.to_dict()["model"]
    hints = [
        f"model.{key} is {here!r} here and {there!r} there: set model.{key}={there!r}, or leave it "
        "out to take the run's."
        for key, (here, there) in differing(found, section).items()
    ]
    before = {name: one.shape for name, one in known.spec.named.items()}
    shapes = {name: one.shape for name, one in spec.named.items()}
    unlike = _unlike(known.config, config)
    if unlike and not hints:
        hints += [f"{key} is {here!r} here and {there!r} there." for key, here, there in unlike[:4]]
    if shapes != before:
        hints.append(f"The data's inputs have the shape {_shown(shapes)} here, "
                     f"{_shown(before)} there.")  # fmt: skip
    fits = len(made.found) + len(beside.found)
    return (
        f"model.pretrained: the run in '{place}' does not fit this model ({fits} of its arrays "
        f"do):\n{text}" + "".join(f"\n  {hint}" for hint in hints)
    )


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    if len(shapes) == 1:
        return str(next(iter(shapes.values())))
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def _unlike(old: Mapping[str, Any], config: Config) -> list[tuple[str, object, object]]:
    """The keys of ``data`` that shape a model's inputs and differ."""
    before, now = flat({"data": old["data"]}), flat({"data": config.to_dict()["data"]})
    return [
        (key, value, before[key])
        for key, value in now.items()
        if key.startswith(SHAPING) and key in before and before[key] != value
    ]
