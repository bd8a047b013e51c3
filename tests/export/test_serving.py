"""A bundle of an exported run, served by a process and used where nothing else is installed."""

from __future__ import annotations

import concurrent.futures
import csv
import http.client
import json
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import pytest
from families import TABLE, table

import jdlopt
from jdlopt.cli import main

pytestmark = pytest.mark.slow
REQUESTS, TOGETHER = 1000, 8


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a CSV, a run trained on it, and the run's bundle as the verb makes it."""
    folder = tmp_path_factory.mktemp("served")
    TABLE.to_csv(folder / "table.csv", index=False)
    config = {
        "data": {
            "source": str(folder / "table.csv"),
            "batch_size": 8,
            **table(scale="standard", missing="mean"),
        },
        "model": {"name": "mlp", "features": (8,)},
        "optim": {"name": "adam", "learning_rate": 0.01},
        "train": {"steps": 20, "loggers": ()},
        "mesh": {"data": 1},
    }
    jdlopt.fit(config, folder / "run")
    words = ["export", str(folder / "run"), "--format=bundle", f"--out={folder / 'bundle'}"]
    assert main(words) == 0
    return folder


@pytest.fixture
def served(place):
    """The process of a server, and its port."""
    command = [sys.executable, "-m", "jdlopt.cli", "serve", f"--bundle={place / 'bundle'}"]
    with subprocess.Popen(
        [*command, "--port=0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        port = int(url.rpartition(":")[2])
        deadline = time.monotonic() + 60
        while asked(port, "GET", "/v2/health/ready")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, port
        process.kill()


def asked(port, method, path, body=None, connection=None):
    """Returns the status of an answer, and its JSON."""
    own = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    own.request(method, path, body, {"Content-Type": "application/json"})
    answer = own.getresponse()
    found = answer.status, json.loads(answer.read())
    if connection is None:
        own.close()
    return found


def test_no_request_is_lost_and_each_bad_one_is_told_why(place, served):
    process, port = served
    request = json.loads((place / "bundle" / "example_request.json").read_text())
    answer = json.loads((place / "bundle" / "example_answer.json").read_text())
    (row, *_) = request["rows"]
    bad = [
        b"{",
        b"\x00\xff",
        json.dumps({"rows": []}),
        json.dumps({"rows": [{}]}),
        json.dumps({"rows": [dict.fromkeys(row, "no number")]}),
        json.dumps({"rows": [{key: [1] for key in row}]}),
        b'{"rows": [{"a": NaN}]}',
    ]
    good = json.dumps(request)

    def client(first):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        found = []
        for number in range(first, REQUESTS, TOGETHER):
            wrong = number % 5 == 0
            body = bad[number // 5 % len(bad)] if wrong else good
            found.append((wrong, *asked(port, "POST", "/predict", body, connection)))
        connection.close()
        return found

    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as clients:
        found = [one for some in clients.map(client, range(TOGETHER)) for one in some]
    assert len(found) == REQUESTS
    for wrong, status, said in found:
        if wrong:
            assert status == 400 and len(said["error"]) > 10
        else:
            assert status == 200
            assert [one["prediction"] for one in said["predictions"]] == [
                one["prediction"] for one in answer["predictions"]
            ]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_a_stop_answers_what_was_asked_before_it(place, served):
    process, port = served
    body = (place / "bundle" / "example_request.json").read_bytes()
    asking = []
    for _ in range(TOGETHER):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        assert b" 100 " in connection.sock.recv(1000)  # the server waits for the body now
        asking.append(connection)
    process.send_signal(signal.SIGTERM)
    expected = json.loads((place / "bundle" / "example_answer.json").read_text())
    for connection in asking:
        connection.send(body)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, expected)
        connection.close()
    assert process.wait(30) == 0


def test_a_bundle_predicts_where_jdlopt_and_jax_are_not(place, tmp_path, capsys):
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare/bin/python"
    pins = Path(__file__).parents[2] / "constraints.txt"
    install = [python, "-m", "pip", "install", "-q", "-c", pins, "onnxruntime", "numpy"]
    got = subprocess.run(install, capture_output=True, text=True, check=False)
    if got.returncode and "No matching distribution" in got.stderr:
        pytest.skip("no package registry can be reached")
    assert got.returncode == 0, got.stderr

    def alone(*words):
        command = [python, "-I", place / "bundle/predict.py", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for module in ("jax", "jdlopt", "pandas", "onnx"):
        missing = subprocess.run(
            [python, "-I", "-c", f"import {module}"], capture_output=True, check=False
        )
        assert missing.returncode
    assert alone("--check").returncode == 0
    assert main(["predict", str(place / "run"), f"--input={place / 'table.csv'}"]) == 0
    expected = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    found = alone(place / "table.csv")
    assert found.returncode == 0, found.stderr
    rows = list(csv.DictReader(found.stdout.splitlines()))
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in expected]
    assert len(rows) == len(TABLE)
    wrong = alone(place / "run" / "config.json")
    assert wrong.returncode == 2 and "expected" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_bundle_in_8_bits_tells_what_that_changes_of_each_layer(place, capsys):
    bundle = place / "small"
    words = ["export", str(place / "run"), "--format=bundle", "--int8", f"--out={bundle}"]
    assert main(words) == 0
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["model"]["precision"] == "int8"
    assert manifest["layer_errors"] and all(
        0 <= error < 0.2 for error in manifest["layer_errors"].values()
    )
    assert set(manifest["measured"]) == {"validation", "test"}
    capsys.readouterr()
    for source in (str(place / "run"), f"--bundle={bundle}"):
        assert main(["predict", source, f"--input={place / 'table.csv'}"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))[: len(TABLE)]
    assert len(rows) == len(TABLE)


def test_images_are_read_by_a_bundle_as_by_its_run(tmp_path, capsys):
    from PIL import Image

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (48, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(48) % 3)
    config = {
        "data": {"source": str(tmp_path / "images.npz"), "batch_size": 16},
        "model": {"name": "cnn", "features": (4, 4)},
        "optim": {"name": "adam", "learning_rate": 0.01},
        "train": {"steps": 6, "loggers": ()},
        "mesh": {"data": 1},
    }
    jdlopt.fit(config, tmp_path / "run")
    bundle = tmp_path / "bundle"
    assert main(["export", str(tmp_path / "run"), "--format=bundle", f"--out={bundle}"]) == 0
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place, image in enumerate(images[:5]):
        size = (8, 8) if place else (20, 12)
        Image.fromarray(image[..., 0]).resize(size).save(folder / f"{place}.png")
    capsys.readouterr()
    for given in (folder, tmp_path / "images.npz"):
        found = []
        for source in (str(tmp_path / "run"), f"--bundle={bundle}"):
            assert main(["predict", source, f"--input={given}"]) == 0
            found.append(list(csv.DictReader(capsys.readouterr().out.splitlines())))
        command = [sys.executable, "-I", bundle / "predict.py", given]
        alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found.append(list(csv.DictReader(alone.splitlines())))
        for rows in zip(*found, strict=True):
            assert len({(row["row"], row["prediction"]) for row in rows}) == 1
    assert (
        subprocess.run(
            [sys.executable, "-I", bundle / "predict.py", "--check"], check=False
        ).returncode
        == 0
    )


def test_several_numbers_and_runs_are_one_bundle_with_their_spread(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 2))
    lines = [f"{a:.4f},{b:.4f},{50 * a + 7:.3f},{a - 2 * b:.3f}" for a, b in rows]
    (tmp_path / "numbers.csv").write_text("\n".join(["a,b,far,near", *lines]) + "\n")
    for seed in (0, 1):
        config = {
            "seed": seed,
            "data": {
                "source": str(tmp_path / "numbers.csv"),
                "target": ("far", "near"),
                "batch_size": 8,
            },
            "model": {"name": "linear"},
            "optim": {"name": "adam", "learning_rate": 0.1},
            "train": {"steps": 20, "loggers": ()},
            "mesh": {"data": 1},
        }
        jdlopt.fit(config, tmp_path / f"run{seed}")
    both = f"--ensemble={tmp_path / 'run0'},{tmp_path / 'run1'}"
    bundle = tmp_path / "bundle"
    assert main(["export", both, "--format=bundle", f"--out={bundle}"]) == 0
    for split, one in json.loads((bundle / "manifest.json").read_text())["measured"].items():
        assert one["same"] == 1, split
        for name, value in one["metrics"].items():
            assert value["bundle"] == pytest.approx(value["run"], rel=1e-4, abs=1e-6), name
    capsys.readouterr()
    found = []
    for source in (both, f"--bundle={bundle}"):
        assert main(["predict", source, f"--input={tmp_path / 'numbers.csv'}"]) == 0
        found.append(list(csv.DictReader(capsys.readouterr().out.splitlines())))
    command = [sys.executable, "-I", bundle / "predict.py", tmp_path / "numbers.csv"]
    alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found.append(list(csv.DictReader(alone.splitlines())))
    for of_runs, *others in zip(*found, strict=True):
        for other in others:
            assert list(other) == list(of_runs)
            for name, value in of_runs.items():
                assert float(other[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-4)
