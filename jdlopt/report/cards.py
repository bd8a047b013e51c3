"""Some examples one by one: pictures as cards, texts and the columns of tables in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from jdlopt.data.check.arrays import kind_of
from jdlopt.data.dataset import Dataset
from jdlopt.data.named import Inputs, by_name, contents
from jdlopt.data.origin import names_at
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.report.columns import columns_of
from jdlopt.report.examples import drawer
from jdlopt.report.page import Table

FEATURES = 8
"""Columns of a table's example that are shown: what a page of 1,200 pixels has room for."""
LETTERS = 400
"""Letters of a text that are shown."""
UNRELATED = 0.7
"""How much neighbours differ by how much any two values of a vector do, from which on the vector is
no curve: 1 for values in any order."""
TOKENS = 60
"""Token ids without a vocabulary that are shown."""


class Cards(NamedTuple):
    """What a template shows of some examples.

    Attributes:
      pictures: each with ``png``, ``smooth``, ``alternative`` and ``caption``.
      table: a row an example; None where pictures say it all.
    """

    pictures: Sequence[Mapping[str, object]]
    table: Table | None


def cards(
    spec: DataSpec,
    inputs: Inputs,
    names: Sequence[str],
    header: Sequence[str],
    said: Sequence[Sequence[str]],
    words: Sequence[str],
    caption: str,
) -> Cards:
    """Returns how examples are shown, each input by its kind.

    What can be drawn is a picture; texts and columns of tables stand in the table, token ids
    without a vocabulary as numbers. Nothing with a name for each of its values is drawn.

    Args:
      spec: what is known of the data.
      inputs: raw, of these examples alone.
      names: what each is called.
      header: titles of what is said of each.
      said: that, for each.
      words: the same in one line, below a picture.
      caption: of the table.
    """
    pictures: list[Mapping[str, object]] = []
    titles: list[str] = ["example", *header]
    rows: list[list[object]] = [[name, *one] for name, one in zip(names, said, strict=True)]
    wide, more = set[int](), ""
    given = by_name(inputs)
    for name, one in contents(spec.named).items():
        kind, values = kind_of(one), given[name]
        codes = kind == "text" or (kind == "signal" and are_codes(values))
        draw = None if kind == "table" or codes else drawer(one.shape)
        if draw is not None:
            which = f", {name}" if len(given) > 1 else ""
            for called, line, value in zip(names, words, values, strict=True):
                png, smooth = draw(value)
                pictures.append({
                    "png": png, "smooth": smooth, "name": f"{called}{which}", "caption": line,
                    "alternative": f"{called}{which}: {line}",
                })  # fmt: skip
        elif codes:
            wide.add(len(titles))
            titles.append(name if one.text is None else one.text.column)
            for row, text in zip(rows, _texts(one, values), strict=True):
                row.append(text)
        else:
            columns, cells = columns_of(one, values)
            if len(columns) > FEATURES:
                more = f", with the first {FEATURES} of {len(columns):,} columns"
            titles += columns[:FEATURES]
            for row, cell in zip(rows, cells, strict=True):
                row += cell[:FEATURES]
    if pictures and len(titles) == 1 + len(header):
        return Cards(pictures, None)
    return Cards(pictures, Table(f"{caption}{more}", titles, rows, wide))


def are_codes(values: Num[np.ndarray, "n steps"]) -> bool:
    """Says whether vectors hold codes, such as token ids, and no quantities that make a curve.

    Codes are whole numbers from 0 on, and neighbours differ as much as any two of them do. Zeros
    are padding.

    Example:
      >>> are_codes(np.array([[7, 2, 90, 4, 55, 0, 0]])), are_codes(np.array([[1, 2, 3, 4, 5]]))
      (True, False)
    """
    if not np.isfinite(values).all() or (values != np.floor(values)).any() or (values < 0).any():
        return False
    found: np.ndarray = values.astype(np.float64)
    there = found > 0
    others = np.random.default_rng(0).permutation(found.shape[1])
    near = np.abs(np.diff(found, axis=1))[there[:, 1:] & there[:, :-1]]
    far = np.abs(found - found[:, others])[there & there[:, others]]
    far = far[far > 0]
    return bool(len(near) and len(far) and near.mean() > UNRELATED * far.mean())


def _texts(spec: InputSpec, ids: Num[np.ndarray, "n tokens"]) -> list[str]:
    if spec.text is None:
        return [_cut(" ".join(f"{i:g}" for i in row.tolist()[:TOKENS] if i != 0)) for row in ids]
    from jdlopt.data import text

    return [_cut(words) for words in text.decode(spec.text.state, ids)]


def _cut(words: str) -> str:
    return words if len(words) <= LETTERS else words[: LETTERS - 1] + "…"


def of_training(
    dataset: Dataset,
    places: Sequence[int],
    title: str,
    words: Sequence[str],
    called: Sequence[str] | None = None,
) -> Cards:
    """Returns how some training examples are shown that something is wrong with.

    Args:
      dataset: an opened one.
      places: where the examples lie in the pool of the training split.
      title: of what is said of them.
      words: that, for each.
      called: what each is called; by default as `names_at` says.
    """
    pool, rows = dataset.parts["train"][0], np.asarray(places, np.intp)
    names = names_at(dataset, pool, rows) if called is None else called
    lines = [f"{title}: {one}" for one in words]
    said = [[one] for one in words]
    inputs = dataset.pools[pool].read(rows).inputs
    return cards(dataset.spec, inputs, names, [title], said, lines, "The most doubtful")
