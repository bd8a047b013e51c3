"""Scale inputs: fitted once on the training split, then applied as a pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from jdlopt.config import Choice
from jdlopt.data.dataset import Arrays

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num  # its Array imports jax

SCALES = ("none", "standard", "minmax")
CHUNK_VALUES = 1 << 22
"""So many values are turned into float64 at a time."""

State = dict[str, np.ndarray]
"""Empty, or ``shift`` and ``scale``: float32, one number a feature or channel."""


@dataclass(frozen=True)
class PreprocessFields:
    """The keys of a config's ``data.preprocess`` section.

    Attributes:
      scale: ``standard`` gives each feature mean 0 and standard deviation 1 over the training
        split, ``minmax`` the range 0 to 1, ``none`` leaves it.
    """

    scale: Annotated[str, Choice(SCALES)] = "none"


def fit(fields: PreprocessFields | Mapping[str, Any], train: Arrays) -> State:
    """Returns what `apply` needs, from the training split.

    One-dimensional examples are scaled feature by feature; others channel by channel, over all
    positions, the channel being the last axis. uint8 inputs are divided by 255 first.

    Args:
      fields: the ``data.preprocess`` section.
      train: the training split's arrays.

    Example:
      >>> state = fit({"scale": "minmax"}, Arrays(np.array([[2.0], [4.0]], "float32"), None))
      >>> state["shift"], state["scale"]
      (array([2.], dtype=float32), array([2.], dtype=float32))
    """
    rows = max(1, CHUNK_VALUES // max(1, train.inputs[0].size))
    starts = range(0, len(train.inputs), rows)
    return fit_batches(fields, (train.inputs[start : start + rows] for start in starts))


def fit_batches(
    fields: PreprocessFields | Mapping[str, Any], batches: Iterable[Num[np.ndarray, "n *shape"]]
) -> State:
    """Like `fit`, over the training inputs in batches, for a split that does not fit in memory."""
    name = fields.scale if isinstance(fields, PreprocessFields) else fields.get("scale", "none")
    if name == "none":
        return {}
    from sklearn.preprocessing import MinMaxScaler, StandardScaler  # takes a second to import

    scaler = {"standard": StandardScaler, "minmax": MinMaxScaler}[name]()
    for inputs in batches:
        values = inputs.reshape(-1, inputs.shape[-1]).astype(np.float64)
        scaler.partial_fit(values / 255.0 if inputs.dtype == np.uint8 else values)
    if name == "standard":
        return {
            "shift": scaler.mean_.astype(np.float32),
            "scale": scaler.scale_.astype(np.float32),
        }
    return {
        "shift": scaler.data_min_.astype(np.float32),
        "scale": (1.0 / scaler.scale_).astype(np.float32),
    }


def apply(state: Mapping[str, Any], inputs: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns inputs as float32: uint8 divided by 255, then ``(inputs - shift) / scale``. Pure.

    Args:
      state: what `fit` returned.
      inputs: a batch or one example.
    """
    import jax.numpy as jnp

    values = jnp.asarray(inputs).astype(jnp.float32)
    if inputs.dtype == jnp.uint8:
        values = values / 255.0
    if not state:
        return values
    return (values - state["shift"]) / state["scale"]


def to_dict(state: Mapping[str, Any]) -> dict[str, list[float]]:
    """Returns a state as JSON-able lists; `from_dict` gives back the same float32 numbers."""
    return {name: [float(number) for number in values] for name, values in state.items()}


def from_dict(saved: Mapping[str, list[float]]) -> State:
    """Returns the state that `to_dict` was given.

    Example:
      >>> from_dict(to_dict({"shift": np.float32([0.1]), "scale": np.float32([2.0])}))["shift"]
      array([0.1], dtype=float32)
    """
    return {name: np.asarray(values, dtype=np.float32) for name, values in saved.items()}
