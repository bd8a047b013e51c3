from __future__ import annotations

import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.train.experiment import Experiment


def config_of(tmp_path, validation: np.ndarray, **train):
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    classes = np.arange(60) % 3
    targets = classes if validation.dtype.kind == "i" else rng.normal(size=60)
    np.savez(
        path, x_train=rng.normal(size=(60, 2)), y_train=targets,
        x_validation=rng.normal(size=(len(validation), 2)), y_validation=validation,
        x_test=rng.normal(size=(6, 2)), y_test=targets[:6],
    )  # fmt: skip
    return {
        "data": {"source": str(path), "batch_size": 16},
        "model": {"name": "mlp", "features": (4,)},
        "optim": {"name": "adamw", "learning_rate": 0.01},
        "train": {"epochs": 1, **train},
    }


@pytest.mark.parametrize(
    ("validation", "monitor", "words"),
    [
        ([0, 1, 0, 1], "roc_auc", "no example of '2'.*data.stratify"),
        ([2, 2], "roc_auc", "no example of '0' and 1 more"),
        ([0.5], "r2", "one example"),
    ],
)
def test_what_is_monitored_must_be_defined_on_validation(tmp_path, validation, monitor, words):
    config = config_of(tmp_path, np.array(validation), monitor=f"validation/{monitor}")
    with pytest.raises(ConfigError, match=f"validation/{monitor}' is undefined on .*{words}"):
        Experiment.build(config)
    config["train"]["monitor"] = "validation/loss"
    (note,) = Experiment.build(config).data.notes
    assert note.kind == "unused" and monitor in note.places and "validation" in note.what


def test_nothing_is_said_where_every_metric_is_defined(tmp_path):
    for validation, monitor in ((np.array([0, 1, 2]), "roc_auc"), (np.array([0.5, 1.5]), "r2")):
        config = config_of(tmp_path, validation, monitor=f"validation/{monitor}")
        assert Experiment.build(config).data.notes == ()
