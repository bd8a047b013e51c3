"""A run whose machine is gone goes on from its copy on a server that speaks S3."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.slow
SECRET = "nobody-may-read-this"


class Server(NamedTuple):
    """A server that speaks S3: what runs need to know of it, its process, and its files."""

    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    client: Any

    def contents(self, prefix: str) -> dict[str, bytes]:
        """Returns all objects that begin so."""
        found = self.client.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", ())
        return {
            one["Key"]: self.client.get_object(Bucket="bucket", Key=one["Key"])["Body"].read()
            for one in found
        }


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, runs, tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    boto3 = pytest.importorskip("boto3")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = os.environ.get("PYTHONPATH", "")
    environment = {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "PYTHONPATH": os.pathsep.join([str(runs.folder), found]),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, found if name == "PYTHONPATH" else value)
    with (tmp_path / "server.txt").open("wb") as output:
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", f"-p{port}"]
        process = subprocess.Popen(words, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not listens(port):
            assert time.monotonic() < deadline, (tmp_path / "server.txt").read_text()
            time.sleep(0.1)
        with contextlib.closing(boto3.client("s3")) as client:
            client.create_bucket(Bucket="bucket")
            yield Server(environment, process, client)
    finally:
        process.kill()
        process.wait()


def test_a_run_goes_on_from_s3_and_without_it(runs, whole, server, tmp_path):
    first, second = tmp_path / "machine-1" / "run", tmp_path / "machine-2" / "run"
    keys = ("train.remote=s3://bucket/run",)
    process = runs.start(first, *keys, **server.environment)
    runs.wait(process, lambda: server.contents("run/newest.json"))
    process.kill()
    process.communicate()
    shutil.rmtree(first)

    said = runs.train(second, *keys, **server.environment)
    assert "taken from s3://bucket/run" in said
    runs.assert_same(whole, second)
    assert runs.result(second)["remote"] == {"url": "s3://bucket/run", "step": 48}
    assert runs.result(second)["goodput"]["starts"] == 2
    there = server.contents("run/")
    assert {"run/result.json", "run/metrics.jsonl"} <= set(there)
    written = [*there.values()]
    written += [path.read_bytes() for path in second.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in content for content in written)

    third = tmp_path / "machine-3" / "run"
    keys = ("train.remote=s3://bucket/other", "train.steps=96")
    process = runs.start(third, *keys, **server.environment)
    runs.wait(process, lambda: runs.newest(third) >= 12)
    server.process.kill()  # and the training goes on
    said = runs.finish(process)
    assert "can't be written" in said and said.count("warning") == 1
    assert runs.result(third)["steps"] == 96 and runs.result(third)["remote"]["reason"]
    shutil.rmtree(third)
    assert "Whether there is a copy" in runs.train(third, *keys, expect=2, **server.environment)
