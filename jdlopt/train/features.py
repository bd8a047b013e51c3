"""Linear probing: what a frozen body makes of each example is computed once, for the head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from jdlopt import mesh as meshes
from jdlopt.data import preprocess
from jdlopt.data.dataset import Dataset
from jdlopt.data.pools import ArrayPool, Arrays
from jdlopt.data.spec import InputSpec
from jdlopt.models.head import features_of, head_of
from jdlopt.train.compiling import Compiler
from jdlopt.train.evaluate import Evaluator
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights


def cached(experiment: Experiment, weights: Weights, mesh: Mesh, compile: Compiler) -> Experiment:
    """Returns an experiment that trains and validates the head on features computed now.

    Its state is the same as the whole experiment's, which evaluates and predicts with it.

    Args:
      experiment: the whole experiment, its body frozen.
      weights: the model's.
      mesh: the devices.
      compile: does the compiling.
    """
    evaluator = Evaluator(experiment, mesh, compile)
    program: Callable[[Weights, PyTree[Array]], Array] | None = None

    def computed(split: str) -> Iterator[np.ndarray]:
        nonlocal program
        for batch in evaluator.batches(split):
            if program is None:
                function = jax.jit(
                    partial(_features, experiment), out_shardings=meshes.replicated(mesh)
                )
                program = compile(function.lower(weights, batch["inputs"]))
            yield np.asarray(program(weights, batch["inputs"]))

    pools = {}
    for split in ("train", "validation"):
        size = experiment.data.sizes.get(split, 0)
        if size:
            features = np.concatenate(list(computed(split)))[:size]  # without padding
            targets = experiment.data.targets(split)
            pools[split] = ArrayPool(size, partial(Arrays, features, targets))
    dataset = _of_features(experiment.data, pools)
    head = head_of(experiment.components.model, experiment.seen(1))
    recipe = preprocess.make_recipe({}, dataset.spec.input)
    components = experiment.components._replace(
        model=head,
        preprocess=lambda learnt, inputs: preprocess.apply(recipe, {}, inputs),
    )
    return dataclasses.replace(
        experiment,
        dataset=dataset,
        spec=dataset.spec,
        components=components,
        recipe=recipe,
        learnt={},
    )


def _features(experiment: Experiment, weights: Weights, inputs: PyTree[Array]) -> Array:
    seen = experiment.components.preprocess(weights.preprocess, inputs)
    return features_of(
        experiment.components.model,
        weights.params,
        weights.model_state,
        seen,
        weights.hparams["model"],
    )


def _of_features(dataset: Dataset, pools: Mapping[str, ArrayPool]) -> Dataset:
    """The dataset with features for inputs."""
    shape = next(iter(pools.values())).arrays.inputs.shape[1:]
    spec = dataclasses.replace(
        dataset.spec,
        inputs=InputSpec(shape, "float32"),
        sizes={split: len(pool) for split, pool in pools.items()},
    )
    return Dataset(spec, pools=pools, parts={split: (split, None) for split in pools})
