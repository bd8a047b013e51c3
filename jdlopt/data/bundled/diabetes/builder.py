"""Ten unscaled measurements of diabetes patients and the disease's progress, from scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from sklearn.datasets import load_diabetes

from jdlopt.data.bundled import BUNDLED, VERSION
from jdlopt.data.bundled.parts import examples, make_info


class Builder(  # type: ignore[call-arg]  # mypy sees no types in TFDS
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Builds `diabetes` from the copy inside scikit-learn, without a network."""

    name = "jdlopt_diabetes"
    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        data = load_diabetes(scaled=False)
        return make_info(
            self,
            description=BUNDLED["diabetes"].description,
            homepage="https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html",
            inputs=("features", (10,), np.float32),
            target=("target", None),
            feature_names=tuple(str(name) for name in data.feature_names),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, object]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, object]]]:
        data = load_diabetes(scaled=False)
        features = data.data.astype(np.float32)
        return examples("features", features, "target", data.target.astype(np.float32))
