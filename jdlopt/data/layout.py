"""Which features of a TFDS dataset make an input and a target, and of which shape and type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdlopt.data.coding import Coding
from jdlopt.data.fields import DataFields
from jdlopt.data.images import resize_to
from jdlopt.data.labelled import beside_named, check_named, names_of, with_targets
from jdlopt.data.mask_coder import TASK, make_coding
from jdlopt.data.text_input import TextInput
from jdlopt.errors import DataError, listing


@dataclass(frozen=True)
class Sound:
    """How the samples of a sound feature are stored.

    Attributes:
      sample_rate: samples a second; None if the dataset does not say.
      encoded: it is a file's bytes, rather than samples.
    """

    sample_rate: int | None
    encoded: bool


@dataclass(frozen=True)
class Layout:
    """Which features of a dataset's records make an input and a target.

    Attributes:
      inputs: the features' names; several are scalars, side by side.
      target: the names of the target features.
      labels: how many labels there are, where a target is a list of those that an example has.
      kind: ``image``, ``text``, ``sound`` or ``number``.
      shape: of one input; an image's size may be None until the first is seen, a text's length
        until the vocabulary is there.
      dtype: of the input.
      size: (height, width) that images are resized to.
      sound: how sound is stored, and ``sample_rate`` what it is resampled to.
      text: the vocabulary of texts.
    """

    inputs: tuple[str, ...]
    target: tuple[str, ...]
    kind: str
    shape: tuple[int, ...]
    dtype: str
    labels: int | None = None
    size: tuple[int, int] | None = None
    sound: Sound | None = None
    sample_rate: int | None = None
    text: TextInput | None = None


def _is_number(feature: object) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Tensor) and (np.dtype(feature.np_dtype).kind in "biuf")


def is_text(feature: Any) -> bool:
    """Returns whether a feature holds one text."""
    import tensorflow_datasets as tfds

    tensor = isinstance(feature, tfds.features.Tensor) and feature.shape == ()
    return tensor and np.dtype(feature.np_dtype).kind in "OSU"


def find_target(
    features: Any, supervised: tuple[str | None, str | None], fields: DataFields, where: str
) -> tuple[str, ...]:
    """Returns the target features: ``data.target``, or the second of the supervised keys.

    Args:
      features: the dataset's, by name.
      supervised: its own input and target.
      fields: the data section.
      where: names the dataset, for messages.

    Raises:
      DataError: there is none, or the data section names a feature that is not there.
    """
    names = sorted(features)
    target = names_of(with_targets(fields, names).target or supervised[1])
    if not target:
        raise DataError(
            f"{where}: does not say which feature to predict. Set data.target to one of: "
            f"{listing(names)}."
        )
    named: list[tuple[str, str | None]] = [("target", name) for name in target]
    named += [("ignore", name) for name in fields.ignore]
    named += [("text_column", fields.text_column), ("id", fields.id), *beside_named(fields)]
    check_named(where, named, names, "feature")
    return target


def make_layout(
    features: Any,
    sounds: Mapping[str, Sound],
    target: tuple[str, ...],
    supervised: tuple[str | None, str | None],
    fields: DataFields,
    where: str,
) -> Layout:
    """Returns the layout of a dataset's records.

    The input is ``data.text_column``, or the first of the supervised keys, or the only feature
    left, or all features left as one vector if they are scalars.

    Args:
      features: the dataset's, by name.
      sounds: those of them that are sound.
      target: the target features.
      supervised: the dataset's own input and target.
      fields: the data section.
      where: names the dataset, for messages.

    Raises:
      DataError: the features can't be used.
    """
    names = sorted(features)  # their stored order differs from one process to the next
    taken = {*target, *fields.unused, *(name for _, name in beside_named(fields))}
    inputs: tuple[str, ...]
    if fields.text_column is not None:
        inputs = (fields.text_column,)
        if fields.text_column in taken or not is_text(features[fields.text_column]):
            kind = type(features[fields.text_column]).__name__
            raise DataError(
                f"{where}: data.text_column: feature {fields.text_column!r} ({kind}) is no text "
                "that is left to learn from."
            )
    elif supervised[0] is not None and supervised[0] not in taken:
        inputs = (supervised[0],)
    else:
        inputs = tuple(name for name in names if name not in taken)
    kinds = {name: _kind(features[name], name in sounds) for name in inputs}
    scalars = all(kinds[name] == "number" and features[name].shape == () for name in inputs)
    if not inputs or None in kinds.values() or (len(inputs) > 1 and not scalars):
        shown = {
            name: "Audio" if name in sounds else type(features[name]).__name__ for name in names
        }
        found = ", ".join(f"{name} ({kind})" for name, kind in shown.items())
        texts = [name for name in inputs if kinds[name] == "text"]
        hint = f", or choose data.text_column={texts[0]!r}" if texts else ""
        raise DataError(
            f"{where}: found the features {found}; expected one image, text, sound or number "
            f"tensor as input, or scalar numbers only, beside the target "
            f"{listing(map(repr, target))}. Leave others out with data.ignore{hint}."
        )
    if len(inputs) > 1:
        return Layout(inputs, target, "number", (len(inputs),), "float32")
    name, feature = inputs[0], features[inputs[0]]
    if kinds[name] == "text":
        return Layout(inputs, target, "text", (), "int32")
    if kinds[name] == "sound":
        return _sound(name, sounds[name], feature.shape, target, fields, where)
    if kinds[name] == "image":
        return _image(name, feature, target, fields, where)
    if None in feature.shape:
        raise DataError(f"{where}: feature {name!r} has the shape {feature.shape}, not fixed.")
    dtype = "uint8" if feature.np_dtype == np.uint8 else "float32"
    return Layout(inputs, target, "number", feature.shape or (1,), dtype)


def _kind(feature: object, is_sound: bool) -> str | None:
    import tensorflow_datasets as tfds

    if is_sound:
        return "sound"
    if isinstance(feature, tfds.features.Image):
        return "image"
    if is_text(feature):
        return "text"
    return "number" if _is_number(feature) else None


def _image(
    name: str, feature: Any, target: tuple[str, ...], fields: DataFields, where: str
) -> Layout:
    channels = feature.shape[-1] or 3
    if feature.np_dtype != np.uint8 or channels not in (1, 3, 4):
        raise DataError(
            f"{where}: feature {name!r} holds {channels}-channel {feature.np_dtype} images; "
            "expected grey or colour ones of 8 bits."
        )
    size = resize_to(fields.image_size)
    height, width = size or feature.shape[:2]
    return Layout((name,), target, "image", (height, width, min(channels, 3)), "uint8", size=size)


def _sound(
    name: str,
    sound: Sound,
    shape: tuple[int | None, ...],
    target: tuple[str, ...],
    fields: DataFields,
    where: str,
) -> Layout:
    rate = fields.sample_rate or sound.sample_rate
    if rate is None or (sound.sample_rate is None and not sound.encoded):
        raise DataError(
            f"{where}: does not say how many samples a second of feature {name!r} has, so that its "
            "sound can't be used. Prepare it anew with a sample rate."
        )
    if fields.seconds is not None:
        samples = max(1, round(fields.seconds * rate))
    elif shape and shape[0] is not None and rate == sound.sample_rate:
        samples = shape[0]
    else:
        raise DataError(
            f"{where}: the sounds of feature {name!r} may have any length. Set data.seconds to the "
            "length that they are cut or padded to."
        )
    return Layout((name,), target, "sound", (samples,), "float32", sound=sound, sample_rate=rate)


def labels_in(feature: object) -> Any | None:
    """Returns the classes of a feature that lists the labels of an example, or None."""
    import tensorflow_datasets as tfds

    inner = feature.feature if isinstance(feature, tfds.features.Sequence) else None
    return inner if isinstance(inner, tfds.features.ClassLabel) else None


def columns_of(features: Any, target: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the scalars that targets are made of, or nothing for one target."""
    import tensorflow_datasets as tfds

    if len(target) > 1:
        return target
    feature = features[target[0]]
    return tuple(sorted(feature)) if isinstance(feature, tfds.features.FeaturesDict) else ()


