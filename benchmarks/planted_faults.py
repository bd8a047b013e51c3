"""Runs that are broken in one known way each, and sound ones, for measuring `diagnose`.

A fault is planted in data, model or config of a run that is sound without it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdlopt import config as configs
from jdlopt.data.source import open_dataset

CONFIGS = Path(__file__).parent.parent / "configs"
Config = dict[str, Any]


class Fault(NamedTuple):
    """One way to break a run.

    Attributes:
      expected: the findings that name it; one of them has to come first.
      make: ``(folder for data, seed) → config``.
      what: the fault, in words.
    """

    expected: tuple[str, ...]
    make: Callable[[Path, int], Config]
    what: str


# --- the sound runs that faults are planted in ----------------------------------------------------


def on_mnist1d(seed: int, **changes: Any) -> Config:
    """Returns a sound run of an MLP on MNIST-1D, with dotted keys changed."""
    config = {
        "seed": seed,
        "data": {"source": "mnist1d", "batch_size": 100, "split_seed": seed},
        "model": {"name": "mlp", "features": (256, 256), "dropout_rate": 0.3},
        "loss": {"name": "cross_entropy"},
        "optim": {
            "name": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": 0.1,
            "schedule": {"name": "cosine", "warmup_steps": 50},
        },
        "train": {"epochs": 60, "monitor": "validation/loss"},
    }
    return changed(config, changes)


def on_table(seed: int, source: str, **changes: Any) -> Config:
    """Returns a sound run of a small MLP on a table, with dotted keys changed."""
    config = {
        "seed": seed,
        "data": {
            "source": source,
            "batch_size": 32,
            "split_seed": seed,
            "validation_fraction": 0.25,
            "preprocess": {"scale": "standard"},
        },
        "model": {"name": "mlp", "features": (32, 32), "dropout_rate": 0.1},
        "loss": {"name": "cross_entropy"},
        "optim": {"name": "adamw", "learning_rate": 3e-3, "schedule": {"name": "cosine"}},
        "train": {"epochs": 30, "monitor": "validation/loss"},
    }
    return changed(config, changes)


def changed(config: Config, changes: dict[str, Any]) -> Config:
    """Returns a config with keys ``section__key`` set."""
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return configs.to_dict(configs.override(copy.deepcopy(config), dotted))


def arrays_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the training examples of a bundled dataset, all of them that are not test."""
    dataset = open_dataset({"source": name})
    parts = [dataset.read(split) for split in ("train", "validation")]
    inputs, targets = (np.concatenate([p[place] for p in parts]) for place in (0, 1))
    return inputs, targets


def split_npz(folder: Path, name: str, train: Any, validation: Any) -> str:
    """Writes an archive with splits of its own (test is validation again); returns its path."""
    path = folder / f"{name}.npz"
    parts = {"train": train, "validation": validation, "test": validation}
    arrays = {f"{what}_{k}": v[i] for k, v in parts.items() for i, what in enumerate("xy")}
    np.savez(path, **arrays)
    return str(path)


