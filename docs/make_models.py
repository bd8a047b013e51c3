"""Writes docs/models.md: the models by family, and the parameters of their published sizes.

    python docs/make_models.py [--check]

With --check nothing is written; the exit code says whether the page is what the code makes.
Parameters are counted from shapes: no array is made.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdlopt.models import MODELS, make_model

PAGE = Path(__file__).parent / "models.md"

KINDS = {
    "linear": ("anything", "one dense layer"),
    "mlp": ("anything", "dense layers"),
    "cnn": ("sequences, images", "convolutions, any depth, in one or two dimensions"),
    "tcn": ("sequences", "residual blocks of dilated causal convolutions"),
    "gru": ("sequences, texts", "gated recurrent units, stacked, in one or both directions"),
    "lstm": ("sequences, texts", "long short-term memory, the same"),
    "speech_rnn": ("sound", "convolutions, then recurrent layers in both directions; speech too"),
    "conformer": ("sound", "attention and convolutions in turn; speech too"),
    "resnet": ("images", "residual networks, version 1.5; an ImageNet and a CIFAR stem"),
    "unet": ("images", "an encoder and a decoder of convolutions, a row of outputs a pixel"),
    "vgg": ("images", "stacks of 3×3 convolutions and dense layers"),
    "efficientnet_lite0": (
        "images",
        "inverted bottlenecks without squeeze-excitation, for small devices",
    ),
    "convnext": ("images", "depthwise convolutions and dense layers, built like a transformer"),
    "vit": ("images", "transformer layers over patches"),
    "transformer_encoder": ("texts, sequences", "the BERT family"),
    "transformer_decoder": ("texts, sequences", "the GPT family"),
    "transformer_seq2seq": (
        "pairs of texts",
        "an encoder-decoder: one text is written from another",
    ),
    "fusion": (
        "several inputs",
        "an encoder for each input; early, late and attention fusion of what they make of them",
    ),
    "two_towers": ("pairs of inputs", "an encoder for each of two inputs, embedded to be compared"),
    "wide_and_deep": ("tables", "a linear model of crossed categories, an MLP of embedded ones"),
    "realmlp": ("tables", "dense layers with periodic embeddings of numbers, tuned on many tables"),
    "tabm": ("tables", "an ensemble of perceptrons that share their kernels"),
}
"""What each model takes and is."""


class Size(NamedTuple):
    """A published size: the model section, what it is called with, and where it stands."""

    title: str
    section: dict[str, Any]
    source: str
    outputs: int = 1000
    tokens: int = 0


IMAGENET = (1, 224, 224, 3)
BERT = {"name": "transformer_encoder", "max_positions": 512, "num_types": 2}
SIZES = [
    *(
        Size(f"ResNet-{depth}", {"name": "resnet", "depth": depth}, "He et al., 2016")
        for depth in (18, 34, 50, 101, 152)
    ),
    *(
        Size(f"VGG-{depth}", {"name": "vgg", "depth": depth}, "Simonyan and Zisserman, 2015")
        for depth in (16, 19)
    ),
    Size("EfficientNet-Lite0", {"name": "efficientnet_lite0"}, "Tan and Le, 2019"),
    Size("ConvNeXt-T", {"name": "convnext"}, "Liu et al., 2022"),
    Size("ViT-Ti/16", {"name": "vit", "variant": "Ti"}, "Touvron et al., 2021"),
    Size("ViT-S/16", {"name": "vit", "variant": "S"}, "Touvron et al., 2021"),
    Size("ViT-B/16", {"name": "vit", "variant": "B"}, "Dosovitskiy et al., 2021"),
    Size(
        "BERT base, 2 classes",
        {**BERT, "features": 768, "num_layers": 12, "num_heads": 12, "pooling": "cls"},
        "Devlin et al., 2019",
        2,
        30522,
    ),
    Size(
        "MiniLM-L6, 2 classes",
        {**BERT, "features": 384, "num_layers": 6, "num_heads": 12},
        "Wang et al., 2020",
        2,
        30522,
    ),
    Size(
        "GPT-2 small, 2 classes",
        {
            "name": "transformer_decoder",
            "features": 768,
            "num_layers": 12,
            "num_heads": 12,
            "max_positions": 1024,
        },
        "Radford et al., 2019",
        2,
        50257,
    ),
]


def parameters(size: Size) -> int:
    """Returns the number of parameters of a size."""
    model = make_model(size.section, size.outputs, tokens=size.tokens)
    inputs = jnp.ones((1, 8), jnp.int32) if size.tokens else jnp.ones(IMAGENET)
    shapes, _ = jax.eval_shape(lambda key: model.init(key, inputs, {}), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def lines() -> Iterator[str]:
    """Yields the page."""
    missing = set(MODELS) ^ set(KINDS)
    if missing:
        raise KeyError(f"KINDS has to say what these are, and no others: {sorted(missing)}")
    yield "# Models"
    yield ""
    yield "Written by `python docs/make_models.py` from the code. `model.name` chooses one;"
    yield "[reference.md](reference.md) has its keys, [python.md](python.md) says how a module of"
    yield "your own takes its place, and `jdlopt train --print-model` shows a config's layers."
    yield ""
    yield "| `model.name` | takes | is |"
    yield "|---|---|---|"
    for name in MODELS:
        yield f"| `{name}` | {KINDS[name][0]} | {KINDS[name][1]} |"
    yield ""
    yield "All compute in `model.dtype`; `remat` recomputes activations where a model is deep."
    yield "`model.ensemble=5` trains five copies side by side, which start from other values and"
    yield "are each trained as if alone; what is predicted is the mean of class probabilities,"
    yield "or of their outputs. Their parameters are under `member_0/`, `member_1/` and so on."
    yield "The submodels of `tabm` share their kernels instead, and the time that these cost."
    yield ""
    yield "## Parameters of published sizes"
    yield ""
    yield "Images of 224×224×3 and 1,000 classes, where nothing else is said."
    yield ""
    yield "| size | section | parameters | from |"
    yield "|---|---|---|---|"
    for size in SIZES:
        section = ", ".join(f"{key}={value!r}" for key, value in size.section.items())
        yield f"| {size.title} | `{section}` | {parameters(size):,} | {size.source} |"
    yield ""
    yield "With the same weights the outputs are those of torchvision's and Hugging Face's"
    yield "ResNet-50, Keras' VGG-16, a PyTorch EfficientNet-Lite0 (its trained weights), Hugging"
    yield "Face's BERT, GPT-2, ViT and ConvNeXt, PyTorch's LSTM and GRU,"
    yield "to 10⁻⁴ (`tests/models/test_parity_*.py`)."


@functools.cache
def page() -> str:
    """Returns the page; tracing the models takes some seconds."""
    return "\n".join(lines()) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Writes the page, or checks it."""
    text = page()
    if "--check" in (sys.argv[1:] if arguments is None else arguments):
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{PAGE.name} is out of date: run python docs/make_models.py", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
