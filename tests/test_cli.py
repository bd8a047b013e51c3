"""The command line: exit codes, what goes to stdout and stderr, overrides, and what it imports."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from jdlopt import cli
from jdlopt.cli import main
from jdlopt.cli.flags import parser, read_flags
from jdlopt.cli.verbs import VERBS, CompareFlags
from jdlopt.config import shared_keys
from jdlopt.errors import Interrupted
from jdlopt.models import ModelFields

CONFIG = """
def get_config(size: str = "4"):
    return {
        "data": {"source": %r, "target": "label", "batch_size": 16},
        "model": {"name": "mlp", "features": (int(size),)},
        "loss": {"name": "cross_entropy"},
        "optim": {"name": "sgd", "learning_rate": 0.01},
        "train": {"steps": 4, "steps_per_dispatch": 1, "tensorboard": False},
        "mesh": {"data": 1},
    }
"""

NET = """
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp


class Net(nn.Module):
    num_outputs: int
    width: int = 3
    activation: Callable = nn.relu
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = self.activation(nn.Dense(self.width, dtype=self.dtype)(x))
        return nn.Dense(self.num_outputs)(x)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a table and a config of a tiny model on it."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    with (place / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["height", "weight", "label"])
        for index in range(60):
            label = index % 3
            point = (rng.normal(size=2) + np.array([label, -label])).round(3)
            writer.writerow([*point, ("ant", "bee", "cat")[label]])
    (place / "config.py").write_text(CONFIG % str(place / "table.csv"))
    (place / "net.py").write_text(
        (place / "config.py").read_text().replace('"features": (int(size),)', "")
    )
    (place / "cli_net.py").write_text(NET)
    return place


@pytest.fixture(scope="module")
def trained(place):
    """A run's directory, and what training it printed with --json."""
    workdir, out = place / "run", io.StringIO()
    with contextlib.redirect_stdout(out):
        words = ["train", f"--config={place / 'config.py'}", f"--workdir={workdir}", "--json"]
        assert main(words) == cli.DONE
    return workdir, json.loads(out.getvalue())


@pytest.fixture
def resolved(place, capsys):
    """Returns the config that `train --print-config` shows under some overrides."""

    def resolved(*words: str, file: str = "config.py") -> dict:
        assert main(["train", f"--config={place / file}", "--print-config", *words]) == cli.DONE
        captured = capsys.readouterr()
        assert captured.err == ""
        return json.loads(captured.out)

    return resolved


def message(capsys, words) -> str:
    assert main(words) == cli.WRONG_INPUT
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("jdlopt: ")
    return captured.err


