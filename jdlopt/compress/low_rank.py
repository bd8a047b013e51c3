"""Low rank: the kernels of a finished run as products of two, by their singular values.

The best approximation of a matrix by one of rank r keeps its r largest singular values: Eckart and
Young, "The approximation of one matrix by another of lower rank", 1936. What the model computes
then, and where, is `jdlopt.models.low_rank`'s. Xue, Li and Gong, "Restructuring of deep neural
network acoustic models with singular value decomposition", 2013, train on afterwards.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, PyTree

from jdlopt.compress.entry import Apply, Candidate, Given, Method, Train, TrainingBatches
from jdlopt.compress.made import save_made, with_data_of
from jdlopt.compress.plain import each_model, plain_model
from jdlopt.compress.soup import estimated_anew
from jdlopt.errors import ConfigError, listing
from jdlopt.evidence.options import SIZE, SPEED
from jdlopt.models import LowRankFields, lora
from jdlopt.models.kernel_inputs import FACTOR
from jdlopt.models.low_rank import Size, chosen_layers, layers_of
from jdlopt.train.experiment import Experiment
from jdlopt.train.run import Run
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights

ENERGIES = (0.9, 0.75, 0.5)
"""Shares of the squared singular values of each kernel that `jdlopt compress` keeps."""
_EPOCHS, _RATE = 0.5, 0.5
"""Of the baseline's, that a model of low rank is trained on with."""


class Spectrum(NamedTuple):
    """The singular values of a layer.

    Attributes:
      size: of its kernel.
      values: falling; a row for each kernel that the layer has: one, or one for each of the layers
        that a loop runs, in each model of an ensemble. They all get the same rank.
    """

    size: Size
    values: Float[np.ndarray, "kernels full"]

    def kept(self) -> Float[np.ndarray, "kernels full"]:
        """Returns the share of the squares that the largest 1, 2, … keep, of each kernel."""
        total = np.cumsum(self.values.astype(np.float64) ** 2, axis=-1)
        whole = total[:, -1:]
        return np.where(whole > 0, total / np.where(whole > 0, whole, 1.0), 1.0)

    def rank_of(self, energy: float) -> int:
        """Returns the least rank that keeps a share of the squares, in every kernel.

        Args:
          energy: in (0, 1].

        Example:
          >>> Spectrum(Size(4, 3), np.array([[3.0, 2.0, 1.0]])).rank_of(0.9)
          2
        """
        enough = self.kept() >= energy * (1 - 1e-12)  # a sum of all may round to less than 1
        return int(np.argmax(enough, axis=-1).max()) + 1

    def energy_of(self, rank: int) -> float:
        """Returns the share of the squares that a rank keeps, of the kernel that loses most."""
        return float(self.kept()[:, rank - 1].min())


def spectra(
    experiment: Experiment, weights: Weights, patterns: tuple[str, ...] = lora.KERNELS
) -> dict[str, Spectrum]:
    """Returns the singular values of the layers that can be two products, by their paths.

    Args:
      experiment: of the weights.
      weights: of a model whose layers are whole.
      patterns: regular expressions of the paths of the kernels that are looked at.

    Raises:
      ConfigError: a pattern chooses no such layer, or the model is of low rank, pruned or
        quantized already.
    """
    reason = _why_not(experiment.config)
    if reason is not None:
        raise ConfigError(f"low rank: {reason}")
    sizes = layers_of(experiment.components.model, experiment.seen(1), experiment.hparams["model"])
    chosen = chosen_layers(sizes, patterns, "patterns")
    config, weights = plain_model(experiment.config, weights)
    found: dict[str, list[np.ndarray]] = {path: [] for path in chosen}

    def look(params: PyTree) -> PyTree:
        flat = flatten_dict(params)
        for path, size in chosen.items():
            kernel = np.asarray(flat[(*path.split("/"), "kernel")], np.float64)
            matrices = kernel.reshape(-1, size.inputs, size.outputs)
            found[path].append(np.linalg.svd(matrices, compute_uv=False))
        return params

    each_model(config, weights.params, look)
    return {path: Spectrum(size, np.concatenate(found[path])) for path, size in chosen.items()}


