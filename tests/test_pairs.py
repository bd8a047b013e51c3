"""Pairs of inputs: their losses and metrics against plain NumPy, and every use of a trained run."""

from __future__ import annotations

import json
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from mixed_tables import WORDS
from PIL import Image

import jdlopt
from jdlopt.cli import main
from jdlopt.data.given import open_given
from jdlopt.errors import ConfigError, DataError
from jdlopt.losses import LOSSES
from jdlopt.metrics import make_collector
from jdlopt.metrics.pairs import zero_shot_accuracy
from jdlopt.metrics.scores import Split
from jdlopt.optim.groups import decay_mask
from jdlopt.tasks.pair_outputs import parted, unit
from jdlopt.tasks.pairs import PAIRS
from jdlopt.train.embeddings import Embeddings, write_embeddings
from jdlopt.train.experiment import Experiment

RNG = np.random.default_rng(3)
N, D = 12, 4
TARGETS = np.array([0, 1, 2, 3, 4, 5, 5, 7, 8, 2, 10, -1], np.int32)
"""Two pairs of examples belong together, and the last is padding."""


def outputs(count=N, seed=0):
    rng = np.random.default_rng(seed)
    both = rng.normal(size=(2, count, D))
    both /= np.linalg.norm(both, axis=2, keepdims=True)
    beside = np.broadcast_to([np.log(5.0), -1.5], (count, 2))
    return np.concatenate([*both, beside], axis=1).astype(np.float32)


def reference(name, made, targets):
    """The losses one by one, in float64."""
    first, second = made[:, :D].astype(float), made[:, D : 2 * D].astype(float)
    logits = 5.0 * first @ second.T - 1.5
    losses = np.zeros(len(made))
    for i in np.flatnonzero(targets >= 0):
        others = [j for j in range(len(made)) if targets[j] >= 0 and targets[j] != targets[i]]
        if name == "clip":
            for row in (logits, logits.T):
                losses[i] -= 0.5 * (row[i, i] - np.log(np.exp(row[i, [i, *others]]).sum()))
        else:
            losses[i] = np.log1p(np.exp(-logits[i, i]))
            each = np.log1p(np.exp(logits[i, others])) + np.log1p(np.exp(logits.T[i, others]))
            losses[i] += each.sum() / 2
    return losses


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_losses_are_those_of_the_papers_without_what_belongs_together(name):
    made = outputs()
    found = jax.jit(LOSSES[name])(jnp.asarray(made), jnp.asarray(TARGETS))
    np.testing.assert_allclose(found, reference(name, made, TARGETS), rtol=1e-5, atol=1e-6)
    # padding is nothing to be compared with
    kept = jax.jit(LOSSES[name])(jnp.asarray(made[:-1]), jnp.asarray(TARGETS[:-1]))
    np.testing.assert_allclose(found[:-1], kept, rtol=1e-5, atol=1e-6)


def test_recall_is_exact_over_a_split_whatever_its_batches():
    names = ("mean_recall", "recall_at_1", "recall_at_5", "reverse_recall_at_5",
             "zero_shot_accuracy")  # fmt: skip
    count = 40
    made, targets = outputs(count), (np.arange(count) % 30).astype(np.int32)
    made[:, D : 2 * D] += 0.7 * made[:, :D]
    collector = make_collector(names, "pairs", 0)

    def finished(size):
        parts = []
        for first in range(0, count, size):
            rows = np.minimum(np.arange(first, first + size), count - 1)
            weights = (np.arange(first, first + size) < count).astype(np.float32)
            given = (made[rows], None, targets[rows], weights, np.zeros(size, np.float32))
            parts.append(collector.collect(*(x if x is None else jnp.asarray(x) for x in given)))
        return collector.finish(parts)

    whole, split = finished(40), finished(16)
    assert whole == split
    first, second = made[:, :D].astype(float), made[:, D : 2 * D].astype(float)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    similar = first @ second.T
    right = targets[:, None] == targets[None, :]
    for name, matrix in (("recall_at_5", similar), ("reverse_recall_at_5", similar.T)):
        order = np.argsort(-matrix, axis=1)[:, :5]
        hits = np.take_along_axis(right, order, axis=1).any(axis=1)
        assert whole[name] == pytest.approx(hits.mean()), name
    same = outputs(count)
    same[:, : 2 * D] = 0.5  # all alike: nothing is found
    given = (same, None, targets, np.ones(count, np.float32), np.zeros(count, np.float32))
    leaves = collector.collect(*(x if x is None else jnp.asarray(x) for x in given))
    assert collector.finish([leaves])["recall_at_5"] == 0


