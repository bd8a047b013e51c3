"""Folders of files as people bring them: from `jdlopt train` to `jdlopt predict`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jdlopt import cli
from jdlopt.cli import main
from jdlopt.train.facts import NotEvaluatedWarning
from jdlopt.train.loop import fit

RNG = np.random.default_rng(0)


def save(path, brightness):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 60, (6, 5)) + 180 * brightness
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def make_folder(root, count=10, names=("dark", "light")):
    for brightness, name in enumerate(names):
        for index in range(count):
            save(root / name / f"{index}.png", brightness)


def config_of(place, source, **data):
    """Writes a config of a tiny model on a folder; returns it as a dict."""
    config = {
        "data": {"source": str(source), "batch_size": 8, **data},
        "model": {"name": "mlp", "features": [4]},
        "optim": {"name": "adam", "learning_rate": 0.01},
        "train": {"steps": 4, "tensorboard": False},
        "mesh": {"data": 1},
    }
    (place / "config.json").write_text(json.dumps(config))
    return config


def run(verb, *flags):
    return main([verb, *map(str, flags)])


@pytest.mark.filterwarnings("always::jdlopt.train.facts.NotEvaluatedWarning")
def test_a_damaged_test_split_voids_no_run(tmp_path, capsys):
    shots, workdir = tmp_path / "shots", tmp_path / "run"
    make_folder(shots / "train")
    make_folder(shots / "test", 3)
    config = config_of(tmp_path, shots)
    damaged = shots / "test" / "dark" / "1.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-40])
    train = ("train", f"--config={tmp_path / 'config.json'}", f"--workdir={workdir}")
    evaluate = ("eval", f"--workdir={workdir}", "--split=test", "--json")
    for _ in range(2):  # the second call finds a finished run
        assert run(*train) == cli.WRONG_INPUT
        assert "dark/1.png: can't be read as an image" in capsys.readouterr().err
        record = json.loads((workdir / "result.json").read_text())
        assert record["status"] == "done" and "validation/accuracy" in record["metrics"]
        assert "test/accuracy" not in record["metrics"]
        assert "dark/1.png" in record["not_evaluated"]["test"]
    assert run(*evaluate) == cli.WRONG_INPUT
    with pytest.warns(NotEvaluatedWarning, match=r"run.evaluate\('test'\)"):
        kept = fit(config)
    assert kept.status == "done"
    assert run("report", workdir) == cli.DONE
    assert "not evaluated: " in (workdir / "report.html").read_text()
    damaged.write_bytes(whole)
    capsys.readouterr()
    assert run(*evaluate) == cli.DONE
    assert "test/accuracy" in json.loads(capsys.readouterr().out)["metrics"]
    assert "accuracy" in kept.evaluate("test")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"caf\xe9", marks=pytest.mark.slow),
        pytest.param(b"[bold]a*?", marks=pytest.mark.slow),
    ],
    ids=["no_utf8", "markup"],
)
def test_names_that_no_terminal_shows_and_no_spreadsheet_should_run(
    tmp_path, monkeypatch, capfd, name
):
    place = tmp_path / os.fsdecode(name)
    shots, new = place / os.fsdecode(b"sh\xf6ts"), place / "new"
    make_folder(shots, names=(os.fsdecode(b"d\xe9[red]"), "=light"))
    for name in (os.fsdecode(b"caf\xe9.png"), "=cmd().png", "-1.png", "a\x1b[31mb.png"):
        save(new / name, 0)
    config = config_of(place, shots.name)
    config["train"]["tensorboard"] = True
    (place / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(place)
    assert run("data", "describe", "--config=config.json") == cli.DONE
    assert run("data", "check", shots.name) == cli.DONE
    assert run("train", "--config=config.json", "--workdir=run") == cli.DONE
    assert run("eval", "--workdir=run") == cli.DONE
    assert run("report", "run") == cli.DONE
    assert run("predict", "--workdir=run", "--input=new", "--output=p.csv") == cli.DONE
    assert run("predict", "--workdir=run", "--input=new", "--json") == cli.DONE
    capfd.readouterr()
    done = subprocess.run(
        [sys.executable, "-m", "jdlopt.cli", "predict", "--workdir=run", "--input=new"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (cli.DONE, b"")
    written = (place / "p.csv").read_bytes()
    assert written == done.stdout
    header, *rows = csv.reader(written.decode("ascii").splitlines())
    assert header == ["row", "prediction", "probability_=light", r"probability_d\udce9[red]"]
    assert [row[0] for row in rows] == [
        "'-1.png",
        "'=cmd().png",
        r"a\x1b[31mb.png",
        r"caf\udce9.png",
    ]
    assert {row[1] for row in rows} <= {"'=light", r"d\udce9[red]"}
