"""Predictions of a run: as named columns, in a CSV or NPZ file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jdlopt import writing
from jdlopt.data import input_columns
from jdlopt.data.decision import Threshold
from jdlopt.data.inputs import Inputs
from jdlopt.data.mask_colours import as_image
from jdlopt.data.masks import CLASSES
from jdlopt.data.notes import Note, Notes
from jdlopt.data.spec import DataSpec
from jdlopt.errors import DataError, UserError, escaped
from jdlopt.tasks import Columns, find_task, segmentation
from jdlopt.train.predict import MOST_PROBABILITIES, Likeliest, Predicted

OUTPUTS = (".csv", ".npz")
MASKS = 3
"""Axes of predicted masks: the examples, rows and columns."""
TEXTS = 2
"""Axes of predicted tokens, tags or labels of each example, which its text says in words."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula begins so."""
ROW, SPREAD = "row", "spread"


class Predictions(NamedTuple):
    """What a model says about new examples.

    Attributes:
      rows: what names each example: a row number or a file.
      values: [n] class indices or predicted values; [n, k] labels (0, 1) or several values; masks
        [n, height, width].
      labels: [n] class names, or the labels of each in one text; None for regression.
      probabilities: [n, classes]; None for regression and for more than `MOST_PROBABILITIES`
        classes.
      class_names: the columns of ``probabilities``, or of several values.
      columns: the columns of a table of predictions, beside ``row``.
      notes: what was left out, changed or guessed of the inputs.
      likeliest: the likeliest of more than `MOST_PROBABILITIES` classes.
      given: columns of the inputs that stand beside the predictions.
      spread: of an ensemble's regression: the models' standard deviation, shaped as ``values``.
      threshold: what the prediction was decided by; None for the usual.
    """

    rows: list[str]
    values: np.ndarray
    labels: list[str] | None
    probabilities: Float[np.ndarray, "n classes"] | None
    class_names: tuple[str, ...]
    columns: Columns
    notes: tuple[Note, ...] = ()
    likeliest: Likeliest | None = None
    given: Mapping[str, list[Any]] = {}
    spread: np.ndarray | None = None
    threshold: Threshold = None


def predictions_of(
    found: Predicted, spec: DataSpec, given: Inputs, all_classes: bool = False
) -> Predictions:
    """Returns what a model said of examples with their names, and those of classes or values.

    Args:
      found: what it said.
      spec: of the data that it was trained on.
      given: the examples.
      all_classes: as in `predict`, of labels.
    """
    task, ids = find_task(spec.task), given.ids
    many = spec.num_classes > MOST_PROBABILITIES and not all_classes
    decoded = task.decode(found.outputs, found.probabilities, spec)
    shares, notes = found.probabilities, given.notes
    if task.of_texts is None or given.texts is None:
        columns = task.columns(decoded, shares, spec)
    else:
        decoded, columns = task.of_texts(decoded, shares, spec, given.texts)
    if many and "labels" in task.shows and decoded.labels is not None:
        columns = {"prediction": decoded.labels}
        notes = (*notes, _left_out(f"the probabilities of all {spec.num_classes:,} labels", ids))
    return Predictions(
        ids,
        decoded.values,
        decoded.labels,
        found.probabilities,
        spec.class_names or spec.target_names,
        columns,
        notes,
        spread=None if found.spread is None else found.spread.reshape(decoded.values.shape),
        threshold=spec.decision.threshold,
    )


def _left_out(what: str, ids: Sequence[str]) -> Note:
    remedy = "--all-classes (all_classes=True) gives all."
    return Note("left out", what, len(ids), "predictions", (), remedy)


