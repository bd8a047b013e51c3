"""Hold-out splits and folds: which example goes to which split, as a function of a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jdlopt.errors import DataError, listing

Indices = Int[np.ndarray, " some"]


def split_indices(
    size: int,
    *,
    labels: Int[np.ndarray, " size"] | None,
    test_fraction: float | None,
    validation_fraction: float | None,
    seed: int,
    where: str = "data",
    class_names: Sequence[str] = (),
    fold: tuple[int, int] | None = None,
) -> dict[str, Indices]:
    """Splits ``size`` examples into train and, where a fraction is given, validation and test.

    The test split is drawn first, so that it is the same whatever the validation fraction. Only the
    labels are looked at, to give each split every class's share; no input is.

    Args:
      size: the number of examples.
      labels: the class of each example for a stratified split; None for a plain shuffled one.
      test_fraction: the test split's share of all examples; None makes no test split.
      validation_fraction: the validation split's share of the examples that are not test; None
        makes no validation split.
      seed: equal seeds give equal splits.
      where: names the source, for messages.
      class_names: names the classes, for messages.
      fold: (folds, which): the validation split is one of scikit-learn's folds of what is not test
        (``StratifiedKFold`` with labels, else ``KFold``, shuffled by the seed), whatever
        ``validation_fraction`` says.

    Returns:
      Sorted, disjoint indices for each split; together they are ``0 … size - 1``.

    Raises:
      DataError: a split would be empty, or a class has too few examples to be in every split.

    Example:
      >>> fractions = {"test_fraction": 0.2, "validation_fraction": 0.25}
      >>> splits = split_indices(10, labels=None, seed=0, **fractions)
      >>> {name: len(indices) for name, indices in splits.items()}
      {'train': 6, 'test': 2, 'validation': 2}
    """
    if fold is not None:
        validation_fraction = None
    fractions = {"test": test_fraction, "validation": validation_fraction}
    wanted = {name: fraction for name, fraction in fractions.items() if fraction is not None}
    if labels is not None:
        parts = 1 + len(wanted) + (0 if fold is None else fold[0] - 1)
        _check_classes(labels, parts=parts, where=where, class_names=class_names)
    splits = {}
    train = np.arange(size)
    for name, fraction in wanted.items():
        train, splits[name] = _hold_out(train, labels, fraction, seed, name, where)
    if fold is not None:
        train, splits["validation"] = _fold(train, labels, *fold, seed, where)
    return {"train": train, **splits}


def _fold(
    indices: Indices, labels: np.ndarray | None, folds: int, which: int, seed: int, where: str
) -> tuple[Indices, Indices]:
    from sklearn.model_selection import KFold, StratifiedKFold

    if folds > len(indices):
        raise DataError(f"data.folds: {where} has {len(indices)} examples for {folds} folds.")
    splitter = KFold if labels is None else StratifiedKFold
    made = splitter(folds, shuffle=True, random_state=seed)
    pairs = list(made.split(indices, None if labels is None else labels[indices]))
    kept, held = pairs[which]
    return indices[kept], indices[held]


def _hold_out(
    indices: Indices, labels: np.ndarray | None, fraction: float, seed: int, name: str, where: str
) -> tuple[Indices, Indices]:
    from sklearn.model_selection import train_test_split  # takes a second to import

    stratify = None if labels is None else labels[indices]
    try:
        kept, held = train_test_split(
            indices, test_size=fraction, random_state=seed, stratify=stratify
        )
    except ValueError as error:
        raise DataError(
            f"{where}: {len(indices)} examples can't give data.{name}_fraction={fraction:g} to the "
            f"{name} split: {error} Use more examples, another fraction, or data.stratify=False."
        ) from error
    return np.sort(kept), np.sort(held)


def _check_classes(
    labels: np.ndarray, parts: int, where: str, class_names: Sequence[str] = ()
) -> None:
    classes, counts = np.unique(labels, return_counts=True)
    rare = [
        f"{class_names[label] if 0 <= label < len(class_names) else label!s} ({count})"
        for label, count in zip(classes, counts, strict=True)
        if count < parts
    ]
    if rare:
        raise DataError(
            f"{where}: too few examples of a class for a stratified split into {parts} parts, "
            f"which needs at least {parts} of each class: {listing(rare)}. Add examples, leave "
            "the class out or merge it with another, or set data.stratify=False."
        )
