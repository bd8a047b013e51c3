"""Mixture of experts: routing against a loop, what it equals, and what can't be."""

from __future__ import annotations

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.data.given import open_given
from jdlopt.errors import ConfigError
from jdlopt.models import make_model
from jdlopt.models.attention import FeedForward, stack_layers, unstack_layers
from jdlopt.models.experts import Experts, Mixture, route
from jdlopt.models.generate import generate
from jdlopt.models.sown import taken
from jdlopt.models.transformer import TransformerDecoder
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import as_arrays

SIZES = {"features": 8, "num_layers": 2, "num_heads": 2, "mlp_features": 12, "max_positions": 6}
TOKENS = jnp.array([[3, 4, 5, 0, 0], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])
RATES = {"norm_epsilon": jnp.float32(1e-6)}


def by_hand(logits, real, per_token, places):
    """The same as `route`, one token after the other."""
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    n, positions, experts = logits.shape
    dispatch = np.zeros((n, positions, experts, places))
    combine, falls, dropped = np.zeros_like(dispatch), np.zeros(experts), 0
    for row in range(n):
        taken = [0] * experts
        for position in np.flatnonzero(real[row]):
            p = shares[row, position]
            chosen = np.argsort(-p)[:per_token]
            for expert in chosen:
                falls[expert] += 1
                if taken[expert] == places:
                    dropped += 1
                    continue
                at = (row, position, expert, taken[expert])
                dispatch[at] = 1
                combine[at] = p[expert] / (p[chosen].sum() if per_token > 1 else 1)
                taken[expert] += 1
    tokens = real.sum()
    means = (shares * real[..., None]).sum((0, 1)) / tokens
    balance = experts * (falls / falls.sum() * means).sum()
    z = (np.log(np.exp(logits).sum(-1)) ** 2 * real).sum() / tokens
    return dispatch, combine, balance, z, dropped / falls.sum()


@pytest.mark.parametrize(("per_token", "places"), [(1, 2), (2, 3), (3, 7)])
def test_routing_equals_a_loop(per_token, places):
    rng = np.random.default_rng(per_token)
    logits = rng.normal(0, 2, (3, 7, 4)).astype(np.float32)
    real = rng.random((3, 7)) < 0.8
    found = jax.jit(route, static_argnums=(2, 3))(logits, real, per_token, places)
    for one, other in zip(found, by_hand(logits, real, per_token, places), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_one_expert_is_the_dense_network():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    dense = FeedForward(12, "gelu")
    experts = Experts(12, "gelu", Mixture(1))

    @jax.jit
    def both():
        params = dense.init(jax.random.key(1), x)["params"]
        own = jax.tree.map(lambda leaf: leaf[None], params) | {"router": jnp.ones((8, 1))}
        return experts.apply({"params": own}, x), dense.apply({"params": params}, x)

    np.testing.assert_allclose(*both(), atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"capacity": 3}, r"model.capacity: without model.experts there are none"),
        ({"balance_weight": 0.1}, r"model.balance_weight: without model.experts"),
        ({"experts_per_token": 2}, r"experts_per_token: is 2 without model.experts"),
        ({"experts": 2, "experts_per_token": 3}, r"3 is more than the 2 of model.experts"),
    ],
)
def test_says_what_does_not_fit(keys, message):
    model = make_model({"name": "transformer_encoder", **SIZES, **keys}, 2)
    with pytest.raises(ConfigError, match=message):
        model.init(jax.random.key(0), jnp.ones((1, 5, 2)), {})


