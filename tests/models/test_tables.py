"""RealMLP and TabM against NumPy, an MLP, and their submodels; embeddings of numbers."""

from __future__ import annotations

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdlopt
from jdlopt.errors import ConfigError
from jdlopt.losses import make_loss, mean_outputs
from jdlopt.models import make_model
from jdlopt.models.table_features import NumericEmbedding
from jdlopt.train.experiment import Experiment

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (9, 5))
SIZES = (0, 2, 0, 3, 12)


def rows(seed=0):
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, size + 1, 9) for size in SIZES if size]
    return jnp.asarray(np.column_stack([rng.normal(size=(9, 2)), *codes]), jnp.float32)


def of(name, outputs=3, columns=(), x=X, hparams=None, **keys):
    """A model's section made, and its parameters, none of them constant."""
    model = make_model({"name": name, "dropout_rate": None, **keys}, outputs, columns=columns)
    params, _ = jax.jit(lambda key: model.init(key, x, hparams or {}))(KEY)
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda p: np.float32(p + rng.normal(0, 0.3, p.shape)), params)


def outputs(model, params, x, train=False):
    return model.apply(params, {}, x, {}, key=KEY, train=train)[0]


# --- embeddings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plr", "pbld"])
def test_embeddings_of_numbers_equal_numpy(kind):
    module = NumericEmbedding(kind, 4, 3, 0.5)
    params = module.init(KEY, X)["params"]
    p, x = jax.tree.map(np.asarray, params), np.asarray(X)
    found = module.apply({"params": params}, X)
    for column in range(5):
        turns = 2 * np.pi * x[:, column, None] * p["frequencies"][column]
        kernel, bias = p["kernel"][column], p["bias"][column]
        if kind == "plr":
            waves = np.concatenate([np.cos(turns), np.sin(turns)], axis=1)
            wanted = np.maximum(waves @ kernel + bias, 0)
        else:
            waves = np.cos(turns + 2 * np.pi * p["phases"][column])
            wanted = np.column_stack([x[:, column], waves @ kernel + bias])
        np.testing.assert_allclose(found[:, column], wanted, rtol=1e-4, atol=1e-5)


def test_a_new_sigma_is_no_new_program():
    traces = []

    @jax.jit
    def frequencies(sigma):
        traces.append(sigma)
        model = make_model({"name": "realmlp", "numeric_sigma": 0.1, "features": (4,)}, 3)
        return model.init(KEY, X, {"numeric_sigma": sigma})[0]["numbers"]["frequencies"]

    one, two = frequencies(jnp.float32(0.1)), frequencies(jnp.float32(0.2))
    np.testing.assert_allclose(2 * one, two, rtol=1e-6)
    assert len(traces) == 1


# --- RealMLP --------------------------------------------------------------------------------------


def test_realmlp_equals_numpy():
    x = rows()
    keys = {"features": (6, 4), "numeric_features": 2, "activation": "mish", "one_hot_up_to": 3}
    model, p = of("realmlp", columns=SIZES, x=x, **keys)
    numbers = NumericEmbedding("pbld", 16, 2, 0.1).apply({"params": p["numbers"]}, x[:, :2])
    two, three, twelve = np.asarray(x[:, 2:]).astype(int).T
    one_hot = np.eye(4)[three][:, 1:]
    parts = [numbers[:, 0], numbers[:, 1], np.array([0, -1, 1])[two][:, None], one_hot]
    found = np.concatenate([*parts, p["categories"]["column_2"][twelve]], axis=1)
    found = found * p["scaling"]["scale"]
    for name in ("dense_0", "dense_1", "head"):
        found = found @ p[name]["kernel"] / np.sqrt(found.shape[1]) + p[name]["bias"]
        if name != "head":
            found = found * np.tanh(np.log1p(np.exp(found)))
    np.testing.assert_allclose(outputs(model, p, x), found, rtol=1e-4, atol=1e-4)


def test_realmlp_starts_from_zero():
    model = make_model({"name": "realmlp", "features": (4,)}, 3)
    params, _ = jax.jit(model.init)(KEY, X, {})
    assert float(jnp.abs(outputs(model, params, X)).max()) == 0.0


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("name", ["realmlp", "tabm"])
def test_what_is_no_row_of_a_table_is_told(name):
    with pytest.raises(ConfigError, match="takes the rows of a table"):
        of(name, x=jnp.ones((2, 4, 4, 1)))


# --- TabM -----------------------------------------------------------------------------------------


