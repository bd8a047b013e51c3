"""Predicting with a bundle as `jdlopt predict` does with a run: the same files in and out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from jdlopt.data.decision import Threshold
from jdlopt.data.inputs import Inputs, read_inputs
from jdlopt.data.named import by_name
from jdlopt.data.spec import DataSpec
from jdlopt.errors import DataError, UserError
from jdlopt.export.manifest import opened, spec_of
from jdlopt.export.standalone.opening import Bundle, BundleError
from jdlopt.train.predict import MOST_PROBABILITIES, TOP, Likeliest, Predicted
from jdlopt.train.predictions import Predictions, of_likeliest, predictions_of, with_columns


def predict_bundle(
    folder: str | os.PathLike[str],
    path: str | Path,
    *,
    all_classes: bool = False,
    with_inputs: bool = False,
    positive: object = None,
    threshold: Threshold = None,
) -> Predictions:
    """Returns a bundle's predictions for a file or folder, as `train.serve.predict_run` does.

    Args:
      folder: the bundle's.
      path, all_classes, with_inputs, positive, threshold: as there.

    Raises:
      UserError: the bundle can't be used, or the file can't be read as its inputs.
    """
    bundle = opened(folder)
    spec = spec_of(bundle.manifest, str(folder)).deciding(positive, threshold)
    passed = set(map(str, bundle.manifest.get("other_columns", ())))
    given = read_inputs(path, spec.inputs, passed)
    if not len(given.ids):
        raise DataError(f"--input: {path} holds no example.")
    made = predict(bundle, spec, given, all_classes)
    name = bundle.manifest.get("id_column")
    return with_columns(made, spec, None if name is None else str(name), path, with_inputs)


def predict(
    bundle: Bundle, spec: DataSpec, given: Inputs, all_classes: bool = False
) -> Predictions:
    """Returns a bundle's predictions for inputs, coded as its model takes them.

    Args:
      bundle: opened.
      spec: of its manifest.
      given: at least one example.
      all_classes: as in `jdlopt.train.serve.predict`.

    Raises:
      DataError: the model can't be run on them.
    """
    try:
        found = bundle.run(by_name(given.inputs))
    except BundleError as error:
        raise UserError(f"--bundle: {error}") from error
    except Exception as error:  # the runtime has exceptions of its own for what it can't compute
        raise DataError(f"--input: the model can't be run on these inputs: {error}") from error
    shares = found.get("probabilities")
    if shares is None:
        said = Predicted(found["outputs"], None, None, found.get("spread"))
        return predictions_of(said, spec, given)
    many = spec.num_classes > MOST_PROBABILITIES and not all_classes
    if many and spec.task == "classification":
        classes = np.argsort(-shares, axis=1, kind="stable")[:, :TOP]
        top = Likeliest(classes, np.take_along_axis(shares, classes, axis=1), None)
        return of_likeliest(top, spec, given)
    return predictions_of(Predicted(shares, shares, None), spec, given, all_classes)
