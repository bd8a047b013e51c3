from __future__ import annotations

import io

import numpy as np
import pytest

from jdlopt.errors import ConfigError, UserError
from jdlopt.evidence.sides import metric_of, side_of
from jdlopt.executor.messages import CheckStudy
from jdlopt.executor.worker import Link
from jdlopt.study.worker import StudyWorker
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


def test_the_flag_that_named_the_metric_is_told(tmp_path, capsys):
    config = config_of(tmp_path, np.array([0, 1, 0, 1]))
    worker = StudyWorker(Link(io.StringIO()))
    space = [{"key": "optim.learning_rate", "kind": "uniform", "low": 0.1, "high": 0.2}]

    def said(goal=None, *objectives):
        return worker.check(
            CheckStudy(config, {}, space, [space[0]["key"]], None, [*objectives], goal)
        )

    accuracy, undefined = "validation/accuracy", "'validation/roc_auc' is undefined"
    for goal, objectives, words in (
        (None, ["validation/roc_auc"], f"--objective: {undefined}"),
        (None, [accuracy, "validation/roc_auc"], f"--objective: {undefined}"),
        (None, ["validation/acuracy"], "--objective: .*Did you mean 'accuracy'"),
        ("validation/roc_auc", [], "--until: .*is not measured.*train.metrics"),
        ("validation/acuracy", [], "--until: .*Did you mean 'validation/accuracy'"),
    ):
        with pytest.raises(ConfigError, match=words) as error:
            said(goal, *objectives)
        assert "train.monitor" not in str(error.value)
    assert said("validation/loss").directions == {accuracy: "maximize"}
    more = said(None, accuracy, "validation/f1_macro")  # what is not measured by default is
    assert more.config["train"]["metrics"] == ("accuracy", "f1_macro")
    for metric, flag in (("validation/roc_auc", "--metric"), ("validation/roc_auc", "--until")):
        with pytest.raises(UserError, match=f"{flag}: {undefined}"):
            metric_of(side_of(config), metric, flag)


def test_nothing_is_said_where_every_metric_is_defined(tmp_path):
    for validation, monitor in ((np.array([0, 1, 2]), "roc_auc"), (np.array([0.5, 1.5]), "r2")):
        config = config_of(tmp_path, validation, monitor=f"validation/{monitor}")
        assert Experiment.build(config).data.notes == ()
