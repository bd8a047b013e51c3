"""What a trained run is for: evaluating its checkpoints on a split, predicting for new data."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jdlopt import config as configs
from jdlopt import losses, models, optim
from jdlopt import mesh as meshes
from jdlopt.data import preprocess
from jdlopt.data.augment.batch import make_augment, unchanged, without_mixing
from jdlopt.data.inputs import read_inputs
from jdlopt.data.text_input import from_meta
from jdlopt.errors import DataError, UserError, WorkdirError, listing
from jdlopt.train import checkpoint, disk, evaluate, experiment, log, scaling
from jdlopt.train.compiling import Compiler
from jdlopt.train.parts import model_of
from jdlopt.train.schema import SECTIONS
from jdlopt.train.state import as_arrays
from jdlopt.train.step import averaged_predict_step, predict_step

OUTPUTS = (".csv", ".npz")


class Predictions(NamedTuple):
    """What a model says about new examples.

    Attributes:
      rows: what names each example: a row number or a file.
      values: [n] class indices or predicted values.
      labels: [n] class names, or None for regression.
      probabilities: [n, classes], or None for regression.
      class_names: the columns of ``probabilities``.
    """

    rows: list[str]
    values: np.ndarray
    labels: list[str] | None
    probabilities: Float[np.ndarray, "n classes"] | None
    class_names: tuple[str, ...]


def run_config(workdir: str | Path) -> dict[str, Any]:
    """Returns the resolved config of a run.

    Raises:
      WorkdirError: the directory holds no run.
    """
    path = Path(workdir) / log.CONFIG
    if not path.is_file():
        raise WorkdirError(
            f"--workdir: {workdir} holds no run: there is no {log.CONFIG}. "
            "Name a directory that `jdlopt train` was given."
        )
    config = configs.to_dict(configs.load(path))
    missing = [section for section in SECTIONS if section not in config]
    if missing:
        raise WorkdirError(
            f"{path}: is not the resolved config of a run: it lacks {listing(missing)}. "
            "Name a directory that `jdlopt train` was given."
        )
    return config


def load_parameters(
    config: Mapping[str, Any],
    model: models.Model,
    inputs: tuple[tuple[int, ...], str],
    workdir: str | Path,
    which: str,
) -> tuple[Any, Any, int]:
    """Returns the parameters and model state to evaluate, and their step.

    Args:
      config: the run's resolved config.
      model: its model.
      inputs: the shape and type of one example after preprocessing.
      workdir: the run's directory.
      which: ``best``, or ``newest`` (averaged where the config averages).

    Raises:
      WorkdirError: there is no such checkpoint, or it is damaged.
    """
    directory = Path(workdir) / log.CHECKPOINTS
    hparams = as_arrays(configs.hyperparameters(config))
    shape, dtype = inputs
    example = jax.ShapeDtypeStruct((1, *shape), dtype)
    params, model_state = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, hparams["model"]), example
    )
    if which == "best":
        found = checkpoint.steps(directory, "best")
        if not found:
            raise WorkdirError(
                f"{directory}: holds no best checkpoint yet; try --checkpoint=newest."
            )
        step = found[-1]
        template = {"params": params, "model_state": model_state}
        folder = checkpoint.place(directory, step, "best")
        try:
            tree = checkpoint.restore(folder, _on_one_device(template))
        except WorkdirError as error:
            raise WorkdirError(f"{error} Try --checkpoint=newest.") from error
        return tree["params"], tree["model_state"], step
    total_steps = 2**30  # the shapes of an optimizer's state don't depend on it
    optimizer = optim.make_optimizer(config["optim"], total_steps)
    average = optim.make_average(config["optim"], total_steps)
    template = {
        "step": jax.ShapeDtypeStruct((), jnp.int32),
        "params": params,
        "model_state": model_state,
        "opt_state": jax.eval_shape(optimizer.init, params),
        "average": jax.eval_shape(average.init, params, model_state),
        "hparams": hparams,
        "key": jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))),
    }
    if config["model"].get("dtype") == "float16":
        template["loss_scale"] = jax.eval_shape(scaling.start)
    restored = checkpoint.restore_newest(directory, _on_one_device(template))
    if restored is None:
        raise WorkdirError(
            f"{directory}: holds no checkpoint yet; go on with `jdlopt train` first."
        )
    tree, meta = restored
    params = optim.eval_params(config["optim"], tree["opt_state"], tree["params"])
    params, model_state = average.evaluated(tree["average"], params, tree["model_state"])
    return params, model_state, meta["step"]


def _on_one_device(template: Any) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), template
    )


def evaluate_run(
    workdir: str | Path, split: str = "validation", which: str = "best", tta: int = 0
) -> dict:
    """Returns ``{"split", "checkpoint", "step", "metrics"}`` of a run's checkpoint on a split.

    Args:
      workdir: the run's directory.
      split: ``train``, ``validation`` or ``test``.
      which: ``best`` or ``newest``.
      tta: how many augmented copies of each example predictions are averaged over, beside the
        example itself.

    Raises:
      UserError: the directory holds no run, its data are gone, or the checkpoint is damaged.
    """
    # over the devices that are here now, whatever the run had
    config, dataset = experiment.prepare({**run_config(workdir), "mesh": {"data": 1}})
    parts = experiment.build(config, dataset)
    params, model_state, step = load_parameters(
        config, parts.model, (parts.input_shape, parts.input_dtype), workdir, which
    )
    mesh = meshes.make_mesh({"data": -1, "fsdp": 1})
    params, model_state = meshes.put((params, model_state), meshes.replicated(mesh))
    predict = _predict(config, dataset.meta(), tta)
    found = evaluate.full(parts, mesh, Compiler(), predict)(split, params, model_state)
    record = {"split": split, "checkpoint": which, "step": step, "tta": tta, "metrics": found}
    return disk.as_json(record)


def _predict(config: Mapping[str, Any], meta: Mapping[str, Any], tta: int) -> Any:
    """`predict_step`, or where it is asked for the same averaged over augmented copies."""
    if not tta:
        return predict_step
    text = meta.get("text")
    made = make_augment(
        without_mixing(config["data"]["augment"]),
        size=1,
        batch_size=1,
        num_outputs=1,
        classes=0,
        vocabulary=from_meta(text).vocabulary() if text else None,
    )
    if made is unchanged:
        raise UserError(
            "--tta: the run's data.augment changes no single example, so every copy would be the "
            "same. Leave --tta out."
        )
    return partial(averaged_predict_step, augment=made, draws=tta)


def save_inputs_record(parts: experiment.Experiment, workdir: Path) -> None:
    """Writes ``inputs.json``: what prediction must know of the data, so that it needs no data."""
    record = {
        "dataset": parts.dataset.meta(),
        "preprocess": preprocess.to_dict(parts.preprocess_state),
    }
    log.write_aside(workdir / log.INPUTS, json.dumps(record) + "\n")


def predict_run(
    workdir: str | Path,
    path: str | Path,
    which: str = "best",
    batch_size: int = 256,
    tta: int = 0,
) -> Predictions:
    """Returns a run's predictions for a CSV, Parquet or NPZ file or an image folder.

    Args:
      workdir: the run's directory.
      path: the inputs.
      which: ``best`` or ``newest``.
      batch_size: examples in one dispatch.
      tta: as in `evaluate_run`.

    Raises:
      UserError: the directory holds no finished run, or the file can't be read as its inputs.
    """
    config = run_config(workdir)
    record_path = Path(workdir) / log.INPUTS
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
        meta, learnt = record["dataset"], preprocess.from_dict(record["preprocess"])
        recipe = preprocess.make_recipe(config["data"]["preprocess"], meta)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkdirError(
            f"{record_path}: can't be read: {error}. It says what the model was trained on; "
            "`jdlopt train` writes it anew when the run goes on."
        ) from error
    found = read_inputs(path, meta)
    if not len(found.inputs):
        raise DataError(f"--input: {path} holds no example.")
    outputs_wide = 1
    if meta["task"] == "classification":
        outputs_wide = losses.num_outputs(config["loss"]["name"], meta["num_classes"])
    model = model_of(config, outputs_wide, meta, recipe)
    loss = losses.make_loss(config["loss"])
    inputs = preprocess.output_shape(
        recipe, learnt, tuple(meta["input_shape"]), meta["input_dtype"]
    )
    params, model_state, _ = load_parameters(config, model, inputs, workdir, which)
    program = jax.jit(
        partial(
            _predict(config, meta, tta),
            model=model,
            loss=loss,
            preprocess=partial(preprocess.apply, recipe, learnt),
        )
    )
    hparams = as_arrays(configs.hyperparameters(config))
    outputs: list[np.ndarray] = []
    probabilities: list[np.ndarray] = []
    size = len(found.inputs)
    for first in range(0, size, batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), size - 1)  # one shape, one program
        values, shares = program(params, model_state, hparams, found.inputs[rows])
        outputs.append(np.asarray(values))
        if shares is not None:
            probabilities.append(np.asarray(shares))
    if meta["task"] == "regression":
        values = np.concatenate(outputs)[:size].reshape(size, -1)[:, 0]
        return Predictions(found.ids, values, None, None, ())
    shares = np.concatenate(probabilities)[:size]
    names = tuple(meta["class_names"])
    classes = shares.argmax(-1)
    return Predictions(found.ids, classes, [names[index] for index in classes], shares, names)


def as_columns(predictions: Predictions) -> dict[str, list[Any]]:
    """Returns predictions as named columns."""
    if predictions.probabilities is None or predictions.labels is None:
        return {"row": predictions.rows, "prediction": predictions.values.tolist()}
    return {
        "row": predictions.rows,
        "prediction": predictions.labels,
        **{
            f"probability_{name}": predictions.probabilities[:, index].tolist()
            for index, name in enumerate(predictions.class_names)
        },
    }


def write_csv(predictions: Predictions, file: TextIO) -> None:
    """Writes predictions as CSV, a header first."""
    columns = as_columns(predictions)
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def check_output(path: str | Path) -> None:
    """Says that predictions can't be written to a path, before they are computed.

    Raises:
      UserError: the path is a folder, lies in none, or ends in neither ``.csv`` nor ``.npz``.
    """
    path = Path(path)
    if path.suffix not in OUTPUTS:
        raise UserError(f"--output: {path}: expected a file ending in {' or '.join(OUTPUTS)}.")
    if path.is_dir():
        raise UserError(f"--output: {path} is a folder; name a file.")
    if not path.parent.is_dir():
        raise UserError(f"--output: {path} can't be written: there is no folder {path.parent}.")


def write_predictions(predictions: Predictions, path: str | Path) -> None:
    """Writes predictions to a ``.csv`` or ``.npz`` file.

    Raises:
      UserError: another suffix, or the file can't be written.
    """
    check_output(path)
    path = Path(path)
    aside = path.with_name(f".{path.stem}.writing{path.suffix}")
    try:
        if path.suffix == ".csv":
            with aside.open("w", newline="", encoding="utf-8") as file:
                write_csv(predictions, file)
        else:
            columns: dict[str, Any] = {
                "row": np.array(predictions.rows),
                "prediction": predictions.values,
            }
            if predictions.probabilities is not None:
                columns["probabilities"] = predictions.probabilities
                columns["class_names"] = np.array(predictions.class_names)
            np.savez(aside, **columns)
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise UserError(f"--output: {path} can't be written: {error.strerror or error}.") from error
