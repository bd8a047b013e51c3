"""The learning-rate range test: one compiled scan in which the rate, a traced value, grows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdlopt.data import feed
from jdlopt.data.dataset import Dataset
from jdlopt.optim import ScheduleFields
from jdlopt.train.compiling import Compiler
from jdlopt.train.experiment import Experiment
from jdlopt.train.schema import Config
from jdlopt.train.state import TrainState

STEPS = 160
DECADES = 4.0
"""How many powers of ten below and above the config's rate the test goes."""
REPEATS = 3
"""Fresh starts, each with a data order of its own, whose median is read."""
WIDTH = 0.15
"""The standard deviation, in decades, of the kernel that the losses are smoothed with."""
FAST = 10.0
"""Seconds that the test may be expected to take, to be run without being asked for."""
LEARNT = 0.05
"""The share of the loss that some rate must take away, to say anything."""
MOST_BYTES = 1 << 28
"""Of examples that are read for it without being asked."""


def rates_around(rate: float, steps: int = STEPS) -> Float[np.ndarray, " steps"]:
    """Returns rates that grow exponentially, from `DECADES` below to `DECADES` above a rate.

    Example:
      >>> [float(f"{one:.3g}") for one in rates_around(0.01, 3)]
      [1e-06, 0.01, 100.0]
    """
    return rate * np.logspace(-DECADES, DECADES, steps)


def losses_by_rate(
    state: TrainState,
    data: Mapping[str, Array],
    examples: Int[Array, "steps batch"],
    rates: Float[Array, " steps"],
    *,
    experiment: Experiment,
) -> Float[Array, " steps"]:
    """Returns the training loss of each step while the rate grows from step to step. Pure.

    Args:
      state: a fresh `TrainState`.
      data: training examples.
      examples: which of them are in each step's batch.
      rates: each step's learning rate.
      experiment: what is trained, its schedule constant.
    """

    def step(state: TrainState, item: tuple[Array, Array]) -> tuple[TrainState, Array]:
        rate, chosen = item
        hparams = {**state.hparams, "optim": {**state.hparams["optim"], "learning_rate": rate}}
        batch = jax.tree.map(lambda values: values[chosen], data)
        state, measured = experiment.train_step(state.replace(hparams=hparams), batch)
        return state, measured["loss"]

    return jax.lax.scan(step, state, (rates, examples))[1]


def range_test(
    config: Config, dataset: Dataset, steps: int = STEPS, repeats: int = REPEATS
) -> dict[str, Any]:
    """Trains from fresh states with a growing rate, and reads which rates learn and which break.

    Smith, "Cyclical learning rates for training neural networks", 2017. Warm-up and schedule are
    left out; all else of the optimizer is the config's.

    Args:
      config: the run's resolved config.
      dataset: its opened dataset.
      steps: of each repeat.
      repeats: fresh starts.

    Returns:
      ``rates`` and ``losses`` (smoothed, the median of the repeats; None where not finite), what
      `read_curve` says of them, and ``seconds_a_step``.
    """
    constant = replace(
        config,
        optim=replace(config.optim, schedule=ScheduleFields()),
        train=replace(config.train, epochs=None, steps=steps),
    )
    experiment = Experiment.build(constant, dataset)
    batch_size, size = config.data.batch_size, dataset.sizes["train"]
    seed = config.seed
    orders = [
        feed.batch_examples(seed + repeat, 0, batch_size, size, steps, experiment.order)
        for repeat in range(repeats)
    ]
    needed, places = np.unique(np.stack(orders), return_inverse=True)
    places = places.reshape(repeats, steps, batch_size).astype(np.int32)
    arrays = feed.read_examples(dataset.records("train"), needed)
    data = jax.device_put({"inputs": arrays.inputs, "targets": arrays.targets})
    rates = rates_around(float(config.optim.learning_rate), steps)
    program = jax.jit(partial(losses_by_rate, experiment=experiment))
    # most of what there is to compile, and run a few times
    init = Compiler()(jax.jit(experiment.init).lower(jnp.uint32(seed)), quickly=True)
    found, seconds = [], []
    compiled: Any = None
    for repeat in range(repeats):
        state = init(jnp.uint32(seed + repeat))
        arguments = (state, data, places[repeat], rates.astype(np.float32))
        compiled = compiled or program.lower(*arguments).compile()
        start = time.perf_counter()
        found.append(np.asarray(compiled(*arguments), np.float64))
        seconds.append((time.perf_counter() - start) / steps)
    losses = np.median(np.stack(found), axis=0)
    smooth = smoothed(rates, losses)
    return {
        "rates": rates.tolist(),
        "losses": [float(one) if np.isfinite(one) else None for one in smooth],
        **read_curve(rates, smooth),
        "rate": config.optim.learning_rate,
        "seconds_a_step": float(np.median(seconds)),
    }


def affordable(dataset: Dataset, batch_size: int, seconds_a_step: float) -> bool:
    """Returns whether the test is short enough to be run without being asked for."""
    examples = min(dataset.sizes["train"], REPEATS * STEPS * batch_size)
    nbytes = dataset.nbytes("train") / max(1, dataset.sizes["train"]) * examples
    return seconds_a_step * STEPS * REPEATS < FAST and nbytes < MOST_BYTES


def smoothed(
    rates: Float[np.ndarray, " steps"], losses: Float[np.ndarray, " steps"]
) -> Float[np.ndarray, " steps"]:
    """Returns losses averaged over neighbouring rates, up to the first that is not finite."""
    finite = np.isfinite(losses)
    end = len(losses) if finite.all() else int(np.argmin(finite))
    made = np.full(len(losses), np.nan)
    places = np.log10(rates[:end])
    weights = np.exp(-0.5 * ((places[:, None] - places[None]) / WIDTH) ** 2)
    if end:
        made[:end] = weights @ losses[:end] / weights.sum(axis=1)
    return made


def read_curve(
    rates: Float[np.ndarray, " steps"], losses: Float[np.ndarray, " steps"]
) -> dict[str, float | None]:
    """Returns what a smoothed range test says.

    Returns:
      ``start``, the loss before anything was learnt; ``lowest``, the smallest loss, and
      ``best_rate``, where it is: beyond, a larger rate does harm; ``steepest``, the rate below that
      at which the loss falls fastest; ``diverges``, the first rate after it with a loss above
      ``start`` or none at all (None: up to the last rate it stays below); ``suggested``, a tenth of
      ``best_rate``. All are None where nothing was learnt at any rate.

    Example:
      >>> rates = np.logspace(-4, 1, 6)
      >>> found = read_curve(rates, np.array([2.0, 1.9, 1.0, 0.8, 5.0, np.nan]))
      >>> found["steepest"], found["best_rate"], found["diverges"]
      (0.01, 0.1, 1.0)
    """
    finite = np.isfinite(losses)
    start = float(losses[finite][0]) if finite.any() else math.nan
    best = int(np.nanargmin(losses)) if finite.any() else 0
    if best < 2 or losses[best] > (1 - LEARNT) * start:
        names = ("start", "lowest", "best_rate", "steepest", "diverges", "suggested")
        return dict.fromkeys(names)
    above = np.flatnonzero((losses > start) | ~finite)
    above = above[above > best]
    slopes = np.gradient(losses[: best + 1], np.log(rates[: best + 1]))
    return {
        "start": start,
        "lowest": float(losses[best]),
        "best_rate": float(rates[best]),
        "steepest": float(rates[int(np.argmin(slopes))]),
        "diverges": float(rates[above[0]]) if len(above) else None,
        "suggested": float(rates[best]) / 10,
    }
