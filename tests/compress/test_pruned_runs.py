"""Pruned runs from end to end: what is 0 is 0 wherever the model goes, and the record says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jdlopt import config as configs
from jdlopt.compress.quantize import quantize_run
from jdlopt.compress.soup import soup_runs
from jdlopt.export.formats import export_run
from jdlopt.models.quantization import QuantizeFields
from jdlopt.train import checkpoint, log
from jdlopt.train.longer import LongerRunWarning
from jdlopt.train.loop import fit
from jdlopt.train.run import Run, open_run

pytestmark = pytest.mark.slow
CONFIG: dict[str, Any] = {
    "data": {"source": "wine", "batch_size": 16, "preprocess": {"scale": "standard"}},
    "model": {
        "name": "mlp", "features": (16, 8), "prune": {"criterion": "gradient", "sparsity": 0.75},
    },
    "optim": {"name": "adam", "learning_rate": 0.02},
    "train": {"epochs": 4, "tensorboard": False, "steps_per_dispatch": 1},
}  # fmt: skip
OF_TRAINING = {
    "examples_per_second", "compile_seconds", "data_wait_share", "dispatch", "loggers", "goodput",
}  # fmt: skip
"""What a record says of a training alone."""
NNX = """
from flax import nnx


class Net(nnx.Module):
    def __init__(self, num_outputs: int, *, rngs: nnx.Rngs):
        self.body = nnx.Linear(13, 16, rngs=rngs)
        self.outputs = nnx.Linear(16, num_outputs, rngs=rngs)

    def __call__(self, x, train: bool):
        return self.outputs(nnx.relu(self.body(x)))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(CONFIG, tmp_path_factory.mktemp("pruned") / "run")


def kernels(run: Run) -> dict[str, np.ndarray]:
    """The pruned kernels as the best checkpoint has them, before any mask is applied."""
    assert run.workdir is not None
    place = run.workdir / log.CHECKPOINTS
    tree = checkpoint.read(checkpoint.place(place, checkpoint.steps(place, "best")[-1], "best"))
    flat = {"/".join(map(str, path)): leaf for path, leaf in flatten_dict(tree["params"]).items()}
    return {path: np.asarray(flat[path]) for path in run.record["pruning"]["layers"]}


def test_what_is_pruned_is_0_in_every_file(run: Run, tmp_path: Path):
    onnx, safetensors = pytest.importorskip("onnx"), pytest.importorskip("safetensors.numpy")
    assert run.workdir is not None
    record = json.loads((run.workdir / "result.json").read_text())["pruning"]
    assert record["sparsity"] == pytest.approx(0.75, abs=0.002)
    found = kernels(run)
    for path, kernel in found.items():
        assert (kernel == 0).mean() == pytest.approx(record["layers"][path], abs=1e-6)
    assert sum(np.count_nonzero(kernel) for kernel in found.values()) == record["weights"]
    made = export_run([run.workdir], "safetensors", tmp_path / "safetensors")
    folder = Path(made["file"])
    file = folder if folder.is_file() else next(folder.glob("*.safetensors"))
    tensors = safetensors.load_file(file)
    for path, kernel in found.items():
        np.testing.assert_array_equal(tensors[f"params/{path}"], kernel)
    model = onnx.load(export_run([run.workdir], "onnx", tmp_path / "onnx")["file"])
    arrays = [onnx.numpy_helper.to_array(one) for one in model.graph.initializer]
    for kernel in found.values():
        zeros = [(one == 0).sum() for one in arrays if one.ndim == 2 and one.size == kernel.size]
        assert zeros == [(kernel == 0).sum()]


def test_what_is_made_of_it_says_what_was_pruned_and_trains_on(run: Run, tmp_path: Path):
    bits = QuantizeFields(weights=8.0, activations=8.0)
    made = quantize_run(run, tmp_path / "quantized", bits, examples=64)
    mean = soup_runs([run, run], tmp_path / "soup", steps=5)
    for one in (made, mean):
        assert set(run.record) - OF_TRAINING <= set(one.record)
        assert one.record["pruning"] == run.record["pruning"]
        assert one.record["n_params"] == run.record["n_params"]
        for path, kernel in kernels(run).items():
            np.testing.assert_allclose(kernels(one)[path], kernel, rtol=1e-6)
    with pytest.warns(LongerRunWarning):
        longer = fit(configs.override(made.config, {"train.epochs": 5}), made.workdir)
    assert longer.status == "done" and longer.record["pruning"]["sparsity"] >= 0.74


def test_another_run_begins_from_its_masks_and_is_pruned_further(run: Run):
    further = {"model.pretrained": str(run.workdir), "model.prune.sparsity": 0.9, "train.epochs": 2}
    again = fit(configs.override(CONFIG, further))
    assert again.record["pretrained"]["file"] == str(run.workdir)
    assert again.record["pruning"]["sparsity"] == pytest.approx(0.9, abs=0.003)
    flat = {"/".join(path): leaf for path, leaf in flatten_dict(again.weights.params).items()}
    for path, kernel in kernels(run).items():
        assert not np.asarray(flat[path])[kernel == 0].any()


def test_a_module_of_ones_own_is_pruned_and_quantized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "own_nnx_net.py").write_text(NNX)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = {
        "name": "own_nnx_net:Net",
        "prune": {"criterion": "magnitude", "sparsity": 0.5},
        "quantize": {"weights": 8.0, "activations": 8.0},
    }
    made = fit({**CONFIG, "model": model}, tmp_path / "run")
    assert made.record["pruning"]["sparsity"] == 0.5
    assert set(made.record["pruning"]["layers"]) == {"body/kernel"}
    assert (kernels(made)["body/kernel"] == 0).mean() == 0.5
    opened = open_run(tmp_path / "run", allow_code=True)
    assert opened.metrics["validation/accuracy"] > 0.7
    assert opened.evaluate("validation")["loss"] == pytest.approx(made.metrics["validation/loss"])
