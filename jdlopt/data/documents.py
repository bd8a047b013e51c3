"""Texts to learn the next token of: packed into rows of tokens, with the tokens after them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdlopt import writing
from jdlopt.data import text as text_room
from jdlopt.data import vocabulary
from jdlopt.data.coding import Coding
from jdlopt.data.damage import Skipped, Unreadable
from jdlopt.data.dataset import PLAIN, Dataset, Reading, make_dataset
from jdlopt.data.fields import BOTH, DataFields
from jdlopt.data.labelled import all_beside, beside_named, check_named
from jdlopt.data.new_texts import lines_of
from jdlopt.data.next_tokens import TASK, as_rows
from jdlopt.data.notes import Notes
from jdlopt.data.parts import fit_rows, make_parts
from jdlopt.data.pools import ArrayPool, Arrays, Pool
from jdlopt.data.spec import InputSpec
from jdlopt.data.split import SPLITS, split_named
from jdlopt.data.text import TextState
from jdlopt.data.text_files import COLUMN, KIND, read_file
from jdlopt.data.text_input import fit_texts
from jdlopt.data.walk import (
    IN_HIDDEN,
    PassedOver,
    check_file,
    entries,
    files_under,
    identities,
    identity,
    is_aside,
    refuse_same,
    why_not,
)
from jdlopt.errors import ConfigError, DataError, listing

if TYPE_CHECKING:
    import pandas as pd


class Documents(NamedTuple):
    """Texts of a file, a folder or a table.

    Attributes:
      texts: themselves.
      where: names their place, for messages.
    """

    texts: Sequence[str]
    where: str


def open_documents(name: str, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens a file with a text a line, or a folder of files with a text each.

    A folder may have folders for its splits, ``train`` and ``test``; without ``train``, all that is
    in none of the others is for training.

    Args:
      name: the file or folder.
      fields: the data section; ``validation_source`` and ``test_source`` are such files or folders.
      reading: how texts are cut into tokens.

    Raises:
      DataError: there is no text, or one can't be read; two folders are of one split.
    """
    path, notes, skipped = writing.expanded(name), Notes(), Skipped()
    places = _split_folders(path, notes) if path.is_dir() else {"train": path}
    used = {*places.values()}
    for split in ("validation", "test"):
        named = getattr(fields, f"{split}_source")
        if named is None:
            continue
        if split in places:
            passed = PassedOver()
            passed.folder(f"files in a folder, for which data.{split}_source stands", places[split])
            notes.extend(passed.notes)
        places[split] = writing.expanded(named)
        check_file(places[split], f"data.{split}_source")
        used.add(places[split])
    left = skipped if fields.on_bad == "skip" else None
    found = {
        split: Documents(_texts_at(place, notes, left, used - {place}), str(place))
        for split, place in places.items()
    }
    return pack(found, fields, reading, name=path.stem, column=COLUMN, notes=notes, skipped=skipped)


def _split_folders(folder: Path, notes: Notes) -> dict[str, Path]:
    """Returns the folder of each split; that of ``train`` is the folder itself if none is.

    Raises:
      DataError: two folders are of one split, or one is of two, by a link.
    """
    found: dict[str, Path] = {}
    above, passed = identities((folder,)), PassedOver()
    for entry in entries(folder):
        path = Path(entry.path)
        if not path.is_dir():
            passed.file(why_not(path, KIND) or "texts beside the folders of splits", path)
            continue
        split = split_named(path.name)
        if is_aside(path.name):
            passed.folder(IN_HIDDEN, path)
        elif identity(path) in above:
            passed.file("links to a folder that holds them", path)
        elif split is None:
            passed.folder("files in folders beside those of splits", path)
        elif split in found:
            raise DataError(
                f"{folder}: has several folders for the split {split!r}: {found[split].name}, "
                f"{path.name}. Leave one, or put their files together."
            )
        else:
            found[split] = path
    refuse_same({path.name: path for path in found.values()}, folder)
    if "train" in found:  # else these are for training, and what is passed over is noted there
        notes.extend(passed.notes)
    return {"train": folder, **found}


