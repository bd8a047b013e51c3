"""Measures how long `jdlopt serve` takes to answer: 1,000 requests, 8 at a time.

A table's MLP and a CNN on images, each beside a bare onnxruntime behind the same starlette, without
batching or checks (`serving_peer.py`), in turn. Among the requests to jdlopt's server of another
round every tenth is malformed: each must be told why, and none lost.

python benchmarks/measure_serving.py [--rounds=7]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from recording import spread, write

import jdlopt
from jdlopt.export.bundle import bundle_runs

ROOT = Path(__file__).parent.parent
REQUESTS, TOGETHER = 1000, 8
MODELS = {
    "breast_cancer_mlp": "configs/tabular/breast_cancer_mlp.py",
    "digits_cnn": "configs/image/digits_cnn.py",
}


@contextlib.contextmanager
def serving(command: list[str], port: int) -> Iterator[int]:
    """Runs a server until the end; gives its port once it is ready."""
    with subprocess.Popen([sys.executable, *command], cwd=ROOT) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    if asked(http.client.HTTPConnection("127.0.0.1", port), "", None) == 200:
                        break
                time.sleep(0.05)
            else:
                raise SystemExit(f"not ready: {command}")
            yield port
        finally:
            process.terminate()


def free_port() -> int:
    """Returns a port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def asked(connection: http.client.HTTPConnection, path: str, body: bytes | None) -> int:
    """Returns the status of an answer, after reading it."""
    connection.request("POST" if body else "GET", path or "/v2/health/ready", body)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def load(port: int, path: str, bodies: list[bytes]) -> dict[str, Any]:
    """Returns milliseconds of every request, its status, and the seconds of all."""

    def client(first: int) -> list[tuple[float, int]]:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        found = []
        for number in range(first, REQUESTS, TOGETHER):
            start = time.perf_counter()
            status = asked(connection, path, bodies[number % len(bodies)])
            found.append((1000 * (time.perf_counter() - start), status))
        connection.close()
        return found

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as clients:
        found = [one for some in clients.map(client, range(TOGETHER)) for one in some]
    seconds = time.perf_counter() - start
    return {
        "p50_ms": float(np.percentile([ms for ms, _ in found], 50)),
        "p99_ms": float(np.percentile([ms for ms, _ in found], 99)),
        "requests_per_second": REQUESTS / seconds,
        "statuses": [status for _, status in found],
    }


def measure(name: str, file: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Returns what both servers of one model took."""
    config = jdlopt.load(ROOT / file, {"train.epochs": 3, "train.loggers": ()})
    jdlopt.fit(config, folder / name)
    bundle = bundle_runs([folder / name], folder / f"{name}.bundle")
    (tensor,) = bundle.inputs
    rng = np.random.default_rng(0)
    bodies = []
    for _ in range(50):
        drawn = (
            rng.integers(0, 17, tensor.shape)
            if tensor.dtype == "uint8"
            else rng.random(tensor.shape)
        )
        said = {"name": tensor.name, "shape": [1, *tensor.shape], "data": drawn.ravel().tolist()}
        said["datatype"] = {"uint8": "UINT8", "float32": "FP32"}[tensor.dtype]
        bodies.append(json.dumps({"inputs": [said]}).encode())
    path = f"/v2/models/{bundle.name}/infer"
    own_port, peer_port = free_port(), free_port()
    own = ["-m", "jdlopt.cli", "serve", f"--bundle={bundle.folder}", f"--port={own_port}"]
    peer = ["benchmarks/serving_peer.py", str(bundle.folder / "model.onnx"), str(peer_port)]
    found: dict[str, list[dict[str, Any]]] = {"jdlopt": [], "bare onnxruntime": []}
    with serving(own, own_port), serving(peer, peer_port):
        for which in range(rounds + 1):
            for server, port in (("jdlopt", own_port), ("bare onnxruntime", peer_port)):
                one = load(port, path, bodies)
                assert set(one["statuses"]) == {200}, server
                if which:  # the first round warms both up
                    found[server].append(one)
        bad = [*bodies[:9], bodies[0][:-5]]
        mixed = load(own_port, path, bad)
        assert sorted(set(mixed["statuses"])) == [200, 400]
    keys = ("p50_ms", "p99_ms", "requests_per_second")
    return {
        **{
            server: {key: spread([one[key] for one in several]) for key in keys}
            for server, several in found.items()
        },
        "malformed": {
            "requests": REQUESTS,
            "malformed": REQUESTS // 10,
            "answered": len(mixed["statuses"]),
            "refused_with_a_reason": mixed["statuses"].count(400),
        },
    }


def main() -> None:
    """Measures all models and writes what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure(name, file, Path(folder), rounds) for name, file in MODELS.items()}
    for name, one in found.items():
        for server in ("jdlopt", "bare onnxruntime"):
            medians = {key: round(value["median"], 3) for key, value in one[server].items()}
            print(name, server, medians)
    write("serving", {"requests": REQUESTS, "together": TOGETHER, "models": found})


if __name__ == "__main__":
    main()
