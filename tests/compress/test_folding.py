"""Folding: batch norm becomes part of the layer before it, and outputs stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import ROWS, Row, base_config, check_same, experiment_of, made

from jdlopt import config as configs
from jdlopt.compress.folding import fold_run, folded
from jdlopt.errors import ConfigError
from jdlopt.train.loop import fit


@pytest.fixture(scope="module")
def base():
    return base_config()


NORMED = {
    "mlp": ROWS["mlp"],
    "mlp of an ensemble": ROWS["mlp"],
    "mlp of tokens": Row({"features": (6,), "embedding_features": 3, "batch_norm": True}, (4,), 7),
    "cnn with adapters": Row({"features": (6, 4), "batch_norm": True, "lora_rank": 2}, (9, 2)),
    "mlp of low rank": Row(
        {"features": (8, 8), "batch_norm": True, "low_rank": {"ranks": {"head/dense_1": 2}}}, (9,)
    ),
    **{
        name: ROWS[name]._replace(section={**ROWS[name].section, "batch_norm": True})
        for name in ("cnn", "resnet", "resnet bottleneck", "vgg", "efficientnet_lite0",
                     "wide_and_deep")
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["mlp", *(pytest.param(one, marks=pytest.mark.slow) for one in NORMED if one != "mlp")]
)
def test_folded_batch_norm_changes_no_output(base, name):
    ensemble = 2 if name == "mlp of an ensemble" else 1
    config, _ = check_same(base, NORMED[name], name.split()[0], folded, ensemble)
    assert config.model.options["batch_norm"] is False
    assert config.model.lora_rank is None


def test_what_can_not_be_folded_is_one_line(base):
    quantized = {**NORMED["mlp"].section, "quantize": {"weights": 8.0}}
    for name, section, said in (
        ("linear", {}, "has no batch norm here"),
        ("mlp", quantized, "fold first"),
        (
            "resnet",
            ROWS["resnet"].section,
            "no key model.batch_norm",
        ),  # as of a module of one's own
    ):
        row = ROWS[name]._replace(section=section)
        config, model, weights = made(base, row, name)
        with pytest.raises(ConfigError, match=said):
            folded(experiment_of(config, model, weights, row), weights)


@pytest.mark.slow
def test_a_folded_run_is_a_run(tmp_path: Path):
    raw: dict[str, Any] = {
        "data": {"source": "digits", "batch_size": 64},
        "model": {"name": "cnn", "features": (4,), "pool": "max", "batch_norm": True},
        "optim": {"name": "adam", "learning_rate": 0.01},
        "train": {"epochs": 2, "tensorboard": False},
    }
    source = fit(raw, tmp_path / "source")
    run = fold_run(source, tmp_path / "folded")
    assert run.record["made"]["how"]["difference"] < 1e-5
    assert run.metrics["test/loss"] == pytest.approx(source.metrics["test/loss"], rel=1e-4)
    assert run.metrics["test/accuracy"] == source.metrics["test/accuracy"]
    assert not run.weights.model_state
    keys = {"model.batch_norm": False, "train.epochs": 1, "optim.learning_rate": 1e-4}
    on = configs.override(raw, {"model.pretrained": str(run.workdir), **keys})
    trained = fit(on)
    assert trained.config.model.options["batch_norm"] is False
    key = "validation/accuracy"
    assert trained.metrics[key] > source.metrics[key] - 0.02
