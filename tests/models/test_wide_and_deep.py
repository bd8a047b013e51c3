"""Wide and deep: each part alone, what a cross adds, and an optimizer for each part."""

from __future__ import annotations

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jdlopt import config as configs
from jdlopt.errors import ConfigError
from jdlopt.models import make_model
from jdlopt.models.wide_and_deep import crossed
from jdlopt.optim import make_optimizer
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit

CONFIG = Path(__file__).parents[2] / "configs" / "tabular" / "own_wide_and_deep.py"
SIZES, NAMES = (3, 0, 2, 0), ("town", "age", "job", "size")
KEY = jax.random.key(0)


def rows(count, seed=0):
    """Rows as preprocessing hands them on: age, size, then the codes of town and job."""
    rng = np.random.default_rng(seed)
    codes = [rng.integers(1, size + 1, count) for size in (3, 2)]
    return np.column_stack([rng.normal(size=(count, 2)), *codes]).astype(np.float32)


def made(outputs=3, **keys):
    section = {"name": "wide_and_deep", "features": (5,), "embedding_features": 4, **keys}
    return make_model(section, outputs, columns=SIZES, names=NAMES)


def initial(model, x):
    return jax.jit(lambda key: model.init(key, jnp.asarray(x), {}))(KEY)[0]


def outputs_of(model, params, x):
    call = jax.jit(lambda params, x: model.apply(params, {}, x, {}, key=None, train=False)[0])
    return call(params, jnp.asarray(x))


def only(part, params):
    """The parameters with the other part's outputs at 0."""
    other = "deep" if part == "wide" else "wide"
    return {**params, other: jax.tree.map(jnp.zeros_like, params[other])}


def test_the_wide_part_is_logistic_regression_on_one_hot_inputs():
    x = rows(300)
    town, job = x[:, 2].astype(int), x[:, 3].astype(int)
    pairs = [(t, j) for t in range(4) for j in range(3)]
    one_hot = np.column_stack(
        [x[:, :2]]
        + [town == code for code in range(4)]
        + [job == code for code in range(3)]
        + [(town == t) & (job == j) for t, j in pairs]
    )
    labels = (town + 2 * job + (x[:, 0] > 0)) % 3
    peer = LogisticRegression(max_iter=1000).fit(one_hot, labels)
    model = made(crosses=("town*job",))
    params = initial(model, x)
    coefficients = np.split(peer.coef_.T.astype(np.float32), (2, 6, 9))
    wide = dict(
        zip(("kernel", "column_0", "column_1", "cross_0"), coefficients, strict=True),
        bias=peer.intercept_.astype(np.float32),
    )
    assert jax.tree.map(np.shape, wide) == jax.tree.map(np.shape, dict(params["wide"]))
    found = outputs_of(model, only("wide", {**params, "wide": wide}), x)
    np.testing.assert_allclose(found, peer.decision_function(one_hot), atol=1e-5)


def test_the_deep_part_is_the_mlp_on_embedded_categories():
    x = rows(7)
    x[0, 2], x[1, 3] = np.nan, 0  # missing, and in no training row
    model = made(activation="tanh")
    params = initial(model, x)
    embedded = make_model(
        {"name": "mlp", "features": (5,), "activation": "tanh", "embedding_features": 4},
        3,
        columns=SIZES,
    )
    deep = dict(params["deep"])
    mlp = {"embedding": deep, "model": {"head": deep["head"]}}
    expected = embedded.apply(mlp, {}, jnp.asarray(x), {}, key=None, train=False)[0]
    np.testing.assert_allclose(outputs_of(model, only("deep", params), x), expected, atol=1e-6)
    whole = {**params, "wide": {**params["wide"], "bias": jnp.array([1.0, 2.0, 3.0])}}
    np.testing.assert_allclose(
        outputs_of(model, whole, x), expected + jnp.array([1.0, 2.0, 3.0]), atol=1e-6
    )


def test_a_table_of_numbers_needs_no_codes():
    model = make_model(
        {"name": "wide_and_deep", "features": ()}, 2, columns=(0, 0), names=("a", "b")
    )
    x = jnp.asarray(rows(4)[:, :2])
    params = initial(model, x)
    deep = params["deep"]["head"]["outputs"]
    params = {**params, "wide": {**params["wide"], "kernel": 1 - deep["kernel"]}}
    np.testing.assert_allclose(
        outputs_of(model, params, x), np.tile(x.sum(1, keepdims=True), 2), atol=1e-6
    )


