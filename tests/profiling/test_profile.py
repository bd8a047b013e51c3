"""`profile`: a model with one heavy layer, traced as it is trained."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax.profiler import ProfileData

import jdlopt
from jdlopt import cli
from jdlopt.errors import UserError, WorkdirError
from jdlopt.profiling import trace
from jdlopt.profiling.profile import WINDOW
from jdlopt.profiling.record import PROFILE, SHARES, TRACE

ROOT = Path(__file__).parents[2]
CONFIG = {
    "data": {"batch_size": 512},
    "model": {"name": "mlp", "features": (512, 512)},
    "optim": {"name": "sgd", "learning_rate": 0.01},
    "train": {"steps": 30, "steps_per_dispatch": 1, "tensorboard": False},
    "mesh": {"data": 1},
}


@pytest.fixture(scope="module")
def points():
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(800, 4)).astype(np.float32)
    return inputs, (inputs[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def profiled(points, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiled")
    return jdlopt.profile(CONFIG, folder, steps=4, data=points), folder


def test_the_heavy_layer_is_named_with_its_line_and_what_takes_longest_comes_first(profiled):
    found, _ = profiled
    heaviest = max(one.flops or 0 for one in found.operations)
    heavy = [one for one in found.operations if one.flops == heaviest]
    assert heaviest == 2 * 512**3
    assert all("dense_1" in one.layer and one.count == found.steps for one in heavy)
    assert all(one.where.startswith("jdlopt/models/mlp.py:") for one in heavy)
    assert {one.where for one in heavy} <= {one.where for one in found.lines}
    for rows in (found.operations, found.lines):
        assert [one.share for one in rows] == sorted((one.share for one in rows), reverse=True)


def test_shares_sum_to_one(profiled):
    found, _ = profiled
    assert sum(one.share for one in found.operations) == pytest.approx(1)
    assert sum(one.share for one in found.lines) == pytest.approx(1)
    assert sum(found.shares.values()) == pytest.approx(1) and set(found.shares) == set(SHARES)
    assert found.shares["device"] > 0 and found.shares["compile"] == 0
    assert {one.count for one in found.operations if "dense_1" in one.layer} == {found.steps}


def test_memory_names_the_heavy_layer(profiled):
    memory = profiled[0].memory
    assert memory.arguments > 4 * 512 * 512
    largest = [one.what for one in memory.buffers if one.kind == "parameters"]
    assert "dense_1" in largest[0]


def test_what_is_kept_is_read_again(profiled):
    found, folder = profiled
    assert json.loads((folder / PROFILE).read_text())["steps"] == found.steps == 4
    (file,) = (folder / TRACE).rglob("*.xplane.pb")
    assert list((folder / TRACE).rglob("perfetto_trace.json.gz"))
    again = trace.read(ProfileData.from_file(str(file)), WINDOW, lambda *_: False)
    assert {one.program for events in again.operations.values() for one in events}
    assert again.last > again.first
    assert not list(folder.glob(".*"))


def test_wrong_input_is_one_message(profiled, tmp_path, capsys):
    with pytest.raises(UserError, match="--steps: 0 steps"):
        jdlopt.profile(CONFIG, steps=0)
    with pytest.raises(WorkdirError, match="holds no run"):
        jdlopt.profile(tmp_path)
    with pytest.raises(UserError, match="a run has its own"):
        jdlopt.profile(tmp_path, data=([1], [2]))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WorkdirError, match="holds a run, and this would be another's profile"):
        jdlopt.profile(CONFIG, tmp_path)
    for words in (["profile", "x", "--steps=0"], ["profile", str(tmp_path / "none")],
                  ["profile"], ["profile", str(profiled[1])]):  # fmt: skip
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert said.startswith("jdlopt: ") and "Traceback" not in said


@pytest.mark.slow
def test_a_run_is_profiled_as_it_was_trained(points, tmp_path, capsys):
    data, workdir = tmp_path / "points.npz", tmp_path / "run"
    np.savez(data, x_train=points[0], y_train=points[1])
    config = {**CONFIG, "data": {"batch_size": 64, "source": str(data)}}
    config["model"] = {"name": "mlp", "features": (16,)}
    config["train"] = {"steps": 12, "eval_every": 6, "tensorboard": False}
    record = jdlopt.fit(config, workdir).record
    assert cli.main(["profile", str(workdir), "--steps=6", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mode"] == record["dispatch"]["mode"] and found["steps"] == 6
    assert found["workdir"] == str(workdir) and (workdir / TRACE).is_dir()
    assert cli.main(["profile", str(workdir), "--steps=2"]) == 0  # again, in its place
    assert "where the time of a step goes" in capsys.readouterr().err
    assert "Where the time of a step goes" in jdlopt.write_report(workdir).read_text("utf-8")
    streamed = ["--config.data.in_memory=False", "--config.train.steps_per_dispatch=1"]
    assert cli.main(["profile", str(workdir), "--steps=3", *streamed]) == 0
    assert "nothing is kept" in capsys.readouterr().err
    data.unlink()
    assert cli.main(["profile", str(workdir)]) == 2
    assert str(data) in capsys.readouterr().err


@pytest.mark.slow
def test_of_two_processes_each_keeps_a_trace_and_the_first_says_what_is_in_its_own(
    points, tmp_path
):
    np.savez(tmp_path / "points.npz", x_train=points[0], y_train=points[1])
    config = {**CONFIG, "data": {"batch_size": 512, "source": str(tmp_path / "points.npz")}}
    config["mesh"] = {"data": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder = tmp_path / "profiled"
    launch = [sys.executable, str(ROOT / "launch" / "local.py"), "--processes=2"]
    words = [f"--config={tmp_path / 'config.json'}", f"--workdir={folder}", "--json"]
    ran = subprocess.run(
        [*launch, "--devices-per-process=1", "--", "profile", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])  # what connects them speaks before
    assert (found["processes"], found["devices"]) == (2, 2)
    assert sum(found["shares"].values()) == pytest.approx(1) and found["shares"]["device"] > 0
    assert any("all-reduce" in one["kind"] for one in found["operations"])
    traces = [path.relative_to(folder).parts[0] for path in folder.rglob("*.xplane.pb")]
    assert sorted(traces) == [TRACE, f"{TRACE}-1"]
