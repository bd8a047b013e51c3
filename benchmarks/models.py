"""The models that are timed against a peer, as jdlopt configs and as PyTorch modules."""

from __future__ import annotations

from typing import Any

OPTIM = {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01}

EXPERIMENTS: dict[str, dict[str, Any]] = {
    # 40-100-100-10
    "mnist1d_mlp": {
        "data": {"source": "mnist1d", "batch_size": 100, "validation_fraction": 0.2},
        "model": {"name": "mlp", "features": (100, 100), "dropout_rate": 0.1},
        "optim": OPTIM,
    },
    # three convolutions of 25 channels, 5 taps, stride 2
    "mnist1d_cnn": {
        "data": {"source": "mnist1d", "batch_size": 100, "validation_fraction": 0.2},
        "model": {
            "name": "cnn",
            "features": (25, 25, 25),
            "kernel_size": 5,
            "strides": 2,
            "dropout_rate": None,
        },
        "optim": OPTIM,
    },
    # 3×3 convolutions of 32 and 64 channels, each followed by 2×2 max pooling
    "image_cnn": {
        "data": {"batch_size": 128},
        "model": {
            "name": "cnn",
            "features": (32, 64),
            "kernel_size": 3,
            "pool": "max",
            "dropout_rate": None,
        },
        "optim": OPTIM,
    },
    # three stages of two blocks, 16-32-64 channels
    "image_resnet": {
        "data": {"batch_size": 128},
        "model": {
            "name": "resnet",
            "stem": "cifar",
            "stage_sizes": (2, 2, 2),
            "features": (16, 32, 64),
            "dropout_rate": None,
        },
        "optim": OPTIM,
    },
    # 4 layers over 49 patches
    "image_transformer": {
        "data": {"batch_size": 128},
        "model": {
            "name": "vit",
            "patch_size": 4,
            "features": 64,
            "num_layers": 4,
            "num_heads": 4,
            "mlp_features": 256,
            "pooling": "mean",
            "dropout_rate": None,
        },
        "optim": OPTIM,
    },
}

INPUT_SHAPES = {
    "image_cnn": (28, 28, 1),
    "image_resnet": (32, 32, 3),
    "image_transformer": (28, 28, 1),
}
"""What the image models are given, where the inputs are drawn at random."""


def torch_model(name: str, dropout_rate: float | None = None) -> Any:
    """Returns the same model as a PyTorch module; a rate puts dropout after every hidden layer.

    Without one it is as in `EXPERIMENTS`: 0.1 in the perceptron, none in the convolutional ones.
    """
    from torch import nn

    rate = 0.1 if dropout_rate is None else dropout_rate
    dropped = [] if dropout_rate is None else [nn.Dropout(dropout_rate)]
    if name == "mnist1d_mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(40, 100), nn.ReLU(), nn.Dropout(rate),
            nn.Linear(100, 100), nn.ReLU(), nn.Dropout(rate),
            nn.Linear(100, 10),
        )  # fmt: skip
    if name == "mnist1d_cnn":
        return nn.Sequential(
            nn.Conv1d(1, 25, 5, stride=2, padding=2), nn.ReLU(), *dropped,
            nn.Conv1d(25, 25, 5, stride=2, padding=2), nn.ReLU(), *dropped,
            nn.Conv1d(25, 25, 5, stride=2, padding=2), nn.ReLU(), *dropped,
            nn.Flatten(), nn.Linear(5 * 25, 10),
        )  # fmt: skip
    if name == "image_resnet":
        return _torch_resnet()
    if name == "image_transformer":
        return _torch_transformer()
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(7 * 7 * 64, 10),
    )  # fmt: skip


def _torch_resnet() -> Any:
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, features: int, stride: int):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(before, features, 3, stride, 1, bias=False), nn.BatchNorm2d(features),
                nn.ReLU(), nn.Conv2d(features, features, 3, 1, 1, bias=False),
                nn.BatchNorm2d(features),
            )  # fmt: skip
            self.shortcut = nn.Sequential()
            if stride > 1:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(before, features, 1, stride, bias=False), nn.BatchNorm2d(features)
                )

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.shortcut(x))

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 16, 1), Block(16, 16, 1),
        Block(16, 32, 2), Block(32, 32, 1),
        Block(32, 64, 2), Block(64, 64, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def _torch_transformer() -> Any:
    import torch
    from torch import nn

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, 64, 4, 4)
            self.positions = nn.Parameter(torch.randn(49, 64) * 0.02)
            layer = nn.TransformerEncoderLayer(
                64, 4, 256, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
            self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
            return self.head(self.norm(self.layers(x)).mean(dim=1))

    return Transformer()


def plain_model(name: str) -> Any:
    """Returns the same model in the layers that `flax.linen` has, called with ``train``."""
    import flax.linen as nn
    import jax.numpy as jnp

    class CNN(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool) -> Any:
            for features in (32, 64):
                x = nn.max_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
            return nn.Dense(10)(x.reshape(len(x), -1))

    class ResNet(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool) -> Any:
            def conv(x: Any, features: int, size: int, stride: int) -> Any:
                edge = ((size // 2, size // 2),) * 2
                x = nn.Conv(features, (size, size), stride, edge, use_bias=False)(x)
                return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

            x = nn.relu(conv(x, 16, 3, 1))
            for features, first in ((16, 1), (32, 2), (64, 2)):
                for stride in (first, 1):
                    y = conv(nn.relu(conv(x, features, 3, stride)), features, 3, 1)
                    x = nn.relu(y + (conv(x, features, 1, stride) if stride > 1 else x))
            return nn.Dense(10)(x.mean(axis=(1, 2)))

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool) -> Any:
            x = nn.Conv(64, (4, 4), (4, 4))(x).reshape(len(x), 49, 64)
            x = x + self.param("positions", nn.initializers.normal(0.02), (49, 64))
            for _ in range(4):
                x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
                hidden = nn.gelu(nn.Dense(256)(nn.LayerNorm()(x)), approximate=False)
                x = x + nn.Dense(64)(hidden)
            return nn.Dense(10)(jnp.mean(nn.LayerNorm()(x), axis=1))

    found = {"image_cnn": CNN, "image_resnet": ResNet, "image_transformer": Transformer}
    return found[name]()
