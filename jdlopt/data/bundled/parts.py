"""What the bundled builders have in common: an input, a target, and a fixed order of examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds


def make_info(
    builder: tfds.core.DatasetBuilder,
    *,
    description: str,
    homepage: str,
    inputs: tuple[str, tuple[int, ...], type],
    target: tuple[str, tuple[str, ...] | None],
    feature_names: tuple[str, ...] | None = None,
) -> tfds.core.DatasetInfo:
    """Returns the TFDS description of a dataset with one input tensor and one target.

    Args:
      builder: the builder that is described.
      description: what the data is.
      homepage: where the data comes from.
      inputs: the input's name, shape and dtype.
      target: the target's name and its class names, None for a float to predict.
      feature_names: a name for each feature of a table; kept in ``metadata.json``.
    """
    input_name, shape, dtype = inputs
    target_name, class_names = target
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        homepage=homepage,
        features=tfds.features.FeaturesDict(
            {
                input_name: tfds.features.Tensor(shape=shape, dtype=dtype),
                target_name: tfds.features.ClassLabel(names=list(class_names))
                if class_names
                else tfds.features.Tensor(shape=(), dtype=np.float32),
            }
        ),
        supervised_keys=(input_name, target_name),
        disable_shuffling=True,  # the published order, so that a row keeps its number
        metadata=tfds.core.MetadataDict(
            feature_names=None if feature_names is None else list(feature_names)
        ),
    )


def examples(
    input_name: str, inputs: np.ndarray, target_name: str, targets: np.ndarray
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields numbered examples in order, as TFDS wants them."""
    for index, (value, target) in enumerate(zip(inputs, targets, strict=True)):
        yield index, {input_name: value, target_name: target.item()}
