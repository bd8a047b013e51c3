"""Directories that somebody else made: opening them runs nothing of theirs.

A canary is planted wherever code could hide; after each verb, it must not have run.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jdlopt
from jdlopt import cli
from jdlopt.config.parts import OF_DATA
from jdlopt.errors import UserError, WorkdirError
from jdlopt.evidence.options import ImprovementOptions
from jdlopt.train import serve

CONFIG: dict[str, Any] = {
    "data": {"source": "iris", "batch_size": 32, "target": None},
    "model": {"name": "mlp", "features": (4,)},
    "optim": {"name": "sgd", "learning_rate": 0.1},
    "train": {"steps": 4, "steps_per_dispatch": 2, "tensorboard": False},
    "mesh": {"data": 1},
}
SPACE = """
from jdlopt.study import space


def get_config():
    return {config!r}


def get_space():
    return {{"optim.learning_rate": space.log_uniform(1e-3, 1e-1)}}
"""
CANARY = """
open({ran!r}, "w").close()


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *args, **keys: None
"""
PATH = "canary:Part"


class Harmful:
    """What a pickle may hold: reading it calls a function."""

    def __init__(self, ran: Path):
        self.ran = ran

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.ran), "w")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and the inputs of a prediction."""
    folder = tmp_path_factory.mktemp("made")
    jdlopt.fit(CONFIG, folder / "run")
    np.savez(folder / "new.npz", inputs=np.zeros((2, 4), np.float32))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of who opens it: copies of them, and the canary."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "canary.py").write_text(CANARY.format(ran=str(tmp_path / "ran")))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("canary", None)
    if str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))


def verbs(place: Path) -> dict[str, Callable[[], object]]:
    """Everything that opens a run's directory."""
    run = str(place / "run")
    return {
        "eval": lambda: cli.main(["eval", f"--workdir={run}"]),
        "predict": lambda: cli.main(["predict", f"--workdir={run}", "--input=new.npz"]),
        "report": lambda: cli.main(["report", run]),
        "diagnose": lambda: cli.main(["diagnose", run]),
        "open_run": lambda: answered(lambda: opened(run)),
    }


def opened(run: str) -> None:
    found = jdlopt.open_run(run)
    found.predict(np.zeros((2, 4), np.float32))
    found.evaluate("test")


def answered(act: Callable[[], object]) -> int:
    """Returns the exit code that the command line would have."""
    try:
        act()
    except UserError:
        return 2
    return 0


def leaves(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*before, key))
    else:
        yield before


def with_value(record: Any, where: tuple[Any, ...], value: object) -> Any:
    changed = copy.deepcopy(record)
    inner = changed
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    return changed


@pytest.mark.slow
def test_no_place_of_a_config_names_code_that_is_run(place: Path) -> None:
    file = place / "run" / "config.json"
    config = json.loads(file.read_text())
    written = ([PATH], {"name": PATH}, {"a": {"name": [PATH], "strength": 0.1}}, PATH)
    of_data = 0
    for where in leaves(config):
        for value in written:
            file.write_text(json.dumps(with_value(config, where, value)))
            if ".".join(where) in OF_DATA:
                of_data += value is PATH and answered(lambda: serve.evaluate_run("run")) >= 0
                continue
            with pytest.raises(WorkdirError, match=rf"{'.'.join(where)}.*--allow-code"):
                serve.run_config("run")
    assert of_data > 4 and not (place / "ran").exists()


