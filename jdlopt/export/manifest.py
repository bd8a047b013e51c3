"""A bundle's manifest: what it says of the inputs and outputs of a model, and read back."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from jdlopt.data.decision import Decision
from jdlopt.data.missing_words import AMBIGUOUS, MISSING_WORDS, are_words
from jdlopt.data.named import INPUT, by_name
from jdlopt.data.notation import Notation
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.data.text_input import from_meta
from jdlopt.errors import UserError, WorkdirError
from jdlopt.export.standalone.opening import (
    DTYPES,
    MANIFEST,
    TASKS,
    Bundle,
    BundleError,
    open_bundle,
)

Said = dict[str, Any]
"""A part of a manifest, as JSON has it."""


def describe_inputs(spec: DataSpec) -> list[Said]:
    """Returns what a manifest says of each input: type, shape, and the columns that make it.

    Raises:
      UserError: an input has a type that no bundle takes.
    """
    return [_input(name, one) for name, one in by_name(spec.inputs).items()]


def _input(name: str, one: InputSpec) -> Said:
    if one.dtype not in DTYPES:
        raise UserError(f"export: input {name!r} is of type {one.dtype}; a bundle takes "
                        f"{', '.join(DTYPES)}.")  # fmt: skip
    said: Said = {
        "name": name,
        "dtype": one.dtype,
        "datatype": DTYPES[one.dtype][0],
        "shape": list(one.shape),
        "missing": one.missing,
    }
    if one.offsets:
        said["offsets"] = list(one.offsets)
    if one.feature_names is not None and one.text is None:
        words = MISSING_WORDS if one.missing_values is None else one.missing_values
        said["columns"] = [_column(column, one) for column in one.feature_names]
        said["missing_words"] = list(words)
    if one.hash_buckets is not None:
        said["hash_buckets"] = one.hash_buckets
    if one.text is not None:
        said["text"] = one.text.meta()
    if one.sample_rate is not None:
        said["sample_rate"] = one.sample_rate
    if one.column is not None:
        said["column_of_paths"] = one.column
    return said


def _column(name: str, one: InputSpec) -> Said:
    categories = one.categories.get(name)
    if categories is None:
        notation = one.notations.get(name)
        unit = None if notation is None else notation.affix or None
        decimal = None if notation is None else notation.decimal
        return {"name": name, "type": "number", "unit": unit, "decimal": decimal}
    said: Said = {"name": name, "type": "category", "categories": list(categories)}
    if one.missing_values is None and are_words([c for c in categories if c not in MISSING_WORDS]):
        said["words_that_are_categories"] = list(AMBIGUOUS)
    return said


def describe_outputs(spec: DataSpec, tensors: Mapping[str, tuple[int, ...]]) -> Said:
    """Returns what a manifest says of the outputs: the task, the classes and how one is chosen.

    Args:
      spec: of the data.
      tensors: the model's outputs, and the shape of one example's.

    Raises:
      UserError: the task is none that a bundle can decode.
    """
    if spec.task not in TASKS:
        raise UserError(f"export: a bundle can't decode the task {spec.task!r}; it knows "
                        f"{', '.join(TASKS)}. Export the model file alone.")  # fmt: skip
    decision = spec.decision.to_dict()
    two = spec.task == "classification" and spec.num_classes == 2
    return {
        "task": spec.task,
        "classes": list(spec.class_names),
        "positive": spec.class_names[spec.decision.positive] if two else None,
        "threshold": decision["threshold"],
        "target_names": list(spec.target_names),
        "target_shape": list(spec.target_shape),
        "target_dtype": spec.target_dtype,
        "tensors": [
            {"name": name, "datatype": "FP32", "shape": list(shape)}
            for name, shape in tensors.items()
        ],
    }


def spec_of(manifest: Mapping[str, Any], where: str) -> DataSpec:
    """Returns what is known of the data that a bundle's model takes, from its manifest.

    Raises:
      WorkdirError: the manifest is damaged.
    """
    try:
        inputs = {str(one["name"]): _input_spec(one) for one in manifest["inputs"]}
        said = manifest["outputs"]
        classes = tuple(map(str, said["classes"]))
        threshold, positive = said["threshold"], said["positive"]
        decision = Decision(
            1 if positive is None else classes.index(positive),
            tuple(map(float, threshold)) if isinstance(threshold, list) else threshold,
        )
        return DataSpec(
            name=str(manifest["name"]),
            source=str(manifest["name"]),
            task=str(said["task"]),
            inputs=inputs[INPUT] if list(inputs) == [INPUT] else inputs,
            sizes={"train": 0},
            class_names=classes,
            target_names=tuple(map(str, said["target_names"])),
            target_shape=tuple(int(size) for size in said["target_shape"]),
            target_dtype=str(said["target_dtype"]),
            decision=decision,
        )
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        raise WorkdirError(
            f"{where}: {MANIFEST} is damaged ({type(error).__name__}: {error})."
        ) from error


def _input_spec(said: Mapping[str, Any]) -> InputSpec:
    columns, text = said.get("columns"), said.get("text")
    words = said.get("missing_words")
    read = None if text is None else from_meta(text)
    names = None if columns is None else tuple(str(one["name"]) for one in columns)
    shape = tuple(int(size) for size in said["shape"])
    if names is not None and len(names) != math.prod(shape):
        raise ValueError(f"{len(names)} columns make no input of shape {shape}")
    return InputSpec(
        shape=shape,
        dtype=str(said["dtype"]),
        feature_names=names,
        missing="fill" if said["missing"] == "fill" else "refuse",
        categories={
            str(one["name"]): tuple(map(str, one["categories"]))
            for one in columns or ()
            if one.get("categories") is not None
        },
        offsets=tuple(said.get("offsets", ())),
        notations={
            str(one["name"]): Notation(str(one["decimal"]), str(one.get("unit") or ""))
            for one in columns or ()
            if one.get("decimal") is not None
        },
        missing_values=None if words in (None, list(MISSING_WORDS)) else tuple(map(str, words)),
        hash_buckets=said.get("hash_buckets"),
        text=read,
        sample_rate=said.get("sample_rate"),
        column=said.get("column_of_paths"),
    )


def opened(folder: str | os.PathLike[str]) -> Bundle:
    """Returns a bundle whose hashes are right, with its tokenizers; no code of it is run.

    Raises:
      UserError: it can't be used, and why.
    """
    try:
        bundle = open_bundle(folder)
    except BundleError as error:
        raise UserError(f"--bundle: {error}") from error
    read = spec_of(bundle.manifest, str(folder)).named
    texts = {name: one.text for name, one in read.items() if one.text is not None}
    return bundle._replace(texts={name: (one.column, one.encode) for name, one in texts.items()})
