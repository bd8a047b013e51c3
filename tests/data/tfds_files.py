"""Small TFDS datasets, written for a test."""

from __future__ import annotations


def prepare(root, name, features, splits, keys=None, file_format="array_record"):
    """Writes a TFDS dataset; images are given encoded, which needs no TensorFlow."""
    import tensorflow_datasets as tfds

    class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features(tfds)),
                supervised_keys=keys,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows):
            yield from enumerate(rows)

    Written.name = name
    builder = Written(data_dir=str(root), file_format=file_format)
    builder.download_and_prepare()
    return builder.data_dir