def shuffled_split(
    name: str, seed: int, share: float = 0.25
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns a bundled dataset's training examples, split at random."""
    inputs, targets = arrays_of(name)
    order = np.random.default_rng(seed).permutation(len(targets))
    cut = int(share * len(targets))
    held, rest = order[:cut], order[cut:]
    return (inputs[rest], targets[rest]), (inputs[held], targets[held])


# --- broken models --------------------------------------------------------------------------------


class DeadReLU(nn.Module):
    """Its hidden units have a bias of -10."""

    num_outputs: int

    @nn.compact
    def __call__(self, inputs, train: bool = False):
        """Maps inputs of any shape to logits."""
        x = inputs.reshape(len(inputs), -1)
        x = nn.relu(nn.Dense(128, kernel_init=nn.initializers.he_normal())(x))
        low = nn.initializers.constant(-10.0)
        x = nn.relu(nn.Dense(128, kernel_init=nn.initializers.he_normal(), bias_init=low)(x))
        return nn.Dense(self.num_outputs)(x)


class LayerOffScale(nn.Module):
    """Its second layer starts with weights 100 times too large."""

    num_outputs: int

    @nn.compact
    def __call__(self, inputs, train: bool = False):
        """Maps inputs of any shape to logits."""
        x = inputs.reshape(len(inputs), -1)
        for index in range(3):
            gain = 2.0 * (1e4 if index == 1 else 1.0)
            init = nn.initializers.variance_scaling(gain, "fan_in", "normal")
            x = nn.relu(nn.Dense(128, kernel_init=init)(x))
        return nn.Dense(self.num_outputs)(x)


class Exploding(nn.Module):
    """Twelve layers, each of which makes values three times as large."""

    num_outputs: int

    @nn.compact
    def __call__(self, inputs, train: bool = False):
        """Maps inputs of any shape to logits."""
        x = inputs.reshape(len(inputs), -1)
        init = nn.initializers.variance_scaling(2.0 * 9.0, "fan_in", "normal")
        for _ in range(12):
            x = nn.relu(nn.Dense(64, kernel_init=init)(x))
        return nn.Dense(self.num_outputs)(x)


class SaturatedTanh(nn.Module):
    """Three tanh layers whose weights start so large that they are at their limits."""

    num_outputs: int

    @nn.compact
    def __call__(self, inputs, train: bool = False):
        """Maps inputs of any shape to logits."""
        x = inputs.reshape(len(inputs), -1)
        init = nn.initializers.variance_scaling(900.0, "fan_in", "normal")
        for _ in range(3):
            x = jnp.tanh(nn.Dense(128, kernel_init=init)(x))
        return nn.Dense(self.num_outputs)(x)


class Overflowing(nn.Module):
    """Its hidden values come near 100,000, which is more than float16 holds."""

    num_outputs: int

    @nn.compact
    def __call__(self, inputs, train: bool = False):
        """Maps inputs of any shape to logits."""
        x = inputs.reshape(len(inputs), -1)
        x = nn.relu(nn.Dense(128)(x)) * jnp.asarray(6e4, x.dtype)
        # XLA's CPU backend would keep float32 from one operation to the next
        x = jax.lax.reduce_precision(x, exponent_bits=5, mantissa_bits=10)
        return nn.Dense(self.num_outputs)(x / jnp.asarray(6e4, x.dtype))


# --- broken data ----------------------------------------------------------------------------------


def leaked_target(folder: Path, seed: int) -> Config:
    """A column of the table is the target, with a little noise."""
    import pandas as pd

    inputs, targets = arrays_of("breast_cancer")
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(inputs[:, :10], columns=[f"measured_{i}" for i in range(10)])
    frame["follow_up"] = targets * 3.0 + draw.normal(size=len(targets)) * 0.3
    frame["diagnosis"] = np.where(targets, "benign", "malignant")
    path = folder / "leaked.csv"
    frame.to_csv(path, index=False)
    return on_table(seed, str(path), data__target="diagnosis")


def wrong_labels(folder: Path, seed: int) -> Config:
    """Three in ten labels are drawn anew."""
    draw = np.random.default_rng(seed)
    train, validation = shuffled_split("digits", seed)
    splits = []
    for inputs, targets in (train, validation):
        wrong = draw.random(len(targets)) < 0.3
        drawn = draw.integers(10, size=len(targets))
        splits.append((inputs, np.where(wrong, drawn, targets)))
    path = split_npz(folder, "wrong_labels", *splits)
    return on_mnist1d(seed, data__source=path, data__preprocess={"scale": "standard"})


def unscaled_inputs(folder: Path, seed: int) -> Config:
    """Features a thousand times too large, and nothing scales them."""
    train, validation = shuffled_split("mnist1d", seed)
    splits = [(inputs * 1000, targets) for inputs, targets in (train, validation)]
    return on_mnist1d(seed, data__source=split_npz(folder, "unscaled", *splits))


def unscaled_target(folder: Path, seed: int) -> Config:
    """Numbers to predict of 250,000 ± 100,000, and nothing scales them."""
    import pandas as pd

    inputs, targets = arrays_of("diabetes")
    frame = pd.DataFrame(inputs, columns=[f"measured_{i}" for i in range(inputs.shape[1])])
    spread = (targets - targets.mean()) / targets.std()
    frame["price"] = 250_000 + 100_000 * spread
    path = folder / "prices.csv"
    frame.to_csv(path, index=False)
    return on_table(
        seed,
        str(path),
        data__target="price",
        data__task="regression",
        data__preprocess={"scale": "standard", "target_scale": None},
        loss__name="mse",
    )


def rare_class(folder: Path, seed: int) -> Config:
    """One class has ten training examples."""
    (inputs, targets), validation = shuffled_split("mnist1d", seed)
    few = np.flatnonzero(targets == 3)[10:]
    kept = np.setdiff1d(np.arange(len(targets)), few)
    # validation keeps its share, so that it is judged
    path = split_npz(folder, "rare", (inputs[kept], targets[kept]), validation)
    return on_mnist1d(seed, data__source=path)


def rare_in_all(folder: Path, seed: int) -> Config:
    """One class is thirty times rarer than the others, in every split."""
    inputs, targets = arrays_of("mnist1d")
    few = np.flatnonzero(targets == 3)
    kept = np.setdiff1d(np.arange(len(targets)), few[len(few) // 30 :])
    order = np.random.default_rng(seed).permutation(kept)
    path = folder / "rare.npz"
    np.savez(path, x=inputs[order], y=targets[order])
    return on_mnist1d(seed, data__source=str(path), data__validation_fraction=0.25)


def other_validation(folder: Path, seed: int) -> Config:
    """Validation was measured with another gain and offset."""
    train, (inputs, targets) = shuffled_split("mnist1d", seed)
    path = split_npz(folder, "other", train, (inputs * 1.5 + 0.5, targets))
    return on_mnist1d(seed, data__source=path)


def sorted_split(folder: Path, seed: int) -> Config:
    """Sorted by class but for 200 examples, the last quarter for validation, unshuffled."""
    inputs, targets = arrays_of("mnist1d")
    order = np.random.default_rng(seed).permutation(len(targets))
    first, rest = order[:200], order[200:]
    order = np.concatenate([first, rest[np.argsort(targets[rest], kind="stable")]])
    cut = len(targets) * 3 // 4
    parts = [(inputs[some], targets[some]) for some in (order[:cut], order[cut:])]
    return on_mnist1d(seed, data__source=split_npz(folder, "sorted", *parts))


def twins_in_validation(folder: Path, seed: int) -> Config:
    """Half of the validation split are copies of training examples."""
    train, (inputs, targets) = shuffled_split("mnist1d", seed)
    half = len(targets) // 2
    both = (
        np.concatenate([inputs[:half], train[0][:half]]),
        np.concatenate([targets[:half], train[1][:half]]),
    )
    return on_mnist1d(seed, data__source=split_npz(folder, "twins", train, both))


def few_examples(folder: Path, seed: int) -> Config:
    """A large network without regularisation, and 200 training examples."""
    (inputs, targets), validation = shuffled_split("mnist1d", seed)
    path = split_npz(folder, "few", (inputs[:200], targets[:200]), validation)
    return on_mnist1d(
        seed,
        data__source=path,
        data__batch_size=50,
        model__features=(512, 512),
        model__dropout_rate=None,
        optim__weight_decay=0.0,
        train__epochs=150,
    )


def slow_reader(folder: Path, seed: int) -> Config:
    """Small inputs are read from large pictures, streamed; what they show is easy to learn."""
    from PIL import Image

    draw = np.random.default_rng(seed)
    root = folder / "pictures"
    for label in range(2):
        place = root / f"class_{label}"
        place.mkdir(parents=True)
        for number in range(200):
            pixels = draw.integers(0, 256, (64, 64, 3), np.uint8) // (2 - label)
            image = Image.fromarray(pixels).resize((600, 600))
            image.save(place / f"{number}.png", compress_level=1)
    return on_table(
        seed,
        str(root),
        data__image_size=(8, 8),
        data__in_memory=False,
        model__features=(16,),
        optim__learning_rate=1e-2,
        train__epochs=10,
    )


def padded_texts(folder: Path, seed: int) -> Config:
    """Texts of a few words, padded to many."""
    draw = np.random.default_rng(seed)
    words = [["bad", "poor", "dull", "weak"], ["good", "fine", "great", "strong"]]
    both = ["a", "film", "story", "is", "was", "very", "the", "plot"]
    lines = ["text,target"]
    for _ in range(1200):
        label = int(draw.integers(2))
        chosen = [*draw.choice(both, 6), *draw.choice(words[label], 2)]
        lines.append(f"{' '.join(draw.permutation(chosen))},{['no', 'yes'][label]}")
    path = folder / "texts.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return on_table(
        seed,
        str(path),
        data__target="target",
        data__text_column="text",
        data__text={"max_tokens": 64},
        data__preprocess={},
        train__epochs=5,
    )


def model_of(name: str) -> str:
    """Returns the dotted path of a broken model."""
    return f"planted_faults:{name}"


def with_model(name: str, **changes: Any) -> Callable[[Path, int], Config]:
    """Returns how to make a run of a broken model on MNIST-1D."""

    def make(folder: Path, seed: int) -> Config:
        config = on_mnist1d(seed, **changes)
        config["model"] = {"name": model_of(name), **changes.get("model", {})}
        return config

    return make


def with_keys(**changes: Any) -> Callable[[Path, int], Config]:
    """Returns how to make a run on MNIST-1D with other keys."""
    return lambda folder, seed: on_mnist1d(seed, **changes)


FAULTS: dict[str, Fault] = {
    "rate 30 times too high": Fault(
        ("learning_rate_too_high", "divergence"),
        with_keys(optim__learning_rate=0.1),
        "3e-3 is sound, 0.1 is set",
    ),
    "rate 100 times too low": Fault(
        ("learning_rate_too_low",),
        with_keys(optim__learning_rate=3e-5),
        "3e-3 is sound, 3e-5 is set",
    ),
    "leaked target": Fault(("target_leak",), leaked_target, leaked_target.__doc__ or ""),
    "wrong labels": Fault(("label_errors",), wrong_labels, wrong_labels.__doc__ or ""),
    "dead ReLUs": Fault(("dead_units",), with_model("DeadReLU"), DeadReLU.__doc__ or ""),
    "one layer off scale": Fault(
        ("layer_scale",), with_model("LayerOffScale"), LayerOffScale.__doc__ or ""
    ),
    "inputs not scaled": Fault(("input_scale",), unscaled_inputs, unscaled_inputs.__doc__ or ""),
    "target not scaled": Fault(("target_scale",), unscaled_target, unscaled_target.__doc__ or ""),
    "a class in ten examples": Fault(("class_imbalance",), rare_class, rare_class.__doc__ or ""),
    "a class thirty times rarer": Fault(
        ("class_imbalance",), rare_in_all, rare_in_all.__doc__ or ""
    ),
    "another validation": Fault(("shift",), other_validation, other_validation.__doc__ or ""),
    "split of sorted data": Fault(("shift",), sorted_split, sorted_split.__doc__ or ""),
    "twins in validation": Fault(
        ("split_leak",), twins_in_validation, twins_in_validation.__doc__ or ""
    ),
    "slow reader": Fault(("input_bound",), slow_reader, slow_reader.__doc__ or ""),
    "too few epochs": Fault(("still_improving",), with_keys(train__epochs=2), "2 epochs of 60"),
    "overfitting": Fault(("overfitting",), few_examples, few_examples.__doc__ or ""),
    "underfitting": Fault(
        ("underfitting",),
        lambda folder, seed: {**on_mnist1d(seed), "model": {"name": "linear"}},
        "a linear model of a problem that is not linear",
    ),
    "exploding gradients": Fault(
        ("exploding_gradients",), with_model("Exploding"), Exploding.__doc__ or ""
    ),
    "vanishing gradients": Fault(
        ("vanishing_gradients",),
        with_keys(
            model__features=(64,) * 12,
            model__activation="sigmoid",
            model__initializer="glorot_uniform",
            model__dropout_rate=None,
        ),
        "twelve layers of sigmoids",
    ),
    "saturated tanh": Fault(
        ("saturated_units",), with_model("SaturatedTanh"), SaturatedTanh.__doc__ or ""
    ),
    "float16 overflow": Fault(
        ("precision_overflow",),
        with_model("Overflowing", model={"dtype": "float16"}),
        Overflowing.__doc__ or "",
    ),
    "tiny batches": Fault(
        ("noisy_gradients",), with_keys(data__batch_size=1, train__epochs=2), "batches of 1"
    ),
    "padding": Fault(("padding",), padded_texts, padded_texts.__doc__ or ""),
    "evaluates all the time": Fault(
        ("dispatch_bound",),
        with_keys(train__eval_every=1, train__epochs=160, data__validation_fraction=0.5),
        "an evaluation on half of the data after each step",
    ),
}
"""Each fault's name in a report."""

BUNDLED = (
    "tabular/breast_cancer_mlp",
    "tabular/wine_mlp",
    "tabular/iris_mlp",
    "tabular/diabetes_mlp",
)
ONCE = ("sequence/mnist1d_mlp", "image/digits_cnn", "sequence/mnist1d_cnn")
"""Configs that ship and train for a minute or more: one seed."""


def bundled(name: str) -> Callable[[Path, int], Config]:
    """Returns how to make a run of a config that ships, with a seed."""

    def make(folder: Path, seed: int) -> Config:
        return {**configs.to_dict(configs.load(CONFIGS / f"{name}.py")), "seed": seed}

    return make


HEALTHY: dict[str, Callable[[Path, int], Config]] = {
    **{name: bundled(name) for name in BUNDLED},
    "an MLP on mnist1d": with_keys(),
    "a tanh MLP on mnist1d": with_keys(model__activation="tanh"),
    "an MLP on breast_cancer": lambda folder, seed: on_table(seed, "breast_cancer"),
    **{name: bundled(name) for name in ONCE},
}
"""Sound runs: those that ship, and those that faults are planted in."""
