"""A dataset as three splits over pools of examples, read only when a split is asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int, Num

from jdlopt.data import named, target_texts
from jdlopt.data.coding import Coding
from jdlopt.data.damage import Skipped, Unreadable, check_finite, check_left, check_targets
from jdlopt.data.decision import make_decision
from jdlopt.data.fields import BOTH, DataFields
from jdlopt.data.from_run import Kept
from jdlopt.data.key_split import BY_PATH
from jdlopt.data.notes import Note
from jdlopt.data.parts import make_parts
from jdlopt.data.pools import ArrayPool, Arrays, Pool, Records
from jdlopt.data.sampling import check_weights
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.data.split import SPLITS
from jdlopt.data.text import TextFields
from jdlopt.data.text_input import TextInput
from jdlopt.data.transcript_coding import TASK as TRANSCRIPTION
from jdlopt.errors import DataError, listing


@dataclass(frozen=True)
class Reading:
    """What other sections than its own say of how a source is read.

    Attributes:
      missing: what becomes of missing (NaN) inputs: ``refuse`` them; keep them, for preprocessing
        to ``fill`` in; ``keep`` them and infinities as well, to be described.
      text: the ``data.text`` section.
      missing_values: the words of a table that stand for missing values; None for those of a CSV.
      hash_buckets: categories are coded by so many hashes; None codes them by their own number.
      known: what a run knew of its data, whose categories and vocabulary are kept; or None.
    """

    missing: str = "refuse"
    missing_values: tuple[str, ...] | None = None
    text: TextFields = field(default_factory=TextFields)
    hash_buckets: int | None = None
    known: Kept | None = None

    def vocabulary(self, name: str) -> TextInput | None:
        """Returns the texts of the run whose coding is kept, for an input of a name."""
        one = None if self.known is None else self.known.input(name)
        return None if one is None else one.text


PLAIN = Reading()
"""No other section says anything."""
PART = 256
"""Examples whose targets are looked at together, where all might be too large."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test splits of one source: a `DataSpec` and pools of examples.

    Attributes:
      spec: what a model must know of it.
      pools: the examples, as they are stored.
      parts: each split's pool, and which of its examples; None: all.
      on_bad: ``error`` or ``skip``.
      unchecked: the splits whose damaged examples are looked for when they are first asked for.
      weights: the training examples' weights, where ``data.weight`` names them.
      skips: the examples that were left out as damaged.
      origins: of pools whose examples are more than numbered, where each comes from: see
        `jdlopt.data.origin.origins`.
      kept: what has been computed of all the examples, to be computed once: its fingerprint.
    """

    spec: DataSpec
    pools: Mapping[str, Pool] = field(repr=False)
    parts: Mapping[str, tuple[str, np.ndarray | None]] = field(repr=False)
    on_bad: str = "error"
    unchecked: frozenset[str] = frozenset()
    weights: np.ndarray | None = field(default=None, repr=False)
    skips: Skipped = field(default_factory=Skipped, repr=False)
    origins: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict, repr=False)
    kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _usable: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def _part(self, split: str) -> tuple[Pool, np.ndarray | None]:
        if split not in self.parts:
            raise DataError(f"split {split!r} is unknown; there are {', '.join(SPLITS)}.")
        pool, indices = self.parts[split]
        if split in self.unchecked:
            if split not in self._usable:  # looked for once
                where = f"{self.spec.source}, {split}"
                found = usable(self.pools[pool], indices, self.skips, where)
                check_left(found, split, self.spec.source, self.skips)
                self._usable[split] = found
            indices = self._usable[split]
        return self.pools[pool], indices

    def rows(self, split: str) -> Int[np.ndarray, " examples"]:
        """Returns the places of a split's examples in the part of the source it is taken from."""
        pool, indices = self.parts[split]
        return np.arange(len(self.pools[pool])) if indices is None else np.asarray(indices)

    @property
    def sizes(self) -> dict[str, int]:
        """Examples in each split.

        With ``on_bad='skip'`` the test split's is known once the split was asked for: nothing of it
        is opened before.
        """
        return {**self.spec.sizes, **{name: len(found) for name, found in self._usable.items()}}

    @property
    def skipped(self) -> Mapping[str, int]:
        """What was left out with ``on_bad='skip'``: reason → examples; ``skips`` says where."""
        return self.skips.counts

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was left out, changed, guessed or can't be used, as far as it is known."""
        return (*self.spec.notes, *self.skips.notes())

    def noting(self, notes: Iterable[Note]) -> Dataset:
        """Returns the dataset with more notes, each once."""
        more = tuple(note for note in notes if note not in self.spec.notes)
        if not more:
            return self
        spec = dataclasses.replace(self.spec, notes=(*self.spec.notes, *more))
        made = dataclasses.replace(self, spec=spec)
        made._usable.update(self._usable)
        made.kept.update(self.kept)
        return made

    def read(self, split: str) -> Arrays:
        """Returns a whole split in memory; no example of another split is opened for it.

        Raises:
          DataError: an example can't be read, or holds a value that can't be used.
        """
        pool, indices = self._part(split)
        arrays = pool.read(indices)
        where = f"{self.spec.source}, split {split!r}"
        check_targets(arrays.targets, self.spec.num_classes, where, self.spec.positions)
        several = len(self.spec.named) > 1
        for name, one in self.spec.named.items():
            if one.missing != "keep":
                check_finite(
                    named.by_name(arrays.inputs)[name],
                    f"{where}, {name!r}" if several else where,
                    allow_missing=one.missing == "fill",
                )
        return arrays

    def records(self, split: str) -> Records:
        """Returns a split as a random-access sequence of ``(input, target)``, read one by one."""
        return Records(*self._part(split))

    def targets(self, split: str) -> np.ndarray:
        """Returns the targets of a split; no input is decoded for them, where that can be.

        Raises:
          DataError: a target can't be read, or is no class or finite number.
        """
        return self._targets(split, self._part(split)[1])

    def target_parts(self, split: str) -> Iterator[np.ndarray]:
        """Yields the targets of a split, of `PART` examples at a time.

        Raises:
          DataError: as `targets`.
        """
        pool, indices = self._part(split)
        indices = np.arange(len(pool)) if indices is None else indices
        for first in range(0, len(indices), PART):
            yield self._targets(split, indices[first : first + PART], first)

    def _targets(self, split: str, indices: np.ndarray | None, first: int = 0) -> np.ndarray:
        targets = self._part(split)[0].targets(indices)
        spec, where = self.spec, f"{self.spec.source}, split {split!r}"
        where += f", from example {first:,} on" if first else ""
        check_targets(targets, spec.num_classes, where, spec.positions)
        return targets

    def nbytes(self, split: str) -> int:
        """Returns the bytes that `read` of the split would take in memory."""
        inputs = self.spec.named.values()
        nbytes = sum(math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in inputs)
        return self.sizes[split] * (nbytes + 4 * math.prod(self.spec.target_shape))


