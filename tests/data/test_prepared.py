from __future__ import annotations

import io
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from scipy.io import wavfile
from scipy.signal import resample_poly
from tfds_files import prepare

from jdlopt.data import list_datasets, open_dataset, read_inputs, text
from jdlopt.data.image_decoding import ROTATED
from jdlopt.data.prepared import TfdsPool
from jdlopt.data.records import read_features
from jdlopt.data.spec import DataSpec
from jdlopt.errors import DataError, UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 6, 5), dtype=np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def spec_of(dataset):
    """The spec of a dataset's input, as a run's directory keeps it."""
    return DataSpec.from_dict(json.loads(json.dumps(dataset.spec.to_dict()))).input


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
    assert dataset.spec.class_names == ("x", "y", "z")
    assert (dataset.spec.input.shape, dataset.spec.input.dtype) == ((6, 5, 1), "uint8")
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
    assert open_dataset({"source": "pictures"}).spec.name == "pictures"


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
    assert dataset.spec.task == "classification"
    assert dataset.spec.input.feature_names == ("age", "fare", "rooms")
    index = dataset.parts["train"][1]
    inputs = dataset.read("train").inputs
    np.testing.assert_array_equal(inputs, np.stack([index / 2, index + 0.5, index], axis=1))
    assert open_dataset(fields | {"target": "fare"}).spec.task == "regression"
    assert open_dataset(fields | {"target": "rooms"}).spec.task == "regression"
    assert open_dataset(fields | {"target": "lived", "task": "regression"}).spec.num_classes == 0


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


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("segmentatoin", "Did you mean 'segmentation'"),
        (
            "transcription",
            "'label' is one class of 3; data.task='transcription' can't",
        ),
    ],
)
def test_a_task_that_a_class_can_not_have_is_refused(root, task, message):
    fields = {"source": "pictures", "target": "label", "ignore": ("id",), "task": task}
    with pytest.raises(UserError, match=message):
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
    assert dataset.spec.input.shape == (1,)
    with pytest.raises(DataError, match=r"'test'.*(without labels|no training example has)"):
        dataset.read("test")


# --- texts ----------------------------------------------------------------------------------------

WORDS = ("good", "bad", "fine", "poor", "café")
SENTENCES = [f"{WORDS[i % 5]} film number {WORDS[(i * 7) % 5]}" for i in range(60)]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")

    def rows(start, stop):
        return [
            {"sentence": SENTENCES[i], "label": i % 2, "idx": i, "by": f"p{i % 9}", "on": 60 - i}
            for i in range(start, stop)
        ]

    prepare(
        root,
        "reviews",
        lambda tfds: {
            "sentence": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
        },
        {
            "train": [{"sentence": SENTENCES[i], "label": i % 2} for i in range(40)],
            "test": [{"sentence": f"unseen {SENTENCES[i]}", "label": i % 2} for i in range(40, 60)],
        },
        ("sentence", "label"),
    )
    prepare(
        root,
        "phrases",
        lambda tfds: {
            "sentence": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
            "idx": np.int32,
            "by": tfds.features.Text(),
            "on": np.int64,
        },
        {"train": rows(0, 50), "validation": rows(50, 60)},
    )
    return root


SECTION = {"max_tokens": 6, "vocab_size": 80, "min_frequency": 1}


