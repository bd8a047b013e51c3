"""A table with several inputs: its numbers and categories, and columns of texts and of files.

The numbers and categories are one input, `TABLE`; each column of texts, or of paths of images or
sounds, is another, named by its column.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jdlopt.config.tree import nested_columns
from jdlopt.data import image_decoding, images, sound
from jdlopt.data.columns import as_texts, shown, texts_of
from jdlopt.data.damage import Skipped, check_left
from jdlopt.data.dataset import Reading
from jdlopt.data.fields import DataFields
from jdlopt.data.folders import readable
from jdlopt.data.image_decoding import Changes
from jdlopt.data.named import TABLE
from jdlopt.data.notes import Note
from jdlopt.data.parts import fit_rows
from jdlopt.data.pools import ArrayPool, Arrays, Pool
from jdlopt.data.presence import MaskedPool, There
from jdlopt.data.spec import InputSpec
from jdlopt.data.text_input import fit_texts
from jdlopt.errors import DataError, listing

if TYPE_CHECKING:
    import pandas as pd


KINDS = ("number", "category", "text", "image", "sound")
"""What a column of a table may hold."""
FILES = {"image": image_decoding.KIND, "sound": sound.KIND}
LOOKED_AT = 1000
"""Values of a column that a guess looks at."""
LEAST_TEXTS, LEAST_WORDS = 20, 5
"""A column of at least so many values, most of them different, of so many words on average, is one
of texts."""

Parts = Mapping[str, tuple[str, np.ndarray | None]]


class Kinds(NamedTuple):
    """What the feature columns of a table hold.

    Attributes:
      table: those of numbers and categories.
      declared: whether one is of categories, where the config says it.
      apart: the kind of each column that is an input of its own.
      notes: which of these were guessed.
    """

    table: tuple[str, ...]
    declared: Mapping[str, bool]
    apart: Mapping[str, str]
    notes: tuple[Note, ...] = ()

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The columns of each input, in the order of the inputs."""
        own: dict[str, tuple[str, ...]] = {name: (name,) for name in self.apart}
        return {TABLE: self.table, **own} if self.table else own


@dataclass(frozen=True)
class NamedPool:
    """Examples whose inputs are those of several pools.

    Attributes:
      pools: by the name of the input.
      labels: the examples' targets.
    """

    pools: Mapping[str, Pool]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], Any]:
        return {name: pool[index][0] for name, pool in self.pools.items()}, self.labels[index]

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all of them."""
        inputs = {name: pool.read(indices).inputs for name, pool in self.pools.items()}
        return Arrays(inputs, self.targets(indices))

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the targets at the indices, or of all examples."""
        return self.labels if indices is None else self.labels[indices]


# --- kinds ----------------------------------------------------------------------------------------


def kinds_of(
    table: pd.DataFrame,
    names: Sequence[str],
    rows: Int[np.ndarray, " some"],
    fields: DataFields,
    folder: Path,
) -> Kinds:
    """Returns what each feature column holds: as the config says it, or guessed.

    Args:
      table: the columns.
      names: those that are features.
      rows: the training rows; a guess looks at these alone.
      fields: the data section: ``columns`` and ``categorical``.
      folder: where paths begin.
    """
    given = {**dict.fromkeys(fields.categorical, "category"), **fields.columns}
    guessed = {
        name: kind
        for name in names
        if name not in given and (kind := _guess(table[name], rows, folder)) is not None
    }
    kinds = {**given, **guessed}
    apart = {name: kinds[name] for name in names if kinds.get(name) not in (None, *KINDS[:2])}
    notes = tuple(
        Note(
            "guessed",
            f"column {name!r} holds {_WORDS[kind]}",
            len(table),
            "values",
            (),
            f"data.columns={nested_columns({name: 'category'})} says otherwise; "
            "data.ignore leaves it out.",
        )
        for name, kind in guessed.items()
    )
    declared = {name: given[name] == "category" for name in names if given.get(name) in KINDS[:2]}
    in_table = tuple(name for name in names if name not in apart)
    return Kinds(in_table, declared, apart, notes)


_WORDS = {"text": "texts", "image": "paths of images", "sound": "paths of sounds"}


