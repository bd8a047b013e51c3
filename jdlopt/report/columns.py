"""The columns of a table's rows as a reader wants them: by name, categories as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Num

from jdlopt.data.precision import Offset
from jdlopt.data.spec import InputSpec
from jdlopt.report.page import number

MISSING, UNSEEN = "–", "(new)"
"""A missing value, and a category that no training example has."""


def row_of(
    values: Num[np.ndarray, " columns"],
    names: Sequence[str],
    categories: Mapping[str, Sequence[str]],
    offsets: Sequence[Offset] = (),
) -> list[str]:
    """Returns the values of a table's row as text.

    Args:
      values: of the columns; categories as codes from 1 on.
      names: the columns'.
      categories: what the codes of columns stand for; columns of numbers have none.
      offsets: what was taken off the columns; empty for nothing.

    Example:
      >>> row_of(np.array([0.25, 2.0, np.nan]), ("x", "colour", "y"), {"colour": ("red", "blue")})
      ['0.25', 'blue', '–']
    """
    found = []
    for place, (name, value) in enumerate(zip(names, values.tolist(), strict=True)):
        texts = categories.get(name)
        if not np.isfinite(value):
            found.append(MISSING)
        elif texts is None:
            found.append(number(value + offsets[place] if offsets else value))
        else:
            code = int(value)
            found.append(texts[code - 1] if 1 <= code <= len(texts) else UNSEEN)
    return found


def columns_of(
    spec: InputSpec, values: Num[np.ndarray, "rows *shape"]
) -> tuple[list[str], list[list[str]]]:
    """Returns the names of an input's columns, and each row's values as text."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    names = [str(one) for one in spec.feature_names or [f"input {i}" for i in range(flat.shape[1])]]
    categories = {} if spec.hash_buckets else spec.categories
    return names, [row_of(row, names, categories, spec.offsets) for row in flat]
