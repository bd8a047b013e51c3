"""Handwritten digits of 8x8 pixels, from scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from jdlopt.data.bundled import BUNDLED, VERSION
from jdlopt.data.bundled.parts import examples, make_info


class Builder(  # type: ignore[call-arg]  # mypy sees no types in TFDS
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Builds `digits` from the copy inside scikit-learn, without a network."""

    name = "jdlopt_digits"
    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        return make_info(
            self,
            description=BUNDLED["digits"].description,
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            inputs=("image", (8, 8, 1), np.uint8),
            target=("label", tuple(str(digit) for digit in range(10))),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, object]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, object]]]:
        data = load_digits()
        return examples("image", data.images.astype(np.uint8)[..., None], "label", data.target)
