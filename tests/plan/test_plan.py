"""`plan`: a training compiled for machines that are not here, by a process of its own."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import jdlopt
from jdlopt import mesh as meshes
from jdlopt.cli import DONE, WRONG_INPUT, main
from jdlopt.errors import ConfigError, UserError, WorkdirError
from jdlopt.plan import plan as planning_process
from jdlopt.plan.planning import plan_of
from jdlopt.plan.record import Plan
from jdlopt.plan.topology import devices_of, link_share, parse
from jdlopt.train import memory
from jdlopt.train.experiment import Experiment

CONFIG = {
    "data": {"source": "iris", "batch_size": 16},
    "model": {"name": "mlp", "features": (32,)},
    "optim": {"name": "adam"},
    "train": {"epochs": 2},
}
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPUs' compiler is not installed"
)


@pytest.fixture(scope="module")
def planned() -> tuple[Plan, Experiment, Mesh]:
    """A plan of programs compiled for this machine's devices, as if they were a TPU's."""
    config = {**CONFIG, "mesh": {"data": 2, "fsdp": 2}, "model": {"name": "mlp", "features": (64,)}}
    experiment = Experiment.build(config)
    mesh = meshes.make_mesh(experiment.config.mesh)
    return plan_of(experiment, mesh, parse("v5e:2x2"), price=1.5), experiment, mesh


def test_what_a_plan_says(planned):
    found, experiment, mesh = planned
    training, evaluation = found.training, found.evaluation
    assert found.fits and not found.message and evaluation is not None
    assert training.peak == memory.peak_bytes(
        memory.lowered_step(experiment, mesh, 7).compile(memory.compile_options())
    )
    assert sum(training.memory.values()) == pytest.approx(training.peak, abs=64)
    axes = {name: size for name, size in found.mesh.items() if size > 1}
    assert axes == {"data": 2, "fsdp": 2} and found.chips == 4 and found.batch_size == 16
    # 16 of 4 features over 4 chips, to 64 and to 3: forward, and both gradients but the inputs'
    products = 2 * 4 * (2 * 4 * 64 + 3 * 64 * 3)
    assert training.flops == products
    assert 0 <= found.model_flops - 4 * products < 1100  # norms are products, too
    # no array is so large that it would be split
    sent = {(one.kind, one.axes) for one in training.collectives}
    assert sent == {("all-reduce", ("data", "fsdp"))}
    assert found.step_seconds is not None and found.cost is not None and found.mfu is not None
    low, high = found.step_seconds.low, found.step_seconds.high
    assert 0 < low < high and 0 < found.mfu.low < found.mfu.high < 1
    assert found.cost.low == pytest.approx(1.5 * 4 * low * found.total_steps / 3600)
    assert Plan.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_plans_page(planned, tmp_path):
    found, *_ = planned
    training = replace(found.training, unread_loops=2)
    planning_process.save(replace(found, training=training), tmp_path)
    page = jdlopt.write_report(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert page.name == "plan.html"
    for words in ("Plan for v5e:2x2", "bound by memory (HBM)", "optimizer state", "data × fsdp",
                  "what lies there beside", "2 loops have a length"):  # fmt: skip
        assert words in text, words
    record = json.loads((tmp_path / "plan.json").read_text())
    del record["training"]["memory"]
    (tmp_path / "plan.json").write_text(json.dumps(record))
    with pytest.raises(WorkdirError, match="is not as jdlopt writes it"):
        jdlopt.write_report(tmp_path)


def test_what_does_not_fit_says_both_sizes(planned, monkeypatch):
    _, experiment, mesh = planned

    def full(*_: object) -> object:
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G."
        )

    monkeypatch.setattr(jax.stages.Lowered, "compile", full)
    found = plan_of(experiment, mesh, parse("v5e:2x2"))
    assert not found.fits and found.step_seconds is None and "20.50G" in found.training.said
    assert found.training.peak == int(20.5 * 2**30)
    for words in ("20.5 GiB", "v5e has 15.8 GiB", "mesh.fsdp=4", "data.batch_size=8"):
        assert words in found.message
    assert memory.step_bytes(experiment, mesh) == found.training.peak


def test_topologies_say_what_is_wrong():
    for text, slices, telling in (
        ("v5x:2x2", 1, "Did you mean 'v5"),
        ("v5e", 1, "the size is missing; write it such as v5e:4x4"),
        ("v5e:2xtwo", 1, "'2xtwo' is no size"),
        ("v5e:16", 1, "Did you mean 'v5e:4x4'?"),
        ("v5p:4x4", 1, "a slice of v5p has 3, such as v5p:2x4x4"),
        ("v5e:32x32", 1, "256 at most. For more of them, add --slices=N"),
        ("v5e:4x4", 0, "--slices: must be at least 1"),
    ):
        with pytest.raises(UserError) as caught:
            parse(text, slices)
        assert telling in str(caught.value), (text, caught.value)


def test_wrong_input_is_one_message(capsys, monkeypatch):
    words = ["plan", "--config=configs/tabular/iris_mlp.py"]
    monkeypatch.setattr(planning_process, "find_spec", lambda name: None)
    for more, telling in (
        (["--topology=v5e:4x4"], "pip install 'jdlopt[plan]'"),
        (["--topology=v9e:4x4"], "--topology: 'v9e' is no chip that is known"),
        (["--topology=v5e:4x4", "--price=-1"], "--price: must be dollars above 0"),
        ([], "--topology"),
    ):
        assert main([*words, *more]) == WRONG_INPUT
        captured = capsys.readouterr()
        assert telling in captured.err and not captured.out


def test_a_killed_compiler_is_no_defect(monkeypatch):
    class Killed:
        stdin, stdout = io.StringIO(), io.StringIO("")

        def wait(self) -> int:
            return self.code

        def __init__(self, code: int):
            self.code = code

    monkeypatch.setattr(planning_process, "find_spec", lambda name: True)
    for code, kind in ((-9, UserError), (1, RuntimeError)):
        monkeypatch.setattr(
            planning_process, "_process", lambda code=code: nullcontext(Killed(code))
        )
        with pytest.raises(kind, match=r"killed|code 1"):
            jdlopt.plan(CONFIG, "v5e:2x2")


def test_a_groups_share_of_the_links():
    class Device:
        def __init__(self, *coords: int):
            self.coords = coords

    devices = [Device(x, y, 0) for x in range(4) for y in range(16)]
    topology = parse("v5e:4x16")
    assert link_share(topology, devices, range(16)) == 0.5  # a ring along one dimension of two
    assert link_share(topology, devices, (0, 16, 32, 48)) == 0.25  # no ring
    assert link_share(topology, devices, range(64)) == 0.75


@pytest.mark.slow
@needs_libtpu
def test_plans_for_a_tpu(tmp_path, capsys):
    words = ["plan", "--config=configs/tabular/iris_mlp.py", "--topology=v5e:2x2", "--json"]
    words += ["--config.data.batch_size=16", f"--workdir={tmp_path}"]
    with ThreadPoolExecutor(2) as pool:  # two at the same time
        other = pool.submit(jdlopt.plan, {**CONFIG, "data": {**CONFIG["data"], "batch_size": 6}},
                            "v5e:2x2")  # fmt: skip
        assert main(words) == DONE
        with pytest.raises(ConfigError, match=r"data.batch_size: 6 can't be split evenly"):
            other.result()
    found = Plan.from_dict(json.loads(capsys.readouterr().out))
    assert found == Plan.from_dict(json.loads((tmp_path / "plan.json").read_text()))
    assert len(jax.devices()) == 8 and jax.default_backend() == "cpu"  # as they were
    devices = devices_of(parse("v5e:2x2"))
    config = jdlopt.load("configs/tabular/iris_mlp.py", {"data.batch_size": 16})
    experiment = Experiment.build(config, num_devices=4)
    mesh = meshes.make_mesh(experiment.config.mesh, devices)
    lowered = memory.lowered_step(experiment, mesh, found.training.steps)
    own = lowered.compile(memory.compile_options(platform="tpu")).memory_analysis()
    assert found.training.peak == own.peak_memory_in_bytes
    assert {(one.kind, one.axes) for one in found.training.collectives} == {
        ("all-reduce", ("data",))
    }
    with pytest.raises(UserError, match="give it with --memory"):
        memory.device_bytes(mesh)
    with pytest.raises(UserError, match="Did you mean 'v5e:4x4'"):
        devices_of(parse("v5e:4x5"))
    assert np.prod(list(found.mesh.values())) == 4


@pytest.mark.slow
@needs_libtpu
def test_the_compiler_for_tpus_is_quiet_where_nothing_is_planned(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**CONFIG, "train": {"steps": 1}}))
    without = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    command = [sys.executable, "-m", "jdlopt.cli", "train", "--config", str(file)]
    said = subprocess.run(
        [*command, f"--workdir={tmp_path / 'run'}"], capture_output=True, text=True, env=without
    )
    assert said.returncode == DONE and "TPU" not in said.stderr, said.stderr
