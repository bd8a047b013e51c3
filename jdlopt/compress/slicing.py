"""Slicing: the channels of a model that count least are cut out of its arrays, for real.

Which axes are cut together is `jdlopt.compress.coupling`'s. The smaller model is an ordinary one,
whose widths are keys of its config. Channels are chosen by the norm of all their weights: Fang et
al., "DepGraph: towards any structural pruning", 2023; Li et al., "Pruning filters for efficient
ConvNets", 2017.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Bool, Float

from jdlopt.compress.channels import PARAMS, Axis, Couplings, Group, Unequal
from jdlopt.compress.coupling import couplings_of
from jdlopt.compress.plain import each_model, plain_model
from jdlopt.config import Value
from jdlopt.errors import ConfigError
from jdlopt.models.attention import stack_layers, unstack_layers
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights

MULTIPLE = 8
"""Kept widths are multiples of it, as vector units and int8 kernels want them."""
SCOPES = ("layer", "global")

Scores = Mapping[str, Float[np.ndarray, " channels"]]
"""What each channel of a group counts, by the group's name."""
Kept = Mapping[str, Bool[np.ndarray, " channels"]]
"""Which channels of a group are kept, by the group's name."""


class Sliced(NamedTuple):
    """A smaller model.

    Attributes:
      config: whose model it is.
      weights: its arrays.
      widths: of each group of channels, before and after.
    """

    config: Config
    weights: Weights
    widths: dict[str, tuple[int, int]]


def sliced(
    config: Config,
    weights: Weights,
    kept: float | Kept | None = None,
    *,
    scope: str = "layer",
    multiple: int = MULTIPLE,
    scores: Scores | None = None,
) -> Sliced:
    """Returns a model without the channels that count least.

    Args:
      config: resolved, of the model.
      weights: its arrays. Masks (``model.prune``) are applied and adapters (``model.lora_rank``)
        merged first, and their keys set to None.
      kept: the share of channels to keep, more than 0 and at most 1; or which, by the name of their
        group; or None: those that are not 0, as ``model.prune.structure='units'`` leaves them.
        Where the number of a layer is rounded up, more of it are kept: where those are 0, the
        outputs stay.
      scope: ``layer`` keeps the share in each layer; ``global`` compares channels of all layers, so
        that widths depend on the weights.
      multiple: what widths are rounded to; a layer keeps so many at least. Heads of attention are
        not rounded.
      scores: by the name of their group; `magnitudes` by default.

    Raises:
      ConfigError: the coupling of a layer's channels is not known, a layer is left without
        channels, or the share or scope is none.
    """
    if scope not in SCOPES:
        raise ConfigError(f"slicing: the scope {scope!r} is unknown; expected 'layer' or 'global'.")
    if isinstance(kept, float | int) and not 0.0 < kept <= 1.0:
        raise ConfigError(f"slicing: the share of channels to keep is in (0, 1], found {kept!r}.")
    config, weights = plain_model(config, weights)
    if config.model.low_rank.on:
        raise ConfigError(
            "slicing: channels of layers that are two products (model.low_rank) can't be cut: "
            "slice the whole model, then split what is left."
        )
    arrays = flat_weights(config, weights)
    known = couplings_of(
        config.model.name,
        config.model.options,
        {path: array.shape for path, array in arrays.items()},
        config.model.ensemble,
    )
    given = magnitudes(known, arrays) if scores is None else scores
    masks: Kept = {}
    if isinstance(kept, float | int):
        wanted = _shares(known, given, kept, scope)
    else:
        masks = _not_zero(known, arrays) if kept is None else kept
        wanted = _counted(known, masks)
    counts = _rounded(known, wanted, multiple, up=not isinstance(kept, float | int))
    chosen = {
        group.name: _best(given[group.name], counts[group.name], masks.get(group.name))
        for group in known.groups
    }
    widths = {group.name: (group.width, counts[group.name]) for group in known.groups}
    cut = _cut(known, arrays, chosen)
    return Sliced(_smaller(config, known, counts), nested_weights(config, weights, cut), widths)


