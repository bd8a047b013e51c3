"""The whole chain: clipping, schedules, plateaus, decay masks, checkpoints, and its messages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from jdlopt.config import hyperparameters
from jdlopt.errors import ConfigError
from jdlopt.optim import (
    OPTIMIZERS,
    SCHEDULES,
    OptimFields,
    eval_params,
    learning_rate_at,
    make_average,
    make_optimizer,
)
from jdlopt.optim import chain as chain_module
from jdlopt.optim.transforms import clip_adaptively

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.1, -0.2])}
GRADS = {"kernel": jnp.array([[3.0, -4.0], [12.0, 0.0]]), "bias": jnp.array([0.01, -0.5])}


def floats_of(section):
    return jax.tree.map(jnp.float32, hyperparameters({"optim": section})["optim"])


def one_update(section, grads=GRADS, total_steps=100, **extra):
    optimizer = make_optimizer(section, total_steps)
    step = jax.jit(
        lambda hparams: optimizer.update(
            grads, optimizer.init(PARAMS), PARAMS, hparams=hparams, **extra
        )[0]
    )
    return step(floats_of(section))


CLIPS = {
    "clip_value": (0.4, optax.clip(0.4)),
    "clip_norm": (2.0, optax.clip_by_global_norm(2.0)),
    "clip_adaptive": (0.1, clip_adaptively(0.1)),
}


@pytest.mark.parametrize("key", CLIPS)
def test_each_clip_equals_optax(key):
    value, clip = CLIPS[key]
    found = one_update({"name": "sgd", "learning_rate": 1.0, key: value})
    expected, _ = clip.update(GRADS, clip.init(PARAMS), PARAMS)
    for name in GRADS:
        np.testing.assert_allclose(-found[name], expected[name], rtol=1e-5)
        assert not np.allclose(expected[name], GRADS[name]) or name == "bias"


def test_clips_combine_and_the_norm_comes_last():
    section = {key: value for key, (value, _) in CLIPS.items()} | {"clip_norm": 0.05}
    found = one_update({"name": "sgd", "learning_rate": 1.0, **section})
    assert float(optax.tree.norm(found)) == pytest.approx(0.05, rel=1e-5)


def test_sam_clips_its_second_gradient_too():
    section = {"name": "sam", "learning_rate": 1.0, "clip_norm": 0.5}
    found = one_update(section, grad_fn=lambda params: jax.tree.map(lambda g: 100 * g, params))
    assert float(optax.tree.norm(found)) == pytest.approx(0.5, rel=1e-5)


def test_optim_fields_defaults_make_an_optimizer():
    found = one_update({})
    np.testing.assert_allclose(found["kernel"], -1e-3 * np.sign(GRADS["kernel"]), rtol=1e-4)
    assert OptimFields().name in OPTIMIZERS


def test_adamw_decays_by_default_and_adam_does_not():
    zeros = jax.tree.map(jnp.zeros_like, GRADS)
    assert not np.any(one_update({"name": "adam"}, zeros)["kernel"])
    found = one_update({"name": "adamw", "learning_rate": 0.5}, zeros)
    np.testing.assert_allclose(found["kernel"], -0.5 * 0.01 * PARAMS["kernel"], rtol=1e-6)
    assert not np.any(found["bias"])
    assert not np.any(one_update({"name": "adamw", "weight_decay": None}, zeros)["kernel"])


def test_decay_exclude_chooses_what_decays():
    zeros = jax.tree.map(jnp.zeros_like, GRADS)
    section = {"name": "sgd", "learning_rate": 1.0, "weight_decay": 0.1}
    found = one_update({**section, "decay_exclude": ("kernel",)}, zeros)
    assert not np.any(found["kernel"])
    np.testing.assert_allclose(found["bias"], -0.1 * PARAMS["bias"], rtol=1e-6)


@pytest.mark.parametrize("warmup", [{"warmup_steps": 3}, {"warmup_fraction": 0.375}])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule_with_warm_up_scales_every_step(name, warmup):
    total, section = 8, {"name": "sgd", "learning_rate": 0.3}
    section["schedule"] = {"name": name, **warmup}
    optimizer, state = make_optimizer(section, total), None
    state = optimizer.init(PARAMS)
    floats = {key: jnp.float32(value) for key, value in warmup.items() if key != "warmup_steps"}
    hparams = {"learning_rate": jnp.float32(0.2), "schedule": floats}
    step = jax.jit(lambda s: optimizer.update(GRADS, s, PARAMS, hparams=hparams, value=1.0))
    for index in range(total):
        updates, state = step(state)
        rate = learning_rate_at(section, total, index, hparams, state)
        factor = SCHEDULES[name](max(index - 3, 0), total - 3) * min(index / 3, 1)
        if name != "reduce_on_plateau":
            assert float(rate) == pytest.approx(0.2 * float(factor), rel=1e-6)
        np.testing.assert_allclose(updates["kernel"], -rate * GRADS["kernel"], rtol=1e-5)


def test_reduce_on_plateau_reduces_on_a_plateau():
    schedule = {"name": "reduce_on_plateau", "patience": 3, "accumulation_steps": 2}
    section = {"name": "sgd", "learning_rate": 1.0, "schedule": schedule}
    optimizer = make_optimizer(section, 1000)
    hparams = {"schedule": {"factor": jnp.float32(0.5)}}
    state, seen = optimizer.init(PARAMS), []
    step = jax.jit(
        lambda s, value: optimizer.update(GRADS, s, PARAMS, hparams=hparams, value=value)
    )
    for value in [4.0, 3.0, 2.0, 1.0] + [1.0] * 12:
        updates, state = step(state, value)
        seen.append(-float(updates["kernel"][0, 0] / GRADS["kernel"][0, 0]))
    # Windows of 2: 3.5, 1.5, then 1.0, which is the best; three more that are no better.
    np.testing.assert_allclose(seen, [1.0] * 11 + [0.5] * 5)
    assert float(learning_rate_at(section, 1000, 16, hparams, state)) == 0.5
    assert float(learning_rate_at(section, 1000, 16, hparams)) == 1.0


def test_plateau_without_a_loss_says_so():
    section = {"schedule": {"name": "reduce_on_plateau"}}
    with pytest.raises(ValueError, match="value="):
        one_update(section)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "adamz"}, "optim.name 'adamz' is unknown. Did you mean 'adam"),
        ({"schedule": {"name": "cosinus"}}, "Did you mean 'cosine'"),
        ({"schedule": {"warmup_steps": 101}}, "more than the 100 steps"),
        ({"decay_exclude": ("(",)}, "not a regular expression"),
        ({"name": "schedule_free_adamw", "average": {"name": "ema"}}, "averages the parameters"),
    ],
)
def test_wrong_sections_are_refused(section, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(section, 100)


def gentle(learning_rate, add_decay, *, softness: float = 2.0):
    return optax.chain(optax.scale(1 / softness), add_decay, optax.scale(-learning_rate))


def test_an_optimizer_of_ones_own_by_dotted_path(monkeypatch):
    monkeypatch.setattr(chain_module, "gentle", gentle, raising=False)
    section = {"name": "jdlopt.optim.chain:gentle", "learning_rate": 1.0, "softness": 4.0}
    np.testing.assert_allclose(one_update(section)["kernel"], -GRADS["kernel"] / 4)


def test_states_survive_a_checkpoint(tmp_path):
    sections = {name: {"name": name, "clip_norm": 1.0} for name in OPTIMIZERS}
    sections["plateau"] = {"schedule": {"name": "reduce_on_plateau"}}
    states = {}
    for name, section in sections.items():
        optimizer = make_optimizer(section, 10)
        _, states[name] = optimizer.update(
            GRADS, optimizer.init(PARAMS), PARAMS, hparams={}, value=1.0, grad_fn=lambda p, *_: p
        )
    for name in ("ema", "swa", "none"):
        states[name] = make_average({"average": {"name": name}}, 10).init(PARAMS, {})
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "states", states)
    assert jax.tree.structure(restored) == jax.tree.structure(states)
    jax.tree.map(np.testing.assert_array_equal, restored, states)


def test_eval_params_of_a_fresh_schedule_free_state_are_the_parameters():
    section = {"name": "schedule_free_adamw"}
    state = make_optimizer(section, 10).init(PARAMS)
    found = eval_params(section, state, PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, PARAMS)
