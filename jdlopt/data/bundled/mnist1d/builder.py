"""MNIST-1D (Greydanus and Kobak, "Scaling down deep learning with MNIST-1D", ICML 2024)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jdlopt.data.bundled import BUNDLED, VERSION
from jdlopt.data.bundled.parts import examples, make_info


class Builder(  # type: ignore[call-arg]  # mypy sees no types in TFDS
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Builds `mnist1d` with the generator of its authors' package and their default arguments."""

    name = "jdlopt_mnist1d"
    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        return make_info(
            self,
            description=BUNDLED["mnist1d"].description,
            homepage="https://github.com/greydanus/mnist1d",
            inputs=("signal", (40, 1), np.float32),
            target=("label", tuple(str(digit) for digit in range(10))),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        data = generate()
        return {
            "train": self._generate_examples(data["x"], data["y"]),
            "test": self._generate_examples(data["x_test"], data["y_test"]),
        }

    def _generate_examples(
        self, signals: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        return examples("signal", signals.astype(np.float32)[..., None], "label", labels)


def generate() -> dict[str, np.ndarray]:
    """Returns MNIST-1D's arrays; the global random states are left as they were.

    The generator seeds Python's and NumPy's global random states with a seed of its own.
    """
    from mnist1d.data import make_dataset  # imports matplotlib

    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        return make_dataset()
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