def of_likeliest(top: Likeliest, spec: DataSpec, given: Inputs) -> Predictions:
    """Returns predictions of one of very many classes an example: the likeliest of them."""
    named = [[spec.class_names[one] for one in column] for column in top.classes.T.tolist()]
    columns: Columns = {}
    for place, (names, shares) in enumerate(zip(named, top.probabilities.T, strict=True), start=1):
        ending = "" if place == 1 else f"_{place}"
        columns |= {f"prediction{ending}": names, f"probability{ending}": shares.tolist()}
    count = f"{spec.num_classes:,} classes"
    what = f"the probabilities of all but the {len(named)} likeliest of {count}"
    notes = (*given.notes, _left_out(what, given.ids))
    values = top.classes[:, 0]
    return Predictions(
        given.ids, values, named[0], None, spec.class_names, columns, notes, likeliest=top
    )


def of_masks(top: Likeliest, spec: DataSpec, given: Inputs) -> Predictions:
    """Returns predictions of the likeliest class of each pixel; no probabilities are kept."""
    decoded = segmentation.of_masks(top.classes[..., 0], spec)
    columns = find_task(spec.task).columns(decoded, None, spec)
    return Predictions(
        given.ids, decoded.values, decoded.labels, None, spec.class_names, columns, given.notes
    )


def with_columns(
    predictions: Predictions, spec: DataSpec, name: str | None, path: str | Path, whole: bool
) -> Predictions:
    """Returns predictions with the columns of their inputs, or the one that names each example.

    Args:
      predictions: of a file or folder.
      spec: of the data that the model was trained on.
      name: the column that names each example, if one does.
      path: the file or folder.
      whole: all columns, rather than that one alone.

    Raises:
      DataError: the file has none.
    """
    if not whole and name is None:
        return predictions
    given = input_columns.columns_of_path(
        path, spec.inputs, predictions.rows, None if whole else name
    )
    if any(len(values) != len(predictions.rows) for values in given.values()):
        raise DataError(f"--with-inputs: {path} changed while it was read. Try again.")
    notes = Notes()
    notes.extend(predictions.notes)
    if name is not None and name not in given:
        notes.add("unused", "data.id names a column that the inputs do not have", repr(name),
                  unit="columns", remedy="Rows are named by their number.")  # fmt: skip
    return predictions._replace(given=given, notes=tuple(notes))


def as_columns(predictions: Predictions) -> Columns:
    """Returns predictions as named columns, those of the inputs before what is predicted.

    A column of the inputs that has a name of these is called ``input_NAME``.
    """
    said = {**predictions.columns, **_spread(predictions)}
    made: Columns = {ROW: predictions.rows}
    for name, values in predictions.given.items():
        while name in made or name in said:
            name = f"input_{name}"
        made[name] = values
    return {**made, **said}


def _spread(predictions: Predictions) -> Columns:
    if predictions.spread is None:
        return {}
    if predictions.spread.ndim == 1:
        return {SPREAD: predictions.spread.tolist()}
    names = predictions.class_names or tuple(map(str, range(predictions.spread.shape[1])))
    each = zip(names, predictions.spread.T.tolist(), strict=True)
    return {f"{SPREAD}_{name}": values for name, values in each}


def write_csv(predictions: Predictions, file: IO[str]) -> None:
    """Writes predictions as CSV, a header first.

    Text in it is safe for terminals and spreadsheets: see `jdlopt.errors.escaped`, and an
    apostrophe stands before what a spreadsheet would take for a formula.
    """
    columns = as_columns(predictions)
    writer = csv.writer(file)
    writer.writerow(map(_cell, columns))
    writer.writerows(map(_cell, row) for row in zip(*columns.values(), strict=True))


