"""Chemical measurements of wines of three growers, from scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from sklearn.datasets import load_wine

from jdlopt.data.bundled import BUNDLED, VERSION
from jdlopt.data.bundled.parts import examples, make_info


class Builder(  # type: ignore[call-arg]  # mypy sees no types in TFDS
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Builds `wine` from the copy inside scikit-learn, without a network."""

    name = "jdlopt_wine"
    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        data = load_wine()
        return make_info(
            self,
            description=BUNDLED["wine"].description,
            homepage="https://archive.ics.uci.edu/dataset/109/wine",
            inputs=("features", (13,), np.float32),
            target=("label", tuple(str(name) for name in data.target_names)),
            feature_names=tuple(str(name) for name in data.feature_names),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, object]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, object]]]:
        data = load_wine()
        features = data.data.astype(np.float32)
        return examples("features", features, "label", data.target)
