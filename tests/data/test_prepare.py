from __future__ import annotations

import pytest

from jdlopt.data.prepare import main, use_files

NAMES = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
]


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(b"not what was published")
    return folder


def run(root, *arguments):
    return main([*arguments, f"--data_dir={root}"])


def test_a_name_that_is_none(tmp_path, capsys):
    assert run(tmp_path, "../mnist") == 2
    assert "is not a TFDS name" in capsys.readouterr().err


def test_an_unknown_name(tmp_path, capsys):
    assert run(tmp_path, "mnistt") == 2
    assert "TFDS has no dataset 'mnistt'. Did you mean 'mnist'?" in capsys.readouterr().err


def test_files_that_differ_are_refused(tmp_path, files, capsys):
    assert run(tmp_path, "mnist", f"--files={files}") == 2
    message = capsys.readouterr().err
    assert "SHA-256" in message
    assert "--accept_changed_files" in message


def test_a_folder_without_the_files(tmp_path, capsys):
    assert run(tmp_path, "mnist", f"--files={tmp_path}") == 2
    assert "holds none of the files that mnist needs" in capsys.readouterr().err


def test_accepted_files_lie_where_tfds_looks_for_downloads(tmp_path, files, capsys):
    import tensorflow_datasets as tfds

    builder = tfds.builder("mnist", data_dir=str(tmp_path))
    use_files(builder, tmp_path / "downloads", files, accept_changed_files=True)
    manager = tfds.download.DownloadManager(
        download_dir=tmp_path / "downloads",
        url_infos=builder.url_infos,
        dataset_name="mnist",
    )
    for found in manager.download(list(builder.url_infos)):
        assert found.read_bytes() == b"not what was published"
    assert capsys.readouterr().err.count("warning: ") == 4


def test_a_failure_is_one_line_and_leaves_no_files(tmp_path, files, capsys):
    root = tmp_path / "root"
    assert run(root, "mnist", f"--files={files}", "--accept_changed_files") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("preparing 'mnist' failed")  # they are no gzip files
    assert [path.name for path in root.iterdir() if path.is_file()] == [".mnist.tfds.lock"]
    assert not list(root.glob(".downloads.*"))
