"""Model soups: the mean of the weights of several runs, as one model of the size of one.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time", 2022. Runs that started from the same weights usually lie in one
basin (`model.pretrained`); of runs that started apart, the mean is rarely good.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.tree_util import keystr, tree_leaves_with_path
from jaxtyping import PyTree

from jdlopt import config as configs
from jdlopt.compress.made import save_made, with_data_of
from jdlopt.compress.quantize import training_batches
from jdlopt.errors import ConfigError
from jdlopt.metrics import higher_is_better
from jdlopt.models import pruning, sown
from jdlopt.models.kernel_inputs import is_range
from jdlopt.train import checks, serve
from jdlopt.train.experiment import Experiment
from jdlopt.train.run import Run
from jdlopt.train.state import Weights
from jdlopt.train.step import Batch

STEPS = 200
"""Training batches that running statistics are estimated anew on."""


class Soup(NamedTuple):
    """Weights that were averaged.

    Attributes:
      weights: the mean.
      taken: which of the weights that were given it is the mean of, in the order of their numbers.
      value: its metric on the validation split.
    """

    weights: Weights
    taken: tuple[int, ...]
    value: float


def mean_of(weights: Sequence[Weights]) -> Weights:
    """Returns the mean of weights of one structure; of whole numbers, such as counts, the first's.

    Raises:
      ConfigError: there are none, or they differ in an array, which is named.

    Example:
      >>> one = Weights({"kernel": jnp.ones(2)}, {}, {})
      >>> other = Weights({"kernel": 3 * jnp.ones(2)}, {}, {})
      >>> mean_of([one, other]).params["kernel"].tolist()
      [2.0, 2.0]
    """
    if not weights:
        raise ConfigError("a soup needs weights of at least one run.")
    first = _shapes(weights[0])
    for number, one in enumerate(weights[1:], 2):
        other = _shapes(one)
        for name in dict.fromkeys((*first, *other)):
            if first.get(name) != other.get(name):
                raise ConfigError(
                    f"a soup needs models of one structure: {name} is {first.get(name)} in the "
                    f"first and {other.get(name)} in number {number}."
                )
        unlike = _unlike_mask(weights[0], one)
        if unlike:
            raise ConfigError(
                f"a soup of pruned models needs the same weights left in each: {unlike} differs in "
                f"number {number}, and the mean would have more weights than any. Prune one run, "
                "and begin the others from it (model.pretrained)."
            )

    def mean(*leaves: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaves[0].dtype, jnp.floating):
            return leaves[0]
        return jnp.stack([leaf.astype(jnp.float32) for leaf in leaves]).mean(axis=0)

    params, state = (
        jax.tree.map(mean, *(getattr(one, kind) for one in weights))
        for kind in ("params", "model_state")
    )
    return weights[0].replace(params=params, model_state=state)


def soup(
    experiment: Experiment, weights: Sequence[Weights], *, greedy: bool = False, steps: int = STEPS
) -> Soup:
    """Returns the mean of weights, its running statistics estimated anew on training examples.

    Args:
      experiment: of one of them, with its data.
      weights: of models of one structure.
      greedy: take them in the order of their validation metric, each only if the soup is not worse
        with it; else all.
      steps: training batches that running statistics (of batch norm) run over.

    Raises:
      ConfigError: there are none, or they are not of one structure.
    """
    metric = experiment.monitor
    sign = 1.0 if higher_is_better(metric.partition("/")[2]) else -1.0

    def made(taken: Sequence[int]) -> tuple[Weights, float]:
        found = mean_of([weights[index] for index in taken])
        if len(taken) > 1:
            found = estimated_anew(experiment, found, steps)
        value = serve.measure(experiment, found, "validation")[metric]
        assert isinstance(value, float)
        return found, value

    mean_of(weights)  # checked before anything is measured
    if not greedy:
        taken = tuple(range(len(weights)))
        found, value = made(taken)
        return Soup(found, taken, value)
    checks.check_choosing(experiment.config.data.train_on)
    alone = [made([index]) for index in range(len(weights))]
    order = sorted(range(len(weights)), key=lambda index: -sign * alone[index][1])
    taken, (found, value) = (order[0],), alone[order[0]]
    for index in order[1:]:
        more, next_value = made((*taken, index))
        if sign * next_value >= sign * value:
            taken, found, value = (*taken, index), more, next_value
    return Soup(found, tuple(sorted(taken)), value)


def estimated_anew(experiment: Experiment, weights: Weights, steps: int = STEPS) -> Weights:
    """Returns weights whose running statistics are those of training batches that they see. Pure.

    The model runs in training mode over training examples, and only its state is kept; of that,
    masks and the ranges of layers' inputs stay: those of training mode would be others.

    Args:
      experiment: with its data.
      weights: whose parameters stay.
      steps: batches, of the config's size.
    """
    if not jax.tree.leaves(weights.model_state):
        return weights
    model, preprocess = experiment.components.model, experiment.components.preprocess

    @jax.jit
    def seen(state: PyTree, batch: Batch, key: jax.Array) -> PyTree:
        inputs = preprocess(weights.preprocess, batch["inputs"])
        rates = weights.hparams["model"]
        after = model.apply(weights.params, state, inputs, rates, key=key, train=True)[1]
        return sown.without(after)

    key, state = jax.random.key(experiment.config.seed), weights.model_state
    count, size = 0, experiment.config.data.batch_size
    while count < steps:
        before = count
        for batch in training_batches(experiment, experiment.data.sizes["train"], batch_size=size):
            if count == steps or len(jax.tree.leaves(batch["inputs"])[0]) < size:
                break
            state = seen(state, batch, jax.random.fold_in(key, count))
            count += 1
        if count == before:
            break  # fewer examples than a batch
    before, after = (
        flatten_dict(one, keep_empty_nodes=True) for one in (weights.model_state, state)
    )
    stays = {path: leaf for path, leaf in before.items() if _rests("/".join(map(str, path)))}
    return weights.replace(model_state=unflatten_dict({**after, **stays}))


def _rests(path: str) -> bool:
    """Whether a path of a model's state is of what training mode would spoil."""
    return pruning.STATE in path.split("/") or is_range(path)


