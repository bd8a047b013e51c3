"""Folders by the names of classes, and of splits above or below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from jdlopt.data.label_file import LABELS
from jdlopt.data.notation import alike
from jdlopt.data.split import split_named
from jdlopt.data.walk import (
    IN_HIDDEN,
    FileKind,
    PassedOver,
    entries,
    files_under,
    identities,
    identity,
    is_aside,
    refuse_same,
    why_not,
)
from jdlopt.errors import DataError, listing, nearest

ByClass = dict[str, list[Path]]
SPLITS_WITHIN = "files of subfolders that are named like splits are read as part of their class"


class ClassFolders(NamedTuple):
    """The files of classes.

    Attributes:
      classes: their names, sorted: those that ``train`` has.
      files: split → class → its files. ``train`` is always there.
    """

    classes: tuple[str, ...]
    files: dict[str, ByClass]


def read_class_folders(folder: Path, kind: FileKind, passed: PassedOver) -> ClassFolders:
    """Returns the files of ``CLASS/…``, of ``SPLIT/CLASS/…``, or of ``CLASS/SPLIT/…``.

    A file is of the class whose folder it lies in, however deep. Files are listed class by class,
    each sorted by path. Splits may have any of the names that `jdlopt.data.split.split_named`
    knows.

    Args:
      folder: the folder.
      kind: the files that count.
      passed: where the other files are counted.

    Raises:
      DataError: no class folders, a class without files, a class that ``train`` does not have; two
        folders of one split, or two links to one folder.
    """
    roots = _split_folders(folder, kind, passed)
    files = {split: _class_files(root, split, kind, passed) for split, root in roots.items()}
    for split in [split for split, by_class in files.items() if not by_class and split != "train"]:
        what = f"the folder of a split, which holds no {kind.name}"
        passed.notes.add("left out", what, str(roots[split]), 1, "splits")
        del files[split]
    classes = tuple(files["train"])
    if len(classes) < 2:
        why = f" Passed over: {passed}." if str(passed) else ""
        raise DataError(
            f"{roots['train']}: found {len(classes)} class folders ({listing(classes) or 'none'}), "
            f"expected at least 2, each with its {kind.name}s, or a file {LABELS}.{why}"
        )
    for split, by_class in files.items():
        unknown = [name for name in by_class if name not in classes]
        if unknown:
            raise DataError(
                f"{roots[split]}: classes that train/ does not have: {listing(unknown)}."
                f"{nearest(unknown[0], classes)}"
            )
    for group in alike(classes):
        what = "class folders whose names differ only in case or spaces are different classes"
        remedy = "Put their files together if they are one class."
        passed.notes.add(
            "guessed", what, ", ".join(map(repr, group)), len(group), "classes", remedy
        )
    return ClassFolders(classes, _by_subfolder(files, roots, kind, passed))


def _split_folders(folder: Path, kind: FileKind, passed: PassedOver) -> dict[str, Path]:
    """Returns the folder of each split; the folder itself is ``train`` if it has none of these.

    A folder by a split's name that holds no folder is a class of that name.
    """
    named: dict[str, list[Path]] = {}
    for path in _subfolders(folder, kind, PassedOver()):
        split = split_named(path.name)
        if split is not None and _subfolders(path, kind, PassedOver()):
            named.setdefault(split, []).append(path)
    if not named:
        return {"train": folder}
    for split, paths in named.items():
        if len(paths) > 1:
            names = listing(path.name for path in paths)
            raise DataError(
                f"{folder}: has several folders for the split {split!r}: {names}. Leave one, or "
                "put their files together."
            )
    if "train" not in named:
        names = listing(path.name for paths in named.values() for path in paths)
        raise DataError(
            f"{folder}: has a folder for test or validation ({names}) but none called train."
        )
    roots = {split: paths[0] for split, paths in named.items()}
    refuse_same({path.name: path for path in roots.values()}, folder)
    for path in _subfolders(folder, kind, passed, f"{kind.name}s beside the folders of splits"):
        if path not in roots.values():
            passed.folder("files in folders that are no split with class folders in it", path)
    return roots


def _class_files(root: Path, split: str, kind: FileKind, passed: PassedOver) -> ByClass:
    """Returns the files of each class of a split; of others than ``train`` some may have none."""
    beside = f"{kind.name}s beside the class folders"
    folders = {path.name: path for path in _subfolders(root, kind, passed, beside)}
    refuse_same(folders, root)
    found: ByClass = {}
    for name, path in folders.items():
        found[name] = files_under(path, kind, passed, above=(root,))
        if not found[name] and split == "train":
            here = PassedOver()
            files_under(path, kind, here, above=(root,))
            why = f" Passed over: {here}." if str(here) else ""
            raise DataError(
                f"{path}: the class folder holds no {kind.name} ({listing(kind.suffixes)}). "
                f"Remove it, or put the {kind.name}s in it.{why}"
            )
    return {name: paths for name, paths in found.items() if paths}


def _subfolders(
    folder: Path, kind: FileKind, passed: PassedOver, beside: str = "files beside the folders"
) -> list[Path]:
    """Returns the folders in a folder; files that lie there are passed over, as ``beside`` says."""
    there, found = entries(folder), []
    above = identities((folder,))
    for entry in there:
        path = Path(entry.path)
        if not path.is_dir():
            passed.file(why_not(path, kind) or beside, path)
        elif is_aside(entry.name):
            passed.folder(IN_HIDDEN, path)
        elif identity(path) in above:
            passed.file("links to a folder that holds them", path)
        else:
            found.append(path)
    return found


def _by_subfolder(
    files: dict[str, ByClass], roots: Mapping[str, Path], kind: FileKind, passed: PassedOver
) -> dict[str, ByClass]:
    """Returns the files by split, as the classes' subfolders say it where they alone do.

    Otherwise files in subfolders are of the class above, which is noted.
    """
    inner: list[tuple[str | None, str, Path]] = []  # the split by a subfolder's name, if it has one
    deep: set[Path] = set()
    for split, by_class in files.items():
        for name, paths in by_class.items():
            for path in paths:
                parts = path.relative_to(roots[split] / name).parts
                inner.append((split_named(parts[0]) if len(parts) > 1 else None, name, path))
                if len(parts) > 1:
                    deep.add(path)
    named = [path for split, _, path in inner if split is not None]
    trained = {name for split, name, _ in inner if split == "train"}
    if len(named) == len(inner) and list(files) == ["train"] and trained == set(files["train"]):
        made: dict[str, ByClass] = {}
        for of_split, name, path in inner:
            assert of_split is not None
            made.setdefault(of_split, {}).setdefault(name, []).append(path)
        what = "the splits are the subfolders of classes"
        passed.notes.add("guessed", what, "", len(inner), "files")
        return made
    remedy = "Folders of splits hold those of classes, as train/CLASS."
    _note_folders(named, SPLITS_WITHIN, passed, remedy)
    _note_folders(deep - set(named), f"{kind.name}s in subfolders are of the class above", passed)
    return files


def _note_folders(paths: Collection[Path], what: str, passed: PassedOver, remedy: str = "") -> None:
    """Notes what was guessed of files, folder by folder."""
    for place, count in sorted(Counter(str(path.parent) for path in paths).items()):
        passed.notes.add("guessed", what, place, count, "files", remedy)
