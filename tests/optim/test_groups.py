"""Parameter groups: which paths a pattern finds, who decays, who is frozen, who goes how fast."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jdlopt.errors import ConfigError
from jdlopt.optim import make_optimizer
from jdlopt.optim.groups import check_groups, decay_mask, matching


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(4, (3,))(x))
        x = nn.BatchNorm(use_running_average=True)(x)
        x = nn.RNN(nn.GRUCell(5))(x)
        return nn.Dense(2, name="rescale")(x)


def test_kernels_decay_and_biases_and_norms_do_not():
    params = jax.eval_shape(Net().init, jax.random.key(0), jnp.ones((2, 6, 3)))["params"]
    mask = decay_mask(params)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    for path, decays in jax.tree_util.tree_leaves_with_path(mask):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert decays == name.endswith("kernel"), name


def test_no_patterns_exclude_nothing():
    assert decay_mask({"bias": 1, "deep": [1, {"scale": 2}]}, ()) == {
        "bias": True,
        "deep": [True, {"scale": True}],
    }


def test_patterns_see_the_whole_path():
    params = {"layers": [{"kernel": 0}, {"kernel": 0}]}
    assert matching(params, ["layers/1/"]) == {"layers": [{"kernel": False}, {"kernel": True}]}


def test_a_bad_pattern_is_named():
    with pytest.raises(ConfigError, match=r"'\(' is not a regular expression"):
        matching({}, ["("])


PARAMS = {
    "embed": {"kernel": jnp.array([[1.0, -0.0], [3.0, 4.0]])},
    "layer_0": {"bias": jnp.ones(2), "kernel": jnp.full((2, 2), 2.0)},
    "layer_1": {"bias": jnp.ones(2), "kernel": jnp.full((2, 2), 3.0)},
    "head": {"kernel": jnp.full((2, 3), -1.0)},
}
GRADS = jax.tree.map(lambda leaf: 0.5 + jnp.abs(leaf), PARAMS)


def trained(section, steps=1, hparams=None, grads=GRADS):
    """The parameters and the optimizer's state after some steps along the same gradient."""
    optimizer = make_optimizer(section, 100)
    state = optimizer.init(PARAMS)
    params = PARAMS
    for _ in range(steps):
        updates, state = optimizer.update(grads, state, params, hparams=hparams or {})
        params = jax.tree.map(
            lambda p, u: p if u is None else p + u, params, updates, is_leaf=lambda x: x is None
        )
    return params, state


def moved(params, name):
    return jax.tree.map(lambda new, old: new - old, params[name], PARAMS[name])


def assert_untouched(params, name):
    """Equal to the bit, the sign of a zero included."""
    for new, old in zip(jax.tree.leaves(params[name]), jax.tree.leaves(PARAMS[name]), strict=True):
        assert np.asarray(new).tobytes() == np.asarray(old).tobytes()


def test_frozen_parameters_have_no_state_no_decay_and_no_part_in_the_norm():
    section = {
        "name": "adam",
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "freeze": ("^embed", "layer_"),
    }
    params, state = trained(section)
    for name in ("embed", "layer_0", "layer_1"):
        assert_untouched(params, name)
    head = sum(leaf.size for leaf in jax.tree.leaves(PARAMS["head"]))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.inner)) == 2 * head + 1
    alone = {"name": "sgd", "clip_norm": 1.0, "learning_rate": 1.0}
    params, _ = trained({**alone, "freeze": ("^embed", "layer_")})
    np.testing.assert_allclose(optax.tree.norm(moved(params, "head")), 1.0, rtol=1e-6)


def test_a_group_has_its_own_rate_and_decay():
    group = {"params": ("^layer_",), "learning_rate_scale": 0.1, "weight_decay": 0.5}
    section = {"name": "sgd", "learning_rate": 0.2, "groups": {"body": group}}
    params, _ = trained(section)
    np.testing.assert_allclose(
        moved(params, "head")["kernel"], -0.2 * GRADS["head"]["kernel"], rtol=1e-5
    )
    kernel = -0.02 * (GRADS["layer_1"]["kernel"] + 0.5 * PARAMS["layer_1"]["kernel"])
    np.testing.assert_allclose(moved(params, "layer_1")["kernel"], kernel, rtol=1e-5)
    bias = -0.02 * GRADS["layer_1"]["bias"]  # decay_exclude is optim's for all
    np.testing.assert_allclose(moved(params, "layer_1")["bias"], bias, rtol=1e-5)
    hparams = {"groups": {"body": {"learning_rate_scale": jnp.float32(0.0)}}}
    assert_untouched(trained(section, hparams=hparams)[0], "layer_1")


