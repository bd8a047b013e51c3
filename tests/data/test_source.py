from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from jdlopt.config import check_section, fields_of
from jdlopt.data import DataFields, PreprocessFields, open_dataset
from jdlopt.data.source import kind_of_source
from jdlopt.errors import DataError


@pytest.fixture
def no_tensorflow(monkeypatch):
    monkeypatch.setattr("jdlopt.data.source.util.find_spec", lambda name: None)


@pytest.mark.usefixtures("no_tensorflow")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mnst1d", r"is neither.*Did you mean 'mnist1d'.*pip install 'jdlopt\[tf\]'"),
        ("mnist", "jdlopt.data.prepare mnist --data_dir="),
        ("table.csv", "there is no file 'table.csv'.*Did you mean 'tables.csv'"),
        ("./nowhere", "there is no file or folder './nowhere'"),
        ("/nowhere/at/all", "there is no file or folder"),
        ("what is this?", "there is no file or folder"),
        ("notes.txt", "has the ending '.txt'; a file must be one of .csv"),
        ("folder.csv", "is a folder, not a file"),
    ],
)
def test_wrong_sources(tmp_path, monkeypatch, source, message):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "tables.csv").write_text("")
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_dataset({"source": source, "data_dir": str(tmp_path / "cache")})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("digits", "bundled"),
        ("ads.CSV", "table"),
        ("ads.npz", "npz"),
        ("my_data:spirals", "function"),
        ("./stored", "prepared folder"),
        ("sounds", "sounds"),
        ("texts", "texts"),
        ("anything", "images"),
        ("glue/cola:2.0.0", "tfds"),
    ],
)
def test_a_name_is_of_the_first_kind_that_knows_it(tmp_path, monkeypatch, name, kind):
    for file in ("stored/dataset_info.json", "sounds/a.wav", "anything/a.bin", "texts/a.txt"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert kind_of_source(DataFields(name, data_dir=str(tmp_path / "cache"))) == kind


def test_a_failure_while_tfds_prepares_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("jdlopt.data.source.util.find_spec", lambda name: object())
    failed = subprocess.CompletedProcess([], 2, stderr="Traceback\n\nNo such dataset\n")
    monkeypatch.setattr("jdlopt.data.source.subprocess.run", lambda *args, **keys: failed)
    with pytest.raises(DataError, match=r"preparing .* 'mnist' in .* failed: No such"):
        open_dataset({"source": "mnist", "data_dir": str(tmp_path)})


def test_an_unknown_split(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((20, 2)), y=np.arange(20) % 2)
    dataset = open_dataset({"source": str(tmp_path / "a.npz")})
    with pytest.raises(DataError, match="split 'dev' is unknown"):
        dataset.read("dev")


def test_the_fields_are_a_schema_that_a_config_is_checked_by(tmp_path):
    problems: list[str] = []
    given = {"source": "iris", "test_fraction": 1.0, "sampling": "balancd", "batch_size": 0}
    check_section(given, fields_of(DataFields), "data", problems)
    check_section({"scale": "standrd"}, fields_of(PreprocessFields), "data.preprocess", problems)
    assert len(problems) == 4
    checked = check_section({"source": "iris"}, fields_of(DataFields), "data", [])
    assert DataFields(**checked) == DataFields("iris")


def test_keys_of_other_parts_are_passed_over(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((20, 2)), y=np.arange(20) % 2)
    fields = {"source": str(tmp_path / "a.npz"), "preprocess": {"scale": "none"}, "augment": {}}
    assert open_dataset(fields).sizes["train"] == 14
    assert open_dataset(DataFields(fields["source"], split_seed=3)).sizes["train"] == 14


def test_a_folder_of_sounds_is_told_from_one_of_images(tmp_path):
    from scipy.io import wavfile

    for name in ("hum", "beep"):
        (tmp_path / name).mkdir()
        for index in range(8):
            samples = np.arange(100 + index, dtype=np.int16) * 30
            wavfile.write(tmp_path / name / f"{index}.wav", 1000, samples)
    fields = {"source": str(tmp_path), "seconds": 0.1, "sample_rate": 2000}
    dataset = open_dataset(fields)
    assert (dataset.spec.input.shape, dataset.spec.input.sample_rate) == ((200,), 2000)
    assert dataset.spec.class_names == ("beep", "hum")
    with pytest.raises(DataError, match=r"data.image_size: .* not image files"):
        open_dataset(fields | {"image_size": (9, 9)})
    with pytest.raises(DataError, match=r"data.group: names columns"):
        open_dataset(fields | {"group": "speaker"})


@pytest.mark.slow
def test_importing_the_room_imports_nothing_heavy():
    code = (
        "import sys, jdlopt.data; "
        "print([name for name in ('jax', 'tensorflow_datasets', 'sklearn', 'pandas', 'PIL') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
