"""Whatever axes split a training, it is the training of one device."""

from __future__ import annotations

import csv
import re
from functools import partial

import jax
import numpy as np
import pytest

from jdlopt import mesh as meshes
from jdlopt.data import feed
from jdlopt.errors import ConfigError
from jdlopt.mesh import MeshFields
from jdlopt.train import checkpoint, memory
from jdlopt.train.experiment import Experiment
from jdlopt.train.program import state_sharding
from jdlopt.train.steps import many_steps

STEPS, HALF, BATCH = 20, 10, 16
ONE = MeshFields(data=1)
MESHES = (
    MeshFields(data=8),
    MeshFields(fsdp=8),
    MeshFields(data=2, tensor=4),
    MeshFields(data=2, sequence=4),
    MeshFields(data=1, fsdp=2, sequence=2, tensor=2),
    MeshFields(data=2, fsdp=2, tensor=2),
    MeshFields(data=2, fsdp=2, sequence=2),
)
LAYERS = {"features": 16, "num_layers": 2, "num_heads": 4, "mlp_features": 32}
OPTIM = {"name": "momentum", "learning_rate": 0.05, "clip_norm": 1.0}


def names(fields):
    usual = (1, -1, None, ())
    return "×".join(f"{key}{size}" for key, size in vars(fields).items() if size not in usual)


class Trained:
    """Trainings of one experiment on several meshes; each program is compiled once."""

    def __init__(self, config):
        config = {"loss": {"name": "cross_entropy"}, "optim": OPTIM, **config}
        self.config = {**config, "train": {"steps": STEPS}}
        self.config["data"] = {"batch_size": BATCH, **config["data"]}
        self.experiment = self.build(ONE)
        arrays = self.experiment.data.read("train")
        self.data = {"inputs": arrays.inputs, "targets": arrays.targets}
        self.examples = feed.batch_examples(0, 0, BATCH, len(arrays.targets), STEPS)
        self.programs = {}

    def build(self, fields):
        return Experiment.build({**self.config, "mesh": vars(fields)}, check=False)

    def built(self, fields):
        """The experiment for a mesh: of a pipeline, its model knows the parts of a batch."""
        return self.build(fields) if fields.pipeline > 1 else self.experiment

    def on(self, fields):
        """The state before the first step, and the program."""
        if fields not in self.programs:
            mesh, experiment = meshes.make_mesh(fields), self.built(fields)
            init = partial(experiment.init, 1)
            places = state_sharding(mesh, jax.eval_shape(init), fields.rules)
            everywhere = meshes.replicated(mesh)
            run = jax.jit(
                partial(many_steps, train_step=experiment.train_step, mesh=mesh),
                out_shardings=(places, everywhere),
            )
            state = jax.jit(init, out_shardings=places)()
            self.programs[fields] = state, partial(run, data=meshes.put(self.data, everywhere))
        return self.programs[fields]

    def go(self, fields, first=0, last=STEPS, state=None):
        """The state and the values after some steps."""
        start, run = self.on(fields)
        examples = np.roll(self.examples, -first, axis=0)  # one program serves every count
        state = start if state is None else state
        return run(state, examples=examples, count=np.int32(last - first))

    def evaluated(self, fields, state):
        """What the metrics need of the first examples."""
        mesh, experiment = meshes.make_mesh(fields), self.built(fields)
        batch = {name: values[:64] for name, values in self.data.items()}
        batch = meshes.put({**batch, "weights": np.ones(64)}, meshes.batch_sharding(mesh))

        def step(state, batch):
            with meshes.splitting(mesh):
                return experiment.evaluate_step(state, batch)

        return jax.jit(step, out_shardings=meshes.replicated(mesh))(state, batch)

    def text(self, fields):
        """The compiled program of a mesh."""
        state, run = self.on(fields)
        lowered = run.func.lower(
            state, **run.keywords, examples=self.examples, count=np.int32(STEPS)
        )
        return lowered.compile().as_text()


def close(found, expected, tolerance=1e-5):
    def compare(one, other):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)

    jax.tree.map(compare, jax.device_get(found), jax.device_get(expected))


def goes_on(trained, ring, fields, folder):
    """A training that is saved half way on a mesh goes on on one device and on the next mesh."""
    whole, expected = trained.go(ONE)
    half, _ = trained.go(fields, last=HALF)
    saved = checkpoint.save(folder, HALF, checkpoint.saved(half), {"step": HALF})
    for other in (ONE, ring[ring.index(fields) - 1]):
        like, _ = trained.on(other)
        state = checkpoint.unsaved(like, checkpoint.restore(saved, checkpoint.saved(like)))
        resumed, values = trained.go(other, first=HALF, state=state)
        close(resumed.params, whole.params)
        close(values["loss"][: STEPS - HALF], expected["loss"][HALF:])