def class_counts(dataset: Dataset) -> Int[np.ndarray, " classes"]:
    """Returns how many training examples, or positions of them, are of each class or label."""
    if not dataset.spec.positions:
        return counts_of(dataset.targets("train"), dataset.spec)
    counts = np.zeros(dataset.spec.num_classes, np.int64)
    for part in dataset.target_parts("train"):  # all masks together may be larger than the memory
        counts += counts_of(part, dataset.spec)
    return counts


def counts_of(targets: Num[np.ndarray, "n *k"], spec: DataSpec) -> Int[np.ndarray, " classes"]:
    """Returns how often each class or label occurs; padding and what is no class are left out.

    Args:
      targets: classes [n], labels of 0 and 1 [n, labels], or a class at each position [n, …].
      spec: of the data.
    """
    if targets.ndim == 2 and not spec.positions:
        return targets.sum(axis=0)
    known = targets[(targets >= 0) & (targets != spec.pad)] if spec.positions else targets
    return np.bincount(known, minlength=spec.num_classes)


def usable(
    pool: Pool, indices: np.ndarray | None, skipped: Skipped, where: str
) -> Int[np.ndarray, " some"]:
    """Returns the indices of the examples that can be read and hold no infinity.

    Args:
      pool: the examples.
      indices: those to look at; None for all.
      skipped: where the others are counted.
      where: names the split, for `Skipped`.
    """
    chosen = np.arange(len(pool)) if indices is None else indices
    keep = np.ones(len(chosen), bool)
    if isinstance(pool, ArrayPool):
        for values in named.by_name(pool.read(indices).inputs).values():
            if values.dtype.kind == "f":
                keep &= ~np.isinf(values).reshape(len(values), -1).any(axis=1)
        for index in chosen[~keep]:
            skipped.add("infinite value", f"{where}, example {index}")
        return chosen[keep]
    for position, index in enumerate(chosen.tolist()):
        try:
            inputs = pool[index][0]
        except Unreadable as error:
            skipped.add(error.reason, f"{where}, example {index}", str(error))
            keep[position] = False
            continue
        values = named.by_name(inputs).values()
        if any(one.dtype.kind == "f" and np.isinf(one).any() for one in values):
            skipped.add("infinite value", f"{where}, example {index}")
            keep[position] = False
    return chosen[keep]


