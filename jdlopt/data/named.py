"""The inputs of examples: one array, or a dict of named arrays, an example a row of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Num

One = TypeVar("One")
Made = TypeVar("Made")

Inputs = Num[np.ndarray, "n ..."] | Mapping[str, Num[np.ndarray, "n ..."]]
"""Raw inputs of examples."""
INPUT = "input"
"""What the only input is called where a name is needed."""
DECODER_INPUT = "decoder_input"
"""What an input is called that targets make: what a decoder has written before each position."""
TABLE = "table"
"""What the numbers and categories of a table are called where they are one of several inputs."""
PRESENT = "present"
"""What the input is called that says which of the others an example has, in their order: booleans
[n, inputs]. There is none where every example has all of them."""


def each(function: Callable[..., Made], first: object, *others: Any) -> Made | dict[str, Made]:
    """Calls a function with the only input, or with each of named ones.

    Args:
      function: of one input.
      first: of the only input, or a mapping by name; it decides which of the two all are.
      others: the function's other arguments, likewise.

    Example:
      >>> each(len, [1, 2]), each(lambda x, y: x + y, {"a": 1, "b": 2}, {"a": 3, "b": 4})
      (2, {'a': 4, 'b': 6})
    """
    if not isinstance(first, Mapping):
        return function(first, *others)
    return {name: function(one, *(other[name] for other in others)) for name, one in first.items()}


def by_name(inputs: One | Mapping[str, One]) -> Mapping[str, One]:
    """Returns inputs by name, the only one as `INPUT`."""
    return inputs if isinstance(inputs, Mapping) else {INPUT: inputs}


def contents(inputs: Mapping[str, One]) -> dict[str, One]:
    """Returns named inputs without what says which of them there are.

    Example:
      >>> contents({"photo": 1, "note": 2, PRESENT: 3})
      {'photo': 1, 'note': 2}
    """
    return {name: one for name, one in inputs.items() if name != PRESENT}


def those_with(
    inputs: Mapping[str, Num[np.ndarray, "n ..."]], name: str
) -> Num[np.ndarray, "some ..."]:
    """Returns one of named inputs, of the examples that have it."""
    if PRESENT not in inputs:
        return inputs[name]
    return inputs[name][inputs[PRESENT][:, list(contents(inputs)).index(name)]]


def count(inputs: Inputs) -> int:
    """Returns the number of examples."""
    return len(next(iter(by_name(inputs).values())))


def rows(inputs: Inputs, chosen: object) -> Any:
    """Returns the examples at some indices, or in a slice."""
    return each(lambda values: values[chosen], inputs)


def stacked(examples: Sequence[Any]) -> Any:
    """Returns the inputs of single examples as those of several."""
    if not isinstance(examples[0], Mapping):
        return np.stack(examples)
    return {name: np.stack([one[name] for one in examples]) for name in examples[0]}


def joined(parts: Sequence[Any]) -> Any:
    """Returns the inputs of several parts, one after the other."""
    if not isinstance(parts[0], Mapping):
        return np.concatenate(parts)
    return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