def _cell(value: Any) -> Any:
    """Returns a cell of a CSV, its text safe."""
    value = _as_text(value)
    if not isinstance(value, str):
        return value
    text = escaped(value)
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _as_text(value: object) -> object:
    """Returns a value, a list of them as JSON, such as the entities of a text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def check_output(path: str | Path, masks: bool = False) -> None:
    """Says that predictions can't be written to a path, before they are computed.

    Args:
      path: a file, or of masks a folder.
      masks: whether a folder of them can be had.

    Raises:
      UserError: the path is a folder, lies in none, or ends in neither ``.csv`` nor ``.npz``; or a
        folder of masks would hold other files.
    """
    path = Path(path)
    if path.suffix not in OUTPUTS:
        if not masks or path.is_file():
            more = ", or a folder for masks" if masks else ""
            wanted = f"a file ending in {' or '.join(OUTPUTS)}{more}"
            raise UserError(f"--output: {path}: expected {wanted}.")
        if path.is_dir() and any(path.iterdir()):
            raise UserError(f"--output: {path} is not empty; name a new folder for the masks.")
    elif path.is_dir():
        raise UserError(f"--output: {path} is a folder; name a file.")
    if not path.parent.is_dir():
        raise UserError(f"--output: {path} can't be written: there is no folder {path.parent}.")


def write_predictions(predictions: Predictions, path: str | Path) -> None:
    """Writes predictions to a ``.csv`` or ``.npz`` file, or masks to a folder.

    Raises:
      UserError: another suffix, or the file can't be written.
    """
    masks = predictions.values.ndim == MASKS
    check_output(path, masks)
    path = Path(path)
    try:
        if path.suffix not in OUTPUTS:
            _write_masks(predictions, path)
            return
        with writing.aside(path, binary=path.suffix == ".npz") as file:
            if path.suffix == ".csv":
                write_csv(predictions, file)
            else:
                np.savez(file, **_as_arrays(predictions))
    except OSError as error:
        raise UserError(f"--output: {path} can't be written: {error.strerror or error}.") from error


def _write_masks(predictions: Predictions, folder: Path) -> None:
    """Writes a PNG for each example, whose pixels are class numbers, and the classes' names."""
    files = [Path(row).with_suffix(".png") for row in predictions.rows]
    if len(set(files)) < len(files):  # a.jpg and a.png
        files = [Path(f"{row}.png") for row in predictions.rows]
    writing.make_folder(folder)
    for file, mask in zip(files, predictions.values, strict=True):
        writing.make_folder((folder / file).parent)
        with writing.aside(folder / file, binary=True, settled=False) as made:
            as_image(mask, len(predictions.class_names)).save(made, "PNG")
    writing.write_aside(folder / CLASSES, "".join(f"{name}\n" for name in predictions.class_names))


def _as_arrays(predictions: Predictions) -> dict[str, Any]:
    columns: dict[str, Any] = {ROW: np.array(predictions.rows), "prediction": predictions.values}
    if predictions.labels is not None and predictions.values.ndim == TEXTS:
        columns["labels"] = np.array(predictions.labels, np.str_)
    for name, values in predictions.columns.items():
        if values and isinstance(values[0], list):  # such as entities
            columns[name] = _as_array(values)
    if predictions.probabilities is not None:
        columns["probabilities"] = predictions.probabilities
    if predictions.likeliest is not None:
        columns["likeliest"] = predictions.likeliest.classes
        columns["probabilities_of_likeliest"] = predictions.likeliest.probabilities
    if predictions.class_names:
        of_values = predictions.labels is None
        columns["target_names" if of_values else "class_names"] = np.array(predictions.class_names)
    if predictions.threshold is not None:
        columns["threshold"] = np.array(predictions.threshold)
    if predictions.spread is not None:
        columns[SPREAD] = predictions.spread
    for name, values in predictions.given.items():
        columns[f"input_{name}"] = _as_array(values)
    return columns


def _as_array(values: list[Any]) -> np.ndarray:
    """Returns a column as an array that needs no pickle: texts where it holds any."""
    if all(isinstance(value, int | float) for value in values if value is not None):
        numbers = [np.nan if value is None else value for value in values]
        return np.array(numbers)
    return np.array(["" if value is None else str(_as_text(value)) for value in values], np.str_)