def soup_runs(
    runs: Sequence[Run], directory: str | Path, *, greedy: bool = False, steps: int = STEPS
) -> Run:
    """Writes the soup of finished runs as a run of its own.

    Args:
      runs: of one structure, on the same data.
      directory: the new run's.
      greedy, steps: as in `soup`.

    Raises:
      ConfigError: there are none, or they are not of one structure.
      WorkdirError: the first has not finished, or the directory holds a run.
    """
    if not runs:
        raise ConfigError("a soup needs at least one run.")
    unfinished = next((run for run in runs if not run.is_final), None)
    if unfinished is not None:
        raise ConfigError(f"a soup is of finished runs; {unfinished.workdir} has not finished.")
    experiment = with_data_of(runs[0], runs[0].config)
    found = soup(experiment, [run.weights for run in runs], greedy=greedy, steps=steps)
    how = {
        "method": "greedy soup" if greedy else "soup",
        "runs": [None if run.workdir is None else str(run.workdir) for run in runs],
        "taken": list(found.taken),
        "steps": steps,
        "configs": [configs.fingerprint(run.config) for run in runs],
    }
    return save_made(runs[0], runs[0].config, found.weights, directory, how)


def _unlike_mask(one: Weights, other: Weights) -> str | None:
    """The path of the first mask that two models do not share."""
    theirs = flatten_dict(other.model_state)
    for path, leaf in flatten_dict(one.model_state).items():
        if leaf.dtype == bool and not np.array_equal(leaf, theirs[path]):
            return "/".join(map(str, path))
    return None


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    leaves = tree_leaves_with_path((weights.params, weights.model_state))
    named = partial(keystr, simple=True, separator="/")
    return {named(path[1:]): tuple(leaf.shape) for path, leaf in leaves}
