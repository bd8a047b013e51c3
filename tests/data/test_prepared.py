from __future__ import annotations

import io
import json
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from jdlopt.data import list_datasets, open_dataset
from jdlopt.data.prepared import TfdsPool
from jdlopt.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 6, 5), dtype=np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def prepare(root, name, features, splits, keys=None, file_format="array_record"):
    """Writes a TFDS dataset; images are given encoded, which needs no TensorFlow."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
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

    Builder.name = name
    builder = Builder(data_dir=str(root), file_format=file_format)
    builder.download_and_prepare()
    return builder.data_dir


def rows(start, stop):
    return [{"image": png(IMAGES[i]), "id": str(i), "label": i % 3} for i in range(start, stop)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    prepare(
        root,
        "pictures",
        lambda tfds: {
            "image": tfds.features.Image(shape=(6, 5, 1)),
            "id": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["x", "y", "z"]),
        },
        {"train": rows(0, 45), "test": rows(45, 60)},
        ("image", "label"),
    )
    prepare(
        root,
        "passengers",
        lambda tfds: {
            "age": np.float32,
            "rooms": np.int32,
            "name": tfds.features.Text(),
            "lived": np.int64,
            "fare": np.float32,
        },
        {
            "train": [
                {"age": i / 2, "rooms": i, "name": "n", "lived": i % 2, "fare": i + 0.5}
                for i in range(40)
            ]
        },
    )
    return root


def test_images_are_read_without_tensorflow(root):
    dataset = open_dataset({"source": "pictures", "data_dir": str(root)})
    assert dataset.class_names == ("x", "y", "z")
    assert (dataset.input_shape, dataset.input_dtype) == ((6, 5, 1), "uint8")
    assert dataset.sizes == {"train": 40, "validation": 5, "test": 15}
    inputs, targets = dataset.read("test")
    np.testing.assert_array_equal(inputs[..., 0], IMAGES[45:])
    np.testing.assert_array_equal(targets, np.arange(45, 60) % 3)
    for split in ("train", "validation"):
        index = dataset.parts[split][1]
        np.testing.assert_array_equal(dataset.read(split).inputs[..., 0], IMAGES[index])
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("source", ["pictures:1.2.0", "{root}/pictures/1.2.0"])
def test_by_version_and_by_folder(root, source):
    fields = {"source": source.format(root=root), "data_dir": str(root)}
    dataset = open_dataset(fields)
    assert dataset.sizes["test"] == 15


def test_the_data_folder_can_come_from_the_environment(root, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert open_dataset({"source": "pictures"}).name == "pictures"


def test_records_are_random_access_and_travel_to_other_processes(root):
    dataset = open_dataset({"source": "pictures", "data_dir": str(root), "stratify": False})
    for split in dataset.sizes:
        records = dataset.records(split)
        arrays = dataset.read(split)
        for copy in (records, pickle.loads(pickle.dumps(records))):
            assert len(copy) == dataset.sizes[split]
            for index in (0, len(copy) - 1):
                image, label = copy[index]
                np.testing.assert_array_equal(image, arrays.inputs[index])
                assert label == arrays.targets[index]
            with pytest.raises(IndexError):
                copy[len(copy)]


def test_test_records_are_not_touched_before_they_are_read(root, monkeypatch):
    touched, original = [], TfdsPool.raw

    def spy(pool, indices):
        touched.append(pool.split)
        return original(pool, indices)

    monkeypatch.setattr(TfdsPool, "raw", spy)
    dataset = open_dataset({"source": "pictures", "data_dir": str(root)})
    dataset.read("train")
    dataset.read("validation")
    assert set(touched) == {"train"}
    dataset.read("test")
    assert touched[-1] == "test"


def test_inputs_of_test_records_in_one_pool_are_not_decoded(root, monkeypatch):
    decoded, original = set(), TfdsPool._input

    def spy(pool, example, index):
        decoded.add(index)
        return original(pool, example, index)

    monkeypatch.setattr(TfdsPool, "_input", spy)
    dataset = open_dataset(
        {"source": "passengers", "data_dir": str(root), "target": "lived", "ignore": ("name",)}
    )
    dataset.read("train")
    dataset.read("validation")
    test = set(dataset.parts["test"][1].tolist())
    assert not decoded & test
    dataset.read("test")
    assert test <= decoded


def test_images_can_be_resized(root):
    fields = {"source": "pictures", "data_dir": str(root), "image_size": (3, 4)}
    dataset = open_dataset(fields)
    assert dataset.read("train").inputs.shape == (40, 3, 4, 1)


def test_scalar_features_become_a_vector(root):
    fields = {"source": "passengers", "data_dir": str(root), "ignore": ("name",)}
    dataset = open_dataset(fields | {"target": "lived"})
    assert dataset.task == "classification"
    assert dataset.feature_names == ("age", "fare", "rooms")
    index = dataset.parts["train"][1]
    inputs = dataset.read("train").inputs
    np.testing.assert_array_equal(inputs, np.stack([index / 2, index + 0.5, index], axis=1))
    assert open_dataset(fields | {"target": "fare"}).task == "regression"
    assert open_dataset(fields | {"target": "rooms"}).task == "regression"
    assert open_dataset(fields | {"target": "lived", "task": "regression"}).num_classes == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "passengers"}, "Set data.target to one of: age, fare, lived, name, rooms"),
        ({"source": "passengers", "target": "live"}, "Did you mean 'lived'"),
        ({"source": "passengers", "target": "lived"}, "name .Text.*data.ignore"),
        ({"source": "passengers", "target": "name"}, "'name' is Text"),
        ({"source": "passengers", "target": "age", "ignore": ("nam",)}, "data.ignore.*'name'"),
        ({"source": "pictures", "target": "image"}, "'image' is Image"),
        ({"source": "passengers:9.9.9", "target": "age"}, "is neither a bundled dataset"),
    ],
)
def test_wrong_features(root, fields, message, monkeypatch):
    monkeypatch.setattr("jdlopt.data.source.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=message):
        open_dataset(fields | {"data_dir": str(root)})


def test_the_datasets_found_are_listed(root):
    found = {row["name"]: row for row in list_datasets(str(root))}
    assert found["pictures"]["sizes"] == {"train": 45, "test": 15}
    assert found["pictures"]["kind"] == "tfds"
    assert found["mnist1d"]["kind"] == "bundled"


def test_other_formats_and_damage_are_named(root, tmp_path):
    import shutil

    copy = tmp_path / "pictures" / "1.2.0"
    shutil.copytree(root / "pictures" / "1.2.0", copy)
    fields = {"source": "pictures", "data_dir": str(tmp_path)}
    shard = next(copy.glob("*train*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"split 'train': .*can't be read.*delete this folder"):
        open_dataset(fields)
    shard.write_bytes(whole)
    info = json.loads((copy / "dataset_info.json").read_text())
    (copy / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(DataError, match="prepared as tfrecord; expected array_record"):
        open_dataset(fields)
    (copy / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset_info.json: is damaged"):
        open_dataset(fields)


def test_labels_left_out_of_a_published_split(tmp_path):
    prepare(
        tmp_path,
        "hidden",
        lambda tfds: {"x": np.float32, "label": tfds.features.ClassLabel(num_classes=2)},
        {
            "train": [{"x": i, "label": i % 2} for i in range(20)],
            "test": [{"x": i, "label": -1} for i in range(5)],
        },
        ("x", "label"),
    )
    dataset = open_dataset({"source": "hidden", "data_dir": str(tmp_path)})
    assert dataset.input_shape == (1,)
    with pytest.raises(DataError, match=r"'test'.*(without labels|no training example has)"):
        dataset.read("test")
