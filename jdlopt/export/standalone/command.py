"""The command ``python predict.py INPUT`` of a bundle: files in, a CSV of predictions out.

This file is part of every bundle's ``predict.py``: it imports the standard library and NumPy alone.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdlopt.export.standalone.answers import check, predict, rows_of
from jdlopt.export.standalone.examples import (
    PLAIN,
    Read,
    read_arrays,
    read_rows,
    read_tensors,
    shape_words,
)
from jdlopt.export.standalone.opening import ANSWER, Bundle, BundleError, InputError, open_bundle


def read_file(bundle: Bundle, path: Path) -> tuple[Read, list[str]]:
    """Returns the inputs of a file or folder, and what to call each example.

    Raises:
      InputError: it can't be read as inputs of this model.
    """
    ending = path.suffix.lower()
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder.")
    if path.is_dir() or ending in (".png", ".jpg", ".jpeg"):
        return _read_images(bundle, path)
    try:
        if ending == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
            names = [one.name for one in bundle.inputs]
            if len(names) == 1 and names[0] not in found:
                keys = [key for key in ("x", "inputs", "X") if key in found] or list(found)
                found = dict(zip(names, (found[key] for key in keys)))
            read = read_arrays(bundle, {n: v for n, v in found.items() if n in names})
        elif ending == ".json":
            request = json.loads(path.read_text("utf-8"))
            is_rows = isinstance(request, Mapping) and "rows" in request
            of_rows = read_rows(bundle, rows_of(request)) if is_rows else None
            read = of_rows or read_tensors(bundle, request)
        elif ending in (".csv", ".tsv"):
            read = read_rows(bundle, _read_csv(path))
        else:
            raise InputError("expected a .csv, .tsv, .npz or .json file, or images")
    except (InputError, ValueError, OSError, EOFError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from error
    size = len(next(iter(read.arrays.values())))
    return read, [str(row) for row in range(size)]


def _read_csv(path: Path) -> list[dict[str, str | None]]:
    raw = path.read_bytes()
    text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    csv.field_size_limit(1 << 30)
    first, _, rest = text.partition("\n")
    said = re.fullmatch(r'"?sep=(.)"?\r?', first, re.IGNORECASE)
    text = rest if said else text
    header = next((line for line in text.splitlines() if line.strip()), "")
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    others = max(",;\t|", key=header.count)
    separator = said[1] if said else usual if usual in header or not header else others
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    rows = [row for row in lines if len(row) > 1 or any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise InputError("is empty: expected a header and rows")
    names = rows[0]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise InputError(f"more than one column is called {twice[0]!r}")
    for place, row in enumerate(rows[1:], start=1):
        if len(row) > len(names) and any(cell.strip() for cell in row[len(names) :]):
            raise InputError(f"row {place} has {len(row)} values, and the header {len(names)}")
    return [dict(zip(names, [*row, *[None] * len(names)])) for row in rows[1:]]


def _read_images(bundle: Bundle, path: Path) -> tuple[Read, list[str]]:
    one = bundle.inputs[0]
    if len(bundle.inputs) > 1 or one.dtype != "uint8" or one.shape[2:] not in ((1,), (3,)):
        raise InputError(f"{path}: the model takes no images: {shape_words(one)}.")
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError("images need Pillow: `pip install pillow`; or give an .npz.") from error
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    files = files if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: holds no .png or .jpg.")
    made, mode = [], "L" if one.shape[2] == 1 else "RGB"
    for file in files:
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                if image.mode not in ("L", "RGB") or image.getexif().get(274, 1) != 1:
                    raise InputError(f"has mode {image.mode}, or is turned; expected 8 bits of "
                                     "grey or RGB, upright")  # fmt: skip
                shown = image.convert(mode)
                size = (one.shape[1], one.shape[0])
                shown = (
                    shown if shown.size == size else shown.resize(size, Image.Resampling.BILINEAR)
                )
                made.append(np.asarray(shown).reshape(one.shape))
        except (InputError, OSError, ValueError) as error:
            raise InputError(f"{file}: {error}.") from error
    names = [file.relative_to(path).as_posix() if path.is_dir() else file.name for file in files]
    return read_arrays(bundle, {one.name: np.stack(made)}), names


def _cell(value: Any) -> Any:
    """Returns a value for a CSV; a spreadsheet takes no text of it for a formula."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    return value if PLAIN.fullmatch(value) else f"'{value}"


def main(words: Sequence[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 where the input or the bundle is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("input", nargs="?", help="a .csv, .npz or .json file, or images")
    parser.add_argument("--check", action="store_true", help="compare the example's answer")
    flags = parser.parse_args(words)
    try:
        bundle = open_bundle(Path(__file__).resolve().parent)
        if flags.check:
            check(bundle)
            sys.stdout.write(f"{ANSWER}: this machine gives the same answer.\n")
        elif flags.input is None:
            parser.error("INPUT is missing")
        else:
            read, ids = read_file(bundle, Path(flags.input))
            columns = {"row": ids, **predict(bundle, read.arrays)}
            sys.stderr.writelines(f"{note}\n" for note in read.notes)
            writer = csv.writer(sys.stdout)
            writer.writerow(map(_cell, columns))
            writer.writerows(map(_cell, row) for row in zip(*columns.values()))
    except (BundleError, InputError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0
