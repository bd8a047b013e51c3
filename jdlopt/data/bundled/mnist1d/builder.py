"""MNIST-1D (Greydanus and Kobak, "Scaling down deep learning with MNIST-1D", ICML 2024)."""

from __future__ import annotations

from collections.abc import Iterator

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

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, object]:
        from mnist1d.data import make_dataset  # imports matplotlib

        data = make_dataset()  # seeds the global random states; `prepare_bundled` restores them
        return {
            "train": self._generate_examples(data["x"], data["y"]),
            "test": self._generate_examples(data["x_test"], data["y_test"]),
        }

    def _generate_examples(
        self, signals: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, object]]]:
        return examples("signal", signals.astype(np.float32)[..., None], "label", labels)
