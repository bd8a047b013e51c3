"""Embeddings of examples by a run's model: of pairs both, of others what the head is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.data.inputs import Inputs
from jdlopt.data.notes import Note
from jdlopt.errors import UserError
from jdlopt.tasks import find_task
from jdlopt.tasks.pair_outputs import parted
from jdlopt.train import serve
from jdlopt.train.experiment import Experiment
from jdlopt.train.predict import features, predictor
from jdlopt.train.state import Weights

ENDING = ".npz"


class Embeddings(NamedTuple):
    """Embeddings of examples.

    Attributes:
      rows: what names each example: a row number or a file.
      arrays: ``embedding_NAME`` [n, features] of each of two inputs, of length 1; or ``features``
        [n, …], what the model's head is given.
      notes: what was left out, changed or guessed of the inputs.
    """

    rows: list[str]
    arrays: Mapping[str, Float[np.ndarray, "n ..."]]
    notes: tuple[Note, ...] = ()


def embed(
    experiment: Experiment, weights: Weights, given: Inputs, batch_size: int = 256
) -> Embeddings:
    """Returns the embeddings of examples.

    Args:
      experiment: what embeds.
      weights: with which it does.
      given: at least one example.
      batch_size: examples in one dispatch.

    Raises:
      ConfigError: the model has no head of its own.
      UserError: it is given what targets make, too.
    """
    if experiment.components.teacher_forcing is not None:
        raise UserError(
            f"--embeddings: a {experiment.spec.task} model makes no one embedding of an example: "
            "it reads the target with its input. Leave --embeddings out."
        )
    if "pairs" in find_task(experiment.spec.task).shows:
        found = predictor(experiment, batch_size)(weights, given.inputs, None)
        pairs = parted(found.outputs)
        both = zip(experiment.spec.named, (pairs.first, pairs.second), strict=True)
        arrays = {f"embedding_{name}": np.asarray(values) for name, values in both}
    else:
        arrays = {"features": features(experiment, batch_size)(weights, given.inputs)}
    return Embeddings(given.ids, arrays, given.notes)


def embed_run(
    workdir: str | Path,
    path: str | Path,
    which: str = "best",
    allow_code: configs.Allowed = False,
) -> Embeddings:
    """Returns the embeddings of a file's or folder's examples by a run's model.

    Args:
      workdir: the run's directory.
      path: the inputs, as `jdlopt.train.serve.predict_run` takes them.
      which: ``best`` or ``newest``.
      allow_code: as there.

    Raises:
      UserError: the directory holds no finished run, the file can't be read as its inputs, or the
        model has no head of its own.
    """
    experiment = serve.run_experiment(workdir, allow_code)
    found = serve.read_for(experiment, path)
    weights, _ = serve.load_weights(experiment, workdir, which)
    return embed(experiment, weights, found)


def check_output(path: str | Path | None) -> Path:
    """Returns where embeddings are written, before they are computed.

    Raises:
      UserError: no file ending in ``.npz`` is named, or it lies in no folder.
    """
    if path is None or Path(path).suffix != ENDING:
        raise UserError(f"--embeddings: are arrays; name a file for them, --output=FILE{ENDING}.")
    if not Path(path).parent.is_dir():
        folder = Path(path).parent
        raise UserError(f"--output: {path} can't be written: there is no folder {folder}.")
    return Path(path)


def write_embeddings(found: Embeddings, path: str | Path) -> None:
    """Writes embeddings to an NPZ file, with what names each example as ``row``.

    Raises:
      UserError: the file can't be written.
    """
    place = check_output(path)
    arrays: dict[str, Any] = {"row": np.array(found.rows), **found.arrays}
    try:
        with writing.aside(place, binary=True) as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise UserError(
            f"--output: {place} can't be written: {error.strerror or error}."
        ) from error
