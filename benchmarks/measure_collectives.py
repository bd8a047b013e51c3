"""What devices say to each other in a training step of every config, as the TPU's compiler has it.

    python benchmarks/measure_collectives.py [--cases='[["digits_cnn", 2, 2, {}]]'] [--json]

Each config of `configs/`, and ViT-B and ResNet-50 on images of 224 × 224, is compiled for a
topology that is not here: nothing is run. Where the data are not in the package, made ones of the
same form stand in. libtpu has to be there (the extra ``plan``).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # it can't read what was compiled for elsewhere

import jax
import numpy as np
from jax.experimental import topologies
from PIL import Image
from recording import write
from scipy.io import wavfile

from jdlopt import config as configs
from jdlopt import mesh as meshes
from jdlopt.plan.collectives import collectives_of
from jdlopt.plan.hlo import parse
from jdlopt.plan.operations import work_of
from jdlopt.plan.roofline import sent_bytes
from jdlopt.train import memory
from jdlopt.train.compiling import compile_options
from jdlopt.train.experiment import Experiment
from jdlopt.train.steps import gather, stored

ROOT = Path(__file__).parents[1]
TOPOLOGY = "v5e:2x2"
COUNT = 512
"""Examples of a made dataset."""
WORDS = 6000
"""Different words in made texts: about the vocabulary of a small corpus."""


def images(folder: Path, shape: tuple[int, ...] = (28, 28, 1), classes: int = 10) -> Path:
    """Makes images as an npz file."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, *shape), dtype=np.uint8)
    np.savez(folder / "made.npz", x_train=pixels, y_train=np.arange(COUNT) % classes)
    return folder / "made.npz"


def pictures(folder: Path) -> Path:
    """Makes a folder of pictures."""
    for index in range(COUNT):
        place = folder / "made" / "train" / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(place / f"{index}.png")
    return folder / "made"


def texts(folder: Path, column: str = "text") -> Path:
    """Makes a table of texts with two labels."""
    rng = np.random.default_rng(0)
    rows = [
        f"{' '.join(f'w{word}' for word in rng.integers(0, WORDS, 300))},{index % 2}"
        for index in range(COUNT)
    ]
    (folder / "made.csv").write_text("\n".join([f"{column},label", *rows]), "utf-8")
    return folder / "made.csv"


def sounds(folder: Path) -> Path:
    """Makes a folder of sounds of one second."""
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        place = folder / "made" / "train" / ("yes", "no")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        wavfile.write(
            place / f"{index}.wav", 16000, (rng.normal(size=16000) * 1000).astype(np.int16)
        )
    return folder / "made"


def table(folder: Path, header: str, row: Callable[[int], str]) -> Path:
    """Makes a table."""
    rows = [row(index) for index in range(COUNT)]
    (folder / "made.csv").write_text("\n".join([header, *rows]), "utf-8")
    return folder / "made.csv"


def numbers(folder: Path) -> Path:
    """Makes a table of a number, a category and a class."""
    return table(
        folder, "size,colour,target", lambda i: f"{i % 7},{('red', 'blue')[i % 2]},{i % 2}"
    )


def mixed(folder: Path) -> Path:
    """Makes a table of pictures' names, texts and numbers."""
    (folder / "pictures").mkdir()
    for index in range(COUNT):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(folder / "pictures" / f"{index}.png")
    good = ("works well and is quick", "is broken and very slow")
    return table(
        folder,
        "picture,note,price,target",
        lambda i: f"pictures/{i}.png,number {i} {good[i % 2]} as all say,{i % 7 + i / 9},{i % 2}",
    )