def test_the_nearest_is_looked_for_by_direction_in_some_rows_at_a_time():
    count = 2000
    made = outputs(count)
    made[:, : 2 * D] *= np.random.default_rng(1).uniform(0.2, 5.0, (count, 1))
    first, second = unit(made[:, :D]), unit(made[:, D : 2 * D])
    leaves = {"embeddings": made, "together": np.arange(count)}
    given = ({"a": np.ones((8, 2)), "b": np.ones((8, 3))}, np.arange(8))
    spec = open_given({"source": "made", "task": "pairs"}, given).spec
    tracemalloc.start()
    share = zero_shot_accuracy(Split(count, 0, leaves))
    found = PAIRS.decode(made, None, spec).values
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found[:500], (first[:500] @ second.T).argmax(axis=1))
    assert share == np.mean(found == np.arange(count)) and most < 8 * count**2 / 4


def test_embeddings_are_all_that_their_file_holds(tmp_path, monkeypatch):
    held = {}
    monkeypatch.setattr(np, "savez", lambda file, **arrays: held.update(arrays))
    write_embeddings(Embeddings(["0"], {"features": np.ones((1, 2))}), tmp_path / "made.npz")
    assert set(held) == {"row", "features"}


def make_cards(folder, count=60):
    """Writes pictures of one bright column each, and captions that say which."""
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    rows = []
    for number in range(count):
        place = number % 6
        pixels = rng.integers(0, 60, (6, 6)).astype(np.uint8)
        pixels[:, place] += 180
        Image.fromarray(pixels).save(folder / f"pictures/{number}.png")
        caption = f"the {WORDS[place]} one is bright of all"
        rows.append({"picture": f"pictures/{number}.png", "caption": caption, "place": place})
    pd.DataFrame(rows).to_csv(folder / "cards.csv", index=False)
    return folder / "cards.csv"