@pytest.fixture(autouse=True, scope="module")
def _small_arrays_are_split():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jdlopt.mesh.rules.SMALLEST_SHARDED", 32)
        yield


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """A table of short texts of differing lengths."""
    rng = np.random.default_rng(0)
    table = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "mood"])
        for row in range(240):
            words = rng.choice(["lovely", "great", "fine", "awful", "poor", "dull"], 1 + row % 6)
            writer.writerow([" ".join(words), "good" if row % 2 else "bad"])
    return {
        "source": str(table), "target": "mood", "text_column": "review",
        "text": {"max_tokens": 8, "vocab_size": 64},
    }  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("images") / "images.npz"
    x, y = rng.normal(size=(160, 8, 8, 2)).astype(np.float32), np.arange(160) % 4
    np.savez(path, x_train=x, y_train=y, x_test=x[:16], y_test=y[:16])
    return {"source": str(path)}


@pytest.fixture(scope="module")
def encoder(reviews):
    model = {"name": "transformer_encoder", **LAYERS, "dropout_rate": 0.1, "scan_layers": True}
    return Trained({"data": reviews, "model": model})


@pytest.mark.slow
@pytest.mark.parametrize("fields", MESHES, ids=names)
def test_a_transformer_is_trained_as_on_one_device_and_goes_on_anywhere(encoder, fields, tmp_path):
    whole, expected = encoder.go(ONE)
    found, values = encoder.go(fields)
    close((values, found.params), (expected, whole.params))
    specs = [tuple(leaf.sharding.spec) for leaf in jax.tree.leaves(found.params)]
    assert set(jax.tree.leaves(specs)) == {
        axis for axis in ("fsdp", "tensor") if getattr(fields, axis) > 1
    }
    close(encoder.evaluated(fields, found), encoder.evaluated(ONE, whole))
    goes_on(encoder, MESHES, fields, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ({"name": "vit", "patch_size": 2, **LAYERS, "pooling": "mean"},
         MeshFields(fsdp=2, sequence=2, tensor=2)),
        ({"name": "resnet", "stem": "cifar", "stage_sizes": (1, 1), "features": (8, 16),
          "bottleneck": True}, MeshFields(fsdp=2, tensor=4)),
    ],
    ids=["vit", "resnet"],
)  # fmt: skip
def test_models_of_images_are_trained_as_on_one_device(images, model, fields):
    made = Trained({"data": images, "model": model})
    (whole, expected), (found, values) = made.go(ONE), made.go(fields)
    close((values, found.params), (expected, whole.params))
    close(found.model_state, whole.model_state)


@pytest.fixture(scope="module")
def mixture(reviews):
    experts = {"experts": 8, "experts_per_token": 2, "router_z_weight": 0.01}
    model = {"name": "transformer_encoder", **LAYERS, **experts, "scan_layers": True}
    return Trained({"data": reviews, "model": model})


OF_EXPERTS = (
    MeshFields(data=2, fsdp=2, tensor=2),  # all experts on each device
    MeshFields(data=1, expert=8),
    MeshFields(data=2, expert=4),
    MeshFields(data=1, fsdp=2, expert=4),
    MeshFields(data=1, expert=2, sequence=2, tensor=2),
)


@pytest.mark.slow
@pytest.mark.parametrize("fields", OF_EXPERTS, ids=names)
def test_experts_on_devices_of_their_own_are_trained_as_on_one_device_and_go_on_anywhere(
    mixture, fields, tmp_path
):
    (whole, expected), (found, values) = mixture.go(ONE), mixture.go(fields)
    close((values, found.params), (expected, whole.params))
    assert 0 < float(values["dropped_tokens"].max()) < 1
    kernel = found.params["layers"]["experts"]["up"]["kernel"]
    assert (kernel.sharding.spec[1] == "expert") == (fields.expert > 1)
    if fields == MeshFields(data=2, expert=4):
        assert "all-to-all" in {kind for _, kind in collectives(mixture.text(fields))}
    goes_on(mixture, OF_EXPERTS, fields, tmp_path)


DEEP = {
    "name": "transformer_encoder", **LAYERS, "num_layers": 4, "scan_layers": True, "remat": "full",
}  # fmt: skip


@pytest.fixture(scope="module")
def in_a_row(reviews):
    return Trained({"data": reviews, "model": DEEP})


OF_STAGES = (
    MeshFields(data=2, fsdp=2, tensor=2),  # one after the other
    MeshFields(data=2, pipeline=4),
    MeshFields(data=1, fsdp=2, pipeline=2, microbatches=4, tensor=2),
)


