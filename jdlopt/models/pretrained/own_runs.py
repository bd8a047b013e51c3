"""Weights of a run as those of another model: by the paths of parameters, which both have. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
BASE, ADAPTERS = "base/", "adapters/"
STACKED = re.compile(r"((?:model/)?)layers/(.+)")
"""A parameter of scanned layers: one array, a layer a row."""
ONE_LAYER = re.compile(r"((?:model/)?)layer_(\d+)/(.+)")


class Matched(NamedTuple):
    """A run's arrays in the places of a model's.

    Attributes:
      found: by the path here.
      new: the paths of the head that keep their initial values, and of adapters that are added.
      missing: the paths here that the run has nothing for.
      misshapen: path → the shape here, the shape there.
      unused: the paths there that nothing here has a place for, the old head's left out.
    """

    found: dict[str, np.ndarray]
    new: list[str]
    missing: list[str]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unused: list[str]


def match(there: Arrays, here: Shapes, head: Collection[str], keep_head: bool) -> Matched:
    """Returns which of a run's arrays belongs where.

    Layers that one of the two runs as a loop (``scan_layers``) are stacked or taken apart.

    Args:
      there: the run's arrays, by path.
      here: the model's shapes, by path.
      head: the paths of what depends on the number of outputs.
      keep_head: whether outputs mean the same in both; else the head is new.

    Example:
      >>> there = {"a/kernel": np.ones((2, 3)), "head/bias": np.ones(3)}
      >>> made = match(there, {"a/kernel": (2, 3), "head/bias": (5,)}, {"head/bias"}, True)
      >>> sorted(made.found), made.new
      (['a/kernel'], ['head/bias'])
    """
    plain = {path.removeprefix(BASE): array for path, array in there.items()}
    used: set[str] = set()
    made = Matched({}, [], [], {}, [])
    for path, shape in here.items():
        name = path.removeprefix(BASE)
        array, sources = _source(name, shape, plain)
        used |= sources
        if array is None:
            added = name.startswith(ADAPTERS) or path in head
            (made.new if added else made.missing).append(path)
        elif path in head and not (keep_head and array.shape == shape):
            made.new.append(path)
        elif array.shape != shape:
            made.misshapen[path] = (shape, array.shape)
        else:
            made.found[path] = array
    heads = {path.removeprefix(BASE) for path in head}
    made.unused.extend(sorted(plain.keys() - used - heads))
    return made


def _source(name: str, shape: tuple[int, ...], there: Arrays) -> tuple[np.ndarray | None, set[str]]:
    """The array of a path, and the paths there that it is made of."""
    if name in there:
        return there[name], {name}
    stacked = STACKED.fullmatch(name)
    if stacked and shape:
        names = [f"{stacked[1]}layer_{index}/{stacked[2]}" for index in range(shape[0])]
        arrays = [there[one] for one in names if one in there]
        if len(arrays) == len(names) and len({array.shape for array in arrays}) == 1:
            return np.stack(arrays), set(names)
    one = ONE_LAYER.fullmatch(name)
    whole = f"{one[1]}layers/{one[3]}" if one else ""
    if one and whole in there and int(one[2]) < len(there[whole]):
        return there[whole][int(one[2])], {whole}
    return None, set()
