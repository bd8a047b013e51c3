"""Made sound of strings of digits, and what is said in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from jdlopt.data.bundled import BUNDLED, VERSION
from jdlopt.data.bundled.tone_digits.tones import RATE, SAMPLES, spoken


class Builder(  # type: ignore[call-arg]  # mypy sees no types in TFDS
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Builds `tone_digits`: the training split of seed 0, the test split of seed 1."""

    name = "jdlopt_tone_digits"
    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=BUNDLED["tone_digits"].description,
            features=tfds.features.FeaturesDict(
                {  # its own feature of sound would need TensorFlow
                    "sound": tfds.features.Tensor(shape=(SAMPLES,), dtype=np.int16),
                    "text": tfds.features.Text(),
                }
            ),
            supervised_keys=("sound", "text"),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(sample_rate=RATE),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, object]:
        sizes = BUNDLED["tone_digits"].sizes
        return {
            split: self._generate_examples(seed, sizes[split]) for seed, split in enumerate(sizes)
        }

    def _generate_examples(self, seed: int, count: int) -> Iterator[tuple[int, dict[str, object]]]:
        for number, (wave, text) in enumerate(zip(*spoken(seed, count), strict=True)):
            yield number, {"sound": wave, "text": text}
