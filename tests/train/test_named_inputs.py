"""Steps over examples with several named inputs: augmented, streamed, adapted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdlopt
from jdlopt.data.given import open_given
from jdlopt.errors import ConfigError
from jdlopt.train import step
from jdlopt.train.experiment import Experiment

SIZE = 64
RNG = np.random.default_rng(0)
INPUTS = {
    "photo": RNG.integers(0, 256, (SIZE, 6, 6, 1), dtype=np.uint8),
    "row": RNG.normal(size=(SIZE, 3)).astype(np.float32),
}
TARGETS = np.arange(SIZE) % 2


def config_of(augment=None, **sections):
    data = {"source": "made", "batch_size": 8, "augment": augment or {}}
    small = {"width": 4, "hidden": (4,), "table_features": (4,), "image_features": (4,)}
    return {
        "data": {**data, **sections.pop("data", {})},
        "model": {"name": "fusion", **small, **sections.pop("model", {})},
        "optim": {"name": "adam", "learning_rate": 1e-2, **sections.pop("optim", {})},
        "train": {"steps": 6, "eval_every": 3, **sections.pop("train", {})},
    }


def built(config, check=True):
    return Experiment.build(config, open_given(config["data"], (INPUTS, TARGETS)), check=check)


def augmented(augment):
    experiment = built(config_of(augment))
    state = experiment.init(0)
    batch = {
        "inputs": {name: jnp.asarray(values[:8]) for name, values in INPUTS.items()},
        "targets": jnp.asarray(TARGETS[:8], jnp.int32),
    }
    return step.prepared(experiment.components, state, batch, jax.random.key(3))


@pytest.mark.slow
def test_an_augmentation_changes_the_inputs_that_it_fits():
    plain, flipped, jittered = augmented({}), augmented({"flip": 1.0}), augmented({"jitter": 0.5})
    photo = plain["inputs"]["photo"]
    np.testing.assert_allclose(flipped["inputs"]["photo"], photo[:, :, ::-1], atol=1e-6)
    np.testing.assert_array_equal(flipped["inputs"]["row"], INPUTS["row"][:8])
    assert float(jnp.abs(jittered["inputs"]["row"] - INPUTS["row"][:8]).min()) > 0


@pytest.mark.slow
def test_all_inputs_are_mixed_by_the_same_shares():
    plain, mixed = augmented({}), augmented({"mixup": 1.0})
    shares = mixed["targets"].max(axis=1)  # neighbours are of different classes
    own = mixed["targets"][jnp.arange(8), plain["targets"]]
    assert float(shares.min()) < 0.99
    for name, values in plain["inputs"].items():
        by = own.reshape(-1, *[1] * (values.ndim - 1))
        expected = by * values + (1 - by) * jnp.roll(values, 1, axis=0)
        np.testing.assert_allclose(mixed["inputs"][name], expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"augment": {"cutmix": 1.0}}, "cutmix: can't mix all 2 inputs alike"),
        ({"augment": {"token_swap": 0.1}}, "token_swap: does not fit"),
        ({"data": {"preprocess": {"audio": "mfcc"}}}, "audio: is for sound; none of the inputs"),
        ({"model": {"name": "cnn"}}, "'cnn' takes one input; the data have 2: photo, row"),
    ],
)
def test_what_several_inputs_can_not_have(sections, message):
    config = config_of(**sections)
    if "name" in sections.get("model", {}):
        config["model"] = sections["model"]
    with pytest.raises(ConfigError, match=message):
        built(config)


@pytest.mark.parametrize("model", [{"lora_rank": 2}, {"ensemble": 2}, {"dtype": "bfloat16"}])
def test_models_around_fusion(model):
    experiment = built(config_of(model=model))
    state = jax.eval_shape(lambda: experiment.init(0))
    found = jax.eval_shape(experiment.predict, state, INPUTS)
    assert found.outputs.shape == (SIZE, 2) and found.outputs.dtype == jnp.float32


@pytest.mark.slow
def test_a_head_on_cached_features_of_all_inputs_equals_one_on_a_frozen_body():
    runs = []
    for cached in (False, True):
        frozen = {"optim": {"freeze": ("^(?!head/)",)}, "train": {"cache_features": cached}}
        runs.append(jdlopt.fit(config_of(**frozen), data=(INPUTS, TARGETS)).metrics)
    for name, value in runs[0].items():
        np.testing.assert_allclose(value, runs[1][name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_streamed_and_resident_batches_train_the_same():
    losses = []
    for in_memory in (True, False):
        config = config_of(data={"in_memory": in_memory})
        run = jdlopt.fit(config, data=(INPUTS, TARGETS))
        losses.append(run.metrics["validation/loss"])
        tta = jdlopt.fit(config_of({"flip": 0.5}), data=(INPUTS, TARGETS)).evaluate("test", tta=2)
        assert np.isfinite(tta["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