def config_of(path, **changes):
    return {
        "data": {
            "source": str(path),
            "task": "pairs",
            "columns": {"picture": "image", "caption": "text"},
            "ignore": ("place",),
            "batch_size": 12,
            "validation_fraction": 0.3,
            "text": {"max_tokens": 8},
            **changes.pop("data", {}),
        },
        "model": {"name": "two_towers", "features": 8, "width": 16, "image_features": (4,),
                  **changes.pop("model", {})},
        "optim": {"name": "adam", "learning_rate": 0.01, **changes.pop("optim", {})},
        "train": {"epochs": 25, "tensorboard": False},
        "mesh": {"data": 1},
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_cards(tmp_path_factory.mktemp("cards"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim": {"accumulate": 2}}, "accumulate: 'clip' compares all examples of a batch"),
        ({"model": {"ensemble": 2}}, "ensemble: embeddings of several models can't be averaged"),
        ({"data": {"ignore": ()}}, "'pairs' are of two inputs; 'cards' has 3"),
        ({"data": {"ignore": (), "missing_inputs": "mask"}}, "a pair needs both of its inputs"),
        ({"data": {"augment": {"mixup": 0.2}}}, "mixup: can't mix all 2 inputs alike"),
        ({"data": {"task": "auto", "target": "place", "ignore": ()}}, "for data.task='pairs'"),
        ({"loss": {"name": "cross_entropy"}}, "'cross_entropy' is not for pairs"),
        ({"train": {"monitor": "validation/accuracy"}}, "metric 'accuracy' is for classification"),
    ],
)
def test_what_pairs_can_not_have_is_said_in_one_line(path, changes, message):
    with pytest.raises(ConfigError, match=message):
        Experiment.build(config_of(path, **changes))
    if "ensemble" in message:
        raw = config_of(path)
        with pytest.raises(ConfigError, match="'fusion' makes no embeddings"):
            Experiment.build({**raw, "model": {"name": "fusion"}})


def test_the_learnt_scale_does_not_decay_and_comes_back_from_beyond_its_bound(path):
    experiment = Experiment.build(config_of(path))
    state = experiment.init(0)
    assert decay_mask(state.params)["scale"] is False
    arrays = experiment.data.read("train")
    inputs = experiment.components.preprocess(
        experiment.learnt, jax.tree.map(lambda leaf: jnp.asarray(leaf[:4]), arrays.inputs)
    )

    def scale(at):
        params = {**state.params, "scale": jnp.float32(at)}
        given = (params, state.model_state, inputs, state.hparams["model"])
        return parted(experiment.components.model.apply(*given, key=None, train=False)[0]).log_scale

    assert float(scale(9.0)[0]) == pytest.approx(np.log(100.0))
    assert float(jax.grad(lambda at: scale(at)[0])(9.0)) == 1.0


def test_which_examples_belong_together_must_be_known(path):
    with pytest.raises(DataError, match=r"the only text .* which has 0"):
        Experiment.build(config_of(path, data={"columns": {"picture": "image"}}))
    pd.read_csv(path).assign(place=1).to_csv(path.parent / "one.csv", index=False)
    raw = config_of(path.parent / "one.csv", data={"target": "place", "ignore": ()})
    with pytest.raises(DataError, match="all 60 examples belong together"):
        Experiment.build(raw)
    given = ({"a": np.ones((8, 2)), "b": np.ones((8, 3))}, np.ones((8, 2)))
    with pytest.raises(DataError, match="the target is one value an example"):
        open_given({"source": "made", "task": "pairs"}, given)


@pytest.fixture(scope="module")
def trained(path):
    run = jdlopt.fit(config_of(path), path.parent / "run")
    return path, run


@pytest.mark.slow
def test_a_trained_run_finds_what_belongs_together(trained, capsys, monkeypatch):
    path, run = trained
    assert run.metrics["validation/recall_at_1"] > 0.8
    assert run.metrics["validation/zero_shot_accuracy"] > 0.8
    folder, table = path.parent, pd.read_csv(path)
    monkeypatch.chdir(folder)
    table.head(20).to_csv(folder / "new.csv", index=False)
    words = [f"--workdir={folder / 'run'}", f"--input={folder / 'new.csv'}"]
    output = f"--output={folder / 'embedded.npz'}"
    assert main(["predict", *words, "--embeddings", output, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 20
    with np.load(folder / "embedded.npz") as saved:
        first, second = saved["embedding_picture"], saved["embedding_caption"]
        assert saved["row"].tolist() == list(map(str, range(20)))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    nearest = (first @ second.T).argmax(axis=1)
    assert np.mean(table.place.to_numpy()[nearest] == table.place.head(20)) > 0.8
    assert main(["predict", *words, f"--output={folder / 'out.csv'}"]) == 0
    said = pd.read_csv(folder / "out.csv").prediction
    places = table.place.head(20).to_numpy()
    np.testing.assert_array_equal(places[said], places[nearest])
    some = table.head(20)
    found = jdlopt.open_run(folder / "run").evaluate("test", (some, some.caption))
    assert found["recall_at_1"] > 0.8
    assert main(["report", str(folder / "run")]) == 0
    page = (folder / "run" / "report.html").read_text()
    assert "Nearest neighbours" in page and "is bright of all (" in page
    for flags, message in (
        (["--embeddings"], "name a file for them"),
        (["--embeddings", "--tta=2", output], "leave --tta out"),
        ([f"--ensemble={folder / 'run'}"], "can't be averaged"),
    ):
        where = words[1:] if "ensemble" in flags[0] else words
        assert main(["predict", *where, *flags]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_other_models_embed_by_what_their_head_is_given(tmp_path):
    x, y = RNG.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2
    config = {
        "data": {"source": "made", "batch_size": 10},
        "model": {"name": "cnn", "features": (4,), "hidden": (5,)},
        "optim": {"name": "sgd"},
        "mesh": {"data": 1},
        "train": {"epochs": 1, "tensorboard": False},
    }
    run = jdlopt.fit(config, data=(x[:, :, None], y))
    found = run.embed(x[:7, :, None])
    assert list(found.arrays) == ["features"] and found.arrays["features"].shape[0] == 7
    linear = jdlopt.fit({**config, "model": {"name": "linear"}}, data=(x, y))
    with pytest.raises(ConfigError, match="--embeddings: needs a Linen model"):
        linear.embed(x[:7])


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_step_on_eight_devices_sees_the_whole_batch(path, loss):
    from jdlopt import mesh as meshes

    found = {}
    for devices in (1, 8):
        raw = config_of(path, data={"batch_size": 16}, loss={"name": loss})
        raw["optim"] = {"name": "sgd", "learning_rate": 0.1}
        experiment = Experiment.build({**raw, "mesh": {"data": devices}})
        mesh = meshes.make_mesh(experiment.config.mesh)
        arrays = experiment.data.read("train")
        batch = {"inputs": {n: one[:16] for n, one in arrays.inputs.items()},
                 "targets": arrays.targets[:16]}  # fmt: skip
        placed = meshes.put(batch, meshes.batch_sharding(mesh))
        state = jax.jit(experiment.init)(0)
        with meshes.splitting(mesh):
            after, measured = jax.jit(experiment.train_step)(state, placed)
        found[devices] = jax.device_get((after.params, measured))
    for one, other in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)
    assert parted(outputs()).first.shape == (N, D)
