"""The batch that fits, by the compiler's own account, and what a step is made of."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from jdlopt import mesh as meshes
from jdlopt.cli import main
from jdlopt.errors import UserError
from jdlopt.train import memory
from jdlopt.train.experiment import Experiment


@pytest.mark.parametrize(
    ("limit", "unit", "first"), [(1000, 1, 32), (1000, 3, 96), (171, 1, 512), (10**9, 8, 8)]
)
@pytest.mark.parametrize("bend", [0.0, 0.01])
def test_the_next_size_does_not_fit(limit, unit, first, bend):
    def cost(size):
        return 100 + 7 * size + int(bend * size**1.5)

    costs = memory.search(cost, limit, unit=unit, most=700, first=first)
    sizes = sorted({unit * digits * 2**power for digits in range(1, 16) for power in range(12)})
    fitting = [size for size in sizes if cost(size) <= limit and size <= 700]
    assert max(size for size in costs if costs[size] <= limit) == fitting[-1]
    after = sizes[len(fitting)]
    assert after > 700 or costs[after] > limit
    assert len(costs) <= 8


def test_nothing_fits():
    assert memory.search(lambda size: 10, 1, unit=4, most=64, first=32)[4] == 10


@pytest.mark.slow
def test_the_chosen_batch_fits_and_the_next_does_not(config):
    config["model"] = {"name": "mlp", "features": (64,)}
    config["mesh"] = {"data": 2}
    config["optim"]["accumulate"] = 2
    parts = Experiment.build(config)
    mesh = meshes.make_mesh(parts.config.mesh)
    limit = memory.step_bytes(parts, mesh) + 4000
    found = memory.largest_batch(parts, limit)
    over = min(size for size, needed in found.sizes.items() if needed > limit)
    assert found.batch_size >= 32 and over > found.batch_size
    assert found.batch_size % 2 == 0 and found.sizes[found.batch_size] <= limit
    assert len(found.sizes) <= 7
    with pytest.raises(UserError, match=r"data.batch_size=2 takes .* a device has 10 B"):
        memory.largest_batch(parts, 10)


def test_sharding_the_state_spares_memory(config):
    config["model"] = {"name": "mlp", "features": (512, 512)}
    sizes = []
    for fsdp in (1, 4):
        config["mesh"] = {"data": 1, "fsdp": fsdp}
        parts = Experiment.build(config)
        sizes.append(memory.step_bytes(parts, meshes.make_mesh(parts.config.mesh)))
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.slow
def test_what_is_computed_again_is_not_kept(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 16, 4)).astype(np.float32), np.arange(80) % 3
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    encoder = {"name": "transformer_encoder", "features": 16, "num_layers": 6, "mlp_features": 64}
    sizes = {}
    for remat in ("none", "full"):
        config = {
            "data": {"source": str(tmp_path / "data.npz"), "batch_size": 32},
            "model": {**encoder, "remat": remat},
            "mesh": {"data": 1},
        }
        parts = Experiment.build(config)
        found = memory.compiled_step(parts, meshes.make_mesh(parts.config.mesh))
        sizes[remat] = found.memory_analysis().temp_size_in_bytes
    assert sizes["full"] < 0.6 * sizes["none"]


def test_a_steps_numbers(config):
    config["optim"] = {"name": "adam", "freeze": ("dense_0",)}
    parts = Experiment.build(config)
    found = memory.summary(parts)
    numbers = sum(layer.parameters for layer in found.layers)
    assert (found.frozen, found.trained) == (6 * 16 + 16, numbers - (6 * 16 + 16))
    assert found.parameter_bytes == 4 * numbers
    assert 8 * found.trained <= found.optimizer_bytes < 8 * found.trained + 20
    assert found.forward_flops == 2 * 32 * (6 * 16 + 16 * 16 + 16 * 3)
    backward = 2 * 32 * (16 * 16 + 2 * 16 * 3)  # what is below the frozen layer costs nothing
    assert 0 <= found.step_flops - found.forward_flops - backward < 1000


def test_the_command_line_writes_nothing(blobs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "data": {"source": str(blobs), "batch_size": 8},
                "model": {"name": "mlp", "features": [16]},
                "mesh": {"data": 1},
            }
        )
    )
    words = ["train", "--config=config.json"]
    assert main([*words, "--print-model", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [layer["path"] for layer in found["layers"]] == ["head/dense_0", "head/outputs"]
    assert main([*words, "--print-model"]) == 0
    assert "head/dense_0" in capsys.readouterr().err
    assert main([*words, "--find-batch-size", "--memory=40KiB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"][str(found["batch_size"])] <= found["limit_bytes"] == 40 * 2**10
    assert main([*words, "--find-batch-size", "--memory=40KiB"]) == 0
    assert f"--config.data.batch_size={found['batch_size']}" in capsys.readouterr().err
    for wrong, message in (
        (["--find-batch-size", "--memory=lots"], "expected a size such as 24GiB"),
        (["--memory=1GiB"], "for --find-batch-size"),
    ):
        assert main([*words, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_devices_memory():
    mesh = meshes.make_mesh(meshes.MeshFields(data=1, fsdp=1))
    assert memory.device_bytes(mesh) > 2**20
    assert len(jax.devices()) == 8