@pytest.mark.parametrize("folds", [None, 3])
def test_texts_become_tokens_of_the_training_texts_vocabulary(texts, folds):
    fields = {"source": "reviews", "data_dir": str(texts), "text": SECTION, "folds": folds}
    dataset = open_dataset(fields)
    assert (dataset.spec.input.shape, dataset.spec.input.dtype) == ((6,), "int32")
    assert dataset.spec.class_names == ("no", "yes")
    rows = np.arange(40) if folds else dataset.parts["train"][1]
    state = text.fit(SECTION, [SENTENCES[row] for row in rows])
    for split in ("train", "validation"):
        inputs, targets = dataset.read(split)
        chosen = dataset.parts[split][1]
        expected = text.encode(state, [SENTENCES[row] for row in chosen])
        np.testing.assert_array_equal(inputs, expected)
        np.testing.assert_array_equal(targets, chosen % 2)
        copy = pickle.loads(pickle.dumps(dataset.records(split)))
        np.testing.assert_array_equal(copy[1][0], expected[1])
    unseen = [f"unseen {sentence}" for sentence in SENTENCES[40:]]
    np.testing.assert_array_equal(dataset.read("test").inputs, text.encode(state, unseen))
    assert "unseen" not in dataset.spec.input.text.vocabulary()
    assert "tensorflow" not in sys.modules


def test_a_text_is_chosen_or_the_only_feature_left(texts, tmp_path):
    fields = {"source": "phrases", "data_dir": str(texts), "target": "label", "text": SECTION}
    chosen = open_dataset(fields | {"text_column": "sentence"})
    left = open_dataset(fields | {"ignore": ("idx", "by", "on")})
    np.testing.assert_array_equal(chosen.read("train").inputs, left.read("train").inputs)
    assert chosen.sizes == {"train": 40, "validation": 10, "test": 10}
    table = tmp_path / "new.csv"
    table.write_text("sentence\n" + "\n".join(SENTENCES[50:]) + "\n", encoding="utf-8")
    np.testing.assert_array_equal(
        read_inputs(table, spec_of(chosen)).inputs, chosen.read("validation").inputs
    )


def test_features_decide_on_groups_times_and_weights(texts):
    fields = {"source": "phrases", "data_dir": str(texts), "target": "label", "text": SECTION}
    fields |= {"text_column": "sentence"}
    grouped = open_dataset(fields | {"group": "by", "weight": "idx", "sampling": "weighted"})
    train, test = (grouped.parts[split][1] for split in ("train", "test"))
    assert not set(train % 9) & set(test % 9)
    np.testing.assert_array_equal(grouped.weights, train)
    timed = open_dataset(fields | {"time": "on"})
    np.testing.assert_array_equal(timed.parts["test"][1], np.arange(10))
    scalars = open_dataset(
        {"source": "phrases", "data_dir": str(texts), "target": "label"}
        | {"ignore": ("sentence",), "group": "by", "time": None}
    )
    assert scalars.spec.input.feature_names == ("idx", "on")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "choose data.text_column='by'"),
        ({"text_column": "idx"}, "'idx' .Tensor. is no text"),
        ({"text_column": "by", "ignore": ("by",)}, "'by' .Text. is no text that is left"),
        ({"text_column": "sentences"}, "data.text_column: there is no .*Did you mean 'sentence'"),
        ({"text_column": "sentence", "group": "bye"}, "data.group: there is no feature 'bye'"),
        ({"text_column": "sentence", "time": "by"}, "data.time feature 'by': row 0 holds 'p0'"),
    ],
)
def test_wrong_texts(texts, fields, message):
    with pytest.raises(DataError, match=message):
        open_dataset({"source": "phrases", "data_dir": str(texts), "target": "label"} | fields)


# --- sound ----------------------------------------------------------------------------------------

SOUNDS = [RNG.integers(-20000, 20000, 80 + i).astype("int64") for i in range(40)]


def wav(samples, rate=4000):
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, samples.astype("int16"))
    return buffer.getvalue()