MADE: dict[str, Callable[[Path], Path]] = {
    "speech_commands": sounds,
    "cifar10": lambda folder: images(folder, (32, 32, 3)),
    "imagenet2012": pictures,
    "fashion_mnist": images,
    "mnist_cnn": images,
    "mnist_lenet": images,
    "mnist_resnet": images,
    "mnist_vit": images,
    "own_csv": numbers,
    "own_labels": lambda folder: table(
        folder,
        "size,age,labels",
        lambda i: f"{i % 7},{i % 5},{'|'.join(n for n in 'ab' if i % (3 + (n == 'b')))}",
    ),
    "own_outputs": lambda folder: table(
        folder, "size,height,weight", lambda i: f"{i % 7},{i / 3},{i * i / 10}"
    ),
    "own_mixed": mixed,
    "own_wide_and_deep": numbers,
    "imdb_reviews": texts,
    "imdb_transformer": texts,
    "minilm": texts,
    "sst2": lambda folder: texts(folder, "sentence"),
}
"""Data in place of those that are not in the package."""

LARGE: dict[str, dict[str, Any]] = {
    "vit_b": {
        "model": {"name": "vit", "variant": "B", "patch_size": 16, "dtype": "bfloat16"},
        "optim": {"name": "adamw", "weight_decay": 0.05},
    },
    "resnet50": {
        "model": {"name": "resnet", "depth": 50, "dtype": "bfloat16"},
        "optim": {"name": "momentum", "learning_rate": 0.1},
    },
}
"""Published networks on images of 224 × 224, with the augmentation of their recipes."""


def config_of(name: str, folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Returns the config of a case, whose data lie in a folder."""
    if name in LARGE:
        source = images(folder, (224, 224, 3), classes=100)
        data = {
            "source": str(source),
            "batch_size": 128,
            "in_memory": False,
            "preprocess": {"standardize": True},
            "augment": {"resized_crop": 0.75, "flip": 0.5},
        }
        return configs.to_dict(configs.override({**LARGE[name], "data": data}, changes))
    [path] = (ROOT / "configs").glob(f"*/{name}.py")
    raw = configs.to_dict(configs.load(path))
    given: dict[str, Any] = {"train.tensorboard": False}
    if name in MADE:
        given["data.source"] = str(MADE[name](folder))
    rows = raw["data"].get("batch_size", COUNT)
    given["data.batch_size"] = min(128, -(-rows // 4) * 4)
    return configs.to_dict(configs.override(raw, {**given, **changes}))


def cases() -> list[list[Any]]:
    """Returns what is compiled: a name, the mesh, and changes.

    Every config on two meshes; few and many layers, scanned and not; the large networks, ViT-B with
    its layers scanned: unrolled, all twelve of them are compiled one by one.
    """
    names = sorted(path.stem for path in (ROOT / "configs").glob("*/*.py"))
    layers = [
        ["mnist_vit", 1, 4, {"model.dtype": "bfloat16", "model.num_layers": count,
                             "model.scan_layers": scan}]
        for count in (3, 12)
        for scan in (False, True)
    ]  # fmt: skip
    return [
        *([name, data, 4 // data, {}] for data in (2, 4) for name in names),
        *layers,
        ["vit_b", 1, 4, {"model.scan_layers": True}],
        *(["resnet50", data, 4 // data, {}] for data in (2, 4)),
    ]


def measured(name: str, data: int, fsdp: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Returns what the compiler makes of a case's training step on a mesh.

    Args:
      name: of a config, or of a large network.
      data, fsdp: the mesh.
      changes: overrides of the config, by dotted key.
    """
    started = time.perf_counter()
    devices = topologies.get_topology_desc(TOPOLOGY, "tpu").devices
    with tempfile.TemporaryDirectory() as folder:
        raw = config_of(name, Path(folder), {"mesh.data": data, "mesh.fsdp": fsdp, **changes})
        experiment = Experiment.build(raw, check=False, num_devices=len(devices))
        mesh = meshes.make_mesh(experiment.config.mesh, devices)
        built = time.perf_counter()
        lowered = memory.lowered_step(experiment, mesh)
        ready = time.perf_counter()
        compiled = lowered.compile(compile_options(platform="tpu"))
        done = time.perf_counter()
    text = compiled.as_text() or ""
    module = parse(text)
    kinds: dict[str, dict[str, Any]] = {}
    sent = 0.0
    for one in collectives_of(module, work_of(module), dict(mesh.shape)):
        kind = kinds.setdefault(f"{one.kind} {one.dtype}", {"count": 0, "bytes": 0})
        kind["count"] += round(one.times)
        kind["bytes"] += round(one.times * one.nbytes)
        sent += one.times * sent_bytes(one)[0]
    params = jax.tree.leaves(jax.eval_shape(lambda: experiment.init(0)).params)
    needed, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return {
        "mesh": {"data": data, "fsdp": fsdp},
        "changes": changes,
        "batch": experiment.config.data.batch_size,
        "parameter_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in params),
        "collectives": dict(sorted(kinds.items())),
        "sent_bytes": round(sent),
        "argument_bytes": needed.argument_size_in_bytes,
        "output_bytes": needed.output_size_in_bytes,
        "aliased_bytes": needed.alias_size_in_bytes,
        "temporary_bytes": needed.temp_size_in_bytes,
        "bytes_accessed": cost.get("bytes accessed", 0.0),
        "flops": cost.get("flops", 0.0),
        "read_one_by_one": sum(map(_reads, GATHER.findall(text))),
        "scatters": text.count(" scatter("),
        "calls": sorted(set(CALL.findall(text))),
        "build_seconds": built - started,
        "lower_seconds": ready - built,
        "compile_seconds": done - ready,
    }


def reading(count: int = 50_000, shape: tuple[int, ...] = (32, 32, 3)) -> dict[str, Any]:
    """Returns what it takes to read a batch of images in memory, stored flat and as they are."""
    device = topologies.get_topology_desc(TOPOLOGY, "tpu").devices[0]
    place = jax.sharding.SingleDeviceSharding(device)
    whole = {"inputs": jax.ShapeDtypeStruct((count, *shape), np.uint8)}
    found = {}
    for way, data in (("flat", jax.eval_shape(stored, whole)), ("as they are", whole)):
        given = (data, jax.ShapeDtypeStruct((128,), np.int32))
        compiled = jax.jit(gather, in_shardings=place, out_shardings=place).lower(*given).compile()
        found[way] = {
            "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
            "bytes_accessed": compiled.cost_analysis().get("bytes accessed", 0.0),
        }
    return found


def split(name: str) -> dict[str, Any]:
    """Returns how many parameters' arrays FSDP would split of a network, by the smallest of them.

    Beside each number is the share of the parameters that would lie everywhere.
    """
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment.build(config_of(name, Path(folder), {}), check=False)
    sizes = [
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: experiment.init(0)).params)
    ]
    return {
        str(bound): {
            "arrays": sum(size >= bound for size in sizes),
            "whole": sum(size for size in sizes if size < bound) / sum(sizes),
        }
        for bound in (1 << power for power in range(10, 17))
    }


