"""Comparisons of two configs: pairs, decisions, resumption, and what is refused."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import pytest

from jdlopt import cli
from jdlopt import config as configs
from jdlopt.errors import ConfigError, UserError, WorkdirError
from jdlopt.evidence import sides
from jdlopt.evidence.compare import compare
from jdlopt.evidence.options import ComparisonOptions
from jdlopt.evidence.trainer import Trainer, TrainingsWarning, key_of
from jdlopt.study.space import log_uniform
from jdlopt.train.loop import fit

BASE = {
    "data": {"source": "iris", "batch_size": 32, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (8,)},
    "optim": {"name": "adamw", "learning_rate": 0.01},
    "train": {"epochs": 12},
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> tuple[dict, Path]:
    """The base against the same with a rate so low that nothing is learnt."""
    workdir = tmp_path_factory.mktemp("compared")
    slow = configs.override(BASE, {"optim.learning_rate": 1e-6})
    return compare(BASE, slow, workdir, ComparisonOptions(seeds=15, workers=1)), workdir


def test_a_config_that_learns_nothing_is_dropped(compared) -> None:
    record, workdir = compared
    assert record["decision"] == "drop" and record["effect"]["interval"][1] < 0
    assert record["changes"] == {"optim.learning_rate": [0.01, 1e-6]}
    assert record["seeds"] < 15  # the answer was clear before
    assert record["cost"]["n_params"] == 1.0 and record["cost"]["memory"] == 1.0
    assert json.loads((workdir / "compare.json").read_text())["decision"] == "drop"


@pytest.mark.slow
def test_a_side_of_a_pair_is_what_a_run_comes_to(compared, tmp_path: Path) -> None:
    record, _ = compared
    pair = record["pairs"][1]
    result = fit({**record["configs"]["a"], "seed": pair["seed"]}, tmp_path / "a")
    assert result.metrics["validation/accuracy"] == pytest.approx(pair["a"], abs=1e-6)


def test_what_is_on_disk_is_not_trained_again(compared) -> None:
    record, workdir = compared
    both = [record["configs"][side] for side in "ab"]
    path = workdir / "trainings" / f"{key_of(both[0])}.jsonl"
    with path.open("a") as file:
        file.write('{"seed": 3, "sta')  # a process that was killed within a line
    with pytest.warns(TrainingsWarning, match="damaged"):
        again = compare(both[0], both[1], workdir, ComparisonOptions(seeds=15, workers=1))
    path.write_text(path.read_text().rpartition("\n")[0] + "\n")
    assert again["pairs"] == record["pairs"]
    assert again["seconds"] == {"training": 0.0, "compiling": 0.0}
    with Trainer(workdir, workers=1) as trainer:
        assert set(trainer.known(both[0])) == {pair["seed"] for pair in record["pairs"]}
        with pytest.raises(WorkdirError, match="another process is at work"), Trainer(workdir):
            pass


def test_a_bit_that_flips_costs_its_line_and_changes_no_other(compared, tmp_path: Path) -> None:
    record, workdir = compared
    config = record["configs"]["a"]
    name = f"{key_of(config)}.jsonl"
    content = (workdir / "trainings" / name).read_bytes()
    (tmp_path / "trainings").mkdir()
    with Trainer(workdir) as trainer:
        whole = trainer.known(config)
    rng = random.Random(0)
    for _ in range(100):
        place = rng.randrange(len(content))
        flipped = bytes([content[place] ^ (1 << rng.randrange(8))])
        damaged = content[:place] + flipped + content[place + 1 :]
        (tmp_path / "trainings" / name).write_bytes(damaged)
        with Trainer(tmp_path) as trainer, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = trainer.known(config)
        assert all(whole[seed] == one for seed, one in found.items())
        assert len(whole) - 2 <= len(found)  # 2: an end of line was hit
        # the 17th digit may make no other number, nor "E" instead of "e"
        assert found == whole or "trained again" in str(told[0].message)


def test_a_directory_of_other_configs_is_refused(compared) -> None:
    _, workdir = compared
    with pytest.raises(WorkdirError, match="about other configs"):
        compare(BASE, configs.override(BASE, {"seed": 1, "train.epochs": 5}), workdir)


def test_the_report_shows_the_decision_and_every_pair(compared) -> None:
    from jdlopt.report import write_report

    record, workdir = compared
    page = write_report(workdir).read_text(encoding="utf-8")
    assert "drop" in page and "Every pair" in page
    assert page.count('<th scope="row">') >= len(record["pairs"])


@pytest.mark.slow
def test_both_sides_are_tuned_at_the_same_points_on_other_seeds(tmp_path: Path) -> None:
    other = configs.override(BASE, {"optim.learning_rate": 1e-5})
    options = ComparisonOptions(
        seeds=2, fixed=True, tune=3, tune_seeds=1, workers=1,
        space={"optim.learning_rate": log_uniform(1e-3, 3e-2)},
    )  # fmt: skip
    record = compare(BASE, other, tmp_path, options)
    a, b = record["tuning"]["a"], record["tuning"]["b"]
    assert a["points"] == b["points"] == 4
    assert b["point"]["optim.learning_rate"] >= 1e-3  # its own rate was too low
    rates = [record["configs"][side]["optim"]["learning_rate"] for side in "ab"]
    assert rates == [a["point"].get("optim.learning_rate", 0.01), *b["point"].values()]


def test_sides_of_other_examples_make_no_pairs() -> None:
    a = sides.side_of(BASE)
    b = sides.side_of(configs.override(BASE, {"data.split_seed": 4, "data.batch_size": 16}))
    with pytest.raises(ConfigError, match=r"data.split_seed: 0 and 4") as error:
        sides.check_pair(a, b, "validation/accuracy")
    assert "batch_size:" not in str(error.value)


def test_losses_of_two_kinds_are_not_compared_by_the_loss(tmp_path: Path) -> None:
    a = configs.override(BASE, {"loss.name": "cross_entropy"})
    b = configs.override(a, {"loss.label_smoothing": 0.1})
    with pytest.raises(ConfigError, match=r"label_smoothing.*validation/accuracy"):
        compare(a, b, tmp_path, ComparisonOptions(metric="validation/loss"))
    same = configs.override(a, {"loss.l2": 1e-3})  # added to it, and not measured
    sides.check_pair(sides.side_of(a), sides.side_of(same), "validation/loss")
    space = {"loss.label_smoothing": log_uniform(1e-2, 0.1)}
    with pytest.raises(ConfigError, match=r"each value of loss\.label_smoothing"):
        compare(b, b, tmp_path, ComparisonOptions(metric="validation/loss", tune=2, space=space))
    assert not list(tmp_path.iterdir())


def test_a_regression_is_compared_by_what_no_loss_changes() -> None:
    raw = {"data": {"source": "diabetes"}, "model": {"name": "linear"}, "loss": {"name": "huber"},
           "mesh": {"data": 1}}  # fmt: skip
    assert sides.metric_of(sides.side_of(raw), None) == "validation/rmse"


def test_a_part_that_changes_leaves_the_keys_of_the_old_one_behind() -> None:
    raw = configs.override(BASE, {"optim.b1": 0.8, "optim.name": "adamw"})
    side = sides.side_of(raw, {"optim.name": "sgd"})
    assert side.config.optim.name == "sgd" and "b1" not in side.config.optim.options


def test_a_side_holds_plain_values_of_parts_that_are_named_on_a_command_line() -> None:
    texts = {"model.name": configs.Override("linear"), "optim.learning_rate": configs.Override("1")}
    with pytest.warns(UserWarning, match="config's features are for another part"):
        side = sides.side_of(configs.override({**BASE, "mesh": {"data": 1}}, texts))
    assert side.raw["model"] == {"name": "linear"} and side.raw["optim"]["learning_rate"] == 1.0
    assert json.loads(json.dumps(side.raw)) == side.raw
    assert sides.side_of(side.raw, {"seed": 3}).config.model.name == "linear"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 1}, "--seeds: must be at least 2"),
        ({"level": 1.5}, "--level"),
        ({"first_seed": 2**32}, "--first-seed: 4,294,967,296"),
        ({"first_seed": 2**32 - 19}, "--first-seed: .* a seed is at most 4,294,967,295"),
        ({"tune": 2}, "--tune: which keys"),
    ],
)
def test_wrong_options_are_told(changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ComparisonOptions(**changes).check()


def test_a_metric_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--metric: 'validation/acuracy'"):
        compare(BASE, BASE, tmp_path, ComparisonOptions(metric="validation/acuracy"))


def test_the_command_line_refuses_what_makes_no_pair(tmp_path: Path, capsys) -> None:
    files = ["configs/tabular/iris_mlp.py", "configs/tabular/wine_mlp.py"]
    assert cli.main(["compare", *files, f"--workdir={tmp_path}"]) == 2
    assert "data.source: 'iris' and 'wine'" in capsys.readouterr().err