def flat_weights(config: Config, weights: Weights) -> dict[str, np.ndarray]:
    """Returns a model's arrays by path: parameters under ``params/``, then its state.

    Layers that are scanned are unrolled.
    """
    params = each_model(config, weights.params, unstack_layers)
    trees = {PARAMS: params, **weights.model_state}
    flat = flatten_dict(jax.tree.map(np.asarray, trees))
    return {"/".join(map(str, path)): leaf for path, leaf in flat.items()}


def nested_weights(config: Config, weights: Weights, arrays: Mapping[str, np.ndarray]) -> Weights:
    """Returns weights whose arrays are those of `flat_weights`, changed; undoes it."""
    tree = unflatten_dict({tuple(path.split("/")): array for path, array in arrays.items()})
    params = tree.pop(PARAMS, {})
    if config.model.options.get("scan_layers"):
        params = each_model(config, params, stack_layers)
    tree = jax.tree.map(jax.numpy.asarray, (params, tree))
    # collections without arrays have no path
    state = {key: tree[1].get(key, {}) for key in weights.model_state}
    return dataclasses.replace(weights, params=tree[0], model_state=state)


# --- which channels ---------------------------------------------------------------------------


def magnitudes(known: Couplings, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns how much each channel counts: the norm of its weights wherever they are.

    ``s_c = sqrt(mean over kernels of |W_c|² / mean_c |W_c|²)``: every kernel of a group counts
    alike, and so does every group.

    Args:
      known: the groups.
      arrays: by path.
    """
    found = {}
    for group in known.groups:
        parts = []
        for axis in group.axes:
            array = arrays[axis.path]
            if array.ndim < 2:
                continue  # a bias or a norm's numbers are no weights of the channel
            squares = _squares(group, axis, array)
            mean = squares.mean()
            if mean > 0:
                parts.append(squares / mean)
        found[group.name] = np.sqrt(np.mean(parts, axis=0)) if parts else np.ones(group.width)
    return found


def _squares(group: Group, axis: Axis, array: np.ndarray) -> np.ndarray:
    """The sum of squares of each channel's part of an array."""
    size = axis.outer * group.width * axis.inner
    rows = np.moveaxis(array.astype(np.float64) ** 2, axis.axis, 0)
    rows = rows.reshape(len(rows), -1).sum(axis=1)[axis.start : axis.start + size]
    return rows.reshape(axis.outer, group.width, axis.inner).sum(axis=(0, 2))


def _not_zero(known: Couplings, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which channels some layer makes: of the others all that makes them is 0."""
    found = {}
    for group in known.groups:
        made = [
            _squares(group, axis, arrays[axis.path]) > 0
            for axis in group.axes
            if axis.path.startswith(f"{PARAMS}/") and not axis.reads
        ]
        found[group.name] = np.any(made, axis=0)
    return found


def _counted(known: Couplings, kept: Kept) -> dict[str, float]:
    """How many channels of each group masks keep; those of a group without a mask all."""
    names = {group.name for group in known.groups}
    unknown = sorted(set(kept) - names)
    if unknown:
        raise ConfigError(
            f"slicing: {unknown[0]!r} makes no channels that can be cut. There are "
            f"{', '.join(sorted(names))}."
        )
    found = {}
    for group in known.groups:
        mask = np.asarray(kept.get(group.name, np.ones(group.width)), bool)
        if mask.shape != (group.width,):
            raise ConfigError(
                f"slicing: {group.name!r} has {group.width} channels; its mask has the shape "
                f"{mask.shape}."
            )
        if not mask.any():
            raise ConfigError(
                f"slicing: the layer {group.name!r} is left without channels. Keep at least one of "
                f"its {group.width}."
            )
        found[group.name] = float(mask.sum())
    return found


def _shares(known: Couplings, scores: Scores, share: float, scope: str) -> dict[str, float]:
    """How many channels of each group a share comes to."""
    if scope == "layer":
        return {group.name: share * group.width for group in known.groups}
    together = np.concatenate([scores[group.name] for group in known.groups] or [np.zeros(0)])
    if not len(together):
        return {}
    count = max(1, round(share * len(together)))
    least = np.sort(together)[::-1][count - 1]
    return {group.name: float((scores[group.name] >= least).sum()) for group in known.groups}


def _rounded(
    known: Couplings, wanted: Mapping[str, float], multiple: int, up: bool
) -> dict[str, int]:
    """How many channels of each group are kept: groups that share a width keep equally many.

    Args:
      known: the groups.
      wanted: of each group.
      multiple: what counts are rounded to.
      up: whether none that is wanted may be lost.
    """
    counts: dict[str, int] = {}
    ties = _tied(known.groups)
    for tied in ties:
        step = _step(tied, multiple)
        each = [wanted[group.name] for group in tied]
        mean = math.ceil(max(each) / step) if up else math.floor(sum(each) / len(each) / step + 0.5)
        for group in tied:
            counts[group.name] = min(group.width, max(1, mean) * step)
    for pair in known.unequal:
        if counts[pair.group.name] == _count(pair.other, counts):
            _make_differ(known, counts, ties, pair, multiple)
    return counts


def _tied(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups by the widths of the config that they share."""
    ties: list[list[Group]] = []
    for group in groups:
        slots = set(group.slots)
        same = [tied for tied in ties if any(slots & set(other.slots) for other in tied)]
        ties = [tied for tied in ties if tied not in same]
        ties.append([one for tied in same for one in tied] + [group])
    return ties


def _step(tied: Sequence[Group], multiple: int) -> int:
    """What the number of channels of groups that share a width is a multiple of."""
    per = [slot.per for group in tied for slot in group.slots]
    return math.lcm(1 if tied[0].whole else multiple, *per)


def _count(group: Group | int, counts: Mapping[str, int]) -> int:
    return group if isinstance(group, int) else counts[group.name]


def _make_differ(
    known: Couplings,
    counts: dict[str, int],
    ties: Sequence[Sequence[Group]],
    pair: Unequal,
    multiple: int,
) -> None:
    """Keeps some more channels of one of two groups that must differ, or some fewer."""
    movable = [one for one in pair if not isinstance(one, int)]
    for sign in (1, -1):
        for group in movable:
            tied = next(one for one in ties if group in one)
            count = counts[group.name] + sign * _step(tied, multiple)
            if not 0 < count <= group.width:
                continue
            tried = {**counts, **{one.name: count for one in tied}}
            if all(tried[a.name] != _count(b, tried) for a, b in known.unequal if a in tied):
                counts.update(tried)
                return
    raise ConfigError(
        f"slicing: {pair.group.name!r} would be {counts[pair.group.name]} wide, as wide as what it "
        "reads, which makes it another block. Keep more channels."
    )


def _best(
    scores: Float[np.ndarray, " channels"], count: int, mask: Bool[np.ndarray, " channels"] | None
) -> np.ndarray:
    """The channels that count most, those that a mask keeps before others, in their order."""
    cut = np.zeros(len(scores), bool) if mask is None else ~np.asarray(mask, bool)
    return np.sort(np.lexsort((-scores, cut))[:count])


# --- the smaller model ------------------------------------------------------------------------


def _cut(
    known: Couplings, arrays: Mapping[str, np.ndarray], chosen: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The arrays without the places of the channels that are not chosen."""
    masks: dict[tuple[str, int], np.ndarray] = {}
    shared = set()
    for group in known.groups:
        gone = np.setdiff1d(np.arange(group.width), chosen[group.name])
        for axis in group.axes:
            length = arrays[axis.path].shape[axis.axis]
            mask = masks.setdefault((axis.path, axis.axis), np.ones(length, bool))
            mask[axis.places(group.width, gone)] = False
            if axis.shared:
                shared.add((axis.path, axis.axis))
    cut = dict(arrays)
    for (path, place), mask in masks.items():
        cut[path] = np.compress(mask, cut[path], place)
        if (path, place) in shared:
            # x·W / √inputs: fewer inputs are divided by less
            cut[path] = (cut[path] * mask.mean() ** 0.5).astype(cut[path].dtype)
    return cut


def _smaller(config: Config, known: Couplings, counts: Mapping[str, int]) -> Config:
    """The config whose model has so many channels."""
    if all(counts[group.name] == group.width for group in known.groups):
        return config
    keys: dict[str, Value] = {}
    for key, value in known.keys.items():
        widths = list(value) if isinstance(value, tuple) else [value]
        for group in known.groups:
            for slot in group.slots:
                if slot.key == key:
                    widths[slot.place or 0] = counts[group.name] // slot.per
        keys[key] = tuple(widths) if isinstance(value, tuple) else widths[0]
    options = {**config.model.options, **keys}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, options=options))
