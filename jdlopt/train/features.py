"""Linear probing: what a frozen body makes of each example is computed once, for the head."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from jdlopt import mesh as meshes
from jdlopt.data import preprocess
from jdlopt.data.dataset import ArrayPool, Arrays, Dataset
from jdlopt.models.head import features_of, head_of
from jdlopt.train.compiling import Compiler
from jdlopt.train.evaluate import Evaluator
from jdlopt.train.experiment import Experiment


def cached(
    parts: Experiment, params: PyTree, model_state: PyTree, mesh: Mesh, compile: Compiler
) -> Experiment:
    """Returns an experiment that trains and validates the head on features computed now.

    Its state is the same as the whole experiment's, which evaluates and predicts with it.

    Args:
      parts: the whole experiment, its body frozen.
      params, model_state: the model's.
      mesh: the devices.
      compile: does the compiling.
    """
    evaluator = Evaluator(parts, mesh, compile)
    program: Any = None

    def computed(split: str) -> Iterator[np.ndarray]:
        nonlocal program
        for batch in evaluator.batches(split):
            if program is None:
                function = jax.jit(
                    partial(_preprocessed_features, parts), out_shardings=meshes.replicated(mesh)
                )
                lowered = function.lower(params, model_state, batch["inputs"], evaluator.hparams)
                program = compile(lowered)
            yield np.asarray(program(params, model_state, batch["inputs"], evaluator.hparams))

    pools = {}
    for split in ("train", "validation"):
        size = parts.dataset.sizes.get(split, 0)
        if size:
            features = np.concatenate(list(computed(split)))[:size]  # without padding
            pools[split] = ArrayPool(size, partial(Arrays, features, parts.dataset.targets(split)))
    dataset = _of_features(parts.dataset, pools)
    inputs = jax.ShapeDtypeStruct(parts.input_shape, parts.input_dtype)
    return parts._replace(
        dataset=dataset,
        model=head_of(parts.model, inputs),
        recipe=preprocess.make_recipe({}, dataset.meta()),
        preprocess_state={},
    )


def _preprocessed_features(
    parts: Experiment, params: PyTree, model_state: PyTree, inputs: Array, hparams: Any
) -> Array:
    return features_of(parts.model, params, model_state, parts.preprocess(inputs), hparams["model"])


def _of_features(dataset: Dataset, pools: Mapping[str, ArrayPool]) -> Dataset:
    """The dataset with features for inputs."""
    shape = next(iter(pools.values())).arrays.inputs.shape[1:]
    return dataclasses.replace(
        dataset,
        feature_names=None,
        input_shape=shape,
        input_dtype="float32",
        sizes={split: len(pool) for split, pool in pools.items()},
        missing="refuse",
        categories={},
        hash_buckets=None,
        text=None,
        sample_rate=None,
        pools=pools,
        parts={split: (split, None) for split in pools},
        fitted={},
        unchecked=set(),
    )
