"""What every model of the table keeps to, shown of each at a tiny size."""

from __future__ import annotations

import dataclasses
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jdlopt import config as configs
from jdlopt import mesh as meshes
from jdlopt.data import preprocess
from jdlopt.data.named import each
from jdlopt.data.spec import InputSpec
from jdlopt.models import MODELS, InputFacts, make_model
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import as_arrays


class Row(NamedTuple):
    """A tiny section, the shape of its inputs, and how many tokens or categories they are of."""

    section: dict[str, Any]
    shape: tuple[int, ...]
    tokens: int = 0
    columns: tuple[int, ...] = ()
    named: dict[str, Row] | None = None

    @property
    def facts(self):
        names = tuple(map(str, range(len(self.columns))))
        return {"tokens": self.tokens, "columns": self.columns, "names": names}

    def inputs(self):
        if self.named is not None:
            return {name: row.inputs() for name, row in self.named.items()}
        x = jax.random.normal(jax.random.key(0), (BATCH, *self.shape))
        if self.tokens:
            x = jax.random.randint(jax.random.key(0), (BATCH, *self.shape), 0, self.tokens)
        codes = [jnp.arange(BATCH) % (count + 1) for count in self.columns if count]
        for column, coded in enumerate(codes, start=len(self.columns) - len(codes)):
            x = x.at[:, column].set(coded)
        return x


LAYERS = {"features": 8, "num_layers": 1, "num_heads": 2, "mlp_features": 12}
ROWS = {
    "linear": Row({}, (12,)),
    "mlp": Row({"features": (8,), "batch_norm": True}, (12,)),
    "cnn": Row({"features": (4, 8), "pool": "max", "batch_norm": True}, (4, 4, 3)),
    "gru": Row({"features": 4, "bidirectional": True}, (4, 3)),
    "lstm": Row({"features": 4}, (4, 3)),
    "tcn": Row({"features": (4, 8)}, (4, 3)),
    "speech_rnn": Row({"features": 4, "num_layers": 1}, (4, 3)),
    "conformer": Row({"features": 8, "num_layers": 1, "num_heads": 2, "kernel_size": 3}, (4, 3)),
    "resnet": Row({"stem": "cifar", "stage_sizes": (1, 1), "features": (4, 8)}, (4, 4, 3)),
    "unet": Row({"features": 4, "depth": 1}, (4, 4, 3)),
    "vgg": Row({"features": (4, 8), "hidden": (8,), "batch_norm": True}, (4, 4, 3)),
    "efficientnet_lite0": Row(
        {
            "stage_sizes": (1, 1),
            "features": (4, 8),
            "kernel_sizes": (3, 2),
            "strides": (1, 2),
            "expansions": (1, 2),
            "stem_features": 4,
            "stem_strides": 1,
            "last_features": 8,
        },
        (4, 4, 3),
    ),
    "convnext": Row(
        {"stage_sizes": (1, 1), "features": (4, 8), "patch_size": 1, "kernel_size": 2}, (4, 4, 3)
    ),
    "transformer_encoder": Row({**LAYERS, "max_positions": 5}, (5,), tokens=11),
    "transformer_decoder": Row(
        {**LAYERS, "max_positions": 5, "scan_layers": True}, (5,), tokens=11
    ),
    "vit": Row({**LAYERS, "patch_size": 2, "experts": 3, "experts_per_token": 2}, (4, 4, 3)),
    "wide_and_deep": Row(
        {"features": (8,), "crosses": ("1*2",), "batch_norm": True}, (6,), columns=(0, 15, 7)
    ),
    "realmlp": Row({"features": (8,), "dropout_rate": None}, (6,), columns=(0, 15, 7)),
    "tabm": Row(
        {"features": (8, 8), "submodels": 3, "dropout_rate": None}, (6,), columns=(0, 15, 7)
    ),
    "fusion": Row(
        {
            "width": 8,
            "hidden": (8,),
            "table_features": (8,),
            "image_features": (4,),
            "sequence_features": (4,),
            "embedding_features": 4,
        },
        (),
        named={
            "table": Row({}, (5,), columns=(0, 7, 3)),
            "photo": Row({}, (4, 4, 3)),
            "note": Row({}, (5,), tokens=11),
            "sound features": Row({}, (4, 3)),
        },
    ),
}
BATCH, OUTPUTS = 8, 3
WRITERS = {"transformer_seq2seq"}
"""Models whose outputs are at positions of a target that they are given: tests/test_seq2seq.py."""