def content(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


# --- exit codes and output ------------------------------------------------------------------------


def test_train_prints_its_result_as_one_json_object(trained):
    workdir, record = trained
    assert record["status"] == "done" and record["steps"] == 4
    assert record["workdir"] == str(workdir)
    saved = json.loads((workdir / "result.json").read_text())
    assert {**saved, "workdir": str(workdir)} == record


def test_training_a_finished_run_again_answers_at_once_and_changes_nothing(place, trained, capsys):
    workdir, record = trained
    before = content(workdir)
    words = ["train", f"--config={place / 'config.py'}", f"--workdir={workdir}"]
    assert main([*words, "--json"]) == cli.DONE
    assert json.loads(capsys.readouterr().out) == record
    assert main(words) == cli.DONE
    captured = capsys.readouterr()
    assert captured.out == ""
    said = " ".join(captured.err.split())  # a long path breaks the title
    assert "test" in said and "done after 4 steps" in said
    assert content(workdir) == before


def test_eval_prints_a_split(trained, capsys):
    workdir, record = trained
    words = ["eval", f"--workdir={workdir}", "--split=test"]
    assert main([*words, "--json"]) == cli.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["split"] == "test" and found["checkpoint"] == "best"
    assert found["step"] == record["best"]["step"]
    assert found["metrics"]["test/loss"] == pytest.approx(record["metrics"]["test/loss"])
    assert main([*words, "--checkpoint=newest"]) == cli.DONE
    captured = capsys.readouterr()
    assert captured.out == "" and "newest checkpoint, step 4" in " ".join(captured.err.split())


def test_predict_writes_a_table_json_or_a_file(place, trained, tmp_path, capsys):
    words = ["predict", f"--workdir={trained[0]}", f"--input={place / 'table.csv'}"]
    assert main(words) == cli.DONE
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert captured.err == "" and len(rows) == 60
    names = ["row", "prediction", "probability_ant", "probability_bee", "probability_cat"]
    assert list(rows[0]) == names

    assert main([*words, "--json"]) == cli.DONE
    columns = json.loads(capsys.readouterr().out)
    assert list(columns) == names
    assert columns["prediction"] == [row["prediction"] for row in rows]

    for name in ("out.csv", "out.npz"):
        assert main([*words, f"--output={tmp_path / name}", "--json"]) == cli.DONE
        assert json.loads(capsys.readouterr().out) == {"rows": 60, "output": str(tmp_path / name)}
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 61
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["class_names"].tolist() == ["ant", "bee", "cat"]
        assert arrays["probabilities"].shape == (60, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.npz"]


def test_divergence_is_exit_code_3(place, tmp_path, capsys):
    code = main(
        [
            "train", f"--config={place / 'config.py'}", f"--workdir={tmp_path / 'run'}",
            "--config.optim.learning_rate=1e38", "--config.train.steps=40",
            "--config.train.checkpoint_every=1",
        ]
    )  # fmt: skip
    captured = capsys.readouterr()
    assert code == cli.DIVERGED == 3
    assert captured.err.startswith("jdlopt: training diverged at step ")
    assert "checkpoint" in captured.err and "Traceback" not in captured.err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "diverged"


def test_an_interrupted_run_is_exit_code_130(place, monkeypatch, tmp_path, capsys):
    def stopped(*_):
        raise Interrupted("interrupted at step 3 of 4; saved.")

    monkeypatch.setattr("jdlopt.train.loop.fit", stopped)
    words = ["train", f"--config={place / 'config.py'}", f"--workdir={tmp_path / 'run'}"]
    assert main(words) == cli.INTERRUPTED == 130
    assert capsys.readouterr().err == "jdlopt: interrupted at step 3 of 4; saved.\n"


@pytest.mark.slow
def test_a_terminated_process_has_saved_its_run(place, tmp_path):
    workdir = tmp_path / "run"
    words = [
        "train", f"--config={place / 'config.py'}", f"--workdir={workdir}",
        "--config.train.steps=1000000", "--config.train.eval_every=1000",
        "--config.train.checkpoint_every=500",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "jdlopt.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 240
        while not list(workdir.glob("checkpoints/step-*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == cli.INTERRUPTED == 130
    assert out == "" and errors.startswith("jdlopt: interrupted at step ")
    assert "goes on from there" in errors and str(workdir) in errors
    record = json.loads((workdir / "result.json").read_text())
    assert record["status"] == "interrupted" and record["steps"] >= 500


@pytest.mark.slow
def test_ctrl_c_twice_ends_a_run_without_a_traceback(place, tmp_path):
    words = ["train", f"--config={place / 'config.py'}", f"--workdir={tmp_path / 'run'}",
             "--config.train.steps=1000000", "--config.train.eval_every=1000",
             "--config.train.checkpoint_every=500"]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "jdlopt.cli", *words], stderr=subprocess.PIPE, text=True
    ) as process:
        while not list(tmp_path.glob("run/checkpoints/step-*")):
            assert process.poll() is None
            time.sleep(0.05)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == cli.INTERRUPTED
    assert len(errors.splitlines()) == 1 and errors.startswith("jdlopt: interrupted")


@pytest.mark.slow
def test_a_user_without_a_home_trains(place, tmp_path):
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    alone = ["unshare", "-U", "--map-user=54321", "--map-group=54321"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no user of another number can be had here")
    for words in (
        ["train", f"--config={place / 'config.py'}", f"--workdir={tmp_path / 'run'}",
         "--config.data.source=iris", "--config.data.target=None"],
        ["data", "list"],
    ):  # fmt: skip
        command = [*alone, sys.executable, "-m", "jdlopt.cli", *words]
        done = subprocess.run(command, env=kept, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_wrong_input_has_a_traceback_only_with_debug(place, capsys):
    words = ["train", f"--config={place / 'nothing.py'}", "--workdir=x"]
    assert "Traceback" not in message(capsys, words)
    assert main([*words, "--debug"]) == cli.WRONG_INPUT
    errors = capsys.readouterr().err
    assert "Traceback" in errors and errors.splitlines()[-1].startswith("jdlopt: --config")


@pytest.mark.parametrize(
    ("error", "telling"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/secret/x.npz"), "/secret/x.npz"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), "File name too long"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
    ],
)
def test_what_the_system_refuses_is_wrong_input(monkeypatch, capsys, error, telling):
    def refused(words):
        raise error

    monkeypatch.setattr(cli, "split_overrides", refused)
    assert telling in message(capsys, ["train"])


@pytest.mark.parametrize("error", [
    MemoryError(), OSError(12, "Cannot allocate memory"),
    RuntimeError("INTERNAL: Out of memory allocating 68719476736 bytes."),
    RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate request"),
])  # fmt: skip
def test_too_little_memory_is_no_defect(monkeypatch, capsys, error):
    def exhausted(words):
        raise error

    monkeypatch.setattr(cli, "split_overrides", exhausted)
    assert cli.main(["train"]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told and "--find-batch-size" in told and "too little memory" in told


def test_a_defect_of_its_own_is_exit_code_1_with_a_traceback(monkeypatch, capsys):
    def broken(words):
        raise RuntimeError("a defect")

    monkeypatch.setattr(cli, "split_overrides", broken)
    assert main(["train"]) == cli.DEFECT == 1
    errors = capsys.readouterr().err
    assert "Traceback" in errors and "a defect" in errors


def test_ctrl_c_before_training_is_exit_code_130(monkeypatch, capsys):
    def stopped(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "split_overrides", stopped)
    assert main(["train"]) == cli.INTERRUPTED
    assert capsys.readouterr().err.startswith("jdlopt: interrupted")


# --- configs --------------------------------------------------------------------------------------


def test_print_config_fills_in_the_defaults_and_makes_no_directory(place, resolved):
    before = content(place)
    config = resolved("--workdir=never_made")
    assert config["seed"] == 0
    assert config["optim"]["schedule"] == {
        "name": "constant", "warmup_steps": 0, "warmup_fraction": None,
    }  # fmt: skip
    assert config["data"]["preprocess"]["scale"] == "none"
    assert config["data"]["augment"].pop("own") == {}
    assert set(config["data"]["augment"].values()) <= {
        None,
        False,
        "constant",
        "bilinear",
        "zero",
        1,
        2,
    }
    assert config["train"]["epochs"] is None
    assert content(place) == before and not os.path.exists("never_made")


def test_a_printed_config_is_a_config(resolved, tmp_path, capsys):
    config = resolved("--config.model.dropout_rate=0.25")
    (tmp_path / "printed.json").write_text(json.dumps(config))
    assert main(["train", f"--config={tmp_path / 'printed.json'}", "--print-config"]) == cli.DONE
    assert json.loads(capsys.readouterr().out) == config


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("seed=7", 7),
        ("train.steps=1e1", 10),
        ("optim.learning_rate=1", 1.0),
        ("optim.learning_rate=3e-4", 3e-4),
        ("optim.schedule.name=cosine", "cosine"),
        ("model.activation=gelu", "gelu"),
        ("model.dropout_rate=0.5", 0.5),
        ("model.dropout_rate=None", None),
        ("optim.clip_norm=2", 2.0),
        ("model.batch_norm=true", True),
        ("train.evaluate_test=False", False),
        ("model.features=(5,6)", [5, 6]),
        ("model.features=5,6", [5, 6]),
        ("model.features=[5,]", [5]),
        ("model.features=5", [5]),
        ("data.ignore=weight", ["weight"]),
        ("loss.penalize=('kernel','bias')", ["kernel", "bias"]),
        ("loss.class_weights=balanced", "balanced"),
        ("loss.class_weights=(1,2,3)", [1.0, 2.0, 3.0]),
        ("train.monitor=validation/loss", "validation/loss"),
    ],
)
def test_overrides_of_every_type(resolved, word, value):
    key = word.partition("=")[0]
    found = resolved(f"--config.{word}")
    for part in key.split("."):
        found = found[part]
    assert found == value and type(found) is type(value)


@pytest.mark.filterwarnings("default:model.name")
def test_naming_another_part_leaves_out_keys_of_the_old_one_and_says_so(place, capsys):
    words = ["--print-config", "--config.model.name=linear"]
    assert main(["train", f"--config={place / 'config.py'}", *words]) == cli.DONE
    captured = capsys.readouterr()
    assert "features" not in json.loads(captured.out)["model"]
    assert captured.err == (
        "jdlopt: warning: model.name: the config's features are for another part and do not fit "
        "'linear': left out.\n"
    )
    words.append("--config.model.features=3")
    assert "model.features: is unknown" in message(
        capsys, ["train", f"--config={place / 'config.py'}", *words]
    )


def test_an_override_may_be_two_words_and_the_last_one_counts(resolved):
    config = resolved("--config.seed", "3", "--config.train.steps=5", "--config.train.steps=6")
    assert config["seed"] == 3 and config["train"]["steps"] == 6


def test_a_config_file_takes_an_argument(resolved):
    assert resolved(file="config.py:9")["model"]["features"] == [9]


def test_a_module_of_ones_own_keeps_what_no_config_can_hold(place, resolved, monkeypatch):
    monkeypatch.syspath_prepend(place)
    words = ["--config.model.name=cli_net:Net", "--config.model.width=5"]
    config = resolved(*words, file="net.py")
    assert config["model"]["width"] == 5
    assert set(config["model"]) == {"name", "width"} | shared_keys(ModelFields)


# --- runs and configs are named alike -------------------------------------------------------------

ABOUT_A_RUN = ("eval --split=validation", "report")
ABOUT_A_CONFIG = ("data describe", "data check --without-test", "techniques --group=loss")


@pytest.mark.parametrize("verb", [*ABOUT_A_RUN, *ABOUT_A_CONFIG, "train"])
def test_a_run_is_named_alike_in_every_verb(trained, capsys, verb):
    ways = ["{}", "--config={}"] if verb != "train" else ["{}"]
    ways += [] if verb in ABOUT_A_CONFIG else ["--workdir={}"]
    said = set()
    for way in ways:
        assert main([*verb.split(), way.format(trained[0]), "--json"]) == cli.DONE
        said.add(capsys.readouterr().out)
    assert len(said) == 1 and json.loads(said.pop())


MAKING = ("tune --space=s.json", "ablate --techniques=dropout", "improve", "compare +dropout")


@pytest.mark.parametrize(
    "verb", [*ABOUT_A_CONFIG, *MAKING, "train --print-config", "plan --topology=v5e:2x2"]
)
def test_a_runs_config_names_no_code_without_leave(trained, tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    config = json.loads((trained[0] / "config.json").read_text())
    config["model"]["name"] = "harm_in_a_config:Net"
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    (tmp_path / "harm_in_a_config.py").write_text("open('HARM', 'w')")
    (tmp_path / "s.json").write_text('{"optim.learning_rate": [0.1, 0.2]}')
    words = [*verb.split(), "--config=run"] + ["--workdir=made"] * (verb in MAKING)
    errors = message(capsys, words)
    assert "model.name is 'harm_in_a_config:Net'" in errors and "--allow-code" in errors
    assert not (tmp_path / "HARM").exists() and not (tmp_path / "made").exists()


def test_words_and_flags_come_in_any_order():
    for words in (["A", "--workdir=w", "B"], ["--workdir=w", "A", "B"], ["A", "B", "--workdir=w"]):
        _, flags = read_flags(parser().parse_args(["compare", *words]), {})
        assert isinstance(flags, CompareFlags) and (flags.a, flags.b) == ("A", "B"), words


def test_every_verb_takes_a_run_and_a_config():
    for words, verb in VERBS.items():
        fields = set(verb.flags.__dataclass_fields__)
        if words not in ("data list", "init", "serve"):
            assert {"config", "allow_code"} <= fields and fields & {"run", "a", "file"}, words


def test_directories_of_other_things_say_what_to_name(tmp_path, capsys):
    (tmp_path / "best_config.json").write_text("{}")
    errors = message(capsys, ["techniques", f"--config={tmp_path}"])
    assert f"its best config is {tmp_path / 'best_config.json'}" in errors
    errors = message(capsys, ["data", "describe", str(tmp_path / "nothing.py")])
    assert "is not there" in errors


# --- what is misspelt -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["trian"], ["'trian'", "Did you mean 'train'?"]),
        ([], ["VERB", "--help"]),
        (["data"], ["WHAT", "jdlopt data --help"]),
        (["data", "lst"], ["'lst'", "Did you mean 'list'?"]),
        (["train"], ["--config", "is missing"]),
        (["train", "--config=@"], ["--workdir", "is missing"]),
        (["train", "--config"], ["--config", "expected one argument"]),
        (["train", "--confg=@", "--workdir=x"], ["--confg", "Did you mean '--config'?"]),
        (["train", "--config=@", "--wrokdir=x"], ["--wrokdir", "Did you mean '--workdir'?"]),
        (["train", "--config=@", "x", "y"], ["unrecognized", "y"]),
        (["train", "x", "--workdir=y"], ["RUN 'x' and --workdir 'y'", "give one"]),
        (["train", "x"], ["--config", "'x' holds no run", "a run's directory"]),
        (["eval"], ["eval: takes a run's directory", "jdlopt eval RUN"]),
        (["eval", "@"], ["RUN: eval", "is a file", "jdlopt train --config="]),
        (["eval", "x", "--config=y"], ["RUN 'x' and --config 'y'", "give one"]),
        (["tune", "--workdir=x"], ["--config", "is missing", "as RUN"]),
        (["improve", "--workdir=x"], ["--config", "is missing", "as RUN"]),
        (["data", "describe"], ["--config", "is missing", "as RUN"]),
        (["compare", "@", "--workdir=x"], ["takes two configs", "--config=A"]),
        (["eval", "--workdir=x", "--split=tset"], ["--split", "Did you mean 'test'?"]),
        (["eval", "--workdir=x", "--checkpoint=bset"], ["--checkpoint", "Did you mean 'best'?"]),
        (["eval", "--workdir=x", "--config.seed=1"], ["--config.seed", "eval", "the run's own"]),
        (["predict", "--workdir=x"], ["--input", "required"]),
        (["predict", "x", "--input=y", "--embeddings", "--threshold=0"], ["leave --threshold out"]),
        (["predict", "x", "--input=y", "--embeddings", "--positive="], ["leave --positive out"]),
        (["predict", "x", "--input=y", "--embeddings", "--beam-width=2"], ["--beam-width out"]),
        (["predict", "x", "--input=y", "--embeddings", "--top-k=2"], ["leave --top-k out"]),
        (["predict", "--bundle=x", "--input=y", "--temperature=0"], ["--bundle", "--temperature"]),
        (["predict", "--bundle=x", "--input=y", "--seed=1"], ["--bundle", "--seed", "a run"]),
        (["train", "--config=@", "--config.seed"], ["--config.seed", "no value", "=VALUE"]),
        (["train", "--config=@", "--config.=1"], ["--config.=1", "is no key"]),
        (["train", "--config=@", "--config.a..b=1"], ["--config.a..b", "is no key"]),
        (["train", "--config=@", "--print-config", "--config.sead=1"], ["sead", "'seed'"]),
        (
            ["train", "--config=@", "--print-config", "--config.optim.schedul.name=cosine"],
            ["optim.schedul", "'schedule'"],
        ),
    ],
)  # fmt: skip
def test_what_is_misspelt_is_told_with_the_nearest_name(place, capsys, words, telling):
    errors = message(capsys, [word.replace("@", str(place / "config.py")) for word in words])
    assert errors.count("jdlopt: ") == 1 and "Traceback" not in errors
    for word in telling:
        assert word in errors


# --- datasets -------------------------------------------------------------------------------------


def test_data_list_names_the_bundled_datasets(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert main(["data", "list", "--json"]) == cli.DONE
    listed = json.loads(capsys.readouterr().out)["datasets"]
    bundled = {row["name"]: row for row in listed}
    tables = {"digits", "iris", "wine", "breast_cancer", "diabetes"}
    assert set(bundled) == {*tables, "mnist1d", "shapes", "tone_digits"}
    assert bundled["mnist1d"]["sizes"] == {"train": 4000, "test": 1000}
    assert main(["data", "list"]) == cli.DONE
    captured = capsys.readouterr()
    assert captured.out == "" and "breast_cancer" in captured.err and "regression" in captured.err


def test_data_describe_counts_classes_and_values(place, capsys):
    words = ["data", "describe", f"--config={place / 'config.py'}"]
    assert main([*words, "--json"]) == cli.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["class_names"] == ["ant", "bee", "cat"]
    assert found["feature_names"] == ["height", "weight"]
    assert sum(split["examples"] for split in found["splits"].values()) == 60
    assert not found["splits"]["test"]["read"]
    assert main(words) == cli.DONE
    captured = capsys.readouterr()
    assert captured.out == ""
    for word in ("class balance", "height", "3 classes", "validation"):
        assert word in captured.err


def test_data_describe_counts_what_is_missing_and_stays_json(tmp_path, capsys):
    inputs = np.arange(80, dtype=np.float32).reshape(40, 2)
    inputs[3, 1], inputs[4, 0] = np.nan, np.inf
    np.savez(tmp_path / "gaps.npz", x=inputs, y=np.arange(40) % 2)
    config = {"data": {"source": str(tmp_path / "gaps.npz"), "split_seed": 2}}
    (tmp_path / "gaps.json").write_text(json.dumps(config))
    words = ["data", "describe", f"--config={tmp_path / 'gaps.json'}"]
    assert main([*words, "--json"]) == cli.DONE

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["splits"]["train"]["inputs"]["missing"] <= 1
    assert main(words) == cli.DONE


def test_data_describe_shows_a_regressions_target(place, capsys):
    words = ["data", "describe", f"--config={place / 'config.py'}", "--config.data.target=height"]
    assert main([*words, "--config.data.ignore=label"]) == cli.DONE
    assert "a number to predict" in " ".join(capsys.readouterr().err.split())


def test_a_description_of_hundreds_of_columns_fits_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(draw.normal(size=(60, 750)), columns=[f"sensor {i}" for i in range(750)])
    frame.iloc[:40, 7] = np.nan
    frame["sensor 9"] = 4.0
    frame["kind"] = np.array(["a", "b", "c"])[draw.integers(0, 3, 60)]
    frame["state"] = np.where(np.arange(60) % 3, "well", "ill")
    frame.to_csv(tmp_path / "wide.csv", index=False)
    data = {"source": str(tmp_path / "wide.csv"), "target": "state"}
    (tmp_path / "wide.json").write_text(json.dumps({"data": data}))
    words = ["data", "describe", f"--config={tmp_path / 'wide.json'}"]
    assert main(words) == cli.DONE
    shown = capsys.readouterr().err
    lines = shown.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert "751 columns: 750 of numbers, 1 of categories, 1 with gaps, 1 with one value" in shown
    assert all(name in shown for name in ("sensor 7", "sensor 9")) and "sensor 300" not in shown
    assert "'well' always is right in" in shown.replace("\n", " ")
    assert main([*words, "--all"]) == cli.DONE
    assert "sensor 300" in capsys.readouterr().err


def test_a_description_of_many_classes_shows_the_most_frequent_and_the_rarest(tmp_path, capsys):
    frame = pd.DataFrame({"x": np.arange(900.0), "y": [f"c{row % 30}" for row in range(900)]})
    frame.loc[:99, "y"] = "common"
    frame.to_csv(tmp_path / "many.csv", index=False)
    data = {"source": str(tmp_path / "many.csv"), "target": "y"}
    (tmp_path / "many.json").write_text(json.dumps({"data": data}))
    assert main(["data", "describe", f"--config={tmp_path / 'many.json'}"]) == cli.DONE
    shown = capsys.readouterr().err
    assert "23 more (--all)" in shown and "to guess 'common' always" in shown
    assert len([line for line in shown.splitlines() if line.strip().startswith("c")]) < 15


def test_a_description_of_many_classes_counts_their_positions(tmp_path, capsys):
    masks = (np.arange(12 * 16) % 15).reshape(12, 4, 4)
    np.savez(tmp_path / "masks.npz", x=np.zeros((12, 4, 4, 1), np.uint8), y=masks)
    data = {"source": str(tmp_path / "masks.npz"), "task": "segmentation"}
    (tmp_path / "masks.json").write_text(json.dumps({"data": data}))
    assert main(["data", "describe", f"--config={tmp_path / 'masks.json'}"]) == cli.DONE
    shown = capsys.readouterr().err
    assert "class balance, in positions" in shown and "7 more (--all)" in shown


# --- help -----------------------------------------------------------------------------------------

ASK = """
import sys
from jdlopt.cli import main

for words in ({verbs}):
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0
heavy = {{"jax", "flax", "optax", "orbax", "numpy", "pandas", "rich", "ml_collections"}}
print("imported:", sorted(heavy & set(sys.modules)))
"""


def test_help_imports_nothing_heavy():
    verbs = [[], ["train"], ["eval"], ["predict"], ["data"]]
    verbs += [["data", what] for what in ("list", "describe", "check", "show")]
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(verbs=verbs)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "imported: []"
    for word in ("--config", "--workdir", "--split", "--input", "--json", "130 interrupted"):
        assert word in done.stdout
    assert done.stderr == ""


def test_listing_datasets_does_not_import_jax(tmp_path):
    ask = "import sys; from jdlopt.cli import main; main(['data', 'list']); print(*sys.modules)"
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ask], check=True, capture_output=True, env=environment, text=True
    )
    assert "json" in done.stdout.split() and "jax" not in done.stdout.split()


def test_version(capsys):
    from jdlopt import __version__

    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"jdlopt {__version__}\n"
