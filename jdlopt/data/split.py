"""Hold-out splits and folds: which example goes to which split, as a function of a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Num

from jdlopt.data import key_split
from jdlopt.data.hold_out import held_out
from jdlopt.data.stratification import dealt
from jdlopt.errors import DataError, listing

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset", "traindata"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("validationset", "validset", "valset", "devset"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "testingset", "testdata"), "test"),
}
"""What splits are called, in small letters and without what stands between words."""
Indices = Int[np.ndarray, "_"]


def split_named(name: str) -> str | None:
    """Returns the split that a name means, in whatever letters; None if it means none.

    Example:
      >>> split_named("Testing"), split_named("val"), split_named("training_set"), split_named("x")
      ('test', 'validation', 'train', None)
    """
    return SPLIT_NAMES.get("".join(one for one in name.lower() if one not in "-_ ."))


def split_indices(
    size: int,
    *,
    labels: Int[np.ndarray, " size"] | Int[np.ndarray, "size labels"] | None,
    test_fraction: float | None,
    validation_fraction: float | None,
    seed: int,
    where: str = "data",
    class_names: Sequence[str] = (),
    fold: tuple[int, int] | None = None,
    groups: Int[np.ndarray, " size"] | None = None,
    times: Num[np.ndarray, " size"] | None = None,
    keys: Sequence[str] | None = None,
) -> dict[str, Indices]:
    """Splits ``size`` examples into train and, where a fraction is given, validation and test.

    The test split is drawn first, so that it is the same whatever the validation fraction. Only the
    labels, groups or times are looked at; no input is.

    Args:
      size: the number of examples.
      labels: the class of each example (or the bin of its value, see `binned`) for a stratified
        split, or which labels it has, 0 and 1, for an iterative one (`dealt`); None for a plain
        shuffled one.
      test_fraction: the test split's share of all examples; None makes no test split.
      validation_fraction: the validation split's share of the examples that are not test; None
        makes no validation split.
      seed: equal seeds give equal splits.
      where: names the source, for messages.
      class_names: names the classes, for messages.
      fold: (folds, which): the validation split is one of scikit-learn's folds of what is not test
        (``StratifiedKFold`` with labels, else ``KFold``, shuffled by the seed), whatever
        ``validation_fraction`` says.
      groups: the group of each example; no group is in two splits. The fractions are then shares of
        the groups (``GroupShuffleSplit``), and folds are ``StratifiedGroupKFold``'s, or
        ``GroupKFold``'s, which no seed shuffles, without labels.
      times: when each example was made: the test split is the latest, before it lies validation,
        before that train, and equal times stay together, so that no split is trained on what came
        after it. Nothing is drawn.
      keys: the key of each example, whose hash with the seed alone says which split it is in (see
        `jdlopt.data.key_split`): the fractions are expected ones, of the keys; labels decide on
        nothing.

    Returns:
      Sorted, disjoint indices for each split; together they are ``0 … size - 1``.

    Raises:
      DataError: a split would be empty, or a class has too few examples to be in every split.

    Example:
      >>> fractions = {"test_fraction": 0.2, "validation_fraction": 0.25}
      >>> splits = split_indices(10, labels=None, seed=0, **fractions)
      >>> {name: len(indices) for name, indices in splits.items()}
      {'train': 6, 'test': 2, 'validation': 2}
      >>> split_indices(5, labels=None, seed=0, times=np.array([3, 9, 1, 9, 2]), **fractions)
      {'train': array([2, 4]), 'test': array([1, 3]), 'validation': array([0])}
    """
    if fold is not None:
        validation_fraction = None
    fractions = {"test": test_fraction, "validation": validation_fraction}
    wanted = {name: fraction for name, fraction in fractions.items() if fraction is not None}
    _check_asked(groups, times, fold, keys)
    of_classes = labels is not None and labels.ndim == 1
    drawn = groups is None and times is None and keys is None
    if labels is not None and of_classes and drawn:
        parts = 1 + len(wanted) + (0 if fold is None else fold[0] - 1)
        _check_classes(labels, parts=parts, where=where, class_names=class_names)
    splits = {}
    train = np.arange(size)
    for name, fraction in wanted.items():
        if keys is not None:
            some = [keys[place] for place in train.tolist()]
            held = key_split.held_out(some, fraction, seed, name, where)
            train, splits[name] = _apart(train, held)
        elif times is not None:
            train, splits[name] = _latest(train, times, fraction, name, where)
        elif groups is not None:
            train, splits[name] = _hold_out_groups(train, groups, fraction, seed, name, where)
        else:
            train, splits[name] = _hold_out(train, labels, fraction, seed, name, where)
    if fold is not None and keys is not None:
        held = key_split.fold_of([keys[place] for place in train.tolist()], *fold, seed, where)
        train, splits["validation"] = _apart(train, held)
    elif fold is not None:
        train, splits["validation"] = _fold(
            train, labels, *fold, seed, where, groups=groups, class_names=class_names
        )
    if labels is not None and of_classes and not drawn:
        _check_trained(labels, train, where, class_names)
    return {"train": train, **splits}


def _check_asked(groups: object, times: object, fold: tuple[int, int] | None, keys: object) -> None:
    if keys is not None and (groups is not None or times is not None):
        key = "group" if groups is not None else "time"
        raise DataError(f"data.split_by and data.{key}: a split goes by one of them.")
    if groups is not None and times is not None:
        raise DataError("data.group and data.time: a split goes by one of them; leave one out.")
    if times is not None and fold is not None:
        raise DataError(
            "data.folds: with data.time a fold would be trained on what came after it. Leave "
            "data.folds out: train, validation and test then follow one another in time."
        )


def _fold(
    indices: Indices,
    labels: np.ndarray | None,
    folds: int,
    which: int,
    seed: int,
    where: str,
    groups: np.ndarray | None,
    class_names: Sequence[str],
) -> tuple[Indices, Indices]:
    from sklearn import model_selection

    members = indices if groups is None else np.unique(groups[indices])
    if folds > len(members):
        what = "examples" if groups is None else "groups"
        raise DataError(f"data.folds: {where} has {len(members)} {what} for {folds} folds.")
    if labels is not None and labels.ndim == 2:
        if groups is None:
            return _apart(indices, dealt(labels[indices], (1 / folds,) * folds, seed) == which)
        labels = None
    made: Any
    if groups is None:
        splitter = model_selection.KFold if labels is None else model_selection.StratifiedKFold
        made = splitter(folds, shuffle=True, random_state=seed)
    elif labels is None:
        made = model_selection.GroupKFold(folds)
    else:
        _check_classes(labels[indices], folds, where, class_names)
        made = model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    pairs = made.split(
        indices,
        None if labels is None else labels[indices],
        *([] if groups is None else [groups[indices]]),
    )
    kept, held = list(pairs)[which]
    if not len(kept) or not len(held):
        raise DataError(
            f"data.folds: {where}: fold {which} of {folds} would leave a split empty, so unequal "
            f"are the groups. Use fewer folds."
        )
    return indices[kept], indices[held]


def _apart(indices: Indices, held: Bool[np.ndarray, "_"]) -> tuple[Indices, Indices]:
    """Returns what is kept and what is held out."""
    return indices[~held], indices[held]


def _hold_out(
    indices: Indices, labels: np.ndarray | None, fraction: float, seed: int, name: str, where: str
) -> tuple[Indices, Indices]:
    if labels is not None and labels.ndim == 2:
        held = dealt(labels[indices], (1 - fraction, fraction), seed) == 1
        if held.any() and not held.all():
            return _apart(indices, held)
        labels = None  # so few examples that a plain split says what is wrong
    stratify = None if labels is None else labels[indices]
    drawn = held_out(len(indices), fraction, seed, stratify)
    if drawn is not None:
        return _apart(indices, drawn)
    from sklearn.model_selection import train_test_split

    try:  # it says what is wrong
        kept, held = train_test_split(
            indices, test_size=fraction, random_state=seed, stratify=stratify
        )
    except ValueError as error:
        raise DataError(
            f"{where}: {len(indices)} examples can't give data.{name}_fraction={fraction:g} to the "
            f"{name} split: {error} Use more examples, another fraction, or data.stratify=False."
        ) from error
    return np.sort(kept), np.sort(held)


def _hold_out_groups(
    indices: Indices, groups: np.ndarray, fraction: float, seed: int, name: str, where: str
) -> tuple[Indices, Indices]:
    from sklearn.model_selection import GroupShuffleSplit

    splitter = GroupShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    try:
        kept, held = next(splitter.split(indices, groups=groups[indices]))
    except ValueError as error:
        raise DataError(
            f"{where}: {len(np.unique(groups[indices]))} groups can't give "
            f"data.{name}_fraction={fraction:g} to the {name} split: {error} Use more groups, or "
            "another fraction."
        ) from error
    return indices[np.sort(kept)], indices[np.sort(held)]


def _latest(
    indices: Indices, times: np.ndarray, fraction: float, name: str, where: str
) -> tuple[Indices, Indices]:
    """Cuts where the fraction asks for it, or at the nearest place between two different times."""
    order = indices[np.argsort(times[indices], kind="stable")]
    sorted_times = times[order]
    cuts = 1 + np.flatnonzero(sorted_times[1:] != sorted_times[:-1])
    if not len(cuts):
        raise DataError(
            f"{where}: {len(order)} examples of {len(np.unique(sorted_times))} different times "
            f"can't give data.{name}_fraction={fraction:g} to the {name} split. Use more examples, "
            "or leave data.time out."
        )
    wanted = len(order) - int(np.ceil(len(order) * fraction))
    cut = cuts[np.argmin(np.abs(cuts - wanted))]
    return np.sort(order[:cut]), np.sort(order[cut:])


def _check_classes(
    labels: np.ndarray, parts: int, where: str, class_names: Sequence[str] = ()
) -> None:
    classes, counts = np.unique(labels, return_counts=True)
    rare = [
        f"{_name(label, class_names)} ({count})"
        for label, count in zip(classes, counts, strict=True)
        if count < parts
    ]
    if rare:
        raise DataError(
            f"{where}: too few examples of a class for a stratified split into {parts} parts, "
            f"which needs at least {parts} of each class: {listing(rare)}. Add examples, leave "
            "the class out or merge it with another, or set data.stratify=False."
        )


def _check_trained(
    labels: np.ndarray, train: Indices, where: str, class_names: Sequence[str]
) -> None:
    unseen = np.setdiff1d(labels, labels[train])
    if len(unseen):
        raise DataError(
            f"{where}: no training example is left of {len(unseen)} classes: "
            f"{listing(_name(label, class_names) for label in unseen)}. Choose another "
            "data.split_seed or fraction, or set data.stratify=False to go on without."
        )


def _name(label: Any, class_names: Sequence[str]) -> str:
    return class_names[label] if 0 <= label < len(class_names) else str(label)