def test_every_model_has_a_row():
    # two_towers' outputs are no classes: test_pairs.py
    assert {*ROWS, *WRITERS, "two_towers"} == set(MODELS)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The parts of an experiment; each model takes the place of its own."""
    path = tmp_path_factory.mktemp("points") / "points.npz"
    x, y = np.zeros((64, 2), np.float32), np.arange(64) % OUTPUTS
    np.savez(path, x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
    config = {
        "data": {"source": str(path), "batch_size": BATCH},
        "model": {"name": "linear"},
        "optim": {"name": "sgd", "learning_rate": 0.5},
        "train": {"steps": 1},
    }
    built = Experiment.build(config)
    return built, built.hparams


FAST = ("mlp", "cnn", "resnet", "gru", "transformer_encoder", "tabm", "fusion")
"""Of the models, those that each change is tried with; the others' tests are slow."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in ROWS],
)
def case(request, parts):
    """One model, its state and a batch, and everything of one device from one program."""
    row = ROWS[request.param]
    fields = configs.fields_of(MODELS[request.param], without=("num_outputs",))
    section = {key: field.default for key, field in fields.items()}
    section |= {"name": request.param, **row.section}
    rates = {key: value for key, value in section.items() if isinstance(value, float)}
    x = row.inputs()
    batch = {"inputs": x, "targets": jnp.arange(BATCH) % OUTPUTS}
    built, hparams = parts
    hparams = {**hparams, "model": as_arrays(rates)}

    def part_of(**keys):
        several = row.named and {name: InputFacts(**one.facts) for name, one in row.named.items()}
        known = row.facts if several is None else {"named": several}
        model = make_model({**section, **keys}, OUTPUTS, **known)
        components = built.components._replace(
            model=model, preprocess=lambda learnt, inputs: inputs
        )
        inputs = each(lambda one: InputSpec(one.shape[1:], one.dtype.name), x)
        spec = dataclasses.replace(built.spec, inputs=inputs)
        recipe = preprocess.make_recipes({}, inputs)
        learnt = each(lambda one: {}, inputs)
        return dataclasses.replace(
            built, components=components, spec=spec, recipe=recipe, learnt=learnt
        )

    def step_of(**keys):
        return part_of(**keys).train_step

    def outputs(params, **keys):
        model = part_of(**keys).components.model
        model_state, rates = state.model_state, hparams["model"]
        return model.apply(params, model_state, x, rates, key=None, train=False)[0]

    @jax.jit
    def program(state, population):
        return {
            "alone": jax.lax.map(outputs, population),
            "together": jax.vmap(outputs)(population),
            "half": outputs(state.params, dtype="bfloat16"),
            "plain": step_of()(state, batch),
        }

    state = filled(jax.eval_shape(part_of().init, 0, hparams), hparams)
    population = jax.tree.map(lambda leaf: np.stack([leaf, 0.5 * leaf]), state.params)
    return SimpleNamespace(
        step_of=step_of,
        model_of=lambda **keys: part_of(**keys).components.model,
        state=state,
        batch=batch,
        rematerialised={"remat": "full"} if "remat" in section else {},
        **program(state, population),
    )


def filled(shapes, hparams):
    """A state of such shapes: no bias or scale is constant, which would hide much."""
    rng = np.random.default_rng(0)

    def drawn(leaf):
        if leaf.ndim < 2:
            return np.float32(rng.uniform(0.5, 1.5, leaf.shape))
        return np.float32(rng.normal(0, 1.5 * np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape))

    return shapes.replace(
        step=np.int32(0),
        params=jax.tree.map(drawn, shapes.params),
        model_state=jax.tree.map(drawn, shapes.model_state),
        opt_state=jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt_state),
        hparams=hparams,
        key=jax.random.key(1),
    )


def close(found, expected):
    def compare(one, other):
        if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)

    jax.tree.map(compare, found, expected)


def test_outputs_have_a_row_for_each_example(case):
    assert case.alone.shape == (2, BATCH, OUTPUTS)
    assert bool(jnp.isfinite(case.alone).all())
    assert float(jnp.ptp(case.alone[0], axis=0).min()) > 1e-3  # examples are told apart


def test_a_population_equals_each_alone(case):
    np.testing.assert_allclose(case.together, case.alone, rtol=1e-5, atol=1e-5)


def test_half_precision_keeps_float32(case):
    after, _ = jax.eval_shape(case.step_of(dtype="bfloat16"), case.state, case.batch)
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(
        lambda leaf: leaf.dtype, case.plain[0]
    )
    furthest = float(jnp.abs(case.half - case.alone[0]).max())
    assert 0 < furthest < 0.1 * float(jnp.abs(case.alone[0]).max())


def test_a_model_computes_in_the_type_of_its_inputs(case):
    def half(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16 if floating else leaf.dtype)

    params, x = jax.tree.map(half, (case.state.params, case.batch["inputs"]))
    rates = {**case.state.hparams["model"], "dropout_rate": jnp.float32(0.1)}
    model = case.model_of(dropout_rate=0.1)
    apply = partial(model.apply, key=case.state.key, train=True)
    outputs, _ = jax.eval_shape(apply, params, case.state.model_state, x, rates)
    assert outputs.dtype == jnp.bfloat16


def test_eight_devices_and_remat_make_the_same_step(case, monkeypatch):
    monkeypatch.setattr("jdlopt.mesh.rules.SMALLEST_SHARDED", 32)
    mesh = meshes.make_mesh(meshes.MeshFields(data=2, fsdp=4))
    sharding = meshes.parameter_sharding(mesh, case.state)
    split = [leaf for leaf in jax.tree.leaves(sharding.params) if leaf.spec != PartitionSpec()]
    assert split
    step = jax.jit(
        case.step_of(**case.rematerialised),
        in_shardings=(sharding, meshes.batch_sharding(mesh)),
        out_shardings=(sharding, meshes.replicated(mesh)),
    )
    close(step(case.state, case.batch), case.plain)
