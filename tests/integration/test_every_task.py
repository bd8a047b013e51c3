"""Every verb on every task: it works, or is refused in one line that says why."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import test_next_token
import test_pairs
import test_positions
import test_seq2seq
import test_tasks
import test_token_classification
import test_transcription

from jdlopt.cli import main
from jdlopt.data.bundled.shapes.drawing import CLASSES, draw
from jdlopt.tasks import TASKS

RNG = np.random.default_rng(11)
TRAIN = {"epochs": 3, "tensorboard": False}


def classes(folder):
    """Returns a config of classes, and a file of new examples."""
    np.savez(folder / "classes.npz", x=test_tasks.X, y=test_tasks.LABELS[:, 0])
    np.savez(folder / "new.npz", x=test_tasks.X[:5])
    data = {"source": str(folder / "classes.npz"), "batch_size": 16}
    return {"data": data, "model": {"name": "mlp", "features": (8,)}}, folder / "new.npz"


def several(task):
    """Returns the same of several labels or numbers."""

    def made(folder):
        np.savez(folder / "new.npz", x=test_tasks.X[:5])
        return test_tasks.config(folder, task), folder / "new.npz"

    return made


def tags(folder):
    """Returns the same of sentences whose words have tags."""
    (folder / "new.txt").write_text("Bob is not in New York.\n\nAnn lives in Rome\n", "utf-8")
    return test_token_classification.config(folder), folder / "new.txt"


def masks(folder):
    """Returns the same of masks, and a folder of new images."""
    images, shown = draw(0, 48, size=8)
    np.savez(folder / "shapes.npz", x=images, y=shown, class_names=np.array(CLASSES))
    np.savez(folder / "new.npz", x=images[:5])
    data = {"source": str(folder / "shapes.npz"), "task": "segmentation", "batch_size": 8}
    data["augment"] = {"flip": 0.5}
    model = {"name": "unet", "features": 2, "depth": 1}
    return {"data": data, "model": model}, folder / "new.npz"


def continued(folder):
    """Returns the same of texts whose next token is learnt."""
    (folder / "new.txt").write_text("Ann has 3\n\nBob\n", "utf-8")
    return test_next_token.config(folder), folder / "new.txt"


def own(folder):
    """Returns the same of a task of one's own, with a class at each position."""
    np.savez(folder / "new.npz", x=test_positions.X[:5])
    return test_positions.config(folder), folder / "new.npz"


def texts(folder):
    """Returns the same of texts that are written."""
    new = test_seq2seq.table(folder, [("abcd", "?"), ("dd", "?")], "new.csv")
    return test_seq2seq.config(folder), new


def pairs(folder):
    """Returns the same of pictures and captions."""
    path = test_pairs.make_cards(folder)
    made = test_pairs.config_of(path, data={"augment": {"brightness": 0.1}, "batch_size": 8})
    return {**made, "train": {}}, path


ROWS = {
    "classification": classes,
    "multilabel": several("multilabel"),
    "regression": several("regression"),
    "token_classification": tags,
    "segmentation": masks,
    "seq2seq": texts,
    "transcription": test_transcription.config,
    "pairs": pairs,
    "next_token": continued,
    "test_positions:SIGN": own,
}
"""Tiny data of each task."""

REFUSED = {
    **{
        (task, "tta"): "data.augment changes no single example"
        for task in ("classification", "multilabel", "regression")
    },
    ("segmentation", "bundle"): "predicts a class at each position",
    ("segmentation", "tta"): "predicts a class at each position",
    ("seq2seq", "tta"): "predicts a class at each position",
    ("seq2seq", "onnx"): "writes texts token by token",
    ("seq2seq", "bundle"): "writes texts token by token",
    ("pairs", "bundle"): "can't decode the task 'pairs'",
    ("test_positions:SIGN", "bundle"): "predicts a class at each position",
    ("test_positions:SIGN", "tta"): "predicts a class at each position",
    ("transcription", "bundle"): "predicts a class at each position",
    ("transcription", "tta"): "predicts a class at each position",
    ("next_token", "bundle"): "predicts a class at each position",
    ("next_token", "tta"): "predicts a class at each position",
    ("token_classification", "bundle"): "predicts a class at each position",
    ("token_classification", "tta"): "predicts a class at each position",
}
"""What a verb can't do of a task, with what it says."""


