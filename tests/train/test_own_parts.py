"""Parts of a user's own, by dotted path: each table takes one, trains with it, and says a typo."""

from __future__ import annotations

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit

AUGMENT = """
import jax
import jax.numpy as jnp
from jdlopt.config import Count, Positive
from jdlopt.data.augment import Augmentation


def fade(key, inputs, strength, *, power: Positive = 1.0, every: Count = 1):
    shares = jax.random.uniform(key, (len(inputs), *[1] * (inputs.ndim - 1))) ** power
    return inputs * (1 - strength * shares)


def invert(key, inputs, strength):
    return jnp.where(jax.random.uniform(key) < strength, 1 - inputs, inputs)


INVERT = Augmentation(
    "invert", invert, stage="raw", high=1.0, fits=("byte image",), source="here"
)
"""


MODULES = {"own_augment": AUGMENT}


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """A folder with the modules of a user, who stands in it."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


# --- augmentations --------------------------------------------------------------------------------


def test_a_users_own_augmentations_train_with_traced_floats(config, tmp_path):
    config["data"]["augment"] = {
        "own": {
            "faded": {"name": "own_augment:fade", "strength": 0.5, "power": 2.0},
            "noisy": {"name": "jitter", "strength": 0.1},
        }
    }
    parts = Experiment.build(config)
    assert parts.config["data"]["augment"]["own"]["faded"]["every"] == 1
    hparams = parts.hparams["augment"]
    assert set(hparams["own"]["faded"]) == {"strength", "power"}
    arrays = parts.data.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:9]), "targets": jnp.asarray(arrays.targets[:9])}
    traces = []

    @jax.jit
    def augmented(strengths):
        traces.append(strengths)
        augment = parts.components.augment
        return augment(jax.random.key(0), batch, strengths, preprocess)["inputs"]

    preprocess = partial(parts.components.preprocess, parts.learnt)
    plain = preprocess(batch["inputs"])
    none = jax.tree.map(lambda leaf: 0 * leaf, hparams)
    np.testing.assert_array_equal(augmented(none), plain)
    assert (augmented(hparams) != plain).all() and len(traces) == 1
    assert fit(config, tmp_path / "run").status == "done"


def test_an_entry_of_the_users_own_says_what_it_fits(config):
    given = {"upside": {"name": "own_augment:INVERT", "strength": 0.5}}
    config["data"]["augment"] = {"own": given}
    with pytest.raises(ConfigError, match=r"data\.augment\.own\.upside: does not fit"):
        Experiment.build(config)
    given["upside"]["strength"] = 1.5
    with pytest.raises(ConfigError, match=r"own\.upside\.strength: must be in \[0, 1\]"):
        Experiment.build(config)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "own_augment:fad", "strength": 1.0}, "Did you mean 'fade'"),
        ({"name": "own_augmen:fade", "strength": 1.0}, "Did you mean 'own_augment'"),
        ({"name": "jiter", "strength": 1.0}, "Did you mean 'jitter'"),
        ({"name": "own_augment:fade", "strength": 1.0, "powr": 1.0}, "Did you mean 'power'"),
        ({"name": "own_augment:fade"}, "strength: is missing"),
        ({"strength": 1.0}, "name: is missing"),
        ({"name": "own_augment:OWN", "strength": 1.0}, "has no 'OWN'"),
        ({"name": "json:__name__", "strength": 1.0}, "an instance of Augmentation or a function"),
    ],
)
def test_what_is_wrong_with_an_own_augmentation_is_said_once(config, section, message):
    config["data"]["augment"] = {"own": {"faded": section}}
    with pytest.raises(ConfigError, match=r"1 problem\n.*own\.faded") as error:
        Experiment.build(config)
    assert message in str(error.value)
