"""Augmentation and preprocessing inside the step: traced, in order, the same wherever they run."""

from __future__ import annotations

import csv
import json
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.data import augment
from jdlopt.data.augment.batch import epochs_at
from jdlopt.errors import ConfigError, UserError
from jdlopt.study import structure
from jdlopt.study.population import Cache, Population
from jdlopt.study.trial import Trial
from jdlopt.train import serve
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.state import as_arrays

GENTLE = {"crop": 0.2, "rotate": 10.0, "brightness": 0.2, "cutout": 0.3, "mixup": 0.3}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """An NPZ of three classes of 8 × 8 pictures: where the bright square is."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = rng.integers(0, 60, (240, 8, 8, 1), dtype=np.uint8)
    for index, label in enumerate(labels):
        images[index, 2 * label : 2 * label + 3, 2:6] += 150
    path = tmp_path_factory.mktemp("pictures") / "pictures.npz"
    np.savez(
        path, x_train=images[:200], y_train=labels[:200], x_test=images[200:], y_test=labels[200:]
    )
    return path


@pytest.fixture
def augmented(pictures):
    return {
        "seed": 1,
        "data": {
            "source": str(pictures),
            "batch_size": 20,
            "validation_fraction": 0.2,
            "preprocess": {"scale": "standard"},
            "augment": dict(GENTLE),
        },
        "model": {"name": "mlp", "features": (16,), "dropout_rate": 0.1},
        "optim": {"name": "adamw", "learning_rate": 0.01},
        "train": {"steps": 16, "eval_every": 8, "steps_per_dispatch": 4, "tensorboard": False},
        "mesh": {"data": 1},
    }


def build(config):
    parts = Experiment.build(config)
    resolved, dataset = parts.config, parts.data
    arrays = dataset.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:20]), "targets": jnp.asarray(arrays.targets[:20])}
    return parts, as_arrays(configs.hyperparameters(resolved)), batch


def preprocessed(parts):
    """Raw inputs → model inputs."""
    return partial(parts.components.preprocess, parts.learnt)


def without(config, *names):
    kept = {key: value for key, value in config["data"]["augment"].items() if key not in names}
    return {**config, "data": {**config["data"], "augment": kept}}


def test_strength_zero_is_no_augmentation_to_the_bit(augmented):
    every = {
        name: 0.0
        for name in augment.fitting(augment.Inputs((8, 8, 1), "uint8", "image"))
        if name not in ("mixup", "cutmix")  # they turn classes into distributions
    }
    config = {**augmented, "data": {**augmented["data"], "augment": every}}
    parts, hparams, batch = build(config)
    plain, plain_hparams, _ = build(without(config, *every))
    assert set(hparams["augment"]) == set(every)
    key = jax.random.key(0)
    changed = jax.jit(partial(parts.components.augment, preprocess=preprocessed(parts)))
    same = jax.jit(partial(plain.components.augment, preprocess=preprocessed(plain)))
    found = changed(key, batch, hparams["augment"])
    np.testing.assert_array_equal(
        found["inputs"], same(key, batch, plain_hparams["augment"])["inputs"]
    )


def test_mixing_nothing_leaves_one_hot_targets(augmented):
    augmented["data"]["augment"] = {"mixup": 0.0, "cutmix": 0.0}
    parts, hparams, batch = build(augmented)
    preprocess = preprocessed(parts)
    found = parts.components.augment(jax.random.key(0), batch, hparams["augment"], preprocess)
    np.testing.assert_array_equal(found["inputs"], preprocess(batch["inputs"]))
    np.testing.assert_array_equal(found["targets"], np.eye(3)[batch["targets"]])


def test_ten_strengths_compile_once(augmented):
    parts, hparams, batch = build(augmented)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def program(state, batch):
        return parts.train_step(state, batch)

    state = parts.init(0, hparams)
    losses = set()
    for scale in np.linspace(0.1, 1.0, 10):
        strengths = {name: leaf * np.float32(scale) for name, leaf in hparams["augment"].items()}
        varied = state.replace(hparams={**hparams, "augment": strengths})
        losses.add(float(program(varied, batch)[1]["loss"]))
    assert len(losses) == 10


@pytest.mark.slow
def test_a_population_with_strengths_of_its_own_equals_its_trials(augmented, tmp_path):
    made = structure.build(augmented)[0]
    strengths = [0.0, 5.0, 20.0]
    trials = [
        Trial(number=number, seed=number, fold=None, params={"data.augment.rotate": strength})
        for number, strength in enumerate(strengths)
    ]
    population = Population(made, trials, width=3, execution_mode="scan", cache=Cache())
    population.train_all()
    for trial, strength in zip(trials, strengths):
        changes = {"data.augment.rotate": strength, "seed": trial.seed}
        alone = fit(configs.override(augmented, changes), tmp_path / str(trial.number))
        written = (alone.workdir / "metrics.jsonl").read_text().splitlines()
        for row, line in zip(trial.rows, map(json.loads, written), strict=True):
            assert row.keys() == line.keys()
            for name in row:
                assert row[name] == pytest.approx(line[name], rel=1e-5, abs=1e-6), name


@pytest.mark.slow
def test_streamed_equals_in_memory(augmented, tmp_path):
    augmented["data"]["augment"]["alternating_flip"] = True
    augmented["data"]["sampling"] = "balanced"
    results = []
    for in_memory in (True, False):
        augmented["data"]["in_memory"] = in_memory
        results.append(fit(augmented, tmp_path / str(in_memory)).metrics)
    for name in ("train/loss", "validation/loss", "test/loss"):
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-5)


def test_what_does_not_fit_is_said_before_training(augmented, config):
    config["data"]["augment"] = {"rotate": 10.0}
    with pytest.raises(ConfigError, match=r"data\.augment\.rotate: does not fit: .*jitter"):
        Experiment.build(config)
    augmented["data"]["augment"] = {"jitter": 0.1}
    with pytest.raises(ConfigError, match=r"data\.augment\.jitter: does not fit"):
        Experiment.build(augmented)
    augmented["data"]["augment"] = {"rotat": 10.0, "flip": 1.5}
    with pytest.raises(ConfigError, match=r"(?s)rotat: is unknown.*'rotate'.*flip: must be in"):
        Experiment.build(augmented)


def test_colour_needs_bytes(augmented, tmp_path):
    floats = tmp_path / "floats.npz"
    rng = np.random.default_rng(0)
    np.savez(floats, x=rng.normal(size=(60, 8, 8, 1)).astype(np.float32), y=np.arange(60) % 2)
    augmented["data"] |= {"source": str(floats), "augment": {"brightness": 0.2}}
    with pytest.raises(ConfigError, match=r"brightness: needs pixels from 0 to 255 \(uint8\)"):
        Experiment.build(augmented)


@pytest.mark.slow
def test_binary_targets_and_regressions_mix(config, tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(120, 4)).astype(np.float32)
    for name, targets, loss in (
        ("classes", (points[:, 0] > 0).astype(int), "binary_cross_entropy"),
        ("numbers", points[:, 0], "mse"),
    ):
        path = tmp_path / f"{name}.npz"
        np.savez(path, x=points, y=targets)
        config["data"] = {"source": str(path), "batch_size": 20, "augment": {"mixup": 0.4}}
        config["loss"] = {"name": loss}
        assert fit(config, tmp_path / name).status == "done"


@pytest.mark.slow
def test_time_augmentation_is_the_mean_over_copies(augmented):
    config = without(augmented, "mixup")
    parts, hparams, batch = build(config)
    state = parts.init(0, hparams)
    outputs, mean, *_ = serve.with_tta(parts, 3).predict(state, batch["inputs"])
    each = [parts.predict(state, batch["inputs"]).probabilities]
    for draw in range(3):
        key = jax.random.fold_in(jax.random.key(0), draw)
        drawn = parts.components.augment(key, batch, hparams["augment"], preprocessed(parts))
        inputs = drawn["inputs"]
        logits, _ = parts.components.model.apply(
            state.params, state.model_state, inputs, hparams["model"], key=None, train=False
        )
        each.append(jax.nn.softmax(logits))
    np.testing.assert_allclose(mean, np.mean(each, axis=0), rtol=1e-5)
    np.testing.assert_allclose(jax.nn.softmax(outputs), mean, rtol=1e-5)


@pytest.mark.slow
def test_eval_and_predict_with_copies(augmented, config, pictures, tmp_path):
    fit(augmented, tmp_path / "run")
    plain = serve.evaluate_run(tmp_path / "run")
    copies = serve.evaluate_run(tmp_path / "run", tta=4)
    assert copies["tta"] == 4
    assert copies["metrics"]["validation/loss"] != plain["metrics"]["validation/loss"]
    file = tmp_path / "new.npz"
    np.savez(file, x=np.load(pictures)["x_test"])
    averaged = serve.predict_run(tmp_path / "run", file, tta=4)
    np.testing.assert_allclose(averaged.probabilities.sum(axis=1), 1.0, rtol=1e-5)
    assert (averaged.probabilities != serve.predict_run(tmp_path / "run", file).probabilities).any()
    fit(config, tmp_path / "bare")
    with pytest.raises(UserError, match="--tta"):
        serve.evaluate_run(tmp_path / "bare", tta=2)


def test_epochs_of_a_long_run_do_not_overflow():
    found = epochs_at(jnp.int32(2**30), 1000, 60_000, 3)
    assert found.tolist() == [(2**30 * 1000 + row) // 60_000 for row in range(3)]


# --- tables ---------------------------------------------------------------------------------------


def write_table(path, rows=240, colours=("red", "green", "blue")):
    rng = np.random.default_rng(1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "weight", "colour", "kind"])
        for row in range(rows):
            colour = colours[row % len(colours)]
            size = rng.normal() + 2 * (colour == "red")
            weight = "" if row % 7 == 0 else f"{rng.normal():.4f}"
            writer.writerow([f"{size:.4f}", weight, colour, "big" if size > 1 else "small"])
    return path


@pytest.mark.parametrize(
    "encode",
    [
        "one_hot",
        "embedding",
        pytest.param("ordinal", marks=pytest.mark.slow),
        pytest.param("hashed", marks=pytest.mark.slow),
    ],
)
def test_a_table_with_gaps_and_categories_trains_and_predicts(config, tmp_path, encode):
    table = write_table(tmp_path / "things.csv")
    config["data"] = {
        "source": str(table),
        "target": "kind",
        "batch_size": 32,
        "preprocess": {
            "missing": "median",
            "missing_indicator": True,
            "outliers": "iqr",
            "scale": "standard",
            "encode": encode,
            "hash_buckets": 5,
        },
    }
    result = fit(config, tmp_path / "run")
    assert result.status == "done"
    new = write_table(tmp_path / "new.csv", rows=30, colours=("purple", "red", "blue"))
    predictions = serve.predict_run(tmp_path / "run", new)
    assert len(predictions.rows) == 30 and set(predictions.labels) <= {"big", "small"}
    assert np.isfinite(predictions.probabilities).all()


@pytest.mark.slow
def test_cleaning_is_counted_and_leaves_other_splits_alone(config, tmp_path):
    table = write_table(tmp_path / "things.csv")
    lines = table.read_text().splitlines()
    head, rows = lines[0], lines[1:]
    doubled = [f"{row},same" for row in (*rows, *rows[:40])]
    table.write_text("\n".join([f"{head},constant", *doubled]) + "\n")
    section = {"source": str(table), "target": "kind", "batch_size": 32}
    filled = {**config, "data": {**section, "preprocess": {"missing": "mean"}}}
    whole = Experiment.build(filled).data
    cleaning = {"missing": "drop", "duplicates": "drop", "constant_columns": "drop"}
    config["data"] = {**section, "preprocess": cleaning}
    cleaned = Experiment.build(config).data
    assert cleaned.sizes["train"] < whole.sizes["train"]
    assert cleaned.sizes["test"] == whole.sizes["test"]
    assert cleaned.spec.input.feature_names == ("size", "weight", "colour")
    assert not np.isnan(cleaned.read("train").inputs).any()
    assert len(np.unique(cleaned.read("train").inputs, axis=0)) == cleaned.sizes["train"]
    record = fit(config, tmp_path / "run").record
    assert record["data_notes"] == [note.to_dict() for note in cleaned.notes]
    left_out = {note.what: note.count for note in cleaned.notes}
    assert list(left_out) == ["rows with missing values", "duplicate rows", "constant columns"]
    assert left_out["constant columns"] == 1
    assert sum(left_out.values()) - 1 == whole.sizes["train"] - cleaned.sizes["train"]


@pytest.mark.slow
def test_principal_components_of_a_table(config, tmp_path):
    config["data"]["preprocess"] = {"scale": "standard", "pca": 2, "whiten": True}
    parts = Experiment.build(config)
    assert parts.model_inputs == ((2,), "float32")
    inputs = np.asarray(preprocessed(parts)(parts.data.read("train").inputs))
    np.testing.assert_allclose(np.cov(inputs.T), np.eye(2), atol=1e-2)
    assert fit(config, tmp_path / "run").status == "done"


def test_wrong_preprocessing_is_said_all_at_once(augmented):
    augmented["data"]["preprocess"] = {"missing": "mean", "color": "hsv", "stretch": (98.0, 2.0)}
    with pytest.raises(ConfigError) as told:
        Experiment.build(augmented)
    for words in ("missing: is for tables", "'hsv' needs 3 channels", "stretch: expected two"):
        assert words in str(told.value)


# --- texts ----------------------------------------------------------------------------------------


def test_texts_are_embedded_and_predicted(config, tmp_path):
    rng = np.random.default_rng(0)
    good, bad = ["lovely", "great", "fine"], ["awful", "poor", "dull"]
    table = tmp_path / "reviews.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "mood"])
        for row in range(200):
            words = rng.choice(good if row % 2 else bad, 3)
            writer.writerow([f"a {' '.join(words)} film", "good" if row % 2 else "bad"])
    config["data"] = {
        "source": str(table),
        "target": "mood",
        "text_column": "review",
        "batch_size": 20,
        "text": {"max_tokens": 8, "vocab_size": 60},
        "augment": {"token_dropout": 0.1, "token_swap": 0.1},
    }
    config["model"] = {"name": "gru", "features": 8, "embedding_features": 6}
    config["train"]["steps"] = 60
    config["optim"]["learning_rate"] = 0.03
    result = fit(config, tmp_path / "run")
    assert result.metrics["test/accuracy"] > 0.9
    new = tmp_path / "new.csv"
    new.write_text("review\na lovely great fine film\na dull awful poor film\n")
    assert serve.predict_run(tmp_path / "run", new).labels == ["good", "bad"]