def ranks_of(
    known: Mapping[str, Spectrum], *, energy: float | None = None, rank: int | float | None = None
) -> dict[str, int]:
    """Returns the ranks of the layers that get smaller by it; the others stay whole.

    Args:
      known: of a model's layers.
      energy: the share of each kernel's squared singular values to keep, in (0, 1].
      rank: instead of it, the same for all: a whole number, or a share in (0, 1) of the rank that a
        kernel has at most.

    Raises:
      ConfigError: both or none of them is given, one is out of its range, or no layer gets smaller.
    """
    if (energy is None) == (rank is None):
        raise ConfigError("low rank: give either an energy or a rank.")
    if energy is not None and not 0.0 < energy <= 1.0:
        raise ConfigError(f"low rank: the energy to keep is in (0, 1], found {energy!r}.")
    if rank is not None and not (rank > 0 and (rank < 1 or rank == int(rank))):
        raise ConfigError(
            f"low rank: a rank is a whole number of at least 1, or a share in (0, 1) of a kernel's "
            f"own; found {rank!r}."
        )
    asked: dict[str, int] = {}
    for path, one in known.items():
        if energy is not None:
            asked[path] = one.rank_of(energy)
        else:
            assert rank is not None
            asked[path] = max(1, round(rank * one.size.full)) if rank < 1 else int(rank)
    smaller = {path: asked[path] for path, one in known.items() if asked[path] <= one.size.largest}
    if not smaller:
        some = [f"{path} at {asked[path]} of at most {known[path].size.largest}" for path in known]
        raise ConfigError(
            f"low rank: no layer gets smaller: {listing(some, 4)}. Ask for less, such as "
            f"energy={ENERGIES[-1]:g}."
        )
    return smaller


