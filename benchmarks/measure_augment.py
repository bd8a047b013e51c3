"""Measures image augmentation against torchvision and Keras: same augmentations, same CPU, in turn.

    make bench BENCHMARKS=benchmarks/measure_augment.py

Each way takes shuffled batches of 256 byte images of 32 × 32 × 3 and makes augmented floats of
them: crop, flip, rotation by up to 15°, brightness and cutout, drawn for each image (Keras's crops
also end between pixels, and its brightness adds instead of multiplying). torchvision's v2
transforms run in a DataLoader with two workers, on tensors and on Pillow images; Keras's layers are
compiled, as one program for all or as one a layer. Of each library the faster way counts. Rotations
are compared with the same interpolation, and RandAugment with RandAugment.

torchvision is no requirement of `make bench`: where it can't be imported the script says so and
compares with Keras alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import numpy as np
from recording import alternating, spread, write

REPETITIONS = 5
BATCH = 256
SIZE = 32
IMAGES = 10240
TARGET = 3.0
CROP, FLIP, DEGREES, BRIGHTNESS, CUTOUT = 0.125, 0.5, 15.0, 0.2, 0.25
MAGNITUDE, OPERATIONS = 0.3, 2
WAYS = ("nearest", "bilinear", "rand_augment")


def batches(images: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """Yields shuffled batches of bytes."""
    order = np.random.default_rng(0).permutation(len(images))
    for index in range(count):
        start = index * BATCH % len(images)
        yield images[order[start : start + BATCH]]


# --- jdlopt ---------------------------------------------------------------------------------------


def jdlopt_program(way: str) -> Callable[..., Any]:
    """Returns the compiled ``(key, bytes) → augmented images``."""
    import jax
    import jax.numpy as jnp

    from jdlopt.data.augment import AUGMENTATIONS
    from jdlopt.data.augment.image.brightness import brightness
    from jdlopt.data.augment.image.cutout import cutout
    from jdlopt.data.augment.image.rand_augment import rand_augment
    from jdlopt.data.augment.image.warp import warp

    def augment(key: Any, images: Any, strengths: dict[str, Any]) -> Any:
        images = images.astype(jnp.float32) / 255
        if way == "rand_augment":
            return rand_augment(key, images, strengths["magnitude"], operations=OPERATIONS)
        keys = jax.random.split(key, 3)
        moves = [
            (move, strengths[name])
            for name in ("crop", "flip", "rotate")
            if (move := AUGMENTATIONS[name].move)
        ]
        images = warp(keys[0], images, moves, interpolation=way)
        images = brightness(keys[1], images, strengths["brightness"])
        return cutout(keys[2], images, strengths["cutout"])

    strengths = {
        "crop": CROP,
        "flip": FLIP,
        "rotate": DEGREES,
        "brightness": BRIGHTNESS,
        "cutout": CUTOUT,
        "magnitude": MAGNITUDE,
    }
    strengths = {name: jnp.float32(strength) for name, strength in strengths.items()}
    compiled = jax.jit(augment)
    return lambda key, images: compiled(key, images, strengths)


def keras_program(by_layer: bool) -> Callable[..., Any]:
    """Returns Keras's layers as ``(key, bytes) → augmented images``, compiled.

    Args:
      by_layer: make a program of each layer, where one of all of them would have XLA compute the
        pixels of one layer again and again for the next.
    """
    import jax
    import keras

    layers = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.RandomTranslation(CROP, CROP, fill_mode="constant"),
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomRotation(DEGREES / 360, fill_mode="constant"),
        keras.layers.RandomBrightness(BRIGHTNESS, value_range=(0.0, 1.0)),
        keras.layers.RandomErasing(
            scale=(CUTOUT**2, CUTOUT**2), fill_value=0.0, value_range=(0.0, 1.0)
        ),
    ]
    groups = [[layer] for layer in layers] if by_layer else [layers]
    models = [keras.Sequential([keras.Input((SIZE, SIZE, 3)), *group]) for group in groups]
    seeds = [[variable.value for variable in model.variables] for model in models]
    programs = [jax.jit(partial(model.stateless_call, [], training=True)) for model in models]

    def augment(_: Any, images: Any) -> Any:
        for index, program in enumerate(programs):
            images, seeds[index] = program(seeds[index], images)
        return images

    return augment


def compiled_rate(program: Callable[..., Any], images: np.ndarray, count: int) -> float:
    """Returns the images per second of a compiled program, batch by batch."""
    import jax

    keys = list(jax.random.split(jax.random.key(0), count + 1))
    jax.block_until_ready(program(keys[0], images[:BATCH]))
    start = time.perf_counter()
    for key, batch in zip(keys[1:], batches(images, count), strict=True):
        jax.block_until_ready(program(key, batch))
    return count * BATCH / (time.perf_counter() - start)


# --- torchvision ----------------------------------------------------------------------------------


class Images:
    """A dataset as torchvision's are: an image at a time, transformed when it is asked for."""

    def __init__(self, images: np.ndarray, way: str, kind: str):
        self.images, self.kind = images, kind
        self.transform = torchvision_transform(way)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        import torch
        from PIL import Image

        if self.kind == "pillow":
            return self.transform(Image.fromarray(self.images[index]))
        # channels first, as torchvision has them
        return self.transform(torch.from_numpy(self.images[index]).permute(2, 0, 1))


