"""What a person can get wrong: each is exit code 2 and one message; nothing on disk is touched."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jdlopt.cli import main
from jdlopt.data import open_dataset
from jdlopt.errors import UserError

ROWS = 60
CLASSES = ("ant", "bee", "cat")

BASE = {
    "data": {"source": "@/table.csv", "target": "label", "batch_size": 16},
    "model": {"name": "mlp", "features": [4]},
    "loss": {"name": "cross_entropy"},
    "optim": {"name": "adam", "learning_rate": 0.01},
    "train": {"steps": 4, "steps_per_dispatch": 1, "tensorboard": False},
    "mesh": {"data": 1},
}


class Unpickled:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


def write_table(path: Path, **columns) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_images(folder: Path, **classes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for name, shape in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(8):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder of files, some as they should be and most of them not."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    height, weight = rng.normal(size=(2, ROWS)).round(3)
    label = [CLASSES[index % 3] for index in range(ROWS)]
    table = {"height": height, "weight": weight, "label": label}
    write_table(place / "table.csv", **table)
    write_table(place / "text.csv", **table | {"weight": ["heavy", *weight[1:]]})
    write_table(place / "gap.csv", **table | {"height": [*height[:-1], ""]})
    write_table(place / "nan_labels.csv", **table | {"label": ["", "", *label[2:]]})
    write_table(place / "one_class.csv", **table | {"label": ["ant"] * ROWS})
    write_table(place / "rare_class.csv", **table | {"label": ["yak", *label[1:]]})
    write_table(place / "numbers.csv", **table | {"label": height})
    write_table(place / "no_rows.csv", height=[], label=[])
    write_table(place / "only_label.csv", label=label)
    (place / "empty.csv").write_text("")
    (place / "latin.csv").write_bytes("größe,label\n1,a\n".encode("latin-1"))
    (place / "wide.csv").write_text("height,label\n1,ant\n2,bee,3\n")
    (place / "folder.csv").mkdir()
    (place / "table.xlsx").write_text("not a table")
    (place / "broken.parquet").write_bytes(b"PAR1 and no more")

    inputs, targets = np.stack([height, weight], -1).astype("float32"), np.arange(ROWS) % 3
    arrays = {
        "good": {"x": inputs, "y": targets},
        "other_keys": {"data": inputs, "answers": targets},
        "lengths": {"x": inputs, "y": targets[:-1]},
        "nan": {"x": np.where(inputs > 1, np.nan, inputs), "y": targets},
        "empty_test": {
            "x_train": inputs, "y_train": targets, "x_test": inputs[:0], "y_test": targets[:0],
        },
        "none": {"x": inputs[:0], "y": targets[:0]},
        "complex": {"x": inputs, "y": targets + 1j},
        "infinite": {"x": inputs, "y": np.where(targets, targets, np.inf)},
        "cubes": {"x": rng.normal(size=(ROWS, 2, 2, 2, 2)).astype("float32"), "y": targets},
        "three": {"x": rng.normal(size=(5, 3))},
        "pickled": {"x": np.array([Unpickled(place / "HACKED")] * ROWS, object), "y": targets},
    }  # fmt: skip
    for name, content in arrays.items():
        np.savez(place / f"{name}.npz", **content)
    content = (place / "good.npz").read_bytes()
    (place / "cut.npz").write_bytes(content[: len(content) // 2])

    write_images(place / "one_class_folder", ant=(8, 8))
    write_images(place / "mixed_sizes", ant=(8, 8), bee=(8, 9))
    for name, spoil in {
        "truncated": lambda path: path.write_bytes(path.read_bytes()[:60]),
        "unreadable": lambda path: path.write_text("not an image"),
    }.items():
        write_images(place / name, ant=(8, 8), bee=(8, 8))
        spoil(place / name / "bee" / "3.png")
    write_images(place / "empty_class", ant=(8, 8), bee=(8, 8))
    (place / "empty_class" / "cat").mkdir()

    configs = {
        "base": BASE,
        "no_model": {key: value for key, value in BASE.items() if key != "model"},
        "nan": BASE | {"optim": {"learning_rate": float("nan")}},
        "dots": BASE | {"optim.learning_rate": 0.1},
        "flat": BASE | {"model": "mlp"},
        "path": BASE | {"model": {"name": "pathlib:Path"}},
    }
    for name, config in configs.items():
        (place / f"{name}.json").write_text(json.dumps(config).replace("@/", f"{place}/"))
    (place / "half.json").write_text((place / "base.json").read_text()[:50])
    for name, text in {
        "syntax": "def get_config(:\n",
        "raises": "def get_config():\n    return {'seed': undefined}\n",
        "no_function": "config = {}\n",
        "returns_text": "def get_config():\n    return 'mlp'\n",
    }.items():
        (place / f"{name}.py").write_text(text)
    return place


@pytest.fixture(scope="module")
def run(place) -> Path:
    """The directory of a run that was trained on the table."""
    workdir = place / "run"
    words = ["train", f"--config={place / 'base.json'}", f"--workdir={workdir}", "--json"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(words) == 0
    return workdir


def content(folder: Path) -> dict[Path, str]:
    """Every file below a folder, with its digest; a lock holds nothing."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def wrong(place, capsys, monkeypatch, tmp_path):
    """Runs a wrong command line and returns its one message, after checking what it promises."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    # with TensorFlow, an unknown name would be looked up among the public ones
    monkeypatch.setattr(
        "jdlopt.data.source.util", types.SimpleNamespace(find_spec=lambda name: None)
    )

    def wrong(words: list[str], telling: list[str]) -> str:
        before = content(place), content(tmp_path)
        code = main([word.replace("@", str(place)) for word in words])
        captured = capsys.readouterr()
        message = captured.err
        assert code == 2, message
        assert "Traceback" not in message
        assert message.startswith("jdlopt: ") and message.count("jdlopt: ") == 1
        assert len(message) < 1500
        assert captured.out == ""
        for word in telling:
            assert word.replace("@", str(place)) in message
        after = content(place), content(tmp_path)
        for old, new in zip(before, after, strict=True):
            assert {path: new.get(path) for path in old} == old
        return message

    return wrong


# --- configs and data: nothing is trained, no directory is made -----------------------------------

NPZ = "--config.data.target=None"

CONFIGS = {
    # unknown names
    "model": (["--config.model.name=mpl"], ["model.name", "'mpl'", "Did you mean 'mlp'?"]),
    "loss": (["--config.loss.name=cross_entropi"], ["loss.name", "'cross_entropy'"]),
    "optimizer": (["--config.optim.name=adamm"], ["optim.name", "Did you mean 'adam"]),
    "schedule": (["--config.optim.schedule.name=cosin"], ["optim.schedule.name", "'cosine'"]),
    "average": (["--config.optim.average.name=emma"], ["optim.average.name", "'ema'", "swa"]),
    "activation": (["--config.model.activation=rellu"], ["model.activation", "'relu'"]),
    "initializer": (["--config.model.initializer=he_norml"], ["model.initializer", "'he_normal'"]),
    "metric": (["--config.train.metrics=acuracy"], ["train.metrics", "'accuracy'"]),
    "monitor": (["--config.train.monitor=validation/acuracy"], ["train.monitor", "'accuracy'"]),
    "monitored split": (
        ["--config.train.monitor=train/loss"], ["train.monitor", "'validation/METRIC'"],
    ),
    "monitored matrix": (
        ["--config.train.monitor=validation/confusion_matrix"], ["train.monitor", "not one number"],
    ),
    "metric of another task": (["--config.train.metrics=r2"], ["train.metrics", "regression"]),
    "data source": (["--config.data.source=iirs", NPZ], ["data.source", "'iirs'", "'iris'"]),
    "TFDS name": (
        ["--config.data.source=no_such_dataset", NPZ],
        ["data.source", "'no_such_dataset'", "bundled", "jdlopt.data.prepare"],
    ),
    "preprocess.scale": (
        ["--config.data.preprocess.scale=standrad"], ["data.preprocess.scale", "'standard'"],
    ),
    "task": (["--config.data.task=regresion"], ["data.task", "'regression'"]),
    "key": (["--config.model.featuers=3"], ["model.featuers", "'features'"]),
    "section": (["--config.modle.name=mlp"], ["modle", "'model'"]),
    "key of a shared section": (["--config.train.epoch=3"], ["train.epoch", "'epochs'"]),
    # wrong types and ranges
    "text for an int": (["--config.data.batch_size=many"], ["data.batch_size", "int", "'many'"]),
    "fraction for an int": (["--config.train.steps=2.5"], ["train.steps", "int", "2.5"]),
    "text for a float": (["--config.optim.learning_rate=fast"], ["learning_rate", "float", "fast"]),
    "negative rate": (["--config.optim.learning_rate=-1"], ["learning_rate", "greater than 0"]),
    "NaN": (["--config.optim.learning_rate=nan"], ["learning_rate", "finite", "nan"]),
    "infinity": (["--config.optim.learning_rate=1e400"], ["learning_rate", "finite", "inf"]),
    "rate of 1": (["--config.model.dropout_rate=1.0"], ["model.dropout_rate", "[0, 1)"]),
    "zero batch": (["--config.data.batch_size=0"], ["data.batch_size", "at least 1"]),
    "huge seed": (["--config.seed=99999999999999999999"], ["seed", "in [0, 4294967295]"]),
    "word in a tuple": (["--config.model.features=(8,'x')"], ["model.features", "tuple of int"]),
    "negative width": (["--config.model.features=(-1,)"], ["model", "mlp", "-1"]),
    "section for a value": (["--config.seed.x=1"], ["seed", "a section"]),
    "value for a section": (["--config.model=mlp"], ["--config.model", "is a section", "features"]),
    "share of everything": (["--config.data.test_fraction=1"], ["data.test_fraction", "(0, 1)"]),
    "share that is too large": (
        ["--config.data.test_fraction=0.999"], ["data.test_fraction=0.999", "60 examples"],
    ),
    # what can't work together
    "batch larger than split": (
        ["--config.data.batch_size=500"], ["data.batch_size", "500", "training split", "examples"],
    ),
    "batch over mesh": (
        ["--config.mesh.data=3"],
        ["data.batch_size", "16", "= 3 devices", "15 or 18", "train on 2 of them, mesh.data=2"],
    ),
    "more devices": (["--config.mesh.data=64"], ["mesh", "64", "8 found"]),
    "no device": (["--config.mesh.data=0"], ["mesh.data", "at least 1", "found 0"]),
    "accumulation": (["--config.optim.accumulate=5"], ["optim.accumulate", "data.batch_size, 16"]),
    "epochs and steps": (["--config.train.epochs=3"], ["train", "epochs or steps, not both"]),
    "warm-up": (
        ["--config.optim.schedule.warmup_steps=50"], ["warmup_steps", "50", "4 steps"],
    ),
    "number loss on classes": (["--config.loss.name=mse"], ["loss.name", "'mse'", "cross_entropy"]),
    "class loss on numbers": (
        ["--config.data.source=@/numbers.csv"], ["loss.name", "regression", "mse"],
    ),
    "class weights": (["--config.loss.class_weights=(1,2)"], ["class_weights", "2", "3 classes"]),
    "zero weights": (["--config.loss.class_weights=(0,0,0)"], ["loss.class_weights", "all are 0"]),
    "weights of numbers": (
        ["--config.data.source=@/numbers.csv", "--config.loss.name=mse",
         "--config.loss.class_weights=balanced"],
        ["loss.class_weights", "no classes"],
    ),
    "two averages": (
        ["--config.optim.name=schedule_free_adamw", "--config.optim.average.name=ema"],
        ["optim.average.name", "'none'"],
    ),
    "penalty on nothing": (
        ["--config.loss.l2=0.1", "--config.loss.penalize=zzz"], ["loss.penalize", "no parameter"],
    ),
    "pattern": (["--config.optim.decay_exclude=("], ["optim", "'('", "regular expression"]),
    "cnn on cubes": (
        ["--config.data.source=@/cubes.npz", NPZ, "--config.model.name=cnn"],
        ["'cnn'", "(2, 2, 2, 2)", "'mlp'"],
    ),
    "pool larger than input": (
        ["--config.model.name=cnn", "--config.model.pool=max", "--config.model.pool_size=9"],
        ["model.pool_size", "9"],
    ),
    # a user's own part
    "module that is not there": (
        ["--config.model.name=no_such_package:Net"], ["model.name", "'no_such_package'", "import"],
    ),
    "name that is not in it": (["--config.loss.name=json:dumpss"], ["loss.name", "'dumps'"]),
    "number as a part": (["--config.model.name=math:pi"], ["model.name", "math:pi", "to call"]),
    "function that is no loss": (["--config.loss.name=json:dumps"], ["loss", "'json:dumps'"]),
    "function that is no optimizer": (
        ["--config.optim.name=json:dumps"], ["optim", "'json:dumps'"],
    ),
    "average of one's own": (["--config.optim.average.name=json:dumps"], ["optim.average.name"]),
    # the data
    "missing file": (["--config.data.source=@/tabel.csv"], ["data.source", "'table.csv'"]),
    "missing folder": (["--config.data.source=@/nothing", NPZ], ["data.source", "@/nothing"]),
    "no source": (["--config.data.source="], ["data.source", "empty", "iris"]),
    "another ending": (["--config.data.source=@/table.xlsx"], ["'.xlsx'", ".csv", ".npz"]),
    "folder as CSV": (["--config.data.source=@/folder.csv"], ["data.source", "a folder"]),
    "no target": ([NPZ], ["@/table.csv", "data.target", "height, label, weight"]),
    "unknown target": (["--config.data.target=labell"], ["data.target", "'labell'", "'label'"]),
    "unknown column": (["--config.data.ignore=hight"], ["data.ignore", "'hight'", "'height'"]),
    "text in a number column": (
        ["--config.data.source=@/text.csv"], ["@/text.csv", "'weight'", "'heavy'", "row 1"],
    ),
    "gap in a column": (["--config.data.source=@/gap.csv"], ["'height'", "missing", "row 60"]),
    "NaN labels": (["--config.data.source=@/nan_labels.csv"], ["'label'", "2 missing", "row 1"]),
    "one class": (["--config.data.source=@/one_class.csv"], ["one class only", "'ant'"]),
    "rare class": (["--config.data.source=@/rare_class.csv"], ["yak (1)", "data.stratify=False"]),
    "empty file": (["--config.data.source=@/empty.csv"], ["@/empty.csv", "is empty", "header"]),
    "header only": (["--config.data.source=@/no_rows.csv"], ["@/no_rows.csv", "no rows"]),
    "no feature": (["--config.data.source=@/only_label.csv"], ["no feature", "'label'"]),
    "encoding": (["--config.data.source=@/latin.csv"], ["@/latin.csv", "UTF-8"]),
    "too many values in a row": (["--config.data.source=@/wide.csv"], ["@/wide.csv", "line 3"]),
    "broken Parquet": (["--config.data.source=@/broken.parquet"], ["broken.parquet", "Parquet"]),
    "image size of a table": (["--config.data.image_size=8"], ["data.image_size", "Leave"]),
    "NPZ without known arrays": (
        ["--config.data.source=@/other_keys.npz", NPZ], ["'x' and 'y'", "found answers, data"],
    ),
    "NPZ of two lengths": (["--config.data.source=@/lengths.npz", NPZ], ["60 rows", "59"]),
    "NPZ of NaN": (["--config.data.source=@/nan.npz", NPZ], ["@/nan.npz", "'x'", "NaN", "example"]),
    "NPZ with an empty split": (
        ["--config.data.source=@/empty_test.npz", NPZ], ["split 'test' is empty"],
    ),
    "NPZ without examples": (["--config.data.source=@/none.npz", NPZ], ["none.npz", "is empty"]),
    "NPZ of complex targets": (["--config.data.source=@/complex.npz", NPZ], ["'y'", "complex128"]),
    "NPZ of infinite targets": (["--config.data.source=@/infinite.npz", NPZ], ["row 1", "finite"]),
    "NPZ with a target column": (["--config.data.source=@/good.npz"], ["data.target", "Leave it"]),
    "NPZ that was cut": (["--config.data.source=@/cut.npz", NPZ], ["@/cut.npz", "NPZ"]),
    "images of one class": (
        ["--config.data.source=@/one_class_folder", NPZ], ["1 class folder", "ant", "at least 2"],
    ),
    "images of two sizes": (
        ["--config.data.source=@/mixed_sizes", NPZ], ["8 x 9", "8 x 8", "data.image_size"],
    ),
    "image that is none": (
        ["--config.data.source=@/unreadable", NPZ], ["@/unreadable/bee/3.png", "image"],
    ),
    "class without images": (
        ["--config.data.source=@/empty_class", NPZ], ["@/empty_class/cat", "no image"],
    ),
    "data folder that is a file": (
        ["--config.data.source=iris", NPZ, "--config.data.data_dir=@/table.csv"],
        ["@/table.csv", "data.data_dir"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFIGS)
def test_wrong_config_or_data(wrong, place, tmp_path, case):
    words, telling = CONFIGS[case]
    workdir = tmp_path / "workdir"
    wrong(["train", "--config=@/base.json", f"--workdir={workdir}", *words], telling)
    assert not workdir.exists()  # so the corrected config can have it


def test_several_problems_come_in_one_message(wrong, tmp_path):
    wrong(
        [
            "train", "--config=@/base.json", f"--workdir={tmp_path / 'workdir'}",
            "--config.data.batch_size=500", "--config.optim.learning_rate=-1",
            "--config.model.activation=rellu", "--config.train.metrics=acuracy",
            "--config.loss.class_weights=(1,2)", "--config.mesh.data=64",
        ],
        [
            "6 problems", "data.batch_size: 500", "optim.learning_rate", "model.activation",
            "train.metrics", "loss.class_weights", "mesh",
        ],
    )  # fmt: skip


def test_problems_of_config_and_data_come_together(wrong, tmp_path):
    words = ["--config.data.source=@/text.csv", "--config.model.activation=rellu"]
    wrong(
        ["train", "--config=@/base.json", f"--workdir={tmp_path / 'workdir'}", *words],
        ["2 problems", "'heavy'", "model.activation"],
    )


def test_pickled_arrays_are_never_loaded(wrong, place, tmp_path):
    words = ["train", "--config=@/base.json", f"--workdir={tmp_path / 'workdir'}", NPZ]
    wrong([*words, "--config.data.source=@/pickled.npz"], ["'x'", "Python objects", "never loaded"])
    assert not (place / "HACKED").exists()


def test_truncated_image_is_found_when_it_is_read(wrong):
    words = ["data", "describe", "--config=@/base.json", NPZ]
    wrong([*words, "--config.data.source=@/truncated"], ["@/truncated/bee/3.png", "truncated"])


@pytest.mark.parametrize("name", ["squeezed.npz", "table.parquet"])
def test_random_damage_is_always_told_in_words(place, tmp_path, name):
    rng = np.random.default_rng(0)
    whole, target = tmp_path / name, None
    with np.load(place / "good.npz") as arrays:
        if name.endswith(".npz"):
            np.savez_compressed(whole, **arrays)
        else:
            target = "y"
            pd.DataFrame({"a": arrays["x"][:, 0], "y": arrays["y"]}).to_parquet(whole)
    content, refused = whole.read_bytes(), 0
    for round in range(200):
        damaged = bytearray(content)
        if round % 4:
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        else:
            del damaged[rng.integers(len(damaged)) :]
        whole.write_bytes(damaged)
        with contextlib.suppress(UserError):
            open_dataset({"source": str(whole), "target": target}).read("train")
            continue
        refused += 1
    assert refused > 100


FILES = {
    "missing": ("@/bas.json", ["--config", "@/bas.json", "'base.json'"]),
    "folder": ("@", ["--config", "a folder, not a file"]),
    "another kind of file": ("@/table.csv", ["--config", "(.py)", "(.json)"]),
    "cut JSON": ("@/half.json", ["@/half.json", "not a JSON config", "line 1"]),
    "NaN in JSON": ("@/nan.json", ["optim.learning_rate", "finite", "nan"]),
    "dots in a key": ("@/dots.json", ["'optim.learning_rate'", "dots", "nested"]),
    "no model": ("@/no_model.json", ["model.name", "is missing", "mlp"]),
    "model is no module": ("@/path.json", ["'pathlib:Path'", "flax.linen.Module"]),
    "model is text": ("@/flat.json", ["model", "a section", "'mlp'"]),
    "syntax": ("@/syntax.py", ["@/syntax.py", "line 1", "SyntaxError"]),
    "get_config raises": ("@/raises.py", ["@/raises.py, line 2", "NameError", "undefined"]),
    "no get_config": ("@/no_function.py", ["@/no_function.py", "get_config()"]),
    "get_config returns text": ("@/returns_text.py", ["get_config()", "str", "not a config"]),
    "argument that is not taken": ("@/raises.py:x", ["@/raises.py", "TypeError", "argument"]),
}


@pytest.mark.parametrize("case", FILES)
def test_wrong_config_file(wrong, tmp_path, case):
    file, telling = FILES[case]
    wrong(["train", f"--config={file}", f"--workdir={tmp_path / 'workdir'}"], telling)
    assert not (tmp_path / "workdir").exists()


# --- work directories -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workdir", "words", "telling"),
    [
        (
            "@/run",
            ["--config.optim.learning_rate=0.5"],
            ["@/run", "0.01 there, 0.5 now", "another"],
        ),
        ("@/run", ["--config.model.features=5"], ["model.features: (4,) there, (5,) now"]),
        ("@/table.csv", [], ["--workdir", "@/table.csv", "is a file"]),
        ("@/table.csv/run", [], ["--workdir", "@/table.csv/run", "a file"]),
        ("/proc/jdlopt", [], ["--workdir", "/proc/jdlopt", "can't be written"]),
    ],
)
def test_workdir_that_can_not_be_used(wrong, run, workdir, words, telling):
    wrong(["train", "--config=@/base.json", f"--workdir={workdir}", *words], telling)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_workdir_without_permission(wrong, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    wrong(
        ["train", "--config=@/base.json", f"--workdir={tmp_path / 'locked' / 'run'}"],
        ["--workdir", "can't be written", "ermission"],
    )


def test_workdir_of_something_else(wrong, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.db").write_text("trials")
    wrong(
        ["train", "--config=@/base.json", f"--workdir={tmp_path / 'study'}"],
        ["study.db", "no config.json", "choose another"],
    )


@pytest.mark.parametrize("verb", [["eval"], ["predict", "--input=@/table.csv"]])
@pytest.mark.parametrize("workdir", ["@/nothing", "@/table.csv", "@/truncated"])
def test_workdir_without_a_run(wrong, verb, workdir):
    wrong([*verb, f"--workdir={workdir}"], ["--workdir", workdir, "no run", "config.json"])


def spoilt(run: Path, tmp_path: Path, how) -> Path:
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    how(workdir)
    return workdir


def edit_config(section: str, **changes):
    def edit(workdir: Path) -> None:
        config = json.loads((workdir / "config.json").read_text())
        config[section] |= changes
        (workdir / "config.json").write_text(json.dumps(config))

    return edit


def flip(pattern: str):
    """Changes a byte in the middle of the largest file of each checkpoint."""

    def flip(workdir: Path) -> None:
        for folder in (workdir / "checkpoints").glob(pattern):
            files = [path for path in folder.rglob("*") if path.is_file()]
            largest = max(files, key=lambda path: path.stat().st_size)
            content = bytearray(largest.read_bytes())
            content[len(content) // 2] ^= 0x10
            largest.write_bytes(content)

    return flip


SPOILT = {
    "no checkpoint": (
        lambda workdir: shutil.rmtree(workdir / "checkpoints"),
        ["eval"], ["holds no best checkpoint", "--checkpoint=newest"],
    ),
    "no newest checkpoint": (
        lambda workdir: shutil.rmtree(workdir / "checkpoints"),
        ["eval", "--checkpoint=newest"], ["holds no checkpoint", "jdlopt train"],
    ),
    "damaged best checkpoint": (
        flip("best-*"), ["eval"], ["best-", "is damaged", "--checkpoint=newest"],
    ),
    "damaged best, to predict": (
        flip("best-*"), ["predict", "--input=@/table.csv"], ["best-", "is damaged"],
    ),
    "damaged newest checkpoint": (
        flip("step-*"), ["eval", "--checkpoint=newest"], ["step-4", "damaged", "--workdir"],
    ),
    "wider model": (
        edit_config("model", features=[7]),
        ["eval"], ["config.json", "shape (4,)", "expected (7,)"],
    ),
    "deeper model": (
        edit_config("model", features=[4, 4]), ["eval"], ["config.json", "is not in it"],
    ),
    "data that moved": (
        edit_config("data", source="/nowhere/table.csv"),
        ["eval"], ["/nowhere/table.csv", "no file"],
    ),
    "config.json of something else": (
        lambda workdir: (workdir / "config.json").write_text('{"hidden_size": 768}'),
        ["eval"], ["config.json", "lacks", "model", "jdlopt train"],
    ),
    "config.json cut": (
        lambda workdir: (workdir / "config.json").write_text("{"),
        ["predict", "--input=@/table.csv"], ["config.json", "not a JSON config"],
    ),
    "inputs.json gone": (
        lambda workdir: (workdir / "inputs.json").unlink(),
        ["predict", "--input=@/table.csv"], ["inputs.json", "can't be read", "jdlopt train"],
    ),
    "inputs.json of something else": (
        lambda workdir: (workdir / "inputs.json").write_text("[]"),
        ["predict", "--input=@/table.csv"], ["inputs.json", "can't be read"],
    ),
    "result.json cut": (
        lambda workdir: (workdir / "result.json").write_text("{"),
        ["train", "--config=@/base.json"], ["result.json", "can't be read"],
    ),
    "config.json gone": (
        lambda workdir: (workdir / "config.json").unlink(),
        ["train", "--config=@/base.json"], ["metrics.jsonl", "no config.json", "choose another"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_run_that_was_spoilt(wrong, run, tmp_path, case):
    how, words, telling = SPOILT[case]
    wrong([*words, f"--workdir={spoilt(run, tmp_path, how)}"], telling)


# --- predicting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "telling"),
    [
        ("@/tabel.csv", ["@/tabel.csv", "no such file"]),
        ("@/table.xlsx", ["@/table.xlsx", ".csv", ".npz"]),
        ("@/only_label.csv", ["lacks 2", "height, weight", "Found: label"]),
        ("@/text.csv", ["'weight'", "'heavy'", "row 1"]),
        ("@/gap.csv", ["'height'", "missing", "row 60"]),
        ("@/no_rows.csv", ["@/no_rows.csv", "no rows"]),
        ("@/three.npz", ["(3,)", "(2,)", "'x'"]),
        ("@/none.npz", ["'x' is empty"]),
        ("@/nan.npz", ["NaN", "example"]),
        ("@/other_keys.npz", ["expected an array", "answers, data"]),
        ("@/pickled.npz", ["Python objects", "never loaded"]),
        ("@/cut.npz", ["@/cut.npz", "NPZ"]),
        ("@/truncated", ["float32", "not on images"]),
    ],
)
def test_wrong_inputs_to_predict_for(wrong, run, place, path, telling):
    wrong(["predict", "--workdir=@/run", f"--input={path}"], telling)
    assert not (place / "HACKED").exists()


@pytest.mark.parametrize(
    ("output", "telling"),
    [
        ("@/out.txt", ["--output", "@/out.txt", ".csv or .npz"]),
        ("@/nothing/out.csv", ["--output", "no folder @/nothing"]),
        ("@/folder.csv", ["--output", "@/folder.csv", "is a folder"]),
        ("/proc/jdlopt.csv", ["--output", "/proc/jdlopt.csv", "can't be written"]),
    ],
)
def test_output_that_can_not_be_written(wrong, run, place, output, telling):
    wrong(["predict", "--workdir=@/run", "--input=@/good.npz", f"--output={output}"], telling)
    assert not list(place.glob("*out*")) and not list(place.glob(".*writing*"))


def test_there_are_enough_of_them():
    assert len(CONFIGS) + len(FILES) + len(SPOILT) >= 100
