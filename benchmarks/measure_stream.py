"""Measures what streaming costs a run: the share of a step's time that is lost to data.

    python benchmarks/measure_stream.py

The 2-D CNN of configs/image/mnist_cnn.py trains from 60,000 PNG images in ArrayRecord files: MNIST
where it was prepared (docs/data.md says how), otherwise images like it, drawn from scikit-learn's
digits. One run in three keeps them in memory; the others read them from the files while they train,
by threads and by worker processes. ``data_wait_share`` is what `fit` says of itself; ``lost`` is
how much longer a step took by the clock than in the run in memory beside it.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from recording import alternating, spread, write

from jdlopt import config as configs
from jdlopt.data import cache, feed, open_dataset
from jdlopt.train.loop import fit

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "image" / "mnist_cnn.py"
REPETITIONS = 2
STEPS = 200
SIZE = 60_000
WAYS = {
    "in memory": {"data.in_memory": True},
    "threads": {"data.in_memory": False, "data.workers": 0},
    "2 workers": {"data.in_memory": False, "data.workers": 2},
}


def digit_images(seed: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yields PNG images of 28×28 pixels and their classes: 8×8 digits enlarged and shifted."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(seed)
    for index in rng.integers(0, len(digits.target), SIZE):
        small = Image.fromarray((digits.images[index] * 15.9).astype(np.uint8))
        image = Image.new("L", (28, 28))
        image.paste(small.resize((20, 20), Image.Resampling.BICUBIC), tuple(rng.integers(2, 7, 2)))
        encoded = io.BytesIO()
        image.save(encoded, format="PNG")
        yield encoded.getvalue(), int(digits.target[index])


def prepare(folder: str) -> None:
    """Writes `digit_images` as TFDS writes MNIST."""
    import tensorflow_datasets as tfds

    class MnistLike(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "mnist_like"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for index, (image, label) in enumerate(digit_images()):
                yield index, {"image": image, "label": label}

    MnistLike(data_dir=folder, file_format="array_record").download_and_prepare()


def trained(config: dict[str, Any]) -> dict[str, float]:
    """Returns the seconds a step and the share that was waited, as a run reports them."""
    with tempfile.TemporaryDirectory() as workdir:
        record = fit(config, Path(workdir) / "run").record
    return {
        "step_seconds": config["data"]["batch_size"] / record["examples_per_second"],
        "data_wait_share": record["data_wait_share"],
    }


def read_seconds(config: dict[str, Any], batches: int = 50) -> list[float]:
    """Returns how long one thread takes to read each of some batches, with nothing beside it."""
    records = open_dataset({**config["data"], "in_memory": False}).records("train")
    size, found = config["data"]["batch_size"], []
    for examples in feed.batch_examples(0, 0, size, len(records), batches):
        start = time.perf_counter()
        feed.read_examples(records, examples)
        found.append(time.perf_counter() - start)
    return found[1:]  # the first opens the files


def main() -> None:
    """Trains each way in turn and writes the shares."""
    with tempfile.TemporaryDirectory() as folder:
        source, data_dir = "mnist", None
        if cache.prepared_folder("mnist", None) is None:
            source, data_dir = "mnist_like", folder
            prepare(folder)
        config = configs.to_dict(configs.load(CONFIG))
        # labels read for a stratified split would leave the images in memory, and so would scaling
        config["data"] |= {
            "source": source,
            "data_dir": data_dir,
            "stratify": False,
            "validation_fraction": 0.01,
            "test_fraction": 0.01,
            "preprocess": {"scale": "none"},
        }
        config["train"] = {"steps": STEPS, "eval_every": STEPS, "evaluate_test": False}
        reading = read_seconds(config)
        runs = {
            way: partial(trained, configs.to_dict(configs.override(config, keys)))
            for way, keys in WAYS.items()
        }
        found: dict[str, list[Any]] = alternating(runs, REPETITIONS)
    memory = [run["step_seconds"] for run in found["in memory"]]
    ways = {}
    for way, measured in found.items():
        seconds = [run["step_seconds"] for run in measured]
        ways[way] = {"step_seconds": spread(seconds)}
        if way != "in memory":
            lost = [mine / other - 1 for mine, other in zip(seconds, memory, strict=True)]
            waited = [run["data_wait_share"] for run in measured]
            ways[way] |= {"data_wait_share": spread(waited), "lost": spread(lost)}
            print(f"{way}: waited {np.median(waited):.2%}, lost {np.median(lost):+.2%} {lost}")
    write(
        "stream",
        {
            "target": "lost < 0.05",
            "config": str(CONFIG.relative_to(ROOT)),
            "source": source,
            "batch_size": config["data"]["batch_size"],
            "steps": STEPS,
            "batch_read_seconds": spread(reading),
            "ways": ways,
        },
    )


if __name__ == "__main__":
    main()
