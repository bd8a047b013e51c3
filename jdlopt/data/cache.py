"""Where prepared datasets lie, and how two processes share that place."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jdlopt import writing
from jdlopt.errors import DataError

INFO = "dataset_info.json"
"""A folder is a prepared dataset if it holds this file; TFDS writes it last."""

_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.+-]+))?(:(?P<version>\d+\.\d+\.\d+))?")


def data_dir(chosen: str | None) -> Path:
    """Returns the folder that datasets are prepared in.

    It is ``data.data_dir``, else ``$TFDS_DATA_DIR``, else ``jdlopt/tensorflow_datasets`` in
    ``$XDG_CACHE_HOME`` or ``~/.cache``; without a home, a folder of this process.
    """
    if chosen or os.environ.get("TFDS_DATA_DIR"):
        return writing.expanded(chosen or os.environ["TFDS_DATA_DIR"])
    return (writing.user_cache() or _of_this_process()) / "jdlopt" / "tensorflow_datasets"


@functools.cache
def _of_this_process() -> Path:
    """A folder for a user without a home, which goes with the process."""
    folder = tempfile.mkdtemp(prefix="jdlopt-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def search_dirs(chosen: str | None) -> list[Path]:
    """Returns the folders to look for prepared datasets in: `data_dir`, and TFDS's own default."""
    folders = [data_dir(chosen)]
    if not chosen and not os.environ.get("TFDS_DATA_DIR"):
        folders.append(writing.expanded("~/tensorflow_datasets"))
    return folders


def parse_name(source: str) -> tuple[str, str | None, str | None] | None:
    """Splits ``name/config:version`` into its parts; None if it is no dataset name at all.

    Example:
      >>> parse_name("glue/cola:2.0.0"), parse_name("mnist"), parse_name("../mnist")
      (('glue', 'cola', '2.0.0'), ('mnist', None, None), None)
    """
    match = _NAME.fullmatch(source)
    return (match["name"], match["config"], match["version"]) if match else None


def prepared_folder(source: str, chosen: str | None) -> Path | None:
    """Returns the folder of a prepared dataset, of its newest version, or None."""
    parts = parse_name(source)
    if parts is None:
        return None
    name, config, version = parts
    for root in search_dirs(chosen):
        folders = _versions(root / name / (config or "."))
        if not folders and config is None and (root / name).is_dir():
            configs = [entry for entry in sorted((root / name).iterdir()) if _versions(entry)]
            if len(configs) > 1:
                names = ", ".join(f"{name}/{entry.name}" for entry in configs)
                raise DataError(f"data.source {source!r}: which config of it? Prepared: {names}.")
            folders = _versions(configs[0]) if configs else []
        if version is not None:
            folders = [folder for folder in folders if folder.name == version]
        if folders:
            return folders[-1]
    return None


def _versions(folder: Path) -> list[Path]:
    """Returns the prepared versions in a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = [
        entry
        for entry in folder.iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", entry.name) and (entry / INFO).is_file()
    ]
    return sorted(found, key=lambda entry: [int(part) for part in entry.name.split(".")])


def prepared_folders(chosen: str | None) -> Iterator[Path]:
    """Yields the newest version of each prepared dataset that can be found."""
    for root in search_dirs(chosen):
        if not root.is_dir():
            continue
        for dataset in sorted(entry for entry in root.iterdir() if entry.is_dir()):
            if dataset.name.startswith(".") or dataset.name == "downloads":
                continue
            for folder in [
                dataset,
                *sorted(entry for entry in dataset.iterdir() if entry.is_dir()),
            ]:
                yield from _versions(folder)[-1:]


@contextlib.contextmanager
def exclusive(root: Path, name: str) -> Iterator[None]:
    """Lets one process at a time prepare the dataset ``name`` in a data folder.

    The lock is the operating system's: it goes when its process does, however that ends.

    Raises:
      DataError: the folder can't be made or written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = writing.lock_file(root / f".{name}.lock")
    except OSError as error:
        raise DataError(
            f"{root}: datasets are prepared here, and it can't be written to ({error.strerror}). "
            "Set data.data_dir or TFDS_DATA_DIR to a folder that can."
        ) from error
    with lock:
        try:
            import fcntl
        except ImportError:  # not POSIX: the rename that follows still lets one process win
            pass
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