def factors(
    kernel: Float[np.ndarray, "..."], rank: int, *, stacked: bool = False
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Returns the two kernels whose product is the best approximation of one.

    Args:
      kernel: [*taps, inputs, outputs].
      rank: of the product.
      stacked: whether the first axis is layers, each a kernel of its own.

    Returns:
      ``[*taps, inputs, rank]`` and ``[*ones, rank, outputs]``, which have equal norms.

    Example:
      >>> first, second = factors(np.outer([1.0, 2.0], [3.0, 4.0]), 1)
      >>> (first @ second).round(6).tolist()
      [[3.0, 4.0], [6.0, 8.0]]
    """
    layers, outputs = kernel.shape[: int(stacked)], kernel.shape[-1]
    matrix = kernel.astype(np.float64).reshape(*layers, -1, outputs)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    roots = np.sqrt(values[..., :rank])
    first = left[..., :rank] * roots[..., None, :]
    second = roots[..., :, None] * right[..., :rank, :]
    ones = (1,) * (kernel.ndim - len(layers) - 2)
    return (
        first.reshape(*kernel.shape[:-1], rank).astype(kernel.dtype),
        second.reshape(*layers, *ones, rank, outputs).astype(kernel.dtype),
    )


def factorized(
    config: Config, weights: Weights, ranks: Mapping[str, int]
) -> tuple[Config, Weights]:
    """Returns a model some of whose kernels are the products of two. Pure.

    Args:
      config: of a model whose layers are whole; adapters are merged.
      weights: its own.
      ranks: of layers, by their paths.

    Raises:
      ConfigError: there is no such layer, or the model is of low rank, pruned or quantized already.
    """
    reason = _why_not(config)
    if reason is not None:
        raise ConfigError(f"low rank: {reason}")
    config, weights = plain_model(config, weights)
    scanned = bool(config.model.options.get("scan_layers"))

    def split(params: PyTree) -> PyTree:
        flat = flatten_dict(params)
        for path, rank in ranks.items():
            layer = tuple(path.split("/"))
            if (*layer, "kernel") not in flat:
                raise ConfigError(f"low rank: the model has no layer {path!r}.")
            kernel = np.asarray(flat[(*layer, "kernel")])
            stacked = scanned and bool(re.search(lora.STACKED, path))
            first, second = factors(kernel, rank, stacked=stacked)
            flat[(*layer, FACTOR, "kernel")] = jnp.asarray(first)
            flat[(*layer, "kernel")] = jnp.asarray(second)
        return unflatten_dict(flat)

    model = dataclasses.replace(config.model, low_rank=LowRankFields(ranks=dict(ranks)))
    params = each_model(config, weights.params, split)
    return dataclasses.replace(config, model=model), weights.replace(params=params)


def factorize_run(
    source: Run,
    directory: str | Path,
    *,
    energy: float | None = None,
    rank: int | float | None = None,
    patterns: tuple[str, ...] = lora.KERNELS,
) -> Run:
    """Writes a finished run, its layers of low rank, as a run of its own, which can be trained on.

    Running statistics (of batch norm) are estimated anew on training examples.

    Args:
      source: the finished run.
      directory: the new run's.
      energy, rank: as in `ranks_of`.
      patterns: regular expressions of the paths of the kernels that may be split.

    Raises:
      ConfigError, DataError, WorkdirError: as `spectra`, `ranks_of` and `save_made`.
    """
    experiment = with_data_of(source, source.config)
    known = spectra(experiment, source.weights, patterns)
    ranks = ranks_of(known, energy=energy, rank=rank)
    config, weights = factorized(source.config, source.weights, ranks)
    # what a layer makes has another mean and variance than the run saw
    weights = estimated_anew(with_data_of(source, config), weights)
    asked = {"energy": energy, "rank": rank}
    how = {
        "method": "low_rank",
        **{name: value for name, value in asked.items() if value is not None},
        "layers": [
            {"layer": path, "rank": one, "of": known[path].size.full,
             "energy": known[path].energy_of(one)}
            for path, one in ranks.items()
        ],
    }  # fmt: skip
    return save_made(source, config, weights, directory, how)


# --- a method of compress -------------------------------------------------------------------------


def _why_not(config: Config) -> str | None:
    model = config.model
    if model.low_rank.on:
        return "The model is of low rank already (model.low_rank)."
    if model.prune.criterion is not None:
        return "Factors of a pruned kernel (model.prune) have no zeros: start from a whole run."
    if model.quantize.on:
        return "The model is quantized (model.quantize): that comes last."
    return None


def _split_at(
    ranks: Mapping[str, int], config: Config, weights: Weights, batches: TrainingBatches
) -> tuple[Config, Weights]:
    return factorized(config, weights, ranks)


def _candidates(given: Given) -> tuple[Candidate, ...]:
    """Ranks are of the run's own weights, and so the same for every seed: one program trains all.

    Raises:
      ConfigError: no layer gets smaller.
    """
    known = spectra(given.experiment, given.weights)
    ranks_of(known, energy=ENERGIES[-1])  # else says why
    found: dict[float, dict[str, int]] = {}
    for energy in ENERGIES:
        try:
            ranks = ranks_of(known, energy=energy)
        except ConfigError:
            continue  # of less energy, some layer is smaller
        if ranks not in found.values():
            found[energy] = ranks
    return tuple(
        Candidate(
            f"low_rank_{round(100 * energy)}",
            (
                Apply(
                    f"keep {energy:g} of each kernel's energy in two factors",
                    partial(_split_at, ranks),
                ),
                Train(epochs=_EPOCHS, rate=_RATE),
            ),
        )
        for energy, ranks in found.items()
    )


LOW_RANK = Method(
    "low_rank", (SIZE, SPEED),
    "Splits kernels into two factors by their singular values, and trains on.",
    "half a training for each energy",
    "Xue et al., Restructuring of DNN acoustic models with SVD, 2013; Zhang et al., Accelerating "
    "very deep convolutional networks, 2015", _candidates, lambda given: _why_not(given.config),
)  # fmt: skip
