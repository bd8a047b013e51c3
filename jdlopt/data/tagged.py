"""Sentences whose words have BIO tags, as a dataset: tokens, and a target at each word's first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from jdlopt.data import words as word_room
from jdlopt.data.coding import PAD, Coding
from jdlopt.data.damage import Skipped
from jdlopt.data.dataset import PLAIN, Dataset, Reading, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.labelled import all_beside, beside_named, check_named, names_of
from jdlopt.data.notes import Notes
from jdlopt.data.parts import fit_rows, make_parts
from jdlopt.data.pools import ArrayPool, Arrays, Pool
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.data.split import SPLITS
from jdlopt.data.tags import CODER, as_rows, problem, unknown
from jdlopt.data.text_input import TextInput, fit_texts
from jdlopt.errors import DataError, listing

if TYPE_CHECKING:
    import pandas as pd

LINE, ROW = "line", "row"
CUT = "words behind data.text.max_tokens, whose tags count for nothing"


class Tagged(NamedTuple):
    """Sentences of a file or a table.

    Attributes:
      words, tags: of each sentence; equally many, unless the data are wrong.
      rows: where each begins: the line of its first word, or its row.
      where: names the file or table, for messages.
      unit: what ``rows`` counts: `LINE` (a word a line) or `ROW`.
    """

    words: list[tuple[str, ...]]
    tags: list[tuple[str, ...]]
    rows: list[int]
    where: str
    unit: str

    def add(self, words: tuple[str, ...], tags: tuple[str, ...], row: int) -> None:
        """Adds a sentence."""
        self.words.append(words)
        self.tags.append(tags)
        self.rows.append(row)

    def place(self, sentence: int, word: int = 0) -> str:
        """Returns where a word stands, for messages."""
        row = self.rows[sentence]
        if self.unit == LINE:
            return f"{self.where}, line {row + word}"
        return f"{self.where}, row {row}" + (f", word {word + 1}" if word else "")

    def problem(self, sentence: int) -> tuple[str, str] | None:
        """Says where and what is wrong with a sentence, or None."""
        words, tags = self.words[sentence], self.tags[sentence]
        if len(words) != len(tags):
            found = f"has {len(words)} words and {len(tags)} tags; there must be as many"
            return self.place(sentence), found
        wrong = ((place, problem(tag)) for place, tag in enumerate(tags))
        first = next(((place, why) for place, why in wrong if why), None)
        if first is not None:
            return self.place(sentence, first[0]), first[1]
        return None if words else (self.place(sentence), "has no word")

    def only(self, sentences: Int[np.ndarray, " some"]) -> Tagged:
        """Returns some of the sentences."""
        words, tags, rows = (
            [one[place] for place in sentences] for one in (self.words, self.tags, self.rows)
        )
        return self._replace(words=words, tags=tags, rows=rows)


def open_tagged(
    found: Mapping[str, Tagged],
    fields: DataFields,
    reading: Reading,
    *,
    name: str,
    column: str,
    word_column: int = 0,
    aside: Mapping[str, np.ndarray] | None = None,
    notes: Notes | None = None,
    skipped: Skipped | None = None,
) -> Dataset:
    """Returns the dataset of tagged sentences.

    The target of a word stands at its first token; other tokens, and padding, have none
    (`jdlopt.data.coding.PAD`).

    Args:
      found: the sentences of each split that the source has, ``train`` among them.
      fields: the data section.
      reading: how words are cut into tokens.
      name: the dataset's short name.
      column: what the words are called.
      word_column: the number of their column in a CoNLL file.
      aside: what the data section names beside them, of each training sentence.
      notes: what was left out so far; ``skipped``, of damaged rows.

    Raises:
      DataError: a sentence can't be used, with its line or row; a kind of entity that no training
        sentence has; nothing but O.
    """
    notes, skipped = Notes() if notes is None else notes, skipped or Skipped()
    _check_keys(fields)
    usable: dict[str, Tagged] = {}
    numbers: dict[str, Int[np.ndarray, " sentences"]] = {}
    for split, one in found.items():
        numbers[split] = _good(one, fields.on_bad == "skip", skipped)
        usable[split] = one.only(numbers[split])
        if not usable[split].words:
            left = f": {skipped}" if skipped.counts else ""
            raise DataError(f"{one.where}: holds no sentence{left}.")
    train = usable["train"]
    aside = {key: values[numbers["train"]] for key, values in (aside or {}).items()}
    coding = CODER.infer(as_rows(train.tags), f"{train.where}, tags", (), fields.label_delimiter)
    for one in usable.values():
        _check_known(one, coding.class_names)
    lengths = {split: one.words for split, one in usable.items()}
    parts = make_parts(lengths, fields, coding, lambda: np.zeros(len(train.words), int), aside)
    rows = fit_rows(parts, fields, len(train.words))
    texts = [" ".join(train.words[row]) for row in rows]
    text = fit_texts(reading.text, column, texts, reading.vocabulary(column), by_word=True)
    text = dataclasses.replace(text, word_column=word_column)
    coding = dataclasses.replace(coding, shape=(text.state.max_tokens,))
    pools: dict[str, Pool] = {}
    for split, one in usable.items():
        arrays, lost = _encoded(one, text, coding)
        if lost:
            remedy = "Raise data.text.max_tokens, or cut sentences in the source."
            notes.add("left out", CUT, one.where, lost, "words", remedy)
        pools[split] = ArrayPool(len(arrays.targets), partial(Arrays, *arrays))
    return make_dataset(
        fields=fields,
        name=name,
        coding=coding,
        inputs=InputSpec((text.state.max_tokens,), "int32", text=text),
        pools=pools,
        labels=lambda: pools["train"].targets(None),
        parts=parts,
        reading=reading,
        checked=SPLITS,
        skipped=skipped,
        beside=aside,
        notes=notes,
        origins={split: {"row": rows} for split, rows in numbers.items()},
    )


def _check_keys(fields: DataFields) -> None:
    if fields.text.stop_words != "none":
        raise DataError(
            f"data.text.stop_words: {fields.text.stop_words!r} leaves words out, and their tags "
            "with them. Set it to 'none'."
        )


def _good(found: Tagged, skip: bool, skipped: Skipped) -> Int[np.ndarray, " some"]:
    """Returns the sentences that can be used; the others are counted, or refused."""
    good = []
    for sentence in range(len(found.words)):
        wrong = found.problem(sentence)
        if wrong is None:
            good.append(sentence)
            continue
        where, why = wrong
        if not skip:
            raise DataError(
                f"{where}: {why}. Correct it, or leave such sentences out with data.on_bad='skip'."
            )
        skipped.add("no words with a BIO tag each", where, why)
    return np.array(good, np.intp)


def _check_known(found: Tagged, names: Sequence[str]) -> None:
    """Raises a `DataError` that names the first tag of a kind that is not known, if one is."""
    known = set(names)
    for sentence, tags in enumerate(found.tags):
        for place, tag in enumerate(tags):
            if tag not in known:
                raise DataError(f"{found.place(sentence, place)}: {unknown(tag, names)}.")


def _encoded(found: Tagged, text: TextInput, coding: Coding) -> tuple[Arrays, int]:
    """Returns the tokens and targets of sentences, and how many words have no target."""
    tokens = word_room.encode(text.state, found.words)
    codes = CODER.encode(as_rows(found.tags), dataclasses.replace(coding, shape=()), found.where)
    targets = at_firsts(codes, tokens.firsts, text.state.max_tokens)
    lost = sum(int((firsts < 0).sum()) for firsts in tokens.firsts)
    return Arrays(tokens.ids, targets), lost


def at_firsts(
    codes: Int32[np.ndarray, "n words"],
    firsts: Sequence[Int[np.ndarray, " words"]],
    positions: int,
) -> Int32[np.ndarray, "n positions"]:
    """Returns targets by token: each word's at its first, `PAD` elsewhere.

    Args:
      codes: the words' targets, padded.
      firsts: where each word's first token stands; -1: nowhere.
      positions: tokens in a row.
    """
    targets = np.full((len(codes), positions), PAD, np.int32)
    for row, code, first in zip(targets, codes, firsts, strict=True):
        there = np.flatnonzero(first >= 0)
        row[first[there]] = code[there]
    return targets


def given_targets(
    given: Sequence[Any], texts: Sequence[Any], spec: DataSpec
) -> Int32[np.ndarray, "n positions"]:
    """Returns the targets of texts whose words' tags a program gives.

    Args:
      given: the tags of each text's words.
      texts: the texts, which are cut at spaces as in training, or the words of each.
      spec: of the data that a model was trained on.

    Raises:
      DataError: a text has another number of words, or a tag is not known.
    """
    assert spec.input.text is not None
    cuts = [word_room.cut(one, signs=False).words for one in texts]
    rows = [as_list(one, f"targets, row {row}") for row, one in enumerate(given)]
    for row, (words, tags) in enumerate(zip(cuts, rows, strict=True)):
        if len(words) != len(tags):
            raise DataError(
                f"targets, row {row}: has {len(tags)} tags, the text {len(words)} words: "
                f"{listing(words, 12)}."
            )
    codes = CODER.encode(as_rows(rows), Coding(spec.task, spec.class_names, positions=1), "targets")
    state = spec.input.text.state
    return at_firsts(codes, word_room.encode(state, cuts).firsts, state.max_tokens)


# --- tables and what a program gives --------------------------------------------------------------


def of_tables(
    tables: Mapping[str, tuple[pd.DataFrame, str]],
    fields: DataFields,
    reading: Reading,
    *,
    name: str,
    notes: Notes,
    skipped: Skipped,
) -> Dataset:
    """Opens tables with a column of words and one of tags, lists or texts with spaces between.

    Args:
      tables: of each split the table, whose index counts its rows, and what it is called.
      fields: the data section: ``text_column`` and ``target`` name the two columns.
      reading: how words are cut into tokens.
      name: the dataset's short name.
      notes, skipped: what was left out so far.

    Raises:
      DataError: a column is missing, or a row can't be used; see `open_tagged`.
    """
    targets = names_of(fields.target)
    if fields.text_column is None or len(targets) != 1:
        key = "text_column" if fields.text_column is None else "target"
        raise DataError(
            f"data.{key}: name the column of each sentence's "
            f"{'words' if key == 'text_column' else 'tags'}, lists or texts with spaces between. "
            f"Columns: {listing(map(str, tables['train'][0].columns))}."
        )
    found: dict[str, Tagged] = {}
    for split, (table, where) in tables.items():
        used = [("text_column", fields.text_column), ("target", targets[0])]
        used += beside_named(fields) if split == "train" else []
        check_named(where, used, [str(column) for column in table.columns])
        one = found[split] = Tagged([], [], [], where, ROW)
        cells = zip(table[fields.text_column], table[targets[0]], table.index, strict=True)
        for row_words, row_tags, row in cells:
            one.add(as_list(row_words, f"{where}, row {row}"),
                    as_list(row_tags, f"{where}, row {row}"), int(row))  # fmt: skip
    table, where = tables["train"]
    aside = all_beside(table, where, fields)
    return open_tagged(
        found,
        fields,
        reading,
        name=name,
        column=fields.text_column,
        aside=aside,
        notes=notes,
        skipped=skipped,
    )


def of_arrays(
    splits: Mapping[str, tuple[Any, Any]],
    fields: DataFields,
    reading: Reading = PLAIN,
    *,
    name: str,
) -> Dataset:
    """Opens sentences in memory.

    Args:
      splits: of each split, ``train`` among them, the words of each sentence and their tags.
      fields: the data section.
      reading: how words are cut into tokens.
      name: the dataset's short name.

    Raises:
      DataError: a sentence can't be used; see `open_tagged`.
    """
    found: dict[str, Tagged] = {}
    for split, (all_words, all_tags) in splits.items():
        where = f"{fields.source}, {split!r}"
        if len(all_words) != len(all_tags):
            raise DataError(
                f"{where}: there are the words of {len(all_words)} sentences and the tags of "
                f"{len(all_tags)}; there must be as many."
            )
        one = found[split] = Tagged([], [], [], where, ROW)
        for row, (words, tags) in enumerate(zip(all_words, all_tags, strict=True), start=1):
            place = f"{where}, row {row}"
            one.add(as_list(words, place), as_list(tags, place), row)
    return open_tagged(found, fields, reading, name=name, column="text")


def as_list(cell: object, place: str) -> tuple[str, ...]:
    """Returns the words, or tags, of a cell: a list of them, or a text with spaces between.

    Of a missing cell there are none, which `Tagged.problem` then says.

    Raises:
      DataError: it holds something else.
    """
    if isinstance(cell, str):
        return tuple(cell.split())
    found = cell.tolist() if isinstance(cell, np.ndarray) else cell
    if isinstance(found, list | tuple) and all(isinstance(one, str) for one in found):
        return tuple(found)
    if _is_missing(found):
        return ()
    raise DataError(
        f"{place}: holds {cell!r:.60}; expected a list of texts, or a text with spaces between. "
        "Tags are texts such as B-PER, no numbers."
    )


def _is_missing(value: object) -> bool:
    import pandas as pd

    return pd.api.types.is_scalar(value) and bool(pd.isna(value))