def test_groups_have_optimizers_of_their_own():
    wide = {"params": ("^embed",), "name": "adagrad", "learning_rate": 0.3, "eps": 1e-3}
    section = {"name": "momentum", "learning_rate": 0.1, "groups": {"wide": wide}}
    params, _ = trained(section, steps=3)
    alone, _ = trained({"name": "adagrad", "learning_rate": 0.3, "eps": 1e-3}, steps=3)
    jax.tree.map(np.testing.assert_array_equal, params["embed"], alone["embed"])
    alone, _ = trained({"name": "momentum", "learning_rate": 0.1}, steps=3)
    jax.tree.map(np.testing.assert_array_equal, params["head"], alone["head"])


def test_an_unfrozen_group_starts_as_a_new_optimizer_would():
    group = {"params": ("^embed", "^layer_"), "unfreeze_at": 3, "weight_decay": 0.1}
    section = {"name": "adam", "learning_rate": 0.1, "groups": {"body": group}}
    before, state = trained(section, steps=3)
    for name in ("embed", "layer_0", "layer_1"):
        assert_untouched(before, name)
    jax.tree.map(
        np.testing.assert_array_equal, state.groups, make_optimizer(section, 9).init(PARAMS).groups
    )
    after, _ = trained(section, steps=5)
    alone, _ = trained({"name": "adam", "learning_rate": 0.1, "weight_decay": 0.1}, steps=2)
    jax.tree.map(np.testing.assert_array_equal, after["layer_0"], alone["layer_0"])


def test_rates_fall_layer_by_layer():
    group = {"params": ("^embed", r"layer_(\d+)"), "layer_decay": 0.5}
    section = {"name": "sgd", "learning_rate": 1.0, "groups": {"body": group}}
    params, _ = trained(section)
    for name, rate in (("head", 1.0), ("layer_1", 1.0), ("layer_0", 0.5), ("embed", 0.25)):
        np.testing.assert_allclose(
            moved(params, name)["kernel"], -rate * GRADS[name]["kernel"], rtol=1e-5
        )


def test_schedule_free_groups_are_evaluated_at_their_average():
    from jdlopt.optim import eval_params

    group = {"params": ("^layer_",), "name": "schedule_free_adamw"}
    section = {"name": "sgd", "learning_rate": 0.1, "groups": {"body": group}}
    params, state = trained(section, steps=3)
    found = eval_params(section, state, params)
    alone = {"name": "schedule_free_adamw", "learning_rate": 0.1}
    expected = eval_params(alone, trained(alone, 3)[1], trained(alone, 3)[0])
    jax.tree.map(np.testing.assert_array_equal, found["layer_0"], expected["layer_0"])
    jax.tree.map(np.testing.assert_array_equal, found["head"], params["head"])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"freeze": ("layr_0",)}, "'layr_0' matches no parameter. The nearest are .*layer_0/"),
        ({"freeze": ("zzzzzzzzzz",)}, "matches no parameter. There are embed/kernel"),
        ({"freeze": ("kernel", "bias")}, "freezes all 6 parameters"),
        ({"freeze": ("(",)}, r"optim.freeze: '\(' is not a regular expression"),
        ({"groups": {"a": {"params": ("[",)}}}, r"optim.groups.a.params: '\[' is not a regular"),
        ({"groups": {"a": {"params": ("hed$",)}}}, "optim.groups.a.params: 'hed\\$' matches no"),
        ({"groups": {"a": {"params": ()}}}, "optim.groups.a: holds no parameter: it has no params"),
        (
            {"groups": {"a": {"params": ("layer_",)}, "b": {"params": ("layer_1",)}}},
            "'a' and 'b' both match the parameter 'layer_1/bias'",
        ),
        (
            {"freeze": ("head",), "groups": {"a": {"params": ("head",)}}},
            "optim.groups.a: holds no parameter: optim.freeze takes all",
        ),
        (
            {"freeze": ("head",), "groups": {"a": {"params": ("embed|layer",), "unfreeze_at": 3}}},
            "nothing is trained before step 3",
        ),
        (
            {"groups": {"a": {"params": ("layer_",), "layer_decay": 0.5}}},
            "optim.groups.a.layer_decay: no pattern of its params captures",
        ),
        (
            {"groups": {"a": {"params": ("(layer)_",), "layer_decay": 0.5}}},
            "captures 'layer' in 'layer_0/bias'",
        ),
        ({"name": "sam", "groups": {"a": {"params": ("layer_",)}}}, "'sam' looks for the worst"),
        ({"groups": {"a": {"params": ("layer_",), "name": "sgdd"}}}, "Did you mean 'sgd'"),
    ],
)
def test_wrong_patterns_are_told(section, message):
    with pytest.raises(ConfigError, match=message):
        trained(section)


def test_freeze_goes_before_groups():
    section = {"freeze": ("bias",), "groups": {"a": {"params": ("layer_",), "unfreeze_at": 2}}}
    check_groups(section, PARAMS)
