"""Evaluation: exact metrics of a whole split, from padded batches of one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
from jax.sharding import Mesh

from jdlopt import mesh as meshes
from jdlopt.data import feed
from jdlopt.metrics.scores import Value
from jdlopt.train.compiling import Compiler
from jdlopt.train.experiment import Experiment
from jdlopt.train.predict import LARGEST
from jdlopt.train.state import Weights
from jdlopt.train.step import Batch, Collected

SMALLEST_BATCH = 64
"""A split of fewer examples is padded: the other splits use the same program."""


def batch_size_for(experiment: Experiment, split: str, mesh: Mesh) -> int:
    """Returns how many examples an evaluation dispatches, by the first split that is evaluated.

    Padding is computed, too.

    Args:
      experiment: what is evaluated.
      split: the split.
      mesh: the devices; the size is a multiple of those that split a batch.
    """
    size = max(experiment.data.sizes[split], SMALLEST_BATCH)
    most = max(1, LARGEST // max(1, experiment.spec.values_predicted))
    asked = min(experiment.config.train.eval_batch_size, size, most)
    ways = meshes.batch_ways(mesh.shape)
    return -(-asked // ways) * ways


def step_on(mesh: Mesh, experiment: Experiment) -> Callable[[Weights, Batch], Collected]:
    """Returns an experiment's `evaluate_step` as it is traced for a mesh."""

    def step(weights: Weights, batch: Batch) -> Collected:
        with meshes.splitting(mesh):
            return experiment.evaluate_step(weights, batch)

    return step


class Evaluator:
    """Evaluates splits with one compiled program, keeping small ones in device memory.

    Args:
      experiment: whose `evaluate_step` is compiled, and whose collector says what is measured.
      mesh: the devices.
      compile: does the compiling.
    """

    def __init__(self, experiment: Experiment, mesh: Mesh, compile: Compiler):
        self.experiment, self.mesh, self.compile = experiment, mesh, compile
        self.sharding = meshes.batch_sharding(mesh)
        self.batch_size = 0
        self._kept: dict[str, list[Batch]] = {}
        self._program: Callable[[Weights, Batch], Collected] | None = None

    def batches(self, split: str) -> Iterator[Batch]:
        """Yields a split on the devices, its last batch padded: ``weights`` are 0 there."""
        if split in self._kept:
            yield from self._kept[split]
            return
        if not self.batch_size:
            self.batch_size = batch_size_for(self.experiment, split, self.mesh)
        dataset = self.experiment.data
        fits = feed.fits(dataset.nbytes(split))
        rows = meshes.local_rows(self.sharding, self.batch_size)
        if fits:
            arrays = dataset.read(split)
            batches = feed.padded(arrays.inputs, arrays.targets, self.batch_size, rows)
        else:
            workers = self.experiment.config.data.workers
            batches = feed.padded_stream(
                dataset.records(split), self.batch_size, rows, workers=workers
            )
        kept: list[Batch] = []
        for batch in batches:
            placed = feed.to_device(batch, self.sharding, self.batch_size)
            if fits:
                kept.append(placed)
            yield placed
        if fits:
            self._kept[split] = kept

    def dispatch(self, split: str, weights: Weights) -> list[Collected]:
        """Hands a split's batches to the device; returns what `finish` reads later."""
        collected: list[Collected] = []
        for batch in self.batches(split):
            if self._program is None:
                function = jax.jit(
                    step_on(self.mesh, self.experiment), out_shardings=meshes.replicated(self.mesh)
                )
                self._program = self.compile(function.lower(weights, batch))
            collected.append(self._program(weights, batch))
        for leaf in jax.tree.leaves(collected):
            leaf.copy_to_host_async()
        return collected

    def finish(self, split: str, collected: list[Collected]) -> dict[str, Value]:
        """Returns ``{"split/metric": value}``; waits for the device."""
        host = jax.device_get(collected)
        found = self.experiment.collector.finish(host)
        return {f"{split}/{name}": value for name, value in found.items()}

    def __call__(self, split: str, weights: Weights) -> dict[str, Value]:
        """Returns the metrics of a whole split."""
        return self.finish(split, self.dispatch(split, weights))
