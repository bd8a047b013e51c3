"""Parts of a user's own, by dotted path: each table takes one, trains with it, and says a typo."""

from __future__ import annotations

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.errors import ConfigError, UserError
from jdlopt.evidence import techniques
from jdlopt.evidence.ablate import ablate
from jdlopt.evidence.options import AblationOptions
from jdlopt.evidence.sides import side_of
from jdlopt.train import log
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


PARTS = """
import jax.numpy as jnp
import numpy as np
from jdlopt.config import Count, Positive, Rate
from jdlopt.evidence.techniques import Technique, values
from jdlopt.metrics import Metric


def spirals(*, examples: Count = 120, noise: Positive = 0.1, shape: str = "splits"):
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 6, (2, examples))
    points = np.stack([angle * np.cos(angle), angle * np.sin(angle)], -1)
    points[1] *= -1
    points += noise * rng.normal(size=points.shape)
    order = rng.permutation(2 * examples)
    inputs, targets = points.reshape(-1, 2)[order], np.repeat(["a", "b"], examples)[order]
    if shape == "pair":
        return inputs, targets
    if shape == "wrong":
        return inputs
    if shape == "typo":
        return {"trian": (inputs, targets)}
    if shape == "uneven":
        return inputs, targets[1:]
    if shape == "fails":
        raise OSError("the disk is gone")
    cut = 4 * examples // 3
    return {"train": (inputs[:cut], targets[:cut]), "test": (inputs[cut:], targets[cut:])}


def clashing(*, batch_size: Count = 3):
    return None


def _worst(split):
    hits = split.leaves["classes"] == split.leaves["predicted"]
    return min(float(hits[split.leaves["classes"] == c].mean()) for c in range(split.num_classes))


WORST = Metric(("classes", "predicted"), _worst, ("classification",), True)
BLIND = Metric(("classes", "predictd"), _worst, ("classification",), True)


def warm(step, count, total_steps, *, power: Rate = 0.5):
    count = count + 1
    return count.astype(jnp.float32) ** -jnp.asarray(power), count


NARROW = Technique(
    "narrow", "regularisation", ("accuracy", "generalisation"), "Halves the width.",
    values("model.features", (8, 8), (4, 4)), "nothing", "here", 0.5,
)
"""
MODULES = {"own_augment": AUGMENT, "own_parts": PARTS}


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
    assert parts.config.data.augment["own"]["faded"]["every"] == 1
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


# --- sources --------------------------------------------------------------------------------------


def test_a_users_own_source_trains_with_its_keys(config, tmp_path):
    config["data"] = {"source": "own_parts:spirals", "batch_size": 32, "examples": 90}
    built = Experiment.build(config)
    assert (built.config.data.options["examples"], built.config.data.options["noise"]) == (90, 0.1)
    assert built.spec.sizes["test"] == 60 and built.spec.class_names == ("a", "b")
    result = fit(config, tmp_path / "run")
    assert result.status == "done" and result.metrics["test/accuracy"] > 0.4
    config["data"]["shape"] = "pair"  # split as the config says
    again = Experiment.build(config).spec
    assert again.sizes == {"train": 129, "validation": 15, "test": 36}
    assert again.source != built.spec.source  # other options are other data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "own_parts:spiral"}, "Did you mean 'spirals'"),
        ({"source": "own_part:spirals"}, "Did you mean 'own_parts'"),
        ({"source": "own_parts:clashing"}, "'batch_size' has the name of a key"),
        ({"exampels": 3}, "Did you mean 'examples'"),
        ({"examples": 0}, "data.examples: must be at least 1"),
        ({"shape": "wrong"}, r"gives ndarray; expected a pair \(inputs, targets\)"),
        ({"shape": "typo"}, "split 'trian'. Did you mean 'train'"),
        ({"shape": "uneven"}, "there are 240 inputs and 239 targets"),
        ({"shape": "fails"}, "failed: OSError: the disk is gone"),
    ],
)
def test_what_is_wrong_with_a_source_is_said(config, changes, message):
    config["data"] = {"source": "own_parts:spirals", **changes}
    with pytest.raises(UserError, match=message):
        Experiment.build(config)


def test_a_name_that_only_looks_like_a_path_is_none(config, tmp_path):
    config["data"]["examples"] = 3
    with pytest.raises(UserError, match=r"data\.examples: is unknown"):
        Experiment.build(config)


# --- metrics, averages ----------------------------------------------------------------------------


def test_a_users_own_metric_is_measured_and_monitored(config, tmp_path):
    config["train"] |= {"metrics": ("accuracy",), "monitor": "validation/own_parts:WORST"}
    result = fit(config, tmp_path / "run")
    name = "validation/own_parts:WORST"
    assert 0 <= result.metrics[name] <= result.metrics["validation/accuracy"]
    rows = log.read_lines(tmp_path / "run" / log.METRICS)
    best = max(row[name] for row in rows if name in row)
    assert result.metrics[name] == best


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_parts:WORTS", "Did you mean 'WORST'"),
        ("own_parts:warm", "expected an instance of Metric"),
        ("own_parts:BLIND", "Did you mean 'predicted'"),
        ("acuracy", "Did you mean 'accuracy'"),
    ],
)
def test_what_is_wrong_with_a_metric_is_said(config, name, message):
    config["train"]["metrics"] = (name,)
    with pytest.raises(ConfigError, match=f"1 problem\n.*{message}"):
        Experiment.build(config)


@pytest.mark.slow
def test_a_users_own_average_is_evaluated_with_traced_floats(config, tmp_path):
    config["optim"]["average"] = {"name": "own_parts:warm", "power": 0.9}
    assert set(Experiment.build(config).hparams["optim"]["average"]) == {"power"}
    averaged = fit(config, tmp_path / "averaged")
    plain = fit(configs.override(config, {"optim.average": {"name": "none"}}), tmp_path / "plain")
    assert averaged.metrics["validation/loss"] != plain.metrics["validation/loss"]
    for name, message in (("own_parts:wram", "Did you mean 'warm'"), ("emaa", "mean 'ema'")):
        config["optim"]["average"] = {"name": name}
        with pytest.raises(ConfigError, match=f"1 problem\n.*optim.average.name.*{message}"):
            Experiment.build(config)


# --- techniques -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_users_own_technique_is_ablated(config, tmp_path):
    assert techniques.read("own_parts:NARROW")[0].name == "own_parts:NARROW"
    names = ["own_parts:NARROW:2", "label_smoothing:2"]
    record = ablate(config, names, tmp_path / "ablation", AblationOptions(seeds=3, workers=1))
    rows = {row["technique"]: row for row in record["techniques"]}
    assert rows["own_parts:NARROW:2"]["group"] == "regularisation"
    side = side_of(config)
    facts = techniques.facts_of(side.config, side.dataset)
    found = techniques.applicable(side.config, facts, ["own_parts:NARROW"])
    assert "own_parts:NARROW" in [one.name for one in found]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_parts:NAROW", "Did you mean 'NARROW'"),
        ("own_part:NARROW", "Did you mean 'own_parts'"),
        ("own_parts:warm", "expected an instance of Technique"),
        ("rotat", "Did you mean 'rotate'"),
        ("ro tate", "can't be read"),
    ],
)
def test_what_is_wrong_with_a_technique_is_said(name, message):
    with pytest.raises(UserError, match=message):
        techniques.read(name)