def coding_of(
    features: Any, target: tuple[str, ...], fields: DataFields, classes: Sequence[str] = ()
) -> Coding | None:
    """Returns the targets' coding, or None where it depends on the targets' values.

    Args:
      features: the dataset's, by name.
      target: the target features: one that holds a class, a number or a row of them, a list of
        labels, a dict of scalars or a mask; or several scalars.
      fields: the data section.
      classes: the names of a mask's classes, where the dataset tells them; then a mask is a target
        without ``data.task='segmentation'`` as well.

    Raises:
      DataError: it is none of these, has one class only, or is not for the task that is asked for.
    """
    import tensorflow_datasets as tfds

    name, feature = target[0], features[target[0]]
    if len(target) > 1 or isinstance(feature, tfds.features.FeaturesDict):
        parts = {each: features[each] for each in target} if len(target) > 1 else dict(feature)
        for each, part in parts.items():
            if not _is_number(part) or part.shape != ():
                raise DataError(
                    f"{fields.source}: feature {each!r} is {type(part).__name__} of shape "
                    f"{part.shape}; several targets are scalar numbers. Leave it out of "
                    "data.target."
                )
        return None
    labels = labels_in(feature)
    if labels is not None:
        if fields.task not in ("auto", "multilabel") or labels.num_classes < 2:
            raise DataError(
                f"{fields.source}: feature {name!r} lists labels, {labels.num_classes} in all: "
                "data.task='multilabel' learns two or more."
            )
        count = labels.num_classes
        return Coding("multilabel", tuple(range(count)), tuple(labels.names), shape=(count,))
    if isinstance(feature, tfds.features.ClassLabel) and fields.task != "regression":
        if ":" in fields.task:  # a task of one's own says what it makes of the numbers
            return None
        if fields.task not in ("auto", "classification"):
            raise DataError(
                f"{fields.source}: feature {name!r} is one class of {feature.num_classes}; "
                f"data.task={fields.task!r} can't be had of it. Leave data.task out."
            )
        if feature.num_classes < 2:
            raise DataError(
                f"{fields.source}: feature {name!r} has {feature.num_classes} class only; there is "
                "nothing to learn."
            )
        names = tuple(feature.names)
        return Coding("classification", tuple(range(feature.num_classes)), names)
    if fields.label_delimiter is not None and is_text(feature):
        return None
    fixed = _is_number(feature) and None not in feature.shape
    asked = fields.task == TASK or (fields.task == "auto" and bool(classes))
    if fixed and len(feature.shape) == 2 and asked:
        numbers = np.arange(len(classes))
        what = f"{fields.source}, feature {name!r}"
        return make_coding(numbers, classes, feature.shape, what) if classes else None
    if not fixed or len(feature.shape) > 1:
        raise DataError(
            f"{fields.source}: feature {name!r} is {type(feature).__name__} of shape "
            f"{feature.shape}; expected a class, a number, a row of them, a list of classes or "
            "(data.task='segmentation') a mask as target. Set data.target to another."
        )
    scalar_float = feature.shape == () and np.dtype(feature.np_dtype).kind == "f"
    if scalar_float and fields.task in ("auto", "regression"):
        return Coding("regression", dtype="float32")
    return None
