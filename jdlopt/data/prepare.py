"""Prepare a public TFDS dataset as ArrayRecord, once: ``python -m jdlopt.data.prepare mnist``.

TensorFlow is needed for this (the ``tf`` extra), and not for training on the dataset afterwards.
With ``--files=FOLDER``, files that were downloaded by other means are used, and nothing is fetched
for them: a file is recognised by the name that it has at the end of its address.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from jdlopt import writing
from jdlopt.data.cache import data_dir, exclusive, parse_name, prepared_folder
from jdlopt.errors import DataError, UserError, nearest


def prepare(
    source: str, root: Path, files: Path | None = None, accept_changed_files: bool = False
) -> Path:
    """Prepares a TFDS dataset under a data folder; the work is skipped if it is there already.

    Args:
      source: a TFDS name, ``name``, ``name/config`` or ``name/config:version``.
      root: the data folder.
      files: a folder with downloads that are already here.
      accept_changed_files: use such a file although it is not byte for byte the one that TFDS
        knows, for instance because it was compressed anew.

    Returns:
      The prepared dataset's folder.

    Raises:
      DataError: an unknown name, a file that differs, or whatever TFDS fails with.
    """
    parts = parse_name(source)
    if parts is None:
        raise DataError(f"{source!r} is not a TFDS name; expected name, name/config or name:1.0.0.")
    ready = prepared_folder(source, str(root))
    if ready is not None:
        return ready
    import tensorflow_datasets as tfds

    with exclusive(root, f"{parts[0]}.tfds"):
        try:
            builder = tfds.builder(source, data_dir=str(root), file_format="array_record")
        except tfds.core.DatasetNotFoundError as error:
            hint = nearest(parts[0], tfds.list_builders(with_community_datasets=False))
            raise DataError(f"TFDS has no dataset {source!r}.{hint}") from error
        # Local files get a download folder of their own, so that TFDS never takes a changed one
        # for the file that it knows in a later preparation.
        scratch = None if files is None else Path(tempfile.mkdtemp(prefix=".downloads.", dir=root))
        try:
            if files is not None and scratch is not None:
                use_files(builder, scratch, files, accept_changed_files)
            builder.download_and_prepare(
                download_dir=None if scratch is None else str(scratch),
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        except DataError:
            raise
        except Exception as error:  # a builder's own code: anything can come out of it
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"preparing {source!r} failed: {' '.join(reason.split())}") from error
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
    return Path(builder.data_dir)


def use_files(builder: Any, downloads: Path, files: Path, accept_changed_files: bool) -> None:
    """Puts local files where TFDS keeps its downloads, after comparing checksums.

    Args:
      builder: the TFDS builder that will ask for them.
      downloads: the folder that it will be given for its downloads.
      files: the folder with the files.
      accept_changed_files: use a file although its checksum differs, with a warning.

    Raises:
      DataError: a file differs, or the folder holds none that the builder asks for.
    """
    from tensorflow_datasets.core.download import checksums, resource

    used = 0
    for url, expected in builder.url_infos.items():
        local = files / (expected.filename or url.rsplit("/", 1)[-1])
        if not local.is_file():
            continue
        found = checksums.compute_url_info(local)
        if found != expected and not accept_changed_files:
            raise DataError(
                f"{local}: has {found.size} and SHA-256 {found.checksum[:12]}…, where TFDS "
                f"expects {expected.size} and {expected.checksum[:12]}…. If you trust the file "
                "(it may be compressed anew), add --accept_changed_files."
            )
        if found != expected:
            print(f"warning: {local} is not the file that TFDS knows; it is used", file=sys.stderr)
        cached = downloads / builder.name / resource.get_dl_fname(url, expected.checksum)
        cached.parent.mkdir(parents=True, exist_ok=True)
        with local.open("rb") as given, writing.aside(cached, binary=True) as copy:
            shutil.copyfileobj(given, copy)
        info = {
            "dataset_names": [builder.name],
            "original_fname": local.name,
            "url_info": expected.asdict(),
            "urls": [url],
        }
        writing.write_aside(Path(resource.get_info_path(cached)), json.dumps(info))
        used += 1
    if not used:
        names = sorted({info.filename or "" for info in builder.url_infos.values()})
        raise DataError(f"{files}: holds none of the files that {builder.name} needs: {names}.")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code: 0 done, 2 wrong input."""
    parser = argparse.ArgumentParser(prog="python -m jdlopt.data.prepare", description=__doc__)
    parser.add_argument("source", help="TFDS name: name, name/config or name:version")
    parser.add_argument("--data_dir", help="folder to prepare it in")
    parser.add_argument("--files", type=Path, help="folder with files downloaded already")
    parser.add_argument(
        "--accept_changed_files",
        action="store_true",
        help="use such files although their checksums differ",
    )
    options = parser.parse_args(arguments)
    try:
        root = data_dir(options.data_dir)
        folder = prepare(options.source, root, options.files, options.accept_changed_files)
    except UserError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
