"""Keys that refer to others follow them: in overrides, in trials, in what evidence changes."""

from __future__ import annotations

import json
from pathlib import Path

import ml_collections
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import config_dict

from jdlopt import config as configs
from jdlopt.cli import main
from jdlopt.config import Override
from jdlopt.errors import ConfigError
from jdlopt.evidence.sides import side_of
from jdlopt.study import space as spaces
from jdlopt.study.options import Options
from jdlopt.study.tune import tune

FILE = """
from ml_collections import ConfigDict, config_dict

def get_config():
    config = ConfigDict()
    config.seed = 3
    config.data = ConfigDict({"source": "iris", "batch_size": 32})
    config.model = ConfigDict({"name": "mlp", "features": (8,), "dropout_rate": 0.1})
    config.train = ConfigDict({"steps": 40, "tensorboard": False})
    config.train.eval_every = config.train.get_oneway_ref("steps") // 4
    config.optim = ConfigDict({"name": "adam", "learning_rate": 0.01})
    config.optim.schedule = ConfigDict({"name": "cosine"})
    config.optim.schedule.warmup_steps = config.train.get_ref("steps") // 10
    config.optim.weight_decay = config.optim.get_ref("learning_rate") * 0.5
    config.data.split_seed = config.get_ref("seed")
    return config
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "linked.py"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.mark.parametrize("as_text", [False, True])
@given(steps=st.integers(10, 10**6))
def test_references_follow_an_override(as_text: bool, steps: int) -> None:
    config = ml_collections.ConfigDict({"train": {"steps": 40}, "optim": {}})
    config.train.eval_every = config.train.get_oneway_ref("steps") // 4
    config.optim.warmup = config.train.get_ref("steps") // 10
    config.optim.twice = config.optim.get_ref("warmup") * 2
    value = Override(str(steps)) if as_text else steps
    found = configs.to_dict(configs.override(config, {"train.steps": value}))
    assert found["train"] == {"steps": steps, "eval_every": steps // 4}
    assert found["optim"] == {"warmup": steps // 10, "twice": steps // 10 * 2}
    assert config.train.steps == 40  # the given one stays


def test_one_override_after_another_follows_and_what_is_set_itself_does_not(file: Path) -> None:
    config = configs.override(configs.load(file), {"train.eval_every": 7})
    config = configs.override(configs.override(config, {"optim.b1": 0.8}), {"train.steps": 200})
    found = configs.to_dict(config)
    assert (found["train"]["eval_every"], found["optim"]["schedule"]["warmup_steps"]) == (7, 20)
    both = configs.load(file, {"train.steps": 200, "optim.schedule.warmup_steps": 3})
    assert both.optim.schedule.warmup_steps == 3 and both.train.eval_every == 50


def test_a_one_way_reference_leaves_the_other_and_a_shared_one_does_not() -> None:
    config = ml_collections.ConfigDict({"a": {"x": 1}, "b": {}})
    config.b.shared = config.a.get_ref("x")
    config.b.own = config.a.get_oneway_ref("x")
    assert configs.override(config, {"b.own": 5}).a.x == 1
    assert configs.to_dict(configs.override(config, {"b.shared": 5})) == {
        "a": {"x": 5}, "b": {"shared": 5, "own": 5},
    }  # fmt: skip


def test_the_command_line_follows_references(file: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", f"--config={file}", "--print-config", "--config.train.steps=1000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["train"]["eval_every"] == 250
    assert found["optim"]["schedule"]["warmup_steps"] == 100


def test_a_required_value_is_given_by_an_override_or_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "asks.py"
    path.write_text(
        "from ml_collections import ConfigDict, config_dict\n\n"
        "def get_config():\n"
        "    config = ConfigDict({'data': {}, 'train': {}})\n"
        "    config.data.source = config_dict.required_placeholder(str)\n"
        "    config.train.epochs = config_dict.placeholder(int)\n"
        "    return config\n"
    )
    with pytest.raises(ConfigError, match=r"data\.source: is required and has no value"):
        configs.load(path)
    config = configs.load(path, {"data.source": Override("iris"), "train.epochs": Override("3")})
    assert configs.to_dict(config) == {"data": {"source": "iris"}, "train": {"epochs": 3}}


def test_what_can_not_be_computed_names_the_key_that_was_set() -> None:
    config = ml_collections.ConfigDict({"train": {"steps": 40}})
    config.train.every = 120 // config.train.get_ref("steps")
    with pytest.raises(ConfigError, match=r"train\.steps: .*ZeroDivisionError"):
        configs.override(config, {"train.steps": 0})


def test_frozen_and_locked_configs_can_be_overridden() -> None:
    config = ml_collections.ConfigDict({"train": {"steps": 40}, "x": config_dict.placeholder(int)})
    config.train.every = config.train.get_ref("steps") // 4
    for given_config in (config.lock(), ml_collections.FrozenConfigDict(config)):
        found = configs.override(given_config, {"train.steps": 80, "train.new": 1})
        assert found.train.every == 20 or isinstance(
            given_config, ml_collections.FrozenConfigDict
        )  # a frozen config has no references any more
        assert found.train.new == 1


def test_a_side_that_is_changed_follows(file: Path) -> None:
    side = side_of(configs.load(file, {"mesh.data": 1}))
    once = side_of(side.raw, {"optim.b1": 0.8})
    twice = side_of(once.raw, {"train.steps": 80}, like=once).config
    assert twice.train.eval_every == 20
    assert twice.optim.schedule.warmup_steps == 8
    assert twice.optim.options["b1"] == 0.8


@pytest.mark.slow
def test_trials_follow_a_searched_key(file: Path, tmp_path: Path) -> None:
    space = {
        "train.steps": spaces.choice(20, 40),
        "optim.learning_rate": spaces.choice(0.01, 0.02),
    }
    options = Options(sampler="grid", workers=1)
    found = tune(configs.load(file, {"mesh.data": 1}), space, tmp_path / "s", options).record
    assert [one["state"] for one in found["trials"]] == ["done"] * 4
    best = configs.to_dict(configs.load(tmp_path / "s" / "best_config.json"))
    assert best["train"]["eval_every"] == best["train"]["steps"] // 4
    assert best["optim"]["weight_decay"] == best["optim"]["learning_rate"] * 0.5
    for place in (tmp_path / "s" / "trials").iterdir():
        own = json.loads((place / "config.json").read_text())
        assert own["train"]["eval_every"] == own["train"]["steps"] // 4
        lines = (place / "metrics.jsonl").read_text().splitlines()
        steps = [one["step"] for one in map(json.loads, lines) if "validation/loss" in one]
        assert steps[0] == own["train"]["steps"] // 4