@pytest.mark.parametrize("verb", ["eval", "predict", "report", "diagnose", "open_run"])
def test_a_path_is_refused_by_each_verb_and_run_with_leave(
    verb: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "run" / "config.json"
    file.write_text(json.dumps(with_value(json.loads(file.read_text()), ("model", "name"), PATH)))
    assert verbs(place)[verb]() == 2
    assert not (place / "ran").exists()
    if verb != "open_run":
        said = capsys.readouterr().err
        assert all(word in said for word in ("model.name", PATH, "run", "--allow-code"))
        flags = {"report": ["run"], "diagnose": ["run"]}.get(verb, ["--workdir=run"])
        flags += ["--input=new.npz"] if verb == "predict" else []
        cli.main([verb, *flags, "--allow-code"])
    else:
        assert answered(lambda: jdlopt.open_run("run", allow_code=True).experiment) == 2
    assert (place / "ran").exists()


def in_inputs(place: Path) -> None:
    file = place / "run" / "inputs.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(with_value(record, ("dataset", "task"), PATH)))


def in_a_library(place: Path) -> None:
    """A library's function that unpickles a file of the directory."""
    file = place / "run" / "config.json"
    data = {"source": "joblib:load", "filename": str(place / "run" / "data.pkl")}
    (place / "run" / "data.pkl").write_bytes(pickle.dumps(Harmful(place / "ran")))
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "data": {**config["data"], **data}}))


def in_checkpoints(place: Path) -> None:
    """Handlers, types and metadata of every JSON file that Orbax wrote, and the checksums."""
    for file in (place / "run" / "checkpoints").rglob("*"):
        if file.is_file() and file.name in ("_METADATA", "_CHECKPOINT_METADATA", "_sharding"):
            record = json.loads(file.read_text())
            for where in list(leaves(record)):
                if where and isinstance(where[-1], str) and "class" in where[-1] + "handler":
                    record = with_value(record, where, "canary.Part")
            record["item_handlers"] = record["custom_metadata"] = {"default": "canary.Part"}
            file.write_text(json.dumps(record))
    in_checksums(place)


def in_checksums(place: Path) -> None:
    from jdlopt.train import checksums

    for folder in (place / "run" / "checkpoints").iterdir():
        checksums.write(folder)


def in_objects(place: Path) -> None:
    """An NPZ of pickled objects as the data, and as what is predicted for."""
    objects = np.empty(3, object)
    objects[:] = [Harmful(place / "ran")] * 3
    for file in (place / "new.npz", place / "run" / "data.npz"):
        with zipfile.ZipFile(file, "w") as archive:
            for name in ("inputs", "targets", "x", "y"):
                held = io.BytesIO()
                np.lib.format.write_array(held, objects, allow_pickle=True)
                archive.writestr(f"{name}.npy", held.getvalue())
    source(place, str(place / "run" / "data.npz"))


def source(place: Path, name: str, **others: object) -> None:
    file = place / "run" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "data": {**config["data"], "source": name, **others}}))


def in_weights(place: Path) -> None:
    """A PyTorch file whose pickle calls a function."""
    with zipfile.ZipFile(place / "run" / "weights.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"w": Harmful(place / "ran")}))
        archive.writestr("archive/version", "3")
    file = place / "run" / "config.json"
    config = json.loads(file.read_text())
    model = {**config["model"], "name": "resnet", "pretrained": str(place / "run" / "weights.pth")}
    file.write_text(json.dumps({**config, "model": model}))


def in_a_dataset(place: Path) -> None:
    """A prepared TFDS dataset whose features name a class."""
    folder = place / "run" / "theirs" / "1.0.0"
    folder.mkdir(parents=True)
    info = {"name": "theirs", "version": "1.0.0", "fileFormat": "array_record",
            "splits": [{"name": "train", "shardLengths": ["3"]}]}  # fmt: skip
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps({"pythonClassName": "canary.Feature"}))
    source(place, str(folder))


def in_the_page(place: Path) -> None:
    """Templates of pages, and what they are filled with."""
    text = f"{{{{ cycler.__init__.__globals__.os.system('touch {place / 'ran'}') }}}}"
    (place / "templates").mkdir()
    for name in ("run.html", "base.html", "report.html"):
        (place / "templates" / name).write_text(text)
    file = place / "run" / "result.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "status": text, "versions": {text: text}}))


def in_yaml(place: Path) -> None:
    """Configs of other tools, which no verb reads."""
    text = f'!!python/object/apply:os.system ["touch {place / "ran"}"]'
    for name in ("config.yaml", "config.yml", "hparams.yaml", "study.yaml"):
        (place / "run" / name).write_text(text)
    for name in ("config.pkl", "checkpoint.pkl", "result.pkl"):
        (place / "run" / name).write_bytes(pickle.dumps(Harmful(place / "ran")))


