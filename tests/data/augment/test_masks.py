"""Masks move with their images, to the pixel, and stay where colours alone change."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.data import augment
from jdlopt.data.augment.batch import make_augment
from jdlopt.data.preprocess import PreprocessFields
from jdlopt.data.spec import DataSpec, InputSpec

N, H, W = 6, 9, 8
RNG = np.random.default_rng(0)
MASKS = RNG.integers(-1, 4, (N, H, W)).astype(np.int32)
IMAGES = (MASKS[..., None] + 1).astype(np.float32)  # an image that shows its mask


def section(**changes):
    problems = []
    made = configs.check_section(changes, augment.schema(changes, problems), "augment", problems)
    assert not problems
    return made


def augmented(images=IMAGES, masks=MASKS, step=0, **changes):
    made = section(**changes)
    change = make_augment(made, size=N, batch_size=N, num_outputs=4, classes=4, masks=True)
    strengths = configs.hyperparameters({"data": {"augment": made}})["augment"]
    batch = {"inputs": jnp.asarray(images), "targets": jnp.asarray(masks), "step": jnp.int32(step)}
    found = jax.jit(lambda key: change(key, batch, strengths, lambda inputs: inputs))(
        jax.random.key(1)
    )
    return np.asarray(found["inputs"]), np.asarray(found["targets"])


def test_masks_move_with_their_images():
    images, masks = augmented(flip=0.5, flip_vertical=0.5, crop=0.3)
    assert (masks != MASKS).any() and masks.dtype == np.int32
    # what lies beyond the border is void, as 0 in the images
    np.testing.assert_array_equal(images[..., 0] - 1, masks)
    assert (masks == -1).mean() > (MASKS == -1).mean()


@pytest.mark.slow
@pytest.mark.parametrize("fill", ["constant", "reflect", "edge"])
def test_masks_show_the_nearest_pixel_whatever_images_show(fill):
    moves = {"rotate": 40.0, "zoom": 0.3, "shear": 10.0, "shift": 0.2, "flip": 0.5, "fill": fill}
    images, masks = augmented(**moves, interpolation="nearest")
    np.testing.assert_array_equal(images[..., 0] - 1, masks)
    assert (masks != MASKS).any()
    np.testing.assert_array_equal(augmented(**moves)[1], masks)


def test_what_changes_colours_alone_leaves_masks():
    images, masks = augmented(brightness=0.3, cutout=0.4, crop=0.0)
    assert (images != IMAGES).any()
    np.testing.assert_array_equal(masks, MASKS)


def test_every_other_epoch_both_are_mirrored():
    for step in range(2):
        images, masks = augmented(step=step, alternating_flip=True)
        np.testing.assert_array_equal(images[..., 0] - 1, masks)
    mirrored = (masks == MASKS[:, :, ::-1]).all((1, 2))
    assert 0 < mirrored.sum() < N
    one = augmented(step=0, alternating_flip=True)[1]
    np.testing.assert_array_equal(one, masks[:, :, ::-1])


def test_what_can_not_move_masks_is_refused():
    spec = DataSpec(
        "made", "made", "segmentation", InputSpec((H, W, 3), "uint8"), {"train": N},
        class_names=("a", "b"), target_shape=(H, W), positions=2,
    )  # fmt: skip
    fields = PreprocessFields()
    said = augment.problems(
        section(
            mixup=0.2, cutmix=1.0, rand_augment=0.3, trivial_augment=0.3, rotate=10.0, hue=0.1,
            own={"more": {"name": "rotate", "strength": 5.0}},
        ),
        spec,
        fields,
    )  # fmt: skip
    told = {line.split(":")[0].removeprefix("data.augment.") for line in said}
    assert told == {"mixup", "cutmix", "rand_augment", "trivial_augment", "own.more"}
    fitting = augment.fitting(augment.inputs_of(spec, fields))
    assert "rotate" in fitting and not {"mixup", "rand_augment"} & set(fitting)
