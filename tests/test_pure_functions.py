"""The public pure functions are the same with and without jit, and leave their arguments alone."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from jdlopt.data.augment import AUGMENTATIONS
from jdlopt.data.augment.augmentation import unless_zero
from jdlopt.data.augment.mix.mixing import mixed
from jdlopt.data.pools import Arrays
from jdlopt.data.preprocess import PreprocessFields, Recipe, apply, fit
from jdlopt.kernels.bits import sixteen_bits, threefry
from jdlopt.kernels.convolution import convolve
from jdlopt.kernels.depthwise import depthwise
from jdlopt.kernels.pooling import average_pool, max_pool
from jdlopt.losses import LINKS, LOSSES, positively_weighted
from jdlopt.metrics import METRICS, OF_TWO, make_collector
from jdlopt.optim.schedules import SCHEDULES, make_schedule

N = 4
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
CLASSES = np.array([0, 2, 1, 2], np.int32)
LABELS = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 1]], np.float32)
STRENGTH = jnp.float32(0.3)


def floats(*shape):
    return RNG.random(shape, np.float32)


LOGITS, NUMBERS, WEIGHTS = floats(N, 3), floats(N, 3), np.array([1, 1, 1, 0], np.float32)
INPUTS = {
    "image": floats(N, 8, 8, 3),
    "byte image": floats(N, 8, 8, 3),
    "sequence": floats(N, 12, 2),
    "waveform": floats(N, 64),
    "spectrogram": floats(N, 10, 6),
    "tokens": RNG.integers(2, 9, (N, 10)).astype(np.int32),
}
TARGETS = {"classification": CLASSES, "multilabel": LABELS, "regression": NUMBERS}


def collected(task, positive=False):
    names = [name for name, metric in METRICS.items() if task in metric.tasks and name != "loss"]
    names = [name for name in names if task != "classification" or (name in OF_TWO) is positive]
    size = 7 if task == "classification" else 3  # top-5 accuracy is of more than five
    size = 2 if positive else size
    outputs = floats(N, size)
    said = None if task == "regression" else np.asarray(jax.nn.softmax(outputs))
    collect = make_collector(names, task, size).collect
    targets = np.minimum(CLASSES, 1) if positive else TARGETS[task]
    return collect, (outputs, said, targets, WEIGHTS, floats(N))


def augmented(entry):
    if entry.stage == "mix":
        return entry.apply, (KEY, INPUTS["image"], floats(N, 3), STRENGTH)
    return entry.apply, (KEY, INPUTS[entry.fits[0]], STRENGTH)


def preprocessed(kind, raw, rate=None, **fields):
    recipe = Recipe(PreprocessFields(**fields), kind, sample_rate=rate)
    return partial(apply, recipe), (fit(recipe, Arrays(raw, None)), raw)


CASES = {
    **{f"loss {name}": (loss, (LOGITS, NUMBERS if name in ("mse", "mae", "huber") else CLASSES))
       for name, loss in LOSSES.items() if name != "ctc"},
    "loss positively_weighted": (positively_weighted, (LOGITS, LABELS, floats(3))),
    **{f"link {name}": (link.probabilities, (LOGITS,)) for name, link in LINKS.items() if link},
    **{f"metrics {task}": collected(task) for task in TARGETS},
    "metrics of a positive class": collected("classification", positive=True),
    **{f"schedule {name}": (make_schedule({"name": name, "warmup_fraction": 0.1}, 100),
                            (jnp.int32(20), {"warmup_fraction": jnp.float32(0.1)}))
       for name in SCHEDULES},
    **{f"augmentation {name}": augmented(entry) for name, entry in AUGMENTATIONS.items()
       if entry.apply is not None and entry.prepare is None},
    "kernel convolve": (convolve, (INPUTS["image"], floats(3, 3, 3, 5))),
    "kernel depthwise": (depthwise, (INPUTS["sequence"], floats(3, 1, 2))),
    "kernel max_pool": (partial(max_pool, size=2), (INPUTS["image"],)),
    "kernel average_pool": (partial(average_pool, size=2), (INPUTS["image"],)),
    "kernel sixteen_bits": (partial(sixteen_bits, shape=(3, 5)), (KEY,)),
    "kernel threefry": (threefry, ((jnp.uint32(1), jnp.uint32(2)), *jnp.uint32([[3], [4]]))),
    "preprocess table": preprocessed(
        "table", floats(20, 4), missing="mean", outliers="iqr", scale="standard", pca=2),
    "preprocess image": preprocessed(
        "image", RNG.integers(0, 256, (N, 8, 8, 3)).astype(np.uint8), color="grayscale",
        scale="standard"),
    "preprocess audio": preprocessed(
        "audio", floats(N, 400), 8000, audio="log_mel", n_fft=64, hop=32, num_mels=8),
}  # fmt: skip


class TestPureFunctions(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters((name, name) for name in CASES)
    def test_says_the_same_with_and_without_jit(self, name):
        function, arguments = CASES[name]
        arguments = jax.tree.map(jnp.asarray, arguments)
        before = jax.tree.map(jnp.copy, arguments)
        once, again = self.variant(function)(*arguments), self.variant(function)(*arguments)
        chex.assert_trees_all_equal(once, again)
        chex.assert_trees_all_equal(arguments, before)
        chex.assert_trees_all_close(once, function(*arguments), rtol=1e-5, atol=1e-6)
        chex.assert_tree_all_finite(once)


BROADCAST = {
    "targets of another shape": ("targets have shape", LOSSES["mse"], (LOGITS, floats(N, 1))),
    "a weight an output": ("one weight an output", positively_weighted,
                           (LOGITS, LABELS, floats(N, 1))),
    "a weight of a column": ("one weight and one loss", collected("regression")[0],
                             (NUMBERS, None, NUMBERS, WEIGHTS[:, None], floats(N))),
    "metrics of two batches": ("of one batch", collected("regression")[0],
                               (NUMBERS, None, NUMBERS[:1], WEIGHTS, floats(N))),
    "several steps": ("of one run", make_schedule({"name": "cosine"}, 9), (jnp.arange(3), {})),
    "several strengths": ("one strength", unless_zero, (floats(3), LOGITS, LOGITS)),
    "an augmentation that repeats": ("keeps shapes", unless_zero, (0.1, LOGITS, LOGITS[:1])),
    "one partner": ("one with one", mixed, (LOGITS, floats(N), LOGITS[:1])),
    "one share": ("one share", mixed, (LOGITS, floats(1), LOGITS)),
    "several keys": ("use jax.vmap", threefry, (jnp.zeros((2, 3), jnp.uint32),) * 3),
    "pixels without channels": ("channels", partial(max_pool, size=2), (LOGITS,)),
    "one image": ("of the kind 'image'", preprocessed("image", INPUTS["image"])[0],
                  ({}, INPUTS["image"][0])),
}  # fmt: skip


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("case", BROADCAST)
def test_what_would_broadcast_is_refused_while_traced(case):
    says, function, arguments = BROADCAST[case]
    with pytest.raises(AssertionError, match=says):
        jax.eval_shape(function, *arguments)