GATHER = re.compile(r" = \w+\[([\d,]*)\]\S* gather\(.*slice_sizes=\{([\d,]*)\}")
"""A gather: the shape of what it gives, and what it takes at each place."""
CALL = re.compile(r'custom_call_target="([^"]+)"')


def _reads(found: tuple[str, str]) -> int:
    """How many places a gather reads from."""
    given, taken = (math.prod(map(int, filter(None, text.split(",")))) for text in found)
    return given // max(1, taken)


def label_of(name: str, data: int, fsdp: int, changes: dict[str, Any]) -> str:
    """Returns the name of a case in the record."""
    return " ".join([name, f"{data}x{fsdp}", *(f"{key}={value}" for key, value in changes.items())])


def main() -> None:
    """Compiles the cases that are asked for, and writes what was found, or prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", help="JSON: a list of [name, data, fsdp, {key: value}]")
    parser.add_argument("--json", action="store_true", help="print, and write nothing")
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    if asked.json or not asked.cases:
        found["data in memory"] = reading()
    if not asked.cases:
        found["arrays"] = {name: split(name) for name in LARGE}
    for case in json.loads(asked.cases) if asked.cases else cases():
        label, one = label_of(*case), measured(*case)
        found[label] = one
        if not asked.json:
            print(label, json.dumps(one["collectives"]), f"{one['compile_seconds']:.0f} s")
            write("collectives", found, keep=True)
    if asked.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
