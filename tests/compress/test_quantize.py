"""Quantization after training: ranges from training examples, and what it costs at each layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from families import CLASSES, FAMILIES, ROWS, experiment_of, weights_of

from jdlopt import config as configs
from jdlopt.compress.made import with_data_of
from jdlopt.compress.quantize import (
    Quantized,
    calibrate,
    quantize_run,
    training_batches,
)
from jdlopt.compress.ranges import without_ranges
from jdlopt.data.given import open_given
from jdlopt.errors import ConfigError, DataError
from jdlopt.models import MODELS
from jdlopt.models.quantization import QuantizeFields
from jdlopt.train.experiment import Experiment
from jdlopt.train.inference import stored_bytes
from jdlopt.train.loop import fit
from jdlopt.train.run import Run

CONFIG: dict[str, Any] = {
    "data": {"source": "wine", "batch_size": 16, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (16,), "dropout_rate": 0.1},
    "optim": {"name": "adam", "learning_rate": 0.02},
    "train": {"epochs": 8, "tensorboard": False},
}
Of = Callable[..., Quantized]
EIGHT = QuantizeFields(weights=8.0, activations=8.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(CONFIG, tmp_path_factory.mktemp("quantize") / "run")


@pytest.fixture(scope="module")
def experiment(run: Run) -> Experiment:
    return with_data_of(run, run.config)


@pytest.fixture
def of(run: Run, experiment: Experiment) -> Of:
    def made(fields: QuantizeFields, examples: int = 64) -> Quantized:
        batches = partial(training_batches, experiment, examples)
        return calibrate(experiment, run.weights, fields, batches)

    return made


def test_eight_bits_cost_little_and_fewer_cost_more(of: Of):
    found = {
        bits: of(QuantizeFields(weights=bits, activations=8.0)).layers[-1].sqnr
        for bits in (8.0, 4.0, 2.0)
    }
    assert found[8.0] > 30 > found[4.0] > found[2.0]


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse"])
def test_ranges_are_those_of_the_training_examples(
    run: Run, experiment: Experiment, of: Of, calibration: str
):
    made = of(dataclasses.replace(EIGHT, calibration=calibration), 100)
    given = np.concatenate([batch["inputs"] for batch in training_batches(experiment, 100)])
    seen = np.asarray(experiment.components.preprocess(run.weights.preprocess, given))
    first = next(layer for layer in made.layers if layer.low is not None)
    assert first.low is not None and first.high is not None
    if calibration == "minmax":
        assert first.low == pytest.approx(seen.min(), rel=1e-5)
        assert first.high == pytest.approx(seen.max(), rel=1e-5)
    else:
        assert seen.min() * 1.01 <= first.low < 0 < first.high <= seen.max() * 1.01


def test_the_run_that_is_made_predicts_with_few_values(
    run: Run, experiment: Experiment, tmp_path: Path
):
    made = quantize_run(run, tmp_path / "made", EIGHT, examples=64)
    assert made.config.model.quantize.weights == 8.0
    assert made.record["made"]["how"]["method"] == "quantize"
    inputs = experiment.data.read("test").inputs
    whole, few = run.predict(inputs), made.predict(inputs)
    assert 0 < np.abs(whole.probabilities - few.probabilities).mean() < 0.01
    assert made.metrics["test/accuracy"] == pytest.approx(run.metrics["test/accuracy"], abs=0.06)
    kernels = sum(leaf.size for leaf in jax.tree.leaves(run.weights.params) if leaf.ndim > 1)
    saved = stored_bytes(run.config, run.weights) - stored_bytes(made.config, made.weights)
    assert saved > 2 * kernels  # of 4 bytes each, 1 is left, and a scale for each channel


def test_what_can_not_be_calibrated_is_refused(run: Run, experiment: Experiment, of: Of):
    with pytest.raises(ConfigError, match="training split alone"):
        next(training_batches(experiment, 8, "test"))
    with pytest.raises(ConfigError, match="nothing to quantize"):
        of(QuantizeFields())
    with pytest.raises(ConfigError, match="matches no parameter"):
        of(dataclasses.replace(EIGHT, patterns=("no_such_kernel",)))
    with pytest.raises(ConfigError, match=r"model\.quantize\.weights"):
        of(dataclasses.replace(EIGHT, weights=9.0))
    with pytest.raises(DataError, match="no example"):
        calibrate(experiment, run.weights, EIGHT, lambda: iter(()))
    (batch,) = training_batches(experiment, 8)
    broken = {**batch, "inputs": np.full_like(batch["inputs"], np.nan)}
    with pytest.raises(DataError, match="not finite"):
        calibrate(experiment, run.weights, EIGHT, lambda: iter([broken]))


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in FAMILIES if name in MODELS])
def test_eight_bits_of_every_family_are_close_to_its_float_model(family: str):
    experiment = experiment_of(family)
    batches = partial(training_batches, experiment, 16)
    made = calibrate(experiment, weights_of(experiment), EIGHT, batches)
    assert any(layer.low is not None for layer in made.layers)
    assert made.layers[-1].sqnr > 26  # an error of 5 per cent


@pytest.mark.slow
def test_ranges_that_ran_in_training_mode_are_found_anew():
    """After a step, running statistics are far from a batch's, and so is what layers are given."""
    data = {"source": "made", "batch_size": 16}
    raw = {
        "data": data,
        "model": {"name": "mlp", "features": (16, 8), "batch_norm": True},
        "optim": {"name": "sgd", "learning_rate": 0.01},
        "train": {"steps": 1},
    }
    plain = Experiment.build(raw, open_given(data, (ROWS / 200, CLASSES)), check=False)
    bits = {"model.quantize.weights": 8.0, "model.quantize.activations": 8.0}
    experiment = Experiment.build(configs.override(plain.config, bits), plain.data, check=False)
    train = plain.data.read("train")
    batch = {"inputs": train.inputs[:16], "targets": train.targets[:16]}
    own = experiment.weights(jax.jit(experiment.train_step)(experiment.init(0), batch)[0])
    floats = own.replace(model_state=without_ranges(own.model_state), hparams=plain.hparams)
    whole, few = (
        np.asarray(one.predict(weights, train.inputs).outputs)
        for one, weights in ((plain, floats), (experiment, own))
    )
    assert np.linalg.norm(few - whole) > 0.2 * np.linalg.norm(whole)
    batches = partial(training_batches, experiment, 32)
    made = calibrate(experiment, own, experiment.config.model.quantize, batches)
    assert made.layers[-1].sqnr > 26


def test_infinite_agreement_is_said_as_such(of: Of):
    layers = of(QuantizeFields(activations=8.0)).layers
    assert all(math.isfinite(one.sqnr) or one.sqnr == math.inf for one in layers)
    assert layers[-1].layer == "outputs of the model"