def test_one_submodel_is_an_mlp():
    tabm, p = of("tabm", submodels=1, features=(6, 4), activation="tanh")
    mlp, _ = of("mlp", features=(6, 4), activation="tanh")
    assert sorted(p) == ["dense_0", "dense_1", "outputs"]
    same = {name: {"kernel": p[name]["kernel"], "bias": p[name]["bias"][0]} for name in p}
    same["outputs"]["kernel"] = p["outputs"]["kernel"][0]
    wanted = outputs(mlp, {"head": same}, X)
    np.testing.assert_allclose(outputs(tabm, p, X), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("adapters", ["all", "first"])
def test_each_submodel_is_an_mlp_with_its_scales_in_the_kernels(adapters):
    tabm, p = of("tabm", submodels=3, features=(6, 4), adapters=adapters)
    mlp, _ = of("mlp", features=(6, 4))
    every = outputs(tabm, p, X, train=True)
    assert every.shape == (3, 9, 3)
    for k in range(3):
        same = {}
        for index in (0, 1):
            kernel = p[f"dense_{index}"]["kernel"]
            bias = p[f"dense_{index}"]["bias"][k]
            if f"adapter_in_{index}" in p:
                kernel = p[f"adapter_in_{index}"]["scale"][k][:, None] * kernel
            if f"adapter_out_{index}" in p:
                scale = p[f"adapter_out_{index}"]["scale"][k]
                kernel, bias = kernel * scale, bias * scale
            same[f"dense_{index}"] = {"kernel": kernel, "bias": bias}
        head = {"kernel": p["outputs"]["kernel"][k], "bias": p["outputs"]["bias"][k]}
        wanted = outputs(mlp, {"head": {**same, "outputs": head}}, X)
        np.testing.assert_allclose(every[k], wanted, rtol=1e-4, atol=1e-4)


def test_first_scales_are_signs_or_one_number_an_embedding():
    plain = make_model({"name": "tabm", "submodels": 2, "features": (4,)}, 3)
    signs = plain.init(KEY, X, {})[0]["adapter_in_0"]["scale"]
    assert set(np.unique(signs)) == {-1.0, 1.0}
    section = {"name": "tabm", "submodels": 2, "features": (4,), "numeric_embedding": "plr"}
    drawn = make_model(section, 3).init(KEY, X, {})[0]["adapter_in_0"]["scale"]
    each = np.asarray(drawn).reshape(2, 5, 16)
    assert (each == each[:, :, :1]).all() and len(np.unique(each)) == 10


CONFIG = {
    "data": {"batch_size": 16, "preprocess": {"scale": "robust_clipped", "bins": 3}},
    "model": {"name": "tabm", "submodels": 4, "features": (8,), "dropout_rate": None},
    "optim": {"name": "adam", "learning_rate": 0.01},
    "train": {"epochs": 1, "tensorboard": False},
    "mesh": {"data": 1},
}


def experiment(tmp_path, task):
    rng = np.random.default_rng(2)
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["a", "b", "town", "target"])
        for _ in range(120):
            a, b, town = rng.normal(), rng.normal(), rng.integers(3)
            found = a * b + town
            table.writerow(
                [
                    a,
                    b,
                    "xyz"[town],
                    f"{'no' if found < 1 else 'yes'}" if task == "classification" else found,
                ]
            )
    data = {**CONFIG["data"], "source": str(path), "target": "target"}
    data["preprocess"] = {**data["preprocess"], "encode": "embedding"}
    return {**CONFIG, "data": data}


@pytest.mark.parametrize(
    "task", ["regression", pytest.param("classification", marks=pytest.mark.slow)]
)
def test_the_loss_and_the_prediction_are_means_over_submodels(tmp_path, task):
    config = experiment(tmp_path, task)
    config["loss"] = {"l2": 0.01}
    built = Experiment.build(config)
    state = built.init(0)
    arrays = built.data.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:16]), "targets": jnp.asarray(arrays.targets[:16])}
    parts, hparams = built.components, state.hparams
    x = parts.preprocess(state.preprocess, batch["inputs"])
    every, _ = parts.model.apply(state.params, {}, x, hparams["model"], key=KEY, train=True)
    assert every.shape[:2] == (4, 16)
    _, measured = jax.jit(built.train_step)(state, batch)
    loss = make_loss({"name": built.config.loss.name, "l2": 0.01})
    from jdlopt.data.preprocess import target

    targets = target.scaled(state.preprocess, batch["targets"])
    each = [loss.objective(one, targets, state.params, hparams["loss"]) for one in every]
    np.testing.assert_allclose(measured["loss"], np.mean(each), rtol=1e-5)
    found = built.predict(state, batch["inputs"])
    if task == "classification":
        wanted = jax.nn.softmax(every).mean(axis=0)
        np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-5, atol=1e-6)
        assert mean_outputs(loss, every).shape == (16, 2)
    else:
        np.testing.assert_allclose(found.scaled, every.mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_run_of_an_ensemble_of_ensembles_predicts_as_it_was_measured(tmp_path):
    config = experiment(tmp_path, "classification")
    config["model"] = {**config["model"], "ensemble": 2}
    run = jdlopt.fit(config, tmp_path / "run")
    again = jdlopt.open_run(tmp_path / "run").evaluate("test")
    assert again["accuracy"] == pytest.approx(run.metrics["test/accuracy"])
