"""Config files as people write them: imports, dataclasses, arguments, values, paths beside them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.cli import main
from jdlopt.config import files
from jdlopt.data.bundled import BUNDLED
from jdlopt.errors import ConfigError
from jdlopt.evidence import rewrite
from jdlopt.study import space as spaces
from jdlopt.study.options import Options
from jdlopt.study.tune import tune

ROWS = "a,b,y\n" + "".join(f"{i},{i * 7 % 5},{'xz'[i % 2]}\n" for i in range(40))
CONFIG = '{"data": {"source": "iris"}, "model": {"name": "mlp", "features": (8,)}}'


@pytest.fixture(autouse=True)
def _paths_as_they_were() -> Iterator[None]:
    """Takes back what a test makes importable."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules:
        if name.startswith(("jdlopt_", "neighbour")):
            del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_may_define_dataclasses_with_future_annotations(tmp_path: Path) -> None:
    file = write(
        tmp_path / "sizes.py",
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from jdlopt.study.space import uniform\n\n"
        "@dataclass\nclass Sizes:\n    hidden: int = 8\n\n"
        "def get_config():\n    return {'model': {'features': (Sizes().hidden,)}}\n\n"
        "def get_space():\n    return {'model.dropout_rate': uniform(0.0, 0.5)}\n",
    )
    assert configs.load(file).model.features == (8,)
    assert list(spaces.load(file)) == ["model.dropout_rate"]


@pytest.mark.parametrize("place", [".", "experiments"])
def test_a_file_imports_its_neighbours_wherever_it_is_loaded_from(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "experiments/neighbour_parts.py", "WIDTH = 8\n")
    write(tmp_path / "neighbour_here.py", "DEPTH = 2\n")
    write(
        tmp_path / "experiments/plain.py",
        "from neighbour_parts import WIDTH\n\n"
        "def get_config():\n"
        + ("    from neighbour_here import DEPTH\n" if place == "." else "    DEPTH = 2\n")
        + "    return {'model': {'features': (WIDTH,) * DEPTH}}\n",
    )
    monkeypatch.chdir(tmp_path / place)
    file = "experiments/plain.py" if place == "." else "plain.py"
    assert configs.load(file).model.features == (8, 8)


def test_a_neighbour_never_stands_for_a_package(tmp_path: Path) -> None:
    write(tmp_path / "optax.py", "raise SystemExit('shadowed')\n")
    file = write(
        tmp_path / "own.py",
        "import optax\n\ndef get_config():\n    return {'a': {'b': optax.__name__}}\n",
    )
    assert configs.load(file).a.b == "optax"
    assert sys.path.index(str(tmp_path)) > max(
        place for place, folder in enumerate(sys.path) if "site-packages" in folder
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("from .neighbour_parts import X\n", ["line 1", "without the dot"]),
        ("import neighbour_missing\n", ["line 1", "No module named", "importable"]),
    ],
)
def test_an_import_that_fails_says_what_can_be_imported(
    text: str, words: list[str], tmp_path: Path
) -> None:
    file = write(tmp_path / "own.py", f"{text}\ndef get_config():\n    return {{}}\n")
    with pytest.raises(ConfigError) as caught:
        configs.load(file)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.slow
def test_worker_processes_import_the_neighbours(tmp_path: Path) -> None:
    write(
        tmp_path / "own/neighbour_model.py",
        "import flax.linen as nn\n\n"
        "class Small(nn.Module):\n"
        "    num_outputs: int\n    rate: float = 0.1\n\n"
        "    @nn.compact\n    def __call__(self, x, *, train):\n"
        "        return nn.Dense(self.num_outputs)(x)\n",
    )
    file = write(
        tmp_path / "own/base.py",
        "import neighbour_model\nfrom jdlopt.study.space import choice\n\n"
        "def get_config():\n    return {'data': {'source': 'iris'}, 'mesh': {'data': 1},\n"
        "        'model': {'name': 'neighbour_model:Small'},\n"
        "        'train': {'epochs': 1, 'tensorboard': False}}\n\n"
        "def get_space():\n    return {'optim.learning_rate': choice(0.1, 0.01)}\n",
    )
    options = Options(sampler="grid", workers=1, keep=1, base=False)
    found = tune(configs.load(file), spaces.load(file), tmp_path / "study", options)
    assert [one["state"] for one in found.record["trials"]] == ["done", "done"]


@pytest.mark.parametrize(
    "argument", ["2024-05-01 12:30.csv", "iris:1.0.0", "a:b:c", "", "C:\\data\\x.csv", "x=1:y=2"]
)
def test_what_follows_the_file_is_the_argument_as_it_is(argument: str, tmp_path: Path) -> None:
    file = write(tmp_path / "c.py", "def get_config(x='none'):\n    return {'a': {'b': x}}\n")
    assert configs.load(f"{file}:{argument}").a.b == argument
    assert configs.load(file).a.b == "none"


def test_the_longest_file_wins(tmp_path: Path) -> None:
    text = "def get_config(x='none'):\n    return {{'a': {{'b': x, 'file': {0!r}}}}}\n"
    for name in ("c.py", "c.py:d.py"):
        write(tmp_path / name, text.format(name))
    found = configs.load(f"{tmp_path}/c.py:d.py:e:f").a
    assert (found.file, found.b) == ("c.py:d.py", "e:f")
    assert configs.load(f"{tmp_path}/c.py:e.py").a.b == "e.py"
    with pytest.raises(ConfigError, match=r"missing\.py' is not there"):
        configs.load(f"{tmp_path}/missing.py:a:b")


