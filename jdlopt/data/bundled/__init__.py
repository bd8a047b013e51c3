"""The datasets that ship: one TFDS builder each, prepared into a cache when first opened."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdlopt.data.cache import INFO, data_dir, exclusive
from jdlopt.errors import DataError

VERSION = "1.0.0"


class Bundled(NamedTuple):
    """What `list_datasets` says about a bundled dataset without preparing it."""

    description: str
    task: str
    sizes: dict[str, int]


BUNDLED = {
    "mnist1d": Bundled(
        "Ten classes of noisy, shifted 40-point signals: a small task that tells linear models, "
        "MLPs and CNNs apart.",
        "classification",
        {"train": 4000, "test": 1000},
    ),
    "digits": Bundled(
        "Handwritten digits as 8x8 grey images with values 0 to 16.",
        "classification",
        {"train": 1797},
    ),
    "iris": Bundled(
        "Three species of iris by four lengths and widths of their flowers.",
        "classification",
        {"train": 150},
    ),
    "wine": Bundled(
        "Three growers' wines by thirteen chemical measurements.",
        "classification",
        {"train": 178},
    ),
    "breast_cancer": Bundled(
        "Malignant and benign tumours by thirty measurements of their cell nuclei.",
        "classification",
        {"train": 569},
    ),
    "diabetes": Bundled(
        "The progress of diabetes a year on, from ten measurements of a patient.",
        "regression",
        {"train": 442},
    ),
    "shapes": Bundled(
        "Made colour images of 48x48 pixels with circles, squares and triangles that overlap, and "
        "a mask that has the class of each pixel.",
        "segmentation",
        {"train": 1600, "test": 400},
    ),
    "tone_digits": Bundled(
        "Made sound of one to five digits, each two tones at once as on a telephone's keys, and "
        "what is said.",
        "transcription",
        {"train": 600, "test": 150},
    ),
}


def prepare_bundled(name: str, chosen_data_dir: str | None) -> Path:
    """Returns the folder of a bundled dataset's ArrayRecord files, writing them if need be.

    They are written beside their final place and renamed, so that a reader sees all of them or
    none; of processes that need them at the same time, one writes and the others wait.

    Raises:
      DataError: the data folder can't be written to.
    """
    root, stored = data_dir(chosen_data_dir), _stored(name)
    final = bundled_folder(name, chosen_data_dir)
    if (final / INFO).is_file():
        return final
    with exclusive(root, stored):
        if (final / INFO).is_file():
            return final
        for abandoned in root.glob(f".{stored}.*.preparing"):  # by a process that was killed
            shutil.rmtree(abandoned, ignore_errors=True)
        try:
            _write(name, root, final)
        except OSError as error:
            if not (final / INFO).is_file():
                raise DataError(
                    f"{root}: preparing the dataset {name!r} failed: {error}. Make room or set "
                    "data.data_dir or TFDS_DATA_DIR to another folder."
                ) from error
    return final


def _stored(name: str) -> str:
    return f"jdlopt_{name}"  # the public TFDS has an `iris` of its own


def bundled_folder(name: str, chosen_data_dir: str | None) -> Path:
    """Returns the folder that a bundled dataset is written to, whether it is there or not."""
    return data_dir(chosen_data_dir) / _stored(name) / VERSION


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Leaves the global random states of Python and NumPy as they were.

    Generators seed them, and libraries draw from them when they are first imported.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _write(name: str, root: Path, final: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".jdlopt_{name}.", suffix=".preparing", dir=root))
    try:
        module = importlib.import_module(f"jdlopt.data.bundled.{name}.builder")
        builder = module.Builder(data_dir=str(scratch), file_format="array_record")
        silent = io.StringIO()  # TFDS prints, and draws progress bars
        with (
            contextlib.redirect_stdout(silent),
            contextlib.redirect_stderr(silent),
        ):
            builder.download_and_prepare()
        final.parent.mkdir(parents=True, exist_ok=True)
        os.rename(builder.data_dir, final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