@pytest.mark.slow
@pytest.mark.parametrize("fields", OF_STAGES, ids=names)
def test_layers_in_stages_are_trained_as_one_after_the_other_and_go_on_anywhere(
    in_a_row, fields, tmp_path
):
    (whole, expected), (found, values) = in_a_row.go(ONE), in_a_row.go(fields)
    close((values, found.params), (expected, whole.params))
    kernel = found.params["layers"]["mlp"]["up"]["kernel"]
    assert (kernel.sharding.spec[0] == "pipeline") == (fields.pipeline > 1)
    if fields.pipeline > 1:
        kinds = {kind for _, kind in collectives(in_a_row.text(fields))}
        assert "collective-permute" in kinds
    close(in_a_row.evaluated(fields, found), in_a_row.evaluated(ONE, whole))
    goes_on(in_a_row, OF_STAGES, fields, tmp_path)


@pytest.mark.slow
def test_states_of_other_shapes_than_the_parameters_are_placed(reviews):
    optim = {"name": "adafactor", "learning_rate": 0.01, "average": {"name": "ema"}}
    model = {"name": "transformer_decoder", **LAYERS}
    made = Trained({"data": reviews, "model": model, "optim": optim})
    (_, expected), (found, values) = made.go(ONE), made.go(MeshFields(fsdp=4, tensor=2))
    close(values["loss"], expected["loss"])
    large = [leaf for leaf in jax.tree.leaves((found.opt_state, found.average)) if leaf.size >= 512]
    assert large and all(leaf.sharding.spec != jax.sharding.PartitionSpec() for leaf in large)


def collectives(text):
    """The results of the collectives of an optimised program: kind and shapes."""
    return re.findall(
        r"= (.+?) (all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)\(", text
    )


@pytest.mark.slow
def test_fsdp_of_scanned_layers_gathers_parameters_and_never_a_batch(reviews):
    """Nor does accuracy exchange outputs, whose classes the head's parameters are split by."""
    config = {
        "data": {**reviews, "batch_size": 56},
        "model": {"name": "transformer_encoder", **LAYERS, "scan_layers": True},
        "loss": {"name": "cross_entropy"},
        "mesh": {"fsdp": 8},
    }
    experiment = Experiment.build(config, check=False)
    text = memory.compiled_step(experiment, meshes.make_mesh(experiment.config.mesh)).as_text()
    found = collectives(text)
    assert any(kind == "all-gather" for _, kind in found)
    assert not [shapes for shapes, kind in found if kind == "all-to-all"]
    assert not [shapes for shapes, _ in found if re.search(r"\[56,", shapes)]


@pytest.mark.parametrize(
    ("model", "mesh", "words"),
    [
        (LAYERS, {"tensor": 8}, ["mesh.tensor: 8 devices can't share 4 heads of attention"]),
        ({**LAYERS, "mlp_features": 30}, {"tensor": 4}, ["4 devices can't share 30 hidden units"]),
        (LAYERS, {"sequence": 2}, ["mesh.sequence: 2 devices can't share 7 positions"]),
        ({}, {"sequence": 2}, ["mesh.sequence: nothing of this model is split over it"]),
        (LAYERS, {"pipeline": 2}, ["mesh.pipeline: nothing of this model", "model.scan_layers"]),
        (
            {**LAYERS, "scan_layers": True, "num_layers": 3},
            {"pipeline": 2},
            ["mesh.pipeline: 2 stages can't share 3 layers evenly", "num_layers to 2 or 4"],
        ),
        (
            {**LAYERS, "scan_layers": True, "experts": 2},
            {"pipeline": 2},
            ["mesh.pipeline: experts are balanced over a whole batch"],
        ),
        (LAYERS, {"expert": 2}, ["mesh.expert: nothing of this model", "model.experts"]),
        ({**LAYERS, "experts": 3}, {"expert": 2}, ["mesh.expert: 2 devices can't share 3 experts"]),
        ({}, {"tensor": 2}, ["mesh.tensor: no rule places", "gru_0_forward"]),
    ],
)
def test_a_model_that_a_mesh_can_not_split_is_refused(tmp_path, model, mesh, words):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 7, 2)).astype(np.float32), np.arange(48) % 3
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    name = "transformer_encoder" if model else "gru"
    config = {
        "data": {"source": str(tmp_path / "data.npz"), "batch_size": 8},
        "model": {"name": name, **model},
        "mesh": mesh,
    }
    with pytest.raises(ConfigError) as refused:
        Experiment.build(config)
    for word in words:
        assert word in str(refused.value)