def _guess(column: pd.Series, rows: Int[np.ndarray, " some"], folder: Path) -> str | None:
    """Returns what a column holds if it is more than numbers and categories, or None."""
    import pandas as pd

    if not (pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)):
        return None
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), LOOKED_AT)).astype(int)]
    texts = [value for value in as_texts(column.iloc[chosen]) if value is not None]
    for kind, files in FILES.items():
        if texts and all(Path(value).suffix.lower() in files.suffixes for value in texts):
            some = texts[:: -(-len(texts) // 20)]
            there = sum((folder / value).is_file() for value in some)
            return kind if 2 * there >= len(some) else None
    if len(texts) < LEAST_TEXTS or 2 * len(set(texts)) < len(texts):
        return None
    words = sum(len(value.split()) for value in texts)
    return "text" if words >= LEAST_WORDS * len(texts) else None


# --- opening --------------------------------------------------------------------------------------


def open_apart(
    table: pd.DataFrame,
    kinds: Mapping[str, str],
    targets: np.ndarray,
    parts: Parts,
    fields: DataFields,
    reading: Reading,
    folder: Path,
    where: str,
    skipped: Skipped,
    there: There | None = None,
) -> tuple[dict[str, InputSpec], dict[str, Pool], Parts]:
    """Returns the columns that are inputs of their own, and the splits without damaged rows.

    With ``data.on_bad='skip'``, the files of all rows but test are decoded once, and rows whose
    file can't be are left out.

    Args:
      table: the columns; its index counts the file's rows.
      kinds: of these columns.
      targets: each row's.
      parts: the splits.
      fields: the data section.
      reading: how texts are cut up.
      folder: where paths begin.
      where: names the file, for messages.
      skipped: where rows that are left out are counted.
      there: which rows have each input, where those without are masked.

    Raises:
      DataError: a file is missing or can't be read, or they differ in size.
    """
    masked = dict[str, np.ndarray]() if there is None else {n: ~rows for n, rows in there.items()}
    if TABLE in kinds:
        raise DataError(
            f"{where}: the column {TABLE!r} would be an input of the name that the table's numbers "
            "and categories have. Rename it."
        )
    paths = {
        name: _paths(table[name], kind, folder, where)
        for name, kind in kinds.items()
        if kind in FILES
    }
    if fields.on_bad == "skip":
        for name, found in paths.items():
            kind, absent = kinds[name], masked.get(name)
            parts = _readable(parts, found, kind, table.index, where, skipped, absent)
    inputs: dict[str, InputSpec] = {}
    pools: dict[str, Pool] = {}
    for name, kind in kinds.items():
        if kind == "text":
            texts = texts_of(table[name])
            known = list(texts[fit_rows(parts, fields, len(table))])
            text = fit_texts(reading.text, name, known, reading.vocabulary(name))
            inputs[name] = InputSpec(text.encode([""]).shape[1:], "int32", text=text)
            pools[name] = ArrayPool(len(table), partial(_encoded, text, texts, targets))
            continue
        absent = masked.get(name)
        lacking = [
            row
            for row, path in enumerate(paths[name])
            if path is None and (absent is None or not absent[row])
        ]
        if lacking and fields.on_bad != "skip":
            raise DataError(
                f"{where}: column {name!r} names no {kind} in {len(lacking)} rows, the first is "
                f"row {table.index[lacking[0]]}: {shown(table[name], lacking[0])}. Correct these "
                "rows, or leave them out with data.on_bad='skip'."
            )
        files = tuple(path or folder for path in paths[name])  # of rows without, none is read
        seen = [
            files[row]
            for split, (_, rows) in parts.items()
            if split != "test"
            for row in (range(len(files)) if rows is None else rows)
            if absent is None or not absent[row]
        ]
        if not seen:
            raise DataError(f"{where}: column {name!r} names no {kind} in any training row.")
        inputs[name], pools[name] = _of_files(kind, files, seen, targets, fields, name, skipped)
        if absent is not None:
            spec = inputs[name]
            pools[name] = MaskedPool(pools[name], ~absent, spec.shape, spec.dtype)
    return inputs, pools, parts


def _encoded(text: Any, texts: np.ndarray, targets: np.ndarray) -> Arrays:
    return Arrays(text.encode(list(texts)), targets)


def _paths(column: pd.Series, kind: str, folder: Path, where: str) -> list[Path | None]:
    """Returns each row's file; None where the column names none of this kind."""
    found = [
        None if value is None or not FILES[kind].holds(folder / value) else folder / value
        for value in as_texts(column)
    ]
    if not any(found):
        raise DataError(
            f"{where}: column {column.name!r} names no {kind} at all; expected paths that end in "
            f"{listing(FILES[kind].suffixes)}. data.columns says what it holds."
        )
    return found


def _readable(
    parts: Parts,
    paths: Sequence[Path | None],
    kind: str,
    names: pd.Index,
    where: str,
    skipped: Skipped,
    masked: Bool[np.ndarray, " rows"] | None,
) -> Parts:
    """Returns the splits without the rows that have no file, or, but for test, one that is damaged.

    Those of the test split are looked for when it is asked for. Rows that are masked need none.
    """
    free = np.zeros(len(paths), bool) if masked is None else masked
    made = {}
    for split, (pool, rows) in parts.items():
        every = np.arange(len(paths)) if rows is None else rows
        kept = np.array(
            [row for row in every.tolist() if paths[row] is not None or free[row]], np.intp
        )
        for row in np.setdiff1d(every, kept):
            skipped.add(f"no {kind}", f"{where}, row {names[row]}")
        if split != "test":
            load = images.load if kind == "image" else partial(sound.read_sound, name=where)
            files = [path or Path() for path in paths]
            looked = readable(files, kept[~free[kept]], load, skipped)
            kept = kept[free[kept] | np.isin(kept, looked)]
            check_left(kept, split, where, skipped)
        made[split] = (pool, kept)
    return made


def _of_files(
    kind: str,
    files: tuple[Path, ...],
    seen: Sequence[Path],
    targets: np.ndarray,
    fields: DataFields,
    name: str,
    skipped: Skipped,
) -> tuple[InputSpec, Pool]:
    """Returns one column of files as an input; ``seen`` decides on size, rate and length."""
    if kind == "image":
        size = images.resize_to(fields.image_size)
        changes = Changes(skipped.changed)
        (height, width), channels = images.survey(seen, size, changes)
        spec = InputSpec((height, width, channels), "uint8", column=name)
        return spec, images.ImagePool(files, targets, channels, size, (height, width), changes)
    header = sound.survey(seen, fields.sample_rate, fields.seconds)
    pool = sound.SoundPool(
        files,
        targets,
        rate=header.rate,
        samples=header.samples,
        resample=fields.sample_rate is not None,
        fit=fields.seconds is not None,
    )
    spec = InputSpec((header.samples,), "float32", sample_rate=header.rate, column=name)
    return spec, pool


def together(
    inputs: Mapping[str, InputSpec], pools: Mapping[str, Pool], targets: np.ndarray
) -> tuple[InputSpec | Mapping[str, InputSpec], Pool]:
    """Returns inputs as one dataset's: the only one as it is, several by name."""
    if len(inputs) == 1:
        name = next(iter(inputs))
        return inputs[name], pools[name]
    return inputs, NamedPool(pools, targets)


def of_input(dataset: Any, name: str) -> Any:
    """Returns a dataset whose only input is one of a dataset's several.

    Args:
      dataset: a `jdlopt.data.dataset.Dataset`.
      name: of the input.
    """
    return dataclasses.replace(
        dataset,
        spec=dataclasses.replace(dataset.spec, inputs=dataset.spec.named[name]),
        pools={split: _OnePool(pool, name) for split, pool in dataset.pools.items()},
    )


@dataclass(frozen=True)
class _OnePool:
    """One of several inputs of a pool's examples."""

    pool: Pool
    name: str

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        inputs, target = self.pool[index]
        return inputs[self.name], target

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all of them."""
        inputs, targets = self.pool.read(indices)
        return Arrays(inputs[self.name], targets)

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the targets at the indices, or of all examples."""
        return self.pool.targets(indices)