def in_modules(place: Path) -> None:
    """Modules beside the records, and where the person stands."""
    for folder in (place, place / "run"):
        for name in ("sitecustomize", "usercustomize", "optax", "flax", "orbax", "jdlopt"):
            shutil.copy(place / "canary.py", folder / f"{name}.py")


PLANTED = (in_inputs, in_a_library, in_checkpoints, in_objects, in_weights, in_a_dataset,
           in_the_page, in_yaml, in_modules)  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED)
def test_no_verb_runs_what_was_planted(
    plant: Callable[[Path], None], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(place)
    for verb, act in verbs(place).items():
        assert act() in (0, 2), (verb, capsys.readouterr().err)
        assert not (place / "ran").exists(), verb


# --- studies and improvements ---------------------------------------------------------------------


def improvement(technique: str, change: dict[str, object]) -> dict[str, object]:
    step = {"technique": technique, "change": change, "round": 1, "value": 0.9,
            "effect": {"mean": 0.1, "interval": [0.05, 0.15], "seeds": 5}}  # fmt: skip
    return {"status": "running", "steps": [step], "tried": [], "screened": {}, "dropped": [],
            "plans": {}, "first_rung": 2, "value": 0.9, "seconds": 1e9}  # fmt: skip


@pytest.mark.parametrize(
    ("technique", "change"),
    [("wider", {"model.name": PATH}), (PATH, {"model.features": [8]}),
     (f"{PATH}:2", {"model.features": [8]}), ("wider", {"train.metrics": ["accuracy", PATH]})],
)  # fmt: skip
def test_an_improvement_goes_on_with_no_code_of_its_record(
    technique: str, change: dict[str, object], place: Path
) -> None:
    (place / "work").mkdir()
    record = improvement(technique, change)
    (place / "work" / "improve.json").write_text(json.dumps(record))
    with pytest.raises(WorkdirError, match=r"canary:Part.*--allow-code"):
        jdlopt.improve(CONFIG, place / "work", ImprovementOptions(budget=1.0, workers=1))
    assert not (place / "ran").exists()


@pytest.mark.slow
def test_a_study_goes_on_without_reading_a_pickle(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sampler's state in the storage, as Optuna's own keeps it, and params of no such space."""
    (place / "config.py").write_text(SPACE.format(config=CONFIG))
    command = ["tune", "--config=config.py", "--workdir=study", "--sampler=cmaes", "--workers=1"]
    assert cli.main([*command, "--trials=4", "--no-report"]) == 0
    database = sqlite3.connect(place / "study" / "study.db")
    state = pickle.dumps(Harmful(place / "ran")).hex()
    with database:
        for (trial,) in database.execute("SELECT trial_id FROM trials").fetchall():
            database.execute(
                "INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
                (trial, "cma:optimizer:0", json.dumps(state)),
            )
        database.execute("UPDATE trial_system_attributes SET value_json = ? WHERE key = ?",
                         (json.dumps(state), "cmaes:generation"))  # fmt: skip
    assert cli.main([*command, "--trials=6", "--no-report"]) == 0
    assert cli.main(["report", "study"]) == 0
    with database:
        database.execute("UPDATE trial_params SET param_value = 7.0")
    capsys.readouterr()
    assert cli.main([*command, "--trials=8", "--no-report"]) == 2
    assert "optim.learning_rate" in capsys.readouterr().err
    assert not (place / "ran").exists()


# --- links ----------------------------------------------------------------------------------------

LINKS = {
    "train": (".lock", ".config.json.writing", ".metrics.jsonl.writing", ".result.json.writing",
              "metrics.jsonl", "result.json", "inputs.json", "checkpoints", "tensorboard"),
    "report": (".report.html.writing", "report.html"),
    "diagnose": (".diagnosis.json.writing", "diagnosis.html"),
    "predict": (".new.csv.writing", "new.csv"),
    "tune": (".finishing", ".writable", "study.json", "study.db", "study.db-wal", "trials",
             "populations", "curves", "trials/0000", "trials/0000/checkpoints", "best_config.json"),
    "compare": (".lock", ".compare.json.of", "compare.json", "trainings", "populations",
                "report.html"),
}  # fmt: skip
"""By verb, what may be a link in the directory that it is given."""


def outside_of(place: Path) -> dict[str, str]:
    """What lies beside the directory: nothing of it may change."""
    folder = place / "outside"
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def commands(place: Path) -> dict[str, list[str]]:
    (place / "config.py").write_text(SPACE.format(config=CONFIG))
    return {
        "train": ["train", "--config=config.py", "--workdir=dir"],
        "report": ["report", "dir"],
        "diagnose": ["diagnose", "dir"],
        "predict": ["predict", "--workdir=dir", "--input=new.npz", "--output=dir/new.csv"],
        "tune": ["tune", "--config=config.py", "--workdir=dir", "--trials=1", "--workers=1"],
        "compare": ["compare", "config.py", "+wider", "--workdir=dir", "--seeds=3", "--first=3",
                    "--workers=1"],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "name"), [(v, n) for v, names in LINKS.items() for n in names])
def test_nothing_is_written_through_a_link(
    verb: str, name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "outside" / "folder").mkdir(parents=True)
    (place / "outside" / "file").write_text("mine")
    before = outside_of(place)
    if verb in ("report", "diagnose", "predict"):
        shutil.copytree(place / "run", place / "dir")
    for target in ("file", "absent", "folder"):
        link = place / "dir" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(place / "outside" / target)
        code = cli.main(commands(place)[verb])
        assert code in (0, 2), capsys.readouterr().err
        assert outside_of(place) == before, target
        if code == 0:
            break  # it was replaced, or is not there any more


# --- where modules come from ----------------------------------------------------------------------

SHADOWS = ("optax", "numpy", "optuna", "argparse", "shutil", "sklearn", "tensorflow_datasets")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["-m", "jdlopt.cli"], [str(Path(sys.executable).with_name("jdlopt"))]]
)
def test_no_module_of_the_working_directory_stands_in_for_a_library(
    command: list[str], place: Path
) -> None:
    config = {**CONFIG, "model": {"name": "mine:Net"}}
    (place / "config.py").write_text(SPACE.format(config=config))
    (place / "mine.py").write_text("from jdlopt.models.mlp import MLP as Net\n")
    for name in SHADOWS:
        shutil.copy(place / "canary.py", place / f"{name}.py")
    flags = ["--config=config.py", "--workdir=study", "--trials=1", "--workers=1", "--keep=1"]
    done = subprocess.run(
        [sys.executable, *command, "tune", *flags], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not (place / "ran").exists()


# --- damage ---------------------------------------------------------------------------------------

WRONG = (None, [], {}, "x", -1, 3.5, [1, "a"], {"a": 1}, 10**30, "\0")
TEXTS = ("", "null", "[]", "3", "{", '{"a": NaN}', "\0" * 50, "[" * 100_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["result.json", "inputs.json", "metrics.jsonl", "config.json"])
def test_a_damaged_record_is_told(name: str, place: Path) -> None:
    """Whatever stands where, opening answers, or says in a message what is wrong."""
    file = place / "run" / name
    whole = file.read_text()

    def use() -> None:
        found = jdlopt.open_run(place / "run")
        assert repr(found) and found._repr_html_() and found.history is not None
        if name == "inputs.json":
            assert found.experiment is not None

    for text in TEXTS:
        file.write_text(text)
        answered(use)
    if name.endswith(".json"):
        record = json.loads(whole)
        cases = [(where, value) for where in leaves(record) for value in WRONG if where]
        for where, value in cases:
            file.write_text(json.dumps(with_value(record, where, value)))
            answered(use)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["meta.json", "checksums.json"])
def test_a_damaged_checkpoint_is_told(name: str, place: Path) -> None:
    for folder in (place / "run" / "checkpoints").iterdir():
        for text in TEXTS:
            (folder / name).write_text(text)
            if name == "meta.json":
                in_checksums(place)
            assert answered(lambda: jdlopt.open_run(place / "run").state) in (0, 2)
            assert answered(lambda: jdlopt.open_run(place / "run").weights) in (0, 2)