def test_every_task_has_a_row():
    assert set(TASKS) <= set(ROWS)


@pytest.fixture(scope="module")
def importable():
    """The tasks and models of one's own that rows have, for processes that are started."""
    with pytest.MonkeyPatch.context() as patch:
        here = Path(test_positions.__file__).parent
        patch.setenv("PYTHONPATH", str(here), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module", params=ROWS)
def trained(request, importable, tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    made, new = ROWS[request.param](folder)
    optim = {"name": "adam", "learning_rate": 0.02}
    made = {"optim": optim, "mesh": {"data": 1}, **made, "train": TRAIN | made.get("train", {})}
    (folder / "config.py").write_text(f"def get_config():\n    return {made!r}\n")
    other = made | {"optim": optim | {"learning_rate": 0.005}}
    (folder / "other.py").write_text(f"def get_config():\n    return {other!r}\n")
    (folder / "space.py").write_text(
        (folder / "config.py").read_text()
        + "\n\nfrom jdlopt.study.space import log_uniform\n\n"
        + "def get_space():\n    return {'optim.learning_rate': log_uniform(1e-3, 1e-1)}\n"
    )
    words = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}", "--json"]
    assert main(["train", *words]) == 0
    return request.param, folder, new


VERBS = (
    "describe", "check", "show", "eval", "tta", "predict", "report", "diagnose", "tune", "compare",
    "ablate", "improve", "onnx", "bundle", "compress",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_works_or_says_why_not(trained, verb, capsys):
    task, folder, new = trained
    run, config = str(folder / "run"), f"--config={folder / 'config.py'}"
    work, once = f"--workdir={folder / verb}", ("--seeds=3", "--workers=1", "--json")
    of_run = (f"--workdir={run}", "--allow-code")
    words = {
        "describe": ["data", "describe", config, "--json"],
        "check": ["data", "check", config, "--json"],
        "show": ["data", "show", config, f"--output={folder / 'shown.png'}", "--examples=2"],
        "eval": ["eval", *of_run, "--split=validation", "--json"],
        "tta": ["eval", *of_run, "--split=validation", "--tta=2", "--json"],
        "predict": ["predict", *of_run, f"--input={new}", f"--output={folder / 'out.csv'}"],
        "report": ["report", run, "--allow-code"],
        "diagnose": ["diagnose", *of_run, "--json"],
        "tune": ["tune", f"--config={folder / 'space.py'}", work, "--trials=2", *once[1:]],
        "compare": ["compare", str(folder / "config.py"), str(folder / "other.py"), work, *once],
        "ablate": ["ablate", config, work, "--techniques=weight_decay", *once],
        "improve": [
            "improve", config, work, "--budget=40s", "--confirm=3", "--test-seeds=2",
            "--techniques=learning_rate_up", *once[1:],
        ],
        "onnx": ["export", run, "--format=onnx", "--allow-code", "--json"],
        "bundle": ["export", run, "--format=bundle", "--allow-code", "--json"],
        "compress": [
            "compress", run, f"--out={folder / 'small'}", "--methods=float16",
            "--within=20%", "--allow-code", *once[1:],
        ],
    }[verb]  # fmt: skip
    code = main(words)
    said = capsys.readouterr()
    expected = REFUSED.get((task, verb))
    if expected is None:
        assert code == 0, said.err
        if "--json" in words:
            json.loads(said.out)
        return
    assert code == 2 and expected in " ".join(said.err.split()), said.err
    assert "Traceback" not in said.err