def prepare_sounds(root, name, **audio):
    """Writes tensors, then says that they are sound: to make an Audio feature needs TensorFlow."""
    from google.protobuf import json_format
    from tensorflow_datasets.core.proto import feature_pb2

    lazy = audio.get("lazy_decode", False)
    stored = [wav(samples) if lazy else samples for samples in SOUNDS]
    if name == "damaged":
        stored[3] = stored[30] = b"RIFF and no more"
    rows = [{"audio": sound, "label": i % 2} for i, sound in enumerate(stored)]
    folder = prepare(
        root,
        name,
        lambda tfds: {
            "audio": tfds.features.Tensor(shape=(), dtype=np.object_)
            if lazy
            else tfds.features.Tensor(shape=(None,), dtype=np.int64),
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
        },
        {"train": rows[:30], "test": rows[30:]},
        ("audio", "label"),
    )
    path = Path(folder) / "features.json"
    content = json.loads(path.read_text())
    shape = feature_pb2.Shape(dimensions=[-1])
    described = feature_pb2.AudioFeature(shape=shape, dtype="int64", encoding="NONE", **audio)
    content["featuresDict"]["features"]["audio"] = {
        "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio",
        "audio": json_format.MessageToDict(described),
    }
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    root = tmp_path_factory.mktemp("sounds")
    prepare_sounds(root, "commands", sample_rate=4000, file_format="wav")
    prepare_sounds(root, "files", sample_rate=4000, lazy_decode=True)
    prepare_sounds(root, "damaged", sample_rate=4000, lazy_decode=True)
    prepare_sounds(root, "nameless")
    return root


def expected_waveform(index, samples=100):
    waveform = np.zeros(samples, np.float32)
    sound = SOUNDS[index][:samples] / 32768
    waveform[: len(sound)] = sound
    return waveform


@pytest.mark.parametrize("source", ["commands", "files"])
def test_sounds_become_waveforms_of_one_length(sounds, source, tmp_path):
    dataset = open_dataset({"source": source, "data_dir": str(sounds), "seconds": 0.025})
    assert (dataset.spec.input.shape, dataset.spec.input.dtype) == ((100,), "float32")
    assert dataset.spec.input.sample_rate == dataset.spec.to_dict()["sample_rate"] == 4000
    for split, rows in {"train": dataset.parts["train"][1], "test": np.arange(30, 40)}.items():
        inputs, targets = dataset.read(split)
        expected = np.stack([expected_waveform(row) for row in rows])
        np.testing.assert_allclose(inputs, expected, atol=1e-7)
        np.testing.assert_array_equal(targets, rows % 2)
        np.testing.assert_array_equal(dataset.records(split)[1][0], inputs[1])
    for index in (0, 1):
        (tmp_path / f"{index}.wav").write_bytes(wav(SOUNDS[index]))
    inputs, ids, *_ = read_inputs(
        tmp_path, DataSpec.from_dict(json.loads(json.dumps(dataset.spec.to_dict()))).input
    )
    assert ids == ["0.wav", "1.wav"]
    np.testing.assert_allclose(inputs, [expected_waveform(0), expected_waveform(1)], atol=1e-7)
    assert "tensorflow" not in sys.modules


def test_sounds_are_resampled(sounds):
    fields = {"source": "commands", "data_dir": str(sounds), "seconds": 0.02, "sample_rate": 6000}
    dataset = open_dataset(fields)
    assert (dataset.spec.input.sample_rate, dataset.spec.input.shape) == (6000, (120,))
    first = dataset.parts["train"][1][0]
    expected = resample_poly(SOUNDS[first] / 32768, 3, 2)[:120]
    np.testing.assert_allclose(
        dataset.read("train").inputs[0][: len(expected)], expected, atol=1e-6
    )


def test_sounds_that_can_not_be_read_are_skipped_when_asked(sounds):
    fields = {"source": "damaged", "data_dir": str(sounds), "seconds": 0.025}
    with pytest.raises(DataError, match=r"record 3 can't be read: .*sound 3.*data.on_bad='skip'"):
        open_dataset(fields)
    dataset = open_dataset(fields | {"on_bad": "skip"})
    assert dataset.skipped == {"unreadable sound": 1}
    assert dataset.sizes["train"] + dataset.sizes["validation"] == 29
    assert 3 not in np.concatenate([dataset.parts[s][1] for s in ("train", "validation")])
    assert len(dataset.read("test").inputs) == dataset.sizes["test"] == 9
    assert dataset.skipped == {"unreadable sound": 2}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "commands"}, "'audio' may have any length. Set data.seconds"),
        ({"source": "nameless", "seconds": 1.0}, "how many samples a second of feature 'audio'"),
        ({"source": "commands", "seconds": 1.0, "target": "audio"}, "'audio' is Tensor"),
    ],
)
def test_wrong_sounds(sounds, fields, message):
    with pytest.raises(DataError, match=message):
        open_dataset(fields | {"data_dir": str(sounds)})


