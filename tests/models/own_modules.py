"""Modules that a user of the package could have written."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx

from jdlopt.models.layers import Dropout, dropout


class LinenNet(nn.Module):
    num_outputs: int
    width: int = 8
    noise_rate: float = 0.5
    scale: float = 1.0

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = Dropout(self.noise_rate)(x, train)
        return self.scale * nn.Dense(self.num_outputs)(x)


class NnxNet(nnx.Module):
    def __init__(
        self,
        num_outputs: int,
        inputs: int = 6,
        width: int = 8,
        noise_rate: float = 0.5,
        scale: float = 1.0,
        *,
        rngs: nnx.Rngs,
    ):
        self.hidden = nnx.Linear(inputs, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.outputs = nnx.Linear(width, num_outputs, rngs=rngs)
        self.noise_rate = noise_rate
        self.scale = jnp.asarray(scale)
        self.rngs = rngs

    def __call__(self, x, train: bool):
        x = self.norm(nnx.relu(self.hidden(x)))
        if train:
            x = dropout(self.rngs.dropout(), x, self.noise_rate)
        return self.scale * self.outputs(x)


class LinenNoTrain(nn.Module):
    num_outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_outputs)(x)


class WrongWidth(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(7)(x)


class BranchesOnFloat(nn.Module):
    num_outputs: int
    rate: float = 0.5

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Dense(self.num_outputs)(nn.Dropout(self.rate, deterministic=not train)(x))


class NotAModule:
    pass