def _texts_at(
    place: Path, notes: Notes, skipped: Skipped | None, others: Collection[Path]
) -> list[str]:
    """Returns the texts of a file, or of a folder but for those of other splits' places."""
    if not place.is_dir():
        return lines_of(place, notes)
    passed = PassedOver()
    texts = []
    own = place.resolve()
    roots = sorted((own, *(one.resolve() for one in others)), key=lambda one: -len(one.parts))
    for path in files_under(place, KIND, passed, but=others):
        real = path.resolve()
        if next((root for root in roots if real.is_relative_to(root)), own) != own:
            if real != own / path.relative_to(place):
                passed.file("links to texts of another split", path)
            continue
        try:
            texts.append(read_file(path))
        except Unreadable as error:
            if skipped is None:
                raise
            skipped.add(error.reason, str(path))
    notes.extend(passed.notes)
    return texts


def of_tables(
    tables: Mapping[str, tuple[pd.DataFrame, str]],
    fields: DataFields,
    reading: Reading,
    *,
    name: str,
    notes: Notes,
    skipped: Skipped,
) -> Dataset:
    """Opens the texts in a column of tables, which ``data.text_column`` names.

    Args:
      tables: of each split the table, whose index counts its rows, and what it is called.
      fields, reading, name, notes, skipped: as `pack` takes them.

    Raises:
      DataError: there is no such column, or no text.
    """
    column = fields.text_column
    if column is None:
        raise DataError(
            "data.text_column: name the column of texts whose next token is to be learnt. Columns: "
            f"{listing(map(str, tables['train'][0].columns))}."
        )
    found: dict[str, Documents] = {}
    for split, (table, where) in tables.items():
        used = [("text_column", column), *(beside_named(fields) if split == "train" else [])]
        check_named(where, used, [str(one) for one in table.columns])
        missing = table[column].isna().to_numpy()
        texts = ["" if gone else str(one) for one, gone in zip(table[column], missing, strict=True)]
        found[split] = Documents(texts, where)
    table, where = tables["train"]
    aside = all_beside(table, where, fields)
    return pack(
        found, fields, reading, name=name, column=column, aside=aside, notes=notes, skipped=skipped
    )


def of_lists(given: object, fields: DataFields, reading: Reading, name: str) -> Dataset:
    """Opens texts in memory: a list of them, or one of each split by its name.

    Args:
      given: the texts.
      fields, reading, name: as `pack` takes them.

    Raises:
      DataError: it is something else.
    """
    splits: Mapping[str, Any] = given if isinstance(given, Mapping) else {"train": given}
    found = {}
    for split, texts in splits.items():
        good = isinstance(texts, list | tuple | np.ndarray)
        if split not in SPLITS or not good or not all(isinstance(one, str) for one in texts):
            raise DataError(
                f"{fields.source}: data.task={TASK!r} takes a list of texts, or a dict of such "
                f"lists by split ({listing(SPLITS)}); found {type(texts).__name__} for {split!r}."
            )
        found[split] = Documents(list(texts), f"{fields.source}, {split!r}")
    if "train" not in found:
        raise DataError(f"{fields.source}: gives no texts for 'train'; found {listing(found)}.")
    return pack(found, fields, reading, name=name, column=COLUMN)


