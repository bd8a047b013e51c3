"""Groups of channels: the axes of arrays that are cut together, and the config keys of widths.

A `Couplings` collects what a family of models says of itself, layer by layer. A model with a layer
that it was told nothing of is refused: a cut would change what that layer computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jdlopt.errors import ConfigError, listing

PARAMS = "params"


class Slot(NamedTuple):
    """Where a config holds a width.

    Attributes:
      key: of the ``model`` section.
      place: in the key's tuple; None where it is one number.
      per: how many channels one of the key's number is, as of a bottleneck's output.
    """

    key: str
    place: int | None = None
    per: int = 1


class Axis(NamedTuple):
    """An axis of an array along which a group's channels lie.

    Channel c has the places ``start + (o · width + c) · inner + i``, for each o of ``outer`` and
    each i of ``inner``.

    Attributes:
      path: of the array: its collection, then the names of modules, then its own.
      axis: counted from the last one, which is -1.
      outer: how often all channels stand there, as in the gates of a recurrent kernel, or for each
        position of a flattened map.
      inner: how many places in a row each channel has, as a head of attention.
      start: where the first one is, behind what other groups have there.
      reads: whether a layer reads the channels here; else it makes or scales them.
      shared: whether the layer divides what it reads by the root of the axis' length.
    """

    path: str
    axis: int
    outer: int = 1
    inner: int = 1
    start: int = 0
    reads: bool = False
    shared: bool = False

    def places(self, width: int, channels: np.ndarray) -> np.ndarray:
        """Returns the places on the axis of some of a group's channels.

        Args:
          width: of the group.
          channels: their numbers.

        Example:
          >>> Axis("params/gru/kernel", -1, outer=3).places(4, np.array([1])).tolist()
          [1, 5, 9]
          >>> Axis("params/query/kernel", -1, inner=2).places(4, np.array([1, 3])).tolist()
          [2, 3, 6, 7]
        """
        outer = np.arange(self.outer)[:, None, None] * width
        rows = (outer + np.sort(channels)[:, None]) * self.inner
        return self.start + (rows + np.arange(self.inner)).ravel()


@dataclass(eq=False)
class Group:
    """Channels that are kept or cut together wherever they are.

    Attributes:
      name: the path of the layer that makes them.
      width: how many there are.
      slots: where the config holds their number.
      axes: where they lie.
      whole: whether the width may be any number: heads of attention are few and each of them wide.
    """

    name: str
    width: int
    slots: list[Slot] = field(default_factory=list)
    axes: list[Axis] = field(default_factory=list)
    whole: bool = False


class Unequal(NamedTuple):
    """Two widths that must differ, since a model whose widths are equal there is another one.

    Attributes:
      group: one of them.
      other: the other group, or a width that can't change.
    """

    group: Group
    other: Group | int


class Couplings:
    """What is known of a model's channels; filled in by its family, layer by layer.

    Attributes:
      shapes: of all arrays, by path.
      groups: of channels.
      unequal: widths that must differ.
      keys: the keys of the ``model`` section that hold widths, with their present values.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.shapes = shapes
        self.groups: list[Group] = []
        self.unequal: list[Unequal] = []
        self.keys: dict[str, int | tuple[int, ...]] = {}
        self._known: set[str] = set()
        self._params, self._state = f"{PARAMS}/", ""

    def within(self, params: str, state: str) -> Couplings:
        """Goes on with layers under another path of the parameters, and of the state."""
        self._params, self._state = f"{PARAMS}/{params}", state
        return self

    # --- what a family says ----------------------------------------------------------------------

    def widths(self, **keys: int | tuple[int, ...]) -> None:
        """Notes what keys of widths come to now, whether the config says it or leaves it out."""
        self.keys |= keys

    def group(self, name: str, width: int, *slots: Slot, whole: bool = False) -> Group:
        """Returns a new group of channels."""
        path = f"{self._params}{name}".removeprefix(f"{PARAMS}/")
        made = Group(path, width, list(slots), whole=whole)
        self.groups.append(made)
        return made

    def shape(self, layer: str, name: str = "kernel") -> tuple[int, ...] | None:
        """Returns the shape of a layer's parameter, or None if it has none."""
        return self.shapes.get(f"{self._params}{layer}/{name}")

    def modules(self) -> set[str]:
        """Returns the names of the modules that have parameters."""
        start = self._params
        return {path[len(start) :].split("/")[0] for path in self.shapes if path.startswith(start)}

    def makes(self, layer: str, group: Group | None, outer: int = 1, inner: int = 1) -> None:
        """A dense layer or convolution makes the channels: the last axis of kernel and bias."""
        for name in ("kernel", "bias"):
            self._add(layer, name, group, -1, outer=outer, inner=inner)

    def reads(
        self,
        layer: str,
        group: Group | None,
        inner: int = 1,
        start: int = 0,
        span: int | None = None,
        shared: bool = False,
    ) -> None:
        """A dense layer or convolution reads the channels: the last axis but one of its kernel.

        Args:
          layer: its path.
          group: what it reads; None: what can't be cut.
          inner: places of each channel.
          start: where the channels begin, behind others.
          span: over how many places they repeat, as a flattened map does; None: all of the axis.
          shared: as in `Axis`.
        """
        shape, outer = self.shape(layer), 1
        if shape is not None and group is not None:
            length = shape[-2] - start if span is None else span
            outer = max(1, length // (group.width * inner))
        self._add(
            layer, "kernel", group, -2, outer=outer, inner=inner, start=start, reads=True,
            shared=shared,
        )  # fmt: skip

    def scales(self, layer: str, group: Group | None, name: str = "scale") -> None:
        """A layer has a number for each channel, on the last axis of a parameter."""
        self._add(layer, name, group, -1)

    def norm(self, layer: str, group: Group | None) -> None:
        """Batch norm: scale, bias and running statistics; none if the model has none there."""
        for name in ("scale", "bias"):
            self._add(f"{layer}/norm", name, group, -1)
        for name in ("mean", "var"):
            self._at(f"{self._state}batch_stats/{layer}/norm/{name}", group, -1)

    def recurs(self, layer: str, group: Group, gates: int) -> None:
        """A recurrent layer: gates side by side, and what it hands to itself."""
        self.makes(layer, group, outer=gates)
        self._add(layer, "recurrent_kernel", group, -1, outer=gates)
        self._add(layer, "recurrent_kernel", group, -2, reads=True)
        self._add(layer, "recurrent_bias", group, -1)

    def fixed(self, *prefixes: str) -> None:
        """Notes layers of which nothing but what was said can be cut."""
        for prefix in prefixes:
            for start in (f"{self._params}{prefix}", f"{self._state}batch_stats/{prefix}"):
                self._known |= {path for path in self.shapes if path.startswith(start)}

    def differ(self, group: Group, other: Group | int) -> None:
        """Notes two widths of which a model makes something else where they are equal."""
        self.unequal.append(Unequal(group, other))

    def _add(
        self,
        layer: str,
        name: str,
        group: Group | None,
        axis: int,
        outer: int = 1,
        inner: int = 1,
        start: int = 0,
        reads: bool = False,
        shared: bool = False,
    ) -> None:
        found = Axis(f"{self._params}{layer}/{name}", axis, outer, inner, start, reads, shared)
        self._placed(found, group)

    def _at(self, path: str, group: Group | None, axis: int) -> None:
        self._placed(Axis(path, axis), group)

    def _placed(self, axis: Axis, group: Group | None) -> None:
        if axis.path in self.shapes:
            self._known.add(axis.path)
            if group is not None:
                group.axes.append(axis)

    # --- what comes of it ------------------------------------------------------------------------

    def checked(self, model: str) -> Couplings:
        """Returns the couplings, if they account for every array.

        Args:
          model: what the config calls the model.

        Raises:
          ConfigError: an array belongs to no layer that the family has named, or is shorter than
            its channels.
        """
        # a number without axes, such as the range of a layer's inputs, is of no channel
        unknown = sorted(path for path in self.shapes.keys() - self._known if self.shapes[path])
        if unknown:
            layers = sorted({path.rpartition("/")[0].removeprefix("params/") for path in unknown})
            raise ConfigError(
                f"model.name {model!r}: how the channels of {listing(layers)} are coupled to those "
                f"of other layers is not known ({listing(unknown, 3)}), so they can't be sliced. "
                "Prune it without slicing."
            )
        for group in self.groups:
            for axis in group.axes:
                length = self.shapes[axis.path][axis.axis]
                end = axis.start + axis.outer * group.width * axis.inner
                if end > length:
                    raise ConfigError(
                        f"model.name {model!r}: {axis.path} has {length} places along axis "
                        f"{axis.axis}; the {group.width} channels of {group.name!r} need {end}."
                    )
        return self
