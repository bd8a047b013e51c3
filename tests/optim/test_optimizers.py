"""Each optimizer's trajectory is that of optax with Python floats."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from jdlopt.config import hyperparameters
from jdlopt.optim.chain import complete, eval_params, make_optimizer
from jdlopt.optim.groups import decay_mask
from jdlopt.optim.optimizers import OPTIMIZERS

RATE, DECAY, STEPS = 0.03, 0.2, 6
RNG = np.random.default_rng(0)
SHAPES = {"kernel": (5, 4), "bias": (4,)}


def draw(low, high):
    return {key: jnp.asarray(RNG.uniform(low, high, shape), "f") for key, shape in SHAPES.items()}


PARAMS, TARGETS, CURVATURES = draw(-2, 2), draw(-1, 1), draw(0.5, 2)


def loss(params):
    """A quadratic: its small gradient keeps the many programs here quick to compile."""
    terms = jax.tree.map(lambda p, t, c: jnp.sum(c * (p - t) ** 2) / 2, params, TARGETS, CURVATURES)
    return sum(jax.tree.leaves(terms))


def grad_fn(params, *_):
    return jax.grad(loss)(params)


def adversary(rho):
    return optax.chain(contrib.normalize(), optax.sgd(rho))


# name → (keys, the same in optax). Decay is on where optax has a decoupled one.
REFERENCES = {
    "sgd": ({}, optax.sgd(RATE)),
    "momentum": ({"momentum": 0.8}, optax.sgd(RATE, 0.8)),
    "nesterov": ({"momentum": 0.8}, optax.sgd(RATE, 0.8, nesterov=True)),
    "rmsprop": ({"decay": 0.7, "eps": 1e-4}, optax.rmsprop(RATE, 0.7, 1e-4)),
    "adagrad": ({"initial_accumulator": 0.3, "eps": 1e-5}, optax.adagrad(RATE, 0.3, 1e-5)),
    "adam": ({"b1": 0.8, "b2": 0.95, "eps": 1e-4}, optax.adam(RATE, 0.8, 0.95, 1e-4)),
    "adamw": (
        {"b1": 0.8, "b2": 0.95, "eps": 1e-4, "weight_decay": DECAY},
        optax.adamw(RATE, 0.8, 0.95, 1e-4, weight_decay=DECAY, mask=decay_mask),
    ),
    "nadam": (
        {"b1": 0.8, "b2": 0.95, "eps": 1e-4, "weight_decay": DECAY},
        optax.nadamw(RATE, 0.8, 0.95, 1e-4, weight_decay=DECAY, mask=decay_mask),
    ),
    "lamb": (
        {"b1": 0.8, "b2": 0.95, "eps": 1e-4, "weight_decay": DECAY},
        optax.lamb(RATE, 0.8, 0.95, 1e-4, weight_decay=DECAY, mask=decay_mask),
    ),
    "lion": (
        {"b1": 0.8, "b2": 0.95, "weight_decay": DECAY},
        optax.lion(RATE, 0.8, 0.95, weight_decay=DECAY, mask=decay_mask),
    ),
    "adafactor": (
        {
            "decay_rate": 0.7,
            "clipping_threshold": 0.9,
            "eps": 1e-6,
            "min_dim_size_to_factor": 3,
            "weight_decay": DECAY,
        },
        optax.adafactor(
            RATE,
            3,
            0.7,
            clipping_threshold=0.9,
            eps=1e-6,
            weight_decay_rate=RATE * DECAY,  # optax leaves out the learning rate in this one
            weight_decay_mask=decay_mask,
        ),
    ),
    "muon": (
        {"beta": 0.9, "adam_b1": 0.8, "adam_b2": 0.95, "eps": 1e-6, "weight_decay": DECAY},
        # It gives kernels alone to Muon, and decays what Muon has.
        contrib.muon(RATE, beta=0.9, adam_b1=0.8, adam_b2=0.95, eps=1e-6, weight_decay=DECAY),
    ),
    "schedule_free_adamw": (
        {"b1": 0.8, "b2": 0.95, "eps": 1e-4},
        contrib.schedule_free_adamw(RATE, None, 0.8, 0.95, 1e-4),
    ),
    "sam": (
        {"rho": 0.2, "momentum": 0.8},
        contrib.sam(optax.sgd(RATE, 0.8), adversary(0.2), opaque_mode=True),
    ),
}


def section_of(name, **changes):
    keys, _ = REFERENCES[name]
    section = {"name": name, "learning_rate": RATE, "weight_decay": None, **keys, **changes}
    return complete(section)


def floats_of(section):
    return jax.tree.map(jnp.float32, hyperparameters({"optim": section})["optim"])


def train(update, state):
    """Every parameter vector of a short training, in one compiled scan."""

    def body(carry, _):
        params, state = carry
        updates, state = update(grad_fn(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    (_, state), path = jax.lax.scan(body, (PARAMS, state), length=STEPS)
    return path, state


def ours(section, hparams):
    optimizer = make_optimizer(section, STEPS)

    def update(grads, state, params):
        value = loss(params)
        return optimizer.update(
            grads, state, params, hparams=hparams, value=value, grad_fn=grad_fn
        )  # fmt: skip

    return train(update, optimizer.init(PARAMS))


def theirs(reference, name=""):
    extra = {"grad_fn": grad_fn} if name == "sam" else {}
    reference = optax.with_extra_args_support(reference)
    update = lambda grads, state, params: reference.update(grads, state, params, **extra)  # noqa: E731
    return jax.jit(lambda: train(update, reference.init(PARAMS)))()


def close(found, expected, tolerance=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


def test_every_optimizer_has_a_reference():
    assert set(REFERENCES) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trajectory_equals_optax(name):
    section = section_of(name)
    # Other floats in the section: only the traced ones may count.
    placeholder = jax.tree.map(lambda v: 0.5 if isinstance(v, float) else v, section)
    found, state = jax.jit(lambda hparams: ours(placeholder, hparams))(floats_of(section))
    expected, reference_state = theirs(REFERENCES[name][1], name)
    close(found, expected)
    assert int(state.step) == STEPS
    if name == "schedule_free_adamw":
        last = jax.tree.map(lambda leaf: leaf[-1], found)
        close(
            eval_params(section, state, last),
            contrib.schedule_free_eval_params(reference_state, last),
            2e-6,
        )
    else:
        assert eval_params(section, state, PARAMS) is PARAMS


@pytest.mark.parametrize("name", ["sgd", "momentum", "sam"])
def test_decay_takes_a_part_of_the_kernels_only(name):
    section = section_of(name, weight_decay=DECAY)
    hparams = floats_of(section)
    run = jax.jit(lambda hparams: ours(section, hparams)[0])
    decayed, free = run(hparams), run({**hparams, "weight_decay": jnp.float32(0)})
    first = jax.tree.map(lambda a, b: a[0] - b[0], decayed, free)
    np.testing.assert_allclose(first["kernel"], -RATE * DECAY * PARAMS["kernel"], atol=1e-6)
    assert not np.any(first["bias"])


@pytest.mark.parametrize(
    ("section", "reference"),
    [
        (
            {"name": "rmsprop", "momentum": 0.8, "centered": True, "eps": 1e-4},
            optax.rmsprop(RATE, eps=1e-4, momentum=0.8, centered=True),
        ),
        (
            {"name": "adafactor", "momentum": 0.8, "clipping_threshold": None,
             "multiply_by_parameter_scale": False},
            optax.adafactor(RATE, momentum=0.8, clipping_threshold=None,
                            multiply_by_parameter_scale=False),
        ),
        (
            {"name": "muon", "consistent_rms": 0.2, "nesterov": False, "ns_steps": 3},
            contrib.muon(RATE, consistent_rms=0.2, nesterov=False, ns_steps=3),
        ),
    ],
)  # fmt: skip
def test_options_equal_optax(section, reference):
    section = complete({"learning_rate": RATE, **section})
    found, _ = jax.jit(lambda hparams: ours(section, hparams))(floats_of(section))
    close(found, theirs(reference)[0], 3e-6)