def test_a_colon_reaches_every_verb(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path / "at 12:30.csv", ROWS)
    file = write(
        tmp_path / "c.py",
        "def get_config(source):\n"
        "    return {'data': {'source': source, 'target': 'y', 'batch_size': 8},\n"
        "        'model': {'name': 'linear'}}\n",
    )
    assert main(["train", f"--config={file}:{tmp_path}/at 12:30.csv", "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["source"] == f"{tmp_path}/at 12:30.csv"
    text = file.read_text().replace(", 'target': 'y'", "")
    assert main(["train", f"--config={write(file, text)}:iris:1.0.0", "--print-config"]) == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_json_may_begin_with_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"a": {"b": "ü"}}', encoding=encoding)
    assert configs.load(file).a.b == "ü"
    rows = spaces.to_json({"a.b": spaces.choice("u", "v")})
    file.write_text(json.dumps(rows), encoding=encoding)
    assert spaces.load(file)["a.b"].choices == ("u", "v")


class Colour(Enum):
    RED = "red"


class Size(int, Enum):
    SMALL = 3


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True), (np.str_("a"), "a"),
        (np.array([1, 2]), (1, 2)), (np.array([[1.5]]), ((1.5,),)), (np.array(2), 2),
        ([np.int32(1), (np.float64(2.0),)], (1, (2.0,))), (jnp.float32(0.5), 0.5),
        (jnp.arange(2), (0, 1)), (range(3), (0, 1, 2)), (Colour.RED, "red"), (Size.SMALL, 3),
        (Path("a/b.csv"), "a/b.csv"), ((Path("a"), None), ("a", None)),
    ],
    ids=str,
)  # fmt: skip
def test_values_of_other_libraries_are_made_plain(value: object, plain: object) -> None:
    found = configs.to_dict({"a": {"b": value}})["a"]["b"]
    assert found == plain and type(found) is type(plain)
    assert json.loads(configs.dumps({"a": value})) == json.loads(json.dumps({"a": plain}))
    overridden = configs.to_dict(configs.override({"a": {}}, {"a.b": value}))["a"]["b"]
    assert overridden == plain and type(overridden) is type(plain)


def test_a_space_takes_numpys_numbers() -> None:
    found = spaces.check(
        {
            "a.low": spaces.uniform(np.float32(0), np.float64(1)),
            "a.int": spaces.integer(np.int64(1), np.int32(4), step=np.int64(1)),
            "a.choice": spaces.choice(*np.array([1, 2])),
        }
    )
    assert spaces.from_json(json.loads(json.dumps(spaces.to_json(found)))) == found
    assert found["a.int"].grid() == (1, 2, 3, 4)


def test_a_source_beside_the_config_is_taken_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{"data": {"source": "table.csv", "target": "y"}, "model": {"name": "linear"}}'
    write(tmp_path / "kept/c.json", text)
    write(tmp_path / "kept/table.csv", ROWS)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=r"data\.source: 'table\.csv' is not in the working dir"):
        assert configs.load("kept/c.json").data.source == "kept/table.csv"
    write(tmp_path / "table.csv", ROWS)
    with pytest.warns(UserWarning, match="is both in the working directory and beside"):
        assert configs.load("kept/c.json").data.source == "table.csv"
    (tmp_path / "table.csv").unlink()
    (tmp_path / "table.csv").symlink_to(tmp_path / "kept/table.csv")
    assert configs.load("kept/c.json").data.source == "table.csv"  # the same file: nothing to say
    monkeypatch.chdir(tmp_path / "kept")
    assert configs.load("c.json").data.source == "table.csv"


def test_a_word_names_a_folder_beside_the_config_unless_it_is_a_bundled_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(files.DATASETS) == set(BUNDLED)
    for name in ("shots", "iris"):
        (tmp_path / "kept" / name).mkdir(parents=True)
    write(tmp_path / "kept/c.json", '{"data": {"source": "shots"}, "model": {"name": "shots"}}')
    write(tmp_path / "kept/d.json", '{"data": {"source": "iris"}}')
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=r"data\.source: 'shots' is not in the working dir"):
        found = configs.load("kept/c.json")
    assert (found.data.source, found.model.name) == ("kept/shots", "shots")
    assert configs.load("kept/d.json").data.source == "iris"


def test_an_improved_file_keeps_the_argument_and_what_lies_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(
        tmp_path / "kept/base.py",
        "def get_config(table: str, rate=0.1):\n"
        "    return {\n"
        "        'data': {'source': table, 'target': 'y'},  # mine\n"
        "        'optim': {'learning_rate': rate},\n    }\n",
    )
    write(tmp_path / "kept/at 1:2.csv", ROWS)
    monkeypatch.chdir(tmp_path)
    named = f"{file}:at 1:2.csv"
    with pytest.warns(UserWarning, match="taken from beside the config"):
        wanted = configs.override(configs.load(named), {"optim.b1": 0.8})
    written = rewrite.write(named, tmp_path / "n.py", wanted, {}, "New.")
    assert written.note is None
    assert configs.to_dict(configs.load("n.py")) == configs.to_dict(wanted)
    assert "# mine" in written.place.read_text() and "rate=0.1" in written.place.read_text()


def test_an_improved_file_that_is_written_anew_says_so(tmp_path: Path) -> None:
    write(tmp_path / "own/neighbour_base.py", f"def made():\n    return {CONFIG}\n")
    file = write(
        tmp_path / "own/base.py",
        "import neighbour_base\n\ndef get_config(size):\n    return neighbour_base.made()\n",
    )
    wanted = configs.override(configs.load(f"{file}:large"), {"optim.b1": 0.8})
    written = rewrite.write(f"{file}:large", tmp_path / "n.py", wanted, {}, "New.")
    assert written.note is not None and "n.py is written anew" in written.note
    assert configs.to_dict(configs.load(written.place)) == configs.to_dict(wanted)
