from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets as published

from jdlopt.data import list_datasets, open_dataset
from jdlopt.data.bundled import BUNDLED, prepare_bundled
from jdlopt.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("bundled"))


def whole(dataset):
    """Returns all examples of a dataset that was published without splits, in its own order."""
    size = sum(dataset.sizes.values())
    inputs = np.empty((size, *dataset.spec.input.shape), dataset.spec.input.dtype)
    targets = np.empty(size, dataset.spec.target_dtype)
    for split in dataset.sizes:
        index = dataset.parts[split][1]
        inputs[index], targets[index] = dataset.read(split)
    return inputs, targets


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer"])
def test_tables_for_classification(root, name):
    expected = getattr(published, f"load_{name}")()
    dataset = open_dataset({"source": name, "data_dir": root})
    inputs, targets = whole(dataset)
    np.testing.assert_array_equal(inputs, expected.data.astype(np.float32))
    np.testing.assert_array_equal(targets, expected.target)
    assert dataset.spec.input.feature_names == tuple(expected.feature_names)
    assert dataset.spec.class_names == tuple(expected.target_names)
    assert (inputs.dtype, targets.dtype) == (np.float32, np.int32)


def test_digits(root):
    dataset = open_dataset({"source": "digits", "data_dir": root})
    inputs, targets = whole(dataset)
    expected = published.load_digits()
    assert (inputs.dtype, inputs.shape[1:], inputs.max()) == (np.uint8, (8, 8, 1), 16)
    np.testing.assert_array_equal(inputs[..., 0], expected.images)
    np.testing.assert_array_equal(targets, expected.target)
    assert dataset.sizes == {"train": 1293, "validation": 144, "test": 360}


def test_diabetes_is_regression_on_unscaled_features(root):
    dataset = open_dataset({"source": "diabetes", "data_dir": root})
    inputs, targets = whole(dataset)
    expected = published.load_diabetes(scaled=False)
    assert (dataset.spec.task, dataset.spec.num_classes, targets.dtype) == (
        "regression",
        0,
        np.float32,
    )
    np.testing.assert_array_equal(inputs, expected.data.astype(np.float32))
    np.testing.assert_array_equal(targets, expected.target)


def test_mnist1d_is_the_published_generators_and_disturbs_no_random_state(root):
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    dataset = open_dataset({"source": "mnist1d", "data_dir": root})
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before  # noqa: NPY002
    assert dataset.spec.input.shape == (40, 1)
    assert dataset.sizes == {"train": 3600, "validation": 400, "test": 1000}

    from mnist1d.data import make_dataset

    expected = make_dataset()
    inputs, targets = dataset.read("test")
    np.testing.assert_array_equal(inputs[..., 0], expected["x_test"].astype(np.float32))
    np.testing.assert_array_equal(targets, expected["y_test"])
    train = dataset.parts["train"][1]
    np.testing.assert_array_equal(dataset.read("train").targets, expected["y"][train])
    assert "tensorflow" not in sys.modules


def test_a_folder_of_the_same_name_is_told(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iris").mkdir()
    section = {"source": "iris", "data_dir": str(root)}
    [note] = open_dataset(section).notes
    assert note.places == ("iris",) and "data.source='./iris'" in note.remedy
    (tmp_path / "iris").rmdir()
    assert not open_dataset(section).notes


def test_prepared_once_and_left_clean(root, tmp_path):
    leftover = tmp_path / ".jdlopt_iris.abc.preparing"
    leftover.mkdir()
    folder = prepare_bundled("iris", str(tmp_path))
    stamp = (folder / "dataset_info.json").stat().st_mtime_ns
    assert prepare_bundled("iris", str(tmp_path)) == folder
    assert (folder / "dataset_info.json").stat().st_mtime_ns == stamp
    assert {entry.name for entry in tmp_path.iterdir()} == {"jdlopt_iris", ".jdlopt_iris.lock"}


def test_preparing_is_silent(tmp_path, capfd):
    prepare_bundled("wine", str(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = prepare_bundled("iris", None)
    assert folder.is_relative_to(tmp_path / "jdlopt" / "tensorflow_datasets")


def test_a_data_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data.data_dir or TFDS_DATA_DIR"):
        open_dataset({"source": "iris", "data_dir": str(tmp_path / "file")})


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jdlopt.data.bundled.os.rename", full)
    with pytest.raises(DataError, match=r"preparing the dataset 'iris' failed.*No space left"):
        prepare_bundled("iris", str(tmp_path))
    monkeypatch.undo()
    assert not list(tmp_path.glob("*preparing*"))
    assert prepare_bundled("iris", str(tmp_path)).is_dir()


def test_listed_sizes_are_true(root):
    for row in list_datasets(root):
        assert row["description"].endswith(".")
        dataset = open_dataset({"source": row["name"], "data_dir": root})
        assert sum(dataset.sizes.values()) == sum(row["sizes"].values())
        assert dataset.spec.task == row["task"]
    assert [row["name"] for row in list_datasets(root)] == list(BUNDLED)


@pytest.mark.slow
def test_two_processes_prepare_at_the_same_time(tmp_path):
    code = (
        "import sys; from jdlopt.data import open_dataset; "
        "dataset = open_dataset({'source': 'digits', 'data_dir': sys.argv[1]}); "
        "print(dataset.read('test').inputs.sum())"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], results
    assert results[0] == results[1]
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {"jdlopt_digits", ".jdlopt_digits.lock"}