def test_half_the_bits_keep_the_codes():
    x = jnp.float32([[0.5, 997], [0.5, 998]])
    section = {"name": "wide_and_deep", "features": (4,), "dtype": "bfloat16"}
    model = make_model(section, 2, columns=(0, 1000), names=("a", "b"))
    params = initial(model, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    table = params["wide"]["column_0"].at[998].set(1.0)
    wide = {**params["wide"], "column_0": table}
    found = outputs_of(model, only("wide", {**params, "wide": wide}), x)
    np.testing.assert_array_equal(found, [[0, 0], [1, 1]])


def test_combinations_have_indices_of_their_own_where_there_is_room():
    sizes = (4, 3, 5)
    codes = [jnp.asarray(axis.ravel()) for axis in np.indices(sizes)]
    assert sorted(crossed(codes, sizes, 60).tolist()) == list(range(60))


def test_hashed_combinations_spread_evenly():
    sizes, buckets = (200, 300), 1000
    codes = [jnp.asarray(axis.ravel()) for axis in np.indices(sizes)]
    found = np.asarray(jax.jit(crossed, static_argnums=(1, 2))(codes, sizes, buckets))
    assert found.min() >= 0 and found.max() < buckets
    expected = found.size / buckets
    chi_squared = ((np.bincount(found, minlength=buckets) - expected) ** 2 / expected).sum()
    # mean 999, standard deviation 45
    assert 800 < chi_squared < 1200
    in_other_order = crossed(codes[::-1], sizes[::-1], buckets)
    assert (np.asarray(in_other_order) == found).mean() < 0.01


def xor_table(path):
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["town", "noise", "job", "target"])
        for _ in range(240):
            town, job = rng.integers(0, 2, 2)
            writer.writerow(
                ["AB"[town], f"{rng.normal():.3f}", "xy"[job], ["no", "yes"][town ^ job]]
            )
    return path


@pytest.mark.slow
def test_the_cross_learns_what_no_sum_can(tmp_path):
    table = xor_table(tmp_path / "table.csv")
    config = configs.override(
        configs.load(f"{CONFIG}:{table}"),
        {
            "model.crosses": ("town*job",),
            "model.features": (),  # a sum over embeddings
            "train.epochs": 8,
            "optim.groups.wide.learning_rate": 0.5,
        },
    )
    assert fit(config, tmp_path / "run").metrics["validation/accuracy"] == 1.0


@pytest.mark.parametrize("crosses", [(), ("town*job",)])
def test_without_a_cross_no_weights_make_categories_interact(crosses):
    x = jnp.float32([[0.5, -1, town, job] for town in (1, 2) for job in (1, 2)])
    model = made(crosses=crosses, features=())  # both parts are sums over the columns
    params = initial(model, x)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(KEY, len(leaves))
    params = tree.unflatten(
        [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )
    logits = outputs_of(model, params, x)
    interaction = jnp.abs(logits[0] - logits[1] - logits[2] + logits[3]).max()
    assert interaction > 0.1 if crosses else interaction < 1e-5


def test_each_part_has_its_own_optimizer():
    section = configs.to_dict(configs.load(CONFIG))["optim"]
    x = rows(16)
    model = made(crosses=("job*town",))
    params = initial(model, x)
    gradients = jax.jit(jax.grad(lambda p: jnp.sum((outputs_of(model, p, x) - 1) ** 2)))(params)

    def updates(section, part=None):
        optimizer = make_optimizer(section, 100)
        tree, slopes = (params, gradients) if part is None else (params[part], gradients[part])

        @jax.jit
        def step(slopes, tree):
            return optimizer.update(slopes, optimizer.init(tree), tree, hparams={})[0]

        return step(slopes, tree)

    found = updates(section)
    group = section["groups"]["wide"]
    shared = {"schedule": section["schedule"]}
    wide = {key: group[key] for key in ("name", "learning_rate", "weight_decay")} | shared
    deep = {key: section[key] for key in wide}
    for part, own in (("wide", wide), ("deep", deep)):
        expected = updates(own, part)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found[part], expected
        )
    assert (wide["name"], deep["name"]) == ("adagrad", "adamw")


@pytest.mark.parametrize(
    ("crosses", "message"),
    [
        (
            ("town*jub",),
            r"'town\*jub': there is no column 'jub'\. Did you mean 'job'\? .*job, town",
        ),
        (("town*age",), r"'age' holds numbers.*data\.categorical=\('age',\)"),
        (("town",), r"'town' is no cross; expected two or more different columns"),
        (("town*town",), r"no cross"),
        (("town*",), r"no cross"),
        (("town*job", "job*town"), r"the same columns twice"),
    ],
)
def test_says_what_is_wrong_with_a_cross(crosses, message):
    with pytest.raises(ConfigError, match=message):
        made(crosses=crosses).init(KEY, jnp.asarray(rows(2)), {})


def test_says_that_codes_are_needed(tmp_path):
    config = configs.override(
        configs.load(f"{CONFIG}:{xor_table(tmp_path / 'table.csv')}"),
        {"model.crosses": ("town*job",), "data.preprocess.encode": "one_hot"},
    )
    with pytest.raises(ConfigError, match=r"model.crosses: .*data.preprocess.encode='embedding'"):
        Experiment.build(config)
    config["data"]["preprocess"]["encode"] = "embedding"
    Experiment.build(config)
    config["data"]["preprocess"]["pca"] = 2
    with pytest.raises(ConfigError, match=r"Leave data.preprocess.pca out"):
        Experiment.build(config)


@pytest.mark.usefixtures("unchecked_types")
def test_takes_rows_alone():
    with pytest.raises(ConfigError, match=r"takes the rows of a table.*Use 'mlp'"):
        make_model({"name": "wide_and_deep"}, 2).init(KEY, jnp.ones((1, 8, 8, 3)), {})