def pack(
    found: Mapping[str, Documents],
    fields: DataFields,
    reading: Reading,
    *,
    name: str,
    column: str,
    aside: Mapping[str, np.ndarray] | None = None,
    notes: Notes | None = None,
    skipped: Skipped | None = None,
) -> Dataset:
    """Returns the dataset of texts: rows of ``data.text.max_tokens`` tokens, and those after them.

    The texts of a split stand one behind the other, with
    `jdlopt.data.vocabulary.END_ID` before the first, between them
    and behind the last; every token but the first is a target once. A text sees those before it in
    its row, as in GPT-2's training. Which split a text is in is decided before they are packed.

    Args:
      found: the texts of each split that the source has, ``train`` among them.
      fields: the data section.
      reading: how texts are cut into tokens.
      name: the dataset's short name.
      column: what texts are called.
      aside: what the data section names beside them, of each training text.
      notes, skipped: what was left out so far.

    Raises:
      DataError: there are no texts, or keys that can't be had.
      ConfigError: a tokenizer that loses something of texts.
    """
    notes, skipped = Notes() if notes is None else notes, skipped or Skipped()
    _check_keys(fields)
    texts: dict[str, list[str]] = {}
    for split, one in found.items():
        whole = [row for row, each in enumerate(one.texts) if each.strip()]
        lost = len(one.texts) - len(whole)
        if lost:
            notes.add("left out", "texts that hold nothing", one.where, lost, "texts")
        if not whole:
            raise DataError(f"{one.where}: holds no text.")
        texts[split] = [one.texts[row] for row in whole]
        if split == "train":
            aside = {key: values[whole] for key, values in (aside or {}).items()}
    coding = Coding(TASK, positions=1)
    train = texts["train"]

    def no_labels() -> np.ndarray:
        return np.zeros(len(train), int)

    parts = make_parts(texts, fields, coding, no_labels, aside)
    rows = fit_rows(parts, fields, len(train))
    known = reading.vocabulary(column)
    text = fit_texts(reading.text, column, [train[row] for row in rows], known)
    state: TextState = text.state
    _check_lossless(state, fields.text.tokenizer)

    def packed(pool: str, chosen: np.ndarray | None) -> Arrays:
        mine = texts[pool] if chosen is None else [texts[pool][row] for row in chosen]
        return as_rows(text_room.tokens_of(state, mine), state.max_tokens)

    placed: dict[str, tuple[str, np.ndarray | None]] = {split: (split, None) for split in SPLITS}
    if fields.folds is None:
        made = {split: packed(*parts[split]) for split in SPLITS}
    else:  # the rows of all folds are one pool, of which each fold's are some
        folds = [
            make_parts(texts, replace(fields, fold=fold), coding, no_labels, aside)["validation"]
            for fold in range(fields.folds)
        ]
        blocks = [packed(*one) for one in folds]
        inputs, targets = map(np.concatenate, zip(*blocks, strict=True))
        of_fold = np.repeat(np.arange(len(blocks)), [len(one.targets) for one in blocks])
        mine = of_fold == fields.fold
        both = fields.train_on == BOTH
        placed["train"] = "train", np.flatnonzero(~mine | both)
        placed["validation"] = "train", np.flatnonzero(mine)
        made = {"train": Arrays(inputs, targets), "test": packed(*parts["test"])}
    pools: dict[str, Pool] = {
        split: ArrayPool(len(arrays.targets), partial(Arrays, *arrays))
        for split, arrays in made.items()
    }
    return make_dataset(
        fields=fields,
        name=name,
        coding=Coding(
            TASK, classes=state.tokens, names=state.tokens, shape=(state.max_tokens,), positions=1
        ),
        inputs=InputSpec((state.max_tokens,), "int32", text=text),
        pools=pools,
        labels=lambda: pools["train"].targets(None),
        parts=placed,
        reading=reading,
        checked=SPLITS,
        skipped=skipped,
        notes=notes,
    )


def _check_keys(fields: DataFields) -> None:
    why = {
        "target": "the next token is the target",
        "weight": "a row of tokens may hold several texts",
        "label_delimiter": "there are no labels",
    }
    found = [f"{key}: {reason}" for key, reason in why.items() if getattr(fields, key) is not None]
    if fields.text.stop_words != "none":
        found.append("text.stop_words: words that are left out can't be learnt")
    if fields.text.template:
        found.append("text.template: texts are packed, with an end-of-text token between them")
    if found:
        raise DataError(f"data.{found[0]}. With data.task={TASK!r} leave it out.")


def _check_lossless(state: TextState, name: str) -> None:
    if not vocabulary.is_byte_level(state.tokens):
        raise ConfigError(
            f"data.text.tokenizer: {name!r} loses something of texts (unknown words, or the spaces "
            f"between tokens), which then can't be written. For data.task={TASK!r} set 'bpe', or "
            "name a tokenizer.json that works on bytes, as GPT-2's does."
        )
