"""Evaluation: exact metrics of a whole split, from padded batches of one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jdlopt import config as configs
from jdlopt import mesh as meshes
from jdlopt import metrics
from jdlopt.data import feed
from jdlopt.train.compiling import Compiler
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import as_arrays
from jdlopt.train.step import eval_step, predict_step

SMALLEST_BATCH = 64
"""A split of fewer examples is padded: the other splits use the same program."""


class Evaluator:
    """Evaluates splits with one compiled program, keeping small ones in device memory."""

    def __init__(
        self,
        parts: Experiment,
        mesh: Mesh,
        compile: Compiler,
        collector: metrics.Collector | None = None,
        predict: Callable[..., Any] = predict_step,
    ):
        self.parts, self.mesh, self.compile, self.predict = parts, mesh, compile, predict
        self.collector = collector or parts.collector
        self.sharding = meshes.batch_sharding(mesh)
        self.batch_size = 0
        hparams = as_arrays(configs.hyperparameters(parts.config))
        self.hparams = meshes.put(hparams, meshes.replicated(mesh))
        self._kept: dict[str, list[Any]] = {}
        self._program: Any = None

    def _fit_batch_to(self, split: str) -> None:
        """Sets the batch size by the first split that is evaluated: padding is computed, too."""
        size = max(self.parts.dataset.sizes[split], SMALLEST_BATCH)
        asked = min(self.parts.config["train"]["eval_batch_size"], size)
        self.batch_size = -(-asked // self.mesh.size) * self.mesh.size

    def batches(self, split: str) -> Iterator[Any]:
        """Yields a split on the devices, its last batch padded: ``weights`` are 0 there."""
        if split in self._kept:
            yield from self._kept[split]
            return
        if not self.batch_size:
            self._fit_batch_to(split)
        dataset = self.parts.dataset
        fits = feed.fits(dataset.nbytes(split))
        rows = meshes.local_rows(self.sharding, self.batch_size)
        if fits:
            arrays = dataset.read(split)
            batches = feed.padded(arrays.inputs, arrays.targets, self.batch_size, rows)
        else:
            workers = self.parts.config["data"]["workers"]
            batches = feed.padded_stream(
                dataset.records(split), self.batch_size, rows, workers=workers
            )
        kept = []
        for batch in batches:
            placed = feed.to_device(batch, self.sharding, self.batch_size)
            if fits:
                kept.append(placed)
            yield placed
        if fits:
            self._kept[split] = kept

    def dispatch(self, split: str, params: Any, model_state: Any) -> list[Any]:
        """Hands a split's batches to the device; returns what `finish` reads later."""
        collected = []
        for batch in self.batches(split):
            if self._program is None:
                function = jax.jit(
                    partial(
                        eval_step,
                        model=self.parts.model,
                        loss=self.parts.loss,
                        preprocess=self.parts.preprocess,
                        collect=self.collector.collect,
                        predict=self.predict,
                    ),
                    out_shardings=meshes.replicated(self.mesh),
                )
                lowered = function.lower(params, model_state, self.hparams, batch)
                self._program = self.compile(lowered)
            collected.append(self._program(params, model_state, self.hparams, batch))
        for leaf in jax.tree.leaves(collected):
            leaf.copy_to_host_async()
        return collected

    def finish(self, split: str, collected: list[Any]) -> dict[str, Any]:
        """Returns ``{"split/metric": value}``; waits for the device."""
        host = jax.tree.map(np.asarray, collected)
        return {f"{split}/{name}": value for name, value in self.collector.finish(host).items()}

    def __call__(self, split: str, params: Any, model_state: Any) -> dict[str, Any]:
        """Returns the metrics of a whole split."""
        return self.finish(split, self.dispatch(split, params, model_state))


def full(
    parts: Experiment,
    mesh: Mesh,
    compile: Compiler,
    predict: Callable[..., Any] = predict_step,
) -> Evaluator:
    """Returns the evaluator that measures every metric that the task has.

    Args:
      parts, mesh, compile: as `Evaluator` takes them.
      predict: `predict_step`, or one that predicts otherwise from the same arguments.
    """
    task, classes = parts.dataset.task, parts.dataset.num_classes
    names = (*metrics.all_metrics(task, classes), *parts.config["train"]["metrics"])
    watched = parts.monitor.partition("/")[2]
    names = tuple(dict.fromkeys((*names, *([] if watched == "loss" else [watched]))))
    return Evaluator(parts, mesh, compile, metrics.make_collector(names, task, classes), predict)