def test_images_that_can_not_be_decoded_are_skipped_when_asked(tmp_path):
    broken = rows(0, 30)
    broken[0]["image"] = broken[17]["image"] = b"\x89PNG broken"
    prepare(
        tmp_path,
        "broken",
        lambda tfds: {
            "image": tfds.features.Image(shape=(None, None, 1)),
            "id": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["x", "y", "z"]),
        },
        {"train": broken},
        ("image", "label"),
    )
    fields = {"source": "broken", "data_dir": str(tmp_path)}
    with pytest.raises(DataError, match=r"image 0 can't be read.*data.on_bad='skip'"):
        open_dataset(fields)
    dataset = open_dataset(fields | {"on_bad": "skip"})
    assert dataset.spec.input.shape == (6, 5, 1)
    seen = {split: dataset.read(split).inputs for split in dataset.sizes}
    assert dataset.skipped == {"unreadable image": 2}
    kept = np.concatenate([dataset.records(split).indices for split in dataset.sizes])
    assert sorted(kept) == [i for i in range(30) if i not in (0, 17)]
    np.testing.assert_array_equal(np.concatenate(list(seen.values()))[..., 0], IMAGES[kept])


@pytest.mark.parametrize("written", [
    {"pythonClassName": "canary.Feature", "tensor": {"shape": {}, "dtype": "int64"}},
    {"python_class_name": "canary.Feature", "tensor": {"shape": {}, "dtype": "int64"}},
    {"pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
     "sequence": {"feature": {"pythonClassName": "canary.Feature", "tensor": {}}}},
    {"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
     "jsonFeature": {"json": json.dumps({"x": {"type": "canary.Feature", "content": {}}})}},
    {"pythonClassName": "tensorflow_datasets.core.features.features_dict.Canary", "tensor": {}},
    {"pythonClassName": "tensorflow_datasets.core.features.audio_feature_canary.Audio"},
])  # fmt: skip
def test_a_class_that_features_name_is_not_imported(written, tmp_path, monkeypatch):
    (tmp_path / "canary.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    dict_of = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    for content in (
        {"pythonClassName": dict_of, "featuresDict": {"features": {"x": written}}},
        {"type": dict_of, "content": {"x": written}},
        {"type": "canary.Feature", "content": {"x": written}},
        {"type": dict_of, "proto_cls": "tensorflow_datasets.FeaturesDict",
         "content": json.dumps({"features": {"x": written}})},
    ):  # fmt: skip
        (tmp_path / "features.json").write_text(json.dumps(content))
        with pytest.raises(DataError):
            read_features(tmp_path)
        assert not (tmp_path / "ran").exists()


def test_photos_are_turned_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", exif=exif)
    examples = [{"image": file.getvalue(), "label": i % 2} for i in range(20)]
    prepare(
        tmp_path,
        "photos",
        lambda tfds: {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["ant", "bee"]),
        },
        {"train": examples},
        ("image", "label"),
    )
    dataset = open_dataset({"source": "photos", "data_dir": str(tmp_path)})
    assert dataset.spec.input.shape == (4, 6, 3)
    for image in dataset.read("train").inputs:
        np.testing.assert_array_equal(image, np.rot90(pixels, -1))
    (note,) = dataset.notes
    assert (note.what, note.count) == (ROTATED, dataset.sizes["train"])
