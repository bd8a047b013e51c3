"""Made images of shapes and the class of each of their pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from jdlopt.data.bundled import BUNDLED, VERSION
from jdlopt.data.bundled.shapes.drawing import CLASSES, SIZE, draw


class Builder(  # type: ignore[call-arg]  # mypy sees no types in TFDS
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Builds `shapes`: the training split of seed 0, the test split of seed 1."""

    name = "jdlopt_shapes"
    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=BUNDLED["shapes"].description,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(SIZE, SIZE, 3), dtype=np.uint8),
                    "mask": tfds.features.Tensor(shape=(SIZE, SIZE), dtype=np.uint8),
                }
            ),
            supervised_keys=("image", "mask"),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=list(CLASSES)),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, object]:
        sizes = BUNDLED["shapes"].sizes
        return {
            split: self._generate_examples(seed, sizes[split]) for seed, split in enumerate(sizes)
        }

    def _generate_examples(
        self, seed: int, count: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        drawn = draw(seed, count)
        for number, (image, mask) in enumerate(zip(*drawn, strict=True)):
            yield number, {"image": image, "mask": mask}
