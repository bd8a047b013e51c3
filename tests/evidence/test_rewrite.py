"""Config files with changed lines: they give the config that was meant, and keep what they had."""

from __future__ import annotations

from pathlib import Path

import pytest

from jdlopt import config as configs
from jdlopt.errors import ConfigError
from jdlopt.evidence import rewrite
from jdlopt.evidence.sides import changed

FILES = [
    *sorted(Path("configs").glob("*/*_mlp.py")),
    Path("configs/sequence/mnist1d_gru.py"),
    Path("configs/image/digits_cnn.py"),
]
CHANGES = {
    "model.dropout_rate": 0.25,
    "optim.schedule.name": "linear",
    "optim.schedule.warmup_steps": 30,
    "data.augment.noise.strength": 0.1,
    "optim.average.name": "ema",
    "train.patience": 4,
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_rewritten_file_gives_the_config_that_was_meant(file: Path, tmp_path: Path) -> None:
    wanted = configs.override(configs.load(file), CHANGES)
    comments = {"model.dropout_rate": "dropout: +0.01 (+0.00 to +0.02, 10 seeds)"}
    made = rewrite.write(file, tmp_path / "better.py", wanted, comments, "Better.").place
    assert configs.to_dict(configs.load(made)) == configs.to_dict(wanted)
    text = made.read_text(encoding="utf-8")
    assert text.startswith('"""Better.\n"""')
    assert text.count("dropout: +0.01 (+0.00 to +0.02, 10 seeds)") == 1
    assert ("get_space" in text) == ("get_space" in file.read_text(encoding="utf-8"))


def test_keys_of_a_part_that_is_left_go(tmp_path: Path) -> None:
    file = tmp_path / "base.py"
    file.write_text(
        '"""Höhe."""\n\n\ndef get_config():\n    return {\n        "data": {"source": "iris"},\n'
        '        "optim": {"name": "sgd", "momentum": 0.9, "learning_rate": 0.1},  # größer\n'
        "    }\n",
        encoding="utf-8",
    )
    wanted = changed(configs.load(file), {"optim.name": "adamw"})
    made = rewrite.write(file, tmp_path / "n.py", wanted, {}, "New.").place
    assert configs.to_dict(configs.load(made)) == {
        "data": {"source": "iris"}, "optim": {"name": "adamw", "learning_rate": 0.1},
    }  # fmt: skip
    assert "momentum" not in made.read_text(encoding="utf-8")


def test_lines_that_do_not_change_and_comments_stay() -> None:
    source = (
        "from x import base  # of ours\n\n\n"
        "def get_config():\n"
        "    config = base()\n"
        "    # how to learn\n"
        "    config.optim = dict({\n"
        "        # the best of three\n"
        "        'name': 'sgd',  # as in the paper\n"
        "        'schedule': {'name': 'cosine', 'end_fraction': 0.1}, 'momentum': 0.9,\n"
        "        # no more\n"
        "    })  # fmt: skip\n"
        "    return config\n"
    )
    changes = {"optim.name": "adam", "optim.schedule.name": "linear", "optim.b1": 0.8}
    found = rewrite.rewritten(source, changes, {"optim.name": "+1"}, ("optim.momentum",))
    assert found == (
        source.replace("'name': 'sgd',", "# +1\n        'name': \"adam\",")
        .replace("'cosine'", '"linear"')
        .replace(" 'momentum': 0.9,\n", '\n        "b1": 0.8,\n')
    )


@pytest.mark.parametrize(
    "source",
    [
        "def get_config(): return {}",
        "def get_config():\n    return {**{}, 'optim': {}}",
        "def get_config():\n    return dict(optim={})",
        "config = {}",
    ],
)
def test_what_is_not_written_out_is_refused(source: str) -> None:
    with pytest.raises(ConfigError):
        rewrite.rewritten(source, {"optim.name": "sgd"}, {})


def test_a_file_that_can_not_be_changed_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "odd.py"
    file.write_text(
        "def get_config():\n    config = {}\n    for name in ('data',):\n"
        "        config[name] = dict(source='iris')\n    return config\n",
        encoding="utf-8",
    )
    wanted = configs.override(configs.load(file), {"data.batch_size": 7})
    made = rewrite.write(file, tmp_path / "n.py", wanted, {}, "New.").place
    assert configs.to_dict(configs.load(made)) == {"data": {"source": "iris", "batch_size": 7}}
    alone = rewrite.write(
        None, tmp_path / "a.py", wanted, {"data.batch_size": "+0.1"}, 'A """'
    ).place
    assert configs.to_dict(configs.load(alone)) == configs.to_dict(wanted)
    assert "# +0.1" in alone.read_text(encoding="utf-8")
