"""The types of traced hyperparameters: a float in a config, a scalar array in a program."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Array, Float

from jdlopt.config.schema import Range

Scalar = float | Float[Array, ""]
Rate = Annotated[Scalar, Range(0, 1, high_open=True)]
Fraction = Annotated[Scalar, Range(0, 1)]
Positive = Annotated[Scalar, Range(0, low_open=True)]
NonNegative = Annotated[Scalar, Range(0)]
