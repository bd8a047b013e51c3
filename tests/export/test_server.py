"""The server speaks the protocol, batches, and says what is wrong with a request."""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from jdlopt.export import http_body, server
from jdlopt.export.batching import Batcher, Failed
from jdlopt.export.server import make_app
from jdlopt.export.standalone.opening import open_bundle

ROW = {"length": 0.1, "weight": "10.0 kg", "colour": "red"}
TENSOR = {"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [0.1, 10.0, 3.0]}
INFER = "/v2/models/plants/infer"


def ready(client):
    for _ in range(200):
        if client.get("/v2/health/ready").status_code == 200:
            return client
        time.sleep(0.01)
    raise AssertionError(client.get("/v2/health/ready").json())


@pytest.fixture(scope="module")
def client(folder):
    with TestClient(make_app(open_bundle(folder))) as made:
        yield ready(made)


# --- what it answers ------------------------------------------------------------------------------


def test_it_speaks_the_open_inference_protocol(client):
    assert client.get("/v2").json()["name"] == "jdlopt"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/models/plants/ready").json() == {"ready": True}
    for path in ("/v2/models/plants", "/v2/models/plants/versions/1"):
        said = client.get(path).json()
        assert said["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}]
        assert [one["name"] for one in said["outputs"]] == ["prediction", "probabilities"]
    two = {**TENSOR, "shape": [2, 3], "data": [TENSOR["data"], [2.0, 12.0, 2.0]]}
    said = client.post(INFER, json={"id": "7", "inputs": [two]}).json()
    label, shares = said["outputs"]
    assert (said["model_name"], said["model_version"], said["id"]) == ("plants", "1", "7")
    assert (label["datatype"], label["shape"], len(label["data"])) == ("BYTES", [2], 2)
    assert (shares["datatype"], shares["shape"]) == ("FP32", [2, 3])
    assert np.sum(shares["data"]) == pytest.approx(2, abs=1e-5)
    only = {"inputs": [TENSOR], "outputs": [{"name": "prediction"}]}
    assert len(client.post(INFER, json=only).json()["outputs"]) == 1


def test_rows_and_tensors_mean_the_same(client, folder):
    rows = client.post("/predict", json={"rows": [ROW]}).json()["predictions"]
    label, shares = client.post(INFER, json={"inputs": [TENSOR]}).json()["outputs"]
    assert rows[0]["prediction"] == label["data"][0]
    assert list(rows[0].values())[1:] == pytest.approx(shares["data"])
    request = json.loads((folder / "example_request.json").read_text())
    answer = json.loads((folder / "example_answer.json").read_text())
    assert client.post("/predict", json=request).json() == answer
    unseen = client.post("/predict", json={"rows": [{**ROW, "colour": "green"}]}).json()
    assert unseen["notes"] == ["column 'colour': 1 values, such as 'green', are in no training row"]


def infer(**changes):
    return {"inputs": [{**TENSOR, **changes}]}


@pytest.mark.parametrize(
    ("path", "content", "status", "said"),
    [
        (INFER, b"{", 400, "the body is no JSON"),
        (INFER, b"\xff\xfe", 400, "the body is no JSON"),
        (INFER, b"[" * 100_000, 400, "the body is no JSON"),
        (INFER, b'{"inputs": [{"data": [NaN]}]}', 400, "NaN is no JSON"),
        (INFER, {}, 400, "'input' FP32 [n, 3]"),
        (INFER, infer(name="imput"), 400, "no input 'imput'. Did you mean 'input'?"),
        (INFER, infer(shape=[1, 4]), 400, "has shape [1, 4], expected 'input' FP32 [n, 3]"),
        (INFER, infer(shape=[10**30, 3]), 400, "data holds 3 values"),
        (INFER, infer(shape="1"), 400, "has shape '1'"),
        (INFER, infer(datatype="INT64"), 400, "has datatype 'INT64', expected FP32"),
        (INFER, infer(data=["a", "b", "c"]), 400, "data holds a text, expected numbers (FP32)"),
        (INFER, infer(data=[1.0]), 400, "data holds 1 values"),
        (INFER, infer(data=[1.0, None, 2.0]), 400, "the value at [0, 1] is missing"),
        (INFER, {"inputs": [TENSOR, TENSOR]}, 400, "expected each of 'input' once"),
        (INFER, {**infer(), "outputs": [{"name": "probability"}]}, 400, "'probabilities'"),
        (INFER, {**infer(), "id": 3}, 400, "id: expected a text"),
        ("/predict", {"rows": []}, 400, "there is none"),
        ("/predict", {"rows": [1]}, 400, "a list of objects"),
        ("/predict", {"rows": [{"lenght": 1}]}, 400, "lacks 3 of 3 columns"),
        ("/predict", {"rows": [{**ROW, "weight": "heavy"}]}, 400, "found 'heavy'"),
        ("/predict", {"rows": [{**ROW, "weight": None}]}, 400, "'weight': the value is missing"),
        ("/v2/models/plant/infer", infer(), 404, "no model 'plant'. Did you mean 'plants'?"),
        ("/v2/models/plants/versions/2/infer", infer(), 404, "no version '2'"),
        ("/predictions", {}, 404, "Did you mean '/predict'?"),
        ("/v2/health/live", {}, 405, "POST is not for"),
    ],
)
def test_a_bad_request_is_told_what_was_expected(client, path, content, status, said):
    how = {"content": content} if isinstance(content, bytes) else {"json": content}
    answer = client.post(path, **how)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_bodies_and_requests_are_bounded(client, monkeypatch):
    monkeypatch.setattr(http_body, "LARGEST", 100)
    assert client.post(INFER, content=b" " * 101).status_code == 413
    assert client.post(INFER, content=iter([b" " * 60, b" " * 60])).status_code == 413
    monkeypatch.undo()
    assert client.post(INFER, content=b"x", headers={"content-encoding": "gzip"}).status_code == 415
    monkeypatch.setattr(server, "MOST_REQUESTS", 0)
    answer = client.post(INFER, json=infer())
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"


def test_it_is_ready_only_after_the_example_is_answered_right(folder, tmp_path):
    bundle = open_bundle(folder)
    slow = bundle._replace(run=lambda arrays: time.sleep(0.3) or bundle.run(arrays))
    with TestClient(make_app(slow)) as made:
        assert made.get("/v2/health/live").status_code == 200
        assert made.get("/v2/health/ready").status_code == 503
        answer = made.post(INFER, json=infer())
        assert answer.status_code == 503 and "warmed up" in answer.json()["error"]
        assert answer.headers["retry-after"] == "1"
        ready(made)
        assert made.post(INFER, json=infer()).status_code == 200
    wrong = bundle._replace(
        run=lambda arrays: {"probabilities": bundle.run(arrays)["probabilities"][:, ::-1]}
    )
    with TestClient(make_app(wrong)) as made:
        for _ in range(100):
            reason = made.get("/v2/models/plants/ready").json()["error"]
            if "warm-up failed" in reason:
                break
            time.sleep(0.01)
        assert "this machine's answer" in reason


# --- batching -------------------------------------------------------------------------------------


def batched(run, requests, max_batch=64, max_wait=0.0):
    """Returns what requests that come together are answered with, and the number of batches."""

    async def all_of_them():
        batcher = Batcher(run, max_batch, max_wait)
        batcher.start()
        found = await asyncio.gather(*map(batcher, requests), return_exceptions=True)
        await batcher.close()
        return found, batcher.batches

    return asyncio.run(all_of_them())


def double(arrays):
    return {"twice": arrays["x"] * 2}


@pytest.mark.parametrize("max_batch", [1, 4, 1000])
def test_each_request_gets_its_own_answer_whatever_is_computed_with_it(max_batch):
    rng = np.random.default_rng(0)
    requests = [{"x": rng.random((size, 2))} for size in rng.integers(1, 9, 50)]
    found, batches = batched(double, requests, max_batch)
    for request, answer in zip(requests, found, strict=True):
        np.testing.assert_array_equal(answer["twice"], request["x"] * 2)
    assert batches == 50 if max_batch == 1 else batches < 50


def test_requests_that_come_while_another_waits_join_it():
    requests = [{"x": np.full((1, 1), float(place))} for place in range(8)]
    assert batched(double, requests, 8, max_wait=30.0)[1] == 1  # full before its time is up


def test_one_bad_request_does_not_spoil_those_computed_with_it():
    def run(arrays):
        if (arrays["x"] < 0).any():
            raise RuntimeError("no such token")
        return double(arrays)

    requests = [{"x": np.full((1, 1), value)} for value in (1.0, -1.0, 3.0)]
    (one, bad, three), _ = batched(run, requests)
    assert (one["twice"], three["twice"]) == (2.0, 6.0)
    assert isinstance(bad, Failed) and "no such token" in str(bad)
