"""Fusion of several inputs: early, late and by attention; inputs that are missing or dropped."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import losses
from jdlopt.data.named import PRESENT
from jdlopt.errors import ConfigError
from jdlopt.models import InputFacts, make_model
from jdlopt.models.fusion import FUSIONS

FACTS = {"table": InputFacts(), "note": InputFacts(tokens=7), "curve": InputFacts()}
SIZES = {
    "width": 4, "hidden": (3,), "table_features": (3,), "sequence_features": (3,),
    "embedding_features": 2, "fusion_heads": 2,
}  # fmt: skip
EVERY = np.array([[row >> place & 1 for place in range(3)] for row in range(8)], bool)
"""Every way to have some of three inputs, or none."""


def made(fusion, present=True, **keys):
    loss = losses.make_loss({"name": "cross_entropy"})
    facts = FACTS | ({PRESENT: InputFacts()} if present else {})
    section = {"name": "fusion", "fusion": fusion, **SIZES, **keys}
    mean = partial(losses.mean_outputs, loss)
    return make_model(section, 3, named=facts, mean_outputs=mean)


def inputs(seed=0, there=EVERY):
    rng, rows = np.random.default_rng(seed), len(there)
    given = {
        "table": jnp.asarray(rng.normal(size=(rows, 2)), jnp.float32),
        "note": jnp.asarray(rng.integers(1, 7, (rows, 4)), jnp.int32),
        "curve": jnp.asarray(rng.normal(size=(rows, 6, 1)), jnp.float32),
    }
    return {**given, PRESENT: jnp.asarray(there)}


def call(model, params, given, train=False, hparams=None):
    key = jax.random.key(5)
    return jax.jit(
        lambda params, given, hparams: model.apply(
            params, {}, given, hparams, key=key, train=train
        )[0]
    )(params, given, hparams or {})


@pytest.mark.slow
def test_late_fusion_is_the_mean_of_the_probabilities_of_what_is_there():
    model = made("late")
    params, _ = jax.jit(model.init)(jax.random.key(0), inputs(), {})
    rows = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 8, axis=0), inputs())
    found = call(model, params, {**rows, PRESENT: jnp.asarray(EVERY)})
    probabilities = jax.nn.softmax(found)
    alone = probabilities[np.array([1, 2, 4])]
    for row in range(1, 8):
        expected = alone[np.flatnonzero(EVERY[row])].mean(axis=0)
        np.testing.assert_allclose(probabilities[row], expected, atol=1e-6)


@pytest.mark.parametrize("fusion", ["early", *(pytest.param(one, marks=pytest.mark.slow)
                                               for one in FUSIONS if one != "early")])  # fmt: skip
def test_what_is_masked_changes_nothing_and_masking_nothing_changes_nothing(fusion):
    model, plain = made(fusion), made(fusion, present=False)
    params, _ = jax.jit(model.init)(jax.random.key(0), inputs(), {})
    here, other = inputs(0), inputs(1)
    for place, name in enumerate(FACTS):
        there = EVERY[:, place].reshape(-1, *[1] * (here[name].ndim - 1))
        other[name] = jnp.where(there, here[name], other[name])
    for train in (False, True):
        np.testing.assert_array_equal(
            call(model, params, here, train), call(model, params, other, train)
        )
    whole = inputs(0, np.ones((8, 3), bool))
    without = {name: one for name, one in whole.items() if name != PRESENT}
    np.testing.assert_allclose(
        call(model, params, whole), call(plain, params, without), rtol=1e-6, atol=1e-6
    )


@pytest.mark.slow
def test_a_head_learns_nothing_of_examples_that_lack_its_input():
    loss, model = losses.make_loss({"name": "cross_entropy"}), made("late")
    given, targets = inputs(), jnp.arange(8) % 3
    params, _ = model.init(jax.random.key(0), given, {})

    def value(params, given):
        outputs, _ = model.apply(params, {}, given, {}, key=jax.random.key(1), train=True)
        return loss.objective(outputs, targets, params, {})

    without = {**given, PRESENT: jnp.asarray(EVERY | [[False, True, True]]) & (jnp.arange(3) != 0)}
    grads = jax.grad(value)(params, without)
    zero = {name: not any(map(jnp.any, jax.tree.leaves(one))) for name, one in grads.items()}
    assert zero == {name: name.startswith(("encoder_0", "head_0")) for name in grads}


@pytest.mark.slow
def test_modality_dropout_is_traced_and_never_takes_all():
    model = made("early", modality_dropout=0.5)
    params, _ = model.init(jax.random.key(0), inputs(), {"modality_dropout": 0.5})
    plain, one = made("early"), inputs(0, EVERY[[1, 2, 4] * 4])
    traced = jax.jit(
        lambda given, rate: model.apply(
            params, {}, given, {"modality_dropout": rate}, key=jax.random.key(2), train=True
        )[0]
    )
    many = inputs(0, np.ones((64, 3), bool))
    close = {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(traced(many, 0.0), call(plain, params, many, True), **close)
    assert np.any(traced(many, 0.5) != traced(many, 0.0))
    assert traced._cache_size() == 1
    # what an example has alone is never dropped
    np.testing.assert_allclose(traced(one, 0.9), call(plain, params, one, True), **close)
    rates = {"note": 0.999}
    own = made("early", modality_dropout=rates)
    dropped, _ = own.apply(
        params, {}, many, {"modality_dropout": rates}, key=jax.random.key(2), train=True
    )
    there = jnp.asarray([[True, False, True]] * 64)
    expected = call(plain, params, {**many, PRESENT: there}, True)
    assert np.isclose(dropped, expected, atol=1e-6).all(axis=1).mean() > 0.9
    wrong = made("early", modality_dropout={"nte": 0.5})
    with pytest.raises(ConfigError, match=r"modality_dropout: 'nte' is no input.*note"):
        wrong.init(jax.random.key(0), inputs(), {"modality_dropout": {"nte": 0.5}})


@pytest.mark.slow
def test_one_input_may_be_looked_at_alone():
    one, given = made("early", use_inputs=("note",)), inputs(0, np.ones((8, 3), bool))
    params, _ = one.init(jax.random.key(0), given, {})
    assert set(params) == {"encoder_1_note", "head"}
    other = {**inputs(1, np.ones((8, 3), bool)), "note": given["note"]}
    np.testing.assert_array_equal(call(one, params, given), call(one, params, other))
    with pytest.raises(ConfigError, match=r"use_inputs: 'nte' is no input.*note"):
        made("early", use_inputs=("nte",)).init(jax.random.key(0), given, {})


def test_heads_that_do_not_share_the_width_are_named():
    with pytest.raises(ConfigError, match="fusion_heads: 3 heads can't share a width of 4"):
        jax.eval_shape(made("attention", fusion_heads=3).init, jax.random.key(0), inputs(), {})
