"""What a prediction costs: the bytes of the weights, multiplications, and measured time."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Num, PyTree

from jdlopt.data import feed
from jdlopt.models import pruning
from jdlopt.models.pruning_plan import N_OF_M
from jdlopt.models.quantization import chooser
from jdlopt.models.summary import flops_of
from jdlopt.models.units import Path, name_of
from jdlopt.train.experiment import Experiment
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights

ROUNDS, ROUND_SECONDS = 15, 0.02
"""How often each program is timed, one after the other; about how long each time."""

Program = Callable[[], object]
"""Predicts once, on inputs that lie where it runs."""


class Timing(NamedTuple):
    """How long one call takes, in milliseconds.

    Attributes:
      median: over the rounds.
      low, high: their quartiles.
      against: the median over the rounds of this program's time as a multiple of the first's.
    """

    median: float
    low: float
    high: float
    against: float


def stored_bytes(config: Config, weights: Weights, widest: int = 64) -> int:
    """Returns the bytes of parameters and of what the model keeps beside them, as they are stored.

    Kernels of few bits (``model.quantize``) are stored as their codes and a scale for each channel
    or kernel. What is pruned (``model.prune``) is stored as a bit a number and the numbers that are
    left, where that is less; masks are no more than that.

    Args:
      config: resolved.
      weights: of its model.
      widest: bits of a parameter at most.
    """
    flat = flatten_dict(pruning.without_scores(weights.params))
    kept = {
        path: int(np.count_nonzero(np.where(np.asarray(mask), np.asarray(flat[path]), 0)))
        for path, mask in pruning.masks_of(weights.model_state).items()
    }
    return _stored(config, weights.params, weights.model_state, kept, widest)


def expected_bytes(experiment: Experiment) -> int:
    """Returns what `stored_bytes` will be of a trained model, from shapes alone.

    Of each kernel that is pruned, as large a share is taken to be left as of all together.

    Raises:
      ConfigError: the model can't be built.
    """
    state = jax.eval_shape(partial(experiment.init, experiment.config.seed))
    fields = experiment.config.model.prune
    of = N_OF_M.fullmatch(fields.structure)
    share = int(of[1]) / int(of[2]) if of else 1 - (fields.sparsity or 0.0)
    flat = flatten_dict(pruning.without_scores(state.params))
    kept = {path: round(share * flat[path].size) for path in pruning.masks_of(state.model_state)}
    return _stored(experiment.config, state.params, state.model_state, kept)


def _stored(
    config: Config, params: PyTree, state: PyTree, kept: Mapping[Path, int], widest: int = 64
) -> int:
    """The bytes of weights, or of their shapes, of which so many numbers of some are left."""
    few, total = config.model.quantize, 0
    is_coded = chooser(few.patterns)
    for path, leaf in flatten_dict(pruning.without_scores(params)).items():
        bits, scales = min(8 * leaf.dtype.itemsize, widest), 0
        if few.weights is not None and leaf.ndim >= 2 and is_coded(name_of(path)):
            bits = min(bits, math.ceil(few.weights))
            scales = 4 * (leaf.shape[-1] if few.per == "channel" else 1)
        dense = math.ceil(leaf.size * bits / 8)
        sparse = math.ceil((leaf.size + kept.get(path, leaf.size) * bits) / 8)
        total += min(dense, sparse) + scales
    beside = jax.tree.leaves(pruning.without_masks(state))
    return total + sum(leaf.size * leaf.dtype.itemsize for leaf in beside)


def multiplications(experiment: Experiment, weights: Weights) -> int:
    """Returns the multiplications with an addition (MACs) of a prediction for one example.

    Those of matrix products and convolutions count, as the model computes them: a zero counts.
    """
    inputs = examples(experiment, 1, shapes=True)
    return flops_of(experiment.predict, weights, inputs) // 2


def examples(
    experiment: Experiment, count: int, shapes: bool = False
) -> PyTree[Num[np.ndarray, "n ..."]]:
    """Returns so many raw inputs of the validation split, again from its start where it is short.

    Args:
      experiment: with its data.
      count: examples.
      shapes: give their shapes alone.
    """
    dataset = experiment.data
    chosen = np.arange(count) % dataset.sizes["validation"]
    inputs = feed.read_examples(dataset.records("validation"), chosen).inputs
    if not shapes:
        return jax.tree.map(np.asarray, inputs)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), inputs)


def program(experiment: Experiment, weights: Weights, count: int) -> Program:
    """Returns what predicts for so many examples, compiled; it waits for the result.

    What the program works out of the weights alone is worked out in each call, as it would be with
    other weights.
    """
    inputs, placed = jax.device_put((examples(experiment, count), weights))
    compiled = jax.jit(experiment.predict).lower(placed, inputs).compile()
    return lambda: jax.block_until_ready(compiled(placed, inputs))


def timed(
    programs: Mapping[str, Program],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Returns how long programs take, called in turns so that what else runs slows all alike.

    Args:
      programs: by name; the first is what the others are compared with.
      rounds: how often each is timed.
      clock: seconds.

    Example:
      >>> ticks = iter(range(10**6))
      >>> timed({"a": int, "b": int}, rounds=3, clock=lambda: float(next(ticks)))["b"].against
      1.0
    """
    calls: dict[str, int] = {}
    for name, call in programs.items():
        call()  # the first call may allocate
        started = clock()
        call()
        calls[name] = max(1, min(1000, int(ROUND_SECONDS / max(1e-7, clock() - started))))
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, call in programs.items():
            started = clock()
            for _ in range(calls[name]):
                call()
            found[name].append(1e3 * (clock() - started) / calls[name])
    first = next(iter(found.values()), [])
    return {name: _timing(values, first) for name, values in found.items()}


def _timing(values: Sequence[float], first: Sequence[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    against = statistics.median(a / b for a, b in zip(values, first, strict=True))
    return Timing(median, low, high, against)