def torchvision_transform(way: str) -> Any:
    """Returns the transform of one image, to floats."""
    import torch
    from torchvision.transforms import v2

    to_floats = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    if way == "rand_augment":
        return v2.Compose([v2.RandAugment(OPERATIONS, round(30 * MAGNITUDE)), *to_floats])
    return v2.Compose(
        [
            v2.RandomCrop(SIZE, padding=round(CROP * SIZE)),
            v2.RandomHorizontalFlip(FLIP),
            v2.RandomRotation(DEGREES, interpolation=v2.InterpolationMode(way)),
            v2.ColorJitter(brightness=BRIGHTNESS),
            *to_floats,
            v2.RandomErasing(1.0, scale=(CUTOUT**2, CUTOUT**2), ratio=(1.0, 1.0)),
        ]
    )


def torchvision_loader(images: np.ndarray, way: str, kind: str) -> Any:
    """Returns a DataLoader of two workers, which are started once and kept."""
    import torch

    return torch.utils.data.DataLoader(
        Images(images, way, kind),
        batch_size=BATCH,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context="spawn",  # a fork of a process with XLA's threads may hang
    )


def loader_rate(loader: Any) -> float:
    """Returns the images per second of one epoch."""
    start = time.perf_counter()
    count = sum(len(batch) for batch in loader)
    return count / (time.perf_counter() - start)


def torchvision_version() -> str | None:
    """Returns torchvision's version, or None and says why if it can't be imported."""
    try:
        import torchvision
        from torchvision.transforms import v2  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # it may not fit the torch that is there
        print(f"torchvision can't be imported, so it is not measured: {error}", flush=True)
        return None
    return torchvision.__version__


def runs_of(way: str, images: np.ndarray, with_torchvision: bool) -> dict[str, Any]:
    """Returns what is measured for one way: name → a run that gives images per second."""
    count = 400 if way != "rand_augment" else 100
    runs = {"jdlopt": partial(compiled_rate, jdlopt_program(way), images, count)}
    if way == "bilinear":  # Keras's default
        for name, by_layer in (("one program", False), ("a program a layer", True)):
            runs[f"keras, {name}"] = partial(compiled_rate, keras_program(by_layer), images, 12)
    if with_torchvision:
        for kind in ("tensor", "pillow"):
            loader = torchvision_loader(images, way, kind)
            loader_rate(loader)  # its workers start
            runs[f"torchvision, {kind}"] = partial(loader_rate, loader)
    return runs


def main() -> None:
    """Measures the three ways and writes the ratios."""
    import keras

    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    torchvision = torchvision_version()
    found = {}
    for way in WAYS:
        runs = runs_of(way, images, torchvision is not None)
        rates = alternating(runs, REPETITIONS)
        found[way] = {
            "images_per_second": {name: spread(values) for name, values in rates.items()},
            "ratio": {},
            "target": TARGET,
        }
        for library in ("torchvision", "keras"):
            peers = [name for name in rates if name.startswith(library)]
            if not peers:
                continue
            best = max(peers, key=lambda name: spread(rates[name])["median"])
            ratios = [a / b for a, b in zip(rates["jdlopt"], rates[best], strict=True)]
            found[way]["ratio"][library] = {"peer": best, **spread(ratios)}
            print(f"{way}: {spread(ratios)['median']:.2f} × {best} {ratios}", flush=True)
    versions = {"torchvision": torchvision, "keras": keras.__version__}
    write("augment", {**versions, "batch": BATCH, "image": [SIZE, SIZE, 3], "ways": found})


if __name__ == "__main__":
    main()