def encoder(**keys):
    """An experiment of an encoder of experts, its hyperparameters and a batch."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 6, 2)).astype(np.float32), np.arange(32) % 3
    raw = {
        "data": {"source": "arrays", "batch_size": 16},
        "model": {
            "name": "transformer_encoder",
            **SIZES,
            "experts": 4,
            "experts_per_token": 2,
            "balance_weight": 0.5,
            **keys,
        },
        "optim": {"name": "sgd", "learning_rate": 0.1},
        "train": {"steps": 20},
        "mesh": {"data": 1},
    }
    built = Experiment.build(raw, open_given(raw["data"], (x, y)))
    hparams = as_arrays(configs.hyperparameters(built.config))
    return built, hparams, {"inputs": jnp.asarray(x[:16]), "targets": jnp.asarray(y[:16])}


def test_weights_of_losses_are_traced_and_logged_beside_the_loss():
    built, hparams, batch = encoder(router_z_weight=0.0, num_layers=1)
    weights = jnp.array([0.0, 0.5, 2.0])

    @jax.jit
    @chex.assert_max_traces(n=1)
    def steps(weights):
        def one(weight):
            own = {**hparams, "model": {**hparams["model"], "balance_weight": weight}}
            state = built.init(0, own)
            return built.train_step(state, batch)[1]

        return jax.vmap(one)(weights)

    found = steps(weights)
    balance = found["balance_loss"]
    np.testing.assert_allclose(balance, balance[0], rtol=1e-5)
    assert 0.5 < float(balance[0]) < 4
    np.testing.assert_allclose(
        found["loss"] - found["loss"][0], weights * balance, rtol=1e-4, atol=1e-5
    )
    assert set(found) >= {"router_z_loss", "dropped_tokens"}
    assert 0 <= float(found["dropped_tokens"][0]) < 1


def made(name="transformer_encoder", **keys):
    """A model of token ids with experts that drop none, and parameters of it, none constant."""
    section = {"name": name, **SIZES, "experts": 3, "experts_per_token": 2, "capacity": 5, **keys}
    model = make_model(section, 3, tokens=11)
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS, RATES)
    assert shapes[1] == {}  # what is sown is no state
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), "f"), shapes[0])
    return model, params


def outputs(model, params, x=TOKENS):
    call = jax.jit(lambda params: model.apply(params, {}, x, RATES, key=None, train=False)[0])
    return call(params)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer_encoder", "transformer_decoder"])
def test_padding_goes_to_no_expert(name):
    model, params = made(name)
    padded = outputs(model, params)
    np.testing.assert_allclose(outputs(model, params, TOKENS[:1, :3]), padded[:1], atol=1e-5)
    assert bool(jnp.isfinite(padded).all())

    def measured(x):
        return model.apply(params, {}, x, RATES, key=jax.random.key(0), train=True)[1]

    chex.assert_trees_all_close(
        jax.jit(measured)(TOKENS[:1]), jax.jit(measured)(TOKENS[:1, :3]), rtol=1e-4
    )


@pytest.mark.slow
def test_scanned_and_rematerialised_layers_compute_the_same():
    model, params = made(router_z_weight=0.1)
    scanned, _ = made(router_z_weight=0.1, scan_layers=True, remat="full")

    def loss(model, params):
        found, state = model.apply(params, {}, TOKENS, RATES, key=jax.random.key(0), train=True)
        kept = taken(state)
        return (found**2).mean() + kept.loss, kept.measured

    def gradients(model, params):
        return jax.jit(jax.value_and_grad(lambda params: loss(model, params), has_aux=True))(params)

    value, gradient = gradients(scanned, stack_layers(params))
    chex.assert_trees_all_close(
        (value, unstack_layers(gradient)), gradients(model, params), rtol=1e-4, atol=1e-5
    )
    experts = gradient["layers"]["experts"]
    assert bool((experts["router"] != 0).any() and (experts["up"]["kernel"] != 0).any())


@pytest.mark.slow
def test_routers_stay_float32_in_half_precision():
    model, params = made()
    half, _ = made(dtype="bfloat16")
    seen = []

    def keep(call, args, kwargs, context):
        if type(context.module) is Experts:
            router = context.module.variables["params"]["router"]
            seen.append((args[0].dtype.name, router.dtype.name))
        return call(*args, **kwargs)

    with nn.intercept_methods(keep):
        found = outputs(half, params)
    assert set(seen) == {("bfloat16", "float32")}
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, outputs(model, params), atol=0.2)


@pytest.mark.slow
def test_a_decoder_generates_what_its_scores_say():
    model = TransformerDecoder(
        1, num_tokens=11, experts=3, experts_per_token=2, capacity=6, **SIZES
    )
    prompt = jnp.array([[7, 3, 9], [4, 5, 0]])
    params = jax.jit(model.init)(jax.random.key(0), prompt)["params"]
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    new = generate(params, prompt, jax.random.key(1), 0.0, model=model, count=3)
    lengths = jnp.array([3, 2])[:, None] + jnp.arange(3)
    rows = jnp.arange(2)[:, None]
    whole = jnp.zeros((2, 6), int).at[:, :3].set(prompt).at[rows, lengths].set(new)
    scores = jax.jit(lambda: model.apply({"params": params}, whole, method="logits"))()
    np.testing.assert_array_equal(jnp.argmax(scores, axis=-1)[rows, lengths - 1], new)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        (
            {"prune": {"criterion": "magnitude", "structure": "units", "sparsity": 0.5,
                       "start": 0.0, "end": 0.0}},
            "pruning/masks/layer_1/experts/up/kernel",
        ),
        ({"quantize": {"weights": 4.0, "activations": 8.0}}, "ranges/layer_1/experts/down/input"),
        ({"lora_rank": 2, "scan_layers": True}, "adapters/layers/experts/up/kernel"),
    ],
)  # fmt: skip
def test_experts_are_pruned_quantized_and_adapted_like_other_kernels(keys, kept):
    model = make_model({"name": "transformer_decoder", **SIZES, "experts": 3, **keys}, 3, tokens=11)
    key = jax.random.key(0)

    @jax.jit
    def both():
        params, state = model.init(key, TOKENS, RATES)
        found, after = model.apply(params, state, TOKENS, RATES, key=key, train=True)
        return params, found, taken(after)

    params, found, after = both()
    assert bool(jnp.isfinite(found).all()) and after.loss.shape == ()
    paths = ["/".join(str(part.key) for part in path) for path, _ in
             jax.tree_util.tree_leaves_with_path(after.state | {"params": params})]  # fmt: skip
    assert any(kept in path for path in paths)
