"""Units of layers: channels, heads and the units of a recurrence, over all that holds them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jdlopt.errors import ConfigError

Path = tuple[object, ...]
"""Where a parameter lies."""
Shapes = Mapping[Path, Sequence[int]]
HEAD = re.compile(r"(^|/)(outputs|wide|head)/kernel$")
"""The kernels that make the outputs."""
ADDED_TO = re.compile(
    r"(^|/)(stem|shortcut|out|down|project|patches|inputs|numbers|\w*halving)/kernel$"
)
"""Kernels whose outputs are added to others': a unit of theirs alone can't be taken out."""
BLOCK = re.compile(r"block_\d+$")
NUMBERED = re.compile(r"(?:conv|dense)_(\d+)$")


def name_of(path: Path) -> str:
    """Returns a path as patterns see it: its keys joined by ``/``."""
    return "/".join(map(str, path))


class Columns(NamedTuple):
    """How a parameter's last axis holds units: as ``gates`` times ``units`` times ``width``."""

    gates: int = 1
    width: int = 1


class Unit(NamedTuple):
    """Parameters whose last axis has the same units: channels, heads, or units of a recurrence.

    Attributes:
      kernels: they are scored by; ``vectors``: biases, and scales of norms, that go with them.
      size: how many units.
      stacked: whether each has a leading axis of layers.
    """

    kernels: dict[Path, Columns]
    vectors: dict[Path, Columns]
    size: int
    stacked: bool = False

    def scores(self, scores: Mapping[Path, Float[Array, "..."]]) -> Float[Array, "*layers units"]:
        """Returns the sum of the scores of each unit's weights, for each column that it has."""
        total, columns = jnp.zeros(()), 0
        for path, (gates, width) in self.kernels.items():
            one = scores[path]
            layers = one.shape[: int(self.stacked)]
            total = total + one.reshape(*layers, -1, gates, self.size, width).sum(axis=(-4, -3, -1))
            columns += gates * width
        return total / columns

    def of_mask(self, masks: Mapping[Path, Bool[Array, "..."]]) -> Bool[Array, "*layers units"]:
        """Returns which units stay, from what `masks` made of them."""
        path, (gates, width) = next(iter(self.kernels.items()))
        layers = masks[path].shape[: int(self.stacked)]
        return masks[path].reshape(*layers, gates, self.size, width)[..., 0, :, 0]

    def masks(
        self, kept: Bool[Array, "*layers units"], ranks: Mapping[Path, int]
    ) -> dict[Path, Bool[Array, "..."]]:
        """Returns which columns of each parameter stay, as arrays that broadcast to its shape."""
        made = {}
        for path, (gates, width) in {**self.kernels, **self.vectors}.items():
            layers = kept.shape[:-1]
            wide = jnp.broadcast_to(kept[..., None, :, None], (*layers, gates, self.size, width))
            ones = (1,) * (ranks[path] - len(layers) - 1)
            made[path] = wide.reshape(*layers, *ones, -1)
        return made


def alone(path: Path, paths: Collection[Path]) -> bool:
    """Returns whether the units of a kernel can be taken out without those of another kernel.

    Args:
      path: the kernel's.
      paths: of all parameters.
    """
    if ADDED_TO.search(name_of(path)) or HEAD.search(name_of(path)):
        return False
    block, layer = path[:-2], str(path[-2])
    if layer == "depthwise":
        return (*block, "expand", "kernel") in paths
    if not (block and BLOCK.search(str(block[-1])) and NUMBERED.match(layer)):
        return True
    later = [str(one[-2]) for one in paths if one[:-2] == block and NUMBERED.match(str(one[-2]))]
    return layer != max(later, key=lambda one: int(one.rpartition("_")[2]))


def units_of(
    shapes: Shapes,
    chosen: Collection[Path],
    *,
    heads: int | None,
    stacked: re.Pattern[str],
) -> dict[str, Unit]:
    """Returns the units of the chosen kernels, by the name of their layer.

    Query, key and value share heads; the gates of a recurrence, and its two kernels, share units; a
    depthwise convolution shares channels with what widens its inputs.

    Args:
      shapes: of all parameters.
      chosen: the kernels.
      heads: of attention, if it is known.
      stacked: finds the parameters that have a leading axis of layers.

    Raises:
      ConfigError: a layer's heads are unknown.
    """
    found: dict[str, Unit] = {}
    for path in chosen:
        parent, layer = path[:-1], str(path[-2]) if len(path) > 1 else ""
        is_stacked = bool(stacked.search(name_of(path)))
        out = shapes[path][-1]
        if layer in ("query", "key", "value"):
            if heads is None:
                raise ConfigError(
                    f"model.prune.structure: 'units' of {name_of(path)!r} are heads, and how many "
                    "is not known. Leave it out by model.prune.patterns."
                )
            parent, count, columns = path[:-2], heads, Columns(1, out // heads)
            names = [
                (*parent, one, "kernel") for one in ("query", "key", "value")
                if (*parent, one, "kernel") in chosen
            ]  # fmt: skip
            kernels = dict.fromkeys(names, columns)
            vectors = {(*one[:-1], "bias"): columns for one in names}
        elif (*parent, "recurrent_kernel") in shapes:
            count = shapes[(*parent, "recurrent_kernel")][-2]
            columns = Columns(out // count)
            kernels = dict.fromkeys([(*parent, "kernel"), (*parent, "recurrent_kernel")], columns)
            vectors = {(*parent, "bias"): columns, (*parent, "recurrent_bias"): Columns()}
        elif layer in ("depthwise", "expand") and _widened(path, shapes):
            parent, count = path[:-2], out
            names = [(*parent, one, "kernel") for one in ("expand", "depthwise")]
            kernels = dict.fromkeys(names, Columns())
            vectors = {one: Columns() for name in names for one in _vectors(name)}
        else:
            count, kernels = out, {path: Columns()}
            vectors = dict.fromkeys(_vectors(path), Columns())
        fitting = {
            one: columns
            for one, columns in vectors.items()
            if one in shapes and shapes[one][-1] == columns.gates * count * columns.width
        }
        found[name_of(parent)] = Unit(kernels, fitting, count, is_stacked)
    return found


def _widened(path: Path, shapes: Shapes) -> bool:
    """Whether a block has a depthwise convolution right behind what widens its inputs."""
    both = [shapes.get((*path[:-2], one, "kernel")) for one in ("expand", "depthwise")]
    return both[0] is not None and both[1] is not None and both[0][-1] == both[1][-1]


def _vectors(path: Path) -> list[Path]:
    """Where the bias and the norm of a kernel's outputs may lie."""
    parent, layer = path[:-2], str(path[-2]) if len(path) > 1 else ""
    numbered = NUMBERED.match(layer)
    norm = f"norm_{numbered[1]}" if numbered else f"{layer}_norm"
    places = [(*parent, norm, "norm"), (*parent, norm)]
    return [(*path[:-1], "bias"), *((*place, one) for place in places for one in ("scale", "bias"))]