def make_dataset(
    *,
    fields: DataFields,
    name: str,
    coding: Coding,
    inputs: InputSpec | Mapping[str, InputSpec],
    pools: Mapping[str, Pool],
    labels: Callable[[], np.ndarray],
    parts: Mapping[str, tuple[str, np.ndarray | None]] | None = None,
    reading: Reading = PLAIN,
    checked: Sequence[str] = (),
    skipped: Skipped | None = None,
    beside: Mapping[str, np.ndarray] | None = None,
    notes: Iterable[Note] = (),
    origins: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Dataset:
    """Returns the `Dataset` of a source's pools, after splitting what has to be split.

    Args:
      fields: the data section.
      name: the dataset's short name.
      coding: the target's.
      inputs: of the only input, or of named ones; what ``reading`` says is filled in.
      pools: the source's own splits, ``train`` among them.
      labels: gives the encoded targets of the ``train`` pool.
      parts: what `make_parts` returned, where it was called already.
      reading: what other sections say of how it is read.
      checked: with ``data.on_bad='skip'``, the splits that damaged examples were taken out of.
      skipped: where these were counted.
      beside: the ``group``, ``time`` and ``weight`` of each example of the ``train`` pool, where
        the data section names them.
      notes: what was left out, changed or guessed of the inputs, or can't be used; what was skipped
        is in ``skipped``.
      origins: see `Dataset`.
    """
    beside, origins = beside or {}, dict(origins or {})
    target_texts.check(coding, fields.source)
    if parts is None:
        parts = make_parts(pools, fields, coding, labels, beside)
    skipped = skipped or Skipped()
    _check_log(fields, inputs)
    _check_beam(fields, coding.task)
    on_bad = fields.on_bad
    if on_bad == "skip":
        for split in ("train", "validation"):
            if split not in checked:
                pool, rows = parts[split]
                rows = usable(pools[pool], rows, skipped, f"{fields.source}, {split}")
                parts = {**parts, split: (pool, rows)}
            check_left(parts[split][1], split, fields.source, skipped)
    sizes = {split: len(Records(pools[parts[split][0]], parts[split][1])) for split in SPLITS}
    weights = None
    if "weight" in beside:
        rows = parts["train"][1]
        weights = beside["weight"] if rows is None else beside["weight"][rows]
        check_weights(weights, f"{fields.source}, data.weight")
    spec = DataSpec(
        name=name,
        source=fields.source,
        task=coding.task,
        inputs=named.each(
            lambda one: dataclasses.replace(
                one,
                missing=reading.missing,
                missing_values=reading.missing_values,
                hash_buckets=reading.hash_buckets,
            ),
            inputs,
        ),
        sizes=sizes,
        class_names=coding.class_names,
        target_names=coding.outputs,
        target_shape=coding.shape,
        target_dtype=coding.dtype,
        pad=coding.pad,
        positions=coding.positions,
        target_text=coding.text,
        beam_width=fields.beam_width,
        decision=make_decision(
            coding.class_names,
            bool(coding.shape),
            fields.positive,
            fields.threshold,
            positions=coding.positions,
        ),
        notes=(
            *coding.notes,
            *notes,
            *_of_keys(fields, coding, sum(sizes.values())),
            *_of_both(fields, sizes),
        ),
    )
    if "split_by" in beside and fields.split_by != BY_PATH:
        origins["train"] = {**origins.get("train", {}), "key": beside["split_by"]}
    return Dataset(
        spec,
        pools=pools,
        parts=dict(parts),
        on_bad=on_bad,
        unchecked=frozenset({"test"} - set(checked) if on_bad == "skip" else ()),
        weights=weights,
        skips=skipped,
        origins=origins,
    )


def _of_keys(fields: DataFields, coding: Coding, size: int) -> tuple[Note, ...]:
    """Returns what a split by keys leaves undone of what the data section asks for."""
    if fields.split_by is None or not fields.stratify or coding.task == "regression":
        return ()
    what = f"data.split_by: splits go by the hash of {fields.split_by!r} and are not stratified"
    return (Note("guessed", what, size, "examples", (), "data.stratify=False says so."),)


def _of_both(fields: DataFields, sizes: Mapping[str, int]) -> tuple[Note, ...]:
    """Returns what can't be known where the validation split is trained on too."""
    if fields.train_on != BOTH:
        return ()
    what = f"data.train_on={BOTH!r}: validation metrics are of examples that were trained on"
    size = sizes["validation"]
    return (Note("changed", what, size, "examples", (), "Only the test split's tell of new ones."),)


def _check_beam(fields: DataFields, task: str) -> None:
    """Raises a `DataError` for a beam of a bundled task that decodes without one."""
    if fields.beam_width == 1 or task == TRANSCRIPTION or ":" in task:
        return
    instead = f"Set it to 1{', and model.beam_width instead' * (task == target_texts.TASK)}."
    raise DataError(
        f"data.beam_width: is {fields.beam_width}, which is for {TRANSCRIPTION}; this is a {task} "
        f"dataset. {instead}"
    )


def _check_log(fields: DataFields, inputs: InputSpec | Mapping[str, InputSpec]) -> None:
    """Raises a `DataError` where logarithms are to be taken of what float32 can't tell apart."""
    if fields.preprocess.scale != "log":
        return
    for one in named.by_name(inputs).values():
        names = one.feature_names or [f"feature {place}" for place in range(len(one.offsets))]
        close = [name for name, offset in zip(names, one.offsets) if offset]
        if close:
            raise DataError(
                f"{fields.source}: data.preprocess.scale='log': float32 can't tell the values of "
                f"{listing(map(repr, close))} apart, and less so their logarithms. Take "
                "'standard', or leave the columns out with data.ignore."
            )
