"""A bundle says what its run says, is whole or not there, and is data to whoever opens it."""

from __future__ import annotations

import ast
import contextlib
import csv
import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from jdlopt.cli import main
from jdlopt.errors import UserError
from jdlopt.export import standalone
from jdlopt.export.bundle import Model, write_bundle
from jdlopt.export.manifest import spec_of
from jdlopt.export.standalone.answers import check
from jdlopt.export.standalone.opening import (
    DIGEST,
    MANIFEST,
    BundleError,
    has_external_data,
    open_bundle,
)
from jdlopt.train import serve

FILES = {"model.onnx", "predict.py", "README.md", "example_request.json", "example_answer.json"}


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def resealed(folder, change):
    """Writes a manifest that was changed, with hashes that fit: what an attacker would do."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    for name, said in manifest["files"].items():
        if (folder / name).is_file():
            said["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    raw = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(raw)
    (folder / DIGEST).write_text(f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n")


# --- what it holds --------------------------------------------------------------------------------


def test_a_bundle_says_what_it_takes_gives_and_is_worth(folder, run):
    manifest = json.loads((folder / MANIFEST).read_text())
    assert set(manifest["files"]) == FILES
    assert {path.name for path in folder.iterdir()} == FILES | {MANIFEST, DIGEST}
    (table,) = manifest["inputs"]
    length, weight, colour = table["columns"]
    assert length == {"name": "length", "type": "number", "unit": None, "decimal": None}
    assert weight["unit"] == "kg"
    assert colour["categories"] == ["NA", "blue", "red"]
    assert manifest["outputs"]["classes"] == ["kind0", "kind1", "kind2"]
    saved = json.loads((run / "result.json").read_text())["metrics"]
    for split in ("validation", "test"):
        found = manifest["measured"][split]
        assert found["same"] == 1 and found["largest_difference"] < 1e-6
        assert found["metrics"]["accuracy"]["bundle"] == pytest.approx(saved[f"{split}/accuracy"])
    text = (folder / "README.md").read_text()
    assert "kind1" in text and "curl" in text and "| test (18) | accuracy |" in text


def test_what_prediction_must_know_is_read_back_from_the_manifest(folder, run):
    spec = serve.run_experiment(run).spec
    found = spec_of(json.loads((folder / MANIFEST).read_text()), "here")
    assert found.inputs == spec.inputs
    for name in ("task", "class_names", "target_shape", "target_dtype", "decision"):
        assert getattr(found, name) == getattr(spec, name)


def test_a_run_its_bundle_and_the_bundle_alone_predict_the_same(folder, run, table, capsys):
    found = []
    for source in ([str(run)], [f"--bundle={folder}"]):
        assert main(["predict", *source, f"--input={table}"]) == 0
        found.append(rows_of(capsys.readouterr().out))
    command = [sys.executable, "-I", str(folder / "predict.py"), str(table)]
    found.append(
        rows_of(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    )
    assert len(found[0]) == 90
    for of_run, *others in zip(*found, strict=True):
        for other in others:
            assert list(other) == list(of_run)
            assert (other["row"], other["prediction"]) == (of_run["row"], of_run["prediction"])
            assert float(other["probability_kind1"]) == pytest.approx(
                float(of_run["probability_kind1"]), abs=1e-6
            )


def test_predict_takes_a_bundle_or_a_run(folder, run, table, capsys):
    words = ["predict", str(run), f"--bundle={folder}", f"--input={table}"]
    assert main(words) == 2
    assert "--bundle: names a model by itself; RUN is about a run" in capsys.readouterr().err
    assert main(["predict", f"--bundle={run}", f"--input={table}"]) == 2
    assert "is no bundle: there is no manifest.json" in capsys.readouterr().err


# --- written whole, or not at all -----------------------------------------------------------------


def test_a_bundle_that_can_not_be_made_leaves_nothing(run, model, folder, tmp_path):
    experiment = serve.run_experiment(run)
    weights, _ = serve.load_weights(experiment, run, "best")
    (tmp_path / ".made.writing").mkdir()
    (tmp_path / ".made.writing" / "half").write_text("left by a kill")
    with pytest.raises(UserError, match="is no ONNX model"):
        write_bundle(tmp_path / "made", experiment, weights, Model(b"not a model"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".made.writing").symlink_to(tmp_path / "elsewhere")
    made = write_bundle(tmp_path / "made", experiment, weights, model)  # without data
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "elsewhere").rmdir()
    assert "measured" not in made.manifest
    assert "was not measured" in (tmp_path / "made" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    with pytest.raises(UserError, match="something is there already"):
        write_bundle(tmp_path / "made", experiment, weights, model)


# --- what others made is data ---------------------------------------------------------------------


@given(data=st.data())
def test_a_flipped_bit_in_any_file_is_refused(folder, data):
    path = folder / data.draw(st.sampled_from(sorted(FILES | {MANIFEST, DIGEST})))
    before = path.read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(before)
    changed[place] ^= 1 << bit
    path.write_bytes(changed)
    try:
        with pytest.raises(BundleError, match="has changed since"):
            open_bundle(folder)
    finally:
        path.write_bytes(before)
    open_bundle(folder)


def test_a_changed_bundle_is_refused_by_every_way_to_use_it(copy, table, capsys):
    with (copy / "README.md").open("a") as file:
        file.write(" ")
    assert main(["predict", f"--bundle={copy}", f"--input={table}"]) == 2
    assert "README.md: has changed since the bundle was made" in capsys.readouterr().err
    assert main(["serve", f"--bundle={copy}"]) == 2
    assert "Nothing was loaded" in capsys.readouterr().err
    command = [sys.executable, "-I", str(copy / "predict.py"), str(table)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2 and "README.md: has changed" in found.stderr


def test_files_outside_of_a_bundle_are_not_read(copy, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    for name in ("../secret", str(secret), "a/../../secret", ""):
        resealed(copy, lambda manifest, name=name: manifest["files"].update({name: {"sha256": ""}}))
        with pytest.raises(BundleError, match="is no name of a file inside the bundle"):
            open_bundle(copy)
        resealed(copy, lambda manifest, name=name: manifest["files"].pop(name))
    (copy / "linked").symlink_to(secret)
    resealed(copy, lambda manifest: manifest["files"].update({"linked": {"sha256": ""}}))
    with pytest.raises(BundleError, match="is a link"):
        open_bundle(copy)
    (copy / "linked").unlink()
    with pytest.raises(BundleError, match="can't be read"):
        open_bundle(copy)


def test_a_model_that_keeps_weights_in_other_files_is_refused(copy, tmp_path):
    made = onnx.load_from_string((copy / "model.onnx").read_bytes())
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    hidden = onnx.load_from_string((copy / "model.onnx").read_bytes())
    inner = onnx.helper.make_graph([], "inner", [], [], [tensor])
    hidden.graph.node.add(op_type="If").attribute.append(
        onnx.helper.make_attribute("then_branch", inner)
    )
    for one in (made, hidden):
        (copy / "model.onnx").write_bytes(one.SerializeToString())
        resealed(copy, lambda manifest: None)
        with pytest.raises(BundleError, match="keeps weights in other files"):
            open_bundle(copy)


@given(content=st.binary(max_size=200))
def test_bytes_that_are_no_model_are_one_message(folder, content):
    with contextlib.suppress(ValueError, IndexError):
        has_external_data(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format=2), "has format 2; this program reads format 1"),
        (lambda m: m.update(inputs="none"), "is damaged"),
        (lambda m: m["inputs"][0].update(shape=[2]), "is damaged"),
        (lambda m: m["inputs"][0].update(dtype="object"), "is damaged"),
        (lambda m: m["outputs"].update(task="os:system"), "is damaged"),
        (lambda m: m["outputs"].update(threshold=[0.5]), "is damaged"),
        (lambda m: m.update(tolerance=None), "is damaged"),
        (lambda m: m["model"].update(file="other.onnx"), "lists no model file"),
        (lambda m: m.pop("files"), "is no manifest of a bundle"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(copy, change, said):
    manifest = json.loads((copy / MANIFEST).read_text())
    change(manifest)
    raw = json.dumps(manifest).encode()
    (copy / MANIFEST).write_bytes(raw)
    (copy / DIGEST).write_text(f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n")
    with pytest.raises(BundleError, match=said):
        open_bundle(copy)


def test_a_manifest_nested_without_end_is_refused(copy):
    raw = b"[" * 200_000
    (copy / MANIFEST).write_bytes(raw)
    (copy / DIGEST).write_text(f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n")
    with pytest.raises(BundleError, match="is no manifest"):
        open_bundle(copy)


def test_other_weights_under_right_hashes_give_another_answer(copy):
    made = onnx.load_from_string((copy / "model.onnx").read_bytes())
    bias = made.graph.initializer[1]
    bias.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32([0, 1, 2]), bias.name)
    )
    (copy / "model.onnx").write_bytes(made.SerializeToString())
    resealed(copy, lambda manifest: None)
    with pytest.raises(BundleError, match="this machine's answer to"):
        check(open_bundle(copy))


# --- what it carries ------------------------------------------------------------------------------


def test_predict_py_needs_numpy_and_onnxruntime_alone():
    tree = ast.parse(standalone.source())
    names = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(defined) == len(set(defined))
